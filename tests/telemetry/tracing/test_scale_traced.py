"""Runs of thousands of nodes, fully observed: every span comes or is told as left out, and metrics are exact."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")

from hamilton import driver
from hamilton.htypes import Collect, Parallelizable
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from prometheus_client import CollectorRegistry

from benchmarks import dags
from benchmarks.linear_tasks import linear_task_state
from tests.telemetry.telemetry_helpers import LIMIT_SECONDS, is_wait, make_dynamic_driver, objects_of_ours
from traced_threadpool import FutureAdapter, Tracing
from traced_threadpool.telemetry.tracing.large_runs import DEFAULT_LARGE_RUN

pytestmark = pytest.mark.slow

BRANCHES = 4_000
OF_BRANCHES = {"number": 1, "doubled": BRANCHES, "shifted": BRANCHES, "total": 1}


class Spans(SpanProcessor):
    """Keeps what has ended. A run's span is its last."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self)
        self.nodes: list[ReadableSpan] = []
        self.run: ReadableSpan | None = None
        self._ended = threading.Event()

    def on_end(self, span: ReadableSpan) -> None:
        if span.name == "hamilton.run":
            self.run = span
            self._ended.set()
        elif not is_wait(span):
            self.nodes.append(span)

    def attributes_of_run(self) -> Any:
        assert self._ended.wait(LIMIT_SECONDS), "the run's span has not ended"
        assert self.run is not None
        return self.run.attributes

    def links(self) -> set[tuple[str, str]]:
        """From each node to those upstream, by name."""
        name_of = {_context(span).span_id: span.name for span in self.nodes}
        return {(span.name, name_of[link.context.span_id]) for span in self.nodes for link in span.links}

    def counts(self) -> Counter[str]:
        return Counter(span.name for span in self.nodes)


def _context(span: ReadableSpan) -> Any:
    return span.get_span_context()


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def whole(spans: Spans, registry: CollectorRegistry) -> Iterator[FutureAdapter]:
    """A span for each node, however many there are."""
    with FutureAdapter(4, tracer_provider=spans.provider, registry=registry, tracing=Tracing(large_run=None)) as made:
        yield made


@pytest.fixture
def with_defaults(spans: Spans, registry: CollectorRegistry) -> Iterator[FutureAdapter]:
    with FutureAdapter(4, tracer_provider=spans.provider, registry=registry) as made:
        yield made


def number(count: int) -> Parallelizable[int]:
    yield from range(count)


def doubled(number: int) -> int:
    return 2 * number


def shifted(doubled: int) -> int:
    return doubled + 1


def total(shifted: Collect[int]) -> int:
    return sum(shifted)


def execute_branches(adapter: FutureAdapter) -> None:
    """Thousands of two nodes each."""
    built = make_dynamic_driver(adapter, number, doubled, shifted, total)
    assert built.execute(["total"], inputs={"count": BRANCHES}) == {"total": BRANCHES**2}


def counted(registry: CollectorRegistry, name: str) -> Counter[str]:
    """The sum of a metric's samples by node, where they are not 0."""
    found: Counter[str] = Counter()
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name == name and sample.value:
                found[sample.labels.get("node", "")] += int(sample.value)
    return found


def test_a_span_for_each_of_thousands_of_nodes(spans: Spans, registry: CollectorRegistry, whole: FutureAdapter) -> None:
    """None is lost on the way, and metrics have counted the same nodes."""
    with linear_task_state():
        execute_branches(whole)
    run = spans.attributes_of_run()
    assert spans.counts() == OF_BRANCHES
    assert run["hamilton.run.node.count"] == 2 * BRANCHES + 2
    assert "hamilton.run.node.spans.left_out" not in run
    assert spans.links() == {("doubled", "number"), ("shifted", "doubled"), ("total", "shifted")}
    for name in ("hamilton_nodes_total", "hamilton_node_duration_seconds_count"):
        assert counted(registry, name) == OF_BRANCHES
    assert counted(registry, "hamilton_threadpool_queue_wait_seconds_count") == {"": 2 * BRANCHES + 2}


def test_thousands_of_branches_with_defaults(
    spans: Spans, registry: CollectorRegistry, with_defaults: FutureAdapter
) -> None:
    """A run that turns out large on its way: twice the limit of spans at most, the rest told, metrics of all nodes."""
    with linear_task_state():
        execute_branches(with_defaults)
    run = spans.attributes_of_run()
    assert run["hamilton.run.node.spans.left_out"] == 2 * BRANCHES + 2 - len(spans.nodes)
    assert DEFAULT_LARGE_RUN < len(spans.nodes) <= 2 * DEFAULT_LARGE_RUN
    assert len({_context(span).span_id for span in spans.nodes}) == len(spans.nodes)
    assert counted(registry, "hamilton_nodes_total") == OF_BRANCHES


def test_a_dag_of_thousands_of_nodes_with_defaults(
    spans: Spans, registry: CollectorRegistry, with_defaults: FutureAdapter
) -> None:
    """Known to be large from its start: the limit of spans at most, the rest told; nothing of it is kept afterwards."""
    dag = dags.layered(7, 1_000, 3)
    built = driver.Builder().with_modules(dag.module).with_adapters(with_defaults).build()
    before = objects_of_ours()
    assert built.execute([dag.end]) == {dag.end: dag.expected}
    run = spans.attributes_of_run()
    assert run["hamilton.run.node.count"] == len(dag)
    assert run["hamilton.run.node.spans.left_out"] == len(dag) - len(spans.nodes)
    assert DEFAULT_LARGE_RUN // 8 <= len(spans.nodes) <= DEFAULT_LARGE_RUN
    assert max(spans.counts().values()) == 1
    assert spans.links() <= {(node, upstream) for node, inputs in dag.inputs.items() for upstream in inputs}
    by_node = counted(registry, "hamilton_nodes_total")
    assert sum(by_node.values()) == len(dag)
    assert len(by_node) == 1_001  # a thousand by their own names, and all others
    left = objects_of_ours() - before
    # Of each node whose metrics have a name of their own, two cells; of each name, what is known of its durations.
    many = {name for name, count in left.items() if count > 500}
    assert many <= {"NodeMetrics", "Histogram", "_Learned"}, left
