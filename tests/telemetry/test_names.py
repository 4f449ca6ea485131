"""The inventory of names against the contract, literally, and against a scrape, in both directions."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dashboards.generate.reference import metrics_page, series_of_a_node
from tests.telemetry.telemetry_helpers import Traces, every_metric_has_a_sample, make_adapter, make_driver
from traced_threadpool.hamilton_graph import PARSES_SAFELY
from traced_threadpool.telemetry import names


class Row(NamedTuple):
    """A line of the table in section 3 of the contract, and the OpenTelemetry name and unit that follow from it."""

    prometheus: str
    kind: str
    labels: tuple[str, ...]
    otel: str
    unit: str


LANE = ("pool", "backend")

CONTRACT = [
    Row("hamilton_threadpool_queue_depth", "gauge", LANE, "hamilton.threadpool.queue.depth", ""),
    Row("hamilton_threadpool_blocked_nodes", "gauge", LANE, "hamilton.threadpool.blocked.nodes", ""),
    Row("hamilton_threadpool_active_workers", "gauge", LANE, "hamilton.threadpool.active.workers", ""),
    Row("hamilton_threadpool_workers", "gauge", LANE, "hamilton.threadpool.workers", ""),
    Row("hamilton_threadpool_max_workers", "gauge", LANE, "hamilton.threadpool.max.workers", ""),
    Row(
        "hamilton_threadpool_oldest_queued_seconds",
        "gauge",
        LANE,
        "hamilton.threadpool.oldest.queued",
        "s",
    ),
    Row(
        "hamilton_threadpool_oldest_active_seconds",
        "gauge",
        LANE,
        "hamilton.threadpool.oldest.active",
        "s",
    ),
    Row("hamilton_stalled_nodes", "gauge", ("pool",), "hamilton.stalled.nodes", ""),
    Row(
        "hamilton_threadpool_queue_wait_seconds",
        "histogram",
        LANE,
        "hamilton.threadpool.queue.wait",
        "s",
    ),
    Row("hamilton_node_duration_seconds", "histogram", ("pool", "node", "outcome"), "hamilton.node.duration", "s"),
    Row("hamilton_nodes_total", "counter", ("pool", "node", "outcome"), "hamilton.nodes", ""),
    Row("hamilton_node_time_seconds_total", "counter", ("pool", "node", "state"), "hamilton.node.time", "s"),
    Row("hamilton_node_queue_seconds_total", "counter", ("pool", "node"), "hamilton.node.queue", "s"),
    Row("hamilton_node_stalls_total", "counter", ("pool", "node"), "hamilton.node.stalls", ""),
    Row("hamilton_run_duration_seconds", "histogram", ("pool", "run", "outcome"), "hamilton.run.duration", "s"),
    Row("hamilton_runs_active", "gauge", ("pool", "run"), "hamilton.runs.active", ""),
    Row(
        "hamilton_run_last_success_timestamp_seconds",
        "gauge",
        ("pool", "run"),
        "hamilton.run.last.success.timestamp",
        "s",
    ),
    Row(
        "hamilton_run_critical_path_seconds_total",
        "counter",
        ("pool", "run", "node"),
        "hamilton.run.critical.path",
        "s",
    ),
    Row(
        "hamilton_run_queued_behind_seconds_total",
        "counter",
        ("pool", "run", "node"),
        "hamilton.run.queued.behind",
        "s",
    ),
    Row("hamilton_gil_probe_wait_seconds_total", "counter", (), "hamilton.gil.probe.wait", "s"),
    Row("hamilton_attribution_info", "gauge", ("method", "reason"), "hamilton.attribution.info", ""),
    Row("hamilton_telemetry_spans_lost_total", "counter", ("stage",), "hamilton.telemetry.spans.lost", ""),
    Row("hamilton_telemetry_errors_total", "counter", ("component",), "hamilton.telemetry.errors", ""),
]

RUN_ATTRIBUTES = {
    "hamilton.run.id",
    "hamilton.run.outputs",
    "hamilton.run.inputs",
    "hamilton.run.overrides",
    "hamilton.run.outcome",
    "hamilton.run.node.count",
    "hamilton.run.node.spans.left_out",
    "hamilton.run.placement",
    "hamilton.run.priority",
    "hamilton.threadpool.name",
    "hamilton.threadpool.backends",
    "hamilton.threadpool.workers.limit",
    "hamilton.graph.version",
    "hamilton.run.cpu.duration",
    "hamilton.run.wait.",
    "hamilton.run.gil.holders",
    "hamilton.run.steal.ratio",
    "hamilton.attribution.method",
    "hamilton.attribution.reason",
    "hamilton.cpus.limit",
    "hamilton.run.critical_path",
    "hamilton.run.problems",
    "hamilton.run.beside",
    "hamilton.run.critical_path.durations",
    "hamilton.run.queue.duration",
    "hamilton.run.failed_nodes",
    "hamilton.run.finding",
    "hamilton.attributes.cut",
}

BACKEND_ATTRIBUTES = {
    "hamilton.node.attempts",
    "hamilton.node.backend",
    "hamilton.node.clock.correction",
    "hamilton.node.function.end",
    "hamilton.node.function.start",
    "hamilton.node.received.size",
    "hamilton.node.sent.size",
    "hamilton.node.worker.address",
    "hamilton.node.worker.host",
    "hamilton.node.worker.pid",
}
"""Of nodes that run elsewhere than on threads."""

QUEUE_ATTRIBUTES = {
    "hamilton.queue.node",
    "hamilton.queue.behind",
    "hamilton.gap.node",
    "hamilton.path.nodes",
    "hamilton.path.node.count",
    "hamilton.path.queue.duration",
}

LOCK_ATTRIBUTES = {
    "hamilton.node.lock.capacity",
    "hamilton.node.lock.first",
    "hamilton.node.lock.last",
    "hamilton.node.lock.line",
    "hamilton.node.lock.name",
    "hamilton.node.lock.waits",
}
"""Of nodes that wait for a lock for long enough to be seen."""

NODE_ATTRIBUTES = {
    *BACKEND_ATTRIBUTES,
    "hamilton.node.name",
    "hamilton.node.upstream",
    "hamilton.node.outcome",
    "hamilton.node.failed_upstream",
    "hamilton.node.dependency.duration",
    "hamilton.node.queue.duration",
    "hamilton.node.queue.others.duration",
    *LOCK_ATTRIBUTES,
    "hamilton.node.cpu.duration",
    "hamilton.node.wait.",
    "hamilton.node.wait.samples",
    "hamilton.node.tag.",
    "hamilton.task.id",
    "hamilton.link.parameter",
    "thread.id",
    "thread.name",
    "code.function.name",
    "code.file.path",
    "code.line.number",
    "code.stacktrace",
    "error.type",
}


NOT_IN_EVERY_RUN = {
    "hamilton.threadpool.backends",
    "hamilton.run.placement",
    *BACKEND_ATTRIBUTES,
    *LOCK_ATTRIBUTES,
    "hamilton.node.queue.others.duration",  # with several runs in a pool
    "hamilton.queue.node",  # a wait for a worker on the path
    "hamilton.queue.behind",
    "hamilton.gap.node",
    "hamilton.path.nodes",  # a large run whose path has more steps than there may be spans
    "hamilton.path.node.count",
    "hamilton.path.queue.duration",
    "hamilton.attributes.cut",  # with a limit of the SDK
    "hamilton.node.tag.",  # but for `module`, which the code's name has
    "hamilton.run.inputs",
    "hamilton.run.overrides",  # empty ones are left out
    "hamilton.run.node.spans.left_out",  # large runs
    "hamilton.run.problems",  # of a record that was saved
    "hamilton.run.beside",
    "hamilton.task.id",  # dynamic execution
    "code.stacktrace",  # of a node that stalls
    "hamilton.node.wait.samples",
    "hamilton.attribution.reason",
    "hamilton.run.gil.holders",
    "hamilton.run.steal.ratio",
}


def test_inventory_of_metrics_is_the_contracts() -> None:
    """Every metric of the contract's table, in its order, with its kind and labels, and no other."""
    assert [
        Row(metric.prometheus, metric.kind, metric.labels, metric.otel, metric.unit) for metric in names.METRICS
    ] == CONTRACT


