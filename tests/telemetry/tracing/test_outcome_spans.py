"""How a node or run ended, on its span."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.function_modifiers import tag
from hamilton.lifecycle import NodeExecutionHook

from tests.dags import start, submit
from tests.telemetry.small_nodes import after, fails, far, left, load
from tests.telemetry.telemetry_helpers import (
    SOME_SECONDS,
    Gate,
    Traces,
    View,
    failed,
    make_adapter,
    make_driver,
    node_view,
    times,
    until,
)
from tests.telemetry.tracing.span_nodes import RunIds
from traced_threadpool import FutureAdapter, Tracing


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
    outputs = start(make_driver(one_worker, fails, after, load, left), ["after", "left"])
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
        outputs = start(dr, ["held_then_fails", "innocent", "needs_it"])
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
    assert [end_ns - start_ns for start_ns, end_ns in map(times, traces.spans)].count(1_000) == 2


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
    module = attributes["code.function.name"].partition(".")[0]
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
