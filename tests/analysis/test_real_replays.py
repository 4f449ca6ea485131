"""Runs of the live adapter, replayed: they are given back."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Sequence

import pytest
from hamilton.htypes import Collect, Parallelizable
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.analysis.played_runs import MS
from tests.dags import driver_of, dynamic_driver_of
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis.replay.what_if import replay, scale
from traced_threadpool.backends import Threads
from traced_threadpool.model.recorded_run import RecordedRun

LATE = 0.1
LATE_NS = 20 * MS
"""By how much the replay of a real run may differ: on a busy machine a node may start so long after its worker took it
that another, which should have gone first, was submitted meanwhile. A record does not say when a worker took a node."""


@pytest.mark.measures
def test_a_real_run_is_given_back() -> None:
    """What the live adapter recorded replays to its own duration, and to half the workers' work on one."""

    def a() -> int:
        time.sleep(0.1)
        return 1

    def b() -> int:
        time.sleep(0.1)
        return 2

    def c(a: int, b: int) -> int:
        time.sleep(0.05)
        return a + b

    with FutureAdapter(2, registry=CollectorRegistry(), record=1) as adapter:
        assert driver_of(adapter, a, b, c).execute(["c"]) == {"c": 3}
        (run,) = adapter.recorded_runs
    assert replay(run).makespan_ns == pytest.approx(run.duration_ns, rel=LATE, abs=LATE_NS)
    nodes_ns = sum(each.duration_ns for each in run.nodes)
    assert replay(run, workers=1).makespan_ns >= nodes_ns


def named(name: str, work: Callable[[], None], inputs: Sequence[str] = ()) -> Callable[..., int]:
    """A node that works and returns 1."""

    def function(**inputs: int) -> int:
        work()
        return 1

    function.__name__ = function.__qualname__ = name
    parameters = [inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, annotation=int) for each in inputs]
    function.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    function.__annotations__ = {**dict.fromkeys(inputs, int), "return": int}
    return function


def recorded(functions: Sequence[Callable[..., int]], workers: int) -> RecordedRun:
    with FutureAdapter(workers, registry=CollectorRegistry(), record=1, tracing=False) as adapter:
        driver_of(adapter, *functions).execute([each.__name__ for each in functions])
    (run,) = adapter.recorded_runs
    return run


def compute() -> None:
    sum(number * number % 7 for number in range(150_000))


def fail() -> None:
    raise ArithmeticError


@pytest.mark.measures
@settings(max_examples=25)
@given(data=st.data(), fail_fast=st.booleans())
def test_any_real_run_is_given_back(data: st.DataObject, fail_fast: bool) -> None:
    """Of nodes that sleep, compute, fail or run a driver of their own on the same adapter, with what never ran.

    On one worker: of two, on a busy machine, either may be so late that the other takes its node.
    """
    with FutureAdapter(1, registry=CollectorRegistry(), record=1, tracing=False, fail_fast=fail_fast) as adapter:

        def nest() -> None:
            inner = [named("inner_0", compute), named("inner_1", lambda: time.sleep(0.002), ["inner_0"])]
            driver_of(adapter, *inner).execute(["inner_1"])

        works = [lambda: time.sleep(0.003), compute, nest, fail]
        functions: list[Callable[..., int]] = []
        for number in range(data.draw(st.integers(1, 8), label="nodes")):
            earlier = st.lists(st.sampled_from([each.__name__ for each in functions]), max_size=3, unique=True)
            inputs = data.draw(earlier) if functions else []
            functions.append(named(f"n{number}", data.draw(st.sampled_from(works)), inputs))
        with contextlib.suppress(ArithmeticError):
            driver_of(adapter, *functions).execute([each.__name__ for each in functions])
    (run,) = adapter.recorded_runs
    if any(each.ran and each.parent is None for each in run.nodes):
        assert replay(run).makespan_ns == pytest.approx(run.duration_ns, rel=LATE, abs=LATE_NS)


@pytest.mark.measures
def test_a_real_run_with_branches_is_given_back() -> None:
    """Dynamic execution: Hamilton's walk stands still for the node that is split, here and in the replay."""

    def item() -> Parallelizable[int]:
        time.sleep(0.02)
        yield from range(6)

    def work(item: int) -> int:
        time.sleep(0.01)
        return item

    def total(work: Collect[int]) -> int:
        return sum(work)

    with FutureAdapter(3, registry=CollectorRegistry(), record=1, tracing=False) as adapter:
        assert dynamic_driver_of(adapter, item, work, total).execute(["total"]) == {"total": 15}
    (run,) = adapter.recorded_runs
    assert replay(run).makespan_ns == pytest.approx(run.duration_ns, rel=LATE, abs=LATE_NS)
    assert replay(run, workers=1).makespan_ns >= 80 * MS


def in_lane(limit: int) -> RecordedRun:
    """12 nodes that sleep, in a lane of a pool of six workers."""
    nodes = [named(f"n{number}", lambda: time.sleep(0.05)) for number in range(12)]
    with FutureAdapter(
        6,
        backends={"db": Threads(max_workers=limit)},
        run_on={f"n{number}": "db" for number in range(12)},
        registry=CollectorRegistry(),
        record=1,
        tracing=False,
    ) as adapter:
        driver_of(adapter, *nodes).execute([each.__name__ for each in nodes])
    (run,) = adapter.recorded_runs
    return run


def test_a_real_lane_is_replayed_with_other_limits() -> None:
    """As it was with its own; with another, no more run at once than that."""
    run = in_lane(2)
    assert replay(run).makespan_ns == replay(run, lanes={"db": 2}).makespan_ns == run.duration_ns
    at_once = {limit: replay(run, lanes={"db": limit}).most_busy for limit in (1, 3, 6)}
    assert [limit for limit, most in at_once.items() if most > limit] == []


@pytest.mark.measures
@pytest.mark.parametrize("limit", [1, 3, 6])
def test_a_real_lane_of_another_limit_takes_what_is_foretold(limit: int) -> None:
    """From a record of a lane of two."""
    foretold_ns = replay(in_lane(2), lanes={"db": limit}).makespan_ns
    assert foretold_ns == pytest.approx(in_lane(limit).duration_ns, rel=0.25)


@pytest.mark.measures
def test_plain_python_computing_is_serial() -> None:
    """More workers do not help nodes of plain Python, and the reason is the GIL."""
    run = recorded([named(f"n{number}", lambda: [compute() for _ in range(5)]) for number in range(8)], 2)
    scaling = scale(run)
    assert scaling.makespan_ns[64] >= 0.8 * scaling.makespan_ns[1]
    assert scaling.limit == "gil"
    assert "computing is serial" in scaling.reason
    assert replay(run, gil=False, cpus=8, workers=8).makespan_ns < 0.75 * run.duration_ns


@pytest.mark.measures
def test_of_a_hundred_sleepers_as_many_workers_help_as_are_tried() -> None:
    """Up to 64 workers they take two rounds, from 100 on one: beyond, there is nothing for a worker to do."""
    # Long beside what a busy machine adds to each.
    run = recorded([named(f"n{number}", lambda: time.sleep(0.5)) for number in range(100)], 16)
    scaling = scale(run)
    assert scaling.makespan_ns[64] < 0.75 * scaling.makespan_ns[32]
    assert 45 <= scaling.enough_workers <= 64
    assert (scaling.limit, "the largest count tried" in scaling.reason) == ("none", True)
    beyond = scale(run, (50, 100, 128))
    assert beyond.makespan_ns[100] < 0.75 * beyond.makespan_ns[50]
    assert beyond.enough_workers == 100
    assert beyond.limit in ("nodes", "critical_path")
