"""A node that executes a driver on the same adapter: at any depth, with any number of workers."""

from __future__ import annotations

import contextvars
import gc
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.execution.executors import TaskExecutor
from hamilton.htypes import Collect
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter

from tests.contract.shared import nested, numbers, squared, squares, within_patience
from tests.dags import (
    PATIENCE,
    REFUTATION,
    Held,
    Stage,
    driver_of,
    dynamic_driver_of,
    in_thread,
    start,
    submit,
    wait_for,
)
from traced_threadpool import FutureAdapter


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_nested_drivers(stage: Stage, depth: int, workers: int) -> None:
    """At any depth, on any number of workers."""
    adapter = stage.adapter(FutureAdapter(workers))
    assert within_patience(lambda: nested(adapter, depth)) == 1


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_nested_drivers_from_two_branches_at_once(stage: Stage, workers: int) -> None:
    """At each of three levels: eight leaves."""
    adapter = stage.adapter(FutureAdapter(workers))
    assert within_patience(lambda: nested(adapter, 3, width=2)) == 8


@pytest.mark.parametrize("workers", [1, 2])
def test_nested_drivers_of_several_callers(stage: Stage, workers: int) -> None:
    """Four at once on one adapter."""
    adapter, together = stage.adapter(FutureAdapter(workers)), threading.Barrier(4)

    def call() -> int:
        together.wait(PATIENCE)
        return nested(adapter, 2, width=2)

    callers = [in_thread(call) for _ in range(4)]
    assert [caller.result(PATIENCE) for caller in callers] == [4] * 4


def node_that_waits_for_a_node(adapter: Any, patience: float) -> int:
    """A node submits another to the same adapter and waits for it; one worker."""

    def inner() -> int:
        return 1

    def outer() -> int:
        future: Future[int] = start(driver_of(adapter, inner), ["inner"])["inner"]
        return future.result(patience)

    result: int = driver_of(adapter, outer).execute(["outer"])["outer"]
    return result


def test_a_node_waits_for_the_future_of_a_node(stage: Stage) -> None:
    """A run that is started, and `result()`, inside of a node."""
    adapter = stage.adapter(FutureAdapter(1))
    assert within_patience(lambda: node_that_waits_for_a_node(adapter, PATIENCE)) == 1


def test_hamiltons_nested_drivers_deadlock(stage: Stage) -> None:
    """The only worker waits for a node that waits for the only worker: without the time limit, for ever."""
    adapter = stage.adapter(HamiltonsAdapter(1))
    with pytest.raises(FutureTimeoutError):
        node_that_waits_for_a_node(adapter, REFUTATION)


def test_a_node_waits_with_a_time_limit(stage: Stage) -> None:
    """Which holds while it helps: here the nested node waits for what comes later."""
    adapter, foreign = stage.adapter(FutureAdapter(1)), Future[Any]()

    def inner(given: Any) -> Any:
        return given

    def outer() -> str:
        future = start(driver_of(adapter, inner), ["inner"], inputs={"given": foreign})["inner"]
        with pytest.raises(FutureTimeoutError):
            future.result(0.01)
        with pytest.raises(FutureTimeoutError):
            future.exception(0)
        foreign.set_result("there")
        answer: str = future.result(PATIENCE)
        return answer

    runs = driver_of(adapter, outer)
    assert within_patience(lambda: runs.execute(["outer"])) == {"outer": "there"}


def test_a_node_that_looks_again_and_again_leaves_nothing_behind(stage: Stage) -> None:
    """Each query with a time limit sets up something to be woken by."""
    adapter, foreign = stage.adapter(FutureAdapter(1)), Future[Any]()

    def inner(given: Any) -> Any:
        return given

    def outer() -> int:
        future = start(driver_of(adapter, inner), ["inner"], inputs={"given": foreign})["inner"]
        before = _events()
        for _ in range(100):
            with pytest.raises(FutureTimeoutError):
                future.result(0)
        left = _events() - before
        foreign.set_result("there")
        assert future.result(PATIENCE) == "there"
        return left

    # Fewer than before are those of threads that have ended meanwhile.
    assert within_patience(lambda: driver_of(adapter, outer).execute(["outer"]))["outer"] < 10


def _events() -> int:
    gc.collect()
    return sum(type(each) is threading.Event for each in gc.get_objects())


def test_a_nested_driver_waits_for_a_foreign_future(stage: Stage) -> None:
    """Asked for as an output before the nested node that resolves it; one worker."""
    adapter, foreign = stage.adapter(FutureAdapter(1)), Future[Any]()

    def resolver() -> int:
        foreign.set_result("resolved")
        return 1

    def outer() -> dict[str, Any]:
        inside = driver_of(adapter, resolver, asks)
        result: dict[str, Any] = inside.execute(["given", "resolver"], inputs={"given": foreign})
        return result

    def asks(given: Any) -> Any:
        return given

    runs = driver_of(adapter, outer)
    assert within_patience(lambda: runs.execute(["outer"])) == {"outer": {"given": "resolved", "resolver": 1}}


@pytest.mark.parametrize("workers", [1, 2])
def test_parallelizable_nested_in_a_node(stage: Stage, remote_executor: TaskExecutor, workers: int) -> None:
    """The node's own driver expands and collects."""
    adapter = stage.adapter(FutureAdapter(workers))
    inside = dynamic_driver_of(adapter, numbers, squared, squares, remote_executor=remote_executor)

    def outer() -> list[int]:
        result: list[int] = inside.execute(["squares"])["squares"]
        return result

    runs = driver_of(adapter, outer)
    assert within_patience(lambda: runs.execute(["outer"])) == {"outer": [1, 4, 9]}


