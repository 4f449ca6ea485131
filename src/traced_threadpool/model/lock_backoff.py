"""Backoff at a lock that is held, so that no lock convoy forms.

Under the GIL only one thread runs. A thread that finds one of our locks held has found a holder that had to give up the
GIL within its few lines. Queueing for the lock then is the worst choice: the lock goes to a thread that does not have
the GIL, while the thread that has it soon needs the lock. From then on each use of the lock costs two switches of
threads, until chance ends it. So a thread sleeps for a moment *before* it queues: the holder runs on, and releases the
lock with nobody waiting.

    if lock.locked():
        yield_to_holder(lock)
    with lock:
        ...

It is only a hint: correctness is up to the `with`, which a Ctrl-C cannot tear apart from its lock.

On a free-threaded build nobody waits for the GIL: the holder runs on another CPU, and a held lock is common. Sleeping
made 2,400 short nodes of 8 callers take 20 s instead of 0.5 s. There a thread queues at once.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from traced_threadpool.model.concurrency import STORES_IN_ORDER

MOMENT_SECONDS: Final = 0.00001
"""The kernel makes 60 µs of it: enough for a holder to get the GIL and run its few lines."""

MOMENTS: Final = 100


def yield_to_holder(lock: threading.Lock) -> None:
    """Returns when the lock is free, or was found held so often that queueing is better."""
    if not STORES_IN_ORDER:
        return
    for _ in range(MOMENTS):
        time.sleep(MOMENT_SECONDS)
        if not lock.locked():
            return
