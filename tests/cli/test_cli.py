"""The command line: what each command prints, for people and for programs, and how it fails."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run, slowed, write_trace
from tests.dags import eventually
from traced_threadpool.analysis.difference import compare
from traced_threadpool.analysis.trace_file import read_runs
from traced_threadpool.model.formatting import duration
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.explanation import explain
from traced_threadpool.report.verdict import path_name

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")

from traced_threadpool.cli import commands as cli

RUN = layered_run()
SHORT = layered_run(10, seed=1, run_id="run-2", run_name="small")
PROGRAM = [sys.executable, "-m", "traced_threadpool"]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A file with one run."""
    return write_trace(tmp_path / "trace.jsonl", RUN)


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A file with two runs, of which the first is longer."""
    return write_trace(tmp_path / "both.jsonl", RUN, SHORT)


class Command:
    """Runs the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, status: int = 0) -> str:
        """What it prints, on standard error if it fails; it must end with `status`."""
        assert cli.main([str(word) for word in words]) == status, self._capsys.readouterr()
        found = self._capsys.readouterr()
        assert (found.err == "") == (status == 0), found.err
        return found.err if status else found.out

    def json(self, *words: object) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


# explain


def test_explain_says_what_took_the_time(command: Command, trace: Path) -> None:
    """The verdict, the path, the states, the nodes, more workers; as plain text, since this is no terminal."""
    text = command("explain", trace)
    assert text.startswith(f"{trace}: 1 run\netl: 944 ms, 60 nodes, 4 workers, 2 CPUs, success, run run-1\n\n1. ")
    for heading in (
        "Critical path",
        "Where the nodes' time went",
        "Nodes that took most",
        "What more workers would give",
    ):
        assert f"\n{heading}" in text
    assert "\x1b" not in text


def test_explain_as_json(command: Command, trace: Path) -> None:
    """The documented fields, the run's own figures, and where it is from."""
    found = command.json("explain", trace)
    (run,) = read_runs(trace)
    assert {key: found[key] for key in ("schema", "command", "file", "run_number")} == {
        "schema": 1,
        "command": "explain",
        "file": str(trace),
        "run_number": 1,
    }
    assert found["run"]["duration"] == run.duration_ns / 1e9
    assert [set(finding) for finding in found["findings"]] == [
        {"cause", "title", "nodes", "evidence", "advice", "gain"}
    ] * len(found["findings"])
    assert sum(found["critical_seconds"].values()) == pytest.approx(found["run"]["duration"])


@pytest.mark.parametrize("words", [["explain"], ["what-if", "--workers", "4"], ["diff"]])
def test_every_field_of_the_json_is_documented(command: Command, trace: Path, words: list[str]) -> None:
    """`docs/command-line.md` names each."""
    documented = (Path(__file__).parent.parent.parent / "docs" / "command-line.md").read_text()
    files = [trace] * (2 if words == ["diff"] else 1)
    found = command.json(words[0], *files, *words[1:])

    def fields(value: Any, *, of_names: bool = False) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(fields, value))
        if not isinstance(value, dict):
            return set()
        by_name = ("critical_seconds", "states", "gil_holders", "path_changes", "faster")
        inner = [fields(part, of_names=key in by_name) for key, part in value.items()]
        return set().union(set() if of_names else value.keys(), *inner)

    assert {field for field in fields(found) if f"`{field}`" not in documented} == set()


def test_explain_a_run_of_bad_names(command: Command, tmp_path: Path) -> None:
    """What a terminal would obey is shown as text."""
    names = [name for name in NASTY_NAMES if "\ud800" not in name]
    trace = write_trace(tmp_path / "nasty.jsonl", layered_run(20, node_names=names, layers=2))
    assert "\x1b" not in command("explain", trace)
    named_so = trace.rename(tmp_path / "[bold]nasty.jsonl")
    assert command("explain", named_so).startswith(f"{named_so}: 1 run\n")
    trace = named_so
    assert {each["name"] for each in command.json("explain", trace)["nodes"]} >= set(names)


