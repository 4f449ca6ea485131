"""Spans of the waits on a run's critical path.

Viewers such as Jaeger know nothing of links: they walk back from a run's end to the child that ended last before. Where
a node waited for a worker, that would be whichever node freed it; with a child that lasts as long as the wait, it is
the wait, and then the upstream node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import Link, SpanContext

from traced_threadpool.model.records import QUEUE_INSET_NS
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.tracing.node_spans import can_be_linked

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from traced_threadpool.model.records import PathWait, RunRecord
    from traced_threadpool.telemetry.tracing.attributes import Attributes
    from traced_threadpool.telemetry.tracing.path_cover import JoinedSteps, PathCover

BEFORE_NEXT_NS: Final = 1_000
"""How much earlier than the span of the wait that follows one ends: nothing that ended between them is shaded then."""

MAX_JOINED_NAMES: Final = 100
"""How many nodes a span of steps names."""


def record_waits(run: RunRecord, cover: PathCover, tracer: Tracer, contexts: Mapping[int, SpanContext]) -> None:
    """Makes the spans. `contexts` are those of spans of a large run that were made late, by the node's identity."""
    begun_ns = {wait.started_ns for wait in cover.waits} | {steps.started_ns for steps in cover.joined}
    for wait in cover.waits:
        name, attributes = _of_wait(wait)
        links: Sequence[Link] = ()
        if wait.behind is not None:
            context = contexts.get(id(wait.behind), wait.behind.span_context)
            if can_be_linked(context):
                links = (Link(context),)
        _record(run, tracer, name, attributes, links, wait, is_followed=wait.ended_ns in begun_ns)
    for steps in cover.joined:
        name, attributes = _of_steps(steps)
        _record(run, tracer, name, attributes, (), steps, is_followed=steps.ended_ns in begun_ns)


def _record(
    run: RunRecord,
    tracer: Tracer,
    name: str,
    attributes: Attributes,
    links: Sequence[Link],
    times: PathWait | JoinedSteps,
    *,
    is_followed: bool,
) -> None:
    """`is_followed`: by the span of another wait."""
    attributes[names.RUN_ID] = run.id
    offset_ns = run.unix_offset_ns
    tracer.start_span(
        name,
        run.telemetry.node_context,
        attributes=attributes,
        links=links,
        start_time=times.started_ns + QUEUE_INSET_NS + offset_ns,
    ).end(times.ended_ns + (QUEUE_INSET_NS - BEFORE_NEXT_NS if is_followed else -QUEUE_INSET_NS) + offset_ns)


def _of_wait(wait: PathWait) -> tuple[str, Attributes]:
    node = wait.node.name
    if not wait.queued:
        return f"gap before {node}", {names.GAP_NODE: node}
    if wait.behind is None:
        return f"queued {node}", {names.QUEUE_NODE: node}
    return f"queued {node}", {names.QUEUE_BEHIND: wait.behind.name, names.QUEUE_NODE: node}


def _of_steps(steps: JoinedSteps) -> tuple[str, Attributes]:
    first, last = steps.nodes[0] if steps.nodes else steps.last, steps.last
    attributes: Attributes = {names.PATH_NODE_COUNT: len(steps.nodes), names.PATH_QUEUE: steps.queue_ns / 1e9}
    if steps.nodes:
        attributes[names.PATH_NODES] = tuple(node.name for node in steps.nodes[:MAX_JOINED_NAMES])
    if not steps.nodes:
        return f"path before {last.name}", attributes
    return f"path {last.name}" if first is last else f"path {first.name} to {last.name}", attributes
