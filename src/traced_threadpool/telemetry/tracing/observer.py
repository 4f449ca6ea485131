"""A run and its nodes into OpenTelemetry spans.

A node's span is started on its worker, right before the node's function, with the links to its upstream spans
(samplers see only what is given at creation), and is made current there. It is ended, with the rest of its
attributes, on a background thread: neither the node's downstream nor its worker waits for a span processor.
A span processor's `on_start` and a sampler do run on the worker; OpenTelemetry asks them not to block.

Needs `opentelemetry-api` alone. Without an SDK, or in a run that is not sampled, no attribute is built.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode

from traced_threadpool._version import __version__
from traced_threadpool.model.observers import ErrorLog, Observer
from traced_threadpool.model.records import (
    THREADS,
    KeptNode,
    KeptNodes,
    NodeRecord,
    RunRecord,
    WaitFacts,
    processors,
    unix_offset_ns,
)
from traced_threadpool.model.states import CPU, OTHER, STATES, has_waits, in_order
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.background import Background
from traced_threadpool.telemetry.lost_spans import lose_spans
from traced_threadpool.telemetry.tracing.backend_attributes import of_backend
from traced_threadpool.telemetry.tracing.large_runs import LargeRun, RunInstead, SpanOnDemand

if TYPE_CHECKING:
    from opentelemetry.context import Context

logger = logging.getLogger("traced_threadpool")

FLUSH_SECONDS: Final = 1.0
"""How long `execute` waits for the run's spans to be ended, once its result is there."""

STEAL_WORTH_TELLING: Final = 0.01

MAX_STATICS: Final = 10_000
"""How many nodes' unchanging attributes are kept."""

# In the order of `STATES`; none for `cpu`, which has an attribute of another name.
_NODE_WAITS: Final = tuple(None if state == "cpu" else names.node_wait(state) for state in STATES)
_RUN_WAITS: Final = tuple(None if state == "cpu" else names.run_wait(state) for state in STATES)

