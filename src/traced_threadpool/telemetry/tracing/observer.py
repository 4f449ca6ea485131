"""A run and its nodes into OpenTelemetry spans.

A node's span is started on its worker, right before the node's function, with the links to its upstream spans
(samplers see only what is given at creation), and is made current there. It is ended, with the rest of its
attributes, on a background thread: neither the node's downstream nor its worker waits for a span processor.
A span processor's `on_start` and a sampler do run on the worker; OpenTelemetry asks them not to block.

Needs `opentelemetry-api` alone. Without an SDK, or in a run that is not sampled, no attribute is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import add
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace

from traced_threadpool._version import __version__
from traced_threadpool.model.observers import ErrorLog, Observer
from traced_threadpool.model.records import NOTHING_KEPT, NodeRecord, RunRecord, unix_offset_ns
from traced_threadpool.model.states import CPU, OTHER, STATES, has_waits
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.background import Background
from traced_threadpool.telemetry.lost_spans import lose_spans
from traced_threadpool.telemetry.tracing import attributes
from traced_threadpool.telemetry.tracing.attributes import Definition
from traced_threadpool.telemetry.tracing.large_runs import LargeRun, SpanOnDemand
from traced_threadpool.telemetry.tracing.late_spans import Unrun, record_notable, record_unrun
from traced_threadpool.telemetry.tracing.node_spans import NodeSpans, links
from traced_threadpool.telemetry.tracing.path_cover import PathCover
from traced_threadpool.telemetry.tracing.run_finding import RunFinding
from traced_threadpool.telemetry.tracing.wait_spans import record_waits

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

    from traced_threadpool.model.recorded_run import RecordedRun

FLUSH_SECONDS: Final = 1.0
"""How long `execute` waits for the run's spans to be ended, once its result is there."""


class _RunTrace:
    """What tracing keeps of a run: contexts rather than the span, since a node may outlive the run's span."""

    __slots__ = ("caller_context", "graph_version", "large", "node_context", "recording", "span", "state_ns")

    def __init__(self, span: Span, caller_context: Context, *, recording: bool, large: LargeRun | None) -> None:
        self.span: Span | None = span
        self.caller_context = caller_context
        self.node_context = trace.set_span_in_context(span, caller_context)
        self.recording = recording
        self.large = large  # None where every node has a span, however many there are
        self.graph_version: str | None = None
        self.state_ns: list[int] | None = [0] * len(STATES)  # of all its nodes; by the background thread alone

    def parent_in(self, current: Context) -> Context:
        """The context that the spans of its nodes are started in."""
        if current is self.caller_context or self.span is None:
            return self.node_context
        return trace.set_span_in_context(self.span, current)  # it has changed since: keep what it holds


