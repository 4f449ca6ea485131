"""What the SDK's limits cut: the adapter's own facts survive a node's, or the span says how much is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits

from tests.telemetry.telemetry_helpers import Traces, context_of, make_adapter, make_driver, run_program
from traced_threadpool import Tracing

OWN = {
    "hamilton.node.name",
    "hamilton.node.upstream",
    "hamilton.node.outcome",
    "hamilton.node.dependency.duration",
    "hamilton.node.queue.duration",
    "hamilton.node.cpu.duration",
    "hamilton.run.id",
    "hamilton.threadpool.name",
    "thread.id",
    "thread.name",
    "code.function.name",
    "code.file.path",
    "code.line.number",
}
MANY = 200


def upstream() -> int:
    return 1


def run_with(traces: Traces, *functions: Callable[..., Any], wanted: str) -> None:
    with make_adapter(traces, attribution=False) as adapter:
        make_driver(adapter, *functions).execute([wanted])


def noisy(upstream: int) -> int:
    span = trace.get_current_span()
    for number in range(MANY):
        span.set_attribute(f"row.{number}", number)
        span.add_event(f"event {number}")
        span.add_link(trace.SpanContext(1, number + 1, is_remote=False))
    return 1


@pytest.mark.filterwarnings("ignore")
def test_a_node_with_many_attributes_of_its_own_loses_its_own() -> None:
    """All of the adapter's facts are there as if the node had set none; what was dropped is counted."""
    quiet, loud = Traces(), Traces()
    run_with(quiet, upstream, noisy_but_silent, wanted="noisy_but_silent")
    run_with(loud, upstream, noisy, wanted="noisy")
    expected = {key: value for key, value in quiet.attributes("noisy_but_silent").items() if key in OWN}
    found = {key: value for key, value in loud.attributes("noisy").items() if not key.startswith("row.")}
    assert found.keys() >= OWN
    assert expected.keys() == OWN
    assert found["hamilton.node.upstream"] == ("upstream",)
    assert found["hamilton.run.id"] == loud.attributes("hamilton.run")["hamilton.run.id"]
    span = loud.only("noisy")
    assert span.dropped_attributes > MANY - 128
    assert span.dropped_events > 0
    assert span.dropped_links > 0


def noisy_but_silent(upstream: int) -> int:
    return upstream


def test_a_node_with_many_tags_keeps_what_is_not_one() -> None:
    """Tags are the first to go."""
    from hamilton.function_modifiers import tag

    def tagged(upstream: int) -> int:
        return upstream

    traces = Traces()
    run_with(traces, upstream, tag(**{f"tag{number}": "x" for number in range(MANY)})(tagged), wanted="tagged")
    assert traces.attributes("tagged").keys() >= OWN


@pytest.mark.parametrize("limit", [1, 2, 5, 8])
def test_of_few_attributes_the_most_important_stay(limit: int) -> None:
    """What a span is of, and how it ended; the count of the others is the SDK's."""
    traces = Traces(span_limits=SpanLimits(max_span_attributes=limit))
    run_with(traces, upstream, wanted="upstream")
    node, run = traces.attributes("upstream"), traces.attributes("hamilton.run")
    assert (len(node), len(run)) == (limit, limit)
    assert node["hamilton.node.outcome"] == "success"
    assert "hamilton.run.id" in run
    if limit > 1:
        assert run["hamilton.run.outcome"] == "success"
        assert node["hamilton.node.name"] == "upstream"
    if limit > 4:
        assert "hamilton.run.id" in node
    for name in ("upstream", "hamilton.run"):
        assert traces.only(name).dropped_attributes > 0


@pytest.mark.parametrize("limits", [{"max_span_attribute_length": 10}, {"max_attribute_length": 10}])
def test_values_that_are_cut_are_counted(limits: dict[str, int]) -> None:
    """Names and outcomes too: the span says how many of its values are not whole, since the SDK does not."""

    def a_node_of_a_long_name(upstream: int) -> int:
        return upstream

    traces = Traces(span_limits=SpanLimits(**limits))
    run_with(traces, upstream, a_node_of_a_long_name, wanted="a_node_of_a_long_name")
    for span in traces.spans:
        attributes = dict(span.attributes or {})
        cut = sum(
            any(isinstance(text, str) and len(text) == 10 for text in (value if isinstance(value, tuple) else [value]))
            for value in attributes.values()
        )
        assert attributes["hamilton.attributes.cut"] == cut > 0, span.name
        assert span.name in ("hamilton.run", "upstream", "a_node_of_a_long_name")  # the span's own name is whole


