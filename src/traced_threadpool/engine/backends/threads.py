"""A limit on the adapter's own threads: at most so many nodes of this backend run at once."""

from __future__ import annotations

from typing import Any

from traced_threadpool.engine.backends.base import Call, Timing
from traced_threadpool.engine.backends.process_options import checked_count
from traced_threadpool.model.keyword_hints import explains_keywords


class Threads:
    """Runs nodes on this process's threads, at most `max_workers` of them at once.

    For what takes no more: a database's connections, an API with a rate limit, nodes that hold the GIL. What is beyond
    the limit waits without holding a thread.

    Args:
        max_workers: How many nodes of this backend run at once, in one adapter.
    """

    @explains_keywords("Threads")
    def __init__(self, max_workers: int) -> None:
        self._max_workers = checked_count("max_workers", max_workers)

    @property
    def max_workers(self) -> int:
        """How many nodes run at once."""
        return self._max_workers

    @property
    def home(self) -> None:
        """Values come back here."""

    def __repr__(self) -> str:
        return f"Threads({self._max_workers})"

    def open(self, name: str) -> None:
        """Nothing is needed."""

    def call(self, call: Call, timing: Timing) -> Any:
        """Calls the function here."""
        return call.function(**call.arguments)

    def cancel(self, call: Call) -> None:
        """A thread cannot be ended from outside: what runs goes on."""

    def close(self) -> None:
        """Nothing is left."""
