"""`setup_telemetry(metrics_endpoint=)`: figures through a real collector, and endpoints that fail."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="pushing metrics needs the extra [otlp]")

from prometheus_client import CollectorRegistry

from tests.dashboards.live_servers import Rotel
from tests.telemetry.metrics.test_otel import fails, left, load
from tests.telemetry.metrics.test_pushgateway import free_port
from tests.telemetry.otlp_receiver import GrpcReceiver
from tests.telemetry.telemetry_helpers import make_adapter, make_driver, until
from traced_threadpool import setup_telemetry
from traced_threadpool.telemetry import names

Figures = dict[tuple[str, ...], Any]


def received(receiver: GrpcReceiver) -> dict[str, Figures]:
    """The latest figures: a value, or the buckets' counts and the sum, by name and attributes in their names' order."""
    figures: dict[str, Figures] = {}
    for request in receiver.metric_requests:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = getattr(metric, metric.WhichOneof("data")).data_points
                    for point in points:
                        labels = sorted((each.key, each.value.string_value) for each in point.attributes)
                        value: Any = (
                            (list(point.bucket_counts), point.sum)
                            if metric.WhichOneof("data") == "histogram"
                            else point.as_int or point.as_double
                        )
                        figures.setdefault(metric.name, {})[tuple(each for _, each in labels)] = value
    return figures


def scraped(registry: CollectorRegistry, metric: names.Metric) -> Figures:
    """The same from Prometheus, without what has not happened yet."""
    (family,) = (each for each in registry.collect() if each.name == metric.prometheus_base)
    figures: Figures = {}
    for sample in family.samples:
        labels = tuple(value for key, value in sorted(sample.labels.items()) if key != "le")
        if metric.kind != "histogram":
            figures[labels] = sample.value
        elif sample.name.endswith("_bucket"):
            counts, total = figures.get(labels, ([], 0.0))
            figures[labels] = ([*counts, int(sample.value) - sum(counts)], total)
        elif sample.name.endswith("_sum"):
            figures[labels] = (figures[labels][0], sample.value)
    return {labels: value for labels, value in figures.items() if metric.kind != "histogram" or any(value[0])}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_figures_arrive_through_a_collector(tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are exactly those of Prometheus, sums the same: after runs good and bad, through a process between."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", protocol)
    registry = CollectorRegistry()
    with GrpcReceiver() as receiver, Rotel(tmp_path, receiver.endpoint) as rotel:
        endpoint = rotel.grpc if protocol == "grpc" else rotel.http
        with setup_telemetry(metrics_endpoint=endpoint, service_name="shop") as setup:
            with make_adapter(registry=registry, meter_provider=setup.meter_provider, attribution=False) as adapter:
                for _ in range(30):
                    make_driver(adapter, load, left).execute(["left"])
                with pytest.raises(ValueError, match="a message"):
                    make_driver(adapter, load, fails).execute(["fails"])
            assert setup.flush()
        until(lambda: received(receiver).get("hamilton.nodes", {}).get(("left", "success", "default")) == 30)
        (resource, *_) = receiver.metric_requests[-1].resource_metrics
        assert "shop" in {each.value.string_value for each in resource.resource.attributes}
    figures = received(receiver)
    counted = [metric for metric in names.METRICS if metric.kind != "gauge"]
    assert {metric.otel for metric in counted} - figures.keys() == {
        "hamilton.gil.probe.wait",
        "hamilton.telemetry.errors",
    }
    for metric in counted:
        expected = scraped(registry, metric)
        found = figures.get(metric.otel, {})
        assert found.keys() == expected.keys(), metric.otel
        for labels, value in expected.items():
            if metric.kind == "histogram":
                assert found[labels][0] == value[0], (metric.otel, labels)
                assert math.isclose(found[labels][1], value[1], rel_tol=1e-9), (metric.otel, labels)
            else:
                assert found[labels] == pytest.approx(value), (metric.otel, labels)


def test_a_dead_endpoint_costs_two_seconds_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """No more: what an export of metrics brings is in the next one too, so it is not tried for long."""
    setup = setup_telemetry(metrics_endpoint=f"http://127.0.0.1:{free_port()}")
    with make_adapter(meter_provider=setup.meter_provider) as adapter:
        assert make_driver(adapter, load, left).execute(["left"]) == {"left": 2}
    assert setup.flush(timeout_seconds=3) is False
    started = time.monotonic()
    setup.close()
    assert time.monotonic() - started < 8
    assert adapter.telemetry_errors == {}


def test_a_disabled_sdk_pushes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the standard has it; the adapter takes the handle's None."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with setup_telemetry(metrics_endpoint="http://127.0.0.1:4317") as setup:
        assert setup.meter_provider is None
        with make_adapter(meter_provider=setup.meter_provider) as adapter:
            assert make_driver(adapter, load).execute(["load"]) == {"load": 1}


@pytest.mark.parametrize(
    ("endpoint", "error", "message"),
    [
        ("localhost:4317", ValueError, "metrics_endpoint='localhost:4317' has no scheme"),
        (4317, TypeError, "metrics_endpoint=4317 is of type int"),
    ],
)
def test_a_wrong_endpoint_is_an_error(endpoint: Any, error: type[Exception], message: str) -> None:
    """At once."""
    with pytest.raises(error, match=message):
        setup_telemetry(metrics_endpoint=endpoint)
