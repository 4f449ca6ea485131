"""Runs of very many nodes: spans for the notable nodes alone, and all else as ever."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")

from hamilton.htypes import Collect, Parallelizable
from opentelemetry import trace
from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import Traces, context_of, make_adapter, make_driver, make_dynamic_driver, times
from traced_threadpool import FutureAdapter, Tracing
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.analysis.replay.what_if import replay
from traced_threadpool.analysis.trace_file import read_runs
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.recording.critical_path import critical_path

LIMIT = 40
"""What is large here. A quarter may be asked for, a quarter fail, a quarter be on the path; an eighth each the rest."""


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def adapter(traces: Traces) -> Iterator[FutureAdapter]:
    with make_adapter(traces, max_workers=4, tracing=Tracing(large_run=LIMIT), record=True) as made:
        yield made


def module_functions(source: str) -> list[Callable[..., Any]]:
    namespace: dict[str, Any] = {"sleep": sleep, "trace": trace}
    exec(source, namespace)
    return [each for name, each in namespace.items() if callable(each) and getattr(each, "__module__", None) is None]


def wide(count: int, bodies: dict[int, str] | None = None) -> list[Callable[..., Any]]:
    """Nodes `n0` to `n<count - 1>`, which do what `bodies` says, and `end`, which takes them all."""
    bodies = bodies or {}
    lines = []
    for number in range(count):
        lines += [f"def n{number}() -> int:", f"    {bodies.get(number, 'pass')}", f"    return {number}"]
    lines += [f"def end({', '.join(f'n{number}: int' for number in range(count))}) -> int:", "    return 0"]
    return module_functions("\n".join(lines))


def node_names(traces: Traces) -> Counter[str]:
    return Counter(span.name for span in traces.spans if "hamilton.node.name" in (span.attributes or {}))


def recorded(traces: Traces, tmp_path: Path) -> RecordedRun:
    """The run as it is read from the exported spans."""
    path = tmp_path / "trace.jsonl"
    lines = []
    for span in traces.spans:
        context = context_of(span)
        attributes = [{"key": key, "value": _value(value)} for key, value in (span.attributes or {}).items()]
        found: dict[str, Any] = {
            "traceId": f"{context.trace_id:032x}",
            "spanId": f"{context.span_id:016x}",
            "name": span.name,
            "startTimeUnixNano": str(times(span)[0]),
            "endTimeUnixNano": str(times(span)[1]),
            "attributes": attributes,
            "links": [
                {"traceId": f"{link.context.trace_id:032x}", "spanId": f"{link.context.span_id:016x}"}
                for link in span.links
            ],
        }
        if span.parent is not None:
            found["parentSpanId"] = f"{span.parent.span_id:016x}"
        lines.append(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [found]}]}]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (run,) = read_runs(path)
    return run


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    kind = {bool: "boolValue", int: "intValue", float: "doubleValue"}.get(type(value), "stringValue")
    return {kind: str(value) if kind == "intValue" else value}


def test_up_to_the_limit_every_node_has_a_span(traces: Traces, adapter: FutureAdapter) -> None:
    """And nothing is said of any left out."""
    make_driver(adapter, *wide(LIMIT - 1)).execute(["end"])
    assert node_names(traces) == Counter(dict.fromkeys([*(f"n{i}" for i in range(LIMIT - 1)), "end"], 1))
    assert "hamilton.run.node.spans.left_out" not in traces.attributes("hamilton.run")


def test_without_a_limit_every_node_has_a_span(traces: Traces) -> None:
    """`large_run=None`."""
    with make_adapter(traces, max_workers=4, tracing=Tracing(large_run=None)) as adapter:
        make_driver(adapter, *wide(100)).execute(["end"])
    assert sum(node_names(traces).values()) == 101


def test_a_large_run_has_spans_for_notable_nodes(traces: Traces, adapter: FutureAdapter) -> None:
    """The critical path, the slowest and a sample; the run's span says how many have none; none has two."""
    make_driver(adapter, *wide(300, {7: "sleep(0.2)", 8: "sleep(0.1)"})).execute(["end"])
    found = node_names(traces)
    assert {"n7", "n8", "end"} <= set(found)
    assert max(found.values()) == 1
    assert len(found) <= LIMIT
    assert len(found) >= LIMIT // 4
    assert traces.attributes("hamilton.run")["hamilton.run.node.count"] == 301
    assert traces.attributes("hamilton.run")["hamilton.run.node.spans.left_out"] == 301 - len(found)


