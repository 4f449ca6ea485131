"""Hamilton's lifecycle calls into runs and pieces of work. The only file that knows Hamilton.

Hamilton walks the DAG and calls `do_remote_execute` for each node with its upstream results, our futures, as
arguments. Which run and which node that is, it says only in the keywords of the function that it hands over.
"""

from __future__ import annotations

import contextvars
import operator
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from hamilton import graph_types, lifecycle
from hamilton import node as hamilton_node
from hamilton.lifecycle import base
from opentelemetry import context as otel_context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from prometheus_client import REGISTRY, CollectorRegistry

from traced_threadpool.engine import durations as durations_file
from traced_threadpool.engine.durations import Durations
from traced_threadpool.engine.pool import Pool, PoolSnapshot, default_max_workers
from traced_threadpool.engine.priorities import CRITICAL_PATH, FIFO, Planner, Priority, PriorityName
from traced_threadpool.engine.work import (
    NO_PICKLE,
    NodeFuture,
    Run,
    Work,
    closed_error,
    current_work,
    help_until_done,
)
from traced_threadpool.model import forks
from traced_threadpool.model.observers import ErrorLog, Observer, Observers
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.records import RunRecord, unix_offset_ns
from traced_threadpool.recording.recorder import DEFAULT_RUNS, Recorder, Recording
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics import multiprocess
from traced_threadpool.telemetry.metrics.multiprocess import MultiprocessMetrics, mirror_with
from traced_threadpool.telemetry.metrics.otel import OtelMetrics, instruments_of
from traced_threadpool.telemetry.metrics.prometheus import ledger_of
from traced_threadpool.telemetry.metrics.store import BoundsConflict, Buckets, Counting, Ledger, bounds
from traced_threadpool.telemetry.tracing.large_runs import DEFAULT_LARGE_RUN
from traced_threadpool.telemetry.tracing.observer import Definition, Tracing
from traced_threadpool.waits.meter import CpuMeter, WaitsMeter
from traced_threadpool.waits.supervisor import DEFAULT_BUDGET
from traced_threadpool.waits.supervisor import service as waits

# Looking a member up costs more than the comparison that it is for.
_EXPAND: Final = hamilton_node.NodeType.EXPAND
_COLLECT: Final = hamilton_node.NodeType.COLLECT

_Adapter = TypeVar("_Adapter", bound="FutureAdapter")

MAX_NEW_SOURCES: Final = 500
"""Of how many functions not seen before the sources are read, for the version of a graph."""

PARSES_SAFELY: Final = not ((3, 11) <= sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2))
"""Whether two threads can make syntax trees at once. Before https://github.com/python/cpython/pull/113035 they could
make each other fail with a SystemError, and a node may be the other thread."""

MAX_ANNOUNCED: Final = 4_096
DEFAULT_NODE_LABELS: Final = 1_000


