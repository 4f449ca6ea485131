"""Nobody sees a change of the pool that an exception cut off in the middle: neither other workers nor other runs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import FrameType
from typing import Any

import pytest

from tests.dags import PATIENCE, Held, Stage, driver_of, in_thread, start, wait_for
from traced_threadpool import FutureAdapter
from traced_threadpool.engine import pool, scheduler
from traced_threadpool.engine.pool import Pool
from traced_threadpool.model import lock_backoff

MOMENT = 0.05
"""Time enough for a worker to take the pool's lock, were it free."""

Line = tuple[str, int]


class CutOff:
    """Raises at one line of the scheduler on the calling thread; where locks are let go of then, others get a moment.

    Args:
        line: Which; None to find all of them.
        others: Has them come.
    """

    def __init__(self, line: Line | None, others: Callable[[], None]) -> None:
        self.lines: set[Line] = set()
        self.raised = False
        self._line = line
        self._others = others

    def call(self, function: Callable[[], Any]) -> None:
        sys.setprofile(self._returned)  # this one stays when the other has raised
        sys.settrace(self._trace)
        try:
            function()
        except KeyboardInterrupt:
            assert self.raised
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._in_scheduler if frame.f_code.co_filename == scheduler.__file__ else None

    def _in_scheduler(self, frame: FrameType, event: str, argument: object) -> Any:
        here = (frame.f_code.co_name, frame.f_lineno - frame.f_code.co_firstlineno)
        if event == "line":
            self.lines.add(here)
            if here == self._line and not self.raised:
                self.raised = True
                raise KeyboardInterrupt
        return self._in_scheduler

    def _returned(self, frame: FrameType, event: str, argument: object) -> None:
        if self.raised and event == "return" and frame.f_code is lock_backoff.release_owned.__code__:
            self._others()


def begin() -> int:
    return 1


def left(begin: int) -> int:
    return begin


def right(begin: int) -> int:
    return begin


def end(left: int, right: int) -> int:
    return left + right


def _beside_another_run(stage: Stage, line: Line | None) -> CutOff:
    """A run is cut off at that line while another run's node ends, which wakes that one's dependents."""
    held = Held(stage)

    def waits() -> int:
        return 1 if held() else 0

    def one(waits: int) -> int:
        return waits

    def two(waits: int) -> int:
        return waits

    def both(one: int, two: int) -> int:
        return one + two

    adapter = stage.adapter(FutureAdapter(2, tracing=False, metrics=False, attribution=False))
    other = in_thread(lambda: driver_of(adapter, waits, one, two, both).execute(["both"]))
    wait_for(held.started)

    def others_come() -> None:
        if not held.release.is_set():
            held.release.set()
            time.sleep(MOMENT)

    cut_off = CutOff(line, others_come)
    run = driver_of(adapter, begin, left, right, end)
    cut_off.call(lambda: run.execute(["end"]))
    held.release.set()
    assert other.result(PATIENCE) == {"both": 2}
    assert run.execute(["end"]) == {"end": 2}
    return cut_off


