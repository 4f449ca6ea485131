"""The innermost frame of every thread, without the deadlock that this can be.

Until Python 3.11 the call holds a lock of the interpreter's while it makes objects, and making objects may start a
garbage collection; one that drops a `threading.local` then waits for that same lock, for ever
(https://github.com/python/cpython/issues/106883). From 3.12 on no collection comes in the middle of it.
"""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Final

_MAY_COLLECT: Final = sys.version_info < (3, 12)


def current_frames() -> dict[int, FrameType]:
    """By the identifiers of threads."""
    if not (_MAY_COLLECT and gc.isenabled()):
        return sys._current_frames()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        gc.enable()
