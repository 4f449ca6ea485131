"""Tracing that fails, blocks or leaks nothing: what goes wrong in telemetry costs spans, never results."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind
from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Caller,
    Gate,
    Traces,
    View,
    failed,
    make_adapter,
    make_driver,
    node_view,
    run_program,
    samples,
    until,
)
from traced_threadpool import FutureAdapter
from traced_threadpool.telemetry.tracing.observer import Tracing
from traced_threadpool.waits.estimate import Account
from traced_threadpool.waits.supervisor import service


class Boom(Exception):
    """What telemetry raises here."""


def load() -> int:
    return 1


def left(load: int) -> int:
    return load + 1


def fails() -> int:
    raise ValueError("a message")


def after(fails: int) -> int:
    return fails


# Everything an application can plug into the SDK, failing


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
    assert [record.message for record in caplog.records] == ["Exception while exporting Span."] * 3


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


# A span processor that does not come back


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
        monkeypatch.setattr(Tracing.flush, "__defaults__", (LIMIT_SECONDS,))  # what it would wait, were it to
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


# Nothing is kept


class Big:
    """A value that can be watched."""


def make_big() -> tuple[Any, list[weakref.ref[Big]]]:
    """A node that makes a `Big`, and where to find it."""
    made: list[weakref.ref[Big]] = []

    def big() -> Big:
        value = Big()
        made.append(weakref.ref(value))
        return value

    return big, made


def test_result_is_freed_as_soon_as_nobody_needs_it() -> None:
    """In the middle of a run: a node that two others have used already is gone when the last one runs."""
    big, ref = make_big()
    gate = Gate()
    alive: list[bool] = []

    def first(big: Big) -> int:
        return 1

    def second(big: Big) -> int:
        return 2

    def last(first: int, second: int) -> int:
        gate()
        gc.collect()
        alive.append(ref[0]() is not None)
        return first + second

    with make_adapter(Traces()) as adapter:
        outputs = make_driver(adapter, big, first, second, last).raw_execute(["last"])
        gate.wait_for()
        gate.open()
        assert outputs["last"].result(timeout=LIMIT_SECONDS) == 3
    assert alive == [False]


def test_result_is_freed_with_its_future() -> None:
    """Neither adapter, run nor span keeps what the caller has let go of."""
    big, ref = make_big()
    traces = Traces()
    with make_adapter(traces) as adapter:
        outputs = make_driver(adapter, big).execute(["big"])
        assert isinstance(outputs.pop("big"), Big)
        gc.collect()
        assert ref[0]() is None
        assert len(traces.spans) == 2


@pytest.fixture
def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """Hamilton logs exceptions, and pytest keeps what is logged, with its tracebacks and all that they hold."""
    caplog.set_level(logging.CRITICAL + 1, "hamilton")


@pytest.mark.usefixtures("unlogged")
def test_failed_run_keeps_nothing_alive() -> None:
    """An exception holds its frames, and they hold values; once the caller drops it, all are freed."""
    big, ref = make_big()

    def breaks(big: Big) -> int:
        raise ValueError("a message")

    def never(breaks: int) -> int:
        return breaks

    with make_adapter(Traces()) as adapter:
        with pytest.raises(ValueError, match="a message"):
            make_driver(adapter, big, breaks, never).execute(["never"])
        gc.collect()
        assert ref[0]() is None


def own_objects() -> Counter[str]:
    """How many objects there are of this package's classes and of the SDK's spans.

    Without the accounts of where nodes wait: one for each node's name, made when it first has something to divide.
    """
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if str(kind.__module__).startswith(("traced_threadpool", "opentelemetry.sdk.trace")) and kind is not Account
    )


@pytest.fixture
def sampled() -> Iterator[None]:
    """What looks at workers is the process's: it comes once nodes have run for a while. Here it is there, and stays."""

    def naps() -> None:
        time.sleep(0.06)

    with make_adapter(tracing=False) as adapter:
        driver = make_driver(adapter, naps)
        until(lambda: bool(driver.execute(["naps"])) and "warming_up" not in str(service.method.reason))
        yield