def test_large_by_what_is_asked_for_and_not_by_the_graph(traces: Traces, adapter: FutureAdapter) -> None:
    """A run of two nodes of a large graph has both spans."""
    make_driver(adapter, *wide(300)).execute(["n1", "n2"])
    assert set(node_names(traces)) == {"n1", "n2"}


def test_a_late_span_is_as_one_made_in_time(traces: Traces, adapter: FutureAdapter) -> None:
    """Parent, times, attributes, and links to those upstream that have a span."""
    make_driver(adapter, *wide(300, {7: "sleep(0.2)"})).execute(["end"])
    (run,) = adapter.recorded_runs
    slow, end = traces.only("n7"), traces.only("end")
    (record,) = (node for node in run.nodes if node.name == "n7")
    assert run.started_unix_ns is not None
    assert times(slow)[0] - run.started_unix_ns == record.started_ns - run.started_ns
    assert times(slow)[1] - times(slow)[0] == record.duration_ns
    assert slow.parent is not None
    assert slow.parent.span_id == context_of(traces.only("hamilton.run")).span_id
    attributes = traces.attributes("n7")
    assert attributes["hamilton.node.outcome"] == "success"
    assert attributes["hamilton.run.id"] == run.id
    assert attributes["thread.name"] == record.worker
    assert attributes["code.function.name"].endswith("n7")
    by_id = {context_of(span).span_id: span.name for span in traces.spans}
    linked = {by_id[link.context.span_id]: dict(link.attributes or {}) for link in end.links}
    assert linked["n7"] == {"hamilton.link.parameter": "n7"}
    assert set(linked) <= set(node_names(traces)) - {"end"}
    assert len(traces.attributes("end")["hamilton.node.upstream"]) == 128 or set(
        traces.attributes("end")["hamilton.node.upstream"]
    ) == {f"n{i}" for i in range(300)}


def test_what_node_code_makes_is_under_the_nodes_span(traces: Traces, adapter: FutureAdapter) -> None:
    """Who asks for the current span gets the node's own, which is made then; its start is the node's."""
    tracer = traces.provider.get_tracer("user")
    seen = []

    def n3() -> int:
        current = trace.get_current_span()
        assert current.is_recording()
        with tracer.start_as_current_span("child"):
            pass
        current.set_attribute("mine", 1)
        current.add_event("event")
        seen.append(current.get_span_context())
        return 3

    n3.__module__ = ""
    functions = [n3 if each.__name__ == "n3" else each for each in wide(300)]
    make_driver(adapter, *functions).execute(["end"])
    node, child = traces.only("n3"), traces.only("child")
    assert child.parent is not None
    assert child.parent.span_id == context_of(node).span_id == seen[0].span_id
    assert times(node)[0] <= times(child)[0] <= times(child)[1] <= times(node)[1]
    assert traces.attributes("n3")["mine"] == 1
    assert [event.name for event in node.events] == ["event"]
    assert traces.attributes("n3")["hamilton.node.outcome"] == "success"


