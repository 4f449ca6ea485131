"""Where ours does more than Hamilton's own adapter. Beside each, a test that shows Hamilton's failing or lacking it.

Numbers are those of the contract, "Better than documented".
"""

from __future__ import annotations

import contextvars
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.execution.executors import MultiThreadingExecutor, SynchronousLocalTaskExecutor, TaskExecutor
from hamilton.htypes import Collect, Parallelizable
from hamilton.lifecycle.default import GracefulErrorAdapter
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter
from prometheus_client import CollectorRegistry

from tests.dags import (
    PATIENCE,
    REFUTATION,
    Held,
    Stage,
    driver_of,
    dynamic_driver_of,
    eventually,
    in_thread,
    run_process,
    submit,
    wait_for,
)
from traced_threadpool import FutureAdapter

BOTH = [pytest.param(HamiltonsAdapter, id="hamilton"), pytest.param(FutureAdapter, id="ours")]

REMOTE_EXECUTORS = [
    pytest.param(SynchronousLocalTaskExecutor, id="synchronous"),
    pytest.param(lambda: MultiThreadingExecutor(max_tasks=3), id="multithreading"),
]

posix_only = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of POSIX")


def identity(x: Any) -> Any:
    return x


def within_patience(function: Callable[[], Any]) -> Any:
    """Calls what might deadlock, so that the test fails instead of hanging."""
    return in_thread(function).result(PATIENCE)


# 1.1 No worker waits for an upstream node


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


# 1.2 Parallelizable and Collect


def numbers() -> Parallelizable[int]:
    yield from (1, 2, 3)


def squared(numbers: int) -> int:
    return numbers**2


def squares(squared: Collect[int]) -> list[int]:
    return list(squared)


@pytest.fixture(params=REMOTE_EXECUTORS)
def remote_executor(request: pytest.FixtureRequest) -> TaskExecutor:
    """Hamilton's executors that run branches in this process."""
    made: TaskExecutor = request.param()
    return made


@pytest.mark.parametrize("workers", [1, 3])
def test_parallelizable(stage: Stage, remote_executor: TaskExecutor, workers: int) -> None:
    """Branches are run and collected in order."""
    adapter = stage.adapter(FutureAdapter(workers))
    runs = dynamic_driver_of(adapter, numbers, squared, squares, remote_executor=remote_executor)
    assert within_patience(lambda: runs.execute(["squares"])) == {"squares": [1, 4, 9]}


def test_hamiltons_breaks_on_parallelizable(stage: Stage, remote_executor: TaskExecutor) -> None:
    """It hands a future to code that wants the list."""
    adapter = stage.adapter(HamiltonsAdapter(3))
    runs = dynamic_driver_of(adapter, numbers, squared, squares, remote_executor=remote_executor)
    with pytest.raises(TypeError, match="'Future' object is not iterable"):
        runs.execute(["squares"])


def test_every_node_of_every_branch_runs_in_this_pool(stage: Stage, remote_executor: TaskExecutor) -> None:
    """Also the one that expands and the one that collects."""
    threads: list[tuple[str, str]] = []

    class Notes(lifecycle.NodeExecutionHook):
        def run_before_node_execution(self, *, node_name: str, **future_kwargs: Any) -> None:
            threads.append((node_name, threading.current_thread().name.partition("_")[0]))

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            pass

    adapter = stage.adapter(FutureAdapter(3, "crunch"))
    dynamic_driver_of(adapter, numbers, squared, squares, remote_executor=remote_executor, others=[Notes()]).execute(
        ["squares"]
    )
    expected = ["numbers", "squared", "squared", "squared", "squares"]
    assert sorted(threads) == [(name, "crunch") for name in expected]


def test_branches_run_at_once(stage: Stage, remote_executor: TaskExecutor) -> None:
    """Three branches meet at a barrier."""
    barrier = threading.Barrier(3)

    def met(numbers: int) -> int:
        barrier.wait(PATIENCE)
        return numbers

    def all_met(met: Collect[int]) -> int:
        return sum(met)

    adapter = stage.adapter(FutureAdapter(3))
    runs = dynamic_driver_of(adapter, numbers, met, all_met, remote_executor=remote_executor)
    assert runs.execute(["all_met"]) == {"all_met": 6}


def test_branches_are_collected_in_order_whichever_ends_first(stage: Stage) -> None:
    """Here the last does."""
    ended = {number: stage.event() for number in (1, 2, 3)}

    def late(numbers: int) -> int:
        if numbers < 3:
            wait_for(ended[numbers + 1])
        ended[numbers].set()
        return numbers

    def collected(late: Collect[int]) -> list[int]:
        return list(late)

    runs = dynamic_driver_of(stage.adapter(FutureAdapter(3)), numbers, late, collected)
    assert runs.execute(["collected"]) == {"collected": [1, 2, 3]}


