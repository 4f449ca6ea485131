"""The metrics store: every metric's points, its label values and figures, for whoever shows them.

Counters and histograms are counted as nodes and runs end; gauges are computed when they are read, and cost nothing in
between. Several adapters of one pool name add up (of their ages, the oldest counts), and what was counted outlives the
adapter. Prometheus has one store for each registry, OpenTelemetry one for each meter provider.

A node's figures are kept together, since they change together: `NodeMetrics`. Updating five `prometheus_client`
instruments for each node would cost several times as much; that library renders these numbers when it is scraped.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import add
from typing import TYPE_CHECKING, Any, Final, Protocol

from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import members
from traced_threadpool.model.lock_backoff import ObserverLock
from traced_threadpool.model.records import OUTCOMES
from traced_threadpool.model.states import CPU, OTHER, STATES, has_waits
from traced_threadpool.telemetry import lost_spans as losses
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.histogram import Histogram

if TYPE_CHECKING:
    from traced_threadpool.engine.pool_snapshot import LaneSnapshot, PoolSnapshot

Buckets = dict[str, tuple[float, ...]]
"""Histogram bounds in seconds by metric name."""

Labels = tuple[str, ...]
"""The values of a metric's labels, in the inventory's order. Here without the first, the pool."""

Points = list[tuple[Labels, Any]]
"""What a metric shows: a number for each label set; of a histogram, a `Histogram`."""

OnObservation = Callable[[names.Metric, Labels, int, Any], None]
"""Takes each observation of a histogram: metric, label values, nanoseconds, and a span's context or None."""

DEFAULT_BUCKETS: Final[Buckets] = {
    metric.prometheus: metric.buckets for metric in names.METRICS if metric.kind == "histogram"
}

LANE_GAUGES: Final[dict[names.Metric, Callable[[LaneSnapshot], float]]] = {
    names.QUEUE_DEPTH: lambda lane: lane.queue_depth,
    names.BLOCKED_NODES: lambda lane: lane.blocked_nodes,
    names.ACTIVE_WORKERS: lambda lane: lane.active_workers,
    names.WORKERS: lambda lane: lane.workers,
    names.MAX_WORKERS: lambda lane: lane.max_workers,
    names.OLDEST_QUEUED: lambda lane: lane.oldest_queued_seconds,
    names.OLDEST_ACTIVE: lambda lane: lane.oldest_active_seconds,
}
POOL_GAUGES: Final[dict[names.Metric, Callable[[PoolSnapshot], float]]] = {
    names.STALLED_NODES: lambda pool: pool.stalled_nodes,
    names.RUNS_ACTIVE: lambda pool: pool.active_runs,
}
GAUGES: Final = frozenset({*LANE_GAUGES, *POOL_GAUGES})
"""What is seen of a pool by looking at it: true at that moment, and of a process that lives."""

AGES: Final = (names.OLDEST_QUEUED, names.OLDEST_ACTIVE)

_OF_NODES: Final = {names.NODES, names.NODE_DURATION, names.NODE_TIME, names.NODE_QUEUE_TIME}


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


class Source(Protocol):
    """A pool as the gauges see it. A closed one is no longer shown."""

    pool_name: str
    run_name: str
    closed: bool

    def snapshot(self) -> PoolSnapshot: ...


class Method(Protocol):
    """How the states of a node's time are found out."""

    @property
    def method(self) -> str: ...

    @property
    def reason(self) -> str | None: ...


class Waits(Protocol):
    """What is known of waits in the whole process."""

    @property
    def method(self) -> Method: ...

    @property
    def gil_wait_seconds(self) -> float: ...


