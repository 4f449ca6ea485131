"""The command line as a process: terminals, pipes, interruptions, extras that are missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.analysis.synthetic_runs import layered_run, write_trace
from tests.dags import eventually
from traced_threadpool.report.explanation import explain

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")

from tests.cli.program import PROGRAM, RUN, Command, environment
from traced_threadpool.cli.input_files import LARGE_BYTES


def test_as_a_module(trace: Path) -> None:
    """`python -m traced_threadpool` is the command, and prints the same."""
    done = subprocess.run(
        [*PROGRAM, "explain", trace, "--json"], capture_output=True, env=environment(), timeout=150, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["run"]["id"] == "run-1"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_terminal_that_lacks_letters(tmp_path: Path, encoding: str) -> None:
    """Names outside of its alphabet are shown as question marks rather than ending the program."""
    trace = write_trace(tmp_path / "trace.jsonl", layered_run(1, node_names=["ünïcödé_节点_🐢"], layers=1))
    done = subprocess.run(
        [*PROGRAM, "explain", trace],
        capture_output=True,
        env=environment(PYTHONIOENCODING=encoding),
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert ("节点" in done.stdout.decode(encoding)) == (encoding == "utf-8")


@pytest.mark.parametrize("words", [["explain"], ["explain", "--json"], ["report", "-o", "-"]])
def test_a_reader_that_goes_away(trace: Path, words: list[str]) -> None:
    """`... | head -1` ends it with 141 and without a word."""
    reading, writing = os.pipe()
    os.close(reading)  # before the first word, so that it is no race
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [*PROGRAM, words[0], trace, *words[1:]],
            stdout=gone,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=150,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="there is no device here that is always full")
@pytest.mark.parametrize(
    "words", [["explain"], ["explain", "--json"], ["report", "-o", "-"], ["diff"], ["explain", "--help"]]
)
def test_an_output_that_is_full(trace: Path, words: list[str]) -> None:
    """`... > file` on a full disk: says so in a sentence; status 3."""
    files = [trace] * (2 if words == ["diff"] else 1)
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, words[0], *files, *words[1:]],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=150,
            check=False,
        )
    said = b"traced-threadpool: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (3, said)


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the output")
def test_an_output_that_is_closed(trace: Path, tmp_path: Path) -> None:
    """`>&-`, as of a program that is started without any: what there is to do is done, and nobody is told."""
    page = tmp_path / "run.html"
    for words in (["explain", trace], ["report", trace, "-o", page]):
        shell = ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, *words]
        done = subprocess.run(shell, stderr=subprocess.PIPE, env=environment(), timeout=150, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    assert page.read_text(encoding="utf-8").endswith("</html>\n")


def test_a_terminal_of_no_width(trace: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """`COLUMNS=0`, as where nobody knows the width: the same as if nothing were said."""
    monkeypatch.delenv("COLUMNS", raising=False)
    usual = command("explain", trace)
    monkeypatch.setenv("COLUMNS", "0")
    assert command("explain", trace) == usual


def test_a_narrow_terminal(trace: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences are broken where it ends, tables between their words; all words are there."""
    monkeypatch.setenv("COLUMNS", "50")
    printed = command("explain", trace)
    for name in {step.name for step in explain(RUN).path.nodes}:
        assert name in printed
    sentences = printed.partition("Critical path")[0].splitlines()[1:]
    assert max(map(len, sentences)) <= 50


def test_interrupted_while_it_starts() -> None:
    """Importing it takes a moment, and Hamilton, which takes another, is not imported at all."""
    program = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *more):\n"
        "        if name == 'click':\n"
        "            raise KeyboardInterrupt\n"
        "from traced_threadpool.__main__ import main\n"
        "print('hamilton' in sys.modules)\n"
        "sys.stdout.flush()\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=environment(), timeout=150, check=False
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (130, [b"False"], b"")


def is_in_a_call_on(pid: int, file: Path) -> bool:
    """Whether a process is in a system call whose first argument is a descriptor of that file."""
    words = Path(f"/proc/{pid}/syscall").read_text().split()
    link = Path(f"/proc/{pid}/fd/{int(words[1], 16)}") if len(words) > 2 else None
    return link is not None and link.is_symlink() and link.readlink() == file


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="that a program reads is seen in /proc")
def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C while a file is read ends it with 130 and without a traceback."""
    fifo = tmp_path / "trace.jsonl"
    os.mkfifo(fifo)
    with subprocess.Popen([*PROGRAM, "explain", fifo], stderr=subprocess.PIPE, env=environment()) as process:
        with fifo.open("w"):  # opens when the program does: it reads now, and gets nothing
            # One that comes just before the program reads would be noticed after that, which has no end.
            assert eventually(lambda: is_in_a_call_on(process.pid, fifo))
            process.send_signal(signal.SIGINT)
            assert process.wait(150) == 130
        assert process.stderr is not None
        assert process.stderr.read().strip() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(
    ("nodes", "on_terminal", "shown"), [(7_500, True, True), (7_500, False, False), (60, True, False)]
)
def test_reading_a_large_file_is_shown_on_a_terminal(
    tmp_path: Path, nodes: int, on_terminal: bool, shown: bool
) -> None:
    """On standard error, and nowhere else; not for a small file, and not where nobody looks."""
    import pty

    runs = (layered_run(60, seed=seed, run_id=f"run-{seed}") for seed in range(nodes // 60))
    trace = write_trace(tmp_path / "trace.jsonl", *runs)
    assert (trace.stat().st_size > LARGE_BYTES) == (nodes > 60)
    ours, theirs = pty.openpty()
    surroundings = {**environment(), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*PROGRAM, "explain", trace],
        stdout=subprocess.PIPE,
        stderr=theirs if on_terminal else subprocess.PIPE,
        env=surroundings,
    ) as process:
        os.close(theirs)
        said = b"".join(_until_hung_up(ours)) if on_terminal else b""
        os.close(ours)
        printed, piped = process.communicate(timeout=150)
    assert process.returncode == 0
    assert (b"reading" in said, bool(said), bool(piped)) == (shown, shown, False)
    assert b"MB" in said or not shown  # how much of how much
    assert printed.startswith(str(trace).encode())
    assert b"\x1b" not in printed
    assert b"\r" not in printed


def _until_hung_up(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal; Linux calls it an input/output error when nobody can write to it any more."""
    while True:
        try:
            piece = os.read(terminal, 4_096)
        except OSError:
            return
        if not piece:
            return
        yield piece


def test_without_the_extra(trace: Path) -> None:
    """The command says what to install; the package itself never imports click or rich."""
    hidden = "import sys; sys.modules['click'] = None; from traced_threadpool.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden], capture_output=True, env=environment(), timeout=150, check=False
    )
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"pip install 'traced_threadpool[report]'" in done.stderr
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, traced_threadpool; print({'click', 'rich'} & sys.modules.keys())"],
        capture_output=True,
        env=environment(),
        timeout=150,
        check=True,
    )
    assert loaded.stdout.strip() == b"set()"
