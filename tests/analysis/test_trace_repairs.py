"""Traces of what cannot be: the record is repaired, and says so."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.analysis.trace_documents import (
    EPOCH,
    FORMATS,
    MS,
    WHOLE,
    Item,
    jaeger,
    key,
    lines,
    node_item,
    ns,
    otlp,
    otlp_span,
    read,
    read_one,
    run_item,
)
from traced_threadpool.analysis.trace_file import TraceFileError


def test_what_cannot_be_is_repaired_and_said(file: Path) -> None:
    """Negative durations and waits, waits from before the run, states beyond the duration, odd values."""
    bad = [
        node_item(2, "backwards", 50, 40),
        node_item(3, "negative", 10, 20, queue_ms=-5),
        node_item(4, "early", 10, 20, queue_ms=5_000_000),
        node_item(5, "odd", 10, 20, attributes={"hamilton.node.queue.duration": "soon"}),
        node_item(
            6, "busy", 10, 20, attributes={"hamilton.node.cpu.duration": 0.03, "hamilton.node.wait.gil.duration": 0.01}
        ),
        node_item(7, "nan", 10, 20, attributes={"hamilton.node.cpu.duration": "NaN"}),
    ]
    run = read_one(file, [run_item(1, 0, 100, nodes=6), *bad])
    found = {
        node.name: (node.submitted_ns, node.ready_ns, node.started_ns, node.ended_ns, dict(node.states))
        for node in run.nodes
    }
    at_10 = (ns(10), ns(10), ns(10), ns(20))
    assert found == {
        "backwards": (ns(50), ns(50), ns(50), ns(50), {}),
        "negative": (*at_10, {}),
        "early": (EPOCH, EPOCH, ns(10), ns(20), {}),
        "odd": (*at_10, {}),
        "busy": (*at_10, {"cpu": 7_500_000, "gil": 2_500_000}),
        "nan": (*at_10, {"other": 10 * MS}),
    }
    assert run.problems == (
        "1 node: ended before the start; the duration is taken as 0.",
        "3 nodes: a wait that is negative, no number, or reaches back before the run; it is cut.",
        "2 nodes: states of time that add up to more than the duration, or are no numbers; scaled to fit.",
    )


@pytest.mark.parametrize("form", ["lines", "jaeger"])
def test_a_run_that_ends_before_it_starts(form: str, file: Path) -> None:
    """Its end is that of its nodes; a node's duration is none."""
    items = [run_item(1, 50, 40, nodes=2), node_item(2, "a", 60, 70), node_item(3, "b", 80, 75, (2, "a"))]
    (run,) = read(file, FORMATS[form](items))
    assert (run.started_ns, run.ended_ns, [node.duration_ns for node in run.nodes]) == (ns(50), ns(80), [10 * MS, 0])
    assert run.problems[0] == "The run's span ends before it starts; its end is taken from its nodes."
    assert "1 node: ended before the start; the duration is taken as 0." in run.problems
    (run,) = read(file, FORMATS[form]([run_item(1, 50, 40, nodes=0)]))
    assert (run.started_ns, run.ended_ns, run.nodes) == (ns(50), ns(50), ())


def test_spans_that_are_each_others_parents(file: Path) -> None:
    """Of runs that would be nested in each other the first is the outer one; others in a circle lead nowhere."""
    items = [
        run_item(1, 0, 100, nodes=1, parent=12),
        node_item(2, "a", 0, 90, run=1),
        run_item(11, 10, 80, run_id="other", nodes=1, parent=2),
        node_item(12, "b", 20, 70, run=11, run_id="other"),
        Item(50, "GET /", 0, 5, {}, parent=51),
        Item(51, "GET /", 0, 5, {}, parent=50),
        run_item(21, 200, 300, run_id="third", nodes=1, parent=50),
        node_item(22, "c", 210, 220, run=21, run_id="third"),
    ]
    runs = read(file, lines(items))
    assert [(run.id, [(node.name, node.parent) for node in run.nodes]) for run in runs] == [
        ("run-1", [("a", None), ("b", key(2))]),
        ("third", [("c", None)]),
    ]


def test_a_cycle_is_broken_where_it_points_back_in_time(file: Path) -> None:
    """Also a link of a node to itself; what follows the cycle keeps its links."""
    items = [
        run_item(1, 0, 100, nodes=3),
        node_item(2, "a", 0, 10, (3, "b"), (2, "a")),
        node_item(3, "b", 20, 30, (2, "a")),
        node_item(4, "c", 40, 50, (3, "b")),
    ]
    run = read_one(file, items)
    assert [node.upstream for node in run.nodes] == [(), (key(2),), (key(3),)]
    assert "2 nodes: links form a cycle; those that point back in time are left out." in run.problems


def test_clocks_that_disagree_are_told(file: Path) -> None:
    """A node before its upstream's end, and nodes outside of the run: the record reaches over all of them."""
    run = read_one(
        file, [run_item(1, 10, 50), node_item(2, "a", 5, 60), node_item(3, "b", 40, 45, (2, "a"), queue_ms=1)]
    )
    assert (run.started_ns, run.ended_ns) == (ns(5), ns(60))
    assert run.problems == (
        "Some nodes lie outside of their run's span; the run is taken to reach over them.",
        "1 node: started before an upstream node's end; clocks disagree. Steps are cut where the later one begins.",
    )


