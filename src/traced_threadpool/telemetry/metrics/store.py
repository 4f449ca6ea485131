"""Tallies and pools into points: each metric's label values and figures, for whoever shows them.

Counters and histograms are tallied as nodes and runs end; gauges are computed when they are read, and cost nothing in
between. Several adapters of one pool name add up (of their ages, the oldest counts), and what was counted outlives the
adapter. Prometheus has one ledger for each registry, OpenTelemetry one for each meter provider.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from traced_threadpool.model.concurrency import members
from traced_threadpool.model.lock_backoff import let_holder_go_on
from traced_threadpool.model.observers import Observer
from traced_threadpool.model.records import OUTCOMES, RUN_OUTCOMES, STATES
from traced_threadpool.telemetry import lost_spans as losses
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.histogram import NodeCell, PoolTally

if TYPE_CHECKING:
    from traced_threadpool.engine.pool import PoolSnapshot
    from traced_threadpool.model.records import NodeRecord, RunRecord

Buckets = dict[str, tuple[float, ...]]
"""Histogram bounds in seconds by metric name."""

Labels = tuple[str, ...]
"""The values of a metric's labels, in the inventory's order."""

Points = list[tuple[Labels, Any]]
"""What a metric shows: a number for each label set; of a histogram, a `HistogramCell`."""

DEFAULT_BUCKETS: Final[Buckets] = {
    metric.prometheus: metric.buckets for metric in names.METRICS if metric.kind == "histogram"
}

GAUGES: Final[dict[names.Metric, Callable[[PoolSnapshot], float]]] = {
    names.QUEUE_DEPTH: lambda pool: pool.queue_depth,
    names.BLOCKED_NODES: lambda pool: pool.blocked_nodes,
    names.ACTIVE_WORKERS: lambda pool: pool.active_workers,
    names.WORKERS: lambda pool: pool.workers,
    names.MAX_WORKERS: lambda pool: pool.max_workers,
    names.OLDEST_QUEUED: lambda pool: pool.oldest_queued_seconds,
    names.OLDEST_ACTIVE: lambda pool: pool.oldest_active_seconds,
    names.RUNS_ACTIVE: lambda pool: pool.active_runs,
}
"""What is seen of a pool by looking at it: true at that moment, and of a process that lives."""

AGES: Final = (names.OLDEST_QUEUED, names.OLDEST_ACTIVE)

_OF_NODES: Final = {names.NODES, names.NODE_DURATION, names.NODE_TIME}


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


class Ledger:
    """All metrics of several adapters. Does not keep the adapters alive."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self._lock = threading.Lock()
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        self._tallies: dict[str, PoolTally] = {}
        self._errors: Counter[str] = Counter()
        self._waits: Waits | None = None
        self.show: Callable[[], None] = lambda: None
        """Sees to it that whoever shows these metrics still does. Called at the start of each run."""

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

    def renew_lock(self) -> None:
        """For a forked child, in which the thread that held it does not exist."""
        self._lock = threading.Lock()

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
        with self._lock:
            sources = [source for source in members(self._sources) if not source.closed]
            tallies = list(self._tallies.items())
            errors = list(self._errors.items())
        points: dict[names.Metric, Points] = {metric: [] for metric in names.METRICS}
        if not GAUGES.keys().isdisjoint(wanted):
            _look([(source, source.snapshot()) for source in sources], points)
        for pool, tally in tallies:
            if names.QUEUE_WAIT in wanted:
                points[names.QUEUE_WAIT].append(((pool,), tally.copy_queue_wait()))
            if not _OF_NODES.isdisjoint(wanted):
                _add_nodes(pool, tally, points)
            if names.RUN_DURATION in wanted:
                points[names.RUN_DURATION] += [((pool, *labels), cell) for labels, cell in tally.copy_runs()]
            if names.CRITICAL_PATH_TIME in wanted:
                points[names.CRITICAL_PATH_TIME] += [
                    ((pool, *labels), seconds) for labels, seconds in tally.copy_critical_seconds()
                ]
            points[names.RUN_LAST_SUCCESS] += [((pool, run), when) for run, when in list(tally.last_success.items())]
        if self._waits is not None:
            method = self._waits.method
            points[names.GIL_WAIT].append(((), self._waits.gil_wait_seconds))
            points[names.ATTRIBUTION].append(((method.method, method.reason or ""), 1))
        points[names.SPANS_LOST] += [((stage,), count) for stage, count in losses.spans_lost().items()]
        points[names.TELEMETRY_ERRORS] += [((component,), count) for component, count in errors]
        return {metric: each for metric, each in points.items() if metric in wanted}


