"""What the SDK's limits cut from spans: the record is the one that the process has, or says what is missing."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")

from hamilton import ad_hoc_utils, driver
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.analysis.trace_documents import WHOLE, jaeger, key, lines, node_item, read, read_one, run_item
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis.trace_file import TraceFileError, read_runs
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.telemetry.export.otlp_file import OtlpFileSpanExporter


def first_of_two_with_a_long_name() -> int:
    time.sleep(0.02)
    return 1


def first_of_two_with_a_longer_name() -> int:
    return 1


def second(first_of_two_with_a_long_name: int, first_of_two_with_a_longer_name: int) -> int:
    """A node that uses its span for itself, which a new user does in a loop."""
    span = trace.get_current_span()
    for row in range(200):
        span.set_attribute(f"row.{row}", "x" * row)
        span.add_event(f"row {row}", {"row": row})
        if hasattr(span, "add_link"):
            span.add_link(trace.SpanContext(1, row + 1, is_remote=False))
    return 2


def third(second: int) -> int:
    raise ValueError("private")


def fourth(third: int) -> int:
    return 4


@dataclass(frozen=True)
class Fact:
    """What a verdict rests on."""

    outcome: str
    upstream: frozenset[str]
    queue_ns: int
    dependency_ns: int
    duration_ns: int
    worker: str
    states: dict[str, int]
    samples: int
    error_type: str | None
    failed_upstream: str | None


def facts(run: RecordedRun) -> dict[str, Fact]:
    def of(node: NodeExecution) -> Fact:
        return Fact(
            outcome=node.outcome,
            upstream=frozenset(run.by_key[each].name for each in node.upstream),
            queue_ns=node.queue_ns,
            dependency_ns=node.dependency_ns,
            duration_ns=node.duration_ns,
            worker=node.worker,
            states=dict(node.states),
            samples=node.samples,
            error_type=node.error_type,
            failed_upstream=node.failed_upstream,
        )

    return {node.name: of(node) for node in run.nodes}


def settings_of(run: RecordedRun) -> tuple[Any, ...]:
    return run.id, run.outcome, run.max_workers, run.priority, run.cpus, run.attribution, run.gil_holders


def record_and_file(path: Path, limits: SpanLimits, functions: Any = ()) -> tuple[RecordedRun, RecordedRun]:
    """One run, as the process has it and as its file does."""
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OtlpFileSpanExporter(path)))
    functions = functions or (
        first_of_two_with_a_long_name, first_of_two_with_a_longer_name, second, third, fourth,
    )  # fmt: skip
    module = ad_hoc_utils.create_temporary_module(*functions)
    with FutureAdapter(2, "a_pool_with_a_name", record=True, tracer_provider=provider) as adapter:
        built = driver.Builder().with_modules(module).with_adapters(adapter).build()
        with pytest.raises(ValueError, match="private"):
            built.execute(["fourth"])
    provider.shutdown()
    (run,) = read_runs(path)
    return adapter.recorded_runs[-1], run


LIMITS = {
    **{f"{count} attributes": {"max_span_attributes": count} for count in (1, 2, 3, 5, 8, 12, 15, 17, 20, 24, 128)},
    **{f"{length} characters": {"max_span_attribute_length": length} for length in (0, 1, 3, 5, 8, 12, 20, 29, 31, 36)},
    **{f"{length} of all": {"max_attribute_length": length} for length in (4, 29)},
    **{f"{count} attributes of a link": {"max_link_attributes": count} for count in (0, 1, 8)},
    **{f"{count} attributes of an event": {"max_event_attributes": count} for count in (0, 1, 8)},
    **{f"{count} links": {"max_links": count} for count in (0, 1, 2)},
    **{f"{count} events": {"max_events": count} for count in (0, 1)},
    "everything": {"max_span_attributes": 16, "max_span_attribute_length": 9, "max_links": 1, "max_events": 1},
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_the_record_is_that_of_the_process_or_says_what_is_missing(limits: dict[str, int], tmp_path: Path) -> None:
    """Each limit by itself and all at once, on nodes that set 200 attributes, events and links of their own."""
    live, in_file = record_and_file(tmp_path / "trace.jsonl", SpanLimits(**limits))
    same = facts(live) == facts(in_file) and settings_of(live) == settings_of(in_file)
    assert same or in_file.problems


@pytest.mark.parametrize("limits", [{"max_links": 0}, {"max_links": 1}, {"max_events": 0}], ids=str)
def test_links_and_events_that_are_cut_change_nothing(limits: dict[str, int], tmp_path: Path) -> None:
    """Upstream is told by names as well, and no fact of the record is in an event."""
    live, in_file = record_and_file(tmp_path / "trace.jsonl", SpanLimits(max_span_attributes=1_000, **limits))
    assert facts(live) == facts(in_file)


@pytest.mark.parametrize("length", [0, 1, 3, 10, 29, 30])
def test_names_that_are_cut_are_told_from_the_spans_own(length: int, tmp_path: Path) -> None:
    """A span's name is whole whatever the limit, and outcomes are told by how they begin."""
    limits = SpanLimits(max_span_attributes=1_000, max_span_attribute_length=length)
    live, in_file = record_and_file(tmp_path / "trace.jsonl", limits)
    assert {name: fact.outcome for name, fact in facts(in_file).items()} == {
        name: fact.outcome for name, fact in facts(live).items()
    }
    for name, fact in facts(live).items():
        assert fact.upstream <= facts(in_file)[name].upstream or not length
    assert any("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT" in problem for problem in in_file.problems)