# Several runs in a file


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ((), "run-1"),
        (("--run", "longest"), "run-1"),
        (("--run", "last"), "run-2"),
        (("--run", "2"), "run-2"),
        (("--run", "run-2"), "run-2"),
    ],
)
def test_which_run(command: Command, both: Path, which: tuple[str, ...], expected: str) -> None:
    """The longest, unless a number, an id or `last` asks for another; all are listed for programs."""
    found = command.json("explain", both, *which)
    assert found["run"]["id"] == expected
    assert [run["id"] for run in found["runs"]] == ["run-1", "run-2"]
    assert found["runs"][found["run_number"] - 1]["id"] == expected


def test_the_longest_run_is_not_the_first(command: Command, tmp_path: Path) -> None:
    """Which one it is does not hang on the order."""
    trace = write_trace(tmp_path / "trace.jsonl", SHORT, RUN, SHORT)
    found = command.json("explain", trace)
    assert (found["run_number"], found["run"]["id"]) == (2, "run-1")


def test_the_output_says_that_there_are_more_runs(command: Command, both: Path) -> None:
    """And how to get them."""
    assert command("explain", both).startswith(f"{both}: run 1 of 2, the longest (--run picks another)\n")


def test_a_run_that_is_not_there(command: Command, both: Path) -> None:
    """Names what was asked for and what there is; an id's beginning that fits two runs is no choice."""
    assert command("explain", both, "--run", "7", status=4) == (
        f"traced-threadpool: {str(both)!r} has no run '7'; it has 2 runs, 1 to 2 (ids: run-1, run-2)\n"
    )
    assert "2 runs whose ids begin with 'run'" in command("explain", both, "--run", "run", status=4)


# what-if


def test_what_if_options_combine(command: Command, trace: Path) -> None:
    """Each number of workers gets a row; making the longest node of the path faster makes the run shorter."""
    node = max((node for node in RUN.nodes), key=lambda node: node.duration_ns).name
    text = command(
        "what-if",
        trace,
        "--workers",
        "8,4",
        "--faster",
        f"{node}=4x",
        "--no-gil",
        "--cpus",
        "8",
        "--priority",
        "fifo",
    )
    assert f"{node} 4x faster, no GIL, 8 CPUs" in text
    assert re.search(r"^\s*4\s.*-.*\n\s*8\s", text, re.MULTILINE)


def test_what_if_as_json(command: Command, trace: Path, tmp_path: Path) -> None:
    """Nothing changed gives the run as it was; taking a node out is a change."""
    same = command.json("what-if", trace)
    assert [point["workers"] for point in same["predictions"]] == [4]
    assert same["predictions"][0]["makespan"] == pytest.approx(RUN.duration_ns / 1e9, rel=0.02)
    last = max(RUN.nodes, key=lambda node: node.ended_ns).name
    less = command.json("what-if", trace, "--without", last, "--workers", "4,64")
    assert less["settings"] == {"faster": {}, "without": [last], "cpus": None, "gil": True, "priority": None}
    assert less["predictions"][0]["change"] < 0
    found = command.json("what-if", trace, "--workers", "8,2,8", "--priority", "critical_path", "--cpus", "9")
    assert [point["workers"] for point in found["predictions"]] == [2, 8]
    assert {key: found["settings"][key] for key in ("priority", "cpus")} == {
        "priority": "critical_path",
        "cpus": 9,
    }
    unknown = write_trace(tmp_path / "unknown.jsonl", layered_run(states=False))
    assert "note: no states recorded of 60 nodes" in command("what-if", unknown)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--faster", "load"), "'load' is no node and a factor above 0; write it as parse=2x"),
        (("--faster", "load=fast"), "'load=fast' is no node and a factor above 0"),
        (("--faster", "load=-1"), "'load=-1' is no node and a factor above 0"),
        (("--faster", "=2x"), "'=2x' is no node and a factor above 0"),
        (("--faster", "load=inf"), "'load=inf' is no node and a factor above 0"),
        (("--faster", f"{RUN.nodes[0].name}=1e-300"), "is 1e-300; it must be 1e-06 at least, a million times slower"),
        (("--faster", "load=2x,parse=3x"), "'load=2x,parse=3x' has more than one node; write --faster before each"),
        (("--faster", "load=2x", "--faster", "load=3x"), "'load' is there twice; write it once, with the factor"),
        (("--workers", "four"), "'four' is no list of whole numbers; write it as 4,8,16"),
        (("--workers", "0"), "'0' has a number below 1; a pool has at least one worker"),
        (("--workers", "4,,8"), "'4,,8' is no list of whole numbers; write it as 4,8,16"),
        (("--cpus", "0"), "0 is not in the range x>=1"),
        (("--cpus", "1.5"), "'1.5' is not a valid whole number"),
        (("--priority", "lifo"), "'lifo' is not one of 'fifo', 'critical_path'"),
        (("--without", "no_such_node"), "no node 'no_such_node' in the record"),
        (("--sideways",), "No such option"),
    ],
)
def test_settings_that_make_no_sense(command: Command, trace: Path, words: tuple[str, ...], message: str) -> None:
    """What was found and what to write instead; status 2."""
    assert message in command("what-if", trace, *words, status=2)


