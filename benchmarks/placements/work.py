"""What nodes do on threads and on processes: a fixed amount of plain Python, how long that takes, and arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

from hamilton import ad_hoc_utils, driver


@cache
def turns_per_second() -> float:
    """Of `python`, on a CPU that it has for itself."""
    best = float("inf")
    for _ in range(5):
        started = time.thread_time()
        python(200_000)
        best = min(best, time.thread_time() - started)
    return 200_000 / best


def python(turns: int) -> int:
    """Computes with the GIL."""
    total = 0
    for number in range(turns):
        total = (total + number * number) % 1_000_003
    return total


def turns(seconds: float) -> int:
    """As many as take so long."""
    return int(seconds * turns_per_second())


def built(adapter: Any, *functions: Callable[..., Any]) -> driver.Driver:
    """A driver whose nodes are these functions."""
    module = ad_hoc_utils.create_temporary_module(*functions)
    return driver.Builder().with_modules(module).with_adapters(adapter).build()
