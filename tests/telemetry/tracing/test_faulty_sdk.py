"""What an application can plug into the SDK, failing or hanging: it costs spans, never results."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import pytest

from tests.telemetry.tracing.faulty import Big, make_big

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from opentelemetry import context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Caller,
    Traces,
    View,
    failed,
    make_adapter,
    make_driver,
    node_view,
    samples,
)
from tests.telemetry.tracing.faulty import Boom, after, fails, left, load
from traced_threadpool import FutureAdapter
from traced_threadpool.telemetry.tracing.observer import TracingObserver


class FailingProcessor(SpanProcessor):
    """Fails at the start or the end of the spans of one name, or of all."""

    def __init__(self, where: str, error: BaseException, name: str | None = None) -> None:
        self._where, self._error, self._name = where, error, name

    def on_start(self, span: Span, parent_context: context.Context | None = None) -> None:
        self._fail("on_start", span.name)

    def on_end(self, span: ReadableSpan) -> None:
        self._fail("on_end", span.name)

    def _fail(self, where: str, name: str) -> None:
        if where == self._where and self._name in (None, name):
            raise self._error


class FailingSampler(Sampler):
    def should_sample(self, *asked: Any, **more: Any) -> SamplingResult:
        raise Boom

    def get_description(self) -> str:
        return "failing"


class FailingIds(RandomIdGenerator):
    def generate_span_id(self) -> int:
        raise Boom


def failing_traces(kind: str, error: BaseException) -> Traces:
    if kind == "sampler":
        return Traces(sampler=FailingSampler())
    if kind == "id generator":
        return Traces(id_generator=FailingIds())
    traces = Traces()
    traces.provider.add_span_processor(FailingProcessor(kind, error))
    return traces


FAULTS = pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("on_start", Boom()),
        ("on_end", Boom()),
        ("on_start", SystemExit(3)),
        ("on_end", SystemExit(3)),
        ("sampler", Boom()),
        ("id generator", Boom()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)


@FAULTS
def test_results_are_right_whatever_fails_in_tracing(kind: str, error: BaseException) -> None:
    """A run of which every span fails returns its result, and so does the next; the caller's context is untouched."""
    with make_adapter(failing_traces(kind, error), max_workers=2) as adapter:
        dr = make_driver(adapter, load, left)
        before = context.get_current()
        assert [dr.execute(["left"]), dr.execute(["left"])] == [{"left": 2}, {"left": 2}]
        assert context.get_current() is before


@FAULTS
def test_exceptions_of_nodes_are_right_whatever_fails_in_tracing(kind: str, error: BaseException) -> None:
    """The caller gets the node's own exception, not telemetry's."""
    adapter = make_adapter(failing_traces(kind, error), max_workers=2)
    with adapter, pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after).execute(["after"])


@FAULTS
def test_nodes_without_a_run_are_right_whatever_fails_in_tracing(kind: str, error: BaseException) -> None:
    """The same for `do_remote_execute` called directly, where each node's span stands alone."""
    with make_adapter(failing_traces(kind, error), max_workers=2) as adapter:
        loaded = adapter.do_remote_execute(execute_lifecycle_for_node=load, node=None)
        future = adapter.do_remote_execute(execute_lifecycle_for_node=left, node=None, load=loaded)
        assert future.result(timeout=LIMIT_SECONDS) == 2
    assert adapter.telemetry_errors == {"tracing": 2}


@pytest.mark.parametrize(
    ("where", "name", "left_over"),
    [
        ("on_start", "load", [View(name="hamilton.run", outcome="success"), node_view("left")]),
        ("on_start", "hamilton.run", []),
        # the processor fails after the exporter before it has had the span
        (
            "on_end",
            "load",
            [View(name="hamilton.run", outcome="success"), node_view("left", "load"), node_view("load")],
        ),
    ],
)
def test_one_failure_costs_one_span(where: str, name: str, left_over: list[View]) -> None:
    """It is counted once and the other spans are there, without links to it; without a run's span there are none."""
    traces = Traces()
    traces.provider.add_span_processor(FailingProcessor(where, Boom(), name))
    with make_adapter(traces) as adapter:
        assert make_driver(adapter, load, left).execute(["left"]) == {"left": 2}
    assert adapter.telemetry_errors == {"tracing": 1}
    assert traces.views() == left_over


def test_failures_are_counted_in_the_metrics() -> None:
    """`hamilton_telemetry_errors_total` has as many as `telemetry_errors`, under the component's name."""
    registry = CollectorRegistry()
    with make_adapter(failing_traces("on_end", Boom()), registry=registry) as adapter:
        assert samples(registry, "hamilton_telemetry_errors_total") == {}
        make_driver(adapter, load, left).execute(["left"])
    assert adapter.telemetry_errors == {"tracing": 3}
    assert samples(registry, "hamilton_telemetry_errors_total") == {("tracing",): 3.0}