@pytest.mark.usefixtures("unlogged", "sampled")
def test_many_runs_leave_nothing_behind() -> None:
    """After fifty runs, good, failed and nested, there are no more objects and threads than after the first."""
    traces = Traces()
    with make_adapter(traces, max_workers=2) as adapter:
        inner = make_driver(adapter, load, left)

        def outer() -> int:
            result: dict[str, int] = inner.execute(["left"])
            return result["left"]

        good, bad = make_driver(adapter, outer), make_driver(adapter, fails, after)

        def run() -> None:
            good.execute(["outer"])
            with contextlib.suppress(ValueError):
                bad.execute(["after"])
            traces.wait_for(8)
            traces.clear()

        both = threading.Barrier(2)

        def first() -> int:
            return both.wait(LIMIT_SECONDS)

        def second() -> int:
            return both.wait(LIMIT_SECONDS)

        make_driver(adapter, first, second).execute(["first", "second"])  # so both workers are there from now on
        traces.wait_for(3)
        traces.clear()
        for _ in range(2):
            run()
        until(lambda: adapter.snapshot().active_workers == 0)
        objects, threads = own_objects(), threading.active_count()
        for _ in range(50):
            run()
        # What other tests have left may go meanwhile. Without a GIL, what ends the last runs may still
        # be at it.
        until(lambda: own_objects() - objects == Counter())
        assert threading.active_count() <= threads + 1  # the one that ends spans may have ended, and come again


@pytest.mark.usefixtures("sampled")
def test_closed_adapter_is_freed() -> None:
    """With all that belongs to it, when the program drops it: spans, runs, pool and scheduler."""
    before = own_objects()
    traces: Traces | None = Traces()
    adapter: FutureAdapter | None = make_adapter(traces, max_workers=2)
    assert adapter is not None
    make_driver(adapter, load, left).execute(["left"])
    adapter.close()
    until(lambda: not telemetry_threads())
    del adapter, traces
    assert own_objects() - before == Counter()


def telemetry_threads() -> list[threading.Thread]:
    """Those that end spans, the newest last."""
    return [thread for thread in threading.enumerate() if thread.name == "traced-threadpool-telemetry"]


def test_telemetry_thread_ends_when_idle_and_starts_again() -> None:
    """It lives for the spans that there are, is a daemon, and the next run gets a new one."""
    traces = Traces()
    with make_adapter(traces) as adapter:
        seen: list[threading.Thread] = []

        class Notes(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                seen.append(threading.current_thread())

        traces.provider.add_span_processor(Notes())
        dr = make_driver(adapter, load)
        dr.execute(["load"])
        thread = seen[0]
        assert (thread.name, thread.daemon) == ("traced-threadpool-telemetry", True)
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive()
        dr.execute(["load"])
        assert len(traces.spans) == 4


def test_without_spans_there_is_no_telemetry_thread() -> None:
    """A program without an SDK, or with `tracing=False`, pays for no thread."""
    before = {thread.ident for thread in threading.enumerate() if thread.name == "traced-threadpool-telemetry"}
    for options in ({"tracer_provider": trace.NoOpTracerProvider()}, {"tracing": False}):
        with make_adapter(**options) as adapter:
            make_driver(adapter, load, left).execute(["left"])
    after_ = {thread.ident for thread in threading.enumerate() if thread.name == "traced-threadpool-telemetry"}
    assert after_ <= before


# Other processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_tracing_goes_on_in_a_forked_child() -> None:
    """An adapter that has run, is running a node is forked; the child's run is traced, and counted."""
    printed = run_program(
        """
        import os, sys, threading
        from hamilton import ad_hoc_utils, driver
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from prometheus_client import REGISTRY
        from traced_threadpool import FutureAdapter

        seen, entered, go = [], threading.Event(), threading.Event()

        class Keeps(SpanProcessor):
            def on_end(self, span):
                seen.append(span.name)

        def load() -> int: return 1
        def left(load: int) -> int: return load + 1
        def held() -> int:
            entered.set()
            go.wait(60)
            return 1

        def counted():
            labels = {"pool": "default", "node": "left", "outcome": "success"}
            return REGISTRY.get_sample_value("hamilton_nodes_total", labels)

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(Keeps())
        adapter = FutureAdapter(max_workers=2, tracer_provider=provider)
        module = ad_hoc_utils.create_temporary_module(load, left, held)
        dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
        dr.execute(["left"])
        outputs = dr.raw_execute(["held"])
        entered.wait(60)
        pid = os.fork()
        if pid == 0:
            seen.clear()
            print("child", dr.execute(["left"]), seen, adapter.telemetry_errors, counted(), flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        go.set()
        outputs["held"].result()
        adapter.close()
        print("parent", seen, adapter.telemetry_errors, counted())
        """,
        ["-W", "ignore::DeprecationWarning"],  # of forking with threads, which is what is tested here
    )
    assert printed.splitlines() == [
        "child {'left': 2} ['load', 'left', 'hamilton.run'] {} 2",
        "parent ['load', 'left', 'hamilton.run', 'held', 'hamilton.run'] {} 1",
    ]