AttributeValue = str | bool | int | float | Sequence[str] | Sequence[float]
Attributes = dict[str, AttributeValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a framework's node object says of itself."""

    tags: Mapping[str, Any]
    function: Callable[..., Any] | None


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


class Tracing(Observer):
    """The observer that makes spans.

    Args:
        tracer_provider: Where spans go; None takes the global one, whenever it is set.
        pool_name: Value of `hamilton.threadpool.name`.
        max_workers: Value of `hamilton.threadpool.workers.limit`.
        record_exceptions: Whether the message and stack trace of a node's exception are recorded.
        large_run: Runs of more nodes have spans for the notable ones alone; None for no run.
        warns: Whether the first of such runs is told to the log.
        describe: Gives the tags and the function of a framework's node object.
        graph_version: Gives the version of a framework's graph object, or None.
        errors: Where failures are counted.
    """

    component = "tracing"

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None,
        pool_name: str,
        max_workers: int,
        record_exceptions: bool,
        large_run: int | None,
        warns: bool,
        describe: Callable[[Any], Definition],
        graph_version: Callable[[Any], str | None],
        errors: ErrorLog,
    ) -> None:
        self._tracer = trace.get_tracer(names.SCOPE, __version__, tracer_provider)
        self._pool_name = pool_name
        self.max_workers = max_workers
        self._record_exceptions = record_exceptions
        self.large_run = large_run
        self._warns = warns
        self._describe = describe
        self._graph_version = graph_version
        self._statics: dict[int, tuple[weakref.ref[Any], Attributes]] = {}
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
        if run.telemetry is not None:
            self._background.put(run)

    def _end_run(self, run: RunRecord) -> None:
        run_trace: _RunTrace = run.telemetry
        span, run_trace.span = run_trace.span, None
        if span is None:
            return
        try:
            if run_trace.recording:
                left_out = None
                if run_trace.large is not None and run_trace.large.on:
                    left_out = run.node_count - self._add_notable(run, run_trace.large)
                self._describe_run(span, run, left_out)
        finally:
            span.end(run.ended_ns + run.unix_offset_ns)

    def _describe_run(self, span: Span, run: RunRecord, left_out: int | None) -> None:
        """What matters most comes last: where the SDK keeps only so many attributes, it is the first that go."""
        attributes: Attributes = {}
        if run.wait_facts is not None:
            attributes.update(_fact_attributes(run.wait_facts()))
            if run.telemetry.state_ns is not None:
                attributes[names.RUN_CPU] = run.telemetry.state_ns[CPU] / 1e9
                _add_waits(attributes, run.telemetry.state_ns, _RUN_WAITS)
        if run.telemetry.graph_version is not None:
            attributes[names.GRAPH_VERSION] = run.telemetry.graph_version
        attributes[names.RUN_INPUTS] = run.input_names
        attributes[names.RUN_OVERRIDES] = run.override_names
        attributes[names.RUN_OUTPUTS] = run.output_names
        if run.critical_path is not None:
            attributes[names.CRITICAL_PATH] = run.critical_path().names
        attributes[names.PROCESSORS_LIMIT] = processors()
        attributes[names.RUN_PRIORITY] = run.priority
        if left_out is not None:
            attributes[names.RUN_SPANS_LEFT_OUT] = left_out
        if run.outcome == "error" and run.error is not None:
            attributes[names.ERROR_TYPE] = error_type(run.error)
            span.set_status(Status(StatusCode.ERROR, error_type(run.error)))
        attributes[names.POOL_LIMIT] = self.max_workers
        attributes[names.POOL_NAME] = self._pool_name
        attributes[names.RUN_NODE_COUNT] = run.node_count
        attributes[names.RUN_OUTCOME] = run.outcome or "success"
        attributes[names.RUN_ID] = run.id
        _tell_cut(attributes, span)
        span.set_attributes(attributes)

    # Nodes

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
            current = otel_context.get_current()
            offset_ns = run.unix_offset_ns
            recording = run_trace.recording
            if current is run_trace.caller_context or run_trace.span is None:
                parent = run_trace.node_context
            else:  # the caller's context has changed since: keep what it holds, under the run's span
                parent = trace.set_span_in_context(run_trace.span, current)
            large = run_trace.large
            if large is not None and not large.takes_every_node():
                self._start_on_demand(node, parent, large)
                return
        attributes = self._known_at_start(node) if recording else None
        span = self._start_span(node, parent, offset_ns, attributes)
        span_context = span.get_span_context()
        if not span_context.is_valid:
            return  # no SDK
        if attributes is None and span.is_recording():  # a sampler that takes the node of a run that it left out
            attributes = self._known_at_start(node)
            span.set_attributes(attributes)
            for link in _links(node):
                span.add_link(link.context, link.attributes)
        node.span_context = span_context
        node.span = (span, offset_ns, attributes)
        node.token = otel_context.attach(trace.set_span_in_context(span, parent))

    def _start_span(self, node: NodeRecord, parent: Context, offset_ns: int, attributes: Attributes | None) -> Span:
        return self._tracer.start_span(
            node.name,
            parent,
            attributes=attributes,
            links=None if attributes is None else _links(node),
            start_time=node.started_ns + offset_ns,
        )

    def _start_on_demand(self, node: NodeRecord, parent: Context, large: LargeRun) -> None:
        """A node of a large run, which has no span yet."""
        run = node.run
        assert run is not None
        offset_ns = run.unix_offset_ns
        large.definitions[node.name] = node.definition
        attributes: Attributes = {}

        def make() -> Span:
            attributes.update(self._known_at_start(node))
            span = self._start_span(node, parent, offset_ns, attributes)
            node.span_context = span.get_span_context()
            return span

        span = SpanOnDemand(make, large)
        node.span_context = large.instead
        node.span = (span, offset_ns, attributes)
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
            span, offset_ns, attributes = node.span
            if type(span) is SpanOnDemand:
                made = span.settle(failed=node.error is not None)
                node.span = None if made is None else (made, offset_ns, attributes)
                if made is None:
                    return
            self._background.put(node)
        elif node.thread is None:
            self._put_unrun(node)

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
        self._background.put(_Unrun(node, parent))

    def _end(self, item: NodeRecord | _Unrun | RunRecord | _GraphVersion) -> None:
        """On the background thread."""
        if isinstance(item, NodeRecord):
            self._end_node(item)
        elif isinstance(item, RunRecord):
            self._end_run(item)
        elif isinstance(item, _Unrun):
            self._record_unrun(item)
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
        ended_unix_ns = node.ended_ns + offset_ns
        try:
            if span.is_recording():
                self._describe_end(span, node, ended_unix_ns, known_at_start)
        finally:  # whatever an exception's own text does
            span.end(ended_unix_ns)

    def _describe_end(
        self, span: Span, node: NodeRecord, ended_unix_ns: int, known_at_start: Attributes | None
    ) -> None:
        attributes: Attributes = {names.NODE_CPU: node.cpu_ns / 1e9}
        dropped = getattr(span, "dropped_attributes", 0)
        if known_at_start and dropped:
            # The node has set more than the SDK keeps, which drops the oldest, ours. Set again, they are the newest.
            again = (each for each in known_at_start.items() if not each[0].startswith(names.NODE_TAG_PREFIX))
            attributes.update(again)
            attributes[names.NODE_NAME] = attributes.pop(names.NODE_NAME, node.name)
        if node.state_ns is not None:
            _add_waits(attributes, node.state_ns, _NODE_WAITS)
            if node.state_ns is not node.counted_ns:  # there was something to divide
                attributes[names.NODE_SAMPLES] = node.samples
        if node.backend is not THREADS:
            attributes.update(of_backend(node))
        error = node.error
        if error is not None:
            attributes[names.ERROR_TYPE] = error_type(error)
            span.set_status(Status(StatusCode.ERROR, error_type(error)))
        attributes[names.NODE_OUTCOME] = node.outcome or "success"
        _tell_cut(attributes, span, known_at_start)
        span.set_attributes(attributes)
        if error is not None and self._record_exceptions:
            span.record_exception(error, timestamp=ended_unix_ns)

    def _add_notable(self, run: RunRecord, large: LargeRun) -> int:
        """Makes the spans of a large run that were not needed before its end. Returns how many it has in all."""
        kept = KeptNodes(nodes=(), path=(), whole=False) if run.kept is None else run.kept()
        run_trace: _RunTrace = run.telemetry
        run_trace.state_ns = None
        if kept.whole:
            run_trace.state_ns = [sum(each) for each in zip(*map(_states_of, kept.nodes), strict=True)]
        contexts: dict[int, SpanContext] = {}
        chosen = large.chosen(kept)
        for node in chosen:
            contexts[id(node)] = self._record_late(node, run, large, contexts)
        large.definitions.clear()
        count = large.spans() + len(chosen)
        if self._warns:
            self._warns = False
            logger.warning(
                "a run had %s nodes, and spans for %s of them, the notable ones, since it had more than %s: "
                "tracing=Tracing(large_run=...) sets that limit, None lifts it; metrics are of all nodes",
                f"{run.node_count:,}",
                f"{count:,}",
                f"{large.limit:,}",
            )
        return count

    def _record_late(
        self, kept: KeptNode, run: RunRecord, large: LargeRun, contexts: Mapping[int, SpanContext]
    ) -> SpanContext:
        """The span of a node that ended long ago, linked to those upstream that have one."""
        node = NodeRecord(
            kept.name,
            run=run,
            run_id=run.id,
            task_id=kept.task_id,
            definition=large.definitions.get(kept.name),
            submitted_ns=kept.submitted_ns,
        )
        node.ready_ns, node.started_ns, node.ended_ns = kept.ready_ns, kept.started_ns, kept.ended_ns
        node.cpu_ns, node.state_ns, node.samples = kept.cpu_ns, kept.state_ns, kept.samples
        node.outcome = kept.outcome
        attributes = self._known_at_start(node)
        attributes[names.NODE_UPSTREAM] = tuple(dict.fromkeys(each.name for each in kept.upstream))
        if kept.worker:
            attributes[names.THREAD_NAME] = kept.worker
        parameters: Sequence[str | None] = kept.parameters
        if len(parameters) != len(kept.upstream):
            parameters = [None] * len(kept.upstream)
        links: list[Link] = []
        for upstream, parameter in zip(kept.upstream, parameters, strict=True):
            context = contexts.get(id(upstream), upstream.span_context)
            if context is not None and type(context) is not RunInstead:
                links.append(Link(context, None if parameter is None else {names.LINK_PARAMETER: parameter}))
        ended_unix_ns = node.ended_ns + run.unix_offset_ns
        span = self._tracer.start_span(
            node.name,
            run.telemetry.node_context,
            attributes=attributes,
            links=links,
            start_time=node.started_ns + run.unix_offset_ns,
        )
        try:
            if span.is_recording():
                self._describe_end(span, node, ended_unix_ns, attributes)
        finally:
            span.end(ended_unix_ns)
        return span.get_span_context()

    def _record_unrun(self, unrun: _Unrun) -> None:
        """A span of no length for a node that never ran, linked to what stopped it."""
        node = unrun.node
        node.inputs, node.parameters = unrun.inputs, unrun.parameters  # the pool has let go of them
        links, attributes = _links(node), self._known_at_start(node)
        node.inputs = node.parameters = ()
        cause = node.cause
        stopped_by = None if cause is None else cause.span_context
        if (
            stopped_by is not None
            and type(stopped_by) is not RunInstead
            and all(link.context is not stopped_by for link in links)
        ):
            links.append(Link(stopped_by))
        attributes[names.NODE_OUTCOME] = node.outcome or "cancelled"
        if node.outcome == "upstream_error" and cause is not None and cause.name:
            attributes[names.NODE_FAILED_UPSTREAM] = cause.name
        ended_unix_ns = node.ended_ns + (unix_offset_ns() if node.run is None else node.run.unix_offset_ns)
        span = self._tracer.start_span(
            node.name, unrun.parent, attributes=attributes, links=links, start_time=ended_unix_ns
        )
        cut: Attributes = {}
        _tell_cut(cut, span, attributes)
        span.set_attributes(cut)
        node.span_context = span.get_span_context()
        span.end(ended_unix_ns)

    def _known_at_start(self, node: NodeRecord) -> Attributes:
        known = self._statics.get(id(node.definition))
        if known is not None and known[0]() is node.definition:
            attributes = known[1].copy()
        else:
            attributes = self._static(node).copy()
        if node.task_id is not None:
            attributes[names.TASK_ID] = node.task_id
        thread = node.thread
        if thread is not None:
            attributes[names.THREAD_ID] = thread.ident or 0
            attributes[names.THREAD_NAME] = thread.name
        ready_ns = node.ready_ns
        attributes[names.NODE_DEPENDENCY] = (ready_ns - node.submitted_ns) / 1e9
        attributes[names.NODE_QUEUE] = (node.started_ns - ready_ns) / 1e9
        attributes[names.NODE_UPSTREAM] = _upstream_names(node)
        if node.run_id is not None:
            attributes[names.RUN_ID] = node.run_id
        return attributes

    def _static(self, node: NodeRecord) -> Attributes:
        """What is the same in each run of a node. Worked out once for each of the framework's node objects."""
        definition = node.definition
        own: Attributes = {names.NODE_NAME: node.name, names.POOL_NAME: self._pool_name}
        if definition is None:
            return own
        described = self._describe(definition)
        # The tags first: where there are more attributes than the SDK keeps, it drops the first.
        attributes: Attributes = {
            names.NODE_TAG_PREFIX + key: _attribute_value(value) for key, value in described.tags.items()
        }
        attributes.update(_code_attributes(described.function))
        attributes.update(own)
        if len(self._statics) >= MAX_STATICS:
            self._statics.clear()
        self._statics[id(definition)] = (weakref.ref(definition), attributes)
        return attributes


