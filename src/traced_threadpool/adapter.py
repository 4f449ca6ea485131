"""Hamilton's calls into runs and pieces of work.

Hamilton walks the DAG and calls `do_remote_execute` for each node with its upstream results, our futures, as
arguments. Which run and which node that is, it says only in the keywords of the function that it hands over.
"""

# Longer than 450 lines: the documented API, a third of it docstrings that `help()` shows.

from __future__ import annotations

import contextvars
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, Final, TypeVar

from hamilton import lifecycle
from hamilton import node as hamilton_node
from hamilton.lifecycle import base

# For whoever asks for the constructor's type hints, too, as frameworks that make objects from settings do.
from opentelemetry.metrics import MeterProvider  # noqa: TC002  # see above
from opentelemetry.trace import TracerProvider  # noqa: TC002  # likewise
from prometheus_client import CollectorRegistry  # noqa: TC002  # likewise

from traced_threadpool import hamilton_graph, options
from traced_threadpool.assembly import Assembly, assemble
from traced_threadpool.delegation import place
from traced_threadpool.engine import durations as durations_file
from traced_threadpool.engine.auto_placement import Decision
from traced_threadpool.engine.backends.base import Backend
from traced_threadpool.engine.durations import Durations
from traced_threadpool.engine.executor import PoolExecutor
from traced_threadpool.engine.outputs import wait_for_outputs
from traced_threadpool.engine.pool import Pool
from traced_threadpool.engine.pool_snapshot import PoolSnapshot
from traced_threadpool.engine.priorities import CRITICAL_PATH, Priority, PriorityName
from traced_threadpool.engine.work import Work
from traced_threadpool.hamilton_hooks import RunHooks, listen
from traced_threadpool.live.progress import Progress
from traced_threadpool.live.records import LivePool
from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.options import Attribution, Metrics, Tracing
from traced_threadpool.placement import RunOn

# Looking a member up costs more than the comparison that it is for.
_EXPAND: Final = hamilton_node.NodeType.EXPAND
_COLLECT: Final = hamilton_node.NodeType.COLLECT

Self = TypeVar("Self", bound="FutureAdapter")  # its name is what `help()` shows


