"""Threads: how many, their names, sharing, and the executor. On both adapters."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from tests.contract.shared import MakeAdapter, error_of, identity
from tests.dags import PATIENCE, Held, Stage, driver_of, in_thread, submit, wait_for


def test_as_many_nodes_as_workers_run_at_once(make_adapter: MakeAdapter) -> None:
    """Three workers: nodes meet at a barrier by threes."""
    adapter, barrier = make_adapter(3), threading.Barrier(3)
    futures = [submit(adapter, lambda: barrier.wait(PATIENCE)) for _ in range(6)]
    assert sorted(future.result(PATIENCE) for future in futures) == [0, 0, 1, 1, 2, 2]


def test_nodes_below_one_node_run_at_once(make_adapter: MakeAdapter) -> None:
    """Three that become ready together meet at a barrier, on three workers."""
    adapter, barrier = make_adapter(3), threading.Barrier(3)
    above = submit(adapter, identity, x=1)
    futures = [submit(adapter, lambda x: barrier.wait(PATIENCE), x=above) for _ in range(3)]
    assert sorted(future.result(PATIENCE) for future in futures) == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_never_more_nodes_than_workers(make_adapter: MakeAdapter, workers: int) -> None:
    """The most that ever ran at once, in a DAG that is wide and deep, is the number of workers."""
    adapter, lock, running, most = make_adapter(workers), threading.Lock(), 0, 0

    def busy(**upstream: Any) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)  # long enough for one too many to start
        with lock:
            running -= 1
        return 1

    futures: list[Future[Any]] = []
    for row in range(4):
        above = futures[-6:]
        futures += [submit(adapter, busy, **({"x": above[i], "y": above[i - 1]} if row else {})) for i in range(6)]
    assert [future.result(PATIENCE) for future in futures] == [1] * 24
    assert most <= workers


def test_thread_names(make_adapter: MakeAdapter) -> None:
    """`thread_name_prefix` and a number, as `ThreadPoolExecutor` makes them."""
    adapter, barrier = make_adapter(2, thread_name_prefix="crunch"), threading.Barrier(2)

    def name() -> str:
        barrier.wait(PATIENCE)
        return threading.current_thread().name

    futures = [submit(adapter, name) for _ in range(2)]
    assert {future.result(PATIENCE) for future in futures} == {"crunch_0", "crunch_1"}


def test_drivers_and_threads_share_an_adapter(make_adapter: MakeAdapter) -> None:
    """Eight callers with drivers of their own: each gets the results of its own inputs."""
    adapter, together = make_adapter(3), threading.Barrier(8)

    def left(number: int) -> int:
        return number + 1

    def right(number: int) -> int:
        return number * 2

    def joined(left: int, right: int) -> int:
        return left * right

    def call(number: int) -> list[int]:
        runs = driver_of(adapter, left, right, joined)
        together.wait(PATIENCE)
        return [runs.execute(["joined"], inputs={"number": number + step})["joined"] for step in range(5)]

    callers = [in_thread(call, number) for number in range(8)]
    assert [caller.result(PATIENCE) for caller in callers] == [
        [(number + step + 1) * (number + step) * 2 for step in range(5)] for number in range(8)
    ]


def test_own_work_on_the_executor(make_adapter: MakeAdapter, stage: Stage) -> None:
    """What the program submits to `adapter.executor` itself runs on the workers, beside the nodes."""
    adapter = make_adapter(1, thread_name_prefix="crunch")
    own = [adapter.executor.submit(lambda: threading.current_thread().name) for _ in range(2)]
    node = submit(adapter, lambda: threading.current_thread().name)
    assert [future.result(PATIENCE) for future in (*own, node)] == ["crunch_0"] * 3


def test_nodes_behind_own_work_on_the_executor(make_adapter: MakeAdapter, stage: Stage) -> None:
    """With the only worker taken by such work, nodes wait and then run."""
    adapter, held = make_adapter(1), Held(stage)
    adapter.executor.submit(held)
    wait_for(held.started)
    futures = [submit(adapter, identity, x=number) for number in range(3)]
    assert not any(future.done() for future in futures)
    held.release.set()
    assert [future.result(PATIENCE) for future in futures] == [0, 1, 2]


def test_use_after_the_executor_was_shut_down(make_adapter: MakeAdapter) -> None:
    """A `RuntimeError`, to whoever submits and to whoever executes."""

    def node() -> int:
        return 1

    adapter = make_adapter(1)
    runs = driver_of(adapter, node)
    runs.execute(["node"])
    adapter.executor.shutdown()
    with pytest.raises(RuntimeError):
        submit(adapter, identity, x=1)
    with pytest.raises(RuntimeError):
        runs.execute(["node"])


def test_shutdown_lets_what_was_submitted_end(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Also what waits for inputs or for a worker."""
    adapter, held = make_adapter(1), Held(stage)
    first = submit(adapter, held)
    wait_for(held.started)
    futures = [submit(adapter, lambda x=number: x) for number in range(2)]
    below = submit(adapter, identity, x=futures[1])
    adapter.executor.shutdown(wait=False)
    held.release.set()
    assert [future.result(PATIENCE) for future in (first, *futures, below)] == ["held", 0, 1, 1]


def test_shutdown_lets_what_waits_for_a_foreign_future_end(make_adapter: MakeAdapter) -> None:
    """That was submitted as well."""
    adapter, foreign = make_adapter(1), Future[Any]()
    future = submit(adapter, identity, x=foreign)
    adapter.executor.shutdown(wait=False)
    foreign.set_result("value")
    assert future.result(PATIENCE) == "value"


def test_shutdown_that_cancels(make_adapter: MakeAdapter, stage: Stage) -> None:
    """`executor.shutdown(cancel_futures=True)` cancels the nodes that have not started."""
    adapter, held = make_adapter(1), Held(stage)
    first = submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, identity, x=1)
    below = submit(adapter, identity, x=queued)
    adapter.executor.shutdown(wait=False, cancel_futures=True)
    held.release.set()
    assert first.result(PATIENCE) == "held"
    assert [type(error_of(future)) for future in (queued, below)] == [CancelledError] * 2


def test_shutdown_that_cancels_behind_own_work(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Nodes that wait behind the program's own work on the executor are cancelled, and nobody hangs."""
    adapter, held = make_adapter(1), Held(stage)
    adapter.executor.submit(held)
    wait_for(held.started)
    queued = submit(adapter, identity, x=1)
    adapter.executor.shutdown(wait=False, cancel_futures=True)
    held.release.set()
    assert isinstance(error_of(queued), CancelledError)