def _look(looks: Sequence[tuple[Source, PoolSnapshot]], points: dict[names.Metric, Points]) -> None:
    for gauge, read in GAUGES.items():
        values: dict[Labels, list[float]] = {}
        for source, snapshot in looks:
            labels = (source.pool_name, source.run_name)[: len(gauge.labels)]
            values.setdefault(labels, []).append(read(snapshot))
        combine = max if gauge in AGES else sum
        points[gauge] += [(labels, combine(several)) for labels, several in values.items()]


def _add_nodes(pool: str, tally: PoolTally, points: dict[names.Metric, Points]) -> None:
    times: dict[Labels, int] = {}
    ended: dict[str, set[str]] = {}
    for (node, outcome), cell in tally.copy_nodes():
        ended.setdefault(node, set()).add(outcome)
        points[names.NODES].append(((pool, node, outcome), cell.count))
        if not any(cell.duration.counts):
            continue
        points[names.NODE_DURATION].append(((pool, node, outcome), cell.duration))
        state_ns = [*cell.state_ns, cell.duration.sum_ns - sum(cell.state_ns)]
        for state, one_ns in zip(STATES, state_ns, strict=True):
            if one_ns or state in ("cpu", "other"):
                times[pool, node, state] = times.get((pool, node, state), 0) + one_ns
    # A counter that appears with 1 has not risen, for Prometheus: the first failure of a node that had ended
    # well before would be in no rate. So all its outcomes are there from its first end on.
    points[names.NODES] += [
        ((pool, node, missing), 0)
        for node, outcomes in ended.items()
        for missing in OUTCOMES
        if missing not in outcomes
    ]
    points[names.NODE_TIME] += [(labels, one_ns / 1e9) for labels, one_ns in times.items()]


class BoundsConflict(ValueError):
    """Two adapters of one registry, or of one meter provider, want different histogram bounds."""


class Counting(Observer):
    """The observer that counts.

    Args:
        ledger: Where to.
        pool_name: Value of the label `pool`.
        run_name: Value of the label `run`.
        max_node_labels: How many nodes get a label value of their own; 0 puts all under `_other`.
    """

    component = "metrics"

    def __init__(self, ledger: Ledger, *, pool_name: str, run_name: str, max_node_labels: int) -> None:
        self._ledger = ledger
        self._tally = ledger.tally(pool_name)
        self._run_name = run_name
        self._max_node_labels = max_node_labels
        self._successes: dict[str, NodeCell] = {}  # those of the tally's cells that nearly every node goes to
        # As with nodes (above): the first run that fails is in the rates if there was a scrape before its end.
        with self._tally.lock:
            for outcome in RUN_OUTCOMES:
                self._tally.run_cell(run_name, outcome)

    def run_started(self, run: RunRecord) -> None:
        self._ledger.show()

    def run_ended(self, run: RunRecord) -> None:
        self.count_run(run, span_context_of(run))

    def count_run(self, run: RunRecord, span_context: Any) -> None:
        outcome = run.outcome or "success"
        path = run.critical_path().seconds if run.critical_path is not None else None
        with self._tally.lock:
            self._tally.run_cell(self._run_name, outcome).observe(run.duration_ns, span_context)
            if path:
                self._tally.add_critical_seconds(self._run_name, path, self._max_node_labels)
            if outcome == "success":
                self._tally.last_success[self._run_name] = time.time()

    def node_ended(self, node: NodeRecord) -> None:
        self.count_node(node, ran=node.thread is not None)

    def count_node(self, node: NodeRecord, *, ran: bool) -> NodeCell:
        tally = self._tally
        name, outcome = node.name, node.outcome or "success"
        if tally.lock.locked():
            let_holder_go_on(tally.lock)
        with tally.lock:
            cell = self._successes.get(name) if outcome == "success" else tally.nodes.get((name, outcome))
            if cell is None:
                cell = tally.new_node_cell(name, outcome, self._max_node_labels)
                if outcome == "success" and cell.labels[0] == name:  # not one of those that share a label
                    self._successes[name] = cell
            cell.count += 1
            if not ran:
                return cell  # it has no duration and was never taken from the queue
            span_context = node.span_context
            cell.duration.observe(node.ended_ns - node.started_ns, span_context)
            tally.queue_wait.observe(node.started_ns - node.ready_ns, span_context)
            cell.add_states(node.cpu_ns, node.counted_ns)
        return cell


def span_context_of(run: RunRecord) -> Any:
    """The context of the run's span while it has not been ended, else None."""
    span = getattr(run.telemetry, "span", None)
    return None if span is None else span.get_span_context()


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
