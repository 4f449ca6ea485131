"""A name into something that runs a DAG on threads: ours in several settings, and what it is compared with.

Every peer runs the same functions, on as many workers, and returns the value of the DAG's last node. What can be
prepared before is: drivers are built, tasks are wrapped, threads are started by the warm-up.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from graphlib import TopologicalSorter
from queue import SimpleQueue
from typing import Any, Protocol

from hamilton import driver, lifecycle
from hamilton.graph_types import HamiltonGraph
from hamilton.lifecycle import base
from hamilton.plugins import h_threadpool
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link, SpanContext, set_span_in_context
from prometheus_client import CollectorRegistry

from benchmarks.dags import Dag
from benchmarks.spans import SpanSink
from traced_threadpool import FutureAdapter, Tracing

UNTRACED = "ours, untraced"
DEFAULT = "ours, default"
TRACED = "ours, traced"
TRACED_WHOLE = "ours, traced, a span for each node"
HAMILTON = "Hamilton's adapter"
HAMILTON_TRACED = "Hamilton's + its tracer"
HAMILTON_TRACED_HASHED = "Hamilton's + its tracer, hashed before"
NO_ADAPTER = "Hamilton, no adapter"
NO_THREADS = "Hamilton, the least adapter"
DASK = "dask.threaded"
GRAPHLIB = "graphlib + executor"
DISTRIBUTED = "distributed, in threads"
JOBLIB = "joblib, in threads"
PREFECT = "Prefect, in threads"
FLOOR = "SDK floor"
FLOOR_AS_OURS = "SDK floor, spans as ours"

TRACING_NO_SDK = "ours, tracing, no SDK"
TRACING_UNSAMPLED = "ours, tracing, unsampled"
TRACING_SAMPLED = "ours, tracing, sampled"
METRICS = "ours, metrics"
METRICS_UNSAMPLED = "ours, metrics, tracing unsampled"
METRICS_PUSHED = "ours, metrics, pushed besides"

Run = Callable[[], int]


class Peer(Protocol):
    """One way to run a DAG."""

    def prepare(self, dag: Dag) -> Run:
        """Everything that is done once a DAG; the call that is left runs it and returns the last node's value."""

    def drain(self) -> None:
        """Waits for what a run left to be done in the background."""

    def close(self) -> None:
        """Ends the threads."""


class HamiltonPeer:
    """A real driver, with these adapters.

    Args:
        adapters: What `Builder.with_adapters` takes.
        sink: Where spans go, when a run makes one for each node and one for itself.
        large_run: Of runs with more nodes nobody knows how many spans they make.
        close: Ends the adapters' threads.
    """

    def __init__(
        self,
        *adapters: Any,
        sink: SpanSink | None = None,
        large_run: int | None = None,
        close: Callable[[], object],
    ) -> None:
        self._adapters = adapters
        self._sink = sink
        self._large_run = large_run
        self._close = close

    def prepare(self, dag: Dag) -> Run:
        builder = driver.Builder()
        built = builder.with_modules(dag.module).with_adapters(*self._adapters).build()
        end, span_count = dag.end, len(dag) + 1
        is_known = self._large_run is None or len(dag) <= self._large_run

        def run() -> int:
            if self._sink is not None and is_known:
                self._sink.expect(span_count)
            value: int = built.execute([end])[end]
            if self._sink is not None and not is_known:
                self._sink.expect_no_more()
            return value

        return run

    def drain(self) -> None:
        if self._sink is not None:
            self._sink.drain()

    def close(self) -> None:
        self._close()


