"""A lock that is held into a moment for its holder to go on, so that no convoy forms.

Under the interpreter lock only one thread runs. A thread that meets one of our locks held has met a holder that was
made to give up the interpreter in the middle of its few lines. To queue up for the lock then is the worst to do: the
lock goes to a thread that does not have the interpreter, while the one that has it soon needs the lock. From then on
each use of the lock costs two switches of threads, until chance ends it. So one sleeps for a moment *before* queueing
up: the holder runs on, and lets go of the lock with nobody at it.

    if lock.locked():
        let_holder_go_on(lock)
    with lock:
        ...

It is a hint and no more: what is right is up to the `with`, which a Ctrl-C cannot tear apart from its lock.

On a free-threaded build nobody waits for an interpreter: the holder is at its few lines on another processor, and a
lock met held is an everyday thing. To sleep made 2,400 short nodes of 8 callers take 20 s instead of 0.5 s. There one
queues up.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from traced_threadpool.model.concurrency import STORES_IN_ORDER

MOMENT_SECONDS: Final = 0.00001
"""The kernel makes 60 us of it: enough for a holder to get the interpreter and do its few lines."""

MOMENTS: Final = 100


def let_holder_go_on(lock: threading.Lock) -> None:
    """Returns when the lock is free, or has been met held so often that to queue up is better."""
    if not STORES_IN_ORDER:
        return
    for _ in range(MOMENTS):
        time.sleep(MOMENT_SECONDS)
        if not lock.locked():
            return