class FutureAdapter(
    base.BaseDoRemoteExecute, lifecycle.ResultBuilder, base.BasePreGraphExecute, base.BasePostGraphExecute
):
    """Runs every node of a Hamilton DAG on threads, traced and measured.

    A drop-in for `hamilton.plugins.h_threadpool.FutureAdapter`: its three arguments may be given by position.
    A node is handed to a worker once all its inputs are there. Each node is an OpenTelemetry span, linked to the
    spans of its upstream nodes; see the documentation for span attributes and metrics.

    Use it as a context manager, or call `close`, to end its threads at a known moment; otherwise they end when
    the adapter is no longer referenced, or when the interpreter exits, after pending nodes.

    Args:
        max_workers: How many node functions run at once. Default: that of `ThreadPoolExecutor`.
        thread_name_prefix: Start of the worker threads' names.
        result_builder: Builds the result of `execute`. Default: a dict of the outputs.
        name: Label `pool` of the metrics and `hamilton.threadpool.name` of the spans. Default:
            `thread_name_prefix`, else `default`. Adapters of one name in one registry add up.
        run_name: Name of the run's span and label `run` of the metrics. Default: `hamilton.run`.
        fail_fast: After the first failure of a run, nothing of it that has not started is started, and `execute`
            raises at once. Default: all nodes that can run do.
        tracing: Whether to make spans.
        tracer_provider: Where spans go. Default: the global provider, whenever the application sets it.
        record_exceptions: Whether spans hold the message and stack trace of a node's exception, which may hold
            private data. Without, its type alone.
        large_run: A run of more nodes has spans for its notable nodes alone: those that raised, that are on the
            critical path, that took longest, in which somebody asked for the current span, and a sample of the others.
            Its span says how many have none; metrics are of all nodes. None: every node of every run has a span.
        metrics: Whether to count for Prometheus.
        registry: Prometheus registry of the metrics. Default: `prometheus_client.REGISTRY`.
        meter_provider: Where the same metrics are pushed to through OpenTelemetry, besides. Default: nowhere; the
            global provider must be named, `opentelemetry.metrics.get_meter_provider()`, since a program that has one
            may well be scraped too, and would count twice.
        max_node_labels: How many different nodes get a value of their own in the label `node`; later ones are
            counted under `_other`. 0 switches the label off.
        node_duration_buckets: Bounds of `hamilton_node_duration_seconds`, in seconds.
        queue_wait_buckets: Bounds of `hamilton_threadpool_queue_wait_seconds`, in seconds.
        run_duration_buckets: Bounds of `hamilton_run_duration_seconds`, in seconds.
        record: Whether to keep the last runs for `recorded_runs`: `True` keeps 10, a number that many.
        attribution: Whether to find out where a node's time goes: the interpreter lock, a processor, the network, a
            disk, a lock, sleep. Without, processor time alone.
        attribution_budget: The share of one processor that this may use, above 0 and at most 1. Of several adapters'
            budgets the least counts.
        priority: Which of the ready nodes of a run goes first when there are more than free workers:
            `"critical_path"`, the one with the longest path ahead, by durations learned from earlier executions or,
            with none yet, by hops; `"fifo"`, the one that has been ready for longest; or a callable, see
            `traced_threadpool.engine.priorities.Priority`. Runs take turns, whichever it is.
        durations: A file that `save_durations` wrote, so that the first run knows how long nodes take; nothing is
            known where there is no such file yet. Or the `durations` of another adapter, to learn together with it.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot work.
        OSError: The file of durations is there and cannot be read.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        result_builder: lifecycle.ResultBuilder | None = None,
        *,
        name: str | None = None,
        run_name: str | None = None,
        fail_fast: bool = False,
        tracing: bool = True,
        tracer_provider: TracerProvider | None = None,
        record_exceptions: bool = True,
        large_run: int | None = DEFAULT_LARGE_RUN,
        metrics: bool = True,
        registry: CollectorRegistry | None = None,
        meter_provider: MeterProvider | None = None,
        max_node_labels: int = DEFAULT_NODE_LABELS,
        node_duration_buckets: Sequence[float] | None = None,
        queue_wait_buckets: Sequence[float] | None = None,
        run_duration_buckets: Sequence[float] | None = None,
        record: bool | int = False,
        attribution: bool = True,
        attribution_budget: float = DEFAULT_BUDGET,
        priority: PriorityName | Priority = CRITICAL_PATH,
        durations: str | os.PathLike[str] | Durations | None = None,
    ) -> None:
        max_workers = _checked_workers(max_workers)
        if not isinstance(thread_name_prefix, str):
            raise TypeError(f"thread_name_prefix must be a string, not {thread_name_prefix!r}")
        if result_builder is not None and not isinstance(result_builder, base.BaseDoBuildResult):
            raise TypeError(
                f"result_builder must be a Hamilton ResultBuilder, such as base.DictResult(), not {result_builder!r}"
            )
        self.result_builder = result_builder
        self.name = _checked_label("name", name) if name is not None else _label_from(thread_name_prefix)
        self.run_name = _checked_label("run_name", run_name) if run_name is not None else names.DEFAULT_RUN_NAME
        self._fail_fast = _checked_bool("fail_fast", fail_fast)
        if tracer_provider is not None and not isinstance(tracer_provider, TracerProvider):
            raise TypeError(
                "tracer_provider must be an opentelemetry.trace.TracerProvider (the SDK's is "
                f"opentelemetry.sdk.trace.TracerProvider()), not {tracer_provider!r}"
            )
        _checked_bool("record_exceptions", record_exceptions)
        self._large_run = None if large_run is None else _checked_count("large_run", large_run)
        self.durations, self._durations_path = _durations_from(durations)
        self._planner = Planner(_checked_priority(priority), self.durations)
        self._learn = None if priority == FIFO and durations is None else self.durations.learn
        buckets = {
            **bounds(names.NODE_DURATION.prometheus, node_duration_buckets),
            **bounds(names.QUEUE_WAIT.prometheus, queue_wait_buckets),
            **bounds(names.RUN_DURATION.prometheus, run_duration_buckets),
        }
        self._errors = ErrorLog()
        observers: list[Observer] = []
        self._tracing: Tracing | None = None
        if _checked_bool("tracing", tracing):
            self._tracing = Tracing(
                tracer_provider=tracer_provider,
                pool_name=self.name,
                max_workers=max_workers,
                record_exceptions=record_exceptions,
                large_run=self._large_run,
                warns=large_run == DEFAULT_LARGE_RUN,
                describe=_describe,
                graph_version=_graph_version,
                errors=self._errors,
            )
            observers.append(self._tracing)
        _checked_count("max_node_labels", max_node_labels)
        labels: dict[str, Any] = {
            "pool_name": self.name,
            "run_name": self.run_name,
            "max_node_labels": max_node_labels,
        }
        ledgers: list[Ledger] = []
        if _checked_bool("metrics", metrics):
            ledger = self._ledger_of(REGISTRY if registry is None else registry, buckets)
            if ledger is not None:
                ledgers.append(ledger)
                observers.append(Counting(ledger, **labels))
        self._otel_metrics = None if meter_provider is None else self._otel_metrics_of(meter_provider, buckets, labels)
        self._multiprocess = self._multiprocess_of(buckets, labels) if metrics and multiprocess.is_on() else None
        for more in (self._otel_metrics, self._multiprocess):
            if more is not None:
                ledgers.append(more.ledger)
                observers.append(more)
        for ledger in ledgers:
            self._errors.listen(ledger.count_error)
        _checked_share("attribution_budget", attribution_budget)
        meter = CpuMeter()
        self._keeps = _checked_count(
            "record", DEFAULT_RUNS if record is True else int(record) if record is False else record
        )
        observed = bool(observers) or self._keeps > 0
        self._measures_waits = _checked_bool("attribution", attribution) and observed
        if self._measures_waits:
            meter = WaitsMeter(waits, self._errors)
            observers.insert(0, meter)
            waits.join(self, attribution_budget)
            for ledger in ledgers:
                ledger.show_waits(waits)
        self._recorder = Recorder(pool_name=self.name, max_workers=max_workers, keep=self._keeps, on_end=_tell_path)
        if observed:
            observers.append(self._recorder)  # the last observer hears first of a run's end: the others want its path
        self._pool = Pool(max_workers, thread_name_prefix, Observers(observers, self._errors), meter)
        self._source = _GaugeSource(self.name, self.run_name, self._pool)
        for ledger in ledgers:
            ledger.add_source(self._source)
        self._forget_runs()
        forks.register(self._forget_runs)

    def _forget_runs(self) -> None:
        self._runs: dict[str, Run] = {}  # those that have started
        # Those that may never start, the oldest first. Threads that meet in an `OrderedDict` can corrupt it, see
        # `free_threading`.
        self._announced: dict[str, Run] = {}
        self._latest: dict[int, Run] = {}  # by thread of the caller

    def _ledger_of(self, registry: CollectorRegistry, buckets: Buckets) -> Ledger | None:
        if not isinstance(registry, CollectorRegistry):
            raise TypeError(
                f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}; for no metrics at all "
                "give metrics=False"
            )
        try:
            return ledger_of(registry, buckets)
        except BoundsConflict:
            raise
        except Exception as error:  # a registry that refuses costs the metrics, not the job
            self._errors.record("metrics", error)
            return None

    def _otel_metrics_of(
        self, meter_provider: MeterProvider, buckets: Buckets, labels: dict[str, Any]
    ) -> OtelMetrics | None:
        if not isinstance(meter_provider, MeterProvider):
            raise TypeError(
                "meter_provider must be an opentelemetry.metrics.MeterProvider (the SDK's is "
                f"opentelemetry.sdk.metrics.MeterProvider(metric_readers=[...])), not {meter_provider!r}"
            )
        try:
            return OtelMetrics(instruments_of(meter_provider, buckets), errors=self._errors, **labels)
        except BoundsConflict:
            raise
        except Exception as error:  # as above
            self._errors.record(OtelMetrics.component, error)
            return None

    def _multiprocess_of(self, buckets: Buckets, labels: dict[str, Any]) -> MultiprocessMetrics | None:
        try:
            return MultiprocessMetrics(mirror_with(buckets), errors=self._errors, **labels)
        except BoundsConflict:
            raise
        except Exception as error:  # a directory that is not there costs the metrics, not the job
            self._errors.record(MultiprocessMetrics.component, error)
            return None

    # Documented API

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The executor whose threads run the nodes. Work submitted to it directly shares these threads."""
        return self._pool.executor

    def input_types(self) -> list[type[type]]:
        """The types that this result builder takes: any, also when a builder is wrapped."""
        return [Any]  # type: ignore[list-item]  # as Hamilton: its annotation does not admit its own value

    def output_type(self) -> type:
        """The type of the result: the wrapped builder's, else any."""
        if self.result_builder is not None:
            output_type: type = self.result_builder.output_type()
            return output_type
        return Any

    def do_remote_execute(
        self,
        *,
        execute_lifecycle_for_node: Callable[..., Any],
        node: hamilton_node.Node | None,
        **kwargs: Any,
    ) -> Any:
        """Submits a node; Hamilton calls this for each one, in topological order.

        Args:
            execute_lifecycle_for_node: Runs the node's function and the hooks of other adapters around it.
            node: The node, or None.
            **kwargs: The node's arguments. Futures among them are resolved before the function is called.

        Returns:
            The node's future, at once. For a node that is split into branches (`Parallelizable`), of which
            Hamilton needs the very list, its result.

        Raises:
            RuntimeError: The adapter is closed, or no thread could be started.
        """
        keywords = getattr(execute_lifecycle_for_node, "keywords", None) or {}
        run_id = keywords.get("__run_id")
        run = self._runs.get(run_id)  # type: ignore[arg-type]  # None is no run's id
        if run is None:
            run = self._start(run_id) or self._pool.unbound
        if run.record is None or run.caller_thread_id == threading.get_ident():
            context = contextvars.copy_context()
        else:  # a thread of one of Hamilton's executors, which does not have the caller's context
            context = run.caller_context.copy()
        if node is None:
            node = keywords.get("__node_")
        role = None if node is None else node.node_role
        collected = node.collect_dependency if node is not None and role is _COLLECT else None
        work = Work(
            _function_name(execute_lifecycle_for_node) if node is None else node.name,
            execute_lifecycle_for_node,
            kwargs,
            run,
            self._pool,
            context,
            run_id,
            keywords.get("__task_id"),
            node,
            collected,
        )
        future = self._pool.submit(work)
        if role is _EXPAND:
            run.expanded[work.name] = work
            return future.result()
        return future

    def build_result(self, **outputs: Any) -> Any:
        """Blocks until every future among the outputs is resolved.

        Args:
            **outputs: The outputs of the graph, some of them futures.

        Returns:
            What the wrapped builder makes of the values, else the values by name, in the order given.

        Raises:
            Exception: That of the first output, in the order given, whose node or upstream failed; with
                `fail_fast` that of the first node that failed, while others may still run.
        """
        futures = [value for value in outputs.values() if isinstance(value, Future)]
        try:
            if self._fail_fast:
                _wait_for_all_or_failure(futures)
            for name, value in outputs.items():
                if isinstance(value, Future):
                    help_until_done(value)
                    outputs[name] = value.result()
        except Exception:
            raise
        except BaseException as error:  # Ctrl-C, unless it is a node's own
            if not any(future.done() and _error_of(future) is error for future in futures):
                self._cancel_runs_of(futures)
            raise
        if self.result_builder is not None:
            return self.result_builder.build_result(**outputs)
        return outputs

    # Runs

    def pre_graph_execute(
        self,
        *,
        run_id: str,
        graph: Any,
        final_vars: list[str],
        inputs: dict[str, Any] | None,
        overrides: dict[str, Any] | None,
    ) -> None:
        """Hamilton is about to execute a graph. The run starts with its first node: it may never come to that."""
        forks.check()
        parent = current_work.get()
        if self._pool.closed and parent is None:
            raise closed_error()
        record = RunRecord(
            run_id,
            self.run_name,
            output_names=tuple(final_vars),
            input_names=tuple(inputs or ()),
            override_names=tuple(overrides or ()),
            graph=graph,
            started_ns=time.monotonic_ns(),
            unix_offset_ns=parent.run.unix_offset_ns if parent is not None and parent.run else unix_offset_ns(),
        )
        record.telemetry = otel_context.get_current()
        run = Run(record, parent=parent, fail_fast=self._fail_fast, outer_error=sys.exc_info()[1])
        run.learn = self._learn
        self._set_priorities(run, graph, final_vars, overrides)
        self._leave_behind(self._latest.get(run.caller_thread_id), run)
        self._latest[run.caller_thread_id] = run
        self._announced[run_id] = run
        if len(self._announced) > MAX_ANNOUNCED:
            for oldest in list(self._announced)[:-MAX_ANNOUNCED]:
                self._announced.pop(oldest, None)

    def post_graph_execute(
        self, *, run_id: str, graph: Any, success: bool, error: Exception | None, results: Any
    ) -> None:
        """Hamilton has left the graph. The run ends when its last node has."""
        run = self._runs.get(run_id) or self._start(run_id)
        if run is None:
            return
        self._runs.pop(run_id, None)
        if self._latest.get(run.caller_thread_id) is run:
            del self._latest[run.caller_thread_id]
        record = run.record
        assert record is not None
        if not success:
            record.error = error
        interrupt = sys.exc_info()[1]
        if (
            interrupt is not None
            and not isinstance(interrupt, Exception)
            and interrupt is not run.outer_error
            and (run.failure is None or run.failure.error is not interrupt)
        ):
            self._pool.cancel_run(run)
        traced = record.telemetry is not None
        self._pool.close_run(run)
        if run.parent is None:
            if traced and self._tracing is not None:
                self._tracing.flush()
            for pushed in (self._otel_metrics, self._multiprocess):
                if pushed is not None:
                    pushed.flush()

    def _set_priorities(self, run: Run, graph: Any, final_vars: list[str], overrides: dict[str, Any] | None) -> None:
        wanted = (tuple(final_vars), frozenset(overrides or ()))
        try:
            ranks = self._planner.ranks(graph, wanted, partial(_upstream, graph, *wanted))
        except Exception as error:  # costs the order, and no node
            self._errors.record("priority", error)
            return
        assert run.record is not None
        run.ranks, run.record.priority, learns, count = ranks
        if self._tracing is not None and self._large_run is not None and len(graph.nodes) > self._large_run:
            run.record.planned = len(_upstream(graph, *wanted)) if count is None else count
        if not learns:
            run.learn = None

    def _start(self, run_id: str | None) -> Run | None:
        """The run of this id, started if it was only announced. None when it is unknown."""
        if run_id is None:
            return None
        run = self._announced.get(run_id)
        if run is None:
            return self._runs.get(run_id)  # another thread may have started it just now
        self._pool.open_run(run)
        self._runs[run_id] = run
        self._announced.pop(run_id, None)
        return run

    def _leave_behind(self, stale: Run | None, run: Run) -> None:
        """Ends a run whose `post_graph_execute` never came, because another adapter's hook raised before ours.

        It is one that the same caller started before, at the same depth, and that is still open. If it goes on
        after all (a hook of its own executes a driver), its next node finds it again.
        """
        if stale is None or stale.record is None or not stale.opened or stale.parent is not run.parent:
            return
        if self._runs.pop(stale.record.id, None) is not None:
            self._announced[stale.record.id] = stale
            self._pool.close_run(stale)

    def _cancel_runs_of(self, futures: list[Future[Any]]) -> None:
        for future in futures:
            if isinstance(future, NodeFuture):
                run = future.work.queue
                if run.record is None:
                    future.cancel()
                else:
                    future.work.pool.cancel_run(run)

    # Closing and looking

    def close(self, *, cancel_pending: bool = False) -> None:
        """Ends the adapter: no new runs, pending nodes done, threads gone, telemetry handed over.

        May be called again. Spans that the SDK itself holds back (its batch processor) are the application's to
        flush.

        Args:
            cancel_pending: Cancel the nodes that have not started, instead of running them.

        Raises:
            RuntimeError: Called from a node that runs in this adapter.
        """
        self._pool.close(cancel_pending=_checked_bool("cancel_pending", cancel_pending))
        if self._tracing is not None:
            self._tracing.flush()
        if self._otel_metrics is not None:
            self._otel_metrics.flush()
        if self._measures_waits:
            waits.leave(self)
        self._source.closed = True
        if self._multiprocess is not None:
            self._multiprocess.close()

    def __enter__(self: _Adapter) -> _Adapter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def save_durations(self, path: str | os.PathLike[str] | None = None) -> None:
        """Writes what has been learned of nodes' durations, names and seconds, for the next process.

        Whoever reads the file meanwhile sees the old one or the new one, whole.

        Args:
            path: Where to; by default the file that the adapter was made with.

        Raises:
            ValueError: There is no such file.
            OSError: It cannot be written.
        """
        if path is None:
            path = self._durations_path
        if path is None:
            raise ValueError("where to? give save_durations() a path, or make the adapter with durations=path")
        durations_file.save(self.durations, path)

    def snapshot(self) -> PoolSnapshot:
        """The pool at this moment: what the gauges show."""
        return self._pool.snapshot()

    @property
    def recorded_runs(self) -> list[RecordedRun]:
        """The last runs that have ended, the latest last, for `traced_threadpool.analysis`; see the argument `record`.

        Raises:
            RuntimeError: This adapter does not record.
        """
        if not self._keeps:
            raise RuntimeError("this adapter records no runs; make it with FutureAdapter(..., record=True)")
        return self._recorder.runs

    @property
    def telemetry_errors(self) -> dict[str, int]:
        """Failures inside telemetry so far, by component, as in `hamilton_telemetry_errors_total`."""
        return self._errors.counts

    def __repr__(self) -> str:
        state = ", closed" if self._pool.closed else ""
        return f"<{type(self).__name__} {self.name!r}, {self._pool.max_workers} workers{state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(NO_PICKLE)


