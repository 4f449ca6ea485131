"""Files of spans into recorded runs: each format gives the same record."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.trace_documents import (
    EPOCH,
    FORMATS,
    MS,
    WHOLE,
    Item,
    key,
    lines,
    node_item,
    ns,
    read,
    read_one,
    run_item,
)
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_record(form: str, file: Path) -> None:
    """All that a run and its nodes have to say, whoever kept it."""
    assert read(file, FORMATS[form](WHOLE)) == [
        RecordedRun(
            id="run-1",
            name="hamilton.run",
            pool="pool",
            started_ns=EPOCH,
            ended_ns=ns(100),
            nodes=(
                NodeExecution(
                    key=key(2),
                    name="load",
                    submitted_ns=ns(2),
                    ready_ns=ns(2),
                    started_ns=ns(5),
                    ended_ns=ns(45),
                    worker="pool_0",
                    states={"cpu": 10 * MS, "other": 30 * MS},
                ),
                NodeExecution(
                    key=key(3),
                    name="parse",
                    submitted_ns=ns(2),
                    ready_ns=ns(45),
                    started_ns=ns(50),
                    ended_ns=ns(90),
                    outcome="error",
                    upstream=(key(2),),
                    worker="pool_1",
                    task_id="task",
                    states={"cpu": 30 * MS, "gil": 4 * MS, "other": 6 * MS},
                    samples=12,
                    error_type="KeyError",
                ),
            ),
            max_workers=4,
            cpus=2,
            attribution="process",
            attribution_reason="no-schedstat",
            gil_holders={"parse": 3 * MS, "thread:main": 1 * MS},
            expected_nodes=2,
            started_unix_ns=EPOCH,
        )
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_spans_of_waits_are_no_nodes_in_any_format(form: str, file: Path) -> None:
    """`explain`, `report` and `diff` see the record that they would see without."""
    run_id = {"hamilton.run.id": "run-1"}
    waits = [
        Item(
            90,
            "queued load",
            2,
            5,
            {**run_id, "hamilton.queue.node": "load", "hamilton.queue.behind": "other"},
            parent=1,
            links=(2,),
        ),
        Item(91, "gap before load", 0, 2, {**run_id, "hamilton.gap.node": "load"}, parent=1),
    ]
    without = read(file, FORMATS[form](WHOLE))
    assert read(file, FORMATS[form]([*WHOLE, *waits])) == without
    assert read(file, FORMATS[form]([*waits, *WHOLE])) == without


@pytest.mark.parametrize("form", FORMATS)
def test_order_compression_and_duplicates_do_not_matter(form: str, file: Path) -> None:
    """Spans come in any order, some twice, in a file that may be compressed."""
    (expected,) = read(file, FORMATS[form](WHOLE))
    shuffled = FORMATS[form]([WHOLE[2], WHOLE[1], WHOLE[0], WHOLE[1]])
    (run,) = read(file, gzip.compress(shuffled.encode()))
    assert run == replace(expected, problems=("1 span more than once in the file: counted once.",))


@pytest.mark.parametrize("form", ["lines", "tempo 2", "jaeger"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\n\n" + text.encode() + b"\n \n",
    ],
    ids=["byte order mark", "carriage returns", "empty lines"],
)
def test_how_text_is_written_does_not_matter(form: str, change: Callable[[str], bytes], file: Path) -> None:
    """What editors and shells make of a file."""
    (expected,) = read(file, FORMATS[form](WHOLE))
    assert read(file, change(FORMATS[form](WHOLE))) == [expected]


def test_lines_of_other_signals_lie_between(file: Path) -> None:
    """A collector writes metrics and logs into the same file: they are nobody's loss."""
    metrics, *others = ('{"resourceMetrics": []}\n', '{"resourceLogs": [{"scopeLogs": []}]}\n')
    text = metrics + "".join(line + other for line in lines(WHOLE).splitlines(True) for other in others)
    assert read(file, text) == read(file, lines(WHOLE))


@pytest.mark.parametrize("form", FORMATS)
def test_several_runs_are_told_apart_and_sorted(form: str, file: Path) -> None:
    """Also where they share a trace, and where spans of others lie around them."""
    _several_runs(file, form)


def _several_runs(file: Path, form: str) -> None:
    items = [
        run_item(11, 200, 300, run_id="late", nodes=1),
        node_item(12, "a", 210, 220, run=11, run_id="late"),
        Item(50, "GET /", 0, 400, {"http.method": "GET"}),
        run_item(1, 0, 100, nodes=1, parent=50),
        node_item(2, "a", 10, 20),
        Item(51, "SELECT", 12, 13, {}, parent=2),
    ]
    runs = read(file, FORMATS[form](items))
    assert [(run.id, run.problems, [node.key for node in run.nodes]) for run in runs] == [
        ("run-1", (), [key(2)]),
        ("late", (), [key(12)]),
    ]


NESTED = (
    run_item(1, 0, 100, nodes=1),
    node_item(2, "outer", 0, 90),
    Item(3, "in between", 5, 80, {}, parent=2),
    run_item(4, 10, 80, run_id="inner", nodes=1, parent=3),
    node_item(5, "deep", 20, 30, run=4, run_id="inner"),
)


def test_a_nested_run_is_part_of_the_outer_record(file: Path) -> None:
    """By way of whatever spans the node's own code made."""
    run = read_one(file, NESTED)
    assert (run.id, run.expected_nodes, run.problems) == ("run-1", 2, ())
    assert [(node.name, node.parent, node.run_id) for node in run.nodes] == [
        ("outer", None, None),
        ("deep", key(2), "inner"),
    ]


@pytest.mark.parametrize(
    "change",
    [{"remote": True}, {"service": {"service.name": "other"}}, {"attributes": {"hamilton.threadpool.name": "b"}}],
    ids=["remote", "process", "pool"],
)
def test_a_run_of_another_process_or_pool_is_a_record_of_its_own(change: dict[str, Any], file: Path) -> None:
    """Its workers are not those of the node that called it, and its clock may not be."""
    items = list(NESTED)
    change = {name: {**getattr(items[3], name), **value} if isinstance(value, dict) else value
              for name, value in change.items()}  # fmt: skip
    items[3] = replace(items[3], **change)
    assert [(run.id, len(run.nodes)) for run in read(file, lines(items))] == [("run-1", 1), ("inner", 1)]