def test_branches_of_several_nodes_with_inputs_from_outside(stage: Stage, remote_executor: TaskExecutor) -> None:
    """From a node outside of the branches, from the caller, and from an override."""

    def factor() -> int:
        return 10

    def scaled(numbers: int, factor: int) -> int:
        return numbers * factor

    def shifted(scaled: int, numbers: int, offset: int, replaced: int) -> int:
        return scaled + numbers + offset + replaced

    def replaced() -> int:
        raise AssertionError

    def collected(shifted: Collect[int], factor: int) -> list[int]:
        return [*shifted, factor]

    runs = dynamic_driver_of(
        stage.adapter(FutureAdapter(2)),
        *(factor, numbers, scaled, shifted, replaced, collected),
        remote_executor=remote_executor,
    )
    result = runs.execute(["collected", "factor"], inputs={"offset": 100}, overrides={"replaced": 1000})
    assert result == {"collected": [1111, 1122, 1133, 10], "factor": 10}


def test_an_empty_expansion(stage: Stage, remote_executor: TaskExecutor) -> None:
    """Collects nothing."""

    def numbers() -> Parallelizable[int]:
        yield from ()

    runs = dynamic_driver_of(
        stage.adapter(FutureAdapter(2)), numbers, squared, squares, remote_executor=remote_executor
    )
    assert within_patience(lambda: runs.execute(["squares"])) == {"squares": []}


@pytest.mark.parametrize("workers", [1, 2])
def test_two_expansions_in_sequence(stage: Stage, remote_executor: TaskExecutor, workers: int) -> None:
    """The second over what the first collected."""

    def again(squares: list[int]) -> Parallelizable[int]:
        yield from squares

    def text(again: int) -> str:
        return str(again)

    def line(text: Collect[str]) -> str:
        return " ".join(text)

    runs = dynamic_driver_of(
        stage.adapter(FutureAdapter(workers)),
        *(numbers, squared, squares, again, text, line),
        remote_executor=remote_executor,
    )
    assert within_patience(lambda: runs.execute(["line", "squares"])) == {"line": "1 4 9", "squares": [1, 4, 9]}


def test_a_failing_branch(stage: Stage, remote_executor: TaskExecutor) -> None:
    """Its exception, the very object, reaches the caller; nothing is collected."""
    error, collected = ValueError("branch"), []

    def fragile(numbers: int) -> int:
        if numbers == 2:
            raise error
        return numbers

    def whole(fragile: Collect[int]) -> int:
        collected.append(fragile)
        return 0

    adapter = stage.adapter(FutureAdapter(2))
    runs = dynamic_driver_of(adapter, numbers, fragile, whole, remote_executor=remote_executor)
    with pytest.raises(ValueError, match="branch") as raised:
        runs.execute(["whole"])
    assert raised.value is error
    assert not collected


def test_a_failing_expansion(stage: Stage, remote_executor: TaskExecutor) -> None:
    """Here after its first element: no branch runs, and the very exception reaches the caller."""
    error, ran = ValueError("expansion"), []

    def numbers() -> Parallelizable[int]:
        yield 1
        raise error

    def branch(numbers: int) -> int:
        ran.append(numbers)
        return numbers

    def whole(branch: Collect[int]) -> int:
        return 0

    adapter = stage.adapter(FutureAdapter(2))
    runs = dynamic_driver_of(adapter, numbers, branch, whole, remote_executor=remote_executor)
    with pytest.raises(ValueError, match="expansion") as raised:
        runs.execute(["whole"])
    assert raised.value is error
    assert not ran


def test_an_expansion_below_a_failure(stage: Stage, remote_executor: TaskExecutor) -> None:
    """The list cannot be made: the caller gets the upstream's exception."""
    error = ValueError("upstream")

    def source() -> int:
        raise error

    def numbers(source: int) -> Parallelizable[int]:
        yield source

    adapter = stage.adapter(FutureAdapter(2))
    runs = dynamic_driver_of(adapter, source, numbers, squared, squares, remote_executor=remote_executor)
    with pytest.raises(ValueError, match="upstream") as raised:
        runs.execute(["squares"])
    assert raised.value is error


def test_many_branches(stage: Stage, remote_executor: TaskExecutor) -> None:
    """A hundred, of two nodes, on three workers."""

    def numbers() -> Parallelizable[int]:
        yield from range(100)

    def more(squared: int) -> int:
        return squared + 1

    def total(more: Collect[int]) -> int:
        return sum(more)

    adapter = stage.adapter(FutureAdapter(3))
    runs = dynamic_driver_of(adapter, numbers, squared, more, total, remote_executor=remote_executor)
    assert runs.execute(["total"]) == {"total": sum(number**2 + 1 for number in range(100))}


def test_graceful_errors_in_branches(stage: Stage) -> None:
    """A failing branch gives the sentinel, as without our adapter."""

    def fragile(numbers: int) -> int:
        if numbers == 2:
            raise ValueError("branch")
        return numbers

    def collected(fragile: Collect[int]) -> list[int]:
        return list(fragile)

    def runs(adapter: Any) -> Any:
        graceful = GracefulErrorAdapter(ValueError, sentinel_value=-1)
        return dynamic_driver_of(adapter, numbers, fragile, collected, others=[graceful]).execute(["collected"])

    assert runs(stage.adapter(FutureAdapter(2))) == runs(None) == {"collected": [1, -1, 3]}


