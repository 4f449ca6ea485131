"""What has been counted for one pool name: histograms, counters and values by metric and labels.

A node's figures are kept together, since they change together: `NodeMetrics`. Updating five `prometheus_client`
instruments for each node would cost several times as much; that library renders these numbers when it is scraped.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from operator import add
from typing import Final

from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import members
from traced_threadpool.model.lock_backoff import ObserverLock
from traced_threadpool.model.states import CPU, OTHER, STATES, has_waits
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.histogram import Histogram

Labels = tuple[str, ...]
"""The values of a metric's labels, in the inventory's order. Here without the first, the pool."""


class NodeMetrics:
    """One node with one outcome: its labels. `state_ns` is in the order of `STATES`, without what is `other`."""

    __slots__ = ("count", "duration", "labels", "queue_ns", "state_ns")

    def __init__(self, labels: tuple[str, str], bounds_ns: Sequence[int]) -> None:
        self.labels = labels
        self.count = 0
        self.queue_ns = 0
        self.duration = Histogram(bounds_ns)
        self.state_ns = [0] * len(STATES)

    def add_states(self, cpu_ns: int, counted_ns: Sequence[int] | None) -> None:
        """The time of one execution: all its states, where they are known."""
        states = self.state_ns
        if counted_ns is not None and has_waits(counted_ns):
            states[:] = map(add, states, counted_ns)
            states[OTHER] = 0
        else:
            states[CPU] += cpu_ns

    def whole_state_ns(self) -> list[int]:
        """All states: `other` is what the others leave of the durations."""
        whole = list(self.state_ns)
        whole[OTHER] = self.duration.sum_ns - sum(whole)
        return whole

    def copy(self) -> NodeMetrics:
        copied = NodeMetrics(self.labels, self.duration.bounds_ns)
        copied.count = self.count
        copied.queue_ns = self.queue_ns
        copied.duration = self.duration.copy()
        copied.state_ns = list(self.state_ns)
        return copied


class PoolMetrics:
    """The figures of one pool name in one registry; adapters that share the name share them."""

    def __init__(self, buckets: dict[str, tuple[float, ...]]) -> None:
        self.lock = ObserverLock()  # held over each update, and over a fork: a child never finds one half done
        self.nodes: dict[tuple[str, str], NodeMetrics] = {}
        self.counters: dict[tuple[names.Metric, Labels], float] = {}
        self.values: dict[tuple[names.Metric, Labels], float] = {}
        self._histograms: dict[tuple[names.Metric, Labels], Histogram] = {}
        self._bounds_ns: Final = {name: tuple(round(bound * 1e9) for bound in each) for name, each in buckets.items()}
        self._node_labels: set[str] = set()
        _pools.add(self)

    def reset_after_fork(self) -> None:
        self.lock = ObserverLock()
        self.nodes = forks.kept_in_child(self.nodes, {})
        self.counters = forks.kept_in_child(self.counters, {})
        self.values = forks.kept_in_child(self.values, {})
        self._histograms = forks.kept_in_child(self._histograms, {})
        self._node_labels = forks.kept_in_child(self._node_labels, set())

    # Under the lock

    def node_label(self, name: str, max_node_labels: int) -> str:
        """The label of a node: its name, or `_other` once `max_node_labels` nodes have one."""
        if name not in self._node_labels:
            if len(self._node_labels) >= max_node_labels:
                return names.OTHER_NODES
            self._node_labels.add(name)
        return name

    def node(self, name: str, outcome: str, max_node_labels: int) -> NodeMetrics:
        name = self.node_label(name, max_node_labels)
        found = self.nodes.get((name, outcome))
        if found is None:
            bounds_ns = self._bounds_ns[names.NODE_DURATION.prometheus]
            found = self.nodes[name, outcome] = NodeMetrics((name, outcome), bounds_ns)
            self.counters.setdefault((names.NODE_STALLS, (name,)), 0.0)
        return found

    def histogram(self, metric: names.Metric, labels: Labels = ()) -> Histogram:
        found = self._histograms.get((metric, labels))
        if found is None:
            found = self._histograms[metric, labels] = Histogram(self._bounds_ns[metric.prometheus])
        return found

    def count(self, metric: names.Metric, labels: Labels, more: float) -> None:
        self.counters[metric, labels] = self.counters.get((metric, labels), 0.0) + more

    # Copies

    def copy_nodes(self) -> Iterator[NodeMetrics]:
        """The lock is held for one at a time, so that a scrape stops no worker."""
        with self.lock:
            known = list(self.nodes.values())
        for each in known:
            with self.lock:
                copied = each.copy()
            yield copied

    def copy_others(self) -> list[tuple[names.Metric, Labels, float | Histogram]]:
        """What is not by node."""
        with self.lock:
            return [
                *((metric, labels, each.copy()) for (metric, labels), each in self._histograms.items()),
                *((metric, labels, each) for (metric, labels), each in self.counters.items()),
                *((metric, labels, each) for (metric, labels), each in self.values.items()),
            ]


_pools: weakref.WeakSet[PoolMetrics] = weakref.WeakSet()
_held_over_fork: list[ObserverLock] = []


def _before_fork() -> None:
    for pool in members(_pools):
        lock = pool.lock
        lock.acquire()
        _held_over_fork.append(lock)


def _after_fork() -> None:
    while _held_over_fork:
        _held_over_fork.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
