"""A file of spans into recorded runs. What kind of file it is, its content tells:

- lines of OTLP/JSON, as our own exporter and a collector's write them: read line by line, whatever the size;
- one document of OTLP/JSON, as Tempo answers it;
- one document of Jaeger's JSON, as its page downloads it;
- any of them compressed by gzip.

A line that a killed process left half written is skipped, and each run's `problems` say so.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any, Final

from traced_threadpool.analysis.trace_forms.from_spans import Gathered, runs_from
from traced_threadpool.analysis.trace_forms.jaeger_json import jaeger_span, jaeger_spans, jaeger_traces
from traced_threadpool.analysis.trace_forms.otlp_json import otlp_span, otlp_spans, resource_spans
from traced_threadpool.analysis.trace_forms.span import Found
from traced_threadpool.model.recorded_run import RecordedRun

MAX_DOCUMENT_BYTES: Final = 512 * 2**20
"""The largest single document, or line, that is read: one is held in memory as a whole."""

MAX_SPANS: Final = 500_000
"""How many spans of runs and nodes are read of one file: each takes about 2 KB until all are put together. Of others,
which nodes they lie between is kept of four times as many."""

EXPECTED: Final = (
    "expected a trace: lines of OTLP/JSON as setup_telemetry(file=...) writes them, OTLP/JSON from Tempo, or JSON "
    "downloaded from Jaeger"
)

_GZIP: Final = b"\x1f\x8b"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_INDENTATION: Final = re.compile(rb"\n\s*")
_PROGRESS_BYTES: Final = 2**20
_LINES_OF_A_DOCUMENT: Final = 1_000
"""So many lines none of which is a document, and they are part of one."""
_OTHER_SIGNALS: Final = ("resourceMetrics", "resourceLogs", "resourceProfiles")


class TraceFileError(ValueError):
    """A file that no run can be read from; its text says what was found, what was expected and what to do."""


def read_runs(
    path: str | os.PathLike[str] | BufferedReader,
    *,
    progress: Callable[[int], None] | None = None,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
    max_spans: int = MAX_SPANS,
) -> list[RecordedRun]:
    """All runs in a file, by their start; a run nested in another is part of that one's record.

    Args:
        path: The file, or one that is open for reading bytes, such as `sys.stdin.buffer`.
        progress: Told the bytes read so far, of the file as it is on the disk.
        max_document_bytes: How large one line, or a file that is a single JSON document, may be.
        max_spans: How many spans of runs and nodes there may be.

    Raises:
        TraceFileError: The file holds no run, or cannot be read.
    """
    shown = _name_of(path)
    try:
        with nullcontext(path) if isinstance(path, BufferedReader) else Path(path).open("rb") as raw:
            reading = _Reading(shown, raw, progress, max_document_bytes)
            gathered = Gathered()
            for found in reading.found():
                for process, span in found:
                    gathered.take(process, span)
                ours = len(gathered.nodes) + len(gathered.runs)
                if ours > max_spans or len(gathered.parents) > 4 * max_spans:
                    raise TraceFileError(
                        f"{shown} has more than {max_spans:,} spans of runs and nodes, or four times as many others, "
                        "which would not fit into memory; read a part of it: lines that name one trace "
                        "(grep -F TRACE_ID), or some of its lines (split -C 500m), or give read_runs a larger max_spans"
                    )
            reading.tell(at_end=True)
    except OSError as error:
        raise TraceFileError(_why_not(shown, path, error)) from error
    if not gathered.nodes and not gathered.runs:
        raise TraceFileError(_nothing_found(shown, gathered, reading))
    return runs_from(gathered, reading.problems())


@dataclass(slots=True)
class _Reading:
    """One file being read, and what was met on the way."""

    shown: str
    raw: BufferedReader
    progress: Callable[[int], None] | None
    limit: int
    torn_lines: int = 0
    torn_last: bool = False
    truncated: bool = False
    other_documents: int = 0
    is_empty: bool = True
    told: int = 0

    def found(self) -> Iterator[Found]:
        """The spans, document by document."""
        stream = self._stream()
        start: list[bytes] = []  # lines that mean nothing alone: a document over several lines, perhaps
        in_lines = False
        while line := self._read(stream.readline, self.limit + 1):
            if len(line) > self.limit:
                raise TraceFileError(self._too_large())
            if not line.strip():
                continue
            found = self._found_in(line)
            if found is not None:
                if not in_lines:
                    in_lines = True
                    self.torn_lines += len(start)
                self.torn_last = False
                yield found
            elif in_lines:
                self.torn_lines += 1
                self.torn_last = True
            else:
                start.append(line)
                if len(start) == _LINES_OF_A_DOCUMENT:
                    break
        if start and not in_lines:
            yield self._whole_document(start, stream)

    def problems(self) -> list[str]:
        problems: list[str] = []
        if self.truncated:
            problems.append("The compressed file is cut off; what comes before was read.")
        if self.torn_last:
            problems.append(
                "The last line is not whole, as a killed process leaves it: spans of the last moments are missing."
            )
        if torn := self.torn_lines - self.torn_last:
            problems.append(f"{torn} of the file's lines could not be read: spans may be missing.")
        return problems

    def tell(self, *, at_end: bool = False) -> None:
        if self.progress is None or not self.raw.seekable():
            return
        position = self.raw.tell()
        if at_end or position >= self.told + _PROGRESS_BYTES:
            self.told = position
            self.progress(position)

    def _stream(self) -> BufferedReader | gzip.GzipFile:
        is_compressed = self.raw.peek(len(_GZIP)).startswith(_GZIP)
        return gzip.GzipFile(fileobj=self.raw) if is_compressed else self.raw

    def _read(self, read: Callable[[int], bytes], size: int) -> bytes:
        """A piece of the file, which may be compressed; nothing at its end, or where it is cut off."""
        try:
            piece = read(size)
        except (EOFError, zlib.error):
            self.truncated = True
            return b""
        except gzip.BadGzipFile as error:
            raise TraceFileError(f"{self.shown} is compressed and damaged ({error}); {EXPECTED}") from error
        self.is_empty = self.is_empty and not piece
        self.tell()
        return piece

    def _found_in(self, line: bytes) -> Found | None:
        """The spans of a line that is a document, be it without spans; None where it is none."""
        line = line.strip()
        if not line.startswith((b"{", b"[", _BYTE_ORDER_MARK)) or not line.endswith((b"}", b"]")) or len(line) == 2:
            return None
        try:
            document = _parse(line)
        except ValueError:
            return None
        return self._spans_of(document)

    def _spans_of(self, document: Any) -> Found | None:
        if isinstance(document, list):
            parts = [self._spans_of(part) for part in document if isinstance(part, dict)]
            found = [part for part in parts if part is not None]
            return chain.from_iterable(found) if found else None
        if not isinstance(document, dict):
            return None
        if (resources := resource_spans(document)) is not None:
            return otlp_spans(resources)
        if (traces := jaeger_traces(document)) is not None:
            return jaeger_spans(traces)
        if any(signal in document for signal in _OTHER_SIGNALS):
            self.other_documents += 1
            return iter(())
        return None

    def _whole_document(self, start: list[bytes], stream: BufferedReader | gzip.GzipFile) -> Found:
        """One document over several lines, or what is none."""
        lines = len(start)
        pieces = bytearray(b"".join(start))
        start.clear()
        is_ascii_like = b"\0" not in pieces[:4]  # not UTF-16
        while piece := self._read(stream.read, _PROGRESS_BYTES):
            # Line breaks and indentation mean nothing, and make up half of a document written for people.
            pieces += _INDENTATION.sub(b"", piece) if is_ascii_like else piece
            if len(pieces) > self.limit:
                raise TraceFileError(self._too_large())
        text = bytes(pieces)
        del pieces
        try:
            document = _parse(text)
        except ValueError as error:
            raise TraceFileError(self._not_json(text, lines, error)) from error
        del text
        found = self._spans_of(document)
        if found is None:
            raise TraceFileError(f"{self.shown} holds {_what(document)}; {EXPECTED}")
        return found

    def _not_json(self, text: bytes, lines: int, error: ValueError) -> str:
        if self.truncated:
            return f"{self.shown} is compressed and cut off before its first document ends; download or copy it again"
        if b"\0" in text[:4096]:
            return f"{self.shown} is binary; {EXPECTED}"
        if lines == 1 and text.lstrip().startswith(b'{"resourceSpans"'):
            return (
                f"{self.shown} holds half a line of spans and no whole one: the process that wrote it was killed, or "
                "is writing; run it to its end, or until the next batch of spans is written"
            )
        first = text.split(b"\n", 1)[0]
        with suppress(ValueError):
            return f"{self.shown} holds lines of JSON, the first of them {_what(_parse(first))}; {EXPECTED}"
        return f"{self.shown} is not JSON ({error}); {EXPECTED}"

    def _too_large(self) -> str:
        return (
            f"{self.shown} is a single JSON document, or has a line, of more than {self.limit:,} bytes, which would be "
            "held in memory as a whole; download fewer traces at a time, or write lines of OTLP/JSON, or give "
            "max_document_bytes"
        )


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text, object_hook=_reduced)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _reduced(found: dict[str, Any]) -> Any:
    """An object as soon as it is parsed, so that of a span only what a record needs is kept.

    It also takes half the time of going through a whole line later, when its objects have left the processor's cache.
    """
    if "startTimeUnixNano" in found:
        return otlp_span(found)
    if "spanID" in found and "startTime" in found:
        return jaeger_span(found)
    return found


def _what(document: Any) -> str:
    if isinstance(document, dict):
        keys = ", ".join(repr(key) for key in list(document)[:5])
        return f"a JSON object with the keys {keys}" if keys else "an empty JSON object"
    return f"JSON that is not an object but a {type(document).__name__}"


def _nothing_found(shown: str, gathered: Gathered, reading: _Reading) -> str:
    if gathered.spans:
        many = "1 span" if gathered.spans == 1 else f"{gathered.spans:,} spans"
        return (
            f"{shown} holds {many}, none of them of a Hamilton run or node; expected spans of traced_threadpool's "
            "FutureAdapter: was the driver built with it, with tracing on, and was the trace sampled?"
        )
    if gathered.unreadable:
        return f"{shown} holds spans, but none with usable ids and times; {EXPECTED}"
    if reading.other_documents:
        return f"{shown} holds metrics or logs, and no spans; {EXPECTED}"
    if reading.truncated:
        return f"{shown} is compressed and cut off before its first line ends; download or copy it again"
    if reading.is_empty:
        return f"{shown} is empty; {EXPECTED}. A running program's spans are written in batches: wait, or let it end"
    return f"{shown} holds a trace without a span; {EXPECTED}"


def _name_of(path: str | os.PathLike[str] | BufferedReader) -> str:
    if not isinstance(path, BufferedReader):
        return repr(os.fspath(path))
    name = getattr(path, "name", None)
    return "standard input" if name in (0, "<stdin>") else f"the open file {name!r}"


def _why_not(shown: str, path: str | os.PathLike[str] | BufferedReader, error: OSError) -> str:
    if isinstance(error, IsADirectoryError) and not isinstance(path, BufferedReader):
        return f"{shown} is a directory; name a file in it, such as {str(Path(path) / 'trace.jsonl')!r}"
    if isinstance(error, FileNotFoundError):
        return f"there is no file {shown}; name one that setup_telemetry(file=...) wrote, or that was downloaded"
    return f"{shown} cannot be read ({error.strerror or error}); {EXPECTED}"