class MetricsStore:
    """All metrics of several adapters. Does not keep the adapters alive.

    Its containers are never changed, but replaced under the lock: reading takes no lock, and a forked child finds
    them whole.
    """

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self._lock = ObserverLock()
        self._sources: tuple[weakref.ref[Source], ...] = ()
        self._pools: dict[str, PoolMetrics] = {}
        self._errors: dict[str, int] = {}
        self._waits: Waits | None = None
        self.on_observation: OnObservation | None = None
        self.show: Callable[[], None] = lambda: None
        """Sees to it that whoever shows these metrics still does. Called at the start of each run."""
        forks.register(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        self._lock = ObserverLock()
        for pool in self._pools.values():
            pool.reset_after_fork()

    def show_waits(self, waits: Waits) -> None:
        """Shows what is known of waits in the whole process."""
        self._waits = waits

    def add_source(self, source: Source) -> None:
        with self._lock:
            self._sources = (*(each for each in self._sources if each() is not None), weakref.ref(source))

    def pool(self, name: str) -> PoolMetrics:
        with self._lock:
            if name not in self._pools:
                self._pools = {**self._pools, name: PoolMetrics(self.buckets)}
            return self._pools[name]

    def count_error(self, component: str) -> None:
        with self._lock:
            self._errors = {**self._errors, component: self._errors.get(component, 0) + 1}

    def check_bounds(self, buckets: Buckets, where: str) -> None:
        """Refuses bounds that an adapter asks for and that are not those in use.

        Raises:
            BoundsConflict: An earlier adapter has set others.
        """
        for name, bounds in buckets.items():
            if self.buckets[name] != bounds:
                raise BoundsConflict(
                    f"this {where} has {name} with the bounds {self.buckets[name]}, set by an earlier adapter, "
                    f"and now {bounds} were asked for: give all adapters of a {where} the same bounds, or this one "
                    f"a {where} of its own"
                )

    def read(self, wanted: Collection[names.Metric] = names.METRICS) -> dict[names.Metric, Points]:
        """The points of the metrics that are wanted, in the inventory's order."""
        points: dict[names.Metric, Points] = {metric: [] for metric in names.METRICS}
        if not GAUGES.isdisjoint(wanted):
            sources = [source for each in self._sources if (source := each()) is not None and not source.closed]
            _add_gauges([(source, source.snapshot()) for source in sources], points)
        for name, pool in self._pools.items():
            if not _OF_NODES.isdisjoint(wanted):
                _add_nodes(name, pool, points)
            if not _OF_NODES.issuperset(wanted):
                for metric, labels, value in pool.copy_others():
                    points[metric].append(((name, *labels), value))
        if self._waits is not None:
            method = self._waits.method
            points[names.GIL_PROBE_WAIT].append(((), self._waits.gil_wait_seconds))
            points[names.ATTRIBUTION].append(((method.method, method.reason or ""), 1))
        points[names.SPANS_LOST] += [((stage,), count) for stage, count in losses.spans_lost().items()]
        points[names.TELEMETRY_ERRORS] += [((component,), count) for component, count in self._errors.items()]
        return {metric: each for metric, each in points.items() if metric in wanted}


def _add_gauges(snapshots: Sequence[tuple[Source, PoolSnapshot]], points: dict[names.Metric, Points]) -> None:
    values: dict[names.Metric, dict[Labels, list[float]]] = {}
    for source, snapshot in snapshots:
        for gauge, of_pool in POOL_GAUGES.items():
            labels = (source.pool_name, source.run_name)[: len(gauge.labels)]
            values.setdefault(gauge, {}).setdefault(labels, []).append(of_pool(snapshot))
        for lane in snapshot.lanes:
            for gauge, of_lane in LANE_GAUGES.items():
                labels = source.pool_name, lane.backend
                values.setdefault(gauge, {}).setdefault(labels, []).append(of_lane(lane))
    for gauge, by_labels in values.items():
        combine = max if gauge in AGES else sum
        points[gauge] += [(labels, combine(several)) for labels, several in by_labels.items()]


def _add_nodes(pool_name: str, pool: PoolMetrics, points: dict[names.Metric, Points]) -> None:
    """A counter that appears with 1 has not risen, for Prometheus: the first failure of a node, or its first wait for
    a lock, would be in no rate. So all outcomes and states are there from a node's first end on.
    """
    counts: dict[str, dict[str, int]] = {}
    times_ns: dict[str, list[int]] = {}
    queued_ns: dict[str, int] = {}
    for each in pool.copy_nodes():
        node, outcome = each.labels
        counts.setdefault(node, dict.fromkeys(OUTCOMES, 0))[outcome] = each.count
        sums_ns = times_ns.setdefault(node, [0] * len(STATES))
        if any(each.duration.counts):
            points[names.NODE_DURATION].append(((pool_name, node, outcome), each.duration))
            sums_ns[:] = map(add, sums_ns, each.whole_state_ns())
        queued_ns[node] = queued_ns.get(node, 0) + each.queue_ns
    points[names.NODES] += [
        ((pool_name, node, outcome), count)
        for node, by_outcome in counts.items()
        for outcome, count in by_outcome.items()
    ]
    points[names.NODE_TIME] += [
        ((pool_name, node, state), one_ns / 1e9)
        for node, sums_ns in times_ns.items()
        for state, one_ns in zip(STATES, sums_ns, strict=True)
    ]
    points[names.NODE_QUEUE_TIME] += [((pool_name, node), one_ns / 1e9) for node, one_ns in queued_ns.items()]


class BoundsConflict(ValueError):
    """Two adapters of one registry, or of one meter provider, want different histogram bounds."""


def bounds(name: str, values: Sequence[float] | None) -> Buckets:
    """Checks histogram bounds given by a user for one metric.

    >>> bounds("hamilton_run_duration_seconds", [1, 30])
    {'hamilton_run_duration_seconds': (1.0, 30.0)}

    Raises:
        TypeError: `values` are no numbers.
        ValueError: They are empty, not positive, or not in rising order.
    """
    if values is None:
        return {}
    try:
        if isinstance(values, (str, bytes)) or any(isinstance(value, (str, bytes)) for value in values):
            raise TypeError
        checked = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise TypeError(f"bounds for {name} must be numbers of seconds, such as (0.1, 1, 10), not {values!r}") from None
    rising = all(low < high for low, high in zip((0.0, *checked), (*checked, float("inf")), strict=True))
    if not checked or not rising:
        raise ValueError(f"bounds for {name} must be positive, finite and rising, such as (0.1, 1, 10), not {values!r}")
    return {name: checked}
