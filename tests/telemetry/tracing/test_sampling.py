"""Runs and nodes that a sampler takes or leaves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.telemetry.tracing.span_nodes import Watching

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.function_modifiers import tag
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from tests.dags import submit
from tests.telemetry.small_nodes import after, fails, left, load
from tests.telemetry.telemetry_helpers import Traces, context_of, is_wait, make_adapter, make_driver, node_view
from tests.telemetry.tracing.span_nodes import RUN


def test_unsampled_run_exports_nothing_and_builds_nothing() -> None:
    """A sampler that says no is shown names alone: no attribute and no link has been built for it."""
    sampler = Watching(ALWAYS_OFF)
    traces = Traces(sampler=sampler)

    @tag(team="core")
    def tagged(load: int) -> int:
        return load

    with make_adapter(traces) as adapter:
        make_driver(adapter, load, tagged).execute(["tagged"])
    assert sampler.shown == {"hamilton.run": ({}, []), "load": ({}, []), "tagged": ({}, [])}
    assert traces.spans == ()


def test_unsampled_node_that_never_ran_is_not_even_started() -> None:
    """No span is made of it, since nobody would see it."""
    sampler = Watching(ALWAYS_OFF)
    traces = Traces(sampler=sampler)
    with make_adapter(traces) as adapter, pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after).execute(["after"])
    assert sorted(sampler.shown) == ["fails", "hamilton.run"]


def test_unsampled_run_is_passed_on() -> None:
    """What a node calls learns that the trace is not sampled, and which one it is."""
    traces = Traces(sampler=ParentBased(ALWAYS_OFF))

    def calls() -> SpanContext:
        return trace.get_current_span().get_span_context()

    with make_adapter(traces) as adapter:
        seen: SpanContext = make_driver(adapter, calls).execute(["calls"])["calls"]
    assert seen.is_valid
    assert not seen.trace_flags.sampled


@pytest.mark.parametrize(("sampled", "exported"), [(True, ["load", "hamilton.run"]), (False, [])])
def test_remote_parent_decides(sampled: bool, exported: list[str]) -> None:
    """Parent-based sampling: a run called by a traced service is in its trace, sampled as that is."""
    traces = Traces(sampler=ParentBased(ALWAYS_OFF if sampled else ALWAYS_ON))
    remote = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(sampled))
    with make_adapter(traces) as adapter:
        token = context.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
        try:
            make_driver(adapter, load).execute(["load"])
        finally:
            context.detach(token)
    assert [span.name for span in traces.spans] == exported
    assert {context_of(span).trace_id for span in traces.spans} <= {0xABC}
    if exported:
        assert traces.only("hamilton.run").parent == remote


def test_ratio_takes_whole_runs() -> None:
    """A sampler by trace id takes a run with all its nodes or not at all."""

    class Counting(RandomIdGenerator):
        """Trace ids at the two ends of what the sampler compares."""

        def __init__(self) -> None:
            self.made = 0

        def generate_trace_id(self) -> int:
            self.made += 1
            return self.made if self.made % 2 else (1 << 64) - self.made

    traces = Traces(sampler=TraceIdRatioBased(0.5), id_generator=Counting())
    with make_adapter(traces) as adapter:
        dr = make_driver(adapter, load, left)
        for _ in range(4):
            dr.execute(["left"])
    exported = sorted((context_of(span).trace_id, span.name) for span in traces.spans)
    assert exported == [(trace_id, name) for trace_id in (1, 3) for name in ("hamilton.run", "left", "load")]


class Picky(Sampler):
    """Takes the spans of some names."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def should_sample(
        self, parent: object, trace_id: int, name: str, kind: object, attributes: Any, *others: Any
    ) -> SamplingResult:
        taken = name in self._names
        return SamplingResult(Decision.RECORD_AND_SAMPLE if taken else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "picky"


def test_node_that_is_sampled_in_an_unsampled_run_is_whole() -> None:
    """It lacks neither attributes nor links for the run's having been left out."""

    @tag(team="core")
    def tagged(load: int) -> int:
        return load

    whole, alone = Traces(), Traces(sampler=Picky("tagged"))
    for traces in (whole, alone):
        with make_adapter(traces, attribution=False) as adapter:  # a wait of 0, which is chance, is no attribute
            make_driver(adapter, load, tagged).execute(["tagged"])
    assert alone.views() == [node_view("tagged", parent="not exported", links=(("not exported", "load"),))]
    assert sorted(alone.attributes("tagged")) == sorted(whole.attributes("tagged"))


def test_sampled_run_with_an_unsampled_node_keeps_the_others() -> None:
    """A node that the sampler drops takes nothing else with it."""
    traces = Traces(sampler=Picky("hamilton.run", "left"))
    with make_adapter(traces) as adapter:
        make_driver(adapter, load, left).execute(["left"])
    assert traces.views() == [RUN, node_view("left", links=(("not exported", "load"),))]


def test_recorded_but_not_sampled_spans_reach_processors() -> None:
    """RECORD_ONLY: span processors see everything, the exporter nothing."""

    class Keeps(SpanProcessor):
        def __init__(self) -> None:
            self.seen: dict[str, ReadableSpan] = {}

        def on_end(self, span: ReadableSpan) -> None:
            if not is_wait(span):
                self.seen[span.name] = span

    traces, processor = Traces(sampler=StaticSampler(Decision.RECORD_ONLY)), Keeps()
    traces.provider.add_span_processor(processor)
    with make_adapter(traces) as adapter:
        make_driver(adapter, load, left).execute(["left"])
    assert traces.spans == ()
    attributes = {name: dict(span.attributes or {}) for name, span in processor.seen.items()}
    assert {name: len(span.links) for name, span in processor.seen.items()} == {
        "hamilton.run": 0,
        "left": 1,
        "load": 0,
    }
    assert attributes["left"]["hamilton.node.upstream"] == ("load",)
    assert attributes["hamilton.run"]["hamilton.run.node.count"] == 2


def test_tracing_can_be_switched_off(traces: Traces) -> None:
    """`tracing=False` makes no span, and leaves the caller's current in the nodes."""
    with (
        make_adapter(traces, tracing=False) as adapter,
        traces.provider.get_tracer("application").start_as_current_span("request") as request,
    ):
        assert submit(adapter, trace.get_current_span).result() is request
        make_driver(adapter, load).execute(["load"])
    assert [span.name for span in traces.spans] == ["request"]
