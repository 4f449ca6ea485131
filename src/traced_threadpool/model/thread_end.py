"""Waiting for a thread's end, whatever comes in between."""

from __future__ import annotations

import contextlib
import threading
from typing import Final

LOOK_SECONDS: Final = 1.0
LAST_LINES_SECONDS: Final = 0.2


def wait_for_end(thread: threading.Thread) -> None:
    """As `thread.join()`, also where an exception came within an earlier one.

    Up to Python 3.12 `join` takes a lock that the ending thread leaves, and gives it back a line later. A signal
    handler's exception in between that comes with a second one leaves it taken: whoever joins that thread from then on
    waits for ever, the interpreter's exit included.
    """
    while thread in threading.enumerate():  # it takes itself off this list in its last lines
        thread.join(LOOK_SECONDS)
    thread.join(LAST_LINES_SECONDS)
    if (lock := getattr(thread, "_tstate_lock", None)) is not None:
        with contextlib.suppress(RuntimeError):  # it was let go of just now
            lock.release()
        thread.join(LAST_LINES_SECONDS)
