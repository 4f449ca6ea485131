"""Nodes that share a lock: what a replay concludes of it, and what it says where it cannot know."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from hamilton import ad_hoc_utils, driver
from hamilton.function_modifiers import parameterize, value
from prometheus_client import CollectorRegistry

from tests.analysis.locked_runs import simulated
from tests.connection_pools import OfACondition, OfAQueue
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.analysis.replay.plan import Plan
from traced_threadpool.analysis.replay.what_if import replay
from traced_threadpool.model.lock_wait import LockWait

MS = 1_000_000


SHAPES = {
    "a lock": {"outside_ms": 1, "held_ms": 60},
    "a semaphore of two": {"outside_ms": 1, "held_ms": 60, "capacity": 2},
    "half of the node under a lock": {"outside_ms": 60, "held_ms": 60},
    "its first half": {"outside_ms": 60, "held_ms": 60, "first": True},
    "a quarter": {"outside_ms": 90, "held_ms": 30},
    "a connection pool of three": {"outside_ms": 30, "held_ms": 60, "capacity": 3},
    "a lock in five turns": {"outside_ms": 20, "held_ms": 200, "turns": 5},
}


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("recorded", [4, 6, 12])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shared_lock_is_queued_for(shape: str, recorded: int, workers: int) -> None:
    """From a record in which nodes met at it: one worker does not take what they waited, nor more the time of one."""
    truth_ns = simulated(workers, **SHAPES[shape]).duration_ns  # type: ignore[arg-type]
    found = replay(simulated(recorded, **SHAPES[shape]), workers=workers)  # type: ignore[arg-type]
    low_ns, high_ns = found.range_ns or (found.makespan_ns, found.makespan_ns)
    assert 0.85 * truth_ns <= found.makespan_ns <= 1.15 * truth_ns or low_ns <= truth_ns <= high_ns <= 2 * low_ns


@pytest.mark.parametrize("recorded", [4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_changed_gives_back_the_run(shape: str, recorded: int) -> None:
    run = simulated(recorded, **SHAPES[shape])  # type: ignore[arg-type]
    assert replay(run).makespan_ns == pytest.approx(run.duration_ns, rel=0.02)


def test_a_capacity_that_nobody_knows_is_judged_and_said_so() -> None:
    """By how many ran beside those that waited."""
    run = simulated(6, outside_ms=1, held_ms=60, capacity=2, known=False)
    assert [(lock.capacity, lock.is_known, lock.is_sure) for lock in Plan(run).locks] == [(2, False, False)]
    found = replay(run, workers=1)
    assert found.range_ns is not None
    assert found.range_ns[0] <= found.makespan_ns <= found.range_ns[1]
    assert any("2 at a time, judged by" in said for said in found.assumptions)


def test_a_lock_that_something_else_holds_keeps_its_waits() -> None:
    """All nodes wait for it at once, so none of them has it: more workers or fewer change nothing of that."""
    run = simulated(4, outside_ms=1, held_ms=60)
    stuck = replace(
        run,
        nodes=tuple(
            replace(
                each,
                started_ns=0,
                ended_ns=500 * MS,
                states={"lock": 450 * MS, "sleep": 50 * MS},
                lock=LockWait(name="Lock 1", capacity=1, last_ns=450 * MS),
            )
            for each in run.nodes[:4]
        ),
        ended_ns=500 * MS,
    )
    assert Plan(stuck).locks == []
    assert replay(stuck, workers=8).makespan_ns == pytest.approx(500 * MS, abs=100)
    assert any("waiting for locks stays as it was" in said for said in replay(stuck).assumptions)


def test_without_the_lock_nodes_run_side_by_side() -> None:
    run = simulated(12, outside_ms=1, held_ms=60)
    assert replay(run, locks=False).makespan_ns < 80 * MS


def test_the_finding_names_the_line_the_nodes_and_the_capacity() -> None:
    finding = diagnose(simulated(6, outside_ms=1, held_ms=60)).findings[0]
    assert finding.cause == "lock_contention"
    (meet,) = [said for said in finding.evidence if "meet at" in said]
    assert "Lock 1 (app.py:41)" in meet
    assert "one node at a time" in meet
    assert "`hold_" in meet
    assert "`app.py:41`" in finding.advice


def test_waits_at_which_nobody_looked_are_for_the_lock_of_the_nodes_that_are_alike() -> None:
    """Each has a name of its own and no line: a semaphore's waiters are at an address each."""
    run = simulated(6, outside_ms=1, held_ms=60, capacity=2)
    nameless = [
        replace(each, lock=replace(each.lock, name=f"Lock {number + 7}", line="", capacity=1))
        if each.lock is not None and number % 4 == 0
        else each
        for number, each in enumerate(run.nodes)
    ]
    assert sum(each.lock is not None and not each.lock.line for each in nameless) > 1
    assert Plan(replace(run, nodes=tuple(nameless))).locks == Plan(run).locks


@pytest.mark.measures
@pytest.mark.parametrize(
    ("lock", "capacity", "is_known"),
    [
        (threading.Lock(), 1, True),
        (threading.Semaphore(2), 2, True),
        (OfAQueue(2).connection, 2, True),
        (OfACondition(2).connection, 2, False),
    ],
    ids=["lock", "semaphore", "queue", "condition"],
)
def test_a_real_lock_is_seen_by_the_sampler_and_replayed(lock: Any, capacity: int, is_known: bool) -> None:
    """Recorded on six workers, run on one: twelve times what is done under it, and not the waits as well. How many may
    have it only a condition does not tell.
    """

    @parameterize(**{f"hold_{number}": {"number": value(number)} for number in range(12)})
    def hold(number: int) -> int:
        with lock() if callable(lock) else lock:
            time.sleep(0.06)
        return number

    module, names = ad_hoc_utils.create_temporary_module(hold), [f"hold_{number}" for number in range(12)]
    with FutureAdapter(6, registry=CollectorRegistry(), record=2) as adapter:
        dr = driver.Builder().with_modules(module).with_adapters(adapter).build()  # type: ignore[no-untyped-call]
        for _ in range(2):  # the first one starts the sampler
            dr.execute(names)
        run = adapter.recorded_runs[-1]
    if run.attribution_reason is not None:
        pytest.skip(f"states are not sampled: {run.attribution_reason}")
    (found,) = Plan(run).locks
    assert (found.capacity, found.is_known, len(found.members)) == (capacity, is_known, 12)
    assert found.line
    assert replay(run, workers=1).makespan_seconds == pytest.approx(12 * 0.06, rel=0.25)
    assert diagnose(run).cause == "lock_contention"
