"""What Jaeger's page shades as the critical path of a trace, and how much of it is not on `explain`'s path.

The rule: from the end of the trace's first span walk back to the child that ended last, strictly before, at
microseconds; parents only, links count for nothing. What no child covers is a span's own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.trace import format_span_id

from tests.telemetry.telemetry_helpers import context_of, is_wait, times
from traced_threadpool.analysis.trace_file import read_runs
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.recording.critical_path import critical_path
from traced_threadpool.telemetry.export.otlp_file import otlp_line

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class Shaded(NamedTuple):
    """A stretch of time on a span, in microseconds."""

    span: ReadableSpan
    started_us: int
    ended_us: int


def shading(spans: Sequence[ReadableSpan]) -> list[Shaded]:
    """The stretches that Jaeger shades, from the trace's end."""
    by_id = {context_of(span).span_id: span for span in spans}
    children: dict[int, list[ReadableSpan]] = {}
    (first,) = (span for span in spans if span.parent is None or span.parent.span_id not in by_id)
    for span in spans:
        if span.parent is not None:
            children.setdefault(span.parent.span_id, []).append(span)
    found: list[Shaded] = []
    span, until_us = first, _us(times(first)[1])
    entered = True
    while True:
        own = children.get(context_of(span).span_id, ())
        before = [child for child in own if _us(times(child)[1]) < until_us or (entered and _within(child, span))]
        last = max(before, key=lambda child: _us(times(child)[1]), default=None)
        if last is not None:
            ended_us = min(_us(times(last)[1]), until_us)
            found.append(Shaded(span, ended_us, until_us))
            span, until_us, entered = last, ended_us, True
            continue
        started_us = _us(times(span)[0])
        found.append(Shaded(span, started_us, until_us))
        if span is first:
            return [each for each in found if each.ended_us > each.started_us]
        assert span.parent is not None
        span, until_us, entered = by_id[span.parent.span_id], started_us, False


def _within(child: ReadableSpan, parent: ReadableSpan) -> bool:
    return _us(times(child)[1]) <= _us(times(parent)[1])


def _us(unix_ns: int) -> int:
    return unix_ns // 1_000


def recorded(spans: Sequence[ReadableSpan], folder: Path) -> list[RecordedRun]:
    """The runs that `explain` reads from a file of these spans."""
    path = folder / "trace.jsonl"
    path.write_bytes(otlp_line(spans))
    return read_runs(path)


def wrongly_shaded(spans: Sequence[ReadableSpan], folder: Path) -> float:
    """The part of the run that is shaded on something that `explain`'s path does not name there."""
    (run,) = recorded(spans, folder)
    run_span = next(span for span in spans if (span.attributes or {}).get("hamilton.run.id") == run.id
                    and "hamilton.run.outcome" in (span.attributes or {}))  # fmt: skip
    keys = {node.key for node in run.nodes if node.parent is None}
    by_id = {context_of(span).span_id: span for span in spans}
    origin_ns = run.started_ns - (run.started_unix_ns or run.started_ns)
    named = [
        (step.kind, step.key, step.name, step.started_ns - origin_ns, step.ended_ns - origin_ns)
        for step in critical_path(run).steps
    ]
    wrong_ns = 0
    for span, started_us, ended_us in shading(spans):
        what = _in_run(span, run_span, keys, by_id)
        if what is None:
            continue  # around the run
        right_ns = 0
        for kind, key, name, started_ns, step_ended_ns in named:
            is_named = (
                (kind == "node" and what == key)
                or (kind == "queue" and what == f"queued {name}")
                or (kind != "node" and what == "")
                or (kind in ("outside", "dependency") and what.startswith("gap before "))
            )
            if is_named:
                right_ns += max(0, min(ended_us * 1_000, step_ended_ns) - max(started_us * 1_000, started_ns))
        wrong_ns += max(0, (ended_us - started_us) * 1_000 - right_ns)
    return wrong_ns / run.duration_ns


def wrongly_shaded_of(run: RecordedRun, spans: Sequence[ReadableSpan]) -> float:
    """The same by a run's own record, of nodes whose names differ: for a trace in which not every node has a span.

    A span of several steps is of all that the path names between its start and end.
    """
    origin_ns = run.started_ns - (run.started_unix_ns or run.started_ns)
    steps = critical_path(run).steps
    wrong_ns = 0
    for span, started_us, ended_us in shading(spans):
        attributes = span.attributes or {}
        kinds, name = ("outside", "dependency"), None  # the run's own, or a gap
        if (of_node := attributes.get("hamilton.node.name")) is not None:
            kinds, name = ("node",), of_node
        elif (of_node := attributes.get("hamilton.queue.node")) is not None:
            kinds, name = ("queue",), of_node
        elif "hamilton.path.node.count" in attributes:
            kinds = ("node", "queue", "outside", "dependency")
        right_ns = sum(
            max(
                0,
                min(ended_us * 1_000, step.ended_ns - origin_ns) - max(started_us * 1_000, step.started_ns - origin_ns),
            )
            for step in steps
            if step.kind in kinds and name in (None, step.name)
        )
        wrong_ns += max(0, (ended_us - started_us) * 1_000 - right_ns)
    return wrong_ns / run.duration_ns


def _in_run(span: ReadableSpan, run_span: ReadableSpan, keys: set[str], by_id: dict[int, ReadableSpan]) -> str | None:
    """The key of the run's node that a span is, or is in; the name of a queue span; nothing for the run itself."""
    at: ReadableSpan | None = span
    while at is not None:
        if at is run_span:
            return ""
        key = format_span_id(context_of(at).span_id)
        if key in keys:
            return key
        is_child = at.parent is not None and at.parent.span_id == context_of(run_span).span_id
        if is_child and is_wait(at):
            return at.name
        at = None if at.parent is None else by_id.get(at.parent.span_id)
    return None