@pytest.mark.slow
def test_an_interrupt_in_the_middle_of_a_change(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """At each line of the scheduler on the caller's thread: no worker fails over it, and the other run is right."""
    lines = sorted(_beside_another_run(stage, None).lines)
    assert len(lines) > 20
    with caplog.at_level(logging.ERROR, "traced_threadpool"):
        for line in lines:
            _beside_another_run(stage, line)
            assert [record.getMessage() for record in caplog.records] == [], line


class AtOnce(Executor):
    """Somebody's own, which runs what it is given before `submit` returns."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except BaseException as error:
            future.set_exception(error)
        return future


class AtLine:
    """Raises a MemoryError at one line of the pool's functions that end a node, once."""

    def __init__(self, line: Line | None) -> None:
        self.lines: set[Line] = set()
        self.raised = False
        self._line = line

    def call(self, function: Callable[[], Any]) -> None:
        sys.settrace(self._trace)
        try:
            function()
        except MemoryError:
            assert self.raised
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_name
        return self._each if frame.f_code.co_filename == pool.__file__ and name in ENDING else None

    def _each(self, frame: FrameType, event: str, argument: object) -> Any:
        here = (frame.f_code.co_name, frame.f_lineno - frame.f_code.co_firstlineno)
        if event == "line":
            self.lines.add(here)
            if here == self._line and not self.raised:
                self.raised = True
                raise MemoryError
        return self._each


ENDING = ("_end_and_take", "_end_alone", "_conclude", "_take_locked")


def _on_an_executor_that_runs_at_once(line: Line | None) -> AtLine:
    """All of the run on the thread that brings a value from outside; the exception where one of its nodes ends."""
    adapter = FutureAdapter(2, tracing=False, metrics=False, attribution=False)
    adapter.executor = AtOnce()
    at_line = AtLine(line)

    def first(given: Any) -> int:
        return int(given)

    def inner() -> int:
        return 1

    def nested(first: int) -> int:
        return first + driver_of(adapter, inner).execute(["inner"])["inner"]  # type: ignore[no-any-return]

    def last(first: int, nested: int) -> int:
        return first + nested

    given: Future[int] = Future()
    futures = start(driver_of(adapter, first, nested, last), ["last"], inputs={"given": given})
    at_line.call(lambda: given.set_result(1))
    try:
        assert futures["last"].result(PATIENCE) == 3
    except MemoryError:
        assert at_line.raised
    assert driver_of(adapter, begin, left, right, end).execute(["end"]) == {"end": 2}
    adapter.close()
    return at_line


def test_a_node_whose_end_is_cut_off(stage: Stage) -> None:
    """At each line: nobody waits for ever for the node, not even one that the same thread starts then."""
    lines = sorted(in_thread(_on_an_executor_that_runs_at_once, None).result(PATIENCE).lines)
    assert len(lines) > 20
    for line in lines:
        in_thread(_on_an_executor_that_runs_at_once, line).result(PATIENCE)


def test_a_repair_while_another_node_ends(stage: Stage) -> None:
    """A nested node has run, and its end is not told yet, when another run's submission is cut off: its value stays."""
    adapter = stage.adapter(FutureAdapter(1, tracing=False, metrics=False, attribution=False))
    cut_off = CutOff(("add", 5), lambda: None)

    def inner() -> int:
        return 42

    def outer() -> int:
        repaired: list[bool] = []

        def trace(frame: FrameType, event: str, argument: object) -> None:
            if frame.f_code is Pool._conclude.__code__ and not repaired:
                repaired.append(True)
                other = driver_of(adapter, begin, left, right, end)
                in_thread(cut_off.call, lambda: other.execute(["end"])).result(PATIENCE)

        inside = driver_of(adapter, inner)
        sys.settrace(trace)
        try:
            return inside.execute(["inner"])["inner"]  # type: ignore[no-any-return]
        finally:
            sys.settrace(None)
            assert repaired

    assert driver_of(adapter, outer).execute(["outer"]) == {"outer": 42}
    assert cut_off.raised


def test_a_cancel_where_no_recursion_is_left(stage: Stage) -> None:
    """It may fail, at whatever depth; others go on."""
    held = Held(stage)

    def running() -> str:
        return held()

    def pending() -> int:
        return 1

    adapter = stage.adapter(FutureAdapter(1, tracing=False, metrics=False, attribution=False))
    futures = start(driver_of(adapter, running, pending), ["running", "pending"])
    wait_for(held.started)

    def down(depth: int) -> None:
        if depth:
            down(depth - 1)
        else:
            futures["pending"].cancel()

    failed = 0
    for depth in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()):
        try:
            down(depth)
        except RecursionError:
            failed += 1
        assert in_thread(adapter.snapshot).result(PATIENCE).active_workers == 1, depth
    assert failed
    held.release.set()
    assert futures["running"].result(PATIENCE) == "held"