@pytest.mark.parametrize(("started", "ended"), [(5, 50), (10, 60)], ids=["before", "after"])
def test_a_node_outside_of_its_run(started: float, ended: float, file: Path) -> None:
    """On either side: a clock that disagrees is told."""
    run = read_one(file, [run_item(1, 10, 50, nodes=1), node_item(2, "a", started, ended)])
    assert (run.started_ns, run.ended_ns) == (ns(min(10, started)), ns(max(50, ended)))
    assert run.problems == ("Some nodes lie outside of their run's span; the run is taken to reach over them.",)


def test_microseconds_do_not_open_gaps(file: Path) -> None:
    """Jaeger rounds starts and durations apart: an end and a ready time that were one remain one."""
    items = [
        run_item(1, 0, 100),
        node_item(2, "a", 0.0019, 10.0008, queue_ms=0.0011),
        node_item(3, "b", 12.0005, 20.0007, (2, "a"), queue_ms=1.9997, dependency_ms=10,
                  attributes={"hamilton.node.cpu.duration": 0.0080002}),
    ]  # fmt: skip
    (run,) = read(file, jaeger(items))
    first, second = run.nodes
    assert second.ready_ns == first.ended_ns
    assert dict(second.states) == {"cpu": second.duration_ns}
    assert run.problems == ()


def test_half_a_last_line_is_left_out_and_said(file: Path) -> None:
    """What a killed process leaves; the next process starts a line of its own after it."""
    text = lines(WHOLE)
    (run,) = read(file, text + text[: len(text) // 5])
    assert len(run.nodes) == 2
    assert run.problems == (
        "The last line is not whole, as a killed process leaves it: spans of the last moments are missing.",
    )
    (run,) = read(file, text[:500] + "\n" + text + "\n\n")
    assert run.problems == ("1 of the file's lines could not be read: spans may be missing.",)
    first, *others = text.splitlines(keepends=True)
    (run,) = read(file, "".join([first, text[:500] + "\n", *others]))
    assert run.problems == ("1 of the file's lines could not be read: spans may be missing.",)


def test_a_compressed_file_that_is_cut_off_gives_what_comes_before(file: Path) -> None:
    """As a copy that was broken off leaves it."""
    items = [node_item(2 + i, f"n{i}", i, i + 1) for i in range(400)]
    whole = gzip.compress(lines([run_item(1, 0, 500, nodes=400), *items]).encode())
    (run,) = read(file, whole[: len(whole) // 2])
    assert 0 < len(run.nodes) < 400
    assert run.problems[0] == "The compressed file is cut off; what comes before was read."


def test_a_compressed_file_that_is_damaged_gives_what_comes_before(file: Path) -> None:
    """As a disk or a copy in text mode leaves it."""
    items = [node_item(2 + i, f"n{i}", i, i + 1) for i in range(4_000)]
    whole = bytearray(gzip.compress(lines([run_item(1, 0, 5_000, nodes=4_000), *items]).encode(), compresslevel=0))
    second = 10 + 5 + int.from_bytes(whole[11:13], "little")  # after the file's header, and the first block and its own
    whole[second + 1 : second + 5] = bytes(4)  # how long the second block is
    (run,) = read(file, bytes(whole))
    assert 0 < len(run.nodes) < 4_000
    assert run.problems[0] == "The compressed file is cut off; what comes before was read."


def test_a_span_without_ids_or_times_is_left_out(file: Path) -> None:
    """Of any type, and everything else in the file is read."""
    document = otlp(WHOLE)
    spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    whole = otlp_span(WHOLE[1])
    spans += [
        None, 3, {}, {**whole, "spanId": "xyz"}, {**whole, "startTimeUnixNano": "soon"},
        {**whole, "endTimeUnixNano": 10**80},
    ]  # fmt: skip
    document["resourceSpans"] += [None, {"scopeSpans": [None, {}, {"spans": 3}]}]
    (run,) = read(file, json.dumps(document))
    assert len(run.nodes) == 2
    assert run.problems == ("6 spans without usable ids or times: left out.",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_value_anywhere_in_a_trace_is_a_crash(file: Path, data: st.DataObject) -> None:
    """One value of the trace is anything at all: a record, or an error that is ours."""
    document = data.draw(st.sampled_from([otlp(WHOLE), json.loads(jaeger(WHOLE))]))
    at: Any = document
    while True:
        step = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[step], (dict, list)) or not at[step] or data.draw(st.booleans()):
            at[step] = data.draw(json_values)
            break
        at = at[step]
    try:
        runs = read(file, json.dumps(document))
    except TraceFileError:
        return
    for run in runs:
        assert all(node.submitted_ns <= node.ready_ns <= node.started_ns <= node.ended_ns for node in run.nodes)
        assert all(sum(node.states.values()) in (0, node.duration_ns) for node in run.nodes)
        assert all(each in run.by_key for node in run.nodes for each in node.upstream)
