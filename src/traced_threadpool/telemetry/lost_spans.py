"""Spans that were made and did not arrive, counted by where they were lost, for the whole process.

- `adapter`: more spans waited to be ended than the adapter keeps;
- `queue`: more waited for export than `setup_telemetry` keeps;
- `endpoint`, `file`: the export failed, or was given up.
"""

from __future__ import annotations

import threading
from typing import Final

from traced_threadpool.model import forks

STAGES: Final = ("adapter", "queue", "endpoint", "file")


class _LostSpans:
    """Counts that are replaced, never changed: reading takes no lock, and a forked child finds them whole."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(STAGES, 0)
        self._renew_lock()
        forks.register(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def add(self, stage: str, count: int) -> None:
        with self._lock:
            self.counts = {**self.counts, stage: self.counts[stage] + count}


_lost: Final = _LostSpans()


def lose_spans(stage: str, count: int) -> None:
    """Counts spans as lost at one of `STAGES`."""
    _lost.add(stage, count)


def spans_lost() -> dict[str, int]:
    """How many were lost at each stage since the process began."""
    return dict(_lost.counts)
