"""A run that has just ended into the cause that `explain` names first, unless that takes longer than it may.

It is the same diagnosis. What takes long in it are replays, so it is given up before the first one that comes too late.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.diagnosis.diagnose import Cause, diagnose
from traced_threadpool.analysis.replay.plan import Plan
from traced_threadpool.analysis.replay.replayed import Replayed
from traced_threadpool.analysis.replay.settings import ReplaySettings
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.recorded_run import RecordedRun


def first_finding(run: RecordedRun, until: float, *, clock: Callable[[], float] = time.monotonic) -> Cause | None:
    """The cause, or None where it was not found by `until`, a time of `clock`.

    >>> from traced_threadpool.model.recorded_run import NodeExecution
    >>> node = NodeExecution(key="1", name="a", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=9, states={"cpu": 9})
    >>> run = RecordedRun(id="r", name="etl", pool="p", started_ns=0, ended_ns=9, nodes=(node,))
    >>> first_finding(run, until=2, clock=lambda: 1), first_finding(run, until=1, clock=lambda: 2)
    ('critical_path', None)
    """

    def check() -> None:
        if clock() > until:
            raise _TooLate

    try:
        return diagnose(run, analyzed=_AnalyzedInTime(run, check)).cause
    except _TooLate:
        return None


class _TooLate(BaseException):
    """None of the errors that a replay may raise, and a diagnosis may catch."""


class _AnalyzedInTime(AnalyzedRun):
    def __init__(self, run: RecordedRun, check: Callable[[], None]) -> None:
        super().__init__(run)
        self._check = check

    @lazy
    def plan(self) -> Plan:
        if self.is_large:
            raise _TooLate
        self._check()
        return _PlanInTime(self.run, self._check)


class _PlanInTime(Plan):
    def __init__(self, run: RecordedRun, check: Callable[[], None]) -> None:
        self._check = check
        super().__init__(run)

    def replay(self, settings: ReplaySettings) -> Replayed:
        self._check()
        return super().replay(settings)
