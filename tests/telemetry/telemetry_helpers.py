"""What the tests of spans and metrics share: drivers from functions, spans and samples as plain records, gates.

    traces = Traces()
    adapter = make_adapter(traces)
    make_driver(adapter, load, clean).execute(["clean"])
    traces.views()  # [View(name="clean", parent="hamilton.run", links=(("load", "load"),), ...), ...]

Nothing here imports the SDK before a `Traces` is made: the metrics' tests also run where it is not installed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from hamilton import ad_hoc_utils, driver
from hamilton.execution import executors
from hamilton.lifecycle.base import LifecycleAdapter
from opentelemetry import trace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import traced_threadpool
from tests.dags import start
from traced_threadpool import FutureAdapter
from traced_threadpool.adapter import adapter_of
from traced_threadpool.assembly import assemble
from traced_threadpool.options import checked
from traced_threadpool.waits.supervisor import Supervisor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.trace import SpanContext

LIMIT_SECONDS = 60.0
"""How long anything here waits for what must come. Far above what it takes, and below pytest's own limit."""


# Drivers and adapters


def make_adapter(traces: Traces | None = None, *, waits: Supervisor | None = None, **options: Any) -> FutureAdapter:
    """An adapter whose telemetry nobody else sees, unless `options` say where it goes; `waits` looks at its workers."""
    options.setdefault("registry", CollectorRegistry())
    if traces is not None:
        options.setdefault("tracer_provider", traces.provider)
    if waits is None:
        return FutureAdapter(**options)
    return adapter_of(assemble(checked(**options), waits=waits))


def make_driver(
    adapter: FutureAdapter, *functions: Callable[..., Any], adapters: Sequence[LifecycleAdapter] = ()
) -> driver.Driver:
    """A driver of these functions; `adapters` come after `adapter`."""
    module = ad_hoc_utils.create_temporary_module(*functions)
    return _builder().with_modules(module).with_adapters(adapter, *adapters).build()


def make_dynamic_driver(
    adapter: FutureAdapter,
    *functions: Callable[..., Any],
    adapters: Sequence[LifecycleAdapter] = (),
    executor: executors.TaskExecutor | None = None,
) -> driver.Driver:
    """As `make_driver`, for `Parallelizable` and `Collect`."""
    module = ad_hoc_utils.create_temporary_module(*functions)
    return (
        _builder()
        .with_modules(module)
        .enable_dynamic_execution(allow_experimental_mode=True)
        .with_remote_executor(executor or executors.SynchronousLocalTaskExecutor())
        .with_adapters(adapter, *adapters)
        .build()
    )


def _builder() -> driver.Builder:
    return driver.Builder()


class Gate:
    """Called in a node, holds it there until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self) -> None:
        self._entered.release()
        assert self._open.wait(LIMIT_SECONDS), "nobody opened the gate"

    def wait_for(self, nodes: int = 1) -> None:
        """Return once so many more nodes stand at the gate."""
        for _ in range(nodes):
            assert self._entered.acquire(timeout=LIMIT_SECONDS), "no node came to the gate"

    def open(self) -> None:
        self._open.set()


class Caller(threading.Thread):
    """Calls something on a thread of its own; `outcome()` waits for it and gives what it returned or raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._function()
        except BaseException as error:
            self._outcome = error

    def outcome(self) -> Any:
        self.join(LIMIT_SECONDS)
        assert not self.is_alive(), "the call has not returned"
        return self._outcome


def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds, for states that nothing announces."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for has not come"


