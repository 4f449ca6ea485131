"""Turns ended spans into lines of OTLP/JSON at the end of a file.

One line is one export batch: a whole ``{"resourceSpans": [...]}`` object, as the OTLP file format has it
(https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/). Trace and span ids are lower-case hex,
64-bit integers are strings, enums are numbers. A collector's ``otlpjsonfile`` receiver reads it.

The file is a log: appended to, never truncated. Runs add up in it, processes may share it, and trace ids tell
them apart. Every line goes out in one ``write`` to a descriptor opened for appending, so that the lines of
several writers do not mix, and a process that is killed leaves whole lines and at most one torn last one.
Nothing is synced to the disk: what was written outlives the process, not the machine.

Why not the package ``opentelemetry-exporter-otlp-json-file``? Each of its releases pins the pre-release of
``opentelemetry-exporter-otlp-common`` that belongs to one release of the SDK, as do the gRPC and HTTP
exporters, and it comes out later than they do: pip then finds no set of versions that has them all. It also
writes through a buffered text stream, which a fork duplicates and a full disk tears.

Why not ``encode_spans`` of the network exporters, and protobuf's ``json_format``? They took 200 µs a span,
and the functions below take 55, in a thread that holds the GIL against the nodes being traced. A
test holds the two against each other, field by field.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import threading
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import INVALID_SPAN_CONTEXT

from traced_threadpool.model import forks
from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.telemetry.export.otlp_target import missing_extra

try:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
except ImportError as error:
    raise missing_extra(error) from error

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, SpanContext

_logger = logging.getLogger(__name__)

# The bits of OTLP's SpanFlags that say whether a parent or a linked span lives in another process.
_IS_REMOTE_IS_KNOWN = 0x100
_IS_REMOTE = 0x200

_INT64 = range(-(2**63), 2**63)
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

_Json = dict[str, Any]


class OtlpFileSpanExporter(SpanExporter):
    """Appends every batch of spans to a file, as one line of OTLP/JSON, which `traced-threadpool explain` reads.

    For an application that has a tracer provider. Its spans of other libraries go into the file too:

        provider.add_span_processor(BatchSpanProcessor(OtlpFileSpanExporter("trace.jsonl"), max_queue_size=32_768))

    The file is opened at once, and created where it does not exist, so that a path that cannot work is an
    error here and not in a background thread. It stays open until ``shutdown``: a log rotation has to copy
    and truncate. After that nothing raises. A batch that cannot be written (the disk is full, the descriptor
    was closed) is a failure, counted in ``failed_spans`` and logged the first time; the next batch is tried
    afresh, on a line of its own where the failure tore one. A forked child may go on writing to the same
    file.

    Args:
        file: its path, relative to the directory that is current now. The usual suffix is ``.jsonl``.

    Raises:
        TypeError: ``file`` is neither a string nor a path object.
        ValueError: ``file`` is empty.
        OSError: the file cannot be opened for writing; its subclass and ``errno`` say why.
    """

    @explains_keywords("OtlpFileSpanExporter")
    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.path = _absolute(file)
        self.failed_spans = 0
        self._lock = threading.Lock()
        self._descriptor: int | None
        self._descriptor, self.created = _open_to_append(self.path)
        self._mid_line = not self.created and _ends_mid_line(self.path)
        forks.register(self._renew_lock)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append `spans` as one line; FAILURE, never an exception, where that cannot be done."""
        try:
            line = otlp_line(spans)
            with self._lock:
                self._append(line)
        except Exception as error:
            self._count_failure(len(spans), error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file. Later exports fail; calling it again does nothing."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True: nothing is held back between exports."""
        return True

    def _append(self, line: bytes) -> None:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the exporter has been shut down")
        rest = memoryview(b"\n" + line if self._mid_line else line)
        while rest:
            written = os.write(self._descriptor, rest)
            rest = rest[written:]
            self._mid_line = len(rest) > 0

    def _count_failure(self, spans: int, error: Exception) -> None:
        with self._lock:
            is_first = self.failed_spans == 0
            self.failed_spans += spans
        if is_first:
            _logger.error(
                "%d spans could not be written to %s: %s. Further failures are counted, not logged.",
                spans,
                self.path,
                error,
            )

    def _renew_lock(self) -> None:
        # A thread of the parent may have held it at the moment of the fork; in the child nobody lets it go.
        self._lock = threading.Lock()


def otlp_line(spans: Sequence[ReadableSpan]) -> bytes:
    """Return `spans` as one line of OTLP/JSON in UTF-8, its newline included."""
    text = json.dumps({"resourceSpans": _resource_spans(spans)}, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate (of a file name that is not UTF-8, say) has no encoding: it becomes a question mark.
    return text.encode("utf-8", "replace") + b"\n"


def _resource_spans(spans: Sequence[ReadableSpan]) -> list[_Json]:
    # Grouped by identity: a provider hands the same resource and scope objects to all its spans, and hashing
    # a resource costs more than encoding a span.
    groups: dict[int, dict[int, list[ReadableSpan]]] = {}
    for span in spans:
        groups.setdefault(id(span.resource), {}).setdefault(id(span.instrumentation_scope), []).append(span)
    return [_of_one_resource(list(scopes.values())) for scopes in groups.values()]


def _of_one_resource(scopes: list[list[ReadableSpan]]) -> _Json:
    resource = scopes[0][0].resource
    encoded: _Json = {
        "resource": {"attributes": _attributes(resource.attributes)},
        "scopeSpans": [_of_one_scope(spans) for spans in scopes],
    }
    if resource.schema_url:
        encoded["schemaUrl"] = resource.schema_url
    return encoded


def _of_one_scope(spans: list[ReadableSpan]) -> _Json:
    scope = spans[0].instrumentation_scope
    if scope is None:
        return {"scope": {}, "spans": [_span(span) for span in spans]}
    encoded: _Json = {
        "scope": {"name": scope.name, "version": scope.version or ""},
        "spans": [_span(span) for span in spans],
    }
    if attributes := getattr(scope, "attributes", None):  # since SDK 1.26
        encoded["scope"]["attributes"] = _attributes(attributes)
    if scope.schema_url:
        encoded["schemaUrl"] = scope.schema_url
    return encoded


def _span(span: ReadableSpan) -> _Json:
    context = span.get_span_context() or INVALID_SPAN_CONTEXT
    encoded: _Json = {"traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}"}
    if context.trace_state:
        encoded["traceState"] = context.trace_state.to_header()
    if span.parent is not None:
        encoded["parentSpanId"] = f"{span.parent.span_id:016x}"
    encoded["flags"] = _flags(span.parent)
    encoded["name"] = str(span.name)
    encoded["kind"] = span.kind.value + 1  # OTLP's 0 is "unspecified", the SDK's is INTERNAL
    encoded["startTimeUnixNano"] = str(span.start_time or 0)
    encoded["endTimeUnixNano"] = str(span.end_time or 0)
    encoded["attributes"] = _attributes(span.attributes)
    if events := span.events:
        encoded["events"] = [_event(event) for event in events]
    if links := span.links:
        encoded["links"] = [_link(link) for link in links]
    if dropped := span.dropped_attributes:
        encoded["droppedAttributesCount"] = dropped
    if dropped := span.dropped_events:
        encoded["droppedEventsCount"] = dropped
    if dropped := span.dropped_links:
        encoded["droppedLinksCount"] = dropped
    encoded["status"] = {"code": span.status.status_code.value}
    if span.status.description:
        encoded["status"]["message"] = span.status.description
    return encoded


def _event(event: Event) -> _Json:
    encoded: _Json = {
        "timeUnixNano": str(event.timestamp),
        "name": str(event.name),
        "attributes": _attributes(event.attributes),
    }
    if dropped := getattr(event, "dropped_attributes", 0):  # since SDK 1.26
        encoded["droppedAttributesCount"] = dropped
    return encoded


def _link(link: Link) -> _Json:
    encoded: _Json = {
        "traceId": f"{link.context.trace_id:032x}",
        "spanId": f"{link.context.span_id:016x}",
        "attributes": _attributes(link.attributes),
        "flags": _flags(link.context),
    }
    if dropped := getattr(link, "dropped_attributes", 0):  # since API 1.27
        encoded["droppedAttributesCount"] = dropped
    return encoded


def _flags(parent_or_linked: SpanContext | None) -> int:
    is_remote = parent_or_linked is not None and parent_or_linked.is_remote
    return _IS_REMOTE_IS_KNOWN | _IS_REMOTE if is_remote else _IS_REMOTE_IS_KNOWN


def _attributes(attributes: Mapping[str, object] | None) -> list[_Json]:
    return [{"key": str(key), "value": _any_value(value)} for key, value in (attributes or {}).items()]


def _any_value(value: object) -> _Json:
    """Return an attribute's value as OTLP's AnyValue.

    >>> _any_value(3)
    {'intValue': '3'}
    >>> _any_value([0.5, "a", True])
    {'arrayValue': {'values': [{'doubleValue': 0.5}, {'stringValue': 'a'}, {'boolValue': True}]}}
    """
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        digits = int.__repr__(value)  # also of an IntEnum, whose str() is its name
        return {"intValue": digits} if value in _INT64 else {"stringValue": digits}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else _NOT_FINITE[float.__repr__(value)]}
    if value is None:
        return {}
    if isinstance(value, bytes):
        return {"bytesValue": b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _attributes(value)}}
    if isinstance(value, Sequence):
        return {"arrayValue": {"values": [_any_value(item) for item in value]}}
    return {"stringValue": str(value)}


