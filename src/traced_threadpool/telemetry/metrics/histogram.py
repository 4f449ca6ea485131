"""Observations into sums and bucket counts: what a scrape shows, kept as plain numbers.

All in nanoseconds, so that sums are exact. Updating five `prometheus_client` instruments for each node would cost
several times as much as this (figures: docs/architecture.md); that library renders the numbers when it is scraped.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from operator import add
from typing import Any, Final

from traced_threadpool.model.concurrency import members
from traced_threadpool.model.records import STATES
from traced_threadpool.telemetry import names

Exemplar = tuple[Any, int, float]
"""A sampled span's context, the value observed in nanoseconds, and the Unix time in seconds."""


class HistogramCell:
    """The observations of one label set.

    >>> cell = HistogramCell((100_000_000, 1_000_000_000))
    >>> for nanoseconds in (50_000_000, 100_000_000, 300_000_000, 7_000_000_000):
    ...     cell.observe(nanoseconds, None)
    >>> cell.counts, cell.sum_ns
    ([2, 1, 1], 7450000000)
    """

    __slots__ = ("bounds_ns", "counts", "exemplars", "sum_ns")

    def __init__(self, bounds_ns: Sequence[int]) -> None:
        self.bounds_ns = bounds_ns
        self.counts = [0] * (len(bounds_ns) + 1)
        self.sum_ns = 0
        self.exemplars: list[Exemplar | None] | None = None

    def observe(self, value_ns: int, span_context: Any) -> None:
        """`span_context`: that of a span, whose trace becomes the bucket's exemplar if it is sampled."""
        bucket = bisect_left(self.bounds_ns, value_ns)
        self.counts[bucket] += 1
        self.sum_ns += value_ns
        if span_context is not None and span_context.trace_flags.sampled:
            if self.exemplars is None:
                self.exemplars = [None] * len(self.counts)
            self.exemplars[bucket] = (span_context, value_ns, time.time())

    def copy(self) -> HistogramCell:
        copied = HistogramCell(self.bounds_ns)
        copied.counts = list(self.counts)
        copied.sum_ns = self.sum_ns
        copied.exemplars = None if self.exemplars is None else list(self.exemplars)
        return copied


class NodeCell:
    """One node with one outcome: its labels. What is not in `state_ns`, in the order of `STATES`, is `other`."""

    __slots__ = ("count", "duration", "labels", "state_ns")

    def __init__(self, labels: tuple[str, str], bounds_ns: Sequence[int]) -> None:
        self.labels = labels
        self.count = 0
        self.duration = HistogramCell(bounds_ns)
        self.state_ns = [0] * (len(STATES) - 1)

    def add_states(self, cpu_ns: int, counted_ns: Sequence[int] | None) -> None:
        """The time of one execution: all its states, where they are known."""
        states = self.state_ns
        if counted_ns is not None and any(counted_ns[1:-1]):
            states[:] = map(add, states, counted_ns)
        else:  # processor time and `other`, which is what is left
            states[0] += cpu_ns

    def copy(self) -> NodeCell:
        copied = NodeCell(self.labels, self.duration.bounds_ns)
        copied.count = self.count
        copied.duration = self.duration.copy()
        copied.state_ns = list(self.state_ns)
        return copied


class PoolTally:
    """Everything counted for one pool name of one registry; adapters that share the name share it."""

    def __init__(self, buckets: dict[str, tuple[float, ...]]) -> None:
        self.lock = threading.Lock()  # held over each update, and over a fork: a child never finds one half done
        self.queue_wait = HistogramCell(_in_ns(buckets[names.QUEUE_WAIT.prometheus]))
        self.nodes: dict[tuple[str, str], NodeCell] = {}
        self.runs: dict[tuple[str, str], HistogramCell] = {}
        self.last_success: dict[str, float] = {}
        self.critical_seconds: dict[tuple[str, str], float] = {}  # by run's and node's name
        self._node_bounds_ns: Final = _in_ns(buckets[names.NODE_DURATION.prometheus])
        self._run_bounds_ns: Final = _in_ns(buckets[names.RUN_DURATION.prometheus])
        self._node_labels: set[str] = set()
        _tallies.add(self)

    def node_label(self, name: str, max_node_labels: int) -> str:
        """The label of a node: its name, or `_other` once `max_node_labels` nodes have one. Under the lock."""
        if name not in self._node_labels:
            if len(self._node_labels) >= max_node_labels:
                return names.OTHER_NODES
            self._node_labels.add(name)
        return name

    def new_node_cell(self, name: str, outcome: str, max_node_labels: int) -> NodeCell:
        """A cell for a node seen first. Under the lock."""
        name = self.node_label(name, max_node_labels)
        cell = self.nodes.get((name, outcome))
        if cell is None:
            cell = self.nodes[name, outcome] = NodeCell((name, outcome), self._node_bounds_ns)
        return cell

    def run_cell(self, run_name: str, outcome: str) -> HistogramCell:
        """Under the lock."""
        cell = self.runs.get((run_name, outcome))
        if cell is None:
            cell = self.runs[run_name, outcome] = HistogramCell(self._run_bounds_ns)
        return cell

    def add_critical_seconds(self, run_name: str, seconds: Mapping[str, float], max_node_labels: int) -> None:
        """Under the lock. Names that start with an underscore are ours and need no place among the nodes."""
        for name, more in seconds.items():
            label = name if name.startswith("_") else self.node_label(name, max_node_labels)
            key = run_name, label
            self.critical_seconds[key] = self.critical_seconds.get(key, 0.0) + more

    def copy_nodes(self) -> Iterator[tuple[tuple[str, str], NodeCell]]:
        """A consistent copy of each cell; the lock is held for one at a time, so that a scrape stops no worker."""
        with self.lock:
            labels = list(self.nodes)
        for label in labels:
            with self.lock:
                copied = self.nodes[label].copy()
            yield label, copied

    def copy_critical_seconds(self) -> list[tuple[tuple[str, str], float]]:
        with self.lock:
            return list(self.critical_seconds.items())

    def copy_queue_wait(self) -> HistogramCell:
        with self.lock:
            return self.queue_wait.copy()

    def copy_runs(self) -> list[tuple[tuple[str, str], HistogramCell]]:
        with self.lock:
            return [(label, cell.copy()) for label, cell in self.runs.items()]


def _in_ns(bounds: Sequence[float]) -> tuple[int, ...]:
    return tuple(round(bound * 1e9) for bound in bounds)


_tallies: weakref.WeakSet[PoolTally] = weakref.WeakSet()
_held_over_fork: list[threading.Lock] = []


def _before_fork() -> None:
    for tally in members(_tallies):
        tally.lock.acquire()
        _held_over_fork.append(tally.lock)


def _after_fork() -> None:
    while _held_over_fork:
        _held_over_fork.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
