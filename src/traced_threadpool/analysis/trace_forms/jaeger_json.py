"""Jaeger's JSON into spans: what its page downloads, and what `/api/traces/<id>` answers.

Times are whole microseconds. A link has become a reference of the type FOLLOWS_FROM and has lost its attributes; an
attribute that was a list has become a string of JSON; what the SDK dropped is said by tags, if at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from traced_threadpool.analysis.trace_forms.span import Found, Span, Unreadable, attributes_of, span_id, unix_ns, whole

MICROSECOND_NS: Final = 1_000

Json = dict[str, Any]


def jaeger_traces(document: Mapping[str, Any]) -> list[Json] | None:
    """The traces of a document; None when it is not Jaeger's."""
    data = document.get("data")
    traces = data if isinstance(data, list) else [document]
    found = [trace for trace in traces if isinstance(trace, dict) and isinstance(trace.get("spans"), list)]
    return found or None


def jaeger_span(span: Json) -> tuple[str, Span | Unreadable]:
    """One span, with the name of its process."""
    process = str(span.get("processID"))
    own_id = span_id(span.get("traceID"), span.get("spanID"))
    started_ns, duration_us = unix_ns(span.get("startTime"), MICROSECOND_NS), whole(span.get("duration"))
    if own_id is None or started_ns is None or duration_us is None or not abs(duration_us) < 2**53:
        return process, Unreadable()
    references, tags = span.get("references"), span.get("tags")
    parent_id, links = _references(references if isinstance(references, list) else [])
    return process, Span(
        id=own_id,
        parent_id=parent_id or span_id(span.get("traceID"), span.get("parentSpanID")),
        name=str(span.get("operationName", "")),
        started_ns=started_ns,
        ended_ns=started_ns + duration_us * MICROSECOND_NS,
        attributes=attributes_of(tags, _value),
        links=links,
        dropped_links=_dropped(tags, "otel.dropped_links_count"),
        dropped_attributes=_dropped(tags, "otel.dropped_attributes_count"),
        resolution_ns=MICROSECOND_NS,
        error_message=_error_message(tags),
    )


def jaeger_spans(traces: list[Json]) -> Found:
    """The spans of traces, each of which has been through `jaeger_span` as soon as it was parsed."""
    for trace in traces:
        processes = trace.get("processes")
        for item in trace["spans"]:
            process, span = item if isinstance(item, tuple) else ("", Unreadable())
            if isinstance(processes, dict):
                process = json.dumps(processes.get(process), sort_keys=True, default=str)
            yield process, span


def _references(references: list[Any]) -> tuple[str | None, tuple[str, ...]]:
    """The parent and the links."""
    parent_id: str | None = None
    links: dict[str, None] = {}
    for reference in references:
        if not isinstance(reference, dict):
            continue
        referred = span_id(reference.get("traceID"), reference.get("spanID"))
        if referred is None:
            continue
        if reference.get("refType") == "CHILD_OF" and parent_id is None:
            parent_id = referred
        else:
            links[referred] = None
    return parent_id, tuple(links)


def _dropped(tags: object, key: str) -> int:
    """How many of something the SDK dropped, by the tag that OpenTelemetry's mapping has for it."""
    for tag in tags if isinstance(tags, list) else ():
        if isinstance(tag, dict) and tag.get("key") == key:
            return whole(tag.get("value")) or 0
    return 0


def _error_message(tags: object) -> str | None:
    """The description of the status, by the tag that OpenTelemetry's mapping has for it."""
    for tag in tags if isinstance(tags, list) else ():
        if isinstance(tag, dict) and tag.get("key") == "otel.status_description":
            return str(tag.get("value") or "") or None
    return None


def _value(pair: Mapping[str, Any]) -> Any:
    return pair.get("value")
