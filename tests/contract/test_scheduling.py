"""No worker waits for an upstream node, and no run starves another; Hamilton's adapter beside ours."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter
from prometheus_client import CollectorRegistry

from tests.contract.shared import BOTH, identity
from tests.dags import PATIENCE, REFUTATION, Held, Stage, driver_of, eventually, start, submit, wait_for
from traced_threadpool import FutureAdapter


def ready_node_starts_beside_blocked_ones(adapter: Any, stage: Stage, patience: float) -> bool:
    """Two workers; one node runs, one waits for it: does a third, which needs nothing, start meanwhile?"""
    held, started = Held(stage), stage.event()
    running = submit(adapter, held)
    blocked = submit(adapter, identity, x=running)
    ready = submit(adapter, started.set)
    wait_for(held.started)
    did = started.wait(patience)
    held.release.set()
    assert [future.result(PATIENCE) for future in (running, blocked, ready)] == ["held", "held", None]
    return did


def test_a_ready_node_does_not_wait_behind_blocked_ones(stage: Stage) -> None:
    """It takes the worker that is free."""
    assert ready_node_starts_beside_blocked_ones(stage.adapter(FutureAdapter(2)), stage, PATIENCE)


def test_hamiltons_workers_wait_for_upstream_nodes(stage: Stage) -> None:
    """The blocked node holds the second worker, so the ready one cannot start."""
    assert not ready_node_starts_beside_blocked_ones(stage.adapter(HamiltonsAdapter(2)), stage, REFUTATION)


def node_runs_beside_one_that_waits_for_a_foreign_future(adapter: Any, patience: float) -> bool:
    """One worker."""
    foreign = Future[Any]()
    waiting = submit(adapter, identity, x=foreign)
    other = submit(adapter, identity, x=1)
    try:
        did = bool(other.result(patience) == 1)
    except FutureTimeoutError:
        did = False
    foreign.set_result("there")
    assert waiting.result(PATIENCE) == "there"
    return did


def test_a_foreign_future_takes_no_worker(stage: Stage) -> None:
    """Until it is resolved, its node waits outside of the workers."""
    assert node_runs_beside_one_that_waits_for_a_foreign_future(stage.adapter(FutureAdapter(1)), PATIENCE)


def test_hamiltons_worker_waits_for_a_foreign_future(stage: Stage) -> None:
    """And runs nothing else."""
    adapter = stage.adapter(HamiltonsAdapter(1))
    assert not node_runs_beside_one_that_waits_for_a_foreign_future(adapter, REFUTATION)


def test_blocked_nodes_hold_no_worker(stage: Stage) -> None:
    """One node runs and ten wait for it: one worker of four is busy, and nothing is queued for the others."""
    adapter, held = stage.adapter(FutureAdapter(4, registry=CollectorRegistry())), Held(stage)
    futures = [submit(adapter, held)]
    futures += [submit(adapter, identity, x=futures[-1]) for _ in range(10)]
    wait_for(held.started)
    pool = adapter.snapshot()
    assert (pool.active_workers, pool.blocked_nodes, pool.queue_depth) == (1, 10, 0)
    held.release.set()
    assert futures[-1].result(PATIENCE) == "held"


def test_a_blocked_node_can_be_cancelled(stage: Stage) -> None:
    """It has not started."""
    adapter, held = stage.adapter(FutureAdapter(2)), Held(stage)
    blocked = submit(adapter, identity, x=submit(adapter, held))
    wait_for(held.started)
    assert not blocked.running()
    assert blocked.cancel()


def test_a_blocked_node_of_hamiltons_counts_as_running(stage: Stage) -> None:
    """And so can't be cancelled."""
    adapter, held = stage.adapter(HamiltonsAdapter(2)), Held(stage)
    blocked = submit(adapter, identity, x=submit(adapter, held))
    assert eventually(blocked.running)
    assert not blocked.cancel()


@pytest.mark.parametrize(
    ("adapter_class", "latest"),
    [pytest.param(HamiltonsAdapter, 1001, id="hamilton"), pytest.param(FutureAdapter, 3, id="ours")],
)
def test_a_long_run_does_not_starve_a_short_one(stage: Stage, adapter_class: type[Any], latest: int) -> None:
    """1,000 nodes are queued, on one worker, when a run of one comes: it is among the next. Hamilton's runs it last."""
    order, held = list[str](), Held(stage)
    adapter = stage.adapter(adapter_class(1))

    def first() -> str:
        return held()

    def node_of(number: int) -> Callable[..., Any]:
        def node(first: str) -> None:
            order.append("long")

        node.__name__ = f"node_{number}"
        return node

    def short() -> None:
        order.append("short")

    nodes = [node_of(number) for number in range(1000)]
    start(driver_of(adapter, first, *nodes), [node.__name__ for node in nodes])
    wait_for(held.started)
    future = start(driver_of(adapter, short), ["short"])["short"]
    held.release.set()
    future.result(PATIENCE)
    position = order.index("short") + 1
    assert position <= latest
    if adapter_class is HamiltonsAdapter:
        assert position == latest


def test_a_dependency_called_fn(stage: Stage) -> None:
    """And by other names that code like ours uses for its own arguments."""

    def fn() -> int:
        return 1

    def work(fn: int) -> int:
        return fn + 1

    def function(work: int, fn: int) -> int:
        return work + fn

    def name(function: int, work: int, future: int, args: int, kwargs: int, context: int, timeout: int) -> int:
        return function + work + future + args + kwargs + context + timeout

    inputs = {"future": 10, "args": 20, "kwargs": 30, "context": 40, "timeout": 50}
    runs = driver_of(stage.adapter(FutureAdapter(2)), fn, work, function, name)
    assert runs.execute(["name"], inputs=inputs) == {"name": 155}


def test_hamiltons_breaks_on_a_dependency_called_fn(stage: Stage) -> None:
    """Its own first parameter has that name."""

    def fn() -> int:
        return 1

    def user(fn: int) -> int:
        return fn

    with pytest.raises(TypeError, match="multiple values for argument 'fn'"):
        driver_of(stage.adapter(HamiltonsAdapter(2)), fn, user).execute(["user"])


@pytest.mark.parametrize("adapter_class", BOTH)
def test_names_that_hamiltons_call_reserves_stay_reserved(stage: Stage, adapter_class: type[Any]) -> None:
    """A dependency called `node` fails before any adapter is asked."""

    def node() -> int:
        return 1

    def user(node: int) -> int:
        return node

    with pytest.raises(TypeError, match="multiple values for keyword argument 'node'"):
        driver_of(stage.adapter(adapter_class(2)), node, user).execute(["user"])
