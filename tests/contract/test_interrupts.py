"""Ctrl-C, and any exception of a signal handler, ends `execute` and cancels what of its run has not started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hamilton.execution.executors import TaskExecutor
from hamilton.htypes import Collect, Parallelizable
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter

from tests.contract.shared import announcing, numbers, posix_only
from tests.dags import PATIENCE, Held, Stage, driver_of, dynamic_driver_of, in_thread, start, submit, wait_for
from traced_threadpool import FutureAdapter


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
@pytest.mark.parametrize("in_run", [True, False], ids=["in a run", "do_remote_execute"])
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
        futures = start(driver_of(adapter, first, queued), ["first", "queued"])
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


def three_in_a_row(ran: list[str], held: Held) -> Sequence[Callable[..., Any]]:
    """Nodes `first`, which is held, `second` below it and `third`: each says that it ran."""

    def first() -> str:
        ran.append("first")
        return held()

    def second(first: str) -> None:
        ran.append("second")

    def third(second: None) -> None:
        ran.append("third")

    return first, second, third


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

    adapter = stage.adapter(Interrupted(1))
    with pytest.raises(KeyboardInterrupt):
        driver_of(adapter, *three_in_a_row(ran, held)).execute(["third"])
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


# An exception that is no node's, and no Ctrl-C: a soft time limit, a timeout decorator's signal


class SoftTimeLimit(Exception):
    """What a task queue raises in the caller when a task has taken too long."""


@pytest.fixture
def exceed_limit() -> Iterator[Callable[[], None]]:
    """Raises `SoftTimeLimit` in the main thread, once; sent until it is noticed, as Ctrl-C above."""
    noticed = threading.Event()

    def handle(signal_number: int, frame: object) -> None:
        if not noticed.is_set():
            noticed.set()
            raise SoftTimeLimit

    def exceed() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not noticed.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            noticed.wait(0.05)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        yield exceed
    finally:
        signal.signal(signal.SIGUSR1, before)


@posix_only
@pytest.mark.parametrize(
    ("adapter_class", "expected"),
    [
        pytest.param(HamiltonsAdapter, ["first", "below", "queued"], id="hamilton"),
        pytest.param(FutureAdapter, ["first"], id="ours"),
    ],
)
@pytest.mark.parametrize("fails", [False, True], ids=["alone", "after a node's failure"])
def test_a_time_limit_while_waiting_for_results(
    stage: Stage, exceed_limit: Callable[[], None], adapter_class: type[Any], expected: list[str], *, fails: bool
) -> None:
    """The run's other nodes do not start, also where a node of it has failed before."""
    ran, building, held = list[str](), stage.event(), Held(stage)

    def bad() -> None:
        if fails:
            raise ValueError("bad")

    def first() -> str:
        ran.append("first")
        wait_for(building)
        exceed_limit()
        return held()

    def below(first: str) -> None:
        ran.append("below")

    def queued() -> None:
        ran.append("queued")

    adapter = stage.adapter(announcing(adapter_class, building)(1))
    with pytest.raises(SoftTimeLimit):
        driver_of(adapter, bad, first, below, queued).execute(["below", "queued", *(["bad"] if fails else [])])
    held.release.set()
    adapter.executor.shutdown()
    assert ran == expected


@posix_only
def test_a_time_limit_during_submission(stage: Stage, exceed_limit: Callable[[], None]) -> None:
    """What was submitted already does not start, and the run is told as an error."""
    ran, held = list[str](), Held(stage)

    class Slow(FutureAdapter):
        def do_remote_execute(self, **arguments: Any) -> Any:
            if arguments["node"].name == "third":
                wait_for(held.started)
                exceed_limit()
            return super().do_remote_execute(**arguments)

    adapter = stage.adapter(Slow(1, record=True))
    with pytest.raises(SoftTimeLimit):
        driver_of(adapter, *three_in_a_row(ran, held)).execute(["third"])
    held.release.set()
    adapter.close()
    assert ran == ["first"]
    [record] = adapter.recorded_runs
    assert (record.outcome, sorted((node.name, node.outcome) for node in record.nodes)) == (
        "error",
        [("first", "success"), ("second", "cancelled")],
    )


@pytest.mark.parametrize("wrapped", [None, "from", "while"], ids=["itself", "raised from it", "raised while handled"])
def test_a_nodes_exception_ends_no_other_node(stage: Stage, wrapped: str | None) -> None:
    """Not the second to fail either, nor one that a subclass has made another of."""
    ran, go = list[str](), stage.event()

    class Wrapping(FutureAdapter):
        def build_result(self, **outputs: Any) -> Any:
            try:
                return super().build_result(**outputs)
            except ValueError as error:
                if wrapped == "from":
                    raise RuntimeError("the run failed") from error
                raise RuntimeError("the run failed")  # noqa: B904  # as programs do

    def early() -> None:
        raise KeyError("early")

    def late() -> None:
        raise ValueError("late")

    def other() -> None:
        wait_for(go)
        ran.append("other")

    def last(other: None) -> None:
        ran.append("last")

    adapter = stage.adapter((Wrapping if wrapped else FutureAdapter)(2))
    with pytest.raises(RuntimeError if wrapped else ValueError):
        driver_of(adapter, early, late, other, last).execute(["late", "early", "last"])
    go.set()
    adapter.close()
    assert ran == ["other", "last"]