class _GaugeSource:
    """What the gauges read. Belongs to the adapter, and goes with it."""

    def __init__(self, pool_name: str, run_name: str, pool: Pool) -> None:
        self.pool_name = pool_name
        self.run_name = run_name
        self.closed = False
        self._pool = pool

    def snapshot(self) -> PoolSnapshot:
        return self._pool.snapshot()


def _upstream(graph: Any, wanted: Collection[str], overrides: Collection[str]) -> dict[str, tuple[str, ...]]:
    """For each node that an execution will run, those of its inputs that it will run too; in Hamilton's order."""

    def inputs(node: hamilton_node.Node) -> list[hamilton_node.Node]:
        return [each for each in node.dependencies if not each.user_defined and each.name not in overrides]

    found: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    path: list[tuple[hamilton_node.Node, list[hamilton_node.Node], Iterator[hamilton_node.Node]]] = []

    def visit(node: hamilton_node.Node) -> None:
        seen.add(node.name)
        needed = inputs(node)
        path.append((node, needed, iter(needed)))

    for name in wanted:
        first = graph.nodes.get(name)
        if first is None or first.user_defined or name in overrides or name in seen:
            continue
        visit(first)
        while path:
            node, needed, left = path[-1]
            following = next((each for each in left if each.name not in seen), None)
            if following is not None:
                visit(following)
            else:
                path.pop()
                found[node.name] = tuple(each.name for each in needed)
    return found