def test_an_executor_that_pickles_says_what_to_use(tmp_path: Path) -> None:
    """Hamilton's `MultiProcessingExecutor` sends tasks to other processes, which our threads are not in."""
    (tmp_path / "picklable.py").write_text(
        "from hamilton.htypes import Collect, Parallelizable\n"
        "def numbers() -> Parallelizable[int]:\n    yield from (1, 2)\n"
        "def squared(numbers: int) -> int:\n    return numbers ** 2\n"
        "def total(squared: Collect[int]) -> int:\n    return sum(squared)\n"
    )
    code, said, _ = run_process(
        f"""
        import logging
        from hamilton.execution.executors import MultiProcessingExecutor
        logging.disable()
        sys.path.insert(0, {str(tmp_path)!r})
        import picklable
        if __name__ == "__main__":
            builder = driver.Builder().with_modules(picklable).with_adapters(FutureAdapter(2))
            builder = builder.enable_dynamic_execution(allow_experimental_mode=True)
            try:
                builder.with_remote_executor(MultiProcessingExecutor(2)).build().execute(["total"])
            except TypeError as error:
                say("SynchronousLocalTaskExecutor()" in str(error), "MultiThreadingExecutor" in str(error))
        """
    )
    assert (code, said) == (0, ["True True"])


# 1.3 Nested drivers


def nested(adapter: Any, depth: int, *, width: int = 1) -> int:
    """Executes a driver whose nodes do the same, `depth` levels down. Returns how many leaves there were."""

    def leaf() -> int:
        return 1

    def left() -> int:
        return nested(adapter, depth - 1, width=width)

    def right() -> int:
        return nested(adapter, depth - 1, width=width)

    def both(left: int, right: int) -> int:
        return left + right

    if depth == 0:
        leaves: int = driver_of(adapter, leaf).execute(["leaf"])["leaf"]
        return leaves
    wanted, nodes = ("both", [left, right, both]) if width == 2 else ("left", [left, leaf])
    total: int = driver_of(adapter, *nodes).execute([wanted])[wanted]
    return total


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
        future: Future[int] = driver_of(adapter, inner).raw_execute(["inner"])["inner"]
        return future.result(patience)

    result: int = driver_of(adapter, outer).execute(["outer"])["outer"]
    return result


def test_a_node_waits_for_the_future_of_a_node(stage: Stage) -> None:
    """`raw_execute` and `result()` inside of a node."""
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
        future = driver_of(adapter, inner).raw_execute(["inner"], inputs={"given": foreign})["inner"]
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
    """Each look with a time limit sets up something to be woken by."""
    adapter, foreign = stage.adapter(FutureAdapter(1)), Future[Any]()

    def inner(given: Any) -> Any:
        return given

    def outer() -> int:
        future = driver_of(adapter, inner).raw_execute(["inner"], inputs={"given": foreign})["inner"]
        before = _events()
        for _ in range(100):
            with pytest.raises(FutureTimeoutError):
                future.result(0)
        left = _events() - before
        foreign.set_result("there")
        return left if future.result(PATIENCE) == "there" else -1

    assert 0 <= within_patience(lambda: driver_of(adapter, outer).execute(["outer"]))["outer"] < 10


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


# 1.4 Names of dependencies


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


# 1.5 contextvars

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


def seen_by_node() -> str:
    return request_id.get()


def in_request(value: str, function: Callable[[], Any]) -> Any:
    """Calls the function in a context where `request_id` has this value."""

    def run() -> Any:
        request_id.set(value)
        return function()

    return contextvars.copy_context().run(run)


@pytest.mark.parametrize(("adapter_class", "expected"), [(HamiltonsAdapter, "none"), (FutureAdapter, "r1")])
def test_the_callers_context_is_visible_in_nodes(stage: Stage, adapter_class: type[Any], expected: str) -> None:
    """With ours; with Hamilton's, nodes see the defaults."""
    runs = driver_of(stage.adapter(adapter_class(1)), seen_by_node)
    assert in_request("r1", lambda: runs.execute(["seen_by_node"])) == {"seen_by_node": expected}


def test_each_caller_has_its_own_context(stage: Stage) -> None:
    """On one worker, whose thread was started by the first."""
    runs = driver_of(stage.adapter(FutureAdapter(1)), seen_by_node)
    seen = [in_request(each, lambda: runs.execute(["seen_by_node"])["seen_by_node"]) for each in ("r1", "r2")]
    assert [*seen, runs.execute(["seen_by_node"])["seen_by_node"]] == ["r1", "r2", "none"]


def test_the_context_is_visible_in_hooks(stage: Stage) -> None:
    """Those of other adapters, around the node."""
    seen: list[str] = []

    class Notes(lifecycle.NodeExecutionHook):
        def run_before_node_execution(self, **future_kwargs: Any) -> None:
            seen.append(request_id.get())

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            seen.append(request_id.get())

    runs = driver_of(stage.adapter(FutureAdapter(1)), seen_by_node, others=[Notes()])
    in_request("r1", lambda: runs.execute(["seen_by_node"]))
    assert seen == ["r1", "r1"]


