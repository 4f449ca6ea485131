"""Spans that were made and did not arrive, counted by where they were lost, for the whole process.

- `adapter`: more spans waited to be ended than the adapter keeps;
- `queue`: more waited for export than `setup_telemetry` keeps;
- `endpoint`, `file`: the export failed, or was given up.
"""

from __future__ import annotations

import os
import threading
from typing import Final

STAGES: Final = ("adapter", "queue", "endpoint", "file")

_lost: Final = dict.fromkeys(STAGES, 0)
_lock: Final = threading.Lock()


def lose_spans(stage: str, count: int) -> None:
    """Counts spans as lost at one of `STAGES`."""
    with _lock:
        _lost[stage] += count


def spans_lost() -> dict[str, int]:
    """How many were lost at each stage since the process began."""
    return dict(_lost)


if hasattr(os, "register_at_fork"):  # held over it: in the child, nobody would let go of it
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
