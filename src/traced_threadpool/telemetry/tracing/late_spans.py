"""Spans that are made after their nodes have ended: of nodes that never ran, and of a large run's notable nodes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Link, SpanContext

from traced_threadpool.model.records import KeptNode, KeptNodes, NodeRecord, RunRecord, unix_offset_ns
from traced_threadpool.model.states import in_order
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.attribute_values import UNRUN_NS
from traced_threadpool.telemetry.tracing import attributes
from traced_threadpool.telemetry.tracing.node_spans import NodeSpans, can_be_linked, length_limit, links

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from traced_threadpool.telemetry.tracing.large_runs import LargeRun
    from traced_threadpool.telemetry.tracing.path_cover import PathCover

logger = logging.getLogger("traced_threadpool")


class Unrun:
    """A node that never ran, with what the pool lets go of right after telling of it."""

    __slots__ = ("inputs", "node", "parameters", "parent")

    def __init__(self, node: NodeRecord, parent: Context) -> None:
        self.node = node
        self.parent = parent
        self.inputs = node.inputs
        self.parameters = node.parameters


def record_unrun(unrun: Unrun, spans: NodeSpans) -> None:
    """The span of a node that never ran, linked to what stopped it."""
    node = unrun.node
    node.inputs, node.parameters = unrun.inputs, unrun.parameters
    linked, known = links(node), spans.known_at_start(node)
    node.inputs = node.parameters = ()
    stopped_by = None if node.cause is None else node.cause.span_context
    if stopped_by is not None and can_be_linked(stopped_by) and all(link.context is not stopped_by for link in linked):
        linked.append(Link(stopped_by))
    attributes.add_why_it_never_ran(known, node)
    unix_ns = node.ended_ns + UNRUN_NS + (unix_offset_ns() if node.run is None else node.run.unix_offset_ns)
    span = spans.tracer.start_span(node.name, unrun.parent, attributes=known, links=linked, start_time=unix_ns)
    cut: attributes.Attributes = {}
    attributes.add_cut(cut, length_limit(span), known)
    span.set_attributes(cut)
    node.span_context = span.get_span_context()
    span.end(unix_ns + UNRUN_NS)


def record_notable(
    run: RunRecord,
    large: LargeRun,
    kept: KeptNodes,
    cover: PathCover,
    contexts: dict[int, SpanContext],
    spans: NodeSpans,
    *,
    warns: bool,
) -> int:
    """Makes the spans of a large run that were not needed before its end, and adds their contexts.

    Returns:
        How many nodes have none.
    """
    run_trace: Any = run.telemetry
    run_trace.state_ns = None
    if kept.whole:
        run_trace.state_ns = [sum(each) for each in zip(*map(_states_of, kept.nodes), strict=True)]
    chosen = large.chosen(kept, cover)
    for node in chosen:
        contexts[id(node)] = _record_late(node, run, large, spans, contexts)
    large.definitions.clear()
    count = large.spans() + len(chosen)
    if warns:
        logger.warning(
            "a run had %s nodes, and spans for %s of them, the notable ones, since it had more than %s: "
            "tracing=Tracing(large_run=...) sets that limit, None lifts it; metrics are of all nodes",
            f"{run.node_count:,}",
            f"{count:,}",
            f"{large.limit:,}",
        )
    return run.node_count - count


def _record_late(
    kept: KeptNode, run: RunRecord, large: LargeRun, spans: NodeSpans, contexts: Mapping[int, SpanContext]
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
    node.outcome, node.queue_others_ns, node.lock = kept.outcome, kept.queue_others_ns, kept.lock
    known = spans.known_at_start(node)
    if kept.upstream:
        known[names.NODE_UPSTREAM] = tuple(dict.fromkeys(each.name for each in kept.upstream))
    if kept.worker:
        known[names.THREAD_NAME] = kept.worker
    parameters: Sequence[str | None] = kept.parameters
    if len(parameters) != len(kept.upstream):
        parameters = [None] * len(kept.upstream)
    linked: list[Link] = []
    for upstream, parameter in zip(kept.upstream, parameters, strict=True):
        context = contexts.get(id(upstream), upstream.span_context)
        if can_be_linked(context):
            linked.append(Link(context, None if parameter is None else {names.LINK_PARAMETER: parameter}))
    span = spans.tracer.start_span(
        node.name,
        run.telemetry.node_context,
        attributes=known,
        links=linked,
        start_time=node.started_ns + run.unix_offset_ns,
    )
    spans.end(span, node, node.ended_ns + run.unix_offset_ns, known)
    return span.get_span_context()


def _states_of(node: KeptNode) -> Sequence[int]:
    """In the order of `STATES`."""
    if node.state_ns is not None:
        return node.state_ns
    return in_order({"cpu": node.cpu_ns})