class FutureAdapter(base.BaseDoRemoteExecute, lifecycle.ResultBuilder, base.BaseValidateGraph):
    """Runs every node of a Hamilton DAG on threads, traced and measured.

    A drop-in for `hamilton.plugins.h_threadpool.FutureAdapter`: its three arguments may be given by position.
    A node is handed to a worker once all its inputs are there. Each node is an OpenTelemetry span, linked to the
    spans of its upstream nodes; see the documentation for span attributes and metrics.

    Use it as a context manager, or call `close`, to end its threads at a known moment; otherwise they end when
    the adapter is no longer referenced, or when the interpreter exits, after pending nodes.

    Args:
        max_workers: How many node functions run at once. Default: that of `ThreadPoolExecutor`.
        thread_name_prefix: Start of the worker threads' names. Default: `name`, else `ThreadPoolExecutor`'s.
        result_builder: Builds the result of `execute`. Default: a dict of the outputs.
        name: Label `pool` of the metrics and `hamilton.threadpool.name` of the spans. Default:
            `thread_name_prefix`, else `default`. Adapters of one name in one registry add up.
        run_name: Name of the run's span and label `run` of the metrics. Default: `hamilton.run`.
        fail_fast: After the first failure of a run, nothing of it that has not started is started, and `execute`
            raises at once. Default: all nodes that can run do.
        tracing: Whether to make spans, and how: `Tracing(...)`.
        metrics: Whether to count for Prometheus, and how: `Metrics(...)`.
        attribution: Whether to find out where a node's time goes, and how: `Attribution(...)`. Without, CPU time alone.
        tracer_provider: Where spans go. Default: the global provider, whenever the application sets it.
        meter_provider: Where the same metrics are pushed to through OpenTelemetry, besides. Default: nowhere; the
            global provider must be named, `opentelemetry.metrics.get_meter_provider()`, since a program that has one
            may well be scraped too, and would count twice.
        registry: Prometheus registry of the metrics. Default: `prometheus_client.REGISTRY`.
        record: Whether to keep the last runs for `recorded_runs`: `True` keeps 10, a number that many.
        priority: Which of the ready nodes of a run goes first when there are more than free workers:
            `"critical_path"`, the one with the longest path ahead, by durations learned from earlier executions or,
            with none yet, by hops; `"fifo"`, the one that has been ready for longest; or a callable, see
            `traced_threadpool.engine.priorities.Priority`. With one worker the first two are Hamilton's own order.
            Runs take turns, whichever it is.
        durations: A file that `save_durations` wrote, so that the first run knows how long nodes take; nothing is
            known where there is no such file yet. Or the `durations` of another adapter, to learn together with it.
        backends: Where nodes can run besides this adapter's threads, by name, such as `{"cpu": Processes(4)}`; see
            [backends.md](backends.md).
        run_on: Which nodes run there: the name of a backend for all of them, a mapping of nodes or functions to names,
            or a callable that gives the name for a node of Hamilton's, or None. It goes before the decorator `@run_on`.
            The name of the adapter's own threads is `"threads"`. `"auto"`: those nodes go to the worker processes of
            `backends` of which runs have shown that they gain.
        stall_after: After how many seconds a running node counts as stalled, which is told once: in the log with its
            stack, and on its span. Default: five times its learned 95th percentile, at least 30 s.
        live: Whether `live()`, the page `/live` and `/live.json` show this adapter's runs.
        progress: Whether to show runs in progress: a bar on a terminal or in a notebook, else lines in the log.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot work.
        OSError: The file of durations is there and cannot be read.
    """

    result_builder: Any = None
    _executor_is_hidden = False
    """Whether a subclass has an `executor` of its own, as a class attribute or property."""

    @explains_keywords("FutureAdapter")
    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        result_builder: lifecycle.ResultBuilder | None = None,
        *,
        name: str | None = None,
        run_name: str | None = None,
        fail_fast: bool = False,
        tracing: bool | Tracing = True,
        metrics: bool | Metrics = True,
        attribution: bool | Attribution = True,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        registry: CollectorRegistry | None = None,
        record: bool | int = False,
        priority: PriorityName | Priority = CRITICAL_PATH,
        durations: str | os.PathLike[str] | Durations | None = None,
        backends: Mapping[str, Backend] | None = None,
        run_on: RunOn | None = None,
        stall_after: float | None = None,
        live: bool = True,
        progress: bool = False,
    ) -> None:
        told = options.checked(
            max_workers=max_workers,
            thread_name_prefix=thread_name_prefix,
            name=name,
            run_name=run_name,
            fail_fast=fail_fast,
            tracing=tracing,
            metrics=metrics,
            attribution=attribution,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            registry=registry,
            record=record,
            priority=priority,
            durations=durations,
            backends=backends,
            run_on=run_on,
            stall_after=stall_after,
            live=live,
            progress=progress,
        )
        builder = options.checked_builder(result_builder)
        self._assembly = assembly = assemble(told)
        self._pool = assembly.pool
        self._run_hooks = RunHooks(assembly)
        self.result_builder = builder
        if self._executor_is_hidden:
            self.executor = self._pool.executor  # an attribute of the object, as those of Hamilton's adapter are

    @lazy
    def _assembly(self) -> Assembly:
        """For a subclass that does not call our initializer, as those of Hamilton's adapter need not."""
        return assemble(options.checked())

    @lazy
    def _pool(self) -> Pool:
        return self._assembly.pool

    @lazy
    def _run_hooks(self) -> RunHooks:
        return RunHooks(self._assembly)

    def __init_subclass__(cls, **arguments: Any) -> None:
        """For each subclass: where a base's validator stands before this class and hides its own, both are called."""
        super().__init_subclass__(**arguments)
        cls._executor_is_hidden = inspect.getattr_static(cls, "executor") is not vars(FutureAdapter)["executor"]
        hiding = cls.validate_graph
        if getattr(hiding, "_listens", False):
            return

        def validate_graph(self: FutureAdapter, **keywords: Any) -> Any:
            listen(keywords["graph"].adapter, self, self._run_hooks)
            return hiding(self, **keywords)

        validate_graph._listens = True  # type: ignore[attr-defined]  # a function takes any
        cls.validate_graph = validate_graph  # type: ignore[method-assign]  # on purpose

    # Documented API

    @property
    def executor(self) -> Executor:
        """The executor whose threads run the nodes. Work submitted to it directly shares these threads.

        It may be replaced: nodes that start later run on the new one, as many at once as it has workers. It is handed
        one call for each worker, which takes nodes as they become ready, not one for each node. Such an executor is
        the program's own to shut down.
        """
        return self._pool.executor

    @executor.setter
    def executor(self, executor: Executor) -> None:
        self._assembly.use_executor(options.checked_executor(executor))

    @executor.deleter
    def executor(self) -> None:
        """A new one of the adapter's own takes its place. `unittest.mock.patch.object` deletes what it has put here."""
        told = self._assembly.options
        self._assembly.use_executor(PoolExecutor(self._pool, told.max_workers, told.thread_name_prefix))

    def _follow_hidden_executor(self) -> None:
        pool = self._pool
        executor: Any = self.executor
        if executor is None or executor is pool.executor:
            return
        if not (isinstance(executor, PoolExecutor) and executor.is_of(pool)):  # that would be from before a fork
            self._assembly.use_executor(options.checked_executor(executor))

    @property
    def name(self) -> str:
        """The label `pool` of the metrics."""
        return self._assembly.options.name

    @property
    def run_name(self) -> str:
        """The label `run` of the metrics."""
        return self._assembly.options.run_name

    @property
    def durations(self) -> Durations:
        """What has been learned of how long nodes take."""
        return self._assembly.durations

    def input_types(self) -> list[type[type]]:
        """The types that this result builder takes: any, also when a builder is wrapped."""
        return [Any]  # type: ignore[list-item]  # as Hamilton: its annotation does not admit its own value

    def output_type(self) -> type:
        """The type of the result: the wrapped builder's, else any."""
        if self.result_builder and _is_callable_without_arguments(self.result_builder, "output_type"):
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
        if not isinstance(node, hamilton_node.Node):
            node = keywords.get("__node_")
        if self._executor_is_hidden:
            self._follow_hidden_executor()
        assembly = self._assembly
        pool, runs = assembly.pool, assembly.runs
        run = runs.started.get(run_id)  # type: ignore[arg-type]  # None is no run's id
        if run is None:
            if run_id is None and node is not None:  # a subclass has put a function of its own around Hamilton's
                run_id = runs.innermost_id()
            run = runs.start(run_id) or pool.unbound
        if run.record is None or run.caller_thread_id == threading.get_ident():
            context = contextvars.copy_context()
        else:  # a thread of one of Hamilton's executors, which does not have the caller's context
            context = run.caller_context.copy()
        role = None if node is None else node.node_role
        collected = node.collect_dependency if node is not None and role is _COLLECT else None
        work = Work(
            hamilton_graph.function_name(execute_lifecycle_for_node) if node is None else node.name,
            execute_lifecycle_for_node,
            kwargs,
            run,
            pool,
            context,
            run_id,
            keywords.get("__task_id"),
            node,
            collected,
        )
        if run.placement and node is not None:
            then = place(work, execute_lifecycle_for_node, node, assembly.backends, assembly.auto)
            future = pool.submit(work)
            if then is not None:
                then()
        else:
            future = pool.submit(work)
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
        futures = {name: value for name, value in outputs.items() if isinstance(value, Future)}
        wait_for_outputs(list(futures.values()), fail_fast=self._assembly.options.fail_fast)
        for name, future in futures.items():
            outputs[name] = future.result()
        if self.result_builder:
            return self.result_builder.build_result(**outputs)
        return outputs

    def validate_graph(self, *, graph: Any, modules: Any, config: Any) -> tuple[bool, Any]:
        """Hamilton has made a driver's graph. From now on the adapter hears of the driver's runs."""
        listen(graph.adapter, self, self._run_hooks)
        following: Any = super()
        return following.validate_graph(graph=graph, modules=modules, config=config) or (True, None)

    validate_graph._listens = True  # type: ignore[attr-defined]  # a function takes any

    # Closing and looking

    @explains_keywords("FutureAdapter.close")
    def close(self, *, cancel_pending: bool = False) -> None:
        """Ends the adapter: no new runs, pending nodes done, threads gone, telemetry handed over.

        May be called again. Spans that the SDK itself holds back (its batch span processor) are the application's to
        flush.

        Args:
            cancel_pending: Cancel the nodes that have not started, instead of running them.

        Raises:
            RuntimeError: Called from a node that runs in this adapter.
        """
        self._assembly.close(cancel_pending=options.checked_bool("cancel_pending", cancel_pending))

    def __enter__(self: Self) -> Self:
        """The adapter itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Closes the adapter: pending nodes are done."""
        self.close()

    @explains_keywords("FutureAdapter.save_durations")
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
            path = self._assembly.durations_path
        if path is None:
            raise ValueError("where to? give save_durations() a path, or make the adapter with durations=path")
        durations_file.save(self.durations, path)

    def snapshot(self) -> PoolSnapshot:
        """The pool at this moment: what the gauges show."""
        return self._assembly.snapshot()

    @explains_keywords("FutureAdapter.live")
    def live(self, *, stacks: bool = False, graph: bool = False) -> LivePool:
        """What the runs in progress do at this moment, and when they will be over.

        Names, states and lines of code, never values. Costs nothing while nobody asks.

        Args:
            stacks: Add the Python stack of each running node.
            graph: Add all nodes of each run with their states, for a picture.

        Returns:
            A frozen record; see `traced_threadpool.live.records`.

        Raises:
            RuntimeError: This adapter was made with `live=False`.
        """
        view = self._assembly.live_view
        if view is None:
            raise RuntimeError("this adapter was made with live=False; leave that out to see its runs")
        return view.live(stacks=stacks, graph=graph)

    def progress(self) -> Progress:
        """Shows the runs in progress while a `with` block runs: a bar on a terminal or in a notebook, else log lines.

        The bar needs `rich`, which the extra [report] installs; without it, or without a terminal, a line is logged
        every ten seconds at level INFO.

        Raises:
            RuntimeError: This adapter was made with `live=False`.
        """
        if self._assembly.live_view is None:
            raise RuntimeError("this adapter was made with live=False; leave that out to see its runs")
        return Progress(self._assembly.live_now)

    def placement(self) -> dict[str, Decision]:
        """Where `run_on="auto"` has nodes run, and why, by the node's name: those that have run for 5 ms and more.

        Raises:
            RuntimeError: This adapter decides nothing by itself.
        """
        auto = self._assembly.auto
        if auto is None:
            raise RuntimeError('this adapter places no nodes by itself; make it with FutureAdapter(..., run_on="auto")')
        return auto.decisions

    @property
    def recorded_runs(self) -> list[RecordedRun]:
        """The last runs that have ended, the latest last, for `traced_threadpool.analysis`; see the argument `record`.

        Raises:
            RuntimeError: This adapter does not record.
        """
        if not self._assembly.options.record:
            raise _NotRecordingError("this adapter records no runs; make it with FutureAdapter(..., record=True)")
        return self._assembly.recorder.runs

    @property
    def telemetry_errors(self) -> dict[str, int]:
        """Failures inside telemetry so far, by component, as in `hamilton_telemetry_errors_total`."""
        return self._assembly.errors.counts

    def __repr__(self) -> str:
        """Its name, how many workers it may have, and whether it is closed."""
        state = ", closed" if self._pool.closed else ""
        return f"<{type(self).__name__} {self.name!r}, {self._pool.max_workers} workers{state}>"


def adapter_of(assembly: Assembly) -> FutureAdapter:
    """An adapter of parts that were put together elsewhere, see `traced_threadpool.assembly`."""
    adapter = FutureAdapter.__new__(FutureAdapter)
    adapter.__dict__["_assembly"] = assembly
    return adapter


class _NotRecordingError(RuntimeError, AttributeError):
    """Of no concern to those who go through all attributes: `inspect.getmembers`, `unittest.mock`, debuggers."""


def _is_callable_without_arguments(of: Any, name: str) -> bool:
    """Whether `of.name()` can be called."""
    if isinstance(of, type):  # whose methods want an object
        return isinstance(inspect.getattr_static(of, name, None), (staticmethod, classmethod))
    return callable(getattr(of, name, None))