def test_a_driver_nested_in_every_branch(stage: Stage, remote_executor: TaskExecutor) -> None:
    """Three branches, two workers."""
    adapter = stage.adapter(FutureAdapter(2))

    def deep(numbers: int) -> int:
        return numbers * nested(adapter, 2)

    def total(deep: Collect[int]) -> int:
        return sum(deep)

    runs = dynamic_driver_of(adapter, numbers, deep, total, remote_executor=remote_executor)
    assert within_patience(lambda: runs.execute(["total"])) == {"total": 6}


def test_two_adapters_that_call_each_other(stage: Stage) -> None:
    """A node of the one executes a driver on the other, and so on, five times; each has one worker."""
    pair = stage.adapter(FutureAdapter(1)), stage.adapter(FutureAdapter(1))

    def ping(depth: int) -> int:
        def node() -> int:
            return 0 if depth == 5 else ping(depth + 1) + 1

        result: int = driver_of(pair[depth % 2], node).execute(["node"])["node"]
        return result

    assert within_patience(lambda: ping(0)) == 5


def test_two_adapters_whose_nodes_call_crosswise(stage: Stage) -> None:
    """A node of each executes a driver on the other, at once: both only workers wait, and lend themselves."""
    pair, both_run = (stage.adapter(FutureAdapter(1)), stage.adapter(FutureAdapter(1))), threading.Barrier(2)

    def leaf() -> int:
        return 1

    def call(first: FutureAdapter, second: FutureAdapter) -> int:
        def outer() -> int:
            both_run.wait(PATIENCE)
            inner: int = driver_of(second, leaf).execute(["leaf"])["leaf"]
            return inner + 1

        result: int = driver_of(first, outer).execute(["outer"])["outer"]
        return result

    callers = [in_thread(call, *pair), in_thread(call, *reversed(pair))]
    assert [caller.result(PATIENCE) for caller in callers] == [2, 2]


def test_a_node_waits_for_a_node_of_another_run(stage: Stage) -> None:
    """Which is queued behind it, on the only worker."""
    adapter, started, given = stage.adapter(FutureAdapter(1)), stage.event(), Future[Future[int]]()

    def waits() -> int:
        started.set()
        return given.result(PATIENCE).result(PATIENCE) + 1

    waiting = submit(adapter, waits)
    wait_for(started)
    given.set_result(submit(adapter, lambda: 1))
    assert waiting.result(PATIENCE) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_driver_in_a_thread_that_a_node_started(stage: Stage, threads: int) -> None:
    """With a copy of the node's context, by which it is known to act for the node; one worker."""
    adapter = stage.adapter(FutureAdapter(1))

    def outer() -> int:
        started = [in_thread(contextvars.copy_context().run, nested, adapter, 2) for _ in range(threads)]
        return sum(thread.result(PATIENCE) for thread in started)

    runs = driver_of(adapter, outer)
    assert within_patience(lambda: runs.execute(["outer"])) == {"outer": threads}


def test_a_failure_comes_up_through_nested_drivers(stage: Stage) -> None:
    """The very object, through three levels on one worker."""
    adapter, error = stage.adapter(FutureAdapter(1)), ValueError("deep")

    def call(depth: int) -> int:
        def deeper() -> int:
            if depth == 3:
                raise error
            return call(depth + 1)

        def below(deeper: int) -> int:
            return deeper

        result: int = driver_of(adapter, deeper, below).execute(["below"])["below"]
        return result

    with pytest.raises(ValueError, match="deep") as raised:
        within_patience(lambda: call(1))
    assert raised.value is error


def test_a_nested_driver_needs_no_worker_but_its_nodes(stage: Stage) -> None:
    """Two workers, one held by a foreign node all the while."""
    adapter, held = stage.adapter(FutureAdapter(2)), Held(stage)
    other = submit(adapter, held)
    wait_for(held.started)
    assert within_patience(lambda: nested(adapter, 3, width=2)) == 8
    assert not other.done()


def test_nested_nodes_run_on_other_workers_too(stage: Stage) -> None:
    """Two nodes of the nested run meet at a barrier, on two workers."""
    adapter, barrier = stage.adapter(FutureAdapter(2)), threading.Barrier(2)

    def left() -> int:
        return barrier.wait(PATIENCE)

    def right() -> int:
        return barrier.wait(PATIENCE)

    def outer() -> int:
        return sum(driver_of(adapter, left, right).execute(["left", "right"]).values())

    runs = driver_of(adapter, outer)
    assert within_patience(lambda: runs.execute(["outer"])) == {"outer": 1}


def test_nested_runs_use_no_more_threads_than_workers(stage: Stage) -> None:
    """Waiting nodes lend theirs."""
    adapter, threads = stage.adapter(FutureAdapter(2, "crunch")), set[str]()

    class Notes(lifecycle.NodeExecutionHook):
        def run_before_node_execution(self, **future_kwargs: Any) -> None:
            threads.add(threading.current_thread().name)

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            pass

    def call(depth: int) -> int:
        def left() -> int:
            return call(depth - 1) if depth else 1

        def right() -> int:
            return call(depth - 1) if depth else 1

        return sum(driver_of(adapter, left, right, others=[Notes()]).execute(["left", "right"]).values())

    assert within_patience(lambda: call(3)) == 16
    assert threads <= {"crunch_0", "crunch_1"}
