"""Points into the files of Prometheus' multiprocess mode (`PROMETHEUS_MULTIPROC_DIR`), where collectors are ignored.

In that mode each process writes its figures to files of its own, and a scrape, in whichever process, adds up all of
them. Histograms are observed one by one, on a thread of their own; all else is copied from the metrics store once a
second while nodes run, once more when they have ended, when an adapter is closed, and at exit. So a process that is
killed takes a second of counts with it at most.

What a pool shows of itself is summed over the processes that live (`livesum`; ages: `livemax`), which needs
`prometheus_client.multiprocess.mark_process_dead` when one dies. Exemplars do not exist in this mode.

Process-wide, as the files are: adapters of several registries add up here.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram, values

from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import STORES_IN_ORDER
from traced_threadpool.model.lock_backoff import Condition, ObserverLock
from traced_threadpool.model.observers import ErrorLog
from traced_threadpool.model.records import NodeRecord, RunRecord
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.observer import PushedMetrics
from traced_threadpool.telemetry.metrics.store import AGES, DEFAULT_BUCKETS, GAUGES, Buckets, Labels, MetricsStore

TICK_SECONDS: Final = 1.0

_BUSY: Final = (names.ACTIVE_WORKERS, names.QUEUE_DEPTH, names.BLOCKED_NODES, names.RUNS_ACTIVE)
_HISTOGRAMS: Final = tuple(metric for metric in names.METRICS if metric.kind == "histogram")
_MIRRORED: Final = tuple(metric for metric in names.METRICS if metric.kind != "histogram")


def is_on() -> bool:
    """Whether `prometheus_client` was in multiprocess mode when it was imported."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))


def _mode(metric: names.Metric) -> Any:
    if metric is names.RUN_LAST_SUCCESS:
        return "max"  # also of a process that has ended
    return "livemax" if metric in AGES or metric not in GAUGES else "livesum"


class Mirror:
    """This process's files.

    Raises:
        OSError: A file cannot be written.
    """

    def __init__(self, buckets: Buckets) -> None:
        self.store = MetricsStore({**DEFAULT_BUCKETS, **buckets})
        self.store.on_observation = self.observe
        self._instruments: dict[names.Metric, Any] = {}
        for metric in names.METRICS:
            name, text, labels = metric.prometheus_base, metric.description, metric.labels
            if metric.kind == "histogram":
                bounds = self.store.buckets[metric.prometheus]
                instrument: Any = Histogram(name, text, labels, registry=None, buckets=bounds)
            elif metric.kind == "counter":
                instrument = Counter(name, text, labels, registry=None)
            else:
                instrument = Gauge(name, text, labels, registry=None, multiprocess_mode=_mode(metric))
            self._instruments[metric] = instrument
        self._shown: dict[tuple[names.Metric, Labels], float] = {}
        self._reset()
        forks.register(self._in_forked_child)

    def _in_forked_child(self) -> None:
        """It has files of its own, and shows there what it counts from now on; the rest is its parent's to show."""
        self._reset()
        counters = [metric for metric in _MIRRORED if metric.kind == "counter"]
        self._shown = {
            (metric, labels): value for metric, points in self.store.read(counters).items() for labels, value in points
        }

    def _reset(self) -> None:
        self._writing = threading.Lock()
        self._changed = Condition(ObserverLock())
        self._thread: threading.Thread | None = None
        self._awake = self._wanted = False

    def observe(self, metric: names.Metric, labels: Labels, value_ns: int, span_context: Any) -> None:
        if metric is names.RUN_DURATION:
            self.wake()
        self._child(metric, labels).observe(value_ns / 1e9)

    def _child(self, metric: names.Metric, labels: Labels) -> Any:
        instrument = self._instruments[metric]
        return instrument.labels(*labels) if labels else instrument

    def write(self) -> bool:
        """Brings the files up to date, histograms apart. Whether nodes run or wait."""
        with self._writing:
            points = self.store.read(_MIRRORED)
            now = {(metric, labels): value for metric, each in points.items() for labels, value in each}
            for (metric, labels), value in now.items():
                before = self._shown.get((metric, labels), 0.0)
                child = self._child(metric, labels)
                if metric.kind == "gauge":
                    child.set(value)
                elif value > before:
                    child.inc(value - before)
                self._shown[metric, labels] = max(before, value) if metric.kind == "counter" else value
            for metric, each in self.store.read(_HISTOGRAMS).items():
                for labels, _ in each:
                    self._child(metric, labels)  # there at 0, as elsewhere
            for metric, labels in self._shown.keys() - now.keys():
                if metric.kind == "gauge":  # of an adapter that is closed: it cannot be taken out of a file
                    self._child(metric, labels).set(0)
                    del self._shown[metric, labels]
        return any(value for metric in _BUSY for _, value in points[metric])

    def wake(self) -> None:
        """Nodes run: keep writing until they have ended.

        The race: here `_wanted` is set before `_awake` is read; the thread says that it is no longer awake before it
        looks at `_wanted` for the last time.
        """
        self._wanted = True
        if self._awake and STORES_IN_ORDER:
            return
        with self._changed:
            if self._thread is not None:
                return
            self._awake = True
            self._thread = threading.Thread(target=self._work, name="traced-threadpool-multiprocess", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is at its exit, which writes
                self._thread, self._awake = None, False

    def _work(self) -> None:
        while True:
            self._wanted = False
            is_busy = self.write()
            with self._changed:
                if not is_busy:
                    self._awake = False
                    if not self._wanted:
                        self._thread = None
                        return
                    self._awake = True
                self._changed.wait(TICK_SECONDS)


_mirrors: list[Mirror] = []
_mirrors_lock = threading.Lock()


def mirror_with(buckets: Buckets) -> Mirror:
    """The process's mirror, made at the first call.

    Raises:
        BoundsConflict: There is one already, with other bounds.
        Exception: The files cannot be written.
    """
    with _mirrors_lock:
        if not _mirrors:
            _mirrors.append(Mirror(buckets))
            atexit.register(_mirrors[0].write)
            return _mirrors[0]
    _mirrors[0].store.check_bounds(buckets, "process, in multiprocess mode,")
    return _mirrors[0]


class MultiprocessMetrics(PushedMetrics):
    """The observer that counts for the files."""

    component = "multiprocess"

    def __init__(
        self, mirror: Mirror, *, pool_name: str, run_name: str, max_node_labels: int, errors: ErrorLog
    ) -> None:
        super().__init__(
            mirror.store, pool_name=pool_name, run_name=run_name, max_node_labels=max_node_labels, errors=errors
        )
        self._mirror = mirror

    def close(self) -> None:
        """Writes the rest, once the adapter no longer shows its gauges."""
        self.flush()
        self._mirror.write()

    def run_started(self, run: RunRecord) -> None:
        self._mirror.wake()

    def node_started(self, node: NodeRecord) -> None:
        self._mirror.wake()

    def _count_node(self, node: NodeRecord, ran: bool) -> None:
        super()._count_node(node, ran)
        self._mirror.wake()