def test_failures_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first is a warning with the exception; the others are only counted, or they would fill the log."""
    with caplog.at_level(logging.DEBUG, "traced_threadpool"), make_adapter(failing_traces("on_end", Boom())) as adapter:
        dr = make_driver(adapter, load, left)
        dr.execute(["left"])
        dr.execute(["left"])
    records = [record for record in caplog.records if record.name.startswith("traced_threadpool")]
    assert [(record.levelname, record.exc_info and record.exc_info[0]) for record in records] == [("WARNING", Boom)]
    assert "tracing (Boom)" in records[0].getMessage()
    assert "hamilton_telemetry_errors_total" in records[0].getMessage()
    assert adapter.telemetry_errors == {"tracing": 6}


def test_failing_exporter_costs_nothing_but_its_spans(caplog: pytest.LogCaptureFixture) -> None:
    """The SDK itself catches what an exporter raises, and logs it: no error of ours, and all results right."""

    class Failing(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise Boom

    traces = Traces()
    traces.provider.add_span_processor(SimpleSpanProcessor(Failing()))
    with make_adapter(traces) as adapter:
        assert make_driver(adapter, load, left).execute(["left"]) == {"left": 2}
    assert adapter.telemetry_errors == {}
    assert [view.name for view in traces.views()] == ["hamilton.run", "left", "load"]
    assert [record.message for record in caplog.records] == ["Exception while exporting Span."] * len(traces.every)


def test_exception_that_cannot_be_shown_still_ends_its_span() -> None:
    """Recording an exception calls its `__str__`; when that fails, the node's span is there, without the event."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise Boom

    def odd() -> int:
        raise Unprintable

    traces = Traces()
    with make_adapter(traces) as adapter:
        future = adapter.do_remote_execute(execute_lifecycle_for_node=odd, node=None)
        assert isinstance(future.exception(timeout=LIMIT_SECONDS), Unprintable)
    name = f"{__name__}.{Unprintable.__qualname__}"
    assert traces.views() == [node_view("odd", parent=None, **failed(name))]
    assert adapter.telemetry_errors == {"tracing": 1}


def test_tag_that_is_no_attribute_is_told_as_text() -> None:
    """Hamilton's tags are strings and lists of them; whatever else a program puts there does not cost the span."""
    from hamilton.node import Node

    tags = {"owner": 7, "since": {"year": 2020}, "parts": ["a", 1]}
    node = Node("priced", int, callabl=load, tags=tags)
    traces = Traces()
    with make_adapter(traces) as adapter:
        adapter.do_remote_execute(execute_lifecycle_for_node=load, node=node).result(timeout=LIMIT_SECONDS)
    told = {key: value for key, value in traces.attributes("priced").items() if ".tag." in key}
    assert told == {
        "hamilton.node.tag.owner": 7,
        "hamilton.node.tag.since": "{'year': 2020}",
        "hamilton.node.tag.parts": ("a", "1"),
    }


class Blocking(SpanProcessor):
    """Holds the ends of spans back until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    def on_end(self, span: ReadableSpan) -> None:
        self.entered.set()
        assert self.go.wait(LIMIT_SECONDS)


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    processor = Blocking()
    yield processor
    processor.go.set()


@pytest.fixture
def blocked_traces(blocking: Blocking) -> Traces:
    """The blocking processor comes first, so that nothing is exported before it lets go."""
    return Traces(first=blocking)


def test_execute_returns_while_a_span_processor_blocks(
    blocking: Blocking, blocked_traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run waits for its spans as long as the limit, the next not at all; once let go, all spans arrive."""
    with make_adapter(blocked_traces) as adapter:
        dr = make_driver(adapter, load, left)
        assert dr.execute(["left"]) == {"left": 2}
        assert blocking.entered.is_set()
        monkeypatch.setattr(TracingObserver.flush, "__defaults__", (LIMIT_SECONDS,))  # what it would wait, were it to
        started = time.monotonic()
        assert dr.execute(["left"]) == {"left": 2}
        assert time.monotonic() - started < LIMIT_SECONDS
        assert blocked_traces.spans == ()
        blocking.go.set()
        blocked_traces.wait_for(6)
    assert Counter(view.name for view in blocked_traces.views()) == {"hamilton.run": 2, "left": 2, "load": 2}
    assert adapter.telemetry_errors == {}


def test_execute_waits_for_its_spans_again_once_the_processor_has_moved(
    blocking: Blocking, blocked_traces: Traces
) -> None:
    """Giving up once is not giving up for good: after the block all spans are exported when `execute` returns."""
    with make_adapter(blocked_traces) as adapter:
        dr = make_driver(adapter, load)
        dr.execute(["load"])
        blocking.go.set()
        blocked_traces.wait_for(2)
        blocked_traces.clear()
        dr.execute(["load"])
        assert [span.name for span in blocked_traces.spans] == ["load", "hamilton.run"]


def test_close_returns_while_a_span_processor_blocks(blocking: Blocking, blocked_traces: Traces) -> None:
    """The threads are gone; the spans come when the processor lets go."""
    adapter = make_adapter(blocked_traces, max_workers=2)
    future = adapter.do_remote_execute(execute_lifecycle_for_node=load, node=None)
    assert future.result(timeout=LIMIT_SECONDS) == 1
    assert Caller(adapter.close).outcome() is None
    assert adapter.snapshot().workers == 0
    assert blocked_traces.spans == ()
    blocking.go.set()
    blocked_traces.wait_for(1)
    assert blocked_traces.views() == [node_view("load", parent=None)]


def test_blocked_spans_keep_no_result_alive(blocking: Blocking, blocked_traces: Traces) -> None:
    """While telemetry hangs, the values that nodes passed to each other are freed as ever."""
    big, ref = make_big()

    def size(big: Big) -> int:
        return 1

    with make_adapter(blocked_traces) as adapter:
        dr = make_driver(adapter, big, size)
        assert dr.execute(["size"]) == {"size": 1}
        assert blocking.entered.is_set()
        gc.collect()
        assert ref[0]() is None
        blocking.go.set()


def test_a_provider_that_gives_no_tracer() -> None:
    """Costs the spans and is counted; the adapter is made and runs its nodes."""

    class Refusing(TracerProvider):
        def get_tracer(self, *arguments: Any, **keywords: Any) -> NoReturn:
            raise RuntimeError("no tracer")

    with FutureAdapter(1, tracer_provider=Refusing(), registry=CollectorRegistry()) as adapter:
        assert make_driver(adapter, one).execute(["one"]) == {"one": 1}
        assert adapter.telemetry_errors == {"tracing": 1}


def one() -> int:
    return 1
