"""`explain`: what it prints for people and for programs, which run it takes, and files that are no trace."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run, write_trace
from traced_threadpool.analysis.trace_file import read_runs

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")


from tests.cli.program import RUN, SHORT, Command

# explain


def test_explain_says_what_took_the_time(command: Command, trace: Path) -> None:
    """The verdict, the path, the states, the nodes, more workers; as plain text, since this is no terminal."""
    text = command("explain", trace)
    assert text.startswith(f"{trace}: 1 run\netl: 944 ms, 60 nodes, 4 workers, 2 CPUs, success, run run-1\n\n1. ")
    for heading in (
        "Critical path",
        "Where the time went",
        "Slowest nodes",
        "Predicted length of the run by number of workers",
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
        by_name = ("critical_seconds", "critical_states", "states", "gil_holders", "path_changes", "faster")
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


def test_no_line_ends_with_blanks_and_bullets_hang(command: Command, trace: Path, monkeypatch: Any) -> None:
    """In everything that is printed to a file; a sentence goes on below its first word."""
    monkeypatch.setenv("COLUMNS", "60")
    printed = command("explain", trace) + command("what-if", trace) + command("diff", trace, trace)
    assert [line for line in printed.splitlines() if line != line.rstrip()] == []
    lines = printed.partition("Critical path")[0].splitlines()
    after_bullets = [after for line, after in itertools.pairwise(lines) if line.startswith("   - ")]
    assert any(after.startswith("     ") for after in after_bullets)
    assert all(after.startswith(("   - ", "     ", "   ")) for after in after_bullets)
