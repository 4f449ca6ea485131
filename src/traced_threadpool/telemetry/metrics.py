"""Events into Prometheus metrics.

Counters and histograms are tallied as nodes and runs end; gauges are computed when they are scraped, and cost
nothing in between. One collector serves all adapters of a registry: several of one pool name add up (of their
ages, the oldest counts), and what was counted outlives the adapter.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from traced_threadpool.observers import Observer
from traced_threadpool.runs import RUN_OUTCOMES, STATES, State
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.tally import HistogramCell, PoolTally

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from traced_threadpool.pool import PoolSnapshot
    from traced_threadpool.runs import NodeRecord, RunRecord

Buckets = dict[str, tuple[float, ...]]
"""Histogram bounds in seconds by metric name."""

DEFAULT_BUCKETS: Final[Buckets] = {
    metric.prometheus: metric.buckets for metric in names.METRICS if metric.kind == "histogram"
}

_GAUGES: Final[dict[names.Metric, Callable[[PoolSnapshot], float]]] = {
    names.QUEUE_DEPTH: lambda pool: pool.queue_depth,
    names.BLOCKED_NODES: lambda pool: pool.blocked_nodes,
    names.ACTIVE_WORKERS: lambda pool: pool.active_workers,
    names.WORKERS: lambda pool: pool.workers,
    names.MAX_WORKERS: lambda pool: pool.max_workers,
    names.OLDEST_QUEUED: lambda pool: pool.oldest_queued_seconds,
    names.OLDEST_ACTIVE: lambda pool: pool.oldest_active_seconds,
    names.RUNS_ACTIVE: lambda pool: pool.active_runs,
}
_AGES: Final = (names.OLDEST_QUEUED, names.OLDEST_ACTIVE)
_FAMILIES: Final[dict[names.Kind, type[Any]]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


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


class Collector:
    """The metrics of one registry. Does not keep adapters alive."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self._lock = threading.Lock()
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        self._tallies: dict[str, PoolTally] = {}
        self._errors: Counter[str] = Counter()
        self._waits: Waits | None = None

    def show_waits(self, waits: Waits) -> None:
        """Shows what is known of waits in the whole process."""
        self._waits = waits

    def add_source(self, source: Source) -> None:
        with self._lock:
            self._sources.add(source)

    def tally(self, pool_name: str) -> PoolTally:
        with self._lock:
            tally = self._tallies.get(pool_name)
            if tally is None:
                tally = self._tallies[pool_name] = PoolTally(self.buckets)
            return tally

    def count_error(self, component: str) -> None:
        with self._lock:
            self._errors[component] += 1

    def describe(self) -> Iterable[Metric]:
        """The names, so that the registry refuses a second collector of the same."""
        return [_family(metric) for metric in names.METRICS]

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            sources = [source for source in self._sources if not source.closed]
            tallies = list(self._tallies.items())
            errors = list(self._errors.items())
        yield from _gauges([(source, source.snapshot()) for source in sources])
        counted = {metric: _family(metric) for metric in names.METRICS if metric not in _GAUGES}
        for pool, tally in tallies:
            _add_histogram(counted[names.QUEUE_WAIT], (pool,), tally.copy_queue_wait())
            times: dict[tuple[str, State], int] = {}
            for (node, outcome), cell in tally.copy_nodes():
                counted[names.NODES].add_metric((pool, node, outcome), cell.count)
                if any(cell.duration.counts):
                    _add_histogram(counted[names.NODE_DURATION], (pool, node, outcome), cell.duration)
                    state_ns = [*cell.state_ns, cell.duration.sum_ns - sum(cell.state_ns)]
                    for state, one_ns in zip(STATES, state_ns, strict=True):
                        if one_ns or state in ("cpu", "other"):
                            times[node, state] = times.get((node, state), 0) + one_ns
            for (node, state), one_ns in times.items():
                counted[names.NODE_TIME].add_metric((pool, node, state), one_ns / 1e9)
            for (run, outcome), histogram in tally.copy_runs():
                _add_histogram(counted[names.RUN_DURATION], (pool, run, outcome), histogram)
            for (run, node), seconds in tally.copy_critical_seconds():
                counted[names.CRITICAL_PATH_TIME].add_metric((pool, run, node), seconds)
            for run, timestamp in list(tally.last_success.items()):
                counted[names.RUN_LAST_SUCCESS].add_metric((pool, run), timestamp)
        waits = self._waits
        if waits is not None:
            method = waits.method
            counted[names.GIL_WAIT].add_metric((), waits.gil_wait_seconds)
            counted[names.ATTRIBUTION].add_metric((method.method, method.reason or ""), 1)
        for component, count in errors:
            counted[names.TELEMETRY_ERRORS].add_metric((component,), count)
        yield from counted.values()