def spend(seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Let time pass on a clock, so that there is something to measure. Never to order events."""
    end = clock() + seconds
    while clock() < end:
        pass


def objects_of_ours() -> Counter[str]:
    """How many objects of this package's classes there are, by the name of the class, once garbage is collected."""
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    return Counter(
        {kind.__name__: count for kind, count in kinds.items() if str(kind.__module__).startswith("traced_threadpool")}
    )


@contextmanager
def threads_switched_often() -> Iterator[None]:
    """Two threads that never rest, and a switch between threads as often as the interpreter can."""
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            pass

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    spinners = [Caller(spin), Caller(spin)]
    try:
        yield
    finally:
        done.set()
        sys.setswitchinterval(interval)
        for spinner in spinners:
            spinner.outcome()


class Between:
    """Equal to the numbers from `low` to `high`: stands for a measured value in a record."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (int, float)) and self._low <= other <= self._high

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._low!r} to {self._high!r}>"


SOME_SECONDS = Between(0.0, LIMIT_SECONDS)


# Spans


@dataclass(frozen=True, kw_only=True)
class View:
    """A span as a test compares it. Spans are called by their names; `links` are (upstream, parameter)."""

    name: str
    parent: str | None = None
    links: tuple[tuple[str, str | None], ...] = ()
    outcome: str | None = None
    failed_upstream: str | None = None
    error_type: str | None = None
    status: str = "UNSET"
    events: tuple[str, ...] = ()


def node_view(name: str, *upstream: str, **fields: Any) -> View:
    """The usual node: below the usual run, linked to nodes by parameters of their names, and all went well."""
    return View(
        **{
            "name": name,
            "parent": "hamilton.run",
            "links": tuple((each, each) for each in upstream),
            "outcome": "success",
            **fields,
        }
    )


def failed(error_type: str) -> dict[str, Any]:
    """The fields of a run or node that raised."""
    return {"outcome": "error", "error_type": error_type, "status": "ERROR"}


class Traces:
    """A real tracer provider whose spans stay in memory, once the span processor `first` has had them.

    `options` are the provider's.
    """

    def __init__(self, *, first: SpanProcessor | None = None, **options: Any) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._memory = InMemorySpanExporter()
        self._changed = threading.Condition()
        self.provider: TracerProvider = TracerProvider(**{"shutdown_on_exit": False, **options})
        if first is not None:
            self.provider.add_span_processor(first)
        self.provider.add_span_processor(SimpleSpanProcessor(self))  # type: ignore[arg-type]

    # An exporter, to its provider

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._changed:
            result = self._memory.export(spans)
            self._changed.notify_all()
        return result

    def shutdown(self) -> None:
        self._memory.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._memory.force_flush(timeout_millis)

    # What has been exported

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All but those of waits on the path, of which a busy machine has more."""
        return tuple(span for span in self.every if not is_wait(span))

    @property
    def every(self) -> tuple[ReadableSpan, ...]:
        return self._memory.get_finished_spans()

    @property
    def queued(self) -> tuple[ReadableSpan, ...]:
        """Those of queue waits, by their starts."""
        found = (span for span in self.every if "hamilton.queue.node" in (span.attributes or {}))
        return tuple(sorted(found, key=times))

    def clear(self) -> None:
        self._memory.clear()

    def wait_for(self, count: int) -> tuple[ReadableSpan, ...]:
        """The spans once there are `count`: for those that no `execute` or `close` has waited for."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self.spans) >= count, LIMIT_SECONDS)
        assert enough, f"{len(self.spans)} spans of {count}: {[span.name for span in self.spans]}"
        return self.spans

    def only(self, name: str) -> ReadableSpan:
        """The one span of this name."""
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def attributes(self, name: str) -> dict[str, Any]:
        return dict(self.only(name).attributes or {})

    def views(self) -> list[View]:
        """All spans, by name."""
        names = {context_of(span).span_id: span.name for span in self.spans}
        return sorted((_view(span, names) for span in self.spans), key=lambda view: (view.name, repr(view.links)))


def is_wait(span: ReadableSpan) -> bool:
    """Whether it is of a wait on the critical path, or of steps that share it, rather than of a run or node."""
    return not {"hamilton.queue.node", "hamilton.gap.node", "hamilton.path.node.count"}.isdisjoint(
        span.attributes or {}
    )


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def times(span: ReadableSpan) -> tuple[int, int]:
    """Start and end of a span, in nanoseconds of Unix time."""
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def _view(span: ReadableSpan, names: dict[int, str]) -> View:
    attributes: dict[str, Any] = dict(span.attributes or {})
    links: list[tuple[str, Any]] = [
        (
            names.get(link.context.span_id, "not exported"),
            dict(link.attributes or {}).get("hamilton.link.parameter"),
        )
        for link in span.links
    ]
    return View(
        name=span.name,
        parent=None if span.parent is None else names.get(span.parent.span_id, "not exported"),
        links=tuple(links),
        outcome=attributes.get("hamilton.node.outcome", attributes.get("hamilton.run.outcome")),
        failed_upstream=attributes.get("hamilton.node.failed_upstream"),
        error_type=attributes.get("error.type"),
        status=span.status.status_code.name,
        events=tuple(event.name for event in span.events),
    )


# Samples

Labels = tuple[str, ...]

COUNTED_FROM_ZERO = ("hamilton_nodes_total",)
"""There with 0 before it happens, so that Prometheus sees the first one; what has not happened is left out below."""


def samples(registry: CollectorRegistry, name: str) -> dict[Labels, float]:
    """The samples of this exact name in a scrape, by the values of their labels, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == name and (sample.value or name not in COUNTED_FROM_ZERO)
    }


