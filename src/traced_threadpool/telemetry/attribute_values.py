"""Values of span attributes that are written in one place and read in another: how each is put down."""

from __future__ import annotations

from typing import Final

from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.telemetry import names

UNRUN_NS: Final = 1_000
"""The length of the span of a node that never ran, since some viewers drop spans of none; it starts as much after its
cause, since others look for what ended strictly before, at microseconds."""


def gil_holder(name: str, caused_ns: int) -> str:
    """An element of `hamilton.run.gil.holders`.

    >>> gil_holder("thread:a b", 1_690_200_000), gil_holder("parse", 1_000)
    ('thread:a b 1.69 s', 'parse 1e-06 s')
    """
    return gil_holder_exactly(name, float(f"{caused_ns / 1e9:.3g}"))


def gil_holder_exactly(name: str, seconds: float) -> str:
    """The same to the nanosecond, for a record that is read again."""
    return f"{name} {seconds:.16g} s"


def gil_holder_of(text: str) -> tuple[str, float] | None:
    """The name and the seconds that such an element tells.

    >>> gil_holder_of("thread:a b 1.69 s"), gil_holder_of("parse")
    (('thread:a b', 1.69), None)
    """
    name, _, seconds = text.removesuffix(" s").rpartition(" ")
    try:
        return (name, float(seconds)) if name and text.endswith(" s") else None
    except ValueError:
        return None


def lock_attributes(lock: LockWait) -> dict[str, str | int | float]:
    """What is said of the lock that a node waited for."""
    told: dict[str, str | int | float] = {
        names.NODE_LOCK_NAME: lock.name,
        names.NODE_LOCK_WAITS: lock.waits,
        names.NODE_LOCK_FIRST: lock.first_ns / 1e9,
        names.NODE_LOCK_LAST: lock.last_ns / 1e9,
    }
    if lock.line:
        told[names.NODE_LOCK_LINE] = lock.line
    if lock.capacity is not None:
        told[names.NODE_LOCK_CAPACITY] = lock.capacity
    return told
