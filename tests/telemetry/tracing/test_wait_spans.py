"""Spans of waits on the critical path, and what Jaeger's own rule shades with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.htypes import Collect, Parallelizable
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from examples.pathologies import pool_starved
from examples.pathologies.demonstration import build_driver
from examples.pathologies.pathology import Amount
from tests.telemetry.small_nodes import holding
from tests.telemetry.telemetry_helpers import (
    Caller,
    Gate,
    Traces,
    context_of,
    is_wait,
    make_adapter,
    make_driver,
    make_dynamic_driver,
    spend,
    times,
    until,
)
from tests.telemetry.tracing.jaeger_rule import recorded, wrongly_shaded, wrongly_shaded_of
from traced_threadpool import Tracing
from traced_threadpool.backends import Processes, Threads
from traced_threadpool.model.records import PathWait
from traced_threadpool.recording.critical_path import critical_path
from traced_threadpool.telemetry.tracing.path_cover import JoinedSteps, PathCover
from traced_threadpool.telemetry.tracing.wait_spans import record_waits

HELD = 0.03
MOST_WRONG = 0.02


def first() -> int:
    time.sleep(HELD)
    return 1


def second() -> int:
    time.sleep(HELD)
    return 2


def third(first: int, second: int) -> int:
    return first + second


def queued_run(traces: Traces, **options: Any) -> None:
    """Two nodes and one worker: whichever is run first goes on until the other one has waited for it."""
    begun: list[str] = []

    def held(name: str) -> None:
        begun.append(name)
        if len(begun) == 1:
            until(lambda: adapter.snapshot().queue_depth == 1)
        time.sleep(HELD)

    def first() -> int:
        held("first")
        return 1

    def second() -> int:
        held("second")
        return 2

    with make_adapter(traces, max_workers=1, name="etl", **options) as adapter:
        make_driver(adapter, first, second, third).execute(["third"])


def test_a_wait_on_the_path_has_a_span_linked_to_the_node_that_had_the_worker() -> None:
    traces = Traces()
    queued_run(traces)
    span = max(traces.queued, key=lambda span: times(span)[1] - times(span)[0])
    attributes = dict(span.attributes or {})
    waited, holder = attributes["hamilton.queue.node"], attributes["hamilton.queue.behind"]
    assert {waited, holder} == {"first", "second"}
    assert span.name == f"queued {waited}"
    assert span.kind is SpanKind.INTERNAL
    assert set(attributes) == {
        "hamilton.queue.node",
        "hamilton.queue.behind",
        "hamilton.run.id",
    }
    assert span.parent == context_of(traces.only("hamilton.run"))
    assert [link.context for link in span.links] == [context_of(traces.only(holder))]
    assert times(span)[1] == times(traces.only(waited))[0] - 2_000


def test_the_run_tells_its_queue_and_how_long_each_step_of_its_path_took() -> None:
    traces = Traces()
    queued_run(traces)
    run = traces.attributes("hamilton.run")
    path, durations = run["hamilton.run.critical_path"], run["hamilton.run.critical_path.durations"]
    assert len(path) == len(durations)
    queues = {name: traces.attributes(name)["hamilton.node.queue.duration"] for name in ("first", "second", "third")}
    told = {after: seconds for name, seconds, after in zip(path, durations, path[1:], strict=False) if name == "_queue"}
    assert told
    assert told == pytest.approx({name: queues[name] for name in told})
    assert run["hamilton.run.queue.duration"] == pytest.approx(sum(queues.values()))
    assert "hamilton.run.failed_nodes" not in run


def test_a_failed_run_has_them_and_names_the_nodes_that_raised() -> None:
    traces = Traces()

    def last(third: int) -> int:
        raise ValueError("no")

    with make_adapter(traces, max_workers=1) as adapter, pytest.raises(ValueError, match="no"):
        make_driver(adapter, first, second, third, last).execute(["last"])
    assert traces.queued
    assert traces.attributes("hamilton.run")["hamilton.run.failed_nodes"] == ("last",)


def test_a_nested_run_has_its_own() -> None:
    traces = Traces()
    with make_adapter(traces, max_workers=1) as adapter:
        inner = make_driver(adapter, first, second, third)

        def outer() -> Any:
            return inner.execute(["third"])["third"]

        make_driver(adapter, outer).execute(["outer"])
    (nested,) = (span for span in traces.spans if span.name == "hamilton.run" and span.parent is not None)
    parents = {span.parent.span_id for span in traces.queued if span.parent is not None}
    assert context_of(nested).span_id in parents


def test_a_large_run_has_them() -> None:
    traces = Traces()
    queued_run(traces, tracing=Tracing(large_run=8))
    assert traces.queued
    few = Traces()
    queued_run(few, tracing=Tracing(large_run=1))
    assert not few.queued  # an eighth of one


def test_explain_reads_the_same_without_them(tmp_path: Path) -> None:
    traces = Traces()
    queued_run(traces)
    assert traces.queued
    assert recorded(traces.every, tmp_path) == recorded(traces.spans, tmp_path)


# Jaeger's own rule


def sleeping(number: int, milliseconds: float, upstream: list[int]) -> Callable[..., Any]:
    scope: dict[str, Any] = {"time": time}
    parameters = ", ".join(f"n{each}: int" for each in upstream)
    exec(f"def n{number}({parameters}) -> int:\n    time.sleep({milliseconds / 1e3})\n    return 1", scope)
    found: Callable[..., Any] = scope[f"n{number}"]
    return found


@st.composite
def pipelines(draw: st.DrawFn) -> list[Callable[..., Any]]:
    size = draw(st.integers(3, 12))
    return [
        sleeping(
            number,
            draw(st.integers(20, 60)),
            draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3)) if number else [],
        )
        for number in range(size)
    ]


@given(functions=pipelines(), workers=st.integers(1, 3))
@settings(max_examples=6)
def test_jaeger_shades_the_path_of_random_pipelines(
    tmp_path_factory: pytest.TempPathFactory, functions: list[Callable[..., Any]], workers: int
) -> None:
    traces = Traces()
    with make_adapter(traces, max_workers=workers) as adapter:
        make_driver(adapter, *functions).execute([each.__name__ for each in functions])
    assert wrongly_shaded(traces.every, tmp_path_factory.mktemp("trace")) <= MOST_WRONG


def test_jaeger_shades_the_path_of_a_run_under_a_request(tmp_path: Path) -> None:
    traces = Traces()
    with traces.provider.get_tracer("web").start_as_current_span("GET /", kind=SpanKind.SERVER):
        queued_run(traces)
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG
    assert wrongly_shaded(traces.spans, tmp_path) > MOST_WRONG  # what the spans are for


@pytest.mark.parametrize("workers", [1, 2])
def test_jaeger_shades_the_path_of_a_run_with_one_nested_in_it(tmp_path: Path, workers: int) -> None:
    traces = Traces()
    with make_adapter(traces, max_workers=workers) as adapter:
        inner = make_driver(adapter, first, second, third)

        def outer() -> Any:
            return inner.execute(["third"])["third"]

        def beside() -> int:
            time.sleep(HELD)
            return 1

        def end(outer: int, beside: int) -> int:
            return outer + beside

        make_driver(adapter, outer, beside, end).execute(["end"])
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG


def test_a_wait_behind_another_run_is_linked_to_its_node() -> None:
    traces, gate = Traces(), Gate()

    held = holding(gate)

    with make_adapter(traces, max_workers=1) as adapter:
        before = Caller(lambda: make_driver(adapter, held).execute(["held"]))
        gate.wait_for()
        after = Caller(lambda: make_driver(adapter, first).execute(["first"]))
        until(lambda: adapter.snapshot().queue_depth == 1)
        spend(HELD)
        gate.open()
        assert (before.outcome(), after.outcome()) == ({"held": 1}, {"first": 1})
    (span,) = (span for span in traces.queued if span.name == "queued first")
    assert (span.attributes or {})["hamilton.queue.behind"] == "held"
    assert [link.context for link in span.links] == [context_of(traces.only("held"))]


@pytest.mark.parametrize("fail_fast", [False, True])
def test_jaeger_shades_the_path_of_a_run_that_failed(tmp_path: Path, fail_fast: bool) -> None:
    """Also with nodes that never ran, whose spans are the last to end."""

    def raises(first: int, second: int) -> int:
        time.sleep(HELD)
        raise ValueError("no")

    def never(raises: int) -> int:
        return raises

    def other(second: int) -> int:
        time.sleep(HELD)
        return second

    traces = Traces()
    with make_adapter(traces, max_workers=1, fail_fast=fail_fast) as adapter, pytest.raises(ValueError, match="no"):
        make_driver(adapter, first, second, raises, never, other).execute(["other", "never"])
    assert traces.attributes("hamilton.run")["hamilton.run.failed_nodes"] == ("raises",)
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG
    assert wrongly_shaded(traces.spans, tmp_path) > MOST_WRONG


def test_what_ended_between_two_waits_is_not_shaded() -> None:
    """A node that ends when another becomes ready: the span before ends after it, and before that of what follows."""
    traces, node = Traces(), SimpleNamespace(name="last")
    run: Any = SimpleNamespace(id="1", unix_offset_ns=0, telemetry=SimpleNamespace(node_context=None))
    ready_ns = 7_000_000
    gap = PathWait(node=cast("Any", node), queued=False, started_ns=0, ended_ns=ready_ns, behind=None)
    queued = replace(gap, queued=True, started_ns=ready_ns, ended_ns=9_000_000)
    shared = JoinedSteps(nodes=(), last=cast("Any", node), queue_ns=0, started_ns=-5_000_000, ended_ns=0)
    later = replace(shared, last=cast("Any", SimpleNamespace(name="end")), started_ns=9_000_000, ended_ns=10_000_000)
    cover = PathCover(waits=[queued, gap], joined=[later, shared])
    record_waits(run, cover, traces.provider.get_tracer("test"), {})
    found = {span.name: times(span) for span in traces.every}
    in_order = ["path before last", "gap before last", "queued last", "path before end"]
    for (name, following), moment_ns in zip(pairwise(in_order), (0, ready_ns, 9_000_000), strict=True):
        assert moment_ns < found[name][1] <= found[following][0] - 1_000, name


def test_a_node_outside_of_any_run_has_no_span_of_a_wait() -> None:
    traces = Traces()
    with make_adapter(traces, max_workers=1) as adapter:
        futures = [adapter.do_remote_execute(execute_lifecycle_for_node=first, node=None) for _ in range(2)]
        assert [future.result() for future in futures] == [1, 1]
    assert len(traces.every) == 2


def test_jaeger_shades_the_path_of_parallelizable(tmp_path: Path) -> None:
    def item() -> Parallelizable[int]:
        yield from range(4)

    def fetched(item: int) -> int:
        time.sleep(0.06 * (item + 1))
        return item

    def parsed(fetched: int) -> int:
        time.sleep(0.06)
        return fetched

    def total(parsed: Collect[int]) -> int:
        return sum(parsed)

    traces = Traces()
    with make_adapter(traces, max_workers=2) as adapter:
        make_dynamic_driver(adapter, item, fetched, parsed, total).execute(["total"])
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG


def test_jaeger_shades_the_path_of_a_starved_pool(tmp_path: Path) -> None:
    """The pathology of which 93 % would be shaded on other nodes."""
    traces = Traces()
    with (
        pool_starved.PATHOLOGY.inputs(Amount(scale=0.2, seed=1)) as inputs,
        make_adapter(traces, max_workers=pool_starved.PATHOLOGY.workers) as adapter,
    ):
        build_driver(pool_starved, adapter).execute([pool_starved.PATHOLOGY.output], inputs=dict(inputs))
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG


def test_jaeger_shades_the_path_of_a_large_run() -> None:
    """Of which few nodes have a span: its path is among them, and so are the waits on it."""
    functions = [
        sleeping(number, 5 + 3 * (number % 12), sorted({number - 12, 12 * (number // 12) - 1}) if number >= 12 else [])
        for number in range(48)
    ]
    traces = Traces()
    with make_adapter(traces, max_workers=8, record=True, tracing=Tracing(large_run=40)) as adapter:
        make_driver(adapter, *functions).execute([each.__name__ for each in functions])
        (run,) = adapter.recorded_runs
    assert traces.attributes("hamilton.run")["hamilton.run.node.spans.left_out"]
    assert not any(span.name.startswith("path ") for span in traces.every)
    assert wrongly_shaded_of(run, traces.every) <= MOST_WRONG


def test_jaeger_shades_a_path_that_is_longer_than_there_may_be_spans() -> None:
    """Steps of it share spans, which name their nodes."""
    functions = [
        sleeping(number, 1 + number % 4, sorted({number - 3, number - 1 - number % 3}) if number >= 3 else [])
        for number in range(120)
    ]
    traces = Traces()
    with make_adapter(traces, max_workers=2, record=True, tracing=Tracing(large_run=40)) as adapter:
        make_driver(adapter, *functions).execute([each.__name__ for each in functions])
        (run,) = adapter.recorded_runs
    path = [step.name for step in critical_path(run).nodes]
    own = {span.name for span in traces.spans}
    shared = [span for span in traces.every if span.name.startswith("path ")]
    named = [
        name
        for span in shared
        for name in cast("Sequence[str]", (span.attributes or {}).get("hamilton.path.nodes", ()))
    ]
    assert len(path) > 40 // 4 + 40 // 8
    assert sorted(named) == sorted(set(path) - own)
    assert sum(cast("int", (span.attributes or {})["hamilton.path.node.count"]) for span in shared) == len(named)
    assert sum(is_wait(span) for span in traces.every) + len(set(path) & own) <= 40 // 4 + 40 // 8
    assert wrongly_shaded_of(run, traces.every) <= MOST_WRONG
    assert wrongly_shaded_of(run, [span for span in traces.every if span not in shared]) > MOST_WRONG


def test_jaeger_shades_the_path_of_a_cancelled_run(tmp_path: Path) -> None:
    """Whose last nodes never ran."""
    traces, gate = Traces(), Gate()

    def held(third: int) -> int:
        gate()
        spend(HELD)
        return third

    def never(held: int) -> int:
        return held

    adapter = make_adapter(traces, max_workers=1)
    caller = Caller(lambda: make_driver(adapter, first, second, third, held, never).execute(["never"]))
    gate.wait_for()
    until(lambda: adapter.snapshot().blocked_nodes == 1)
    closing = Caller(lambda: adapter.close(cancel_pending=True))
    until(lambda: adapter.snapshot().blocked_nodes == 0)
    gate.open()
    closing.outcome()
    caller.outcome()
    assert traces.attributes("hamilton.run")["hamilton.run.outcome"] == "cancelled"
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_jaeger_shades_the_path_of_a_run_on_a_backend(tmp_path: Path, processes: bool) -> None:
    """Nodes are queued for the backend's one worker, while others run in the pool."""
    if processes:
        pytest.importorskip("cloudpickle", reason="processes need the extra [processes]")
    far = [sleeping(number, 30, []) for number in range(3)]
    near = [sleeping(number, 25, []) for number in range(3, 8)]
    last = sleeping(8, 20, [0, 1, 2, 5])
    backend = Processes(max_workers=1) if processes else Threads(max_workers=1)
    traces = Traces()
    placed = dict.fromkeys(["n0", "n1", "n2"], "one")
    with make_adapter(traces, max_workers=2, backends={"one": backend}, run_on=placed) as adapter:
        make_driver(adapter, *far, *near, last).execute(["n8", *[each.__name__ for each in near]])
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG


def test_jaeger_shades_the_path_of_runs_that_share_a_pool(tmp_path: Path) -> None:
    """Each has spans of its own waits, behind nodes of the other."""
    everything = Traces()

    def one(number: int) -> None:
        functions = [sleeping(each, 20 + 5 * each, [each - 1] if each % 3 else []) for each in range(6)]
        make_driver(adapter, *functions).execute([each.__name__ for each in functions])

    with make_adapter(everything, max_workers=2) as adapter:
        for caller in [Caller(lambda number=number: one(number)) for number in range(3)]:  # type: ignore[misc]
            assert caller.outcome() is None
    by_trace: dict[int, list[Any]] = {}
    for span in everything.every:
        by_trace.setdefault(context_of(span).trace_id, []).append(span)
    assert len(by_trace) == 3
    assert max(wrongly_shaded(spans, tmp_path) for spans in by_trace.values()) <= MOST_WRONG
