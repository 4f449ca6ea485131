"""Tracing without the SDK, and with what else may be set up around it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.function_modifiers import tag
from hamilton.lifecycle import GraphExecutionHook
from opentelemetry import baggage, context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from tests.dags import submit
from tests.telemetry.small_nodes import joined, left, load, right
from tests.telemetry.telemetry_helpers import Traces, context_of, make_adapter, make_driver, node_view, run_program
from tests.telemetry.tracing.span_nodes import RUN
from traced_threadpool import FutureAdapter


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
        names = [span.name for span in exporter.get_finished_spans()]
        print([name for name in names if " " not in name])  # others are of waits
        """
    )
    assert printed.splitlines() == ["['load', 'hamilton.run']"]


def test_spans_of_pending_nodes_are_exported_at_exit() -> None:
    """A program that ends while its run goes on: its nodes run, and their spans are handed over."""
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
        adapter.build_result = lambda **outputs: outputs
        dr.execute(["after"])
        print("end of the program")
        ending.set()
        """
    )
    said = [line for line in printed.splitlines() if not line.startswith(("queued ", "gap "))]
    assert said == ["end of the program", "held", "after", "hamilton.run"]


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
