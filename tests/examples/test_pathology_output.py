"""What the pathologies' programs print, and their options."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="the example needs the extra [demo]")
pytest.importorskip("opentelemetry.sdk", reason="the example needs the extra [demo]")

from rich.console import Console

from examples.pathologies import says
from examples.pathologies.__main__ import main as main_of_all
from examples.pathologies.options import Options, as_words, parse_options
from examples.pathologies.pathology import NAMES
from tests.examples.pathology_facts import text_of
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun

# What is printed of a run

SECOND = 1_000_000_000
PARSE = NodeExecution(
    key="a",
    name="parse",
    submitted_ns=0,
    ready_ns=0,
    started_ns=SECOND // 2,
    ended_ns=3 * SECOND,
    states={"cpu": SECOND // 2, "gil": 2 * SECOND},
)
RUN = RecordedRun(
    id="1",
    name="run [bold]",
    pool="pool",
    started_ns=0,
    ended_ns=3 * SECOND,
    nodes=(PARSE,),
    max_workers=4,
    cpus=2,
    attribution="process",
    gil_holders={"merge": SECOND // 4, "thread:exporter": SECOND},
    problems=("Spans of [3] nodes are missing.",),
)


def _shown(run: RecordedRun) -> list[list[str]]:
    """The words of each line, without the tables' rules."""
    console = Console(file=io.StringIO(), width=120)
    for said in says.what_the_tool_says(run):
        console.print(said)
    printed = console.file
    assert isinstance(printed, io.StringIO)
    return [re.findall(r"[^\s│┃]+", line) for line in printed.getvalue().splitlines() if re.search(r"\w", line)]


def test_states_queue_wait_and_gil_holders_are_shown() -> None:
    lines = _shown(RUN)

    assert ["workers", "at", "most", "4"] in lines
    assert ["states", "told", "apart", "by", "process"] in lines
    assert ["cpu", "500", "ms", "20%"] in lines
    assert ["gil", "2.00", "s", "80%"] in lines
    assert ["disk", "0", "s", "0%"] in lines
    assert ["in", "the", "queue,", "before", "500", "ms"] in lines
    assert ["parse", "2.50", "s", "500", "ms", "gil", "2.00", "s,", "cpu", "500", "ms"] in lines
    assert lines.index(["thread:exporter", "1.00", "s"]) + 1 == lines.index(["merge", "250", "ms"])
    assert ["Spans", "of", "[3]", "nodes", "are", "missing."] in lines
    assert any(line[:2] == ["First", "finding:"] for line in lines)


def test_what_nobody_could_tell_apart_is_unknown() -> None:
    parse = NodeExecution(
        key="a", name="parse", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=SECOND, states={"cpu": SECOND}
    )
    run = RecordedRun(
        id="1",
        name="run",
        pool="pool",
        started_ns=0,
        ended_ns=SECOND,
        nodes=(parse,),
        attribution="none",
        attribution_reason="no_proc",
    )
    lines = _shown(run)

    assert ["states", "told", "apart", "by", "none", "(no_proc)"] in lines
    assert ["cpu", "1.00", "s", "100%"] in lines
    assert ["gil", "unknown"] in lines
    assert ["workers", "at", "most", "unknown"] in lines


# The command line


def test_options_survive_the_way_to_another_process() -> None:
    for options in (
        Options(scale=1.0, workers=None, seed=1, trace=None),
        Options(scale=0.25, workers=3, seed=-7, trace=Path("with blank.jsonl")),
    ):
        assert parse_options("mixed", as_words(options)) == options
    assert parse_options("mixed", []) == Options(scale=1.0, workers=None, seed=1, trace=None)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--scale", "0"], "argument --scale: '0' is not a number above 0 and up to 100"),
        (["--scale", "nan"], "argument --scale: 'nan' is not a number above 0 and up to 100"),
        (["--scale", "inf"], "argument --scale: 'inf' is not a number above 0 and up to 100"),
        (["--scale", "much"], "argument --scale: 'much' is not a number above 0 and up to 100"),
        (["--workers", "0"], "argument --workers: '0' is not a whole number of 1 or more"),
        (["--workers", "1.5"], "argument --workers: '1.5' is not a whole number of 1 or more"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options("mixed", words)

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"mixed: {complaint}\n"


def test_a_program_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main_of_all(["slow_coffee"])

    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("pathologies: argument program: invalid choice: 'slow_coffee' (choose from ")
    assert error.count("\n") == 1


def test_without_a_word_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_of_all([]) == 0

    printed = capsys.readouterr().out
    listed = dict(re.findall(r"^(\w+) +(.+)\.$", printed, re.M))
    assert [name for name in listed if name in NAMES] == list(NAMES)
    assert all(text_of(name).startswith(f"{listed[name]}.\n") for name in NAMES)