def _tell_cut(attributes: Attributes, span: Span, earlier: Attributes | None = None) -> None:
    """Adds how many values, of these and of those given earlier, are longer than the SDK's limit, which cuts them."""
    limit = getattr(getattr(span, "_limits", None), "max_span_attribute_length", None)
    if limit is not None:
        values = [*(earlier or {}).values(), *attributes.values()]
        if count := sum(_longest_text(value) > limit for value in values):
            attributes[names.ATTRIBUTES_CUT] = count


def _longest_text(value: AttributeValue) -> int:
    if isinstance(value, str):
        return len(value)
    return max((len(each) for each in value if isinstance(each, str)), default=0) if isinstance(value, Sequence) else 0


def _add_waits(attributes: Attributes, state_ns: Sequence[int], keys: Sequence[str | None]) -> None:
    """What is not 0 of the states that have a key."""
    for key, one_ns in zip(keys, state_ns, strict=True):
        if one_ns and key is not None:
            attributes[key] = one_ns / 1e9


def _states_of(node: KeptNode) -> Sequence[int]:
    """In the order of `STATES`."""
    if node.state_ns is not None:
        return node.state_ns
    return in_order({"cpu": node.cpu_ns})


def _fact_attributes(facts: WaitFacts) -> Attributes:
    attributes: Attributes = {names.ATTRIBUTION_METHOD: facts.method}
    if facts.reason is not None:
        attributes[names.ATTRIBUTION_REASON] = facts.reason
    if facts.gil_holders:
        attributes[names.RUN_GIL_HOLDERS] = list(facts.gil_holders)
        attributes[names.RUN_GIL_HOLDER_SECONDS] = [caused_ns / 1e9 for caused_ns in facts.gil_holders.values()]
    if facts.steal_ratio > STEAL_WORTH_TELLING:
        attributes[names.RUN_STEAL] = facts.steal_ratio
    return attributes


