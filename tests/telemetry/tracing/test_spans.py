"""Spans, as an application sees them that has the real SDK: section 2 of the contract."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.execution import executors
from hamilton.function_modifiers import group, inject, parameterize, source, tag, value
from hamilton.graph_types import HamiltonGraph
from hamilton.htypes import Collect, Parallelizable
from hamilton.io.materialization import to
from hamilton.lifecycle import GraphExecutionHook, NodeExecutionHook, ResultBuilder
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from tests.telemetry.telemetry_helpers import (
    SOME_SECONDS,
    Between,
    Caller,
    Gate,
    Traces,
    View,
    context_of,
    failed,
    make_adapter,
    make_driver,
    make_dynamic_driver,
    node_view,
    run_program,
    spend,
    threads_switched_often,
    times,
    until,
    without_waits,
)
from traced_threadpool import FutureAdapter, Tracing, __version__
from traced_threadpool.hamilton_graph import PARSES_SAFELY

RUN = View(name="hamilton.run", outcome="success")


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def adapter(traces: Traces) -> Iterator[FutureAdapter]:
    with make_adapter(traces, max_workers=4) as adapter:
        yield adapter


@pytest.fixture
def one_worker(traces: Traces) -> Iterator[FutureAdapter]:
    with make_adapter(traces, max_workers=1) as adapter:
        yield adapter


@pytest.fixture
def tracer(traces: Traces) -> trace.Tracer:
    """The application's own."""
    return traces.provider.get_tracer("application")


def submit(adapter: FutureAdapter, function: Any, **arguments: Any) -> Future[Any]:
    """A node without a run, as a program does that calls the adapter itself."""
    future: Future[Any] = adapter.do_remote_execute(execute_lifecycle_for_node=function, node=None, **arguments)
    return future


def load() -> int:
    return 1


def left(load: int) -> int:
    return load + 1


def right(load: int) -> int:
    return load + 2


def joined(left: int, right: int) -> int:
    return left + right


def fails() -> int:
    raise ValueError("a message")


def after(fails: int) -> int:
    return fails


def far(after: int) -> int:
    return after


class RunIds(GraphExecutionHook):
    """Remembers what Hamilton calls its runs."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def run_before_graph_execution(self, *, run_id: str, **future_kwargs: Any) -> None:
        self.seen.append(run_id)

    def run_after_graph_execution(self, **future_kwargs: Any) -> None:
        pass


# The run span


def test_run_span_has_the_documented_attributes(traces: Traces) -> None:
    """Names of outputs, inputs and overrides, the run's id, outcome and size, the pool, and the graph's version."""
    run_ids = RunIds()
    with make_adapter(traces, max_workers=3, name="etl") as adapter:
        dr = make_driver(adapter, load, left, right, joined, adapters=[run_ids])
        dr.execute(["left", "joined"], inputs={"unused": 1}, overrides={"right": 7})
    assert without_waits(traces.attributes("hamilton.run")) == {
        "hamilton.run.id": run_ids.seen[0],
        "hamilton.run.outputs": ("left", "joined"),
        "hamilton.run.inputs": ("unused",),
        "hamilton.run.overrides": ("right",),
        "hamilton.run.outcome": "success",
        "hamilton.run.node.count": 3,
        "hamilton.run.priority": "hops",
        "hamilton.threadpool.name": "etl",
        "hamilton.threadpool.workers.limit": 3,
        **({"hamilton.graph.version": HamiltonGraph.from_graph(dr.graph).version} if PARSES_SAFELY else {}),
        "hamilton.run.critical_path": ("load", "left", "joined"),
        "hamilton.processors.limit": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def test_run_span_says_what_made_it(traces: Traces, adapter: FutureAdapter) -> None:
    """Name, kind, scope and version, and no parent where the caller has no span; success leaves the status unset."""
    make_driver(adapter, load).execute(["load"])
    run = traces.only("hamilton.run")
    assert run.kind is SpanKind.INTERNAL
    assert run.instrumentation_scope is not None
    assert (run.instrumentation_scope.name, run.instrumentation_scope.version) == (
        "traced_threadpool",
        __version__,
    )
    assert traces.views() == [RUN, node_view("load")]


def test_run_name_names_the_run_span(traces: Traces) -> None:
    """`run_name` takes the place of `hamilton.run`."""
    with make_adapter(traces, run_name="nightly") as adapter:
        make_driver(adapter, load).execute(["load"])
    assert traces.views() == [
        node_view("load", parent="nightly"),
        View(name="nightly", outcome="success"),
    ]


def test_run_span_is_a_child_of_the_callers_span(traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer) -> None:
    """The run belongs to the trace of the code that called `execute`."""
    with tracer.start_as_current_span("request"):
        make_driver(adapter, load).execute(["load"])
    assert traces.views() == [
        View(name="hamilton.run", parent="request", outcome="success"),
        node_view("load"),
        View(name="request"),
    ]


def test_each_execute_is_a_run_of_its_own(traces: Traces, adapter: FutureAdapter) -> None:
    """Two calls, two run spans in two traces, with ids of their own."""
    run_ids = RunIds()
    dr = make_driver(adapter, load, adapters=[run_ids])
    dr.execute(["load"])
    dr.execute(["load"])
    runs = [span for span in traces.spans if span.name == "hamilton.run"]
    assert [dict(run.attributes or {})["hamilton.run.id"] for run in runs] == run_ids.seen
    assert len({context_of(run).trace_id for run in runs}) == 2


def test_current_span_of_the_caller_stays(traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer) -> None:
    """A run leaves nothing attached to the thread that called it."""
    with tracer.start_as_current_span("request") as request:
        before = context.get_current()
        make_driver(adapter, load, left).execute(["left"])
        assert context.get_current() is before
        assert trace.get_current_span() is request


def test_run_without_nodes_has_a_span(traces: Traces, adapter: FutureAdapter) -> None:
    """A run that asks for nothing but its inputs is a run all the same."""
    assert make_driver(adapter, left).execute(["load"], inputs={"load": 5}) == {"load": 5}
    assert traces.views() == [RUN]
    assert traces.attributes("hamilton.run")["hamilton.run.node.count"] == 0


def test_hook_that_fails_before_the_run_leaves_no_span(
    traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer
) -> None:
    """Hamilton never enters the graph when another adapter's hook raises: nothing is exported or left attached."""

    class Refuses(GraphExecutionHook):
        def run_before_graph_execution(self, **future_kwargs: Any) -> None:
            raise LookupError

        def run_after_graph_execution(self, **future_kwargs: Any) -> None:
            pass

    with tracer.start_as_current_span("request") as request:
        with pytest.raises(LookupError):
            make_driver(adapter, load, adapters=[Refuses()]).execute(["load"])
        assert trace.get_current_span() is request
    assert traces.views() == [View(name="request")]


def test_no_value_is_in_any_span(traces: Traces) -> None:
    """Inputs, overrides, results and (without `record_exceptions`) messages of exceptions stay out of telemetry."""

    def keep(given: str, replaced: str) -> str:
        return given + replaced

    def leak(keep: str) -> str:
        raise RuntimeError(f"cannot send {keep}")

    def skipped(leak: str) -> str:
        return leak

    def replaced() -> str:
        return "never called"

    with make_adapter(traces, tracing=Tracing(record_exceptions=False)) as adapter:
        dr = make_driver(adapter, keep, leak, skipped, replaced)
        values: dict[str, Any] = {"inputs": {"given": "SECRET-1"}, "overrides": {"replaced": "SECRET-2"}}
        assert dr.execute(["keep"], **values) == {"keep": "SECRET-1SECRET-2"}
        with pytest.raises(RuntimeError, match="SECRET-1SECRET-2"):
            dr.execute(["skipped"], **values)
    exported = "".join(span.to_json() for span in traces.spans)
    assert "skipped" in exported
    assert "SECRET" not in exported