def test_beyond_the_quota_the_runs_span_is_the_current_one(traces: Traces, adapter: FutureAdapter) -> None:
    """Whatever node code makes, its parent is in the trace."""
    tracer = traces.provider.get_tracer("user")
    functions = wide(300, dict.fromkeys(range(200), "trace.child()"))
    for function in functions:
        function.__globals__["trace"] = type("Trace", (), {"child": lambda: tracer.start_span("child").end()})
    make_driver(adapter, *functions).execute(["end"])
    ids = {context_of(span).span_id: span.name for span in traces.spans}
    children = [span for span in traces.spans if span.name == "child"]
    parents = Counter(ids[span.parent.span_id] for span in children if span.parent is not None)
    assert (len(children), sum(parents.values())) == (200, 200)
    assert (parents["hamilton.run"], len(parents)) == (200 - LIMIT // 4, LIMIT // 4 + 1)


def test_a_node_that_raised_has_its_span(traces: Traces, adapter: FutureAdapter) -> None:
    """With the exception, in time; those that never ran have none and are counted."""
    with pytest.raises(ZeroDivisionError):
        make_driver(adapter, *wide(300, {5: "1 / 0"})).execute(["end"])
    adapter.close()  # others may still have been running
    failed = traces.only("n5")
    assert traces.attributes("n5")["error.type"] == "ZeroDivisionError"
    assert [event.name for event in failed.events] == ["exception"]
    assert traces.attributes("hamilton.run")["hamilton.run.node.spans.left_out"] == 301 - len(node_names(traces))


def test_metrics_are_of_all_nodes(traces: Traces) -> None:
    """Whatever the trace leaves out."""
    registry = CollectorRegistry()
    with make_adapter(traces, max_workers=4, tracing=Tracing(large_run=LIMIT), registry=registry) as adapter:
        make_driver(adapter, *wide(300)).execute(["end"])
        counted = {
            sample.labels["node"]: sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "hamilton_nodes_total" and sample.labels["outcome"] == "success"
        }
        assert counted == dict.fromkeys([*(f"n{i}" for i in range(300)), "end"], 1)


def test_a_run_that_turns_out_large(traces: Traces, adapter: FutureAdapter) -> None:
    """Branches are not known beforehand: the first nodes have spans, and then the notable ones."""

    def item() -> Parallelizable[int]:
        yield from range(200)

    def slow(item: int) -> int:
        if item == 150:
            sleep(0.2)
        return item

    def total(slow: Collect[int]) -> int:
        return sum(slow)

    assert make_dynamic_driver(adapter, item, slow, total).execute(["total"]) == {"total": sum(range(200))}
    found = node_names(traces)
    assert LIMIT < sum(found.values()) <= 2 * LIMIT
    assert (found["item"], found["total"]) == (1, 1)
    slowest = max(traces.spans, key=lambda span: times(span)[1] - times(span)[0] if span.name == "slow" else 0)
    assert times(slowest)[1] - times(slowest)[0] > 0.1e9
    count = traces.attributes("hamilton.run")["hamilton.run.node.count"]
    assert traces.attributes("hamilton.run")["hamilton.run.node.spans.left_out"] == count - sum(found.values())


def test_a_nested_large_run_has_its_own(traces: Traces, adapter: FutureAdapter) -> None:
    """The node that executes it has a span, since the run's span is under it."""
    inner = make_driver(adapter, *wide(100, {3: "sleep(0.1)"}))

    def outer() -> int:
        return int(inner.execute(["end"])["end"])

    outer.__module__ = ""
    functions = [*wide(100), outer]
    make_driver(adapter, *functions).execute(["end", "outer"])
    runs = [span for span in traces.spans if span.name == "hamilton.run"]
    left_out = [(span.attributes or {})["hamilton.run.node.spans.left_out"] for span in runs]
    assert len(left_out) == 2
    ids = {context_of(span).span_id: span.name for span in traces.spans}
    assert sorted(ids[span.parent.span_id] if span.parent else "" for span in runs) == ["", "outer"]
    assert sum(int(str(count)) for count in left_out) + sum(node_names(traces).values()) == 101 + 102


def test_a_limit_of_0_leaves_the_runs_span_alone(traces: Traces) -> None:
    """For those who want metrics and one span a run."""
    with (
        make_adapter(traces, max_workers=4, tracing=Tracing(large_run=0)) as adapter,
        contextlib.suppress(ZeroDivisionError),
    ):
        make_driver(adapter, *wide(5, {1: "1 / 0"})).execute(["end"])
    assert [span.name for span in traces.spans] == ["hamilton.run"]
    assert traces.attributes("hamilton.run")["hamilton.run.node.spans.left_out"] == 6


def test_the_path_read_from_the_trace_is_the_runs(traces: Traces, adapter: FutureAdapter, tmp_path: Path) -> None:
    """Step by step; what needs every node says that it cannot, in place of a wrong finding."""
    lines = ["def a0() -> int:", "    sleep(0.02)", "    return 0"]
    for number in range(1, 6):
        lines += [f"def a{number}(a{number - 1}: int) -> int:", "    sleep(0.02)", "    return 0"]
    functions = [*wide(300), *module_functions("\n".join(lines))]
    make_driver(adapter, *functions).execute(["end", "a5"])
    (whole,) = adapter.recorded_runs
    run = recorded(traces, tmp_path)
    assert (run.left_out, run.expected_nodes) == (307 - len(run.nodes), 307)

    def nodes(of: RecordedRun) -> list[tuple[str, int]]:
        return [(step.name, step.duration_ns) for step in critical_path(of).nodes]

    assert nodes(run) == nodes(whole)
    assert run.problems == (
        f"{run.left_out} nodes of 307 have no span, since the run is large: the critical path is in the record, and "
        "those that raised, the slowest and a sample of the others.",
    )
    with pytest.raises(ValueError, match="large_run=None"):
        replay(run, workers=8)
    (finding,) = diagnose(run).findings
    assert finding.cause == "telemetry_loss"
    assert any(
        (line.startswith("the critical path: ") and "a5" not in line) or "a" in line for line in finding.evidence
    )
    assert "OTEL_BSP" not in finding.advice
    assert diagnose(whole).findings[0].cause != "telemetry_loss"


def test_the_first_large_run_is_told_to_the_log(traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
    """Once an adapter, and not to who has set a limit."""
    functions = wide(120)

    def messages() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "traced_threadpool"]

    with caplog.at_level(logging.WARNING, logger="traced_threadpool"):
        with make_adapter(traces, max_workers=2, tracing=Tracing(large_run=100)) as adapter:
            make_driver(adapter, *functions).execute(["end"])
        assert messages() == []
        with make_adapter(traces, max_workers=2) as adapter:
            adapter._assembly.tracing.large_run = 100  # type: ignore[union-attr]  # 5,001 functions take long to build
            built = make_driver(adapter, *functions)
            built.execute(["end"])
            built.execute(["end"])
    (message,) = messages()
    assert message.startswith("a run had 121 nodes, and spans for ")


def test_two_threads_that_ask_at_once_get_one_span(traces: Traces, adapter: FutureAdapter) -> None:
    """And what outlives its node is under the run's span from then on."""
    go = threading.Event()
    seen: list[Any] = []

    def n3() -> int:
        current = trace.get_current_span()

        def ask() -> None:
            assert go.wait(60)
            seen.append(current.get_span_context())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        go.set()
        for thread in threads:
            thread.join(20)
        return 3

    kept: list[Any] = []

    def n4() -> int:
        kept.append(trace.get_current_span())
        return 4

    for function in (n3, n4):
        function.__module__ = ""
    replaced = {"n3": n3, "n4": n4}
    make_driver(adapter, *[replaced.get(each.__name__, each) for each in wide(300)]).execute(["end"])
    assert {context.span_id for context in seen} == {context_of(traces.only("n3")).span_id}
    assert kept[0].get_span_context().span_id == context_of(traces.only("hamilton.run")).span_id
    assert not kept[0].is_recording()


@pytest.mark.parametrize("value", [True, 1.5, "many"])
def test_a_limit_that_is_no_number(value: Any) -> None:
    """Is refused, with what was expected."""
    with pytest.raises(TypeError, match="large_run must be a whole number"):
        Tracing(large_run=value)
