"""The bounds of histograms, and their exemplars."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from tests.telemetry.metrics.metric_nodes import needs_sdk, parsed_openmetrics
from tests.telemetry.small_nodes import load
from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Between,
    Traces,
    buckets,
    context_of,
    make_adapter,
    make_driver,
    samples,
    times,
)
from traced_threadpool import Metrics

if TYPE_CHECKING:
    from prometheus_client.samples import Exemplar


def test_buckets_can_be_set(registry: CollectorRegistry) -> None:
    """So that the threshold of an objective is a bound: each of the three histograms has its own."""
    with make_adapter(
        registry=registry,
        tracing=False,
        metrics=Metrics(node_duration_buckets=[0.3, 3], queue_wait_buckets=(0.00001, 0.75), run_duration_buckets=[90]),
    ) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert {
        name: [list(each) for each in buckets(registry, name).values()]
        for name in (
            "hamilton_node_duration_seconds",
            "hamilton_threadpool_queue_wait_seconds",
            "hamilton_run_duration_seconds",
        )
    } == {
        "hamilton_node_duration_seconds": [["0.3", "3.0", "+Inf"]],
        "hamilton_threadpool_queue_wait_seconds": [["1e-05", "0.75", "+Inf"]],
        "hamilton_run_duration_seconds": [["90.0", "+Inf"]],
    }


def test_later_adapter_takes_the_buckets_that_are_there(registry: CollectorRegistry) -> None:
    """One that asks for none, or for the same, is content; one that asks for others is told of it."""
    make_adapter(registry=registry, metrics=Metrics(node_duration_buckets=[0.3, 3])).close()
    make_adapter(registry=registry, metrics=Metrics(node_duration_buckets=[0.3, 3.0])).close()
    make_adapter(registry=registry).close()
    with pytest.raises(ValueError, match=r"hamilton_node_duration_seconds .*\(0\.3, 3\.0\).*\(1\.0,\)"):
        make_adapter(registry=registry, metrics=Metrics(node_duration_buckets=[1]))


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ([], ValueError),
        ([0.0, 1.0], ValueError),
        ([-1.0], ValueError),
        ([2.0, 1.0], ValueError),
        ([1.0, 1.0], ValueError),
        ([1.0, float("inf")], ValueError),
        ([float("nan")], ValueError),
        (["soon"], TypeError),
        (3, TypeError),
        ("123", TypeError),
    ],
    ids=repr,
)
@pytest.mark.parametrize("option", ["node_duration_buckets", "queue_wait_buckets", "run_duration_buckets"])
def test_buckets_that_are_none_are_refused(option: str, bounds: Any, error: type[Exception]) -> None:
    """Positive, finite and rising numbers; the message names the metric."""
    metric = {
        "node_duration_buckets": "hamilton_node_duration_seconds",
        "queue_wait_buckets": "hamilton_threadpool_queue_wait_seconds",
        "run_duration_buckets": "hamilton_run_duration_seconds",
    }[option]
    with pytest.raises(error, match=f"bounds for {metric} must be"):
        Metrics(**{option: bounds})


def openmetrics_text(registry: CollectorRegistry) -> str:
    text: str = openmetrics.generate_latest(registry).decode()
    return text


def exemplars(registry: CollectorRegistry) -> dict[str, Exemplar]:
    """Those of an OpenMetrics scrape, by the metric and its node or run."""
    return {
        " ".join(filter(None, (each.name, each.labels.get("node"), each.labels.get("run")))): each.exemplar
        for family in parsed_openmetrics(openmetrics_text(registry))
        for each in family.samples
        if each.exemplar is not None
    }


@needs_sdk
def test_histograms_carry_the_span_as_exemplar(registry: CollectorRegistry) -> None:
    """The span's ids and the value observed: a node's for its duration and its wait, the run's for the run."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class SmallIds(RandomIdGenerator):
        """Whose zeros in front belong to the id."""

        def generate_trace_id(self) -> int:
            return 0xAB

        def generate_span_id(self) -> int:
            return super().generate_span_id() >> 8

    traces = Traces(id_generator=SmallIds())
    with make_adapter(traces, registry=registry) as adapter:
        make_driver(adapter, load).execute(["load"])
    found = exemplars(registry)
    node, run = traces.only("load"), traces.only("hamilton.run")
    node_ids = {"trace_id": f"{context_of(node).trace_id:032x}", "span_id": f"{context_of(node).span_id:016x}"}
    run_ids = {"trace_id": f"{context_of(run).trace_id:032x}", "span_id": f"{context_of(run).span_id:016x}"}
    assert {name: exemplar.labels for name, exemplar in found.items()} == {
        "hamilton_threadpool_queue_wait_seconds_bucket": node_ids,
        "hamilton_node_duration_seconds_bucket load": node_ids,
        "hamilton_run_duration_seconds_bucket hamilton.run": run_ids,
    }
    values = {name: exemplar.value for name, exemplar in found.items()}
    start_ns, end_ns = times(node)
    assert values["hamilton_node_duration_seconds_bucket load"] == pytest.approx((end_ns - start_ns) / 1e9)
    assert values["hamilton_threadpool_queue_wait_seconds_bucket"] == pytest.approx(
        traces.attributes("load")["hamilton.node.queue.duration"]
    )
    now = time.time()
    assert [float(exemplar.timestamp or 0) for exemplar in found.values()] == [Between(now - LIMIT_SECONDS, now)] * 3


@needs_sdk
def test_exemplars_are_in_the_openmetrics_format_only(registry: CollectorRegistry) -> None:
    """The plain text format has no place for them."""
    traces = Traces()
    with make_adapter(traces, registry=registry) as adapter:
        make_driver(adapter, load).execute(["load"])
    trace_id = f"{context_of(traces.only('load')).trace_id:032x}"
    assert trace_id in openmetrics_text(registry)
    assert trace_id not in generate_latest(registry).decode()


@needs_sdk
@pytest.mark.parametrize("sampler", ["ALWAYS_OFF", "RECORD_ONLY"])
def test_span_that_is_not_sampled_is_no_exemplar(registry: CollectorRegistry, sampler: str) -> None:
    """Nobody could look it up."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, StaticSampler

    traces = Traces(sampler=ALWAYS_OFF if sampler == "ALWAYS_OFF" else StaticSampler(Decision.RECORD_ONLY))
    with make_adapter(traces, registry=registry) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert exemplars(registry) == {}
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}


def test_without_an_sdk_there_is_no_exemplar(registry: CollectorRegistry) -> None:
    """Metrics need no tracing."""
    with make_adapter(registry=registry, tracer_provider=trace.NoOpTracerProvider()) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert exemplars(registry) == {}
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}