def test_failed_run_has_the_error_status(traces: Traces, adapter: FutureAdapter) -> None:
    """Status ERROR and `error.type` give the exception's type, and the exception itself is not on the run."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails).execute(["fails"])
    run, node = traces.only("hamilton.run"), traces.only("fails")
    assert [run.name, run.status.status_code.name, run.status.description, run.events] == [
        "hamilton.run",
        "ERROR",
        "ValueError",
        (),
    ]
    assert traces.attributes("hamilton.run")["hamilton.run.outcome"] == "error"
    assert traces.attributes("hamilton.run")["error.type"] == "ValueError"
    assert node.status.description == "ValueError"


def test_run_counts_nodes_that_never_ran(traces: Traces, adapter: FutureAdapter) -> None:
    """`hamilton.run.node.count` is what was submitted, whatever became of it."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after, far).execute(["far"])
    assert traces.attributes("hamilton.run")["hamilton.run.node.count"] == 3


def test_failing_result_builder_fails_the_run(traces: Traces) -> None:
    """All nodes went well and `execute` raised: the run is an error, the nodes are not."""

    class Refuses(ResultBuilder):
        def build_result(self, **outputs: Any) -> Any:
            raise TypeError("not these")

    with make_adapter(traces, result_builder=Refuses()) as adapter, pytest.raises(TypeError):
        make_driver(adapter, load).execute(["load"])
    assert traces.views() == [
        View(name="hamilton.run", **failed("TypeError")),
        node_view("load"),
    ]


def test_run_cancelled_by_close_is_cancelled(traces: Traces, one_worker: FutureAdapter) -> None:
    """`close(cancel_pending=True)` ends the run as `cancelled`, which is no error."""
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    def pending(held: int) -> int:
        return held

    outputs = make_driver(one_worker, held, pending).raw_execute(["held", "pending"])
    gate.wait_for()
    closing = Caller(lambda: one_worker.close(cancel_pending=True))
    with pytest.raises(CancelledError):
        outputs["pending"].result(timeout=60)
    gate.open()
    assert closing.outcome() is None
    assert traces.views() == [
        View(name="hamilton.run", outcome="cancelled"),
        node_view("held"),
        node_view("pending", "held", outcome="cancelled"),
    ]


def test_execute_cancelled_by_close_is_cancelled(traces: Traces, one_worker: FutureAdapter) -> None:
    """As above for a caller that waits in `execute`, and hears of it by `CancelledError`."""
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    def pending(held: int) -> int:
        return held

    dr = make_driver(one_worker, held, pending)
    caller = Caller(lambda: dr.execute(["pending"]))
    gate.wait_for()
    until(lambda: one_worker.snapshot().blocked_nodes == 1)  # the caller may still be walking the graph
    closing = Caller(lambda: one_worker.close(cancel_pending=True))
    assert isinstance(caller.outcome(), CancelledError)
    gate.open()
    assert closing.outcome() is None
    assert traces.views() == [
        View(name="hamilton.run", outcome="cancelled"),
        node_view("held"),
        node_view("pending", "held", outcome="cancelled"),
    ]


def test_cancelling_a_future_cancels_the_run(traces: Traces, one_worker: FutureAdapter) -> None:
    """A run of which a node was cancelled did not succeed."""
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    def pending(held: int) -> int:
        return held

    outputs = make_driver(one_worker, held, pending).raw_execute(["held", "pending"])
    gate.wait_for()
    assert outputs["pending"].cancel()
    gate.open()
    one_worker.close()
    assert traces.views() == [
        View(name="hamilton.run", outcome="cancelled"),
        node_view("held"),
        node_view("pending", "held", outcome="cancelled"),
    ]


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to oneself there")
def test_interrupted_run_is_cancelled(traces: Traces) -> None:
    """Ctrl-C while `execute` waits: the run and what had not started are `cancelled`."""
    building, interrupted, gate = threading.Event(), threading.Event(), Gate()

    class Announcing(FutureAdapter):
        def build_result(self, **outputs: Any) -> Any:
            building.set()
            try:
                return super().build_result(**outputs)
            except KeyboardInterrupt:
                interrupted.set()
                raise

    def held() -> int:
        building.wait(60)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        while not interrupted.wait(1):  # the race: a signal just before the main thread blocks does not wake it up
            signal.pthread_kill(main, signal.SIGINT)
        gate()
        return 1

    def pending(held: int) -> int:
        return held

    with Announcing(max_workers=1, tracer_provider=traces.provider, metrics=False) as adapter:
        with pytest.raises(KeyboardInterrupt):
            make_driver(adapter, held, pending).execute(["pending"])
        gate.open()
    assert traces.views() == [
        View(name="hamilton.run", outcome="cancelled"),
        node_view("held"),
        node_view("pending", "held", outcome="cancelled"),
    ]


def test_run_span_of_raw_execute_ends_with_its_last_node(traces: Traces, adapter: FutureAdapter) -> None:
    """`raw_execute` returns at once and builds no result; the run goes on until its last node has ended."""
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    outputs = make_driver(adapter, held).raw_execute(["held"])
    gate.wait_for()
    assert traces.spans == ()
    opened_ns = time.time_ns()
    gate.open()
    assert outputs["held"].result(timeout=60) == 1
    traces.wait_for(2)
    assert traces.views() == [RUN, node_view("held")]
    assert opened_ns <= times(traces.only("held"))[1] <= times(traces.only("hamilton.run"))[1]


def test_run_span_of_materialize_ends_with_its_last_node(traces: Traces, adapter: FutureAdapter, tmp_path: Any) -> None:
    """`materialize` builds no result either, and its own nodes are nodes of the run."""

    def table() -> dict[str, int]:
        return {"a": 1}

    path = tmp_path / "table.json"
    make_driver(adapter, table).materialize(to.json(id="saved", dependencies=["table"], path=str(path)))
    adapter.close()
    views = {view.name: view for view in traces.views()}
    assert views["table"] == node_view("table")
    assert {view.parent for view in views.values()} == {None, "hamilton.run"}
    saved = next(span for span in traces.spans if "saved" in span.name)
    assert times(traces.only("hamilton.run"))[1] >= times(saved)[1]
    assert path.read_text() == '{"a": 1}'


def test_nested_run_is_a_child_of_the_node_that_executes_it(traces: Traces, one_worker: FutureAdapter) -> None:
    """A node that executes a driver on the same adapter has that run below it."""
    inner = make_driver(one_worker, load, left)

    def outer() -> int:
        result: dict[str, int] = inner.execute(["left"])
        return result["left"]

    assert make_driver(one_worker, outer).execute(["outer"]) == {"outer": 2}
    runs = {run.parent is None: run for run in traces.spans if run.name == "hamilton.run"}
    outer_node = traces.only("outer")
    parents = {span.name: span.parent for span in traces.spans if span.name != "hamilton.run"}
    assert parents == {
        "outer": context_of(runs[True]),
        "load": context_of(runs[False]),
        "left": context_of(runs[False]),
    }
    assert runs[False].parent == context_of(outer_node)


def test_runs_at_once_do_not_mix(traces: Traces, adapter: FutureAdapter) -> None:
    """Two runs share the workers; each node is below its own run, with its id and links into its own run alone."""
    both = threading.Barrier(2)

    def first(number: int) -> int:
        both.wait(60)
        return number

    def second(first: int) -> int:
        both.wait(60)
        return first

    dr = make_driver(adapter, first, second)
    callers = [Caller(functools.partial(dr.execute, ["second"], inputs={"number": n})) for n in (1, 2)]
    assert [caller.outcome() for caller in callers] == [{"second": 1}, {"second": 2}]
    adapter.close()
    for run in (span for span in traces.spans if span.name == "hamilton.run"):
        run_id = dict(run.attributes or {})["hamilton.run.id"]
        own = {span.name: span for span in traces.spans if span.parent == context_of(run)}
        assert sorted(own) == ["first", "second"]
        assert [dict(span.attributes or {})["hamilton.run.id"] for span in own.values()] == [run_id, run_id]
        assert [link.context for link in own["second"].links] == [context_of(own["first"])]
    assert len(traces.spans) == 6


def test_all_spans_are_exported_when_execute_returns(traces: Traces, adapter: FutureAdapter) -> None:
    """With a simple span processor a program may look at its trace right after `execute`."""
    dr = make_driver(adapter, *_wide(100))
    dr.execute(["total"])
    assert len(traces.spans) == 102


