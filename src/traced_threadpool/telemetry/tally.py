"""Observations into sums and bucket counts: what a scrape shows, kept as plain numbers.

Five updates of `prometheus_client` instruments cost a node about 12 us, more than all the rest of running it.
These do the same in one hold of one lock, and `prometheus_client` renders them when it is scraped.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Final

from traced_threadpool.telemetry import names

Exemplar = tuple[Any, float, float]
"""A sampled span's context, the value observed, and the Unix time."""


class HistogramCell:
    """The observations of one label set.

    >>> cell = HistogramCell((0.1, 1.0))
    >>> for seconds in (0.05, 0.1, 0.3, 7.0):
    ...     cell.observe(seconds, None)
    >>> cell.counts, round(cell.sum, 2)
    ([2, 1, 1], 7.45)
    """

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: list[Exemplar | None] | None = None

    def observe(self, value: float, span_context: Any) -> None:
        """`span_context`: that of a span, whose trace becomes the bucket's exemplar if it is sampled."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if span_context is not None and span_context.trace_flags.sampled:
            if self.exemplars is None:
                self.exemplars = [None] * len(self.counts)
            self.exemplars[bucket] = (span_context, value, time.time())

    def copy(self) -> HistogramCell:
        copied = HistogramCell(self.bounds)
        copied.counts = list(self.counts)
        copied.sum = self.sum
        copied.exemplars = None if self.exemplars is None else list(self.exemplars)
        return copied


class NodeCell:
    """One node with one outcome."""

    __slots__ = ("count", "cpu_seconds", "duration", "other_seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.count = 0
        self.duration = HistogramCell(bounds)
        self.cpu_seconds = 0.0
        self.other_seconds = 0.0

    def copy(self) -> NodeCell:
        copied = NodeCell(self.duration.bounds)
        copied.count = self.count
        copied.duration = self.duration.copy()
        copied.cpu_seconds = self.cpu_seconds
        copied.other_seconds = self.other_seconds
        return copied


class PoolTally:
    """Everything counted for one pool name of one registry; adapters that share the name share it."""

    def __init__(self, buckets: dict[str, tuple[float, ...]]) -> None:
        self.lock = threading.Lock()  # held over each update, and over a fork: a child never finds one half done
        self.queue_wait = HistogramCell(buckets[names.QUEUE_WAIT.prometheus])
        self.nodes: dict[tuple[str, str], NodeCell] = {}
        self.runs: dict[tuple[str, str], HistogramCell] = {}
        self.last_success: dict[str, float] = {}
        self._node_bounds: Final = buckets[names.NODE_DURATION.prometheus]
        self._run_bounds: Final = buckets[names.RUN_DURATION.prometheus]
        self._node_labels: set[str] = set()
        _tallies.add(self)

    def node_cell(self, name: str, outcome: str, max_node_labels: int) -> NodeCell:
        """The cell of a node, or of `_other` once `max_node_labels` nodes have one of their own. Under the lock."""
        cell = self.nodes.get((name, outcome))
        if cell is None:
            if name not in self._node_labels and name != names.OTHER_NODES:
                if len(self._node_labels) >= max_node_labels:
                    return self.node_cell(names.OTHER_NODES, outcome, max_node_labels)
                self._node_labels.add(name)
            cell = self.nodes[name, outcome] = NodeCell(self._node_bounds)
        return cell

    def run_cell(self, run_name: str, outcome: str) -> HistogramCell:
        """Under the lock."""
        cell = self.runs.get((run_name, outcome))
        if cell is None:
            cell = self.runs[run_name, outcome] = HistogramCell(self._run_bounds)
        return cell

    def copy_nodes(self) -> Iterator[tuple[tuple[str, str], NodeCell]]:
        """A consistent copy of each cell; the lock is held for one at a time, so that a scrape stops no worker."""
        with self.lock:
            labels = list(self.nodes)
        for label in labels:
            with self.lock:
                copied = self.nodes[label].copy()
            yield label, copied

    def copy_queue_wait(self) -> HistogramCell:
        with self.lock:
            return self.queue_wait.copy()

    def copy_runs(self) -> list[tuple[tuple[str, str], HistogramCell]]:
        with self.lock:
            return [(label, cell.copy()) for label, cell in self.runs.items()]


_tallies: weakref.WeakSet[PoolTally] = weakref.WeakSet()
_held_over_fork: list[threading.Lock] = []


def _before_fork() -> None:
    for tally in list(_tallies):
        tally.lock.acquire()
        _held_over_fork.append(tally.lock)


def _after_fork() -> None:
    while _held_over_fork:
        _held_over_fork.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
