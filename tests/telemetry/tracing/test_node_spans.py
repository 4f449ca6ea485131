"""The span of a node: its parent, attributes and times."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from tests.dags import start
from tests.telemetry.tracing.span_nodes import chain

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.function_modifiers import parameterize, source, tag, value
from hamilton.lifecycle import NodeExecutionHook
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from tests.dags import submit
from tests.telemetry.small_nodes import after, fails, far, holding, joined, left, load, right
from tests.telemetry.telemetry_helpers import (
    SOME_SECONDS,
    Between,
    Gate,
    Traces,
    View,
    context_of,
    make_adapter,
    make_driver,
    node_view,
    spend,
    threads_switched_often,
    times,
    without_waits,
)
from tests.telemetry.tracing.span_nodes import RUN, RunIds
from traced_threadpool import FutureAdapter
from traced_threadpool.telemetry import attribute_values


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
    assert "hamilton.node.tag.module" not in attributes  # `code.function.name` has it
    module = attributes["code.function.name"].partition(".")[0]
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

    held = holding(gate)

    def waits(held: int) -> int:
        return held

    outputs = start(make_driver(adapter, held, waits), ["waits"])
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


NEVER_RAN = ("upstream_error", "cancelled")


def _disorder(spans: Sequence[ReadableSpan]) -> list[str]:
    """What is wrong with the times: a node before one of its inputs has ended, or outside of its run."""
    by_id = {context_of(span).span_id: span for span in spans}
    wrong = []
    for span in spans:
        start_ns, end_ns = times(span)
        for link in span.links:
            upstream_start_ns, upstream_end_ns = times(by_id[link.context.span_id])
            never_ran = (by_id[link.context.span_id].attributes or {}).get("hamilton.node.outcome") in NEVER_RAN
            if start_ns < (upstream_start_ns if never_ran else upstream_end_ns):
                wrong.append(f"{span.name} starts {upstream_end_ns - start_ns} ns before an input ends")
        if span.parent is not None:
            run_start_ns, run_end_ns = times(by_id[span.parent.span_id])
            if not run_start_ns <= start_ns <= end_ns <= run_end_ns + 2 * attribute_values.UNRUN_NS:
                wrong.append(f"{span.name} is not within its run")
    return wrong


def test_times_agree_with_the_links_under_load(traces: Traces, adapter: FutureAdapter) -> None:
    """No node starts before its inputs end, nor outlives its run, to the nanosecond, however threads are switched."""
    dr = make_driver(adapter, *chain(150))
    with threads_switched_often():
        for _ in range(3):
            dr.execute(["n149"])
    traces.wait_for(453)
    assert _disorder(traces.spans) == []


def test_times_of_nested_runs_agree_under_load(traces: Traces, adapter: FutureAdapter) -> None:
    """A run within a node is within its span too, though it is a run of its own."""
    inner = make_driver(adapter, *chain(10))

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
    """Their spans have a length of 1 µs, for viewers that drop those of none, and come after what stopped them."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after, far).execute(["far"])
    lengths = {name: times(traces.only(name))[1] - times(traces.only(name))[0] for name in ("after", "far")}
    assert lengths == {"after": 1_000, "far": 1_000}
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