def test_the_context_is_visible_in_branches(stage: Stage, remote_executor: TaskExecutor) -> None:
    """Also where a thread of Hamilton's executor, which does not have it, submits them."""

    def branch(numbers: int) -> str:
        return request_id.get()

    def collected(branch: Collect[str]) -> list[str]:
        return [*branch, request_id.get()]

    adapter = stage.adapter(FutureAdapter(2))
    runs = dynamic_driver_of(adapter, numbers, branch, collected, remote_executor=remote_executor)
    assert in_request("r1", lambda: runs.execute(["collected"])) == {"collected": ["r1"] * 4}


def test_the_context_is_visible_in_nested_nodes(stage: Stage) -> None:
    """What the outer node set is, in its own nested run."""
    adapter = stage.adapter(FutureAdapter(1))
    inside = driver_of(adapter, seen_by_node)

    def outer() -> str:
        request_id.set("set by outer")
        seen: str = inside.execute(["seen_by_node"])["seen_by_node"]
        return seen

    runs = driver_of(adapter, outer)
    assert in_request("r1", lambda: runs.execute(["outer"])) == {"outer": "set by outer"}


def test_what_a_node_sets_stays_in_it(stage: Stage) -> None:
    """Neither the node below it, on the same worker, nor the caller sees it."""

    def first() -> str:
        request_id.set("first's own")
        return request_id.get()

    def second(first: str) -> str:
        return f"{first}, then {request_id.get()}"

    runs = driver_of(stage.adapter(FutureAdapter(1)), first, second)
    result, after = in_request("r1", lambda: (runs.execute(["second"]), request_id.get()))
    assert (result, after) == ({"second": "first's own, then r1"}, "r1")


def test_the_context_is_that_of_the_caller_not_of_who_resolves_an_input(stage: Stage) -> None:
    """A foreign future is resolved in another context."""
    adapter, foreign = stage.adapter(FutureAdapter(1)), Future[Any]()
    future = in_request("r1", lambda: submit(adapter, lambda x: request_id.get(), x=foreign))
    in_request("r2", lambda: foreign.set_result(1))
    assert future.result(PATIENCE) == "r1"


# 1.6 Closing


def is_closed(adapter: FutureAdapter) -> bool:
    return "closed" in repr(adapter)


def test_hamiltons_cannot_be_closed() -> None:
    """It has neither `close` nor `with`."""
    assert not hasattr(HamiltonsAdapter, "close")
    assert not hasattr(HamiltonsAdapter, "__enter__")


def test_close_lets_pending_nodes_end(stage: Stage) -> None:
    """Running, queued and blocked ones; it returns after the last."""
    adapter, held = stage.adapter(FutureAdapter(1)), Held(stage)
    running = submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, identity, x=1)
    blocked = submit(adapter, identity, x=queued)
    closing = in_thread(adapter.close)
    assert eventually(lambda: is_closed(adapter))
    assert not closing.done()
    held.release.set()
    closing.result(PATIENCE)
    assert [future.result(0) for future in (running, queued, blocked)] == ["held", 1, 1]


def test_close_that_cancels(stage: Stage) -> None:
    """What has not started is cancelled at once; what runs is waited for."""
    adapter, held, called = stage.adapter(FutureAdapter(1)), Held(stage), list[str]()
    running = submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, lambda: called.append("queued"))
    blocked = submit(adapter, lambda x: called.append("blocked"), x=running)
    closing = in_thread(lambda: adapter.close(cancel_pending=True))
    for future in (queued, blocked):
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
    assert not closing.done()
    held.release.set()
    closing.result(PATIENCE)
    assert running.result(0) == "held"
    assert not called


def test_close_that_cancels_a_run(stage: Stage) -> None:
    """Its caller, in another thread, gets `CancelledError`."""
    adapter, held = stage.adapter(FutureAdapter(1)), Held(stage)

    def first() -> str:
        return held()

    def second(first: str) -> str:
        return first

    caller = in_thread(lambda: driver_of(adapter, first, second).execute(["second"]))
    wait_for(held.started)
    closing = in_thread(lambda: adapter.close(cancel_pending=True))
    with pytest.raises(CancelledError):
        caller.result(PATIENCE)
    held.release.set()
    closing.result(PATIENCE)


def test_close_while_another_thread_executes(stage: Stage) -> None:
    """That run is done first, and right."""
    adapter, held = stage.adapter(FutureAdapter(2)), Held(stage)

    def first() -> str:
        return held()

    def second(first: str) -> str:
        return first + "!"

    caller = in_thread(lambda: driver_of(adapter, first, second).execute(["second", "first"]))
    wait_for(held.started)
    closing = in_thread(adapter.close)
    assert eventually(lambda: is_closed(adapter))
    held.release.set()
    closing.result(PATIENCE)
    assert caller.result(PATIENCE) == {"second": "held!", "first": "held"}


