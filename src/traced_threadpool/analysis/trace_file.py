"""A file of spans into recorded runs, and recorded runs into a file. What kind of file it is, its content tells:

- documents of OTLP/JSON, as our own exporter and a collector write them, one a line, or Tempo answers them;
- documents of Jaeger's JSON, as its page downloads them;
- any of them compressed by gzip, in UTF-8, UTF-16 or UTF-32.

Documents may be laid out in any way: one a line, printed over many lines, several on a line, in arrays. What a killed
process left half written is skipped, and each run's `problems` say so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from traced_threadpool.analysis.replay.others import beside
from traced_threadpool.analysis.trace_forms.byte_streams import GzipDamaged, utf8_stream
from traced_threadpool.analysis.trace_forms.from_spans import runs_from
from traced_threadpool.analysis.trace_forms.grouping import Gathered
from traced_threadpool.analysis.trace_forms.json_stream import Documents, TooLarge
from traced_threadpool.analysis.trace_forms.known_forms import BEGINNING, OTHER_SIGNALS, reduced, spans_of
from traced_threadpool.analysis.trace_forms.span import Found, Span, Unreadable
from traced_threadpool.analysis.trace_forms.to_otlp import lines_of
from traced_threadpool.model.atomic_write import write_whole
from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.model.recorded_run import RecordedRun

MAX_DOCUMENT_BYTES: Final = 512 * 2**20
"""The largest single document, or line, that is read: one is held in memory as a whole."""

MAX_SPANS: Final = 500_000
"""How many spans of runs and nodes are read of one file: each takes about 2 KB until all are put together. Of others,
which nodes they lie between is kept of four times as many."""

EXPECTED: Final = (
    "expected a trace: lines of OTLP/JSON as OtlpFileSpanExporter or setup_telemetry(file=...) writes them, OTLP/JSON "
    "from Tempo, or JSON downloaded from Jaeger"
)

_PROGRESS_BYTES: Final = 2**20


class TraceFileError(ValueError):
    """A file that no run can be read from; its text says what was found, what was expected and what to do."""


@explains_keywords("read_runs")
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


@explains_keywords("save_runs")
def save_runs(path: str | os.PathLike[str], runs: Iterable[RecordedRun]) -> None:
    """Writes runs to a file of OTLP/JSON lines, whole or not at all, in place of what was there. `read_runs` reads it.

    Other runs that were in the pool with them are written too, as what a replay of theirs needs: `read_runs` gives the
    runs that were given here, and each has the others as its `neighbours`.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(path, _lines(list(runs)))


def _lines(runs: Sequence[RecordedRun]) -> Iterator[str]:
    others = {other.id: (run, other) for run in runs for other in beside(run)}
    for run in runs:
        others.pop(run.id, None)
    # Times of a clock that began at 0 are put a moment after 1970, since 0 is no time.
    first_ns = min((run.started_ns for run in (*runs, *(other for _, other in others.values()))), default=1)
    shift_ns = max(0, 1 - first_ns)
    for run in runs:
        yield from lines_of(run, started_unix_ns=_unix_ns(run, run, shift_ns))
    for run, other in others.values():
        yield from lines_of(other, started_unix_ns=_unix_ns(run, other, shift_ns), beside=True)


def _unix_ns(run: RecordedRun, other: RecordedRun, shift_ns: int) -> int:
    """By the clock of the run that the other one was beside: each has an offset of its own to Unix time."""
    since_ns = other.started_ns - run.started_ns
    return (run.started_ns + shift_ns if run.started_unix_ns is None else run.started_unix_ns) + since_ns