@pytest.mark.parametrize("row", CONTRACT, ids=lambda row: row.prometheus)
def test_opentelemetry_name_follows_the_rule(row: Row) -> None:
    """The Prometheus name with dots for underscores, without unit and `_total`."""
    stem = row.prometheus.removesuffix("_total")
    if row.unit == "s":
        assert stem.endswith("_seconds")
        stem = stem.removesuffix("_seconds")
    assert stem.replace("_", ".") == row.otel
    assert row.prometheus.endswith("_total") == (row.kind == "counter")


def test_only_histograms_have_buckets() -> None:
    """Rising, positive bounds in seconds, so that any default is a usable threshold."""
    bounds = {metric.prometheus: metric.buckets for metric in names.METRICS if metric.buckets}
    assert set(bounds) == {row.prometheus for row in CONTRACT if row.kind == "histogram"}
    assert [name for name, each in bounds.items() if list(each) != sorted(set(each)) or each[0] <= 0] == []


def test_every_metric_is_described() -> None:
    """A help text each, a sentence in one line, no two the same; where there is a unit, it says so."""
    descriptions = [metric.description for metric in names.METRICS]
    assert [text for text in descriptions if not text[:1].isupper() or not text.endswith(".") or "\n" in text] == []
    assert [each.otel for each in names.METRICS if each.unit == "s" and "in seconds" not in each.description] == []
    assert len(set(descriptions)) == len(descriptions)