def test_close_while_another_thread_expands(stage: Stage, remote_executor: TaskExecutor) -> None:
    """A run whose later nodes do not exist yet is done first as well."""
    adapter, held = stage.adapter(FutureAdapter(2)), Held(stage)

    def numbers() -> Parallelizable[int]:
        held()
        yield from (1, 2)

    runs = dynamic_driver_of(adapter, numbers, squared, squares, remote_executor=remote_executor)
    caller = in_thread(lambda: runs.execute(["squares"]))
    wait_for(held.started)
    closing = in_thread(adapter.close)
    assert eventually(lambda: is_closed(adapter))
    held.release.set()
    assert caller.result(PATIENCE) == {"squares": [1, 4]}
    closing.result(PATIENCE)


def test_a_pending_node_may_execute_a_driver_while_the_adapter_closes(stage: Stage) -> None:
    """That run belongs to work that was there before."""
    adapter, held = stage.adapter(FutureAdapter(1)), Held(stage)

    def outer() -> int:
        held()
        return nested(adapter, 2)

    caller = in_thread(lambda: driver_of(adapter, outer).execute(["outer"]))
    wait_for(held.started)
    closing = in_thread(adapter.close)
    assert eventually(lambda: is_closed(adapter))
    held.release.set()
    assert caller.result(PATIENCE) == {"outer": 1}
    closing.result(PATIENCE)


def test_close_again(stage: Stage) -> None:
    """Does nothing, from two threads at once neither."""
    adapter, held = stage.adapter(FutureAdapter(1)), Held(stage)
    submit(adapter, held)
    wait_for(held.started)
    closings = [in_thread(adapter.close) for _ in range(2)]
    held.release.set()
    for closing in closings:
        closing.result(PATIENCE)
    adapter.close()
    adapter.close(cancel_pending=True)


def test_close_an_adapter_that_was_never_used() -> None:
    """Is fine."""
    FutureAdapter(1).close()


def test_a_context_manager_closes(no_thread_left: None) -> None:
    """After pending nodes."""
    with FutureAdapter(1) as adapter:
        future = submit(adapter, identity, x=1)
    assert future.result(0) == 1
    assert is_closed(adapter)


def test_a_context_manager_closes_when_its_body_raises() -> None:
    """Whose exception goes on."""
    adapters: list[FutureAdapter] = []

    def use() -> None:
        with FutureAdapter(1) as adapter:
            adapters.append(adapter)
            raise ValueError("body")

    with pytest.raises(ValueError, match="body"):
        use()
    assert is_closed(adapters[0])


def test_use_after_close(stage: Stage) -> None:
    """A clear error from `execute` and from `do_remote_execute`; no node runs."""
    called: list[int] = []

    def node() -> int:
        called.append(1)
        return 1

    adapter = FutureAdapter(1)
    runs = driver_of(adapter, node)
    adapter.close()
    with pytest.raises(RuntimeError, match=r"this FutureAdapter is closed.*make a new one"):
        runs.execute(["node"])
    with pytest.raises(RuntimeError, match=r"this FutureAdapter is closed.*make a new one"):
        submit(adapter, identity, x=1)
    assert not called


def test_threads_are_gone_after_close(stage: Stage) -> None:
    """All that ran nodes."""
    adapter, barrier = FutureAdapter(4), threading.Barrier(4)

    def meet() -> threading.Thread:
        barrier.wait(PATIENCE)
        return threading.current_thread()

    threads = {future.result(PATIENCE) for future in [submit(adapter, meet) for _ in range(4)]}
    assert len(threads & set(threading.enumerate())) == 4
    adapter.close()
    assert not threads & set(threading.enumerate())


def test_close_from_a_node_is_refused(stage: Stage) -> None:
    """It would wait for itself; the adapter stays open."""
    adapter = stage.adapter(FutureAdapter(1))

    def closer() -> None:
        adapter.close()

    with pytest.raises(RuntimeError, match=r"'closer'.*call close\(\) from the code that calls execute"):
        within_patience(lambda: driver_of(adapter, closer).execute(["closer"]))
    assert submit(adapter, identity, x=1).result(PATIENCE) == 1


def test_close_from_a_nested_node_is_refused(stage: Stage) -> None:
    """As well, also where another adapter's node is in between."""
    adapter, between = stage.adapter(FutureAdapter(1)), stage.adapter(FutureAdapter(1))

    def closer() -> None:
        adapter.close()

    def outer() -> None:
        driver_of(between, closer).execute(["closer"])

    with pytest.raises(RuntimeError, match=r"call close\(\) from the code that calls execute"):
        within_patience(lambda: driver_of(adapter, outer).execute(["outer"]))


def test_close_from_a_done_callback_is_refused(stage: Stage) -> None:
    """It runs in the worker, before its node has quite ended."""
    adapter, held, answer = stage.adapter(FutureAdapter(1)), Held(stage), Future[Any]()

    def closer(done: Future[Any]) -> None:
        try:
            adapter.close()
        except RuntimeError as error:
            answer.set_result(str(error))

    submit(adapter, held).add_done_callback(closer)
    held.release.set()
    assert "call close() from the code that calls execute()" in answer.result(PATIENCE)