def _absolute(path: object) -> str:
    expected = "expected a path, such as 'trace.jsonl'"
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(name, str):
        raise TypeError(f"file={path!r} is of type {type(path).__name__}; {expected}")
    if not name or "\0" in name:
        raise ValueError(f"file={path!r} is {'not a path' if name else 'empty'}; {expected}")
    return str(Path(name).absolute())


def _open_to_append(path: str) -> tuple[int, bool]:
    """Return a descriptor that appends to `path`, and whether the file was created for it."""
    # Without O_NONBLOCK, opening a named pipe that nobody reads would hang; with it, that is an error.
    flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        try:
            descriptor, created = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            descriptor, created = os.open(path, flags | os.O_CREAT, 0o666), False
    except OSError as error:
        raise OSError(error.errno, _why_not(Path(path), error)) from error
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor, created


def _why_not(path: Path, error: OSError) -> str:
    found = f"file={str(path)!r}"
    if isinstance(error, IsADirectoryError):
        return f"{found} is a directory; name a file in it, such as {str(path / 'trace.jsonl')!r}"
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        return f"{found}: there is no directory {str(path.parent)!r}; create it, or name one that exists"
    return f"{found} cannot be opened for writing ({error.strerror}); name a file that can be"


def _ends_mid_line(path: str) -> bool:
    """Tell whether an earlier process was killed within its last line."""
    existing = Path(path)
    try:
        if not existing.is_file() or existing.stat().st_size == 0:
            return False
        with existing.open("rb") as lines:
            lines.seek(-1, os.SEEK_END)
            return lines.read(1) != b"\n"
    except OSError:  # it may be written and not read: assume the usual
        return False