def test_nothing_is_said_where_nothing_is_cut() -> None:
    """Without a limit, and with one that is far away."""
    for limits in (SpanLimits(), SpanLimits(max_span_attribute_length=10_000)):
        traces = Traces(span_limits=limits)
        run_with(traces, upstream, wanted="upstream")
        assert not [span for span in traces.spans if "hamilton.attributes.cut" in (span.attributes or {})]


def test_all_upstream_nodes_are_named_where_links_are_cut() -> None:
    """By the limit, and by links that the node adds, at which the SDK drops the oldest."""
    names = [f"input_{number}" for number in range(6)]
    functions = []
    for name in names:
        scope: dict[str, Any] = {}
        exec(f"def {name}() -> int:\n    return 1", scope)
        functions.append(scope[name])
    scope = {}
    exec(f"def total({', '.join(f'{name}: int' for name in names)}) -> int:\n    return 1", scope)
    traces = Traces(span_limits=SpanLimits(max_links=2))
    run_with(traces, *functions, scope["total"], wanted="total")
    span = traces.only("total")
    assert (len(span.links), span.dropped_links) == (2, 4)
    assert traces.attributes("total")["hamilton.node.upstream"] == tuple(names)


def test_a_failure_is_told_where_there_are_no_events() -> None:
    """And where the node has had many of its own."""

    def fails() -> int:
        for number in range(MANY):
            trace.get_current_span().add_event(f"event {number}")
        raise ValueError("a message")

    for limits, events in ((SpanLimits(max_events=0), 0), (SpanLimits(), 1)):
        traces = Traces(span_limits=limits)
        with pytest.raises(ValueError, match="a message"):
            run_with(traces, fails, wanted="fails")
        span = traces.only("fails")
        assert [event.name for event in span.events].count("exception") == events
        assert traces.attributes("fails")["error.type"] == "ValueError"


@pytest.mark.parametrize(
    ("variable", "dropped"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "droppedAttributesCount"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "droppedAttributesCount"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "droppedLinksCount"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "droppedEventsCount"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "hamilton.attributes.cut"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "hamilton.attributes.cut"),
    ],
)
def test_a_file_says_what_a_variable_has_cut(variable: str, dropped: str, tmp_path: Path) -> None:
    """Each of the standard's variables, in the file that `setup_telemetry` writes."""
    path = tmp_path / "trace.jsonl"
    run_program(
        f"""
        import os
        os.environ[{variable!r}] = "3"
        from hamilton import ad_hoc_utils, driver
        from traced_threadpool import FutureAdapter, setup_telemetry
        import logging
        logging.disable()

        def one() -> int:
            return 1

        def two() -> int:
            return 2

        def three() -> int:
            return 3

        def four() -> int:
            return 4

        def total(one: int, two: int, three: int, four: int) -> int:
            from opentelemetry import trace
            for number in range(5):
                trace.get_current_span().add_event("event")
            return 1

        setup_telemetry(file={str(path)!r})
        with FutureAdapter(2) as adapter:
            module = ad_hoc_utils.create_temporary_module(one, two, three, four, total)
            driver.Builder().with_modules(module).with_adapters(adapter).build().execute(["total"])
        """
    )
    (total,) = (
        span
        for line in path.read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["name"] == "total"
    )
    counts = {each["key"]: int(each["value"].get("intValue", 0)) for each in total["attributes"]}
    assert total.get(dropped, counts.get(dropped, 0)) > 0


def test_what_a_large_run_makes_late_survives_too() -> None:
    """A span made when the node asks for it."""
    traces = Traces()
    with make_adapter(traces, attribution=False, tracing=Tracing(large_run=4)) as adapter:
        functions = []
        for number in range(8):
            scope: dict[str, Any] = {"noisy": noisy}
            exec(f"def node_{number}() -> int:\n    return noisy(1)", scope)
            functions.append(scope[f"node_{number}"])
        make_driver(adapter, *functions).execute([each.__name__ for each in functions])
    nodes: list[ReadableSpan] = [span for span in traces.spans if span.name != "hamilton.run"]
    assert nodes
    for span in nodes:
        assert dict(span.attributes or {}).keys() >= OWN - {"thread.id", "hamilton.node.upstream"}, span.name
        assert context_of(span).is_valid
