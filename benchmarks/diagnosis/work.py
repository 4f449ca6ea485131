"""What planted nodes do with their time: compute with the GIL, without it, or ask a service."""

from __future__ import annotations

import hashlib
import time

_BLOCK = bytes(1_000_000)


def compute_in_python(seconds: float) -> int:
    """So much CPU time of this thread, with the GIL held."""
    end = time.thread_time() + seconds
    rounds = 0
    while time.thread_time() < end:
        rounds += sum(index & 3 for index in range(200))
    return rounds


def compute_without_lock(seconds: float) -> int:
    """So much CPU time of this thread, without the GIL but for moments."""
    end = time.thread_time() + seconds
    rounds = 0
    while time.thread_time() < end:
        hashlib.sha256(_BLOCK).digest()
        rounds += 1
    return rounds
