"""The order of ready nodes in a replay, and workers that wake up late."""

from __future__ import annotations

import dataclasses

import pytest

from tests.analysis.played_runs import MS, START_NS, node, record
from traced_threadpool.analysis.replay.what_if import replay, scale
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun


def test_priorities_on_and_off() -> None:
    """A chain of three that is submitted last: first ready, first started, it waits for two short nodes."""
    starts = {"short": 0, "brief": 0, "a": 100, "b": 200, "c": 300}
    upstream = {"b": ("a",), "c": ("b",)}
    nodes = tuple(
        NodeExecution(
            key=name,
            name=name,
            submitted_ns=0,
            ready_ns=start if name in upstream else 0,
            started_ns=start,
            ended_ns=start + 100,
            upstream=upstream.get(name, ()),
        )
        for name, start in starts.items()
    )
    run = RecordedRun(id="1", name="r", pool="p", started_ns=0, ended_ns=400, nodes=nodes, max_workers=2)
    assert replay(run, priority="critical_path").makespan_ns == 300
    assert replay(run, priority="fifo").makespan_ns == replay(run).makespan_ns == 400
    assert replay(dataclasses.replace(run, priority="critical_path")).makespan_ns == 400  # as it was
    assert scale(run, [2], priority="critical_path").makespan_ns == {2: 300}
    with pytest.raises(ValueError, match="priority is 'lifo'"):
        replay(run, priority="lifo")  # type: ignore[arg-type]


@pytest.mark.parametrize("priority", ["critical_path", "hops", "custom"])
def test_a_record_with_priorities_unchanged_is_the_run(priority: str) -> None:
    """Whatever the order was, the replay has the same."""
    lengths = {"short": 100, "a": 50, "b": 50, "c": 100}
    starts = {"a": 0, "b": 50, "short": 100, "c": 200}
    upstream = {"b": ("a",), "c": ("b",)}
    nodes = tuple(
        NodeExecution(
            key=name,
            name=name,
            submitted_ns=0,
            ready_ns=max([starts[each] + lengths[each] for each in upstream.get(name, ())], default=0),
            started_ns=starts[name],
            ended_ns=starts[name] + length,
            upstream=upstream.get(name, ()),
        )
        for name, length in lengths.items()
    )
    run = RecordedRun(
        id="1", name="r", pool="p", started_ns=0, ended_ns=300, nodes=nodes, max_workers=1, priority=priority
    )
    assert {node.name: node.started_ns for node in replay(run).nodes} == starts


@pytest.mark.parametrize("priority", ["fifo", "hops"])
def test_a_worker_that_wakes_up_late(priority: str) -> None:
    """Another that ends its node meanwhile takes the one that it was woken up for, and the replay has it there."""
    nodes = [
        node("a", 0, 30, worker="1"),
        node("b", 30, 45, ready_ns=START_NS + 5 * MS, submitted_ns=START_NS + 5 * MS, worker="1"),
        node("c", 41, 50, ready_ns=START_NS + 10 * MS, submitted_ns=START_NS + 10 * MS, worker="2"),
    ]
    run = record(nodes, workers=2, priority=priority)
    assert [(each.started_ns, each.ended_ns) for each in replay(run).nodes] == [
        (each.started_ns, each.ended_ns) for each in nodes
    ]
    assert replay(run, workers=1).makespan_ns == 54 * MS


@pytest.mark.parametrize("priority", ["fifo", "critical_path", "hops", "custom"])
def test_each_worker_wakes_up_by_itself(priority: str) -> None:
    """One that is awake takes one node, and not those that wait for workers who wake up later."""
    nodes = tuple(
        NodeExecution(
            key=name,
            name=name,
            submitted_ns=submitted,
            ready_ns=ready,
            started_ns=start,
            ended_ns=start + 100,
            worker=worker,
            upstream=("a", "b") if name == "c" else (),
        )
        for name, submitted, ready, start, worker in (
            ("a", 0, 0, 5, "1"),
            ("b", 1, 1, 30, "2"),
            ("c", 10, 130, 130, "2"),
        )
    )
    run = RecordedRun(
        id="1", name="r", pool="p", started_ns=0, ended_ns=230, nodes=nodes, max_workers=2, priority=priority
    )
    assert [node.started_ns for node in replay(run).nodes] == [5, 30, 130]