@pytest.mark.parametrize("option", ["--faster", "--without"])
def test_a_name_that_is_nearly_one_is_answered_with_it(command: Command, trace: Path, option: str) -> None:
    """Both options that take a node's name."""
    right = RUN.nodes[0].name
    wrong = right.replace("_", "-")
    message = command("what-if", trace, option, f"{wrong}=2x" if option == "--faster" else wrong, status=2)
    assert f"no node {wrong!r} in the record; did you mean" in message
    assert repr(right) in message


# report, diff, demo


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
        f"{str(missing.parent)!r} is no directory: make it, or name a file elsewhere\n"
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
        "import resource, signal, sys; from traced_threadpool.cli import commands as cli; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
        f"signal.signal(signal.SIGXFSZ, signal.{'SIG_DFL' if killed else 'SIG_IGN'}); sys.exit(cli.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, "report", str(trace), "-o", str(page)]
    done = subprocess.run(words, capture_output=True, text=True, env=_environment(), timeout=150, check=False)
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
        [*PROGRAM, "report", trace, "-o", pipe], stdout=subprocess.PIPE, env=_environment()
    ) as process:
        through_pipe = pipe.read_text(encoding="utf-8")
        process.communicate(timeout=150)
    assert cli.main(["report", str(trace), "-o", str(link)]) == 0
    assert link.is_symlink()
    assert (tmp_path / "run.html").read_text(encoding="utf-8") == through_pipe


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_from_standard_input(trace: Path, tmp_path: Path, packed: bool) -> None:
    """`grep ... | traced-threadpool explain -`; a page of it needs a name."""
    content = trace.read_bytes()

    def piped(*words: object, of: bytes = gzip.compress(content) if packed else content) -> tuple[int, str, str]:
        done = subprocess.run(
            [*PROGRAM, *map(str, words)], input=of, capture_output=True, env=_environment(), timeout=150, check=False
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    status, text, said = piped("explain", "-")
    assert (status, said) == (0, "")
    assert text.startswith("standard input: 1 run\netl: 944 ms, 60 nodes")
    assert json.loads(piped("diff", "-", trace, "--json")[1])["change"] == 0
    assert piped("explain", "-", "--run", "7")[::2] == (
        4, "traced-threadpool: standard input has no run '7'; it has 1 run (ids: run-1)\n"
    )  # fmt: skip
    assert piped("report", "-")[0] == 2
    assert piped("report", "-", "-o", tmp_path / "run.html")[0] == 0
    assert (tmp_path / "run.html").exists()
    status, _, said = piped("explain", "-", of=b"")
    assert (status, said.split(";")[0]) == (3, "traced-threadpool: standard input is empty")


def test_diff_names_what_got_slower(command: Command, trace: Path, tmp_path: Path) -> None:
    """The node at the run's end takes twice as long: it is named, and it matters."""
    last = max(RUN.nodes, key=lambda node: node.ended_ns)
    after = write_trace(tmp_path / "after.jsonl", slowed(RUN, last.name, 2))
    found = command.json("diff", trace, after)
    assert (found["nodes"][0]["name"], found["nodes"][0]["kind"], found["nodes"][0]["matters"]) == (
        last.name,
        "slower",
        True,
    )
    assert sum(found["path_changes"].values()) == pytest.approx(found["change"])
    text = command("diff", trace, after)
    assert "The run took 944 ms before and" in text
    assert re.search(rf"yes\s+{last.name}\s*$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "later", [layered_run(mean_ms=60.0), layered_run(seed=3, workers=3)], ids=["slower", "another"]
)
def test_what_diff_prints(command: Command, trace: Path, tmp_path: Path, later: RecordedRun) -> None:
    """How the runs differ, what the change is made of, and the nodes that changed; of either the ten first."""
    after = write_trace(tmp_path / "after.jsonl", later)
    (first,), (second,) = read_runs(trace), read_runs(after)
    found = compare(first, second)

    def shown(ns: int, *, signed: bool = False) -> str:
        return ("+" if signed and ns > 0 else "") + duration(ns).replace("µ", "u")

    on_path = {node.name: node for node in found.nodes}
    parts = list(found.path_change_ns.items())
    made_of = [
        [*([shown(on_path[name].before.path_ns), shown(on_path[name].after.path_ns)] if name in on_path else []),
         shown(by_ns, signed=True), path_name(name)]
        for name, by_ns in parts[:10]
    ]  # fmt: skip
    if len(parts) > 10:
        rest_ns = sum(by_ns for _, by_ns in parts[10:])
        made_of.append([shown(rest_ns, signed=True), f"({len(parts) - 10} others)"])
    changed = sorted((node for node in found.nodes if node.kind != "same"), key=lambda node: -abs(node.change_ns))
    nodes = []
    for node in changed[:10]:
        state, by_ns = max(node.state_change_ns.items(), key=lambda each: abs(each[1]))
        nodes.append(
            [
                shown(node.before.duration_ns) if node.before.count else "-",
                shown(node.after.duration_ns) if node.after.count else "-",
                node.kind if node.kind in ("new", "gone") else shown(node.change_ns, signed=True),
                f"{state} {shown(by_ns, signed=True)}",
                "yes" if node in found.mattering else "no",
                node.name,
            ]
        )
    text = command("diff", trace, after)
    tables = [
        [re.split(r"\s{2,}", line.strip()) for line in part.split("\n\n")[0].splitlines()[3:]]
        for part in re.split(r"\n(?=What the change|Nodes that changed)", text)[1:]
    ]
    assert tables == [made_of, nodes]
    assert len(changed) > 10
    assert f"(the first 10 of {len(changed)})" in text
    for note in found.notes:
        assert f"\nnote: {note}\n" in text


def test_diff_of_two_runs_of_one_file(command: Command, both: Path) -> None:
    """Each file has its own choice, which is the longest run unless it is made; both are named."""
    found = command.json("diff", both, both, "--run-after", "last")
    assert [found[side]["id"] for side in ("before", "after")] == ["run-1", "run-2"]
    assert found["change"] == pytest.approx((SHORT.duration_ns - RUN.duration_ns) / 1e9)
    text = command("diff", both, both, "--run-before", "2")
    assert text.splitlines()[:2] == [
        f"{both}: run 2 of 2 (--run-before picks another)",
        f"{both}: run 1 of 2, the longest (--run-after picks another)",
    ]
    assert "has no run '7'" in command("diff", both, both, "--run-before", "7", status=4)
    assert "has no run '8'" in command("diff", both, both, "--run-after", "8", status=4)


def test_diff_of_a_run_with_itself(command: Command, trace: Path) -> None:
    """Nothing changed, and that is what it says."""
    text = command("diff", trace, trace)
    assert "no change" in text
    assert "No node got slower or faster" in text


def test_demo(command: Command, tmp_path: Path) -> None:
    """Runs, explains itself, and leaves a trace and a page; a second time it begins anew."""
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra [report]")
    for _ in range(2):
        text = command("demo", "-d", tmp_path / "demo", "--workers", "3")
    assert text.startswith("demo: ")
    (run,) = read_runs(tmp_path / "demo" / "trace.jsonl")
    assert (run.outcome, len(run.nodes), run.max_workers) == ("success", 34, 3)
    assert (tmp_path / "demo" / "run.html").stat().st_size > 1_000_000
    (tmp_path / "file").touch()
    assert "cannot be written to" in command("demo", "-d", tmp_path / "file" / "demo", status=3)


# Files that are no trace


@pytest.mark.parametrize(
    ("content", "name"),
    [(None, "missing.jsonl"), (b"", "empty.jsonl"), (b"\xff\x00", "bytes.jsonl"), (b'{"a": 1}\n', "other.json")],
)
def test_a_file_that_is_no_trace(command: Command, tmp_path: Path, content: bytes | None, name: str) -> None:
    """One sentence that names the file; status 3."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    message = command("explain", tmp_path / name, status=3)
    assert message.startswith("traced-threadpool: ")
    assert name in message
    assert "Traceback" not in message


def test_a_directory_is_no_trace(command: Command, tmp_path: Path) -> None:
    """The same status, whichever command; and what to name in place of it."""
    for words in (["explain"], ["what-if"], ["report"], ["diff", tmp_path]):
        message = command(*words, tmp_path, status=3)
        assert message.startswith(f"traced-threadpool: {str(tmp_path)!r} is a directory; name a file in it, such as ")


def test_help_is_there_for_every_command(command: Command) -> None:
    """And says what the command does, with its options."""
    overview = command("--help")
    for name in ("explain", "what-if", "report", "diff", "demo"):
        assert re.search(rf"^  {name} ", overview, re.MULTILINE)
        assert "Usage: traced-threadpool " + name in command(name, "--help")
    assert "Exit status" in overview
    assert command("--version").startswith("traced-threadpool, version ")


# As a process


def _environment(**more: str) -> dict[str, str]:
    # As in a shell: what is printed waits in a buffer.
    return {**os.environ, "HAMILTON_TELEMETRY_ENABLED": "false", "PYTHONUNBUFFERED": "", **more}


def test_as_a_module(trace: Path) -> None:
    """`python -m traced_threadpool` is the command, and prints the same."""
    done = subprocess.run(
        [*PROGRAM, "explain", trace, "--json"], capture_output=True, env=_environment(), timeout=150, check=False
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
        env=_environment(PYTHONIOENCODING=encoding),
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
            env=_environment(),
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
            env=_environment(),
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
        done = subprocess.run(shell, stderr=subprocess.PIPE, env=_environment(), timeout=150, check=False)
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
        [sys.executable, "-c", program], capture_output=True, env=_environment(), timeout=150, check=False
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
    with subprocess.Popen([*PROGRAM, "explain", fifo], stderr=subprocess.PIPE, env=_environment()) as process:
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
    assert (trace.stat().st_size > cli.LARGE_BYTES) == (nodes > 60)
    ours, theirs = pty.openpty()
    environment = {**_environment(), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*PROGRAM, "explain", trace],
        stdout=subprocess.PIPE,
        stderr=theirs if on_terminal else subprocess.PIPE,
        env=environment,
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


def test_the_demo_without_the_sdk(tmp_path: Path) -> None:
    """It writes a trace, so it says what to install; the status is that of a missing extra."""
    hidden = "import sys; sys.modules['opentelemetry.sdk'] = None; from traced_threadpool.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "demo", "-d", tmp_path],
        capture_output=True,
        env=_environment(),
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, b"")
    assert re.match(rb"traced-threadpool: opentelemetry\.sdk\S* is not installed; the demo needs the", done.stderr)
    assert b"pip install 'traced_threadpool[report]'" in done.stderr


def test_without_the_extra(trace: Path) -> None:
    """The command says what to install; the package itself never imports click or rich."""
    hidden = "import sys; sys.modules['click'] = None; from traced_threadpool.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden], capture_output=True, env=_environment(), timeout=150, check=False
    )
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"pip install 'traced_threadpool[report]'" in done.stderr
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, traced_threadpool; print({'click', 'rich'} & sys.modules.keys())"],
        capture_output=True,
        env=_environment(),
        timeout=150,
        check=True,
    )
    assert loaded.stdout.strip() == b"set()"


_MEASURED = (
    "import re, resource, sys; from pathlib import Path; from traced_threadpool.cli import commands as cli; "
    "status = cli.main(sys.argv[1:]); "
    # What `getrusage` tells on Linux is that of the process that started this one, where that had more.
    "own = Path('/proc/self/status'); found = own.exists() and re.search(r'VmHWM:\\s+(\\d+) kB', own.read_text()); "
    "peak = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
    "print(peak, file=sys.stderr); sys.exit(status)"
)


def _measured(*words: object, timeout: float) -> tuple[str, int]:
    """What a command prints, and the most memory that it took, in kilobytes."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, words)],
        capture_output=True,
        env=_environment(),
        timeout=timeout,
        check=True,
    )
    return done.stdout.decode(), int(done.stderr.split()[-1])