def _family(metric: names.Metric) -> Any:
    return _FAMILIES[metric.kind](metric.prometheus_base, metric.description, labels=metric.labels)


def _gauges(looks: Sequence[tuple[Source, PoolSnapshot]]) -> Iterator[Metric]:
    for gauge, read in _GAUGES.items():
        family = _family(gauge)
        values: dict[tuple[str, ...], list[float]] = {}
        for source, snapshot in looks:
            labels = (source.pool_name, source.run_name)[: len(gauge.labels)]
            values.setdefault(labels, []).append(read(snapshot))
        for labels, several in values.items():
            family.add_metric(labels, max(several) if gauge in _AGES else sum(several))
        yield family


def _add_histogram(family: HistogramMetricFamily, labels: Sequence[str], cell: HistogramCell) -> None:
    bounds = [*(str(bound_ns / 1e9) for bound_ns in cell.bounds_ns), "+Inf"]
    buckets: list[tuple[str, float, Exemplar | None]] = []
    cumulative = 0
    for bound, count, exemplar in zip(bounds, cell.counts, cell.exemplars or [None] * len(bounds), strict=True):
        cumulative += count
        buckets.append((bound, cumulative, None if exemplar is None else _exemplar(*exemplar)))
    family.add_metric(labels, buckets, cell.sum_ns / 1e9)  # type: ignore[arg-type]  # the stub is stricter than its text


def _exemplar(span_context: Any, value_ns: int, timestamp: float) -> Exemplar:
    labels = {"trace_id": f"{span_context.trace_id:032x}", "span_id": f"{span_context.span_id:016x}"}
    return Exemplar(labels, value_ns / 1e9, timestamp)


class BoundsConflict(ValueError):
    """Two adapters of one registry want different histogram bounds."""


_collectors: weakref.WeakKeyDictionary[CollectorRegistry, Collector] = weakref.WeakKeyDictionary()
_collectors_lock = threading.Lock()


def collector_of(registry: CollectorRegistry, buckets: Buckets) -> Collector:
    """The collector of a registry, made and registered at the first call.

    Args:
        registry: A Prometheus registry.
        buckets: Bounds that were asked for, by metric name; others keep their default, or what the registry has.

    Raises:
        BoundsConflict: The registry has the metrics already, with other bounds.
        Exception: Whatever the registry raises; a `ValueError` where it has metrics of these names already.
    """
    with _collectors_lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = Collector({**DEFAULT_BUCKETS, **buckets})
            registry.register(collector)
            _collectors[registry] = collector
            return collector
    for name, bounds in buckets.items():
        if collector.buckets[name] != bounds:
            raise BoundsConflict(
                f"this registry has {name} with the bounds {collector.buckets[name]}, set by an earlier adapter, "
                f"and now {bounds} were asked for: give all adapters of a registry the same bounds, or this one "
                "a registry of its own"
            )
    return collector


class Metrics(Observer):
    """The observer that counts.

    Args:
        collector: That of the registry.
        pool_name: Value of the label `pool`.
        run_name: Value of the label `run`.
        max_node_labels: How many nodes get a label value of their own; 0 puts all under `_other`.
    """

    component = "metrics"

    def __init__(self, collector: Collector, *, pool_name: str, run_name: str, max_node_labels: int) -> None:
        self._tally = collector.tally(pool_name)
        self._run_name = run_name
        self._max_node_labels = max_node_labels
        with self._tally.lock:
            for outcome in RUN_OUTCOMES:
                # There from the start, at 0: to Prometheus a counter that appears with its first failure has not risen.
                self._tally.run_cell(run_name, outcome)

    def run_ended(self, run: RunRecord) -> None:
        outcome = run.outcome or "success"
        span = getattr(run.telemetry, "span", None)
        span_context = None if span is None else span.get_span_context()
        path = run.critical_path().seconds if run.critical_path is not None else None
        with self._tally.lock:
            self._tally.run_cell(self._run_name, outcome).observe(run.duration_ns, span_context)
            if path:
                self._tally.add_critical_seconds(self._run_name, path, self._max_node_labels)
            if outcome == "success":
                self._tally.last_success[self._run_name] = time.time()

    def node_ended(self, node: NodeRecord) -> None:
        tally = self._tally
        label = (node.name, node.outcome or "success")
        with tally.lock:
            cell = tally.nodes.get(label) or tally.new_node_cell(*label, self._max_node_labels)
            cell.count += 1
            if node.thread is None:
                return  # never ran: it has no duration and was never taken from the queue
            span_context = node.span_context
            cell.duration.observe(node.ended_ns - node.started_ns, span_context)
            tally.queue_wait.observe(node.started_ns - node.ready_ns, span_context)
            cell.add_states(node.cpu_ns, node.counted_ns)


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
