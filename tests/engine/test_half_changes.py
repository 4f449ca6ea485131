"""Nobody sees a change of the pool that an exception cut off in the middle: neither other workers nor other runs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.dags import PATIENCE, Held, Stage, driver_of, in_thread, wait_for
from traced_threadpool import FutureAdapter
from traced_threadpool.engine import scheduler
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