@pytest.mark.slow
def test_a_hundred_thousand_spans(tmp_path: Path) -> None:
    """A file of a hundred runs: the longest is explained in seconds, within a gigabyte."""
    runs = (layered_run(1_000, workers=8, layers=20, seed=seed, run_id=f"run-{seed}") for seed in range(100))
    trace = write_trace(tmp_path / "large.jsonl", *runs)
    printed, kilobytes = _measured("explain", trace, timeout=270)  # it takes 6 s on an idle machine
    assert "run 63 of 100, the longest" in printed
    assert kilobytes < 1_000_000


@pytest.mark.slow
def test_one_run_of_a_hundred_thousand_nodes(tmp_path: Path) -> None:
    """It is explained in seconds too, within a gigabyte, and what is estimated is said to be."""
    trace = write_trace(tmp_path / "large.jsonl", layered_run(100_000, workers=40, layers=200))
    printed, kilobytes = _measured("explain", trace, timeout=270)  # it takes 9 s on an idle machine
    assert "A run of 100,000 nodes is not replayed whole" in printed
    assert kilobytes < 1_000_000


@pytest.mark.slow
def test_a_file_of_many_runs_takes_no_more_memory_than_what_is_kept_of_it(tmp_path: Path) -> None:
    """Other services' spans, ten times as many as ours, leave nothing behind: a line is forgotten once it is read."""
    run = layered_run(500)
    trace = write_trace(tmp_path / "small.jsonl", run)
    _, alone = _measured("explain", trace, "--json", timeout=150)
    foreign = {
        "traceId": "f" * 32,
        "parentSpanId": "1" * 16,
        "name": "GET /",
        "startTimeUnixNano": "1760000000000000000",
        "endTimeUnixNano": "1760000000000001000",
        "attributes": [{"key": f"http.{number}", "value": {"stringValue": "x" * 50}} for number in range(20)],
    }
    with trace.open("a") as file:
        for line in range(150):
            spans = [{**foreign, "spanId": f"{line * 200 + number + 1:016x}"} for number in range(200)]
            file.write(json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": spans}]}]}) + "\n")
    assert trace.stat().st_size > 60_000_000
    _, among_others = _measured("explain", trace, "--json", timeout=150)
    assert among_others - alone < 40_000