def test_a_node_may_close_another_adapter(stage: Stage) -> None:
    """For which it is a caller like any other."""
    adapter, other = stage.adapter(FutureAdapter(1)), stage.adapter(FutureAdapter(1))
    future = submit(other, identity, x=1)
    assert submit(adapter, other.close).result(PATIENCE) is None
    assert future.result(0) == 1


# 1.7 fail_fast


def test_hamiltons_has_no_fail_fast() -> None:
    """The argument is unknown to it."""
    with pytest.raises(TypeError, match="fail_fast"):
        HamiltonsAdapter(fail_fast=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(("fail_fast", "expected"), [(True, []), (False, ["other 1", "other 2"])])
def test_nothing_is_started_after_a_failure(stage: Stage, expected: list[str], *, fail_fast: bool) -> None:
    """With `fail_fast`; without, what does not depend on the failure runs, as documented."""
    ran: list[str] = []
    go, error = stage.event(), ValueError("bad")

    def bad() -> int:
        wait_for(go)
        raise error

    def other_1() -> None:
        ran.append("other 1")

    def other_2(other_1: None) -> None:
        ran.append("other 2")

    adapter = stage.adapter(FutureAdapter(1, fail_fast=fail_fast))
    futures = driver_of(adapter, bad, other_1, other_2).raw_execute(["bad", "other_2"])
    go.set()
    adapter.close()
    assert futures["bad"].exception(0) is error
    assert futures["other_2"].done()
    assert ran == expected


@pytest.mark.parametrize("fail_fast", [True, False])
def test_the_caller_hears_of_a_failure_at_once(stage: Stage, *, fail_fast: bool) -> None:
    """With `fail_fast`, while a node still runs that was asked for first; without, after that node."""
    held, error, failed = Held(stage), ValueError("bad"), stage.event()

    def slow() -> str:
        return held()

    def bad() -> int:
        wait_for(held.started)
        failed.set()
        raise error

    adapter = stage.adapter(FutureAdapter(2, fail_fast=fail_fast))
    caller = in_thread(lambda: driver_of(adapter, slow, bad).execute(["slow", "bad"]))
    wait_for(failed)
    if fail_fast:
        assert caller.exception(PATIENCE) is error
        assert not held.release.is_set()
    else:
        with pytest.raises(FutureTimeoutError):
            caller.exception(REFUTATION)
        held.release.set()
        assert caller.exception(PATIENCE) is error


def test_the_caller_hears_of_a_failure_that_it_did_not_ask_for(stage: Stage) -> None:
    """The failing node is far upstream of an output, beside one that is slow."""
    held, error = Held(stage), ValueError("bad")

    def slow() -> str:
        return held()

    def bad() -> int:
        wait_for(held.started)
        raise error

    def join(slow: str, bad: int) -> int:
        return bad

    def last(join: int) -> int:
        return join

    adapter = stage.adapter(FutureAdapter(2, fail_fast=True))
    caller = in_thread(lambda: driver_of(adapter, slow, bad, join, last).execute(["last"]))
    assert caller.exception(PATIENCE) is error
    assert not held.release.is_set()


class StepByStep(FutureAdapter):
    """Waits for the node `bad` before it submits the next, so that the failure comes during submission."""

    def do_remote_execute(self, **arguments: Any) -> Any:
        future = super().do_remote_execute(**arguments)
        if arguments["node"].name == "bad":
            future.exception(PATIENCE)
        return future


def test_a_failure_during_submission(stage: Stage) -> None:
    """Nodes that are submitted after it never start, and the caller gets the exception."""
    ran, error = list[str](), ValueError("bad")

    def bad() -> int:
        raise error

    def later() -> None:
        ran.append("later")

    adapter = stage.adapter(StepByStep(2, fail_fast=True))
    with pytest.raises(ValueError, match="bad") as raised:
        driver_of(adapter, bad, later).execute(["bad", "later"])
    adapter.close()
    assert raised.value is error
    assert not ran


def test_fail_fast_concerns_one_run(stage: Stage) -> None:
    """Another run on the same adapter goes on."""
    held = Held(stage)

    def slow() -> str:
        return held()

    def below(slow: str) -> str:
        return slow + "!"

    def bad() -> int:
        raise ValueError("bad")

    adapter = stage.adapter(FutureAdapter(2, fail_fast=True))
    caller = in_thread(lambda: driver_of(adapter, slow, below).execute(["below"]))
    wait_for(held.started)
    with pytest.raises(ValueError, match="bad"):
        driver_of(adapter, bad).execute(["bad"])
    held.release.set()
    assert caller.result(PATIENCE) == {"below": "held!"}


def test_fail_fast_in_branches(stage: Stage, remote_executor: TaskExecutor) -> None:
    """The first of a hundred branches fails, on one worker: its second node never runs, nor does any other's."""
    ran, error, all_there = list[int](), ValueError("branch"), stage.event()

    def numbers() -> Parallelizable[int]:
        yield from range(100)

    def fragile(numbers: int) -> int:
        ran.append(numbers)
        wait_for(all_there)
        raise error

    def whole(fragile: Collect[int]) -> int:
        return 0

    class AllThere(FutureAdapter):
        def build_result(self, **outputs: Any) -> Any:
            all_there.set()
            return super().build_result(**outputs)

    adapter = stage.adapter(AllThere(1, fail_fast=True))
    runs = dynamic_driver_of(adapter, numbers, fragile, whole, remote_executor=remote_executor)
    with pytest.raises(ValueError, match="branch") as raised:
        runs.execute(["whole"])
    adapter.close()
    assert raised.value is error
    assert len(ran) == 1


def test_a_failure_that_a_node_handles_is_none(stage: Stage) -> None:
    """The nested run fails fast, the run that it is nested in goes on."""
    adapter = stage.adapter(FutureAdapter(1, fail_fast=True))

    def bad() -> int:
        raise ValueError("bad")

    def outer() -> str:
        try:
            driver_of(adapter, bad).execute(["bad"])
        except ValueError:
            return "handled"
        raise AssertionError

    def below(outer: str) -> str:
        return outer + "!"

    runs = driver_of(adapter, outer, below)
    assert within_patience(lambda: runs.execute(["below"])) == {"below": "handled!"}


def test_fail_fast_without_a_failure(stage: Stage) -> None:
    """Changes nothing."""
    adapter = stage.adapter(FutureAdapter(2, fail_fast=True))
    assert adapter.build_result(a=submit(adapter, identity, x=1), b=2) == {"a": 1, "b": 2}
    assert adapter.build_result(b=2) == {"b": 2}


# 1.8 KeyboardInterrupt


@pytest.fixture
def press_ctrl_c() -> Iterator[Callable[[], None]]:
    """Interrupts the main thread, once.

    The race: a signal that comes between a thread's last instruction and its wait for a lock is noticed only after
    that wait. So it is sent until it is noticed.
    """
    noticed = threading.Event()

    def handle(signal_number: int, frame: object) -> None:
        if not noticed.is_set():
            noticed.set()
            raise KeyboardInterrupt

    def press() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not noticed.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            noticed.wait(0.05)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield press
    finally:
        signal.signal(signal.SIGINT, before)


def announcing(adapter_class: type[Any], building: threading.Event) -> type[Any]:
    """The class, with an event that is set when the main thread begins to wait for its results."""

    class Announcing(adapter_class):  # type: ignore[misc]
        def build_result(self, **outputs: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                building.set()
            return super().build_result(**outputs)

    return Announcing


@posix_only
@pytest.mark.parametrize(
    ("adapter_class", "expected"),
    [
        pytest.param(HamiltonsAdapter, ["first", "below", "queued"], id="hamilton"),
        pytest.param(FutureAdapter, ["first"], id="ours"),
    ],
)
def test_an_interrupt_while_waiting_for_results(
    stage: Stage, press_ctrl_c: Callable[[], None], adapter_class: type[Any], expected: list[str]
) -> None:
    """Reaches the caller while a node runs; what has not started never does. With Hamilton's, all of it runs."""
    ran, building, held = list[str](), stage.event(), Held(stage)

    def first() -> str:
        ran.append("first")
        wait_for(building)
        press_ctrl_c()
        return held()

    def below(first: str) -> None:
        ran.append("below")

    def queued() -> None:
        ran.append("queued")

    adapter = stage.adapter(announcing(adapter_class, building)(1))
    with pytest.raises(KeyboardInterrupt):
        driver_of(adapter, first, below, queued).execute(["below", "queued"])
    assert not held.release.is_set()
    held.release.set()
    adapter.executor.shutdown()
    assert ran == expected


@posix_only
@pytest.mark.parametrize("in_run", [True, False], ids=["raw_execute", "do_remote_execute"])
def test_an_interrupt_while_building_results_by_hand(
    stage: Stage, press_ctrl_c: Callable[[], None], *, in_run: bool
) -> None:
    """What was submitted before, in a run or outside of any, and has not started, never does."""
    ran, building, held = list[str](), stage.event(), Held(stage)

    def first() -> str:
        ran.append("first")
        wait_for(building)
        press_ctrl_c()
        return held()

    def queued() -> None:
        ran.append("queued")

    adapter = stage.adapter(announcing(FutureAdapter, building)(1))
    if in_run:
        futures = driver_of(adapter, first, queued).raw_execute(["first", "queued"])
    else:
        futures = {"first": submit(adapter, first), "queued": submit(adapter, queued)}
    with pytest.raises(KeyboardInterrupt):
        adapter.build_result(**futures)
    assert futures["queued"].cancelled()
    held.release.set()
    adapter.close()
    assert ran == ["first"]


@posix_only
def test_the_adapter_works_after_an_interrupt(stage: Stage, press_ctrl_c: Callable[[], None]) -> None:
    """A new run is not concerned."""
    building = stage.event()

    def first() -> None:
        wait_for(building)
        press_ctrl_c()

    def second() -> int:
        return 2

    adapter = stage.adapter(announcing(FutureAdapter, building)(1))
    with pytest.raises(KeyboardInterrupt):
        driver_of(adapter, first, second).execute(["first", "second"])
    assert driver_of(adapter, second).execute(["second"]) == {"second": 2}


@posix_only
def test_an_interrupt_concerns_the_run_that_is_waited_for(stage: Stage, press_ctrl_c: Callable[[], None]) -> None:
    """Another caller's run goes on."""
    building, held = stage.event(), Held(stage)

    def slow() -> str:
        return held()

    def below(slow: str) -> str:
        return slow + "!"

    def first() -> None:
        wait_for(building)
        press_ctrl_c()

    def second(first: None) -> int:
        return 2

    adapter = stage.adapter(announcing(FutureAdapter, building)(2))
    other = in_thread(lambda: driver_of(adapter, slow, below).execute(["below"]))
    wait_for(held.started)
    with pytest.raises(KeyboardInterrupt):
        driver_of(adapter, first, second).execute(["second"])
    held.release.set()
    assert other.result(PATIENCE) == {"below": "held!"}


@posix_only
@pytest.mark.parametrize(
    ("adapter_class", "expected"),
    [
        pytest.param(HamiltonsAdapter, ["first", "second"], id="hamilton"),
        pytest.param(FutureAdapter, ["first"], id="ours"),
    ],
)
def test_an_interrupt_during_submission(
    stage: Stage, press_ctrl_c: Callable[[], None], adapter_class: type[Any], expected: list[str]
) -> None:
    """What was submitted already does not start either."""
    ran, held = list[str](), Held(stage)

    class Interrupted(adapter_class):  # type: ignore[misc]
        def do_remote_execute(self, **arguments: Any) -> Any:
            if arguments["node"].name == "third":
                wait_for(held.started)
                press_ctrl_c()
            return super().do_remote_execute(**arguments)

    def first() -> str:
        ran.append("first")
        return held()

    def second(first: str) -> None:
        ran.append("second")

    def third(second: None) -> None:
        ran.append("third")

    adapter = stage.adapter(Interrupted(1))
    with pytest.raises(KeyboardInterrupt):
        driver_of(adapter, first, second, third).execute(["third"])
    held.release.set()
    adapter.executor.shutdown()
    assert ran == expected


@posix_only
def test_an_interrupt_in_dynamic_execution(
    stage: Stage, press_ctrl_c: Callable[[], None], remote_executor: TaskExecutor
) -> None:
    """Branches run, and Hamilton waits for the list that a second expansion gives."""
    ran, waiting, held = list[int](), stage.event(), Held(stage)

    class Announcing(FutureAdapter):
        def do_remote_execute(self, **arguments: Any) -> Any:
            if arguments["node"].name == "again":
                waiting.set()
            return super().do_remote_execute(**arguments)

    def branch(numbers: int) -> int:
        ran.append(numbers)
        wait_for(waiting)
        press_ctrl_c()
        held()
        return numbers

    def collected(branch: Collect[int]) -> list[int]:
        return list(branch)

    def again(collected: list[int]) -> Parallelizable[int]:
        yield from collected

    def last(again: int) -> int:
        return again

    def line(last: Collect[int]) -> list[int]:
        return list(last)

    adapter = stage.adapter(Announcing(1))
    runs = dynamic_driver_of(adapter, numbers, branch, collected, again, last, line, remote_executor=remote_executor)
    with pytest.raises(KeyboardInterrupt):
        runs.execute(["line"])
    held.release.set()
    adapter.close()
    assert len(ran) == 1


# 1.10 Runs that build no result


@pytest.mark.parametrize("way", ["raw_execute", "materialize"])
def test_a_run_ends_with_its_last_node(stage: Stage, way: str) -> None:
    """It is active until then, although its caller has long left; then it is counted."""
    held = Held(stage)

    def first() -> str:
        return held()

    def second(first: str) -> str:
        return first

    registry = CollectorRegistry()

    def counted() -> float | None:
        labels = {"pool": "etl", "run": "nightly", "outcome": "success"}
        return registry.get_sample_value("hamilton_run_duration_seconds_count", labels)

    adapter = stage.adapter(FutureAdapter(2, name="etl", run_name="nightly", registry=registry))
    runs = driver_of(adapter, first, second)
    if way == "raw_execute":
        runs.raw_execute(["second"])
    else:
        runs.materialize(additional_vars=["second"])
    wait_for(held.started)
    assert (adapter.snapshot().active_runs, counted()) == (1, 0)
    held.release.set()
    adapter.close()
    assert (adapter.snapshot().active_runs, counted()) == (0, 1)


# No run starves another


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
    driver_of(adapter, first, *nodes).raw_execute([node.__name__ for node in nodes])
    wait_for(held.started)
    future = driver_of(adapter, short).raw_execute(["short"])["short"]
    held.release.set()
    future.result(PATIENCE)
    position = order.index("short") + 1
    assert position <= latest
    if adapter_class is HamiltonsAdapter:
        assert position == latest