def test_of_one_attribute_the_outcome_stays(tmp_path: Path) -> None:
    """Also of a node that never ran."""
    live, in_file = record_and_file(tmp_path / "trace.jsonl", SpanLimits(max_span_attributes=1))
    assert {node.name: node.outcome for node in in_file.nodes} == {node.name: node.outcome for node in live.nodes}


def test_a_file_without_any_attribute_says_why(tmp_path: Path) -> None:
    """Nothing tells whose spans they are, but the limit's own count."""
    with pytest.raises(TraceFileError, match=r"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT\) dropped attributes of [67] of them"):
        record_and_file(tmp_path / "trace.jsonl", SpanLimits(max_span_attributes=0))


def test_a_span_that_lost_nothing_of_ours_is_no_problem(file: Path) -> None:
    """Others' attributes are dropped, and all that a record rests on is there."""
    items = list(WHOLE)
    text = lines(items).replace('"droppedLinksCount": 0', '"droppedLinksCount": 0, "droppedAttributesCount": 72')
    (run,) = read(file, text)
    assert [problem for problem in run.problems if "load" in problem] == []


KEYS = (
    "hamilton.node.outcome", "hamilton.node.queue.duration", "hamilton.node.dependency.duration",
    "hamilton.node.cpu.duration", "thread.name", "hamilton.run.id", "hamilton.node.name", "hamilton.threadpool.name",
)  # fmt: skip


@pytest.mark.parametrize("form", [lines, jaeger])
@pytest.mark.parametrize(
    "lost", [*itertools.combinations(KEYS, 1), KEYS], ids=lambda keys: keys[-1] if len(keys) == 1 else "all"
)
def test_each_attribute_that_was_dropped_is_told(lost: tuple[str, ...], form: Any, file: Path) -> None:
    """In OTLP by its count, in Jaeger's form by the tag that OpenTelemetry's mapping has for it."""
    node = node_item(2, "a", 5, 45, queue_ms=3, attributes=dict.fromkeys(lost, None))
    node.attributes["hamilton.node.wait.samples"] = 3
    node.attributes["thread.id"] = 7
    node.attributes.setdefault("hamilton.node.cpu.duration", 0.01)
    for each in lost:
        node.attributes.pop(each, None)
    if form is jaeger:
        node.attributes["otel.dropped_attributes_count"] = len(lost)
    text = form([run_item(1, 0, 100, nodes=1), node]).replace(
        '"droppedLinksCount": 0', f'"droppedLinksCount": 0, "droppedAttributesCount": {len(lost)}'
    )
    (run,) = read(file, text)
    (told,) = [problem for problem in run.problems if "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in problem]
    assert lost[0] in told or len(lost) > 1
    assert len(run.nodes) == 1


def test_a_run_whose_attributes_were_dropped_says_so(file: Path) -> None:
    """Workers and settings are what is missing then."""
    run = run_item(1, 0, 100, nodes=1)
    for each in ("hamilton.threadpool.workers.limit", "hamilton.run.outcome", "hamilton.run.node.count"):
        del run.attributes[each]
    run.attributes["hamilton.run.priority"] = "fifo"
    text = lines([run, node_item(2, "a", 5, 45)]).replace(
        '"droppedLinksCount": 0', '"droppedLinksCount": 0, "droppedAttributesCount": 5', 1
    )
    (record,) = read(file, text)
    assert record.id == "run-1"
    assert "attributes dropped" in record.problems[0]


def test_links_and_names_both_lost_are_told(file: Path) -> None:
    """A node whose links and upstream names were dropped waited for something nobody knows."""
    node = node_item(3, "b", 50, 90, (2, "a"), links=(), dropped_links=3, dependency_ms=45)
    del node.attributes["hamilton.node.upstream"]
    text = lines([run_item(1, 0, 100), node_item(2, "a", 5, 45), node])
    text = text.replace('"droppedLinksCount": 3', '"droppedLinksCount": 3, "droppedAttributesCount": 3')
    (run,) = read(file, text)
    assert "1 node: the span of an upstream node is missing, so what it waited for is not known." in run.problems


def test_what_the_adapter_says_was_cut_is_told(file: Path) -> None:
    """Its own count, where nothing else shows it."""
    run = read_one(
        file, [run_item(1, 0, 100, nodes=1), node_item(2, "a", 5, 45, attributes={"hamilton.attributes.cut": 1})]
    )
    assert run.problems[0].startswith("1 span: values cut off by the SDK's limit on their length")
    assert isinstance(run.by_key[key(2)], NodeExecution)
