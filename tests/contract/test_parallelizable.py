"""`Parallelizable` and `Collect`, with every node of every branch in this pool."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.execution.executors import TaskExecutor
from hamilton.htypes import Collect, Parallelizable
from hamilton.lifecycle.default import GracefulErrorAdapter
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter

from tests.contract.shared import numbers, squared, squares, within_patience
from tests.dags import PATIENCE, Stage, dynamic_driver_of, run_process, wait_for
from traced_threadpool import FutureAdapter


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