def _durations_from(
    given: str | os.PathLike[str] | Durations | None,
) -> tuple[Durations, str | os.PathLike[str] | None]:
    if given is None:
        return Durations(), None
    if isinstance(given, Durations):
        return given, None
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"durations must be a path or another adapter's `durations`, not {given!r}")
    return (durations_file.load(given) if Path(given).exists() else Durations()), given


def _checked_priority(value: Any) -> PriorityName | Priority:
    if value in (CRITICAL_PATH, FIFO) or callable(value):
        return value  # type: ignore[no-any-return]
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(f"priority must be 'critical_path', 'fifo' or a callable, not {value!r}")


def _tell_path(run: RunRecord, recording: Recording) -> None:
    run.critical_path = lambda: recording.path


def _wait_for_all_or_failure(futures: list[Future[Any]]) -> None:
    """Returns when all are done; raises the first failure of their run as soon as there is one."""
    gate: Future[None] = Future()
    lock = threading.Lock()
    left = len(futures)

    def one_done(future: Future[Any]) -> None:
        nonlocal left
        failed = _error_of(future) is not None
        with lock:
            left -= 1
            open_now = (failed or not left) and not gate.done()
            if open_now:
                gate.set_result(None)

    for future in futures:
        future.add_done_callback(one_done)
    if not futures:
        return
    help_until_done(gate)
    gate.result()
    for future in futures:
        if isinstance(future, NodeFuture):
            failure = future.work.queue.failure
            if failure is not None and failure.error is not None:
                raise failure.error