class _Later:
    """Stands for a node's value until `_LeastAdapter` has run it."""

    __slots__ = ("arguments", "call", "value")

    value: Any

    def __init__(self, call: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.call = call
        self.arguments = arguments


class _LeastAdapter(base.BaseDoRemoteExecute, lifecycle.ResultBuilder):
    """The least that an adapter can do which runs nodes later than Hamilton's walk: no thread, no future, no lock.

    It writes down each node, and calls one after the other when the result is wanted. What it takes is below every
    adapter with threads, ours and Hamilton's.
    """

    def __init__(self) -> None:
        self._nodes: list[_Later] = []

    def do_remote_execute(self, *, execute_lifecycle_for_node: Callable[..., Any], node: Any, **kwargs: Any) -> _Later:
        later = _Later(execute_lifecycle_for_node, kwargs)
        self._nodes.append(later)
        return later

    def build_result(self, **outputs: Any) -> Any:
        for later in self._nodes:
            arguments = later.arguments
            for name, value in arguments.items():
                if type(value) is _Later:
                    arguments[name] = value.value
            later.value = later.call(**arguments)
        self._nodes = []
        return {name: value.value if type(value) is _Later else value for name, value in outputs.items()}


def _dask_graph(dag: Dag) -> dict[str, Any]:
    from dask._task_spec import Task, TaskRef

    functions = vars(dag.module)
    graph: dict[str, Any] = {}
    for name, upstream in dag.inputs.items():
        arguments: dict[str, Any] = {each: TaskRef(each) for each in upstream}
        graph[name] = Task(name, functions[name], **arguments)
    return graph


class DaskPeer:
    """`dask.threaded.get`, with the tasks already in dask's own form."""

    def __init__(self, workers: int) -> None:
        self._executor = ThreadPoolExecutor(workers)

    def prepare(self, dag: Dag) -> Run:
        from dask import threaded

        graph, end = _dask_graph(dag), dag.end

        def run() -> int:
            value: int = threaded.get(graph, end, pool=self._executor)
            return value

        return run

    def drain(self) -> None:
        pass

    def close(self) -> None:
        self._executor.shutdown()


class DistributedPeer:
    """`distributed` with its scheduler and one worker of many threads in this process."""

    def __init__(self, workers: int) -> None:
        import distributed

        self._cluster = distributed.LocalCluster(
            n_workers=1, threads_per_worker=workers, processes=False, dashboard_address=None
        )
        self._client = distributed.Client(self._cluster)

    def prepare(self, dag: Dag) -> Run:
        graph, end = _dask_graph(dag), dag.end

        def run() -> int:
            value: int = self._client.get(graph, end)
            return value

        return run

    def drain(self) -> None:
        pass

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


class JoblibPeer:
    """`joblib.Parallel` knows no graphs: one call for all nodes whose inputs are there, then for the next."""

    def __init__(self, workers: int) -> None:
        import joblib

        self._delayed = joblib.delayed
        self._parallel = joblib.Parallel(workers, backend="threading")
        self._parallel.__enter__()  # its threads stay for all calls

    def prepare(self, dag: Dag) -> Run:
        functions = vars(dag.module)
        end = dag.end

        def run() -> int:
            sorter = TopologicalSorter(dag.inputs)
            sorter.prepare()
            values: dict[str, int] = {}
            while sorter.is_active():
                ready = sorter.get_ready()
                calls = (
                    self._delayed(functions[name])(**{each: values[each] for each in dag.inputs[name]})
                    for name in ready
                )
                values.update(zip(ready, self._parallel(calls), strict=True))
                sorter.done(*ready)
            return values[end]

        return run

    def drain(self) -> None:
        pass

    def close(self) -> None:
        self._parallel.__exit__(None, None, None)


class GraphlibPeer:
    """What one would write without any of them: submit what is ready, wait for one to end, go on."""

    def __init__(self, workers: int) -> None:
        self._executor = ThreadPoolExecutor(workers)

    def prepare(self, dag: Dag) -> Run:
        functions = vars(dag.module)
        end = dag.end

        def run() -> int:
            sorter = TopologicalSorter(dag.inputs)
            sorter.prepare()
            values: dict[str, int] = {}
            names: dict[Future[int], str] = {}
            ended: SimpleQueue[Future[int]] = SimpleQueue()
            while sorter.is_active():
                for name in sorter.get_ready():
                    arguments = {each: values[each] for each in dag.inputs[name]}
                    future = self._executor.submit(functions[name], **arguments)
                    names[future] = name
                    future.add_done_callback(ended.put)
                future = ended.get()
                name = names.pop(future)
                values[name] = future.result()
                sorter.done(name)
            return values[end]

        return run

    def drain(self) -> None:
        pass

    def close(self) -> None:
        self._executor.shutdown()


class FloorPeer:
    """No DAG at all: as many recorded spans, one after another.

    Args:
        sink: Where they go.
        as_ours: Each with the attributes of one of ours and a link for each input, in place of one link and six.
    """

    def __init__(self, sink: SpanSink, *, as_ours: bool = False) -> None:
        self._sink = sink
        self._tracer = sink.provider.get_tracer("benchmarks")
        self._as_ours = as_ours

    def prepare(self, dag: Dag) -> Run:
        tracer, expected = self._tracer, dag.expected
        first = next(iter(dag.inputs))
        inputs = dag.inputs if self._as_ours else dict.fromkeys(dag.inputs, (first,))

        def run() -> int:
            self._sink.expect(len(inputs) + 1)
            parent = tracer.start_span("run")
            context = set_span_in_context(parent)
            contexts: dict[str, SpanContext] = {first: parent.get_span_context()}
            for name, upstream in inputs.items():
                attributes: dict[str, str | float | list[str]] = {
                    "node.name": name,
                    "run.id": "c0ffee",
                    "pool.name": "default",
                    "outcome": "success",
                    "queue.duration": 0.001,
                    "thread.id": 1,
                }
                if self._as_ours:
                    attributes |= {
                        "module": "benchmarks",
                        "code.function.name": name,
                        "code.file.path": "benchmarks/peers.py",
                        "code.line.number": 1,
                        "thread.name": "worker_1",
                        "dependency.duration": 0.001,
                        "cpu.duration": 0.001,
                        "upstream": list(upstream),
                    }
                links = [Link(contexts[each], {"parameter": each}) for each in upstream]
                span = tracer.start_span(name, context, attributes=attributes, links=links)
                contexts[name] = span.get_span_context()
                span.end()
            parent.end()
            return expected

        return run

    def drain(self) -> None:
        self._sink.drain()

    def close(self) -> None:
        pass


def ours(
    workers: int, *, sink: SpanSink | None = None, tracing: bool | Tracing = True, **settings: Any
) -> HamiltonPeer:
    """Our adapter, counting into a registry of its own."""
    large_run = tracing.large_run if isinstance(tracing, Tracing) else None
    adapter = FutureAdapter(workers, registry=CollectorRegistry(), tracing=tracing, **settings)
    return HamiltonPeer(adapter, sink=sink, large_run=large_run, close=adapter.close)


def _hamilton(workers: int) -> HamiltonPeer:
    adapter = h_threadpool.FutureAdapter(workers)
    return HamiltonPeer(adapter, close=adapter.executor.shutdown)


def _hamilton_traced(workers: int, sink: SpanSink, *, hashed_before: bool) -> HamiltonPeer:
    from hamilton.plugins.h_opentelemetry import OpenTelemetryTracer

    hashed: dict[str, HamiltonGraph] = {}  # by module: every DAG has one of its own

    class HashedBefore(OpenTelemetryTracer):
        """Keeps the hashes of the functions' sources, which the tracer otherwise works out again for each run."""

        def run_before_graph_execution(self, *, graph: HamiltonGraph, **arguments: Any) -> None:
            functions = graph.nodes[0].originating_functions or ()
            graph = hashed.setdefault(functions[0].__module__, graph)
            super().run_before_graph_execution(graph=graph, **arguments)

    adapter = h_threadpool.FutureAdapter(workers)
    kind = HashedBefore if hashed_before else OpenTelemetryTracer
    tracer = kind(tracer=sink.provider.get_tracer("benchmarks"))
    return HamiltonPeer(adapter, tracer, sink=sink, close=adapter.executor.shutdown)


def _ours_unsampled(workers: int, *, metrics: bool) -> HamiltonPeer:
    sink = SpanSink(ALWAYS_OFF)
    adapter = FutureAdapter(workers, tracer_provider=sink.provider, metrics=metrics, registry=CollectorRegistry())

    def close() -> None:
        adapter.close()
        sink.close()

    return HamiltonPeer(adapter, close=close)


def _meter_provider() -> MeterProvider:
    """One that keeps the figures, for nobody."""
    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


_MAKERS: Mapping[str, Callable[[int, SpanSink], Peer]] = {
    UNTRACED: lambda workers, sink: ours(workers, tracing=False, metrics=False),
    DEFAULT: lambda workers, sink: ours(workers),
    TRACED: lambda workers, sink: ours(workers, sink=sink, tracer_provider=sink.provider, tracing=Tracing()),
    TRACED_WHOLE: lambda workers, sink: ours(
        workers, sink=sink, tracer_provider=sink.provider, tracing=Tracing(large_run=None)
    ),
    HAMILTON: lambda workers, sink: _hamilton(workers),
    HAMILTON_TRACED: lambda workers, sink: _hamilton_traced(workers, sink, hashed_before=False),
    HAMILTON_TRACED_HASHED: lambda workers, sink: _hamilton_traced(workers, sink, hashed_before=True),
    NO_THREADS: lambda workers, sink: HamiltonPeer(_LeastAdapter(), close=lambda: None),
    NO_ADAPTER: lambda workers, sink: HamiltonPeer(close=lambda: None),
    DASK: lambda workers, sink: DaskPeer(workers),
    GRAPHLIB: lambda workers, sink: GraphlibPeer(workers),
    DISTRIBUTED: lambda workers, sink: DistributedPeer(workers),
    JOBLIB: lambda workers, sink: JoblibPeer(workers),
    FLOOR: lambda workers, sink: FloorPeer(sink),
    FLOOR_AS_OURS: lambda workers, sink: FloorPeer(sink, as_ours=True),
    TRACING_NO_SDK: lambda workers, sink: ours(workers, metrics=False),
    TRACING_UNSAMPLED: lambda workers, sink: _ours_unsampled(workers, metrics=False),
    TRACING_SAMPLED: lambda workers, sink: ours(workers, sink=sink, tracer_provider=sink.provider, metrics=False),
    METRICS: lambda workers, sink: ours(workers, tracing=False),
    METRICS_UNSAMPLED: lambda workers, sink: _ours_unsampled(workers, metrics=True),
    METRICS_PUSHED: lambda workers, sink: ours(workers, tracing=False, meter_provider=_meter_provider()),
}


_NEEDS: Mapping[str, str] = {DASK: "dask", DISTRIBUTED: "distributed", JOBLIB: "joblib", PREFECT: "prefect"}


def is_installed(label: str) -> bool:
    return label not in _NEEDS or importlib.util.find_spec(_NEEDS[label]) is not None


@contextmanager
def open_peers(labels: Iterable[str], workers: int) -> Iterator[dict[str, Peer]]:
    """These peers by name, but for those that are not installed, on one tracer provider; closed at the end."""
    with ExitStack() as stack:
        sink = SpanSink()
        stack.callback(sink.close)
        peers: dict[str, Peer] = {}
        for label in filter(is_installed, labels):
            peers[label] = _MAKERS[label](workers, sink)
            stack.callback(peers[label].close)
        yield peers
