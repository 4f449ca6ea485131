"""Spans of the waits on a run's critical path.

Viewers such as Jaeger know nothing of links: they walk back from a run's end to the child that ended last before. Where
a node waited for a worker, that would be whichever node freed it; with a child that lasts as long as the wait, it is
the wait, and then the upstream node.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry.trace import Link, SpanContext

from traced_threadpool.model.records import QUEUE_INSET_NS
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.tracing.large_runs import QUEUE_SHARE, LargeRun
from traced_threadpool.telemetry.tracing.node_spans import can_be_linked

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from traced_threadpool.model.records import KeptNodes, RunRecord
    from traced_threadpool.telemetry.tracing.attributes import Attributes


def record_waits(
    run: RunRecord,
    kept: KeptNodes,
    tracer: Tracer,
    large: LargeRun | None,
    contexts: Mapping[int, SpanContext],
) -> None:
    """Makes the spans. `contexts` are those of spans of a large run that were made late, by the node's identity."""
    waits = kept.waits
    if large is not None:
        waits = heapq.nlargest(large.limit // QUEUE_SHARE, waits, key=lambda wait: wait.duration_ns)
    for wait in waits:
        attributes: Attributes = {names.RUN_ID: run.id}
        links: list[Link] = []
        if wait.behind is not None:
            attributes[names.QUEUE_BEHIND] = wait.behind.name
            context = contexts.get(id(wait.behind), wait.behind.span_context)
            if can_be_linked(context):
                links.append(Link(context))
        attributes[names.QUEUE_NODE if wait.queued else names.GAP_NODE] = wait.node.name
        tracer.start_span(
            f"queued {wait.node.name}" if wait.queued else f"gap before {wait.node.name}",
            run.telemetry.node_context,
            attributes=attributes,
            links=links,
            start_time=wait.started_ns + QUEUE_INSET_NS + run.unix_offset_ns,
        ).end(wait.ended_ns - QUEUE_INSET_NS + run.unix_offset_ns)
