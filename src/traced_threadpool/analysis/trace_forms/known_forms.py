"""The forms of trace files that are read, in one table: a further one is a row here, and a module beside this one.

>>> bool(BEGINNING.match('{"batches": ['))
True
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from traced_threadpool.analysis.trace_forms.jaeger_json import jaeger_span, jaeger_spans, jaeger_traces
from traced_threadpool.analysis.trace_forms.otlp_json import otlp_span, otlp_spans, resource_spans
from traced_threadpool.analysis.trace_forms.span import Found

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of a document of spans.

    Args:
        first_keys: With which of its keys a document may begin.
        span_keys: The keys that tell a span from all other objects, those of other forms among them.
        span: An object with these keys into a span, as soon as it is parsed.
        part: The part of a document that holds spans; None for a document of another form.
        spans: The spans of that part, each of which has been through `span`.
    """

    first_keys: tuple[str, ...]
    span_keys: tuple[str, ...]
    span: Callable[[Json], Any]
    part: Callable[[Json], list[Any] | None]
    spans: Callable[[list[Any]], Found]


FORMS: Final = (
    Form(
        first_keys=("resourceSpans", "batches", "trace", "result"),
        span_keys=("startTimeUnixNano",),
        span=otlp_span,
        part=resource_spans,
        spans=otlp_spans,
    ),
    Form(
        first_keys=("data", "traceID"),
        span_keys=("spanID", "startTime"),
        span=jaeger_span,
        part=jaeger_traces,
        spans=jaeger_spans,
    ),
)

OTHER_SIGNALS: Final = ("resourceMetrics", "resourceLogs", "resourceProfiles")
"""OTLP's, which may be in the same file."""

BEGINNING: Final = re.compile(
    rf'\{{\s*"(?:{"|".join((*(key for form in FORMS for key in form.first_keys), *OTHER_SIGNALS))})"\s*:'
)
"""How a document begins, for what follows broken text."""


def reduced(found: Json) -> Any:
    """An object as soon as it is parsed, so that of a span only what a record needs is kept.

    It also takes half the time of going through a whole line later, when its objects have left the CPU's cache.
    """
    for key in _OF_SPANS:
        if key in found:
            form = _OF_SPANS[key]
            return form.span(found) if found.keys() >= {*form.span_keys} else found
    return found


def spans_of(document: Json) -> Found | None:
    """The spans of a document whose objects are `reduced`; None where it is of no known form."""
    for form in FORMS:
        if (part := form.part(document)) is not None:
            return form.spans(part)
    return None


_OF_SPANS: Final = {form.span_keys[0]: form for form in FORMS}
