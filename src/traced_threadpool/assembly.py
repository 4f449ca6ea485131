"""An adapter's options into its working parts. The one place where they are put together.

Parts know each other by what they are given here: a pool its observers and its meter, an observer its store.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from traced_threadpool import hamilton_graph
from traced_threadpool.engine import durations as durations_file
from traced_threadpool.engine.auto_placement import AutoPlacement, PlacementObserver
from traced_threadpool.engine.backends.base import Backend
from traced_threadpool.engine.backends.threads import Threads
from traced_threadpool.engine.durations import Durations
from traced_threadpool.engine.pool import Pool
from traced_threadpool.engine.pool_snapshot import PoolSnapshot
from traced_threadpool.engine.priorities import FIFO, Planner
from traced_threadpool.engine.work import NO_PICKLE, Work
from traced_threadpool.live import server
from traced_threadpool.live.node_now import Elsewhere, NodesNow
from traced_threadpool.live.progress import ProgressOfRuns
from traced_threadpool.live.records import LivePool
from traced_threadpool.live.stalls import StallWatch
from traced_threadpool.live.thread_now import ThreadsNow
from traced_threadpool.live.view import LiveView
from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import members
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.lock_backoff import letting_go
from traced_threadpool.model.observers import ErrorLog, Observer, Observers
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.records import RunRecord
from traced_threadpool.options import Metrics, Options
from traced_threadpool.placement import AUTO, Placements
from traced_threadpool.recording.recorder import Recorder, Recording
from traced_threadpool.run_registry import RunRegistry
from traced_threadpool.telemetry.metrics import multiprocess
from traced_threadpool.telemetry.metrics.http_server import add_page
from traced_threadpool.telemetry.metrics.multiprocess import MultiprocessMetrics, mirror_with
from traced_threadpool.telemetry.metrics.observer import MetricsObserver
from traced_threadpool.telemetry.metrics.otel import OtelMetrics, instruments_of
from traced_threadpool.telemetry.metrics.prometheus import store_of
from traced_threadpool.telemetry.metrics.store import BoundsConflict, MetricsStore
from traced_threadpool.telemetry.tracing.large_runs import DEFAULT_LARGE_RUN
from traced_threadpool.telemetry.tracing.observer import TracingObserver
from traced_threadpool.waits.meter import CpuMeter, WaitsMeter
from traced_threadpool.waits.supervisor import Supervisor
from traced_threadpool.waits.supervisor import supervisor as waits_of_process

_Part = TypeVar("_Part")


def assemble(options: Options, *, waits: Supervisor = waits_of_process) -> Assembly:
    """The working parts of an adapter with these options.

    Args:
        options: What it was told.
        waits: What looks at its workers; the process's own.

    Raises:
        OSError: The file of durations is there and cannot be read.
        ValueError: It is no such file, or its bounds contradict another adapter's.
    """
    return Assembly(options, waits)


class Assembly:
    """The working parts of an adapter, which its copies share. They end what is open when the last of these goes."""

    def __init__(self, options: Options, waits: Supervisor) -> None:
        self.options = options
        self.errors = ErrorLog()
        self.durations, self.durations_path = _durations_from(options.durations)
        self.planner = Planner(options.priority, self.durations)
        self.learn = None if options.priority == FIFO and options.durations is None else self.durations.learn
        self.backends = options.backends
        self._lanes = {
            name: Lane(type(backend).__name__.lower(), backend.max_workers) for name, backend in self.backends.items()
        }
        self.tracing = (
            None if options.tracing is None else self._unless_refused(TracingObserver.component, self._tracing)
        )
        stores: list[MetricsStore] = []
        counting = self._counting(stores)
        self.recorder = Recorder(
            pool_name=options.name,
            max_workers=options.max_workers,
            backends=self._lanes,
            keep=options.record,
            messages=options.tracing is None or options.tracing.record_exceptions,
            running=self._running_now(),
            on_end=_tell_path,
        )
        watching: list[Observer] = [] if self.tracing is None else [self.tracing]
        watching += counting
        observed = bool(watching) or options.record > 0
        self._waits = waits if options.attribution is not None and observed else None
        meter = CpuMeter()
        if self._waits is not None and options.attribution is not None:
            meter = WaitsMeter(waits, self.errors)
            watching.insert(0, meter)
            waits.join(self, options.attribution.budget)
            for backend in self.backends.values():
                if (sampled_by := getattr(backend, "sampled_by", None)) is not None:
                    sampled_by(waits)
        if observed:
            watching.append(self.recorder)  # the last hears first of a run's end: the others want its path
        self.live_view: LiveView | None = None
        nodes = NodesNow(ThreadsNow(gil_address=lambda: waits.gil_address), self._elsewhere)
        self.stalls = stalls = self._stalls(nodes)
        if options.progress and options.live:
            watching.append(ProgressOfRuns(self.live_now))
        self.auto = self._auto()
        if self.auto is not None:
            watching.append(PlacementObserver(self.auto))
        self._observers = Observers([*watching, stalls], self.errors)
        self.pool = Pool(
            options.max_workers,
            options.thread_name_prefix,
            self._observers,
            meter,
            limits={name: lane.max_workers for name, lane in self._lanes.items()},
            elsewhere=[name for name, backend in self.backends.items() if not isinstance(backend, Threads)],
        )
        self.placements = Placements(None if self.auto is not None else options.run_on, self.backends)
        for name, backend in self.backends.items():
            backend.open(name)
        self._open_backends: tuple[Backend, ...] = tuple(self.backends.values())
        self.runs = RunRegistry(self.pool)
        if options.live:
            self.live_view = LiveView(
                pool_name=options.name,
                look=self.pool.look,
                usual=self.durations.usual,
                plan=lambda run: None if run.plan is None else run.plan(),
                nodes=nodes,
                stalled=stalls.is_stalled,
            )
            server.show(self.live_view)
            live_app = server.wsgi_app()
            for path in ("/live", "/live.json"):
                add_page(path, live_app)
        self._source = _GaugeSource(options.name, options.run_name, self.pool, stalls)
        for store in stores:
            self.errors.listen(store.count_error)
            store.add_source(self._source)
            if self._waits is not None:
                store.show_waits(waits)
        _assemblies.add(self)

    # Parts

    def _tracing(self) -> TracingObserver:
        options, settings = self.options, self.options.tracing
        assert settings is not None
        return TracingObserver(
            tracer_provider=options.tracer_provider,
            pool_name=options.name,
            max_workers=options.max_workers,
            backends=[f"{name} {lane}" for name, lane in self._lanes.items()],
            record_exceptions=settings.record_exceptions,
            large_run=settings.large_run,
            warns=settings.large_run == DEFAULT_LARGE_RUN,
            describe=hamilton_graph.describe,
            graph_version=hamilton_graph.graph_version,
            diagnose=_diagnose,
            errors=self.errors,
        )

    def _counting(self, stores: list[MetricsStore]) -> list[Observer]:
        """What counts, for each reader of metrics; puts what it counts in among the stores."""
        options, settings = self.options, self.options.metrics or Metrics()
        labels: dict[str, Any] = {
            "pool_name": options.name,
            "run_name": options.run_name,
            "max_node_labels": settings.max_node_labels,
        }
        counting: list[Observer] = []
        if options.metrics is not None:
            store = self._unless_refused("metrics", lambda: store_of(options.registry, settings.buckets))
            if store is not None:
                stores.append(store)
                counting.append(MetricsObserver(store, **labels))
        self.pushed: list[OtelMetrics | MultiprocessMetrics] = []
        if (provider := options.meter_provider) is not None:
            otel = self._unless_refused(
                OtelMetrics.component,
                lambda: OtelMetrics(instruments_of(provider, settings.buckets).store, errors=self.errors, **labels),
            )
            self.pushed += [] if otel is None else [otel]
        if options.metrics is not None and multiprocess.is_on():
            mirrored = self._unless_refused(
                MultiprocessMetrics.component,
                lambda: MultiprocessMetrics(mirror_with(settings.buckets), errors=self.errors, **labels),
            )
            self.pushed += [] if mirrored is None else [mirrored]
        stores += [each.store for each in self.pushed]
        return [*counting, *self.pushed]

    def _auto(self) -> AutoPlacement | None:
        if self.options.run_on != AUTO:
            return None
        from traced_threadpool.engine.backends.processes import Processes

        name = next(name for name, backend in self.backends.items() if isinstance(backend, Processes))
        auto = AutoPlacement(name, self.durations.placement)
        self.durations.place = auto.as_json
        return auto

    def _unless_refused(self, component: str, make: Callable[[], _Part]) -> _Part | None:
        """A registry, provider or directory that refuses costs its telemetry, not the job."""
        try:
            return make()
        except (BoundsConflict, KeyboardInterrupt):
            raise
        except BaseException as error:  # also SystemExit
            self.errors.caught(component, error)
            return None

    @property
    def live_now(self) -> Callable[[], LivePool]:
        """The live view without a reference to what it is part of."""
        reference = weakref.ref(self)

        def live() -> LivePool:
            assembly = reference()
            if assembly is None or assembly.live_view is None:
                raise RuntimeError("the adapter is gone")
            return assembly.live_view.live(cancelled=False)

        return live

    def _running_now(self) -> Callable[[], Sequence[Work]]:
        """Gives the nodes that run, without a reference to what the recorder is part of."""
        reference = weakref.ref(self)

        def running() -> Sequence[Work]:
            assembly = reference()
            return () if assembly is None else list(assembly.pool.running()[1])

        return running

    @property
    def _elsewhere(self) -> Callable[[Work], Elsewhere | None]:
        """Where a backend runs a node, if it says so."""
        backends = self.options.backends

        def elsewhere(work: Work) -> Elsewhere | None:
            find = getattr(backends.get(work.backend or ""), "worker_of", None)
            found: Elsewhere | None = None if find is None else find(work)
            return found

        return elsewhere

    def _stalls(self, nodes: NodesNow) -> StallWatch:
        reference = weakref.ref(self)
        durations = self.durations

        def running() -> tuple[int, Mapping[Work, threading.Thread | None]]:
            assembly = reference()
            return (0, {}) if assembly is None else assembly.pool.running()

        def told(node: Work, stack: Sequence[str]) -> None:
            assembly = reference()
            if assembly is not None:
                assembly._observers.node_stalled(node, stack)

        return StallWatch(
            running=running,
            usual=self.durations.usual,
            knows=lambda: len(durations) > 0,
            stall_after=self.options.stall_after,
            nodes=nodes,
            told=told,
            errors=self.errors,
        )

    # As a whole

    def use_executor(self, executor: Executor) -> None:
        """Nodes run on its threads from now on."""
        self.pool.use_executor(executor)
        self.recorder.max_workers = self.pool.max_workers
        if self.tracing is not None:
            self.tracing.max_workers = self.pool.max_workers

    def snapshot(self) -> PoolSnapshot:
        return self._source.snapshot()

    def flush(self, *, spans: bool = True) -> None:
        """Waits, for as long as may be, until what is known is where it is read."""
        if self.tracing is not None and spans:
            self.tracing.flush()
        for pushed in self.pushed:
            pushed.flush()

    @letting_go
    def close(self, *, cancel_pending: bool) -> None:
        """See `FutureAdapter.close`."""
        self.pool.close(cancel_pending=cancel_pending)
        for backend in self._open_backends:
            backend.close()
        self._open_backends = ()
        self.flush()
        if self._waits is not None:
            self._waits.leave(self)
        self._source.closed = True
        for pushed in self.pushed:
            if isinstance(pushed, MultiprocessMetrics):
                pushed.close()

    def end_runs_at_exit(self) -> None:
        """No node will run any more."""
        if self.pool.has_runs:
            self.pool.end_runs(cancel_pending=True)
            self.flush()

    def __del__(self) -> None:
        """Nobody has the adapter any more, so no run of its gets another node.

        This may come in the middle of anything, on a thread that holds the pool's lock: so runs are ended on a thread
        of their own, where there are any.
        """
        pool: Pool | None = self.__dict__.get("pool")  # None: what it was told was refused
        if pool is not None and pool.has_runs:
            with contextlib.suppress(RuntimeError):  # no thread can be started, or the interpreter is at its end
                threading.Thread(target=pool.end_runs, name="traced-threadpool-end", daemon=True).start()

    def __reduce__(self) -> NoReturn:
        raise TypeError(NO_PICKLE)


class _GaugeSource:
    """What the gauges read. Belongs to the adapter, and goes with it."""

    def __init__(self, pool_name: str, run_name: str, pool: Pool, stalls: StallWatch) -> None:
        self.pool_name = pool_name
        self.run_name = run_name
        self.closed = False
        self._pool = pool
        self._stalls = stalls

    def snapshot(self) -> PoolSnapshot:
        return replace(self._pool.snapshot(), stalled_nodes=self._stalls.stalled)


def _durations_from(
    given: str | os.PathLike[str] | Durations | None,
) -> tuple[Durations, str | os.PathLike[str] | None]:
    if given is None:
        return Durations(), None
    if isinstance(given, Durations):
        return given, None
    return (durations_file.load(given) if Path(given).exists() else Durations()), given


def _diagnose(run: RecordedRun, until: float) -> str | None:
    """Imported by whoever has a run that is worth it."""
    from traced_threadpool.analysis.diagnosis.first_finding import first_finding

    return first_finding(run, until)


def _tell_path(run: RunRecord, recording: Recording) -> None:
    run.critical_path = lambda: recording.path


# What is open when the program ends

_assemblies: Final[weakref.WeakSet[Assembly]] = weakref.WeakSet()
_registered: list[bool] = []


def end_runs_at_exit() -> None:
    """Runs that are open when the program ends are ended then, before its telemetry is shut down.

    Called when a run starts: what is registered last is called first, and by then the application's provider is there.
    """
    if not _registered:
        _registered.append(True)
        atexit.register(_at_exit)  # twice, if two threads come here at once, which does no harm


def _at_exit() -> None:
    forks.check()
    for assembly in members(_assemblies):
        assembly.end_runs_at_exit()
