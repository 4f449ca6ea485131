"""The metrics store: every metric's points, its label values and figures, for whoever shows them.

Counters and histograms are counted as nodes and runs end; gauges are computed when they are read, and cost nothing in
between. Several adapters of one pool name add up (of their ages, the oldest counts), and what was counted outlives the
adapter. Prometheus has one store for each registry, OpenTelemetry one for each meter provider.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence
from operator import add
from typing import TYPE_CHECKING, Any, Final, Protocol

from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import ObserverLock
from traced_threadpool.model.records import OUTCOMES
from traced_threadpool.model.states import STATES
from traced_threadpool.telemetry import lost_spans as losses
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.pool_metrics import Labels, PoolMetrics

if TYPE_CHECKING:
    from traced_threadpool.engine.pool_snapshot import LaneSnapshot, PoolSnapshot

Buckets = dict[str, tuple[float, ...]]
"""Histogram bounds in seconds by metric name."""

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
