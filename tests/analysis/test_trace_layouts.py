"""JSON documents in a file, however they are laid out, and what lies between them."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.analysis.trace_documents import FORMATS, WHOLE, node_item, otlp, read, run_item
from traced_threadpool.analysis.trace_file import TraceFileError, read_runs
from traced_threadpool.analysis.trace_forms.json_stream import Documents
from traced_threadpool.analysis.trace_forms.known_forms import BEGINNING


def document(number: int) -> dict[str, Any]:
    """One run with one node, as a document of OTLP/JSON."""
    run_id, first = f"run-{number}", 10 * number + 1
    return otlp(
        [
            run_item(first, number, number + 1, run_id=run_id, nodes=1),
            node_item(first + 1, "node {of} [braces]", number, number + 0.5, run=first, run_id=run_id),
        ]
    )


def printed(value: Any, layout: str) -> str:
    """A document as different writers print it."""
    if layout == "compact":
        return json.dumps(value, separators=(",", ":"))
    if layout == "broken anywhere":
        return json.dumps(value).replace(", ", "\n,").replace('{"', '{\n"')
    return json.dumps(value, indent={"two": 2, "none": 0, "tab": "\t"}[layout])


LAYOUTS = ["compact", "two", "none", "tab", "broken anywhere"]
SEPARATORS = ["", "\n", "\r\n", "\n\n \n", "\n\ufeff", "\x1e", " ", ",\n"]
GARBAGE = ["INFO started\n", '{"level": "info"}\n', "{not json}\n", '{"resourceSpans":[{"resource":{"attr\n', "}}]\n"]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_documents_are_read_however_they_are_laid_out(file: Path, data: st.DataObject) -> None:
    """Any mixture of layouts and separators, in arrays or not, between lines that are no documents."""
    text, count, unread = data.draw(st.sampled_from(["", "\ufeff"])), data.draw(st.integers(1, 6)), 0
    number = 0
    while number < count:
        many = data.draw(st.integers(1, count - number))
        values: Any = [document(each) for each in range(number, number + many)]
        number += many
        if data.draw(st.booleans()):
            text += printed(values, data.draw(st.sampled_from(LAYOUTS)))
        else:
            for value in values:
                text += printed(value, data.draw(st.sampled_from(LAYOUTS))) + data.draw(st.sampled_from(SEPARATORS))
        if data.draw(st.booleans()):
            text += "\n" + data.draw(st.sampled_from(GARBAGE))
            unread += 1
    runs = read(file, text)
    assert [run.id for run in runs] == [f"run-{each}" for each in range(count)]
    assert [len(run.nodes) for run in runs] == [1] * count
    assert {bool(run.problems) for run in runs} == {unread > 0}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=st.sampled_from(LAYOUTS), separator=st.sampled_from(["", "\n"]), in_array=st.booleans(), data=st.data())
def test_what_comes_before_and_after_a_cut_document_is_read(
    file: Path, layout: str, separator: str, in_array: bool, data: st.DataObject
) -> None:
    """Wherever in the document the cut is, in a file that ends there or goes on with a document of its own line."""
    whole, torn = printed(document(0), layout), printed(document(1), layout)
    torn = torn[: data.draw(st.integers(20, len(torn) - 1))]
    before = ("[" if in_array else "") + whole + ("," if in_array else separator)
    (run,) = read(file, before + torn)
    assert run.id == "run-0"
    assert len(run.problems) == 1
    assert "not whole" in run.problems[0]
    first, second = read(file, before + torn + "\n" + printed(document(2), layout))
    assert (first.id, second.id) == ("run-0", "run-2")
    assert "could not be read" in first.problems[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_document_that_is_cut_and_no_other_is_an_error_that_helps(layout: str, file: Path) -> None:
    """As a download leaves it that was broken off."""
    text = printed(document(0), layout)
    with pytest.raises(TraceFileError, match=r"half a line|is cut off; download or copy it again"):
        read(file, text[: len(text) // 2])


def test_a_torn_line_in_the_middle_costs_that_line_alone(file: Path) -> None:
    """Wherever it is torn; the document behind it may even be on the same line."""
    whole = [json.dumps(document(number)) for number in range(4)]
    for cut in range(1, len(whole[0]) - 1, 20):
        for separator in ("\n", ""):
            runs = read(file, whole[0] + "\n" + whole[1][:cut] + separator + "\n".join(whole[2:]))
            assert [run.id for run in runs] == ["run-0", "run-2", "run-3"], (cut, separator)


def test_lines_of_an_array_are_held_one_at_a_time(file: Path) -> None:
    """An array of documents may be larger than a document may be."""
    file.write_text("[\n" + ",\n".join(json.dumps(document(number)) for number in range(100)) + "\n]\n")
    assert len(read_runs(file, max_document_bytes=10_000)) == 100
    file.write_text("\n".join(json.dumps(document(number), indent=2) for number in range(100)))
    assert len(read_runs(file, max_document_bytes=20_000)) == 100


@pytest.mark.parametrize("layout", ["compact", "two"])
def test_reading_takes_time_linear_in_the_file(layout: str, file: Path) -> None:
    """The parser is given each byte a few times, not once for each line."""
    parsed = []
    file.write_text(printed([document(number) for number in range(500)], layout))
    with file.open("rb") as raw:
        documents = Documents(raw, BEGINNING)
        value = documents._value
        documents._value = lambda text, at: parsed.append(value(text, at)) or parsed[-1]
        assert sum(1 for _ in documents.read(lambda value: value)) == 500
    assert len(parsed) <= 3 * 500


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("form", FORMATS)
def test_text_in_utf_16_and_32_is_read(form: str, encoding: str, file: Path) -> None:
    """As some shells write what a program prints."""
    text = FORMATS[form](WHOLE * 200)
    assert read(file, text.encode(encoding)) == read(file, text)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_to_a_compressed_file_costs_little_of_what_comes_before(layout: str, file: Path) -> None:
    """Less than two documents and 16 KiB of text, at any place of the damage."""
    random.seed(5)
    texts = [printed(document(number), layout) for number in range(400)]
    whole = gzip.compress("\n".join(texts).encode(), compresslevel=0)
    for at in random.sample(range(len(whole) // 4, len(whole) - 20), 4):
        damaged = bytearray(whole[:at])  # stored blocks: what is cut off was readable up to the cut
        runs = read(file, bytes(damaged))
        readable = at - 100 - 16 * 1024
        assert len(runs) >= readable // (max(map(len, texts)) + 1) - 2
        assert runs[0].problems[0] == "The compressed file is cut off; what comes before was read."


def test_a_damaged_block_costs_little_of_what_comes_before(file: Path) -> None:
    """A file in blocks of 64 kB: the second one's header is damaged, the first one is read to the last 8 KiB."""
    text = "\n".join(json.dumps(document(number)) for number in range(400)).encode()
    whole = bytearray(gzip.compress(text, compresslevel=0))
    first_bytes = int.from_bytes(whole[11:13], "little")
    second = 10 + 5 + first_bytes
    whole[second + 1 : second + 5] = bytes(4)
    runs = read(file, bytes(whole))
    assert len(runs) >= (first_bytes - 8 * 1024) // (len(text) // 400) - 2
    assert runs[0].problems[0] == "The compressed file is cut off; what comes before was read."


def test_a_compressed_file_of_several_members_and_padding(file: Path) -> None:
    """As `cat one.gz two.gz` makes it, and tapes pad it."""
    parts = [gzip.compress(json.dumps(document(number)).encode() + b"\n") for number in range(3)]
    assert len(read(file, parts[0] + parts[1] + b"\0" * 9_000 + parts[2] + b"\0" * 10)) == 3
    assert [run.problems for run in read(file, b"".join(parts))] == [()] * 3