class TracingObserver(Observer):
    """The observer that makes spans.

    Args:
        tracer_provider: Where spans go; None takes the global one, whenever it is set.
        pool_name: Value of `hamilton.threadpool.name`.
        max_workers: Value of `hamilton.threadpool.workers.limit`.
        backends: Value of `hamilton.threadpool.backends`.
        record_exceptions: Whether the message and stack trace of a node's exception are recorded.
        large_run: Runs of more nodes have spans for the notable ones alone; None for no run.
        warns: Whether the first of such runs is told to the log.
        describe: Gives the tags and the function of a framework's node object.
        graph_version: Gives the version of a framework's graph object, or None.
        diagnose: Gives the cause that is found first of a record, or None if it takes until after this monotonic time.
        errors: Where failures are counted.
    """

    component = "tracing"

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None,
        pool_name: str,
        max_workers: int,
        backends: Sequence[str] = (),
        record_exceptions: bool,
        large_run: int | None,
        warns: bool,
        describe: Callable[[Any], Definition],
        graph_version: Callable[[Any], str | None],
        diagnose: Callable[[RecordedRun, float], str | None],
        errors: ErrorLog,
    ) -> None:
        self._tracer = trace.get_tracer(names.SCOPE, __version__, tracer_provider, names.SCHEMA_URL)
        self._spans = NodeSpans(
            self._tracer, attributes.Definitions(describe, pool_name), record_exceptions=record_exceptions
        )
        self._pool_name = pool_name
        self.max_workers = max_workers
        self._backends = backends
        self.large_run = large_run
        self._warns = warns
        self._graph_version = graph_version
        self._finding = RunFinding(diagnose)
        self._background = Background(self._end, errors, self.component, dropped=_lose)

    def flush(self, timeout_seconds: float = FLUSH_SECONDS) -> bool:
        """Waits until the spans of all nodes and runs that have ended have been ended too."""
        return self._background.flush(timeout_seconds)

    # Runs

    def run_started(self, run: RunRecord) -> None:
        caller_context: Context = run.telemetry
        run.telemetry = None
        span = self._tracer.start_span(run.name, caller_context, start_time=run.started_ns + run.unix_offset_ns)
        if not (recording := span.is_recording()) and not span.get_span_context().is_valid:
            return  # no SDK
        large: LargeRun | None = None
        if recording and self.large_run is not None:
            large = LargeRun(span.get_span_context(), limit=self.large_run, planned=run.planned)
        run.telemetry = _RunTrace(span, caller_context, recording=recording, large=large)
        if recording and run.graph is not None:
            self._background.put(_GraphVersion(run.telemetry, run.graph))
        run.graph = None

    def run_ended(self, run: RunRecord) -> None:
        if isinstance(run.telemetry, _RunTrace):  # else there is no SDK, or the run was interrupted as it started
            self._background.put(run)

    def _end_run(self, run: RunRecord) -> None:
        run_trace: _RunTrace = run.telemetry
        span, run_trace.span = run_trace.span, None
        if span is None:
            return
        try:
            if run_trace.recording:
                left_out = None
                kept = NOTHING_KEPT if run.kept is None else run.kept()
                contexts: dict[int, SpanContext] = {}
                large = run_trace.large
                if large is None or not large.on:
                    cover = PathCover(waits=kept.waits)
                else:
                    cover = large.cover(kept)
                    left_out = record_notable(run, large, kept, cover, contexts, self._spans, warns=self._warns)
                    self._warns = False
                found = attributes.of_run(
                    run,
                    kept,
                    pool_name=self._pool_name,
                    max_workers=self.max_workers,
                    backends=self._backends,
                    graph_version=run_trace.graph_version,
                    state_ns=run_trace.state_ns,
                    left_out=left_out,
                    finding=self._finding.of(run, kept),
                )
                self._spans.describe_run(span, run, found)
                record_waits(run, cover, self._tracer, contexts)
        finally:
            span.end(run.ended_ns + run.unix_offset_ns)

    # Nodes

    def node_announced(self, node: NodeRecord) -> None:
        run_trace: _RunTrace | None = None if node.run is None else node.run.telemetry
        if run_trace is None:
            return
        parent = run_trace.parent_in(otel_context.get_current())
        context = trace.get_current_span(parent).get_span_context()
        large = run_trace.large
        if run_trace.recording and (large is None or large.takes_every_node()):
            context = self._spans.announce(node, context)
        otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(context), parent))

    def node_started(self, node: NodeRecord) -> None:
        run = node.run
        if run is None:
            if self._has_no_sdk():
                return
            parent, recording = otel_context.get_current(), True
            offset_ns = unix_offset_ns()
        else:
            run_trace: _RunTrace | None = run.telemetry
            if run_trace is None:
                return
            offset_ns = run.unix_offset_ns
            recording = run_trace.recording
            parent = run_trace.parent_in(otel_context.get_current())
            large = run_trace.large
            if large is not None and not large.takes_every_node():
                self._start_on_demand(node, parent, large)
                return
        known = self._spans.known_at_start(node) if recording else None
        span = self._spans.start(node, parent, offset_ns, known)
        span_context = span.get_span_context()
        if not span_context.is_valid:
            return  # no SDK
        if known is None and span.is_recording():  # a sampler that takes the node of a run that it left out
            known = self._spans.known_at_start(node)
            span.set_attributes(known)
            for link in links(node):
                span.add_link(link.context, link.attributes)
        node.span_context = span_context
        node.span = (span, offset_ns, known)
        node.token = otel_context.attach(trace.set_span_in_context(span, parent))

    def _start_on_demand(self, node: NodeRecord, parent: Context, large: LargeRun) -> None:
        """A node of a large run, which has no span yet."""
        run = node.run
        assert run is not None
        offset_ns = run.unix_offset_ns
        large.definitions[node.name] = node.definition
        known: attributes.Attributes = {}

        def make() -> Span:
            known.update(self._spans.known_at_start(node))
            span = self._spans.start(node, parent, offset_ns, known)
            node.span_context = span.get_span_context()
            return span

        span = SpanOnDemand(make, large)
        node.span_context = large.instead
        node.span = (span, offset_ns, known)
        node.token = otel_context.attach(trace.set_span_in_context(span, parent))

    def _has_no_sdk(self) -> bool:
        """For nodes outside of any run; a run's own span tells it for its nodes."""
        tracer = self._tracer
        if isinstance(tracer, trace.ProxyTracer):  # made before a provider was set, if one ever is
            return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        return isinstance(tracer, trace.NoOpTracer)

    def node_ended(self, node: NodeRecord) -> None:
        if node.span is not None:
            otel_context.detach(node.token)
            node.token = None
            span, offset_ns, known = node.span
            if type(span) is SpanOnDemand:
                made = span.settle(failed=node.error is not None)
                node.span = None if made is None else (made, offset_ns, known)
                if made is None:
                    return
            self._background.put(node)
        elif node.thread is None:
            self._put_unrun(node)

    def node_stalled(self, node: NodeRecord, stack: Sequence[str]) -> None:
        known = node.span
        if known is not None:
            known[0].add_event(names.STALLED_EVENT, {names.CODE_STACKTRACE: "\n".join(stack)})

    def _put_unrun(self, node: NodeRecord) -> None:
        """A node that never ran has no span yet, and gets one only where its run is recorded."""
        run = node.run
        if run is None:
            parent = otel_context.get_current()
        elif run.telemetry is not None and run.telemetry.recording:
            if run.telemetry.large is not None and not run.telemetry.large.takes_every_node():
                return
            parent = run.telemetry.node_context
        else:
            return
        self._background.put(Unrun(node, parent))

    def _end(self, item: NodeRecord | Unrun | RunRecord | _GraphVersion) -> None:
        """On the background thread."""
        if isinstance(item, NodeRecord):
            self._end_node(item)
        elif isinstance(item, RunRecord):
            self._end_run(item)
        elif isinstance(item, Unrun):
            record_unrun(item, self._spans)
        else:  # while the run goes on: it may take as long as a short run
            item.run_trace.graph_version = self._graph_version(item.graph)

    def _end_node(self, node: NodeRecord) -> None:
        span, offset_ns, known_at_start = node.span
        node.span = None
        if node.state_ns is not None and node.run is not None and node.run.telemetry is not None:
            # The sums are a list as long as the run's span has not ended.
            sums, state_ns = node.run.telemetry.state_ns, node.state_ns
            if has_waits(state_ns):
                sums[:] = map(add, sums, state_ns)
            else:
                sums[CPU] += state_ns[CPU]
                sums[OTHER] += state_ns[OTHER]
        self._spans.end(span, node, node.ended_ns + offset_ns, known_at_start)


class _GraphVersion:
    """The wish to know the version of a run's graph."""

    __slots__ = ("graph", "run_trace")

    def __init__(self, run_trace: _RunTrace, graph: Any) -> None:
        self.run_trace = run_trace
        self.graph = graph


def _lose(item: object) -> None:
    if not isinstance(item, _GraphVersion):
        lose_spans("adapter", 1)