@dataclass(slots=True)
class _Reading:
    """One file being read, and what was met on the way."""

    shown: str
    raw: BufferedReader
    progress: Callable[[int], None] | None
    limit: int
    documents: Documents = field(init=False)
    is_cut_off: bool = False
    other_signals: int = 0
    told: int = 0

    def found(self) -> Iterator[Found]:
        """The spans, document by document."""
        try:
            stream = utf8_stream(self.raw, self._cut_off)
            self.documents = Documents(stream, BEGINNING, limit=self.limit, object_hook=reduced, progress=self.tell)
            yield from self.documents.read(self._spans_of)
        except GzipDamaged as error:
            raise TraceFileError(f"{self.shown} is compressed and damaged ({error}); {EXPECTED}") from error
        except TooLarge as error:
            raise TraceFileError(
                f"{self.shown} is a single JSON document, or has a line, of more than {self.limit:,} bytes, which "
                "would be held in memory as a whole; download fewer traces at a time, or write lines of OTLP/JSON, or "
                "give max_document_bytes"
            ) from error
        if not self.documents.known and (self.documents.unread_lines or self.documents.first_brackets):
            raise TraceFileError(self._no_document())

    def problems(self) -> list[str]:
        problems: list[str] = []
        if self.is_cut_off:
            problems.append("The compressed file is cut off; what comes before was read.")
        if cut := self.documents.cut_lines:
            problems.append(
                f"The last {'line' if cut == 1 else 'document'} is not whole, as a killed process leaves it: spans of "
                "the last moments are missing."
            )
        if unread := self.documents.unread_lines - cut:
            problems.append(f"{unread} of the file's lines could not be read: spans may be missing.")
        return problems

    def tell(self, *, at_end: bool = False) -> None:
        if self.progress is None or not self.raw.seekable():
            return
        position = self.raw.tell()
        if at_end or position >= self.told + _PROGRESS_BYTES:
            self.told = position
            self.progress(position)

    def _cut_off(self) -> None:
        self.is_cut_off = True

    def _spans_of(self, document: Any) -> Found | None:
        if not isinstance(document, dict):
            return None
        found = spans_of(document)
        if found is None and any(signal in document for signal in OTHER_SIGNALS):
            self.other_signals += 1
            return iter(())
        return found

    def _no_document(self) -> str:
        documents = self.documents
        text = documents.first_unread or documents.first_brackets
        if self.is_cut_off:
            return f"{self.shown} is compressed and cut off before its first document ends; download or copy it again"
        if "\0" in text[:4096]:
            return f"{self.shown} is binary; {EXPECTED}"
        if documents.others:
            if documents.unread_lines > documents.others:  # a program, or a page, may have lines that could be JSON
                return f"{self.shown} is not JSON; {EXPECTED}"
            several = "lines of JSON, the first of them " if documents.others > 1 else ""
            return f"{self.shown} holds {several}{_what(documents.first_other)}; {EXPECTED}"
        if documents.cut_lines == 1 and text.startswith('{"resourceSpans"'):
            return (
                f"{self.shown} holds half a line of spans and no whole one: the process that wrote it was killed, or "
                "is writing; run it to its end, or until the next batch of spans is written"
            )
        if documents.cut_lines and BEGINNING.match(text):
            return f"{self.shown} holds the beginning of a trace, and is cut off; download or copy it again"
        try:
            return f"{self.shown} holds {_what(json.loads(text))}; {EXPECTED}"
        except ValueError as error:
            return f"{self.shown} is not JSON ({error}); {EXPECTED}"
        except RecursionError:
            return f"{self.shown} is not JSON (nested too deeply); {EXPECTED}"


def _what(document: Any) -> str:
    if isinstance(document, dict):
        keys = ", ".join(repr(key) for key in list(document)[:5])
        return f"a JSON object with the keys {keys}" if keys else "an empty JSON object"
    if isinstance(document, (Span, Unreadable, tuple)):
        return "a single span, without the document that it was part of"
    return f"JSON that is not an object but a {type(document).__name__}"


def _nothing_found(shown: str, gathered: Gathered, reading: _Reading) -> str:
    if gathered.spans:
        many = "1 span" if gathered.spans == 1 else f"{gathered.spans:,} spans"
        if gathered.emptied:
            return (
                f"{shown} holds {many}, none of which can be told to be of a Hamilton run or node: the SDK's limit "
                f"(OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT) dropped attributes of {gathered.emptied:,} of them"
            )
        return (
            f"{shown} holds {many}, none of them of a Hamilton run or node; expected spans of traced_threadpool's "
            "FutureAdapter: was the driver built with it, with tracing on, and was the trace sampled?"
        )
    if gathered.unreadable:
        return f"{shown} holds spans, but none with usable ids and times; {EXPECTED}"
    if reading.other_signals:
        return f"{shown} holds metrics or logs, and no spans; {EXPECTED}"
    if reading.is_cut_off:
        return f"{shown} is compressed and cut off before its first line ends; download or copy it again"
    if reading.documents.is_empty:
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
        return (
            f"there is no file {shown}; name one that OtlpFileSpanExporter or setup_telemetry(file=...) wrote, or that "
            "was downloaded"
        )
    return f"{shown} cannot be read ({error.strerror or error}); {EXPECTED}"
