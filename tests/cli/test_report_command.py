"""`report`: a page that is written whole or not at all, and what comes from standard input."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")

from tests.cli.program import PROGRAM, Command, environment
from traced_threadpool.cli import program as cli


def test_report_writes_a_page(command: Command, trace: Path, tmp_path: Path) -> None:
    """Where -o says, or beside the file, or to standard output."""
    assert command("report", trace, "-o", tmp_path / "run.html") == (
        f"{trace}: 1 run\nwritten to {tmp_path / 'run.html'}\n"
    )
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    command("report", trace)
    assert trace.with_suffix(".html").read_text(encoding="utf-8") == page
    assert command("report", trace, "-o", "-") == page


def test_a_page_that_cannot_be_written(command: Command, trace: Path, tmp_path: Path) -> None:
    """Says where and why; and a page never takes the place of the trace."""
    missing = tmp_path / "no" / "run.html"
    assert command("report", trace, "-o", missing, status=3) == (
        f"traced-threadpool: {str(missing)!r} cannot be written: No such file or directory; "
        f"{str(missing.parent)!r} is not a directory: create it, or write to another one\n"
    )
    assert command("report", trace, "-o", tmp_path, status=3) == (
        f"traced-threadpool: {str(tmp_path)!r} cannot be written: Is a directory; name a file in it, such as "
        f"{str(tmp_path / 'run.html')!r}\n"
    )
    (tmp_path / "link.html").symlink_to(trace)
    content = trace.read_bytes()
    for words in (
        (trace, "-o", trace),
        (trace, "-o", tmp_path / "link.html"),
        (trace, "-o", f"{tmp_path}/./trace.jsonl"),
    ):
        assert "would be overwritten" in command("report", *words, status=2)
    assert trace.read_bytes() == content
    named_so = trace.rename(tmp_path / "trace.html")
    assert "would be overwritten" in command("report", named_so, status=2)


@pytest.mark.skipif(sys.platform != "linux", reason="that a process may write no more is said as Linux does")
@pytest.mark.parametrize(("killed", "status"), [(False, 3), (True, -25)], ids=["full", "killed"])
def test_a_page_that_is_half_written_takes_nobodys_place(
    trace: Path, tmp_path: Path, killed: bool, status: int
) -> None:
    """Where no more than 100 kB may be written, or the program is killed for them: the old page is still there."""
    page = tmp_path / "run.html"
    page.write_text("the old one")
    page.chmod(0o640)
    program = (
        "import resource, signal, sys; from traced_threadpool.cli import program as cli; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
        f"signal.signal(signal.SIGXFSZ, signal.{'SIG_DFL' if killed else 'SIG_IGN'}); sys.exit(cli.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, "report", str(trace), "-o", str(page)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=150, check=False)
    assert done.returncode == status, done.stderr
    assert page.read_text() == "the old one"
    if not killed:
        assert done.stderr == f"traced-threadpool: {str(page)!r} cannot be written: File too large\n"
        assert sorted(tmp_path.iterdir()) == [page, trace]
    assert cli.main(["report", str(trace), "-o", str(page)]) == 0
    assert page.read_text(encoding="utf-8").endswith("</html>\n")
    assert page.stat().st_mode & 0o777 == 0o640


def test_a_page_to_what_is_no_file(trace: Path, tmp_path: Path) -> None:
    """A pipe is written to and not replaced; nor is a link, which goes on leading to the page."""
    pipe, link = tmp_path / "pipe", tmp_path / "link.html"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "run.html")
    with subprocess.Popen(
        [*PROGRAM, "report", trace, "-o", pipe], stdout=subprocess.PIPE, env=environment()
    ) as process:
        through_pipe = pipe.read_text(encoding="utf-8")
        process.communicate(timeout=150)
    assert cli.main(["report", str(trace), "-o", str(link)]) == 0
    assert link.is_symlink()
    assert (tmp_path / "run.html").read_text(encoding="utf-8") == through_pipe


def test_from_standard_input(trace: Path, tmp_path: Path) -> None:
    """`grep ... | traced-threadpool explain -`, packed or not; a page of it needs a name."""
    content = trace.read_bytes()

    def piped(*words: object, of: bytes = content) -> tuple[int, str, str]:
        done = subprocess.run(
            [*PROGRAM, *map(str, words)], input=of, capture_output=True, env=environment(), timeout=150, check=False
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    status, text, said = piped("explain", "-")
    assert (status, said) == (0, "")
    assert text.startswith("standard input: 1 run\netl: 944 ms, 60 nodes")
    assert piped("explain", "-", of=gzip.compress(content)) == (status, text, said)
    assert json.loads(piped("diff", "-", trace, "--json")[1])["change"] == 0
    assert piped("explain", "-", "--run", "7")[::2] == (
        4, "traced-threadpool: standard input has no run '7'; it has 1 run (ids: run-1)\n"
    )  # fmt: skip
    assert piped("report", "-")[0] == 2
    assert piped("report", "-", "-o", tmp_path / "run.html")[0] == 0
    assert (tmp_path / "run.html").exists()
    status, _, said = piped("explain", "-", of=b"")
    assert (status, said.split(";")[0]) == (3, "traced-threadpool: standard input is empty")
