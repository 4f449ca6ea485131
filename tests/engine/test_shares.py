"""Whose nodes have the workers while a node waits for one: its own run's, or other runs'."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.dags import PATIENCE, Stage, driver_of, eventually, in_thread, submit, wait_for
from traced_threadpool import FutureAdapter
from traced_threadpool.engine.scheduler import RunQueue, Scheduler, Task
from traced_threadpool.model.recorded_run import RecordedRun


def started(scheduler: Scheduler, now_ns: int) -> Task:
    if scheduler.shares is not None:
        scheduler.shares.advance(now_ns)
    task = scheduler.take()
    assert task is not None
    return task


def test_a_wait_is_behind_others_in_proportion_of_their_workers() -> None:
    """Two of three workers for 100 ns, one for the next 100, none at the end."""
    scheduler, mine, other = Scheduler(3), RunQueue(), RunQueue()
    scheduler.share(0)
    theirs = [Task(f"theirs_{number}", queue=other) for number in range(2)]
    own, waiting = Task("own", queue=mine), Task("waiting", queue=mine)
    for task in (*theirs, own, waiting):
        scheduler.add(task, [], 0)
    first = [started(scheduler, 0) for _ in range(2)]
    third = started(scheduler, 0)
    assert {*first, third} == {*theirs, own}
    scheduler.max_workers = 1  # nobody takes what is free
    scheduler.end(theirs[0], 100)
    scheduler.end(theirs[1], 200)
    scheduler.end(own, 300)
    assert started(scheduler, 300) is waiting
    assert waiting.queue_others_ns == (2 * 100 + 100) // 3


def test_a_run_nested_in_another_is_no_other() -> None:
    """What a node executes waits for the workers of its own run."""
    scheduler, outer = Scheduler(1), RunQueue()
    scheduler.share(0)
    parent = Task("parent", queue=outer)
    scheduler.add(parent, [], 0)
    assert started(scheduler, 0) is parent
    inner = Task("inner", queue=RunQueue(parent))
    scheduler.add(inner, [], 0)
    scheduler.end(parent, 50)
    assert started(scheduler, 50) is inner
    assert inner.queue_others_ns == 0


def test_a_node_that_waits_when_another_run_begins_waits_for_it_from_then_on() -> None:
    """Before, all that had workers were its own run's."""
    scheduler, mine, other = Scheduler(1), RunQueue(), RunQueue()
    own, waiting, theirs = Task("own", queue=mine), Task("waiting", queue=mine), Task("theirs", queue=other)
    scheduler.add(own, [], 0)
    scheduler.add(waiting, [], 0)
    assert started(scheduler, 0) is own
    scheduler.share(100)
    scheduler.add(theirs, [], 100)
    scheduler.end(own, 200)
    assert {started(scheduler, 200)} <= {waiting, theirs}
    running = next(iter(scheduler.running))
    scheduler.end(running, 260)
    last = started(scheduler, 260)
    assert {running.queue_others_ns, last.queue_others_ns} <= {0, 60, 160}
    assert waiting.queue_others_ns == (0 if running is waiting else 60)


@pytest.mark.parametrize("attribution", [True, False])
def test_the_record_of_each_run_says_how_long_it_waited_for_others(stage: Stage, attribution: bool) -> None:
    """One worker: a run holds it, another waits; and a node that waits for its own run's does not wait for others."""
    adapter = stage.adapter(FutureAdapter(1, registry=CollectorRegistry(), record=5, attribution=attribution))
    holds, go_on = stage.event(), stage.event()

    def holder() -> int:
        holds.set()
        wait_for(go_on)
        return 1

    def behind() -> int:
        return 2

    first = in_thread(driver_of(adapter, holder).execute, ["holder"])
    wait_for(holds)
    second = in_thread(driver_of(adapter, behind).execute, ["behind"])
    assert eventually(lambda: adapter.snapshot().queue_depth == 1)
    go_on.set()
    first.result(PATIENCE)
    second.result(PATIENCE)
    runs = {run.nodes[0].name: run for run in adapter.recorded_runs}
    waited = runs["behind"].nodes[0]
    assert 0 < waited.queue_others_ns <= waited.queue_ns
    assert runs["holder"].queue_others_ns == 0
    assert [run.nodes[0].name for run in runs["behind"].neighbours] == ["holder"]
    assert [run.nodes[0].name for run in runs["holder"].neighbours] == ["behind"]
    alone: RecordedRun
    driver_of(adapter, behind).execute(["behind"])
    *_, alone = adapter.recorded_runs
    assert (alone.queue_others_ns, alone.neighbours) == (0, ())


def test_shares_are_kept_only_while_there_are_several_runs(stage: Stage) -> None:
    """A run that is alone pays nothing for them, and what is over is forgotten."""
    adapter = stage.adapter(FutureAdapter(2, registry=CollectorRegistry()))
    scheduler = adapter._pool._scheduler
    seen: list[object] = []

    def looks() -> int:
        seen.append(scheduler.shares)
        return 1

    both = threading.Barrier(2)

    def meets() -> int:
        both.wait(60)
        looks()
        both.wait(60)
        return 1

    driver_of(adapter, looks).execute(["looks"])
    dr = driver_of(adapter, meets)
    for run in [in_thread(dr.execute, ["meets"]) for _ in range(2)]:
        run.result(PATIENCE)
    assert seen[0] is None
    assert all(each is not None for each in seen[1:])
    assert scheduler.shares is None


def test_nodes_of_no_run_are_others_too(stage: Stage) -> None:
    adapter = stage.adapter(FutureAdapter(1, registry=CollectorRegistry(), record=1))
    holds, go_on = stage.event(), stage.event()

    def hold() -> None:
        holds.set()
        wait_for(go_on)

    def behind() -> int:
        return 2

    outside = submit(adapter, hold)
    wait_for(holds)
    run = in_thread(driver_of(adapter, behind).execute, ["behind"])
    assert eventually(lambda: adapter.snapshot().queue_depth == 1)
    go_on.set()
    run.result(PATIENCE)
    outside.result(PATIENCE)
    assert adapter.recorded_runs[0].nodes[0].queue_others_ns > 0


def test_runs_that_are_not_kept_any_more_are_let_go(stage: Stage) -> None:
    """Each run keeps those beside it; those beside these are gone, however long runs have overlapped."""
    adapter = stage.adapter(FutureAdapter(2, registry=CollectorRegistry(), record=1))
    steps = [stage.event() for _ in range(6)]
    began = [stage.event() for _ in range(6)]

    def overlaps(number: int) -> int:
        began[number].set()
        wait_for(steps[number])
        return number

    dr = driver_of(adapter, overlaps)

    def begin(number: int) -> Future[Any]:
        run = in_thread(lambda: dr.execute(["overlaps"], inputs={"number": number}))
        wait_for(began[number])
        return run

    before = begin(0)
    for number in range(1, 6):
        run = begin(number)
        steps[number - 1].set()
        before.result(PATIENCE)
        before = run
    steps[5].set()
    before.result(PATIENCE)
    (last,) = adapter.recorded_runs
    assert len(last.neighbours) == 1
    assert last.neighbours[0].neighbours == ()
