"""Points into the files of Prometheus' multiprocess mode (`PROMETHEUS_MULTIPROC_DIR`), where collectors are ignored.

In that mode each process writes its figures to files of its own, and a scrape, in whichever process, adds up all of
them. Histograms are observed one by one, on a thread of their own; all else is mirrored from a ledger once a second
while nodes run, once more when they have ended, when an adapter is closed, and at exit. So a process that is killed
takes a second of counts with it at most.

What a pool shows of itself is summed over the processes that live (`livesum`; ages: `livemax`), which needs
`prometheus_client.multiprocess.mark_process_dead` when one dies. Exemplars do not exist in this mode.

Process-wide, as the files are: adapters of several registries add up here.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram, values

from traced_threadpool.model.concurrency import STORES_IN_ORDER
from traced_threadpool.model.observers import ErrorLog, Observer
from traced_threadpool.model.records import NodeRecord, RunRecord
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.background import Background, call
from traced_threadpool.telemetry.metrics.store import AGES, DEFAULT_BUCKETS, GAUGES, Buckets, Counting, Labels, Ledger

TICK_SECONDS: Final = 1.0
FLUSH_SECONDS: Final = 1.0

_BUSY: Final = (names.ACTIVE_WORKERS, names.QUEUE_DEPTH, names.BLOCKED_NODES, names.RUNS_ACTIVE)
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
        self.ledger = Ledger({**DEFAULT_BUCKETS, **buckets})
        self._instruments: dict[names.Metric, Any] = {}
        for metric in names.METRICS:
            name, text, labels = metric.prometheus_base, metric.description, metric.labels
            if metric.kind == "histogram":
                bounds = self.ledger.buckets[metric.prometheus]
                instrument: Any = Histogram(name, text, labels, registry=None, buckets=bounds)
            elif metric.kind == "counter":
                instrument = Counter(name, text, labels, registry=None)
            else:
                instrument = Gauge(name, text, labels, registry=None, multiprocess_mode=_mode(metric))
            self._instruments[metric] = instrument
        self._shown: dict[tuple[names.Metric, Labels], float] = {}
        self._reset()
        if hasattr(os, "register_at_fork"):  # one for the process, so it need not be weak
            os.register_at_fork(after_in_child=self._in_forked_child)

    def _in_forked_child(self) -> None:
        """It has files of its own, and shows there what it counts from now on; the rest is its parent's to show."""
        self._reset()
        self.ledger.renew_lock()
        counters = [metric for metric in _MIRRORED if metric.kind == "counter"]
        self._shown = {
            (metric, labels): value for metric, points in self.ledger.read(counters).items() for labels, value in points
        }

    def _reset(self) -> None:
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._awake = self._wanted = False

    def observe(self, metric: names.Metric, labels: Labels, value_ns: int) -> None:
        self._child(metric, labels).observe(value_ns / 1e9)

    def _child(self, metric: names.Metric, labels: Labels) -> Any:
        instrument = self._instruments[metric]
        return instrument.labels(*labels) if labels else instrument

    def write(self) -> bool:
        """Brings the files up to date, histograms apart. Whether nodes run or wait."""
        with self._writing:
            points = self.ledger.read(_MIRRORED)
            now = {(metric, labels): value for metric, each in points.items() for labels, value in each}
            for (metric, labels), value in now.items():
                before = self._shown.get((metric, labels), 0.0)
                child = self._child(metric, labels)
                if metric.kind == "gauge":
                    child.set(value)
                elif value > before:
                    child.inc(value - before)
                self._shown[metric, labels] = max(before, value) if metric.kind == "counter" else value
            for labels, _ in self.ledger.read((names.RUN_DURATION,))[names.RUN_DURATION]:
                self._child(names.RUN_DURATION, labels)  # makes it be there with 0, as elsewhere
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
    _mirrors[0].ledger.check_bounds(buckets, "process, in multiprocess mode,")
    return _mirrors[0]


class MultiprocessMetrics(Observer):
    """The observer that counts for the files, on a thread of its own.

    Args:
        mirror: The process's.
        pool_name: Label `pool`.
        run_name: Label `run`.
        max_node_labels: How many nodes get a value of their own in the label `node`.
        errors: Where failures are counted.
    """

    component = "multiprocess"

    def __init__(
        self, mirror: Mirror, *, pool_name: str, run_name: str, max_node_labels: int, errors: ErrorLog
    ) -> None:
        self.ledger = mirror.ledger
        self._mirror = mirror
        self._pool_name = pool_name
        self._run_name = run_name
        self._counting = Counting(
            mirror.ledger, pool_name=pool_name, run_name=run_name, max_node_labels=max_node_labels
        )
        self._background = Background(call, errors, self.component)

    def flush(self, timeout_seconds: float = FLUSH_SECONDS) -> bool:
        """Waits until the histograms have all that has ended."""
        return self._background.flush(timeout_seconds)

    def close(self) -> None:
        """Writes the rest, once the adapter no longer shows its gauges."""
        self.flush()
        self._mirror.write()

    def run_started(self, run: RunRecord) -> None:
        self._mirror.wake()

    def run_ended(self, run: RunRecord) -> None:
        self._background.put((self._count_run, run))

    def node_started(self, node: NodeRecord) -> None:
        self._mirror.wake()

    def node_ended(self, node: NodeRecord) -> None:
        self._background.put((self._count_node, node, node.thread is not None))

    def _count_node(self, node: NodeRecord, ran: bool) -> None:
        labels = (self._pool_name, *self._counting.count_node(node, ran=ran).labels)
        self._mirror.wake()
        if ran:
            self._mirror.observe(names.NODE_DURATION, labels, node.duration_ns)
            self._mirror.observe(names.QUEUE_WAIT, (self._pool_name,), node.queue_ns)

    def _count_run(self, run: RunRecord) -> None:
        self._counting.count_run(run, None)
        self._mirror.wake()
        labels = (self._pool_name, self._run_name, run.outcome or "success")
        self._mirror.observe(names.RUN_DURATION, labels, run.duration_ns)
