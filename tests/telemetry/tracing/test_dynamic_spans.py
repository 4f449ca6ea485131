"""Spans of dynamic execution: one for each branch."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.execution import executors
from hamilton.htypes import Collect, Parallelizable
from hamilton.lifecycle import GraphExecutionHook, NodeExecutionHook
from opentelemetry import baggage, context, trace

from tests.telemetry.small_nodes import load
from tests.telemetry.telemetry_helpers import Traces, context_of, make_driver, make_dynamic_driver, node_view
from tests.telemetry.tracing.span_nodes import RUN
from traced_threadpool import FutureAdapter


def branch() -> Parallelizable[int]:
    yield from (1, 2, 3)


def twice(branch: int) -> int:
    return 2 * branch


def once_more(twice: int) -> int:
    return 2 * twice


def gathered(once_more: Collect[int]) -> int:
    return sum(once_more)


@pytest.mark.parametrize(
    "executor",
    [executors.SynchronousLocalTaskExecutor(), executors.MultiThreadingExecutor(max_tasks=3)],
    ids=lambda executor: type(executor).__name__,
)
def test_branches_are_linked_from_the_split_to_the_join(
    traces: Traces, adapter: FutureAdapter, executor: executors.TaskExecutor
) -> None:
    """Each branch's first node is linked to the node that was split, and the collecting node to every branch."""
    dr = make_dynamic_driver(adapter, branch, twice, once_more, gathered, executor=executor)
    assert dr.execute(["gathered"]) == {"gathered": 24}
    adapter.close()
    assert traces.views() == [
        node_view("branch"),
        node_view("gathered", links=(("once_more", "once_more"),) * 3),
        RUN,
        *[node_view("once_more", "twice")] * 3,
        *[node_view("twice", "branch")] * 3,
    ]
    collected = [link.context.span_id for link in traces.only("gathered").links]
    branches = {context_of(span).span_id: span for span in traces.spans if span.name == "once_more"}
    assert sorted(collected) == sorted(branches)
    assert len({branch.links[0].context.span_id for branch in branches.values()}) == 3
    assert traces.attributes("gathered")["hamilton.node.upstream"] == ("once_more",)
    assert traces.attributes("hamilton.run")["hamilton.run.node.count"] == 8


@pytest.mark.parametrize(
    "executor",
    [executors.SynchronousLocalTaskExecutor(), executors.MultiThreadingExecutor(max_tasks=3)],
    ids=lambda executor: type(executor).__name__,
)
def test_callers_context_reaches_the_branches(
    traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer, executor: executors.TaskExecutor
) -> None:
    """Hamilton's executors submit nodes from threads of their own: they are the caller's all the same."""

    def seen(branch: int) -> object:
        return baggage.get_baggage("customer")

    def all_seen(seen: Collect[object]) -> list[object]:
        return list(seen)

    dr = make_dynamic_driver(adapter, branch, seen, all_seen, executor=executor)
    token = context.attach(baggage.set_baggage("customer", "c-17"))
    try:
        with tracer.start_as_current_span("request"):
            assert dr.execute(["all_seen"]) == {"all_seen": ["c-17"] * 3}
    finally:
        context.detach(token)
    adapter.close()
    assert {view.name: view.parent for view in traces.views()} == {
        "all_seen": "hamilton.run",
        "branch": "hamilton.run",
        "hamilton.run": "request",
        "request": None,
        "seen": "hamilton.run",
    }


def test_run_belongs_to_the_caller_whatever_hooks_make_current(
    traces: Traces, adapter: FutureAdapter, tracer: trace.Tracer
) -> None:
    """Another adapter's hook starts a span around the graph: the run is still a child of the span that called it."""
    tokens: list[Any] = []

    class Wraps(GraphExecutionHook):
        def run_before_graph_execution(self, **future_kwargs: Any) -> None:
            tokens.append(context.attach(trace.set_span_in_context(tracer.start_span("theirs"))))

        def run_after_graph_execution(self, **future_kwargs: Any) -> None:
            trace.get_current_span().end()
            context.detach(tokens.pop())

    with tracer.start_as_current_span("request"):
        make_driver(adapter, load, adapters=[Wraps()]).execute(["load"])
    assert {view.name: view.parent for view in traces.views()} == {
        "hamilton.run": "request",
        "load": "hamilton.run",
        "request": None,
        "theirs": "request",
    }


def test_task_id_tells_branches_apart(traces: Traces, adapter: FutureAdapter) -> None:
    """In dynamic execution each node has its task's id, and those of the branches differ."""
    seen: dict[str, list[str | None]] = {}

    class TaskIds(NodeExecutionHook):
        def run_before_node_execution(self, *, node_name: str, task_id: str | None, **future_kwargs: Any) -> None:
            seen.setdefault(node_name, []).append(task_id)

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            pass

    dr = make_dynamic_driver(adapter, branch, twice, once_more, gathered, adapters=[TaskIds()])
    dr.execute(["gathered"])
    exported: dict[str, list[Any]] = {}
    for span in traces.spans:
        if span.name != "hamilton.run":
            exported.setdefault(span.name, []).append(dict(span.attributes or {})["hamilton.task.id"])
    assert {name: sorted(ids) for name, ids in exported.items()} == {
        name: sorted(filter(None, ids)) for name, ids in seen.items()
    }
    assert len(set(exported["twice"])) == 3