class _GraphVersion:
    """The wish to know the version of a run's graph."""

    __slots__ = ("graph", "run_trace")

    def __init__(self, run_trace: _RunTrace, graph: Any) -> None:
        self.run_trace = run_trace
        self.graph = graph


def _lose(item: object) -> None:
    if not isinstance(item, _GraphVersion):
        lose_spans("adapter", 1)


class _Unrun:
    """A node that never ran, with what the pool lets go of right after telling of it."""

    __slots__ = ("inputs", "node", "parameters", "parent")

    def __init__(self, node: NodeRecord, parent: Context) -> None:
        self.node = node
        self.parent = parent
        self.inputs = node.inputs
        self.parameters = node.parameters


def error_type(error: BaseException) -> str:
    """The exception's type as `error.type` wants it.

    >>> error_type(KeyError("private")), error_type(__import__("json").JSONDecodeError("", "", 0))
    ('KeyError', 'json.decoder.JSONDecodeError')
    """
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _links(node: NodeRecord) -> list[Link]:
    """One link for each distinct upstream span, in the order of the parameters."""
    links: list[Link] = []
    inputs = node.inputs
    if not inputs:
        return links
    if len(inputs) == 1:
        context = inputs[0].span_context
        if context is not None and type(context) is not RunInstead:
            links.append(Link(context, {names.LINK_PARAMETER: node.parameters[0]}))
        return links
    seen = set()  # nodes, whose hash is their identity: a SpanContext has no hash
    parameters = node.parameters
    for index, upstream in enumerate(inputs):
        context = upstream.span_context
        if context is not None and upstream not in seen and type(context) is not RunInstead:
            seen.add(upstream)
            links.append(Link(context, {names.LINK_PARAMETER: parameters[index]}))
    return links


def _upstream_names(node: NodeRecord) -> Sequence[str]:
    inputs = node.inputs
    if not inputs:
        return ()
    if len(inputs) == 1 and inputs[0].name:
        return (inputs[0].name,)
    return tuple(dict.fromkeys([upstream.name for upstream in inputs if upstream.name]))


def _attribute_value(value: Any) -> AttributeValue:
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [str(each) for each in value]
    return str(value)


def _code_attributes(function: Callable[..., Any] | None) -> Attributes:
    """Where the node's function was written."""
    if function is None:
        return {}
    source = inspect.unwrap(function)
    module, name = getattr(source, "__module__", None), getattr(source, "__qualname__", None)
    attributes: Attributes = {}
    if name is not None:
        attributes[names.CODE_FUNCTION] = f"{module}.{name}" if module else name
    code = getattr(source, "__code__", None)
    if code is not None:
        attributes[names.CODE_FILE] = code.co_filename
        attributes[names.CODE_LINE] = code.co_firstlineno
    return attributes