def _error_of(future: Future[Any]) -> BaseException | None:
    """The exception of a future that is done."""
    try:
        return future.exception()
    except BaseException as error:  # CancelledError
        return error


def _describe(node: Any) -> Definition:
    functions = node.originating_functions
    return Definition(tags=node.tags, function=functions[0] if functions else None)


_graph_versions: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()
_function_versions: weakref.WeakKeyDictionary[Callable[..., Any], str | None] = weakref.WeakKeyDictionary()


def _graph_version(graph: Any) -> str | None:
    """Hamilton's version of a graph, a hash over the sources of its functions; None for one of very many.

    None, too, where working it out could break a node (`PARSES_SAFELY`). Reading and parsing a function's source takes
    half a millisecond, so it is done once for each function.
    """
    try:
        return _graph_versions[graph]
    except KeyError:
        pass
    if not PARSES_SAFELY:
        return None
    described = graph_types.HamiltonGraph.from_graph(graph)
    known = _function_versions
    first = {id(node): node.originating_functions[0] for node in described.nodes if node.originating_functions}
    version: str | None = None
    if len({function for function in first.values() if function not in known}) <= MAX_NEW_SOURCES:
        for node in described.nodes:
            function = first.get(id(node))
            if function is None:
                continue
            if function in known:
                vars(node)["version"] = known[function]  # where `cached_property` keeps what it has worked out
            else:
                known[function] = node.version
        version = str(described.version)
    _graph_versions[graph] = version
    return version