def test_all_spans_are_exported_when_execute_raises(traces: Traces, adapter: FutureAdapter) -> None:
    """So may one whose run failed."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after).execute(["after"])
    assert [span.name for span in traces.spans] == ["fails", "after", "hamilton.run"]


def _wide(count: int) -> list[Any]:
    """`count` nodes without inputs, `n0` and on, and `total`, which takes them all."""
    names = [f"n{number}" for number in range(count)]

    made: dict[str, Any] = {name: {"number": value(number)} for number, name in enumerate(names)}

    @parameterize(**made)
    def single(number: int) -> int:
        return number

    @inject(numbers=group(*map(source, names)))
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    return [single, total]


def _chain(length: int) -> list[Any]:
    """Nodes `n0` and on, each of which takes the one before."""

    made: dict[str, Any] = {f"n{number}": {"before": source(f"n{number - 1}")} for number in range(1, length)}

    @parameterize(**made)
    def each(before: int) -> int:
        return before + 1

    def n0() -> int:
        return 0

    return [n0, each]


def test_all_spans_are_exported_when_execute_returns_under_load(traces: Traces, adapter: FutureAdapter) -> None:
    """So may one that other threads keep from running: the last word on a run is had before `execute` returns."""
    dr = make_driver(adapter, load, left)
    missing = 0
    with threads_switched_often():
        for _ in range(200):
            dr.execute(["left"])
            missing += len(traces.spans) != 3
            traces.wait_for(3)
            traces.clear()
    assert missing == 0


class SlowCallback(FutureAdapter):
    """Holds the node `held` on its worker until its future has a callback, which takes its time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_workers=2, metrics=False, **options)
        self.gate = Gate()

    def do_remote_execute(self, **kwargs: Any) -> Any:
        future: Future[Any] = super().do_remote_execute(**kwargs)
        if kwargs["node"].name == "held":
            self.gate.wait_for()
            future.add_done_callback(lambda _: spend(0.2))
            self.gate.open()
        return future


def test_run_ends_with_its_last_node_and_not_with_callbacks(traces: Traces) -> None:
    """What a future's callbacks do after the node has ended is not the run's time: `execute` has long returned."""
    adapter = SlowCallback(tracer_provider=traces.provider)

    def held() -> int:
        adapter.gate()
        return 1

    with adapter:
        make_driver(adapter, held).execute(["held"])
        returned_ns = time.time_ns()
    assert times(traces.only("held"))[1] <= times(traces.only("hamilton.run"))[1] <= returned_ns


# Node spans


def test_each_node_is_one_span_below_the_run(traces: Traces, adapter: FutureAdapter) -> None:
    """A diamond: a span for each node, named after it, below the run and linked to its inputs by their parameters."""
    assert make_driver(adapter, load, left, right, joined).execute(["joined"]) == {"joined": 5}
    assert traces.views() == [
        RUN,
        node_view("joined", "left", "right"),
        node_view("left", "load"),
        node_view("load"),
        node_view("right", "load"),
    ]
    assert {span.kind for span in traces.spans} == {SpanKind.INTERNAL}
    assert {span.instrumentation_scope.name for span in traces.spans if span.instrumentation_scope} == {
        "traced_threadpool"
    }
    assert len({context_of(span).trace_id for span in traces.spans}) == 1


def test_node_span_has_the_documented_attributes(traces: Traces) -> None:
    """Every attribute of a node that ran, and no other."""
    seen: list[threading.Thread] = []

    @tag(team="core", stages=["raw", "clean"])
    def tagged(load: int) -> int:
        seen.append(threading.current_thread())
        return load

    run_ids = RunIds()
    with make_adapter(traces, max_workers=2, thread_name_prefix="worker", name="etl") as adapter:
        make_driver(adapter, load, tagged, adapters=[run_ids]).execute(["tagged"])
    attributes = without_waits(traces.attributes("tagged"))
    module = attributes.pop("hamilton.node.tag.module")
    assert attributes == {
        "hamilton.node.name": "tagged",
        "hamilton.run.id": run_ids.seen[0],
        "hamilton.threadpool.name": "etl",
        "hamilton.node.upstream": ("load",),
        "hamilton.node.outcome": "success",
        "hamilton.node.dependency.duration": SOME_SECONDS,
        "hamilton.node.queue.duration": SOME_SECONDS,
        "hamilton.node.cpu.duration": SOME_SECONDS,
        "hamilton.node.tag.team": "core",
        "hamilton.node.tag.stages": ("raw", "clean"),
        "thread.id": seen[0].ident,
        "thread.name": seen[0].name,
        "code.function.name": f"{module}.{sys.modules[module].tagged.__qualname__}",
        "code.file.path": __file__,
        "code.line.number": tagged.__code__.co_firstlineno,
    }
    assert seen[0].name.startswith("worker")


def test_node_made_by_a_decorator_tells_where_its_function_is(traces: Traces, adapter: FutureAdapter) -> None:
    """Nodes that Hamilton makes from one function all point to it."""

    @parameterize(low={"of": value(1)}, high={"of": source("load")})
    def scaled(of: int) -> int:
        return 10 * of

    make_driver(adapter, load, scaled).execute(["low", "high"])
    line = scaled.__code__.co_firstlineno
    assert [traces.attributes(name)["code.line.number"] for name in ("low", "high")] == [line, line]
    assert traces.attributes("low")["code.function.name"].endswith(".scaled")


def test_nodes_without_a_run_are_children_of_the_callers_span(
    traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer
) -> None:
    """`do_remote_execute` called directly: no run span, and the caller's own span as parent."""
    with tracer.start_as_current_span("request"):
        loaded = submit(adapter, load)
        assert submit(adapter, left, load=loaded).result() == 2
    adapter.close()
    assert traces.views() == [
        node_view("left", "load", parent="request"),
        node_view("load", parent="request"),
        View(name="request"),
    ]


def test_node_without_a_run_or_a_caller_is_a_root(traces: Traces, adapter: FutureAdapter) -> None:
    """Neither run nor current span: the node starts a trace, and has no run's id."""
    assert submit(adapter, load).result() == 1
    adapter.close()
    assert traces.views() == [node_view("load", parent=None)]
    assert without_waits(traces.attributes("load")) == {
        "hamilton.node.name": "load",
        "hamilton.threadpool.name": "default",
        "hamilton.node.upstream": (),
        "hamilton.node.outcome": "success",
        "hamilton.node.dependency.duration": 0.0,
        "hamilton.node.queue.duration": SOME_SECONDS,
        "hamilton.node.cpu.duration": SOME_SECONDS,
        "thread.id": Between(1, float("inf")),
        "thread.name": "ThreadPoolExecutor-" + traces.attributes("load")["thread.name"].partition("-")[2],
    }


def test_spans_of_a_nodes_own_code_nest_under_it(traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer) -> None:
    """The node's span is current while its function runs."""

    def fetch() -> int:
        with tracer.start_as_current_span("GET /prices"):
            return 1

    make_driver(adapter, fetch).execute(["fetch"])
    assert traces.views() == [
        View(name="GET /prices", parent="fetch"),
        node_view("fetch"),
        RUN,
    ]


def test_node_of_one_worker_does_not_nest_under_the_one_before(traces: Traces, one_worker: FutureAdapter) -> None:
    """What is current in a node is not left to the next node of the same thread."""
    make_driver(one_worker, load, left, right, joined).execute(["joined"])
    assert {view.parent for view in traces.views()} == {None, "hamilton.run"}
    assert submit(one_worker, trace.get_current_span).result() is not None
    one_worker.close()
    assert traces.only("get_current_span").parent is None


