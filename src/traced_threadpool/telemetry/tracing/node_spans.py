"""The start and end of a node's span, whether in time or late: attributes, links, status, exception."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode

from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.tracing import attributes
from traced_threadpool.telemetry.tracing.announced_ids import announced_ids
from traced_threadpool.telemetry.tracing.large_runs import RunInstead

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

    from traced_threadpool.model.records import NodeRecord, RunRecord
    from traced_threadpool.telemetry.tracing.attributes import Attributes, Definitions

MAX_DESCRIPTION: Final = 1_000


class NodeSpans:
    """Args:
    tracer: Where spans are made.
    definitions: What is known of nodes beforehand.
    record_exceptions: Whether the message and stack trace of a node's exception are recorded.
    """

    def __init__(self, tracer: Tracer, definitions: Definitions, *, record_exceptions: bool) -> None:
        self.tracer = tracer
        self._definitions = definitions
        self._record_exceptions = record_exceptions

    def known_at_start(self, node: NodeRecord) -> Attributes:
        known = self._definitions.of(node)
        attributes.add_start(known, node)
        return known

    def start(self, node: NodeRecord, parent: Context, offset_ns: int, known: Attributes | None) -> Span:
        """The span of a node that starts; without attributes and links where nothing is `known`."""
        announced: SpanContext | None = node.span_context
        if type(announced) is SpanContext and (ids := announced_ids(self.tracer)) is not None:
            node.span_context = None
            with ids.next_is(announced.span_id):
                return self.start(node, parent, offset_ns, known)
        started_ns = node.started_ns
        if (timing := node.timing) is not None and timing.handed_over_ns:
            started_ns = timing.handed_over_ns
        return self.tracer.start_span(
            node.name,
            parent,
            attributes=known,
            links=None if known is None else links(node),
            start_time=started_ns + offset_ns,
        )

    def announce(self, node: NodeRecord, run: SpanContext) -> SpanContext:
        """What will be the context of a node's span, as far as anybody can say that before a sampler has been asked.

        Of a tracer whose spans' ids cannot be chosen, the run's.
        """
        ids = announced_ids(self.tracer)
        if ids is None:
            return run
        span_id = ids.generate_span_id()
        context = SpanContext(run.trace_id, span_id, False, run.trace_flags, run.trace_state)
        node.span_context = context
        return context

    def end(self, span: Span, node: NodeRecord, ended_unix_ns: int, known_at_start: Attributes | None) -> None:
        try:
            if span.is_recording():
                self._describe_end(span, node, ended_unix_ns, known_at_start)
        finally:  # whatever an exception's own text does
            span.end(ended_unix_ns)

    def _describe_end(self, span: Span, node: NodeRecord, ended_unix_ns: int, known: Attributes | None) -> None:
        # A node may set more attributes than the SDK keeps, which drops the oldest. Set again, ours are the newest.
        dropped: int = getattr(span, "dropped_attributes", 0)
        found = attributes.of_end(node, known if dropped else None)
        attributes.add_cut(found, length_limit(span), known)
        span.set_attributes(found)
        if node.error is not None:
            self.set_error(span, node.error)
            if self._record_exceptions:
                span.record_exception(node.error, timestamp=ended_unix_ns)

    def set_error(self, span: Span, error: BaseException) -> None:
        span.set_status(Status(StatusCode.ERROR, _message(error) if self._record_exceptions else None))

    def describe_run(self, span: Span, run: RunRecord, found: Attributes) -> None:
        attributes.add_cut(found, length_limit(span))
        span.set_attributes(found)
        if run.outcome == "error" and run.error is not None:
            self.set_error(span, run.error)


def _message(error: BaseException) -> str | None:
    try:
        text = str(error)
    except Exception:
        return None
    return text[:MAX_DESCRIPTION] or None


def length_limit(span: Span) -> int | None:
    """The SDK's limit on a value's length, which cuts without a word."""
    limits: Any = getattr(span, "_limits", None)
    limit: int | None = getattr(limits, "max_span_attribute_length", None)
    return limit


def links(node: NodeRecord) -> list[Link]:
    """One link for each distinct upstream span, in the order of the parameters."""
    found: list[Link] = []
    inputs = node.inputs
    if not inputs:
        return found
    if len(inputs) == 1:
        context = inputs[0].span_context
        if can_be_linked(context):
            found.append(Link(context, {names.LINK_PARAMETER: node.parameters[0]}))
        return found
    seen = set()  # nodes, whose hash is their identity: a SpanContext has no hash
    parameters: Sequence[str] = node.parameters
    for index, upstream in enumerate(inputs):
        context = upstream.span_context
        if can_be_linked(context) and upstream not in seen:
            seen.add(upstream)
            found.append(Link(context, {names.LINK_PARAMETER: parameters[index]}))
    return found


def can_be_linked(context: SpanContext | None) -> bool:
    """Whether it is that of a node's own span."""
    return context is not None and type(context) is not RunInstead
