"""Pools of connections as libraries build them: of a `queue.Queue`, as urllib3's; of a `Condition`, as SQLAlchemy's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OfAQueue:
    """Free connections are the items of a queue."""

    def __init__(self, size: int) -> None:
        self._free: queue.LifoQueue[int] = queue.LifoQueue()
        for connection in range(size):
            self._free.put(connection)

    @contextmanager
    def connection(self) -> Iterator[int]:
        """One of them, as soon as one is free."""
        taken = self._free.get()
        try:
            yield taken
        finally:
            self._free.put(taken)


class OfACondition:
    """Free connections are in a list, which is changed under a condition."""

    def __init__(self, size: int) -> None:
        self._free = list(range(size))
        self._changed = threading.Condition()

    @contextmanager
    def connection(self) -> Iterator[int]:
        """One of them, as soon as one is free."""
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            taken = self._free.pop()
        try:
            yield taken
        finally:
            with self._changed:
                self._free.append(taken)
                self._changed.notify()