def test_logs_of_a_node_can_be_joined_with_its_span(
    traces: Traces, adapter: FutureAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    """A log filter that asks for the current span, as log correlation does, gets the node's."""

    def add_span(record: logging.LogRecord) -> bool:
        record.span_id = trace.get_current_span().get_span_context().span_id
        return True

    logger = logging.getLogger("application")

    def talks() -> int:
        logger.warning("here")
        return 1

    caplog.handler.addFilter(add_span)
    try:
        make_driver(adapter, talks).execute(["talks"])
    finally:
        caplog.handler.removeFilter(add_span)
    (record,) = (record for record in caplog.records if record.name == "application")
    assert record.__dict__["span_id"] == context_of(traces.only("talks")).span_id


def test_hooks_of_other_adapters_are_inside_the_nodes_span(traces: Traces, adapter: FutureAdapter) -> None:
    """A hook before and after the node sees the node's span as current."""
    seen: list[int] = []

    class Looks(NodeExecutionHook):
        def run_before_node_execution(self, **future_kwargs: Any) -> None:
            seen.append(trace.get_current_span().get_span_context().span_id)

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            seen.append(trace.get_current_span().get_span_context().span_id)

    make_driver(adapter, load, adapters=[Looks()]).execute(["load"])
    assert seen == [context_of(traces.only("load")).span_id] * 2


def test_node_span_starts_when_its_inputs_are_there(traces: Traces, adapter: FutureAdapter) -> None:
    """A node that waits for an input has no span yet: its span starts after the wait."""
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    def waits(held: int) -> int:
        return held

    outputs = make_driver(adapter, held, waits).raw_execute(["waits"])
    gate.wait_for()
    opened_ns = time.time_ns()
    gate.open()
    outputs["waits"].result(timeout=60)
    traces.wait_for(3)
    assert times(traces.only("held"))[0] < opened_ns <= times(traces.only("waits"))[0]


def test_node_span_is_as_long_as_its_function(traces: Traces, adapter: FutureAdapter) -> None:
    """Start and end enclose what the function does, and the wait in the queue is not in it."""
    inside: list[int] = []

    def clocked() -> int:
        inside.append(time.time_ns())
        spend(0.01)
        inside.append(time.time_ns())
        return 1

    before_ns = time.time_ns()
    make_driver(adapter, clocked).execute(["clocked"])
    start_ns, end_ns = times(traces.only("clocked"))
    assert before_ns <= start_ns <= inside[0] < inside[1] <= end_ns <= time.time_ns()


def _disorder(spans: Sequence[ReadableSpan]) -> list[str]:
    """What is wrong with the times: a node before one of its inputs has ended, or outside of its run."""
    by_id = {context_of(span).span_id: span for span in spans}
    wrong = []
    for span in spans:
        start_ns, end_ns = times(span)
        for link in span.links:
            upstream_end_ns = times(by_id[link.context.span_id])[1]
            if start_ns < upstream_end_ns:
                wrong.append(f"{span.name} starts {upstream_end_ns - start_ns} ns before an input ends")
        if span.parent is not None:
            run_start_ns, run_end_ns = times(by_id[span.parent.span_id])
            if not run_start_ns <= start_ns <= end_ns <= run_end_ns:
                wrong.append(f"{span.name} is not within its run")
    return wrong


def test_times_agree_with_the_links_under_load(traces: Traces, adapter: FutureAdapter) -> None:
    """No node starts before its inputs end, nor outlives its run, to the nanosecond, however threads are switched."""
    dr = make_driver(adapter, *_chain(150))
    with threads_switched_often():
        for _ in range(3):
            dr.execute(["n149"])
    traces.wait_for(453)
    assert _disorder(traces.spans) == []


def test_times_of_nested_runs_agree_under_load(traces: Traces, adapter: FutureAdapter) -> None:
    """A run within a node is within its span too, though it is a run of its own."""
    inner = make_driver(adapter, *_chain(10))

    @parameterize(**{f"outer{number}": {"number": value(number)} for number in range(10)})  # type: ignore[arg-type]
    def outer(number: int) -> int:
        result: dict[str, int] = inner.execute(["n9"])
        return result["n9"]

    dr = make_driver(adapter, outer)
    with threads_switched_often():
        dr.execute([f"outer{number}" for number in range(10)])
    traces.wait_for(121)
    assert _disorder(traces.spans) == []


def test_times_of_nodes_without_a_run_agree_under_load(traces: Traces, adapter: FutureAdapter) -> None:
    """Each such node has its own reading of the clock, and still none starts before its input has ended."""
    with threads_switched_often():
        last = submit(adapter, load)
        for _ in range(200):
            last = submit(adapter, left, load=last)
        assert last.result(timeout=60) == 201
    traces.wait_for(201)
    assert _disorder(traces.spans) == []


def test_times_of_nodes_that_never_ran_agree_with_the_links(traces: Traces, adapter: FutureAdapter) -> None:
    """Their spans have no length, and come after the end of what stopped them, within the run."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after, far).execute(["far"])
    lengths = {name: times(traces.only(name))[1] - times(traces.only(name))[0] for name in ("after", "far")}
    assert lengths == {"after": 0, "far": 0}
    assert _disorder(traces.spans) == []


def test_queue_duration_is_the_wait_for_a_worker(traces: Traces, one_worker: FutureAdapter) -> None:
    """One worker, held: the second node's wait is what the test's own clock shows; it waited for no input."""
    gate = Gate()
    started = time.monotonic()
    submit(one_worker, gate)
    gate.wait_for()
    queued = submit(one_worker, load)
    queued_at = time.monotonic()
    spend(0.02)
    opened_at = time.monotonic()
    gate.open()
    queued.result(timeout=60)
    one_worker.close()
    attributes = traces.attributes("load")
    assert attributes["hamilton.node.queue.duration"] == Between(opened_at - queued_at, time.monotonic() - started)
    assert attributes["hamilton.node.dependency.duration"] == 0.0


def test_dependency_duration_is_the_wait_for_inputs(traces: Traces, adapter: FutureAdapter) -> None:
    """A free worker and an input that takes its time: the wait counts as dependency, not as queue."""
    gate = Gate()
    started = time.monotonic()
    held = submit(adapter, gate)
    gate.wait_for()
    waiting = submit(adapter, left, load=submit(adapter, lambda _: 1, _=held))
    waiting_at = time.monotonic()
    spend(0.05)
    opened_at = time.monotonic()
    gate.open()
    waiting.result(timeout=60)
    ended = time.monotonic()
    adapter.close()
    attributes = traces.attributes("left")
    assert attributes["hamilton.node.dependency.duration"] == Between(opened_at - waiting_at, ended - started)
    assert attributes["hamilton.node.queue.duration"] < ended - opened_at


@pytest.mark.parametrize("outcome", ["success", "error"])
def test_node_submitted_by_a_callback_of_its_input_has_waited_no_time(
    traces: Traces, adapter: FutureAdapter, outcome: str
) -> None:
    """The input's function had ended before the node was submitted: the wait is 0, not what has passed in between."""
    took: list[float] = []
    called = threading.Event()

    def follow(loaded: Future[Any]) -> None:
        spend(0.05)
        submitting = time.monotonic()
        submit(adapter, left, load=loaded)
        took.append(time.monotonic() - submitting)
        called.set()

    gate = Gate()

    def held() -> int:
        gate()
        return load() if outcome == "success" else fails()

    loaded = submit(adapter, held)
    loaded.add_done_callback(follow)
    gate.open()
    assert called.wait(60)
    adapter.close()
    assert traces.attributes("left")["hamilton.node.dependency.duration"] == Between(0.0, took[0])


def test_cpu_duration_is_the_threads_own_time(traces: Traces, adapter: FutureAdapter) -> None:
    """Work counts and waiting does not."""
    gate = Gate()
    working = submit(adapter, functools.partial(spend, 0.03, time.thread_time))
    waiting = submit(adapter, gate)
    gate.wait_for()
    working.result(timeout=60)
    spend(0.03)
    gate.open()
    waiting.result(timeout=60)
    adapter.close()
    length = {name: (times(traces.only(name))[1] - times(traces.only(name))[0]) / 1e9 for name in ("spend", "Gate")}
    assert traces.attributes("spend")["hamilton.node.cpu.duration"] == Between(0.03, length["spend"])
    assert length["Gate"] > 0.03
    assert traces.attributes("Gate")["hamilton.node.cpu.duration"] < 0.02


def test_cpu_duration_leaves_out_the_nodes_that_it_helped(traces: Traces, one_worker: FutureAdapter) -> None:
    """With one worker a nested run's nodes run inside the node that waits for them; their CPU time is theirs."""

    def burns() -> int:
        spend(0.1, time.thread_time)
        return 1

    inner = make_driver(one_worker, burns)

    def outer() -> int:
        result: dict[str, int] = inner.execute(["burns"])
        return result["burns"]

    make_driver(one_worker, outer).execute(["outer"])
    assert traces.attributes("burns")["thread.id"] == traces.attributes("outer")["thread.id"]
    assert traces.attributes("burns")["hamilton.node.cpu.duration"] >= 0.1
    assert traces.attributes("outer")["hamilton.node.cpu.duration"] < 0.1


# Links


class Watching(Sampler):
    """Remembers what it was shown of each span at its creation, and decides as `sampler` does."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._sampler = sampler
        self.shown: dict[str, tuple[dict[str, Any], list[Link]]] = {}

    def should_sample(
        self,
        parent_context: context.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        self.shown[name] = (dict(attributes or {}), list(links or ()))
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return "watching"


def test_sampler_sees_the_links_and_what_is_known_at_the_start() -> None:
    """Links are given when the span is created, when samplers decide; so are the names and tags."""
    sampler = Watching()
    traces = Traces(sampler=sampler)

    @tag(team="core")
    def tagged(load: int) -> int:
        return load

    with make_adapter(traces) as adapter:
        make_driver(adapter, load, tagged).execute(["tagged"])
    attributes, links = sampler.shown["tagged"]
    assert [(link.context, dict(link.attributes or {})) for link in links] == [
        (context_of(traces.only("load")), {"hamilton.link.parameter": "load"})
    ]
    known = {"hamilton.node.name", "hamilton.run.id", "hamilton.threadpool.name", "hamilton.node.tag.team"}
    assert known <= set(attributes) <= set(traces.attributes("tagged"))


def test_upstream_by_two_parameters_is_one_link(traces: Traces, adapter: FutureAdapter) -> None:
    """One link per upstream span, whatever the number of parameters that its value comes in by."""
    loaded = submit(adapter, load)
    assert submit(adapter, joined, left=loaded, right=loaded).result() == 2
    adapter.close()
    assert traces.views() == [
        node_view("joined", parent=None, links=(("load", "left"),)),
        node_view("load", parent=None),
    ]
    assert traces.attributes("joined")["hamilton.node.upstream"] == ("load",)


def test_values_that_no_node_made_have_no_link(traces: Traces, adapter: FutureAdapter) -> None:
    """Inputs, overrides and futures of somebody else's are no nodes: no link and no upstream."""
    foreign: Future[int] = Future()
    waiting = submit(adapter, joined, left=foreign, right=1)
    foreign.set_result(1)
    assert waiting.result(timeout=60) == 2
    make_driver(adapter, load, left).execute(["left"], overrides={"load": 1})
    adapter.close()
    assert traces.views() == [RUN, node_view("joined", parent=None), node_view("left")]
    assert traces.attributes("joined")["hamilton.node.upstream"] == ()


def test_node_of_another_adapter_is_linked(traces: Traces, adapter: FutureAdapter) -> None:
    """An input that a node of another adapter makes is upstream all the same."""
    with make_adapter(traces) as other:
        loaded = submit(other, load)
        loaded.result()
        assert submit(adapter, left, load=loaded).result() == 2
    adapter.close()
    assert traces.views() == [node_view("left", "load", parent=None), node_view("load", parent=None)]


def test_node_of_another_adapter_that_has_not_started_is_linked(
    traces: Traces, adapter: FutureAdapter, one_worker: FutureAdapter
) -> None:
    """The link does not depend on whether the other adapter's node had a span already when this one was submitted."""
    gate = Gate()
    submit(one_worker, gate)
    gate.wait_for()
    loaded = submit(one_worker, load)
    waiting = submit(adapter, left, load=loaded)
    gate.open()
    assert waiting.result(timeout=60) == 2
    one_worker.close()
    adapter.close()
    assert traces.views() == [
        node_view("Gate", parent=None),
        node_view("left", "load", parent=None),
        node_view("load", parent=None),
    ]


def test_node_of_another_adapter_by_two_parameters_is_one_link(traces: Traces, adapter: FutureAdapter) -> None:
    """One link per upstream span holds across adapters."""
    with make_adapter(traces) as other:
        loaded = submit(other, load)
        loaded.result()
        assert submit(adapter, joined, left=loaded, right=loaded).result() == 2
    adapter.close()
    assert traces.views() == [
        node_view("joined", parent=None, links=(("load", "left"),)),
        node_view("load", parent=None),
    ]


def test_future_that_a_node_returned_is_linked_by_the_parameter(traces: Traces) -> None:
    """A value that came by way of a future in a future has two nodes upstream, both by the same parameter."""
    gate = Gate()

    def inner() -> int:
        gate()
        return 1

    with make_adapter(traces, max_workers=2) as adapter:
        waiting = submit(adapter, left, load=submit(adapter, lambda: submit(adapter, inner)))
        gate.wait_for()
        until(lambda: adapter.snapshot().active_workers == 1)  # `left` has been taken, and put back to wait for `inner`
        gate.open()
        assert waiting.result(timeout=60) == 2
    assert traces.views() == [
        node_view("<lambda>", parent=None),
        node_view("inner", parent="<lambda>"),
        node_view("left", parent=None, links=(("<lambda>", "load"), ("inner", "load"))),
    ]


def test_future_that_a_node_returned_is_linked_when_it_is_done(traces: Traces, adapter: FutureAdapter) -> None:
    """As above, where the inner node has ended before: links do not depend on who was faster."""

    def outer() -> Future[Any]:
        inner = submit(adapter, load)
        inner.result()
        return inner

    assert submit(adapter, left, load=submit(adapter, outer)).result() == 2
    adapter.close()
    assert traces.views() == [
        node_view("left", parent=None, links=(("outer", "load"), ("load", "load"))),
        node_view("load", parent="outer"),
        node_view("outer", parent=None),
    ]


def test_two_hundred_upstream_nodes_are_all_named(traces: Traces, adapter: FutureAdapter) -> None:
    """The SDK keeps 128 links of a span; `hamilton.node.upstream` keeps every name."""
    make_driver(adapter, *_wide(200)).execute(["total"])
    total = traces.only("total")
    assert (len(total.links), total.dropped_links) == (128, 72)
    assert traces.attributes("total")["hamilton.node.upstream"] == tuple(f"n{i}" for i in range(200))


# Dynamic execution


def branch() -> Parallelizable[int]:
    yield from (1, 2, 3)


def twice(branch: int) -> int:
    return 2 * branch


def once_more(twice: int) -> int:
    return 2 * twice


def gathered(once_more: Collect[int]) -> int:
    return sum(once_more)


@pytest.mark.parametrize(
    "executor",
    [executors.SynchronousLocalTaskExecutor(), executors.MultiThreadingExecutor(max_tasks=3)],
    ids=lambda executor: type(executor).__name__,
)
def test_branches_are_linked_from_the_split_to_the_join(
    traces: Traces, adapter: FutureAdapter, executor: executors.TaskExecutor
) -> None:
    """Each branch's first node is linked to the node that was split, and the collecting node to every branch."""
    dr = make_dynamic_driver(adapter, branch, twice, once_more, gathered, executor=executor)
    assert dr.execute(["gathered"]) == {"gathered": 24}
    adapter.close()
    assert traces.views() == [
        node_view("branch"),
        node_view("gathered", links=(("once_more", "once_more"),) * 3),
        RUN,
        *[node_view("once_more", "twice")] * 3,
        *[node_view("twice", "branch")] * 3,
    ]
    collected = [link.context.span_id for link in traces.only("gathered").links]
    branches = {context_of(span).span_id: span for span in traces.spans if span.name == "once_more"}
    assert sorted(collected) == sorted(branches)
    assert len({branch.links[0].context.span_id for branch in branches.values()}) == 3
    assert traces.attributes("gathered")["hamilton.node.upstream"] == ("once_more",)
    assert traces.attributes("hamilton.run")["hamilton.run.node.count"] == 8


@pytest.mark.parametrize(
    "executor",
    [executors.SynchronousLocalTaskExecutor(), executors.MultiThreadingExecutor(max_tasks=3)],
    ids=lambda executor: type(executor).__name__,
)
def test_callers_context_reaches_the_branches(
    traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer, executor: executors.TaskExecutor
) -> None:
    """Hamilton's executors submit nodes from threads of their own: they are the caller's all the same."""

    def seen(branch: int) -> object:
        return baggage.get_baggage("customer")

    def all_seen(seen: Collect[object]) -> list[object]:
        return list(seen)

    dr = make_dynamic_driver(adapter, branch, seen, all_seen, executor=executor)
    token = context.attach(baggage.set_baggage("customer", "c-17"))
    try:
        with tracer.start_as_current_span("request"):
            assert dr.execute(["all_seen"]) == {"all_seen": ["c-17"] * 3}
    finally:
        context.detach(token)
    adapter.close()
    assert {view.name: view.parent for view in traces.views()} == {
        "all_seen": "hamilton.run",
        "branch": "hamilton.run",
        "hamilton.run": "request",
        "request": None,
        "seen": "hamilton.run",
    }


def test_run_belongs_to_the_caller_whatever_hooks_make_current(
    traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer
) -> None:
    """Another adapter's hook starts a span around the graph: the run is still a child of the span that called it."""
    tokens: list[Any] = []

    class Wraps(GraphExecutionHook):
        def run_before_graph_execution(self, **future_kwargs: Any) -> None:
            tokens.append(context.attach(trace.set_span_in_context(tracer.start_span("theirs"))))

        def run_after_graph_execution(self, **future_kwargs: Any) -> None:
            trace.get_current_span().end()
            context.detach(tokens.pop())

    with tracer.start_as_current_span("request"):
        make_driver(adapter, load, adapters=[Wraps()]).execute(["load"])
    assert {view.name: view.parent for view in traces.views()} == {
        "hamilton.run": "request",
        "load": "hamilton.run",
        "request": None,
        "theirs": "request",
    }


def test_task_id_tells_branches_apart(traces: Traces, adapter: FutureAdapter) -> None:
    """In dynamic execution each node has its task's id, and those of the branches differ."""
    seen: dict[str, list[str | None]] = {}

    class TaskIds(NodeExecutionHook):
        def run_before_node_execution(self, *, node_name: str, task_id: str | None, **future_kwargs: Any) -> None:
            seen.setdefault(node_name, []).append(task_id)

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            pass

    dr = make_dynamic_driver(adapter, branch, twice, once_more, gathered, adapters=[TaskIds()])
    dr.execute(["gathered"])
    exported: dict[str, list[Any]] = {}
    for span in traces.spans:
        if span.name != "hamilton.run":
            exported.setdefault(span.name, []).append(dict(span.attributes or {})["hamilton.task.id"])
    assert {name: sorted(ids) for name, ids in exported.items()} == {
        name: sorted(filter(None, ids)) for name, ids in seen.items()
    }
    assert len(set(exported["twice"])) == 3


# Outcomes


def test_outcomes_after_a_failure(traces: Traces, adapter: FutureAdapter) -> None:
    """The node that raised is the error, with the exception; what needed it never ran and names it, at any depth."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after, far).execute(["far"])
    never_ran = {"outcome": "upstream_error", "failed_upstream": "fails"}
    assert traces.views() == [
        node_view("after", "fails", **never_ran),
        node_view("fails", **failed("ValueError"), events=("exception",)),
        node_view("far", links=(("after", "after"), ("fails", None)), **never_ran),  # its input, and what stopped it
        View(name="hamilton.run", **failed("ValueError")),
    ]


def test_run_goes_on_after_a_failure(traces: Traces, one_worker: FutureAdapter) -> None:
    """Nodes that do not need what failed run, and are a success."""
    outputs = make_driver(one_worker, fails, after, load, left).raw_execute(["after", "left"])
    assert outputs["left"].result(timeout=60) == 2
    one_worker.close()
    assert {view.name: view.outcome for view in traces.views()} == {
        "after": "upstream_error",
        "fails": "error",
        "hamilton.run": "error",
        "left": "success",
        "load": "success",
    }


def test_fail_fast_cancels_what_has_not_started(traces: Traces) -> None:
    """The cancelled node needs nothing of the one that failed; its span, of no length, is linked to it."""
    gate = Gate()

    def held_then_fails() -> int:
        gate()
        raise ValueError("a message")

    def innocent() -> int:
        return 1

    def needs_it(innocent: int) -> int:
        return innocent

    with make_adapter(traces, max_workers=1, fail_fast=True) as adapter:
        dr = make_driver(adapter, held_then_fails, innocent, needs_it)
        outputs = dr.raw_execute(["held_then_fails", "innocent", "needs_it"])
        gate.wait_for()
        gate.open()
        with pytest.raises(ValueError, match="a message"):
            outputs["needs_it"].result(timeout=60)
    assert traces.views() == [
        View(name="hamilton.run", **failed("ValueError")),
        node_view(
            "held_then_fails",
            **failed("ValueError"),
            events=("exception",),
        ),
        node_view("innocent", links=(("held_then_fails", None),), outcome="cancelled"),
        node_view("needs_it", links=(("innocent", "innocent"), ("held_then_fails", None)), outcome="cancelled"),
    ]
    assert [start_ns == end_ns for start_ns, end_ns in map(times, traces.spans)].count(True) == 2


def test_node_submitted_after_the_failure_is_cancelled_by_fail_fast(traces: Traces) -> None:
    """Hamilton may still be walking the graph when a node fails; what it submits then is not started either."""

    class FailsBeforeTheNext(FutureAdapter):
        def do_remote_execute(self, **kwargs: Any) -> Any:
            future = super().do_remote_execute(**kwargs)
            if kwargs["node"].name == "fails":
                future.exception(timeout=60)
                until(lambda: self.snapshot().active_workers == 0)
            return future

    def late() -> int:
        return 1

    adapter = FailsBeforeTheNext(fail_fast=True, tracer_provider=traces.provider, metrics=False)
    with adapter, pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, late).execute(["fails", "late"])
    assert traces.views() == [
        node_view("fails", **failed("ValueError"), events=("exception",)),
        View(name="hamilton.run", **failed("ValueError")),
        node_view("late", links=(("fails", None),), outcome="cancelled"),
    ]


def test_node_that_never_ran_has_the_documented_attributes(traces: Traces, adapter: FutureAdapter) -> None:
    """All but those of a thread and a function's run: it had neither thread nor CPU time."""

    @tag(team="core")
    def unreached(fails: int) -> int:
        return fails

    run_ids = RunIds()
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, unreached, adapters=[run_ids]).execute(["unreached"])
    attributes = traces.attributes("unreached")
    module = attributes.pop("hamilton.node.tag.module")
    assert attributes == {
        "hamilton.node.name": "unreached",
        "hamilton.run.id": run_ids.seen[0],
        "hamilton.threadpool.name": "default",
        "hamilton.node.upstream": ("fails",),
        "hamilton.node.outcome": "upstream_error",
        "hamilton.node.failed_upstream": "fails",
        "hamilton.node.dependency.duration": SOME_SECONDS,
        "hamilton.node.queue.duration": 0.0,
        "hamilton.node.tag.team": "core",
        "code.function.name": f"{module}.{sys.modules[module].unreached.__qualname__}",
        "code.file.path": __file__,
        "code.line.number": unreached.__code__.co_firstlineno,
    }


