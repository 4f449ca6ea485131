"""OTLP/JSON into spans: what our file exporter and collectors write, and what Tempo answers.

The same object goes by several names: `resourceSpans`, or `batches` at Tempo, maybe inside of `trace` (Tempo's
second API) or `result` (Jaeger's third); `scopeSpans`, or `instrumentationLibrarySpans` before 2022.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from traced_threadpool.analysis.trace_forms.span import (
    Found,
    Span,
    Unreadable,
    attributes_of,
    rounded_to_ns,
    span_id,
    unix_ns,
    whole,
)
from traced_threadpool.telemetry import names

_RESOURCE_SPANS: Final = ("resourceSpans", "batches")
_SCOPE_SPANS: Final = ("scopeSpans", "instrumentationLibrarySpans")
_ENVELOPES: Final = ("trace", "result")
_AS_THEY_ARE: Final = frozenset({"stringValue", "doubleValue", "boolValue"})
_IS_REMOTE: Final = 0x200  # of SpanFlags: the parent lives in another process

Json = dict[str, Any]


def resource_spans(document: Mapping[str, Any]) -> list[Any] | None:
    """The part of a document that holds spans; None when it is not OTLP."""
    for envelope in _ENVELOPES:
        inner = document.get(envelope)
        if isinstance(inner, dict):
            document = inner
    for name in _RESOURCE_SPANS:
        found = document.get(name)
        if isinstance(found, list):
            return found
    return None


def any_value(value: object) -> Any:
    """An AnyValue as Python has it; None for what a record has no use for.

    >>> any_value({"intValue": "3"}), any_value({"arrayValue": {"values": [{"stringValue": "a"}]}}), any_value({})
    (3, ['a'], None)
    """
    if type(value) is dict:
        for kind, content in value.items():
            if kind in _AS_THEY_ARE:
                return content
            if kind == "intValue":
                return whole(content)
            if kind == "arrayValue" and isinstance(content, dict):
                values = content.get("values")
                return [any_value(item) for item in values] if isinstance(values, list) else []
    return None


def otlp_span(span: Json) -> Span | Unreadable:
    """One span."""
    own_id = span_id(trace := span.get("traceId"), span.get("spanId"))
    start, end = span.get("startTimeUnixNano"), span.get("endTimeUnixNano")
    started_ns, ended_ns = unix_ns(start), unix_ns(end)
    if own_id is None or started_ns is None or ended_ns is None:
        return Unreadable()
    links = span.get("links")
    flags = whole(span.get("flags")) or 0
    return Span(
        id=own_id,
        parent_id=span_id(trace, parent) if (parent := span.get("parentSpanId")) else None,
        parent_is_remote=bool(flags & _IS_REMOTE),
        name=str(span.get("name", "")),
        started_ns=started_ns,
        ended_ns=ended_ns,
        attributes=attributes_of(span.get("attributes"), _value),
        links=_links(links) if isinstance(links, list) else (),
        dropped_links=whole(span.get("droppedLinksCount")) or 0,
        dropped_attributes=whole(span.get("droppedAttributesCount")) or 0,
        resolution_ns=rounded_to_ns(start, end),
        error_message=_error_message(span.get("status")),
    )


def otlp_spans(resources: list[Any]) -> Found:
    """The spans of `resourceSpans`, each of which has been through `otlp_span` as soon as it was parsed."""
    for resource in resources:
        if not isinstance(resource, dict):
            continue
        process = json.dumps(resource.get("resource"), sort_keys=True, default=str)
        for scopes in (resource.get(name) for name in _SCOPE_SPANS):
            for scope in scopes if isinstance(scopes, list) else ():
                spans = scope.get("spans") if isinstance(scope, dict) else None
                for span in spans if isinstance(spans, list) else ():
                    yield process, span if isinstance(span, (Span, Unreadable)) else Unreadable()


def _error_message(status: object) -> str | None:
    message = status.get("message") if type(status) is dict else None
    return message if type(message) is str and message else None


def _links(links: list[Any]) -> tuple[str, ...]:
    """Those that name a parameter: what stopped a node that never ran is linked too, and is no upstream."""
    ids: dict[str, None] = {}
    for link in links:
        pairs = link.get("attributes") if isinstance(link, dict) else None
        for pair in pairs if isinstance(pairs, list) else ():
            if isinstance(pair, dict) and pair.get("key") == names.LINK_PARAMETER:
                linked = span_id(link.get("traceId"), link.get("spanId"))
                if linked is not None:
                    ids[linked] = None
                break
    return tuple(ids)


def _value(pair: Mapping[str, Any]) -> Any:
    value = pair.get("value")
    if type(value) is dict:  # what nearly all are, without a further call
        if "stringValue" in value:
            return value["stringValue"]
        if "doubleValue" in value:
            return value["doubleValue"]
    return any_value(value)