def _function_name(function: Callable[..., Any]) -> str:
    function = getattr(function, "func", function)
    return getattr(function, "__name__", type(function).__name__)


def _checked_workers(value: Any) -> int:
    if value is None:
        return default_max_workers()
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"max_workers must be a whole number of threads, or None for ThreadPoolExecutor's default, not {value!r}"
        ) from None
    if number <= 0:
        raise ValueError(f"max_workers must be greater than 0, not {number}")
    return number


def _checked_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return value


def _checked_share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a share of one processor, such as 0.01, not {value!r}")
    if not 0 < value <= 1:
        hint = "; for no attribution at all give attribution=False" if value == 0 else ""
        raise ValueError(f"{name} must be above 0 and at most 1, such as 0.01, not {value!r}{hint}")
    return value


def _checked_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _checked_label(name: str, value: Any) -> str:
    """A name that can be a label value, be read in a legend and be typed into a query."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    if not value.strip() or not value.isprintable():
        raise ValueError(
            f"{name} must be a line of printable text, such as 'etl', not {value!r}: it is a label of metrics"
        )
    return value


def _label_from(prefix: str) -> str:
    """The pool's name from a prefix that the documented API lets be any string."""
    label = "".join(character if character.isprintable() else "_" for character in prefix).strip()
    return label or "default"