def test_cancelled_future_is_a_cancelled_node(traces: Traces, one_worker: FutureAdapter) -> None:
    """`Future.cancel` ends the node and what needs it as `cancelled`; the second is linked to the first."""
    gate = Gate()
    submit(one_worker, gate)
    gate.wait_for()
    queued = submit(one_worker, load)
    submit(one_worker, left, load=queued)
    assert queued.cancel()
    gate.open()
    one_worker.close()
    assert traces.views() == [
        node_view("Gate", parent=None),
        node_view("left", "load", parent=None, outcome="cancelled"),
        node_view("load", parent=None, outcome="cancelled"),
    ]


def test_foreign_failure_names_no_upstream(traces: Traces, adapter: FutureAdapter) -> None:
    """A future of somebody else's failed: no node's function raised, so none is named, and none is linked."""
    foreign: Future[int] = Future()
    waiting = submit(adapter, left, load=foreign)
    error = ConnectionError("gone")
    foreign.set_exception(error)
    assert waiting.exception(timeout=60) is error
    adapter.close()
    assert traces.views() == [node_view("left", parent=None, outcome="upstream_error")]


def test_failed_upstream_is_named_through_a_returned_future(traces: Traces, adapter: FutureAdapter) -> None:
    """The node that raised was submitted by an upstream node, and had ended before its future was returned."""

    def outer() -> Future[Any]:
        inner = submit(adapter, fails)
        inner.exception()
        return inner

    waiting = submit(adapter, left, load=submit(adapter, outer))
    assert isinstance(waiting.exception(timeout=60), ValueError)
    adapter.close()
    assert traces.attributes("left")["hamilton.node.outcome"] == "upstream_error"
    assert traces.attributes("left").get("hamilton.node.failed_upstream") == "fails"