def sample(registry: CollectorRegistry, name: str) -> float:
    """The value of the only sample of this name."""
    (value,) = samples(registry, name).values()
    return value


def buckets(registry: CollectorRegistry, name: str) -> dict[Labels, dict[str, float]]:
    """The cumulative buckets of a histogram: by the values of the labels other than `le`, then by `le`."""
    result: dict[Labels, dict[str, float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for each in family.samples:
            if each.name == f"{name}_bucket":
                labels = tuple(value for key, value in sorted(each.labels.items()) if key != "le")
                result.setdefault(labels, {})[each.labels["le"]] = each.value
    return {labels: counts for labels, counts in result.items() if any(counts.values())}


# Everything at once


@contextmanager
def every_metric_has_a_sample(
    registry: CollectorRegistry, traces: Traces | None = None, **options: Any
) -> Iterator[FutureAdapter]:
    """An adapter that has had a good run, a bad one and a failure in its telemetry, and runs a node right now."""
    gate = Gate()

    def load() -> int:
        return 1

    def fails(load: int) -> int:
        raise ValueError("a message")

    def after(fails: int) -> int:
        return fails

    def held() -> int:
        gate()
        return 1

    with make_adapter(registry=registry, tracer_provider=_NoTracers(), **options) as failing:
        make_driver(failing, load).execute(["load"])
    assert failing.telemetry_errors == {"tracing": 1}

    if traces is None:
        options["tracing"] = False
    with make_adapter(traces, registry=registry, max_workers=1, **options) as adapter:
        make_driver(adapter, load).execute(["load"])
        with contextlib.suppress(ValueError):
            make_driver(adapter, load, fails, after).execute(["after"])
        until(lambda: adapter.snapshot().active_runs == 0)
        outputs = start(make_driver(adapter, held), ["held"])
        gate.wait_for()
        try:
            yield adapter
        finally:
            gate.open()
            outputs["held"].result()


class _NoTracer(trace.NoOpTracer):
    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        raise LookupError("no span today")


class _NoTracers(trace.NoOpTracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _NoTracer()


WAIT_ATTRIBUTES = ("hamilton.node.wait.", "hamilton.run.wait.", "hamilton.run.cpu.", "hamilton.attribution.")
"""Where the time went: which of these a span has depends on what happened."""


QUEUE_ATTRIBUTES = ("hamilton.run.queue.duration", "hamilton.run.critical_path.durations")


def without_waits(attributes: dict[str, Any]) -> dict[str, Any]:
    """Without what a busy machine changes, queue waits on the path included."""
    varying = (*WAIT_ATTRIBUTES, *QUEUE_ATTRIBUTES)
    kept = {key: value for key, value in attributes.items() if not key.startswith(varying)}
    if "hamilton.run.critical_path" in kept:
        path = kept["hamilton.run.critical_path"]
        kept["hamilton.run.critical_path"] = tuple(name for name in path if name != "_queue")
    return kept


# Programs


def run_program(program: str, arguments: Iterable[str] = ()) -> str:
    """Run a program to its end, in a process of its own; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment["PYTHONPATH"] = str(Path(traced_threadpool.__file__).parents[1])
    environment["HAMILTON_TELEMETRY_ENABLED"] = "false"
    result = subprocess.run(
        [sys.executable, *arguments, "-c", dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
