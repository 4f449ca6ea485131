"""Files that are no trace, or too large a one: errors that say what to do."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.analysis.synthetic_runs import layered_run, write_trace
from tests.analysis.trace_documents import FORMATS, WHOLE, Item, lines, read
from traced_threadpool.analysis.trace_file import TraceFileError, read_runs


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty; expected a trace"),
        ("\n \n", "holds a trace without a span"),
        (b"\x7fELF\0\0\1\2" * 100, "is binary; expected a trace"),
        ("name,age\nada,36\n", "is not JSON"),
        ("import json\n\ntotals = {\n}\n{}\nprint(totals)\n", "is not JSON"),
        ('{"a": 1, "b": 2}', "holds a JSON object with the keys 'a', 'b'; expected a trace"),
        ("[1, 2]", "holds JSON that is not an object but a list"),
        ("3", "holds JSON that is not an object but a int"),
        ("{}", "holds an empty JSON object"),
        ('{"a": 1}\n{"a": 2}\n', "holds lines of JSON, the first of them a JSON object with the keys 'a'"),
        (lines(WHOLE)[:900], "holds half a line of spans and no whole one: the process that wrote it was killed"),
        ('{"resourceSpans": []}', "holds a trace without a span"),
        ('{"resourceMetrics": []}\n', "holds metrics or logs, and no spans"),
        (
            lines([replace(WHOLE[0], trace="no id")]),
            "holds spans, but none with usable ids and times; expected a trace",
        ),
        (lines([Item(1, "GET /", 0, 1, {})]), "holds 1 span, none of them of a Hamilton run or node; expected spans"),
        ("[" * 100_000, "is not JSON (nested too deeply)"),
        (gzip.compress(lines(WHOLE).encode(), mtime=0)[:40], "is compressed and cut off"),
        (b"\x1f\x8bnot gzip at all", "is compressed and damaged"),
    ],
    ids=lambda value: None if isinstance(value, bytes) or len(value) > 60 else value,
)
def test_a_file_that_is_no_trace_is_an_error_that_helps(content: str | bytes, said: str, file: Path) -> None:
    """What was found, what was expected, what to do."""
    with pytest.raises(TraceFileError) as caught:
        read(file, content)
    assert said in str(caught.value)
    assert repr(str(file)) in str(caught.value)


def test_no_file_and_a_directory_are_errors_that_help(tmp_path: Path) -> None:
    """`TraceFileError` is a ValueError, and names what to give instead."""
    with pytest.raises(
        TraceFileError, match=r"there is no file '.*missing.jsonl'; name one that .* wrote, or that was downloaded"
    ):
        read_runs(tmp_path / "missing.jsonl")
    with pytest.raises(ValueError, match=r"is a directory; name a file in it, such as '.*trace.jsonl'"):
        read_runs(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error_that_helps(file: Path) -> None:
    """With the reason of the operating system."""
    file.write_text("{}")
    file.chmod(0)
    with pytest.raises(TraceFileError, match=r"cannot be read .Permission denied"):
        read_runs(file)


@pytest.mark.parametrize("form", ["tempo", "jaeger"])
def test_a_document_that_is_too_large_is_refused_unless_told(form: str, file: Path) -> None:
    """It would be held in memory as a whole; lines of any number are not."""
    file.write_text(FORMATS[form](WHOLE * 200))
    with pytest.raises(TraceFileError, match="is a single JSON document, or has a line, of more than 100,000 bytes"):
        read_runs(file, max_document_bytes=100_000)
    assert len(read_runs(file)) == 1
    file.write_text(lines(WHOLE * 200))
    assert len(read_runs(file, max_document_bytes=100_000)) == 1


def test_progress_is_told_in_bytes_of_the_file(file: Path) -> None:
    """Rising, and the whole file at the end."""
    file.write_text(lines(WHOLE * 1500))
    told: list[int] = []
    read_runs(file, progress=told.append)
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == file.stat().st_size


def test_a_file_with_more_spans_of_others_than_memory_is_meant_to_hold(file: Path) -> None:
    """Of those, which lies in which is kept, four times as many as of ours."""
    foreign = [Item(100 + i, "GET /", 0, 1, {}, parent=100 + i - 1) for i in range(45)]
    file.write_text(lines([*WHOLE, *foreign]))
    with pytest.raises(TraceFileError, match=r"more than 10 spans of runs and nodes, or four times as many others"):
        read_runs(file, max_spans=10)
    assert len(read_runs(file, max_spans=12)) == 1


def test_a_file_with_more_spans_than_memory_is_meant_to_hold(tmp_path: Path) -> None:
    """Says so as soon as that is met, and what to do; what comes after is not read."""
    trace = write_trace(tmp_path / "large.jsonl", layered_run(2_000))
    lines = trace.read_text().splitlines(keepends=True)
    read: list[int] = []
    with pytest.raises(TraceFileError, match=r"more than 700 spans.*grep -F TRACE_ID.*split -C.*larger max_spans"):
        read_runs(trace, max_spans=700, progress=read.append)
    assert sum(read) < trace.stat().st_size
    (whole,) = read_runs(trace, max_spans=2_001)
    assert len(whole.nodes) == 2_000
    part = tmp_path / "part.jsonl"
    part.write_text("".join(lines[:1]))
    (some,) = read_runs(part, max_spans=700)
    assert (len(some.nodes), some.expected_nodes) == (511, 2_000)