def test_exception_is_recorded_once_where_it_was_raised(traces: Traces, adapter: FutureAdapter) -> None:
    """Type, message and the stack down to the node's function, at the node's end, on that span alone."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after, far).execute(["far"])
    events = [(span.name, event) for span in traces.spans for event in span.events]
    assert [(name, event.name) for name, event in events] == [("fails", "exception")]
    event = events[0][1]
    attributes = dict(event.attributes or {})
    assert (attributes["exception.type"], attributes["exception.message"]) == ("ValueError", "a message")
    assert 'raise ValueError("a message")' in str(attributes["exception.stacktrace"])
    assert event.timestamp == times(traces.only("fails"))[1]


def test_exception_is_not_recorded_on_request(traces: Traces) -> None:
    """`record_exceptions=False` keeps the type alone, as attribute and as the status's description."""
    with (
        make_adapter(traces, tracing=Tracing(record_exceptions=False)) as adapter,
        pytest.raises(ValueError, match="a message"),
    ):
        make_driver(adapter, fails).execute(["fails"])
    assert traces.views() == [
        node_view("fails", **failed("ValueError")),
        View(name="hamilton.run", **failed("ValueError")),
    ]


class Refused(Exception):
    """An exception of an application's own."""


@pytest.mark.parametrize(
    ("error", "error_type"),
    [(Refused("why"), f"{Refused.__module__}.Refused"), (SystemExit(3), "SystemExit")],
    ids=["with a module", "not an Exception"],
)
def test_error_type_is_the_qualified_name(
    traces: Traces, adapter: FutureAdapter, error: BaseException, error_type: str
) -> None:
    """`error.type` has the module, but for builtins, and is the same in the status."""

    def raises() -> int:
        raise error

    assert submit(adapter, raises).exception() is error
    adapter.close()
    assert traces.views() == [
        node_view(
            "raises",
            parent=None,
            **failed(error_type),
            events=("exception",),
        )
    ]


