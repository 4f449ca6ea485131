"""The span of a run: its parent, attributes, times and end."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from tests.dags import start
from tests.telemetry.tracing.span_nodes import wide

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.graph_types import HamiltonGraph
from hamilton.io.materialization import to
from hamilton.lifecycle import GraphExecutionHook, ResultBuilder
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from tests.telemetry.small_nodes import after, fails, far, holding, joined, left, load, pending, right
from tests.telemetry.telemetry_helpers import (
    Caller,
    Gate,
    Traces,
    View,
    context_of,
    failed,
    make_adapter,
    make_driver,
    node_view,
    spend,
    threads_switched_often,
    times,
    until,
    without_waits,
)
from tests.telemetry.tracing.span_nodes import RUN, RunIds
from traced_threadpool import FutureAdapter, Tracing, __version__
from traced_threadpool.hamilton_graph import PARSES_SAFELY


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
        "thread.id": threading.get_ident(),
        **({"hamilton.graph.version": HamiltonGraph.from_graph(dr.graph).version} if PARSES_SAFELY else {}),
        "hamilton.run.critical_path": ("load", "left", "joined"),
        "hamilton.cpus.limit": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
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
    """Status ERROR with the exception's message, `error.type` its type; the exception itself is not on the run."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails).execute(["fails"])
    run, node = traces.only("hamilton.run"), traces.only("fails")
    assert [run.name, run.status.status_code.name, run.status.description, run.events] == [
        "hamilton.run",
        "ERROR",
        "a message",
        (),
    ]
    assert node.status.description == "a message"
    assert traces.attributes("hamilton.run")["hamilton.run.outcome"] == "error"
    assert traces.attributes("hamilton.run")["error.type"] == "ValueError"


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

    held = holding(gate)

    outputs = start(make_driver(one_worker, held, pending), ["held", "pending"])
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

    held = holding(gate)

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

    held = holding(gate)

    outputs = start(make_driver(one_worker, held, pending), ["held", "pending"])
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

    with Announcing(max_workers=1, tracer_provider=traces.provider, metrics=False) as adapter:
        with pytest.raises(KeyboardInterrupt):
            make_driver(adapter, held, pending).execute(["pending"])
        gate.open()
    assert traces.views() == [
        View(name="hamilton.run", outcome="cancelled"),
        node_view("held"),
        node_view("pending", "held", outcome="cancelled"),
    ]


def test_a_run_interrupted_as_it_starts_is_started_once(caplog: pytest.LogCaptureFixture) -> None:
    """What is raised while it is told of, by a signal handler say, reaches the caller; nobody is told twice."""
    started = []

    class Interrupted(SpanProcessor):
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            if span.name == "hamilton.run":
                started.append(span.name)
            if len(started) == 1:
                raise KeyboardInterrupt

    provider = TracerProvider()
    provider.add_span_processor(Interrupted())
    with FutureAdapter(max_workers=1, tracer_provider=provider, metrics=False) as adapter:
        runs = make_driver(adapter, load)
        with pytest.raises(KeyboardInterrupt):
            runs.execute(["load"])
        assert started == ["hamilton.run"]
        assert runs.execute(["load"]) == {"load": load()}
    assert started == ["hamilton.run", "hamilton.run"]
    assert [record.getMessage() for record in caplog.records] == []


def test_run_span_ends_with_its_last_node(traces: Traces, adapter: FutureAdapter) -> None:
    """Although its caller has left: the run goes on until its last node has ended."""
    gate = Gate()

    held = holding(gate)

    outputs = start(make_driver(adapter, held), ["held"])
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
    dr = make_driver(adapter, *wide(100))
    dr.execute(["total"])
    assert len(traces.spans) == 102


def test_all_spans_are_exported_when_execute_raises(traces: Traces, adapter: FutureAdapter) -> None:
    """So may one whose run failed."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after).execute(["after"])
    assert [span.name for span in traces.spans] == ["fails", "after", "hamilton.run"]


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
