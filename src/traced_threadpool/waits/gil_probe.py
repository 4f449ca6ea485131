"""How late a sleeping thread gets the GIL when it wakes up: a gauge of contention by anybody in the process."""

from __future__ import annotations

import time
from typing import Final

from traced_threadpool.waits.reasons import has_gil
from traced_threadpool.waits.runqueue import RunQueueDelay

PROBE_SECONDS: Final = 0.05

SLACK_NS: Final = 200_000
"""How late a thread wakes up in any case: timers are rounded, and wake-ups take a moment."""


class GilProbe:
    """Adds up what the thread that probes has waited for the GIL, since the process began."""

    def __init__(self) -> None:
        self._waited_ns = 0

    @property
    def waited_seconds(self) -> float:
        return self._waited_ns / 1e9

    def probe(self, delay: RunQueueDelay | None) -> None:
        """Sleeps. What it wakes up too late by, other than for want of a CPU, is a wait for the GIL."""
        delay_ns = delay.read_ns() if delay else 0
        before_ns = time.monotonic_ns()
        time.sleep(PROBE_SECONDS)
        late_ns = time.monotonic_ns() - before_ns - int(PROBE_SECONDS * 1e9) - SLACK_NS
        if delay:
            late_ns -= delay.read_ns() - delay_ns
        if late_ns > 0 and has_gil():
            self._waited_ns += late_ns