def test_failing_hook_is_the_nodes_failure(traces: Traces, adapter: FutureAdapter) -> None:
    """Another adapter's hook around the node raises: to whoever reads the trace, that node failed."""

    class Fails(NodeExecutionHook):
        def run_before_node_execution(self, **future_kwargs: Any) -> None:
            raise LookupError

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            pass

    with pytest.raises(LookupError):
        make_driver(adapter, load, adapters=[Fails()]).execute(["load"])
    assert traces.views() == [
        View(name="hamilton.run", **failed("LookupError")),
        node_view("load", **failed("LookupError"), events=("exception",)),
    ]


# Sampling


def test_unsampled_run_exports_nothing_and_builds_nothing() -> None:
    """A sampler that says no is shown names alone: no attribute and no link has been built for it."""
    sampler = Watching(ALWAYS_OFF)
    traces = Traces(sampler=sampler)

    @tag(team="core")
    def tagged(load: int) -> int:
        return load

    with make_adapter(traces) as adapter:
        make_driver(adapter, load, tagged).execute(["tagged"])
    assert sampler.shown == {"hamilton.run": ({}, []), "load": ({}, []), "tagged": ({}, [])}
    assert traces.spans == ()


def test_unsampled_node_that_never_ran_is_not_even_started() -> None:
    """No span is made of it, since nobody would see it."""
    sampler = Watching(ALWAYS_OFF)
    traces = Traces(sampler=sampler)
    with make_adapter(traces) as adapter, pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after).execute(["after"])
    assert sorted(sampler.shown) == ["fails", "hamilton.run"]


def test_unsampled_run_is_passed_on() -> None:
    """What a node calls learns that the trace is not sampled, and which one it is."""
    traces = Traces(sampler=ParentBased(ALWAYS_OFF))

    def calls() -> SpanContext:
        return trace.get_current_span().get_span_context()

    with make_adapter(traces) as adapter:
        seen: SpanContext = make_driver(adapter, calls).execute(["calls"])["calls"]
    assert seen.is_valid
    assert not seen.trace_flags.sampled


@pytest.mark.parametrize(("sampled", "exported"), [(True, ["load", "hamilton.run"]), (False, [])])
def test_remote_parent_decides(sampled: bool, exported: list[str]) -> None:
    """Parent-based sampling: a run called by a traced service is in its trace, sampled as that is."""
    traces = Traces(sampler=ParentBased(ALWAYS_OFF if sampled else ALWAYS_ON))
    remote = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(sampled))
    with make_adapter(traces) as adapter:
        token = context.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
        try:
            make_driver(adapter, load).execute(["load"])
        finally:
            context.detach(token)
    assert [span.name for span in traces.spans] == exported
    assert {context_of(span).trace_id for span in traces.spans} <= {0xABC}
    if exported:
        assert traces.only("hamilton.run").parent == remote


def test_ratio_takes_whole_runs() -> None:
    """A sampler by trace id takes a run with all its nodes or not at all."""

    class Counting(RandomIdGenerator):
        """Trace ids at the two ends of what the sampler compares."""

        def __init__(self) -> None:
            self.made = 0

        def generate_trace_id(self) -> int:
            self.made += 1
            return self.made if self.made % 2 else (1 << 64) - self.made

    traces = Traces(sampler=TraceIdRatioBased(0.5), id_generator=Counting())
    with make_adapter(traces) as adapter:
        dr = make_driver(adapter, load, left)
        for _ in range(4):
            dr.execute(["left"])
    exported = sorted((context_of(span).trace_id, span.name) for span in traces.spans)
    assert exported == [(trace_id, name) for trace_id in (1, 3) for name in ("hamilton.run", "left", "load")]


class Picky(Sampler):
    """Takes the spans of some names."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def should_sample(
        self,
        parent_context: context.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        taken = name in self._names
        return SamplingResult(Decision.RECORD_AND_SAMPLE if taken else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "picky"


def test_node_that_is_sampled_in_an_unsampled_run_is_whole() -> None:
    """It lacks neither attributes nor links for the run's having been left out."""

    @tag(team="core")
    def tagged(load: int) -> int:
        return load

    whole, alone = Traces(), Traces(sampler=Picky("tagged"))
    for traces in (whole, alone):
        with make_adapter(traces, attribution=False) as adapter:  # a wait of 0, which is chance, is no attribute
            make_driver(adapter, load, tagged).execute(["tagged"])
    assert alone.views() == [node_view("tagged", parent="not exported", links=(("not exported", "load"),))]
    assert sorted(alone.attributes("tagged")) == sorted(whole.attributes("tagged"))


def test_sampled_run_with_an_unsampled_node_keeps_the_others() -> None:
    """A node that the sampler drops takes nothing else with it."""
    traces = Traces(sampler=Picky("hamilton.run", "left"))
    with make_adapter(traces) as adapter:
        make_driver(adapter, load, left).execute(["left"])
    assert traces.views() == [RUN, node_view("left", links=(("not exported", "load"),))]


def test_recorded_but_not_sampled_spans_reach_processors() -> None:
    """RECORD_ONLY: span processors see everything, the exporter nothing."""

    class Keeps(SpanProcessor):
        def __init__(self) -> None:
            self.seen: dict[str, ReadableSpan] = {}

        def on_end(self, span: ReadableSpan) -> None:
            self.seen[span.name] = span

    traces, processor = Traces(sampler=StaticSampler(Decision.RECORD_ONLY)), Keeps()
    traces.provider.add_span_processor(processor)
    with make_adapter(traces) as adapter:
        make_driver(adapter, load, left).execute(["left"])
    assert traces.spans == ()
    attributes = {name: dict(span.attributes or {}) for name, span in processor.seen.items()}
    assert {name: len(span.links) for name, span in processor.seen.items()} == {
        "hamilton.run": 0,
        "left": 1,
        "load": 0,
    }
    assert attributes["left"]["hamilton.node.upstream"] == ("load",)
    assert attributes["hamilton.run"]["hamilton.run.node.count"] == 2