def test_inventory_of_attributes_is_the_contracts() -> None:
    """Every span and link attribute of section 2, and no other."""
    constants = {
        name: value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and ("." in value) and name != "SCHEMA_URL"
    }
    assert constants.pop("DEFAULT_RUN_NAME") == "hamilton.run"
    waits = {"hamilton.node.wait.", "hamilton.run.wait."}
    assert set(constants.values()) == (RUN_ATTRIBUTES | NODE_ATTRIBUTES | QUEUE_ATTRIBUTES) - waits
    assert {names.node_wait("gil"), names.run_wait("gil")} == {each + "gil.duration" for each in waits}
    assert names.SCOPE == "traced_threadpool"


def test_documented_attributes_are_the_contracts() -> None:
    """What `docs/spans.md` lists is each attribute once, with a description of its own."""
    keys = [attribute.key.partition("<")[0] for attribute in names.ATTRIBUTES]
    assert sorted(keys) == sorted(RUN_ATTRIBUTES | NODE_ATTRIBUTES | QUEUE_ATTRIBUTES)
    assert [attribute.key for attribute in names.ATTRIBUTES if not attribute.description] == []


def test_scrape_is_the_inventory() -> None:
    """Every family scraped is in the inventory, with its kind, labels and help text, and the other way round."""
    registry = CollectorRegistry()
    with every_metric_has_a_sample(registry):
        families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    scraped = {
        family.name: (
            family.type,
            family.documentation,
            {tuple(sorted(set(each.labels) - {"le"})) for each in family.samples},
        )
        for family in families
    }
    assert scraped == {
        metric.prometheus_base: (metric.kind, metric.description, {tuple(sorted(metric.labels))})
        for metric in names.METRICS
    }


def test_spans_have_no_attribute_that_is_not_in_the_inventory() -> None:
    """Whatever is exported of a good run and a bad one is named in the contract."""
    pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")
    traces = Traces()
    with every_metric_has_a_sample(CollectorRegistry(), traces):
        pass
    exported = {key for span in traces.spans for key in span.attributes or {}}
    exported |= {key for span in traces.spans for link in span.links for key in link.attributes or {}}
    families = ("hamilton.node.tag.", "hamilton.node.wait.", "hamilton.run.wait.")
    found = {next((each for each in families if key.startswith(each)), key) for key in exported}
    assert found - (RUN_ATTRIBUTES | NODE_ATTRIBUTES | QUEUE_ATTRIBUTES) == set()
    absent_here = set() if PARSES_SAFELY else {"hamilton.graph.version"}
    assert (RUN_ATTRIBUTES | NODE_ATTRIBUTES | QUEUE_ATTRIBUTES) - found - NOT_IN_EVERY_RUN == absent_here


def test_the_documented_number_of_series_is_that_of_a_scrape() -> None:
    """Of a node that always succeeds, and of 1,000."""
    registry = CollectorRegistry()

    def node() -> int:
        return 1

    with make_adapter(registry=registry) as adapter:
        make_driver(adapter, node).execute(["node"])
    series = [line for line in generate_latest(registry).decode().splitlines() if 'node="node"' in line]
    assert series_of_a_node() == len(series)
    assert f"1,000 such nodes are {len(series):,},000" in metrics_page()
