"""The end of a run or node into the metrics store. A metric is one entry of `names.METRICS` and one line here.

`MetricsObserver` counts where it is called. `PushedMetrics` does so on a thread of its own, for stores that hand each
observation of a histogram on: OpenTelemetry's instruments, and Prometheus' multiprocess files.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import acquire_late
from traced_threadpool.model.observers import ErrorLog, Observer
from traced_threadpool.model.records import RUN_OUTCOMES, THREADS, NodeRecord, PathFacts, RunRecord
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.background import Background, call

if TYPE_CHECKING:
    from traced_threadpool.telemetry.metrics.histogram import Histogram
    from traced_threadpool.telemetry.metrics.store import Labels, MetricsStore, NodeMetrics

FLUSH_SECONDS: Final = 1.0
"""How long `execute` waits for the run's figures to be recorded, once its result is there."""


class MetricsObserver(Observer):
    """Counts runs and nodes.

    Args:
        store: Where to.
        pool_name: Value of the label `pool`.
        run_name: Value of the label `run`.
        max_node_labels: How many nodes get a label value of their own; 0 puts all under `_other`.
    """

    component = "metrics"

    def __init__(self, store: MetricsStore, *, pool_name: str, run_name: str, max_node_labels: int) -> None:
        self._store = store
        self._pool = store.pool(pool_name)
        self._pool_name = pool_name
        self._run_name = run_name
        self._max_node_labels = max_node_labels
        self._forget()
        forks.register(self._forget)
        with self._pool.lock:  # there at 0, so that the first run that fails is a rise of the counter
            self._pool.histogram(names.QUEUE_WAIT, (THREADS,))
            for outcome in RUN_OUTCOMES:
                self._pool.histogram(names.RUN_DURATION, (run_name, outcome))

    def _forget(self) -> None:
        self._successes: dict[str, NodeMetrics] = {}  # those that nearly every node goes to
        self._queue_wait: Histogram | None = None

    def run_started(self, run: RunRecord) -> None:
        self._store.show()

    def run_ended(self, run: RunRecord) -> None:
        self.count_run(run, span_context_of(run))

    def node_ended(self, node: NodeRecord) -> None:
        self.count_node(node, ran=node.thread is not None)

    def node_stalled(self, node: NodeRecord, stack: Sequence[str]) -> None:
        pool = self._pool
        with pool.lock:
            pool.count(names.NODE_STALLS, (pool.node_label(node.name, self._max_node_labels),), 1)

    def count_run(self, run: RunRecord, span_context: Any) -> None:
        outcome = run.outcome or "success"
        self._observe(names.RUN_DURATION, (self._run_name, outcome), run.duration_ns, span_context)
        path = PathFacts() if run.critical_path is None else run.critical_path()
        pool = self._pool
        with pool.lock:
            for name, seconds in path.seconds.items():
                if name.startswith("_"):  # a wait, which needs no label among the nodes
                    label = name
                else:
                    label = pool.node_label(name, self._max_node_labels)
                    pool.count(names.QUEUED_BEHIND, (self._run_name, label), 0.0)
                pool.count(names.CRITICAL_PATH_TIME, (self._run_name, label), seconds)
            for name, seconds in path.queued_behind.items():
                label = pool.node_label(name, self._max_node_labels)
                pool.count(names.QUEUED_BEHIND, (self._run_name, label), seconds)
            if outcome == "success":
                pool.values[names.RUN_LAST_SUCCESS, (self._run_name,)] = time.time()

    def count_node(self, node: NodeRecord, *, ran: bool) -> None:
        pool = self._pool
        name, outcome = node.name, node.outcome or "success"
        span_context = node.span_context
        lock = pool.lock
        if not lock.acquire(False):
            acquire_late(lock)
        try:
            known = self._successes.get(name) if outcome == "success" else None
            if known is None:
                known = pool.node(name, outcome, self._max_node_labels)
                if outcome == "success" and known.labels[0] == name:  # not one of those that share a label
                    self._successes[name] = known
            known.count += 1
            if not ran:
                return  # it has no duration and was never taken from the queue
            duration_ns, queue_ns = node.ended_ns - node.started_ns, node.started_ns - node.ready_ns
            known.duration.observe(duration_ns, span_context)
            backend = node.backend
            if backend is not THREADS:
                pool.histogram(names.QUEUE_WAIT, (backend,)).observe(queue_ns, span_context)
            else:
                if self._queue_wait is None:
                    self._queue_wait = pool.histogram(names.QUEUE_WAIT, (THREADS,))
                self._queue_wait.observe(queue_ns, span_context)
            known.queue_ns += queue_ns
            known.add_states(node.cpu_ns, node.counted_ns)
        finally:
            lock.release()
        if self._store.on_observation is not None:
            self._hand_on(names.NODE_DURATION, known.labels, duration_ns, span_context)
            self._hand_on(names.QUEUE_WAIT, (backend,), queue_ns, span_context)

    def _observe(self, metric: names.Metric, labels: Labels, value_ns: int, span_context: Any) -> None:
        """One observation of a histogram; `labels` without the first, the pool."""
        with self._pool.lock:
            self._pool.histogram(metric, labels).observe(value_ns, span_context)
        self._hand_on(metric, labels, value_ns, span_context)

    def _hand_on(self, metric: names.Metric, labels: Labels, value_ns: int, span_context: Any) -> None:
        if self._store.on_observation is not None:
            self._store.on_observation(metric, (self._pool_name, *labels), value_ns, span_context)


class PushedMetrics(Observer):
    """Counts on a thread of its own: a node pays for the hand-over alone."""

    component = "pushed_metrics"

    def __init__(
        self, store: MetricsStore, *, pool_name: str, run_name: str, max_node_labels: int, errors: ErrorLog
    ) -> None:
        self.store = store
        self._observer = MetricsObserver(store, pool_name=pool_name, run_name=run_name, max_node_labels=max_node_labels)
        self._background = Background(call, errors, self.component)

    def flush(self, timeout_seconds: float = FLUSH_SECONDS) -> bool:
        """Waits until all nodes and runs that have ended are counted."""
        return self._background.flush(timeout_seconds)

    def run_started(self, run: RunRecord) -> None:
        self.store.show()

    # What others let go of meanwhile is read here: the run's span by tracing, the node's thread by the pool.
    def run_ended(self, run: RunRecord) -> None:
        self._background.put((self._observer.count_run, run, span_context_of(run)))

    def node_ended(self, node: NodeRecord) -> None:
        self._background.put((self._count_node, node, node.thread is not None))

    def node_stalled(self, node: NodeRecord, stack: Sequence[str]) -> None:
        self._observer.node_stalled(node, stack)

    def _count_node(self, node: NodeRecord, ran: bool) -> None:
        self._observer.count_node(node, ran=ran)


def span_context_of(run: RunRecord) -> Any:
    """The context of the run's span while it has not been ended, else None."""
    span = getattr(run.telemetry, "span", None)
    return None if span is None else span.get_span_context()