def test_tracing_can_be_switched_off(traces: Traces) -> None:
    """`tracing=False` makes no span, and leaves the caller's current in the nodes."""
    with (
        make_adapter(traces, tracing=False) as adapter,
        traces.provider.get_tracer("application").start_as_current_span("request") as request,
    ):
        assert submit(adapter, trace.get_current_span).result() is request
        make_driver(adapter, load).execute(["load"])
    assert [span.name for span in traces.spans] == ["request"]


# Without the SDK, and around it


class WatchingTracer(trace.NoOpTracer):
    """The API's own tracer, which makes no span, and remembers what it was given to make one."""

    def __init__(self) -> None:
        self.given: list[tuple[str, bool]] = []

    def start_span(self, name: str, context: Any = None, *args: Any, **options: Any) -> trace.Span:
        self.given.append((name, bool(args or options.get("attributes") or options.get("links"))))
        return super().start_span(name, context, *args, **options)


class WatchingProvider(trace.NoOpTracerProvider):
    """What an application has that has no SDK."""

    def __init__(self) -> None:
        self.tracer = WatchingTracer()

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return self.tracer


@tag(team="core")
def team(load: int) -> int:
    return load


def test_without_an_sdk_no_attribute_is_built() -> None:
    """The run asks for a span once, hears that there are none, and no node asks again."""
    provider = WatchingProvider()
    with make_adapter(tracer_provider=provider) as adapter:
        assert make_driver(adapter, load, team).execute(["team"]) == {"team": 1}
    assert provider.tracer.given == [("hamilton.run", False)]


def test_without_an_sdk_and_a_run_no_attribute_is_built() -> None:
    """Neither does a node outside of any run build attributes that nobody gets."""
    provider = WatchingProvider()
    with make_adapter(tracer_provider=provider) as adapter:
        assert submit(adapter, left, load=submit(adapter, load)).result() == 2
    assert [name for name, built in provider.tracer.given if built] == []


def test_without_an_sdk_the_callers_trace_is_still_passed_on() -> None:
    """A trace that came in from outside is current in the nodes also where no SDK takes part in it."""
    remote = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
    with make_adapter(tracer_provider=trace.NoOpTracerProvider()) as adapter:
        token = context.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
        try:
            seen = submit(adapter, trace.get_current_span).result().get_span_context()
        finally:
            context.detach(token)
    assert seen == remote


def test_everything_works_where_the_sdk_is_not_installed() -> None:
    """A process that cannot import the SDK, and has no provider: the run succeeds and fails as it should."""
    printed = run_program(
        """
        import sys

        class NoSDK:
            def find_spec(self, name, path=None, target=None):
                if name == "opentelemetry.sdk" or name.startswith("opentelemetry.sdk."):
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, NoSDK())
        from hamilton import ad_hoc_utils, driver
        from opentelemetry import trace
        from traced_threadpool import FutureAdapter

        def load() -> int: return 1
        def left(load: int) -> int: return load + 1
        def fails(left: int) -> int: raise ValueError("a message")
        def after(fails: int) -> int: return fails

        module = ad_hoc_utils.create_temporary_module(load, left, fails, after)
        with FutureAdapter(max_workers=2) as adapter:
            dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
            print(dr.execute(["left"]))
            try:
                dr.execute(["after"])
            except ValueError as error:
                print(error)
            print(adapter.telemetry_errors, trace.get_current_span().get_span_context().is_valid)
        print("opentelemetry.sdk" in sys.modules)
        """
    )
    assert printed.splitlines() == ["{'left': 2}", "a message", "{} False", "False"]


def test_provider_that_is_set_later_is_used() -> None:
    """An application may set its provider after the adapter was made, and even after its first run."""
    printed = run_program(
        """
        from hamilton import ad_hoc_utils, driver
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from traced_threadpool import FutureAdapter

        def load() -> int: return 1

        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        module = ad_hoc_utils.create_temporary_module(load)
        with FutureAdapter() as adapter:
            dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
            dr.execute(["load"])
            trace.set_tracer_provider(provider)
            dr.execute(["load"])
        print([span.name for span in exporter.get_finished_spans()])
        """
    )
    assert printed.splitlines() == ["['load', 'hamilton.run']"]


def test_spans_of_pending_nodes_are_exported_at_exit() -> None:
    """A program that ends right after `raw_execute`: its nodes run, and their spans are handed over."""
    printed = run_program(
        """
        import threading
        from hamilton import ad_hoc_utils, driver
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
        from traced_threadpool import FutureAdapter

        ending = threading.Event()
        def held() -> int:
            ending.wait(60)
            return 1
        def after(held: int) -> int: return held

        provider = TracerProvider(shutdown_on_exit=False)
        exporter = ConsoleSpanExporter(formatter=lambda span: span.name + "\\n")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        module = ad_hoc_utils.create_temporary_module(held, after)
        adapter = FutureAdapter(tracer_provider=provider)
        dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
        dr.raw_execute(["after"])
        print("end of the program")
        ending.set()
        """
    )
    assert printed.splitlines() == ["end of the program", "held", "after", "hamilton.run"]


def test_hamiltons_own_tracer_nests_under_ours(traces: Traces, adapter: FutureAdapter) -> None:
    """Combined with `OpenTelemetryTracer`, each of its node spans is a child of ours of that node."""
    h_opentelemetry = pytest.importorskip("hamilton.plugins.h_opentelemetry")
    theirs = h_opentelemetry.OpenTelemetryTracer(tracer=traces.provider.get_tracer("theirs"))
    dr = make_driver(adapter, load, left, right, joined, adapters=[theirs])
    assert dr.execute(["joined"]) == {"joined": 5}
    ours = {
        span.name: span
        for span in traces.spans
        if span.instrumentation_scope and span.instrumentation_scope.name == "traced_threadpool"
    }
    their_nodes = {span.name: span.parent for span in traces.spans if span not in ours.values() and span.name in ours}
    assert their_nodes == {name: context_of(ours[name]) for name in ("load", "left", "right", "joined")}
    run = context_of(ours["hamilton.run"])
    assert [ours[name].parent for name in their_nodes] == [run] * 4


def test_baggage_is_visible_in_nodes(traces: Traces, adapter: FutureAdapter) -> None:
    """What the caller attached to its context is there in every node, under the node's own span."""

    def customer() -> tuple[object, bool]:
        return baggage.get_baggage("customer"), trace.get_current_span().is_recording()

    def later(customer: tuple[object, bool]) -> tuple[object, bool]:
        return baggage.get_baggage("customer"), trace.get_current_span().is_recording()

    token = context.attach(baggage.set_baggage("customer", "c-17"))
    try:
        outputs = make_driver(adapter, customer, later).execute(["customer", "later"])
    finally:
        context.detach(token)
    assert outputs == {"customer": ("c-17", True), "later": ("c-17", True)}


def test_context_that_a_hook_attaches_is_kept_under_the_run(traces: Traces, adapter: FutureAdapter) -> None:
    """Another adapter's hook attaches baggage before the graph: nodes see it, and are below the run's span."""
    tokens: list[Any] = []

    class Attaches(GraphExecutionHook):
        def run_before_graph_execution(self, **future_kwargs: Any) -> None:
            tokens.append(context.attach(baggage.set_baggage("customer", "c-17")))

        def run_after_graph_execution(self, **future_kwargs: Any) -> None:
            context.detach(tokens.pop())

    def customer() -> object:
        return baggage.get_baggage("customer")

    dr = make_driver(adapter, customer, adapters=[Attaches()])
    assert dr.execute(["customer"]) == {"customer": "c-17"}
    assert traces.views() == [node_view("customer"), RUN]


def test_provider_that_is_none_is_refused() -> None:
    """What is not a tracer provider is said at once, with what it should be."""
    with pytest.raises(TypeError, match=r"opentelemetry\.sdk\.trace\.TracerProvider\(\)\), not 'console'"):
        make_adapter(tracer_provider="console")
