"""OpenTelemetry metrics: the same figures as Prometheus, for the same runs."""

from __future__ import annotations

import gc
import math
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="pushing metrics needs the extra [otlp]")

from opentelemetry import metrics as otel_api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from tests.dags import start
from tests.telemetry.small_nodes import holding
from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Gate,
    Traces,
    context_of,
    every_metric_has_a_sample,
    make_adapter,
    make_driver,
    run_program,
)
from traced_threadpool import FutureAdapter, Metrics
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.otel import OtelMetrics

Key = tuple[str, ...]


class Meters:
    """A real meter provider whose points are read when a test asks."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def points(self) -> dict[str, dict[Key, Any]]:
        """By the instrument's name and the attributes' values in the inventory's order."""
        labels = {metric.otel: metric.labels for metric in names.METRICS}
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: {
                tuple(str(dict(point.attributes or {})[label]) for label in labels[metric.name]): point
                for point in metric.data.data_points
            }
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def meters() -> Iterator[Meters]:
    meters = Meters()
    yield meters
    meters.provider.shutdown()


def load() -> int:
    return 1


def left(load: int) -> int:
    return load + 1


def fails(load: int) -> int:
    raise ValueError("a message")


def after(fails: int) -> int:
    return fails


def scraped(registry: CollectorRegistry) -> dict[str, Metric]:
    return {family.name: family for family in registry.collect()}


def assert_same(registry: CollectorRegistry, points: dict[str, dict[Key, Any]]) -> None:
    """Every metric that Prometheus has, with the same label sets and figures; ages of gauges apart."""
    families = scraped(registry)
    for metric in names.METRICS:
        family, found = families[metric.prometheus_base], points.get(metric.otel, {})
        values: dict[Key, dict[str, float]] = {}
        for sample in family.samples:
            key = tuple(sample.labels[label] for label in metric.labels)
            which = sample.name.removeprefix(metric.prometheus_base) + sample.labels.get("le", "")
            values.setdefault(key, {})[which] = sample.value
        if metric.kind == "histogram":  # what has not happened yet is there with 0, and cannot be here
            values = {key: each for key, each in values.items() if each["_count"]}
        assert found.keys() == values.keys(), metric.otel
        for key, expected in values.items():
            point = found[key]
            if isinstance(point, HistogramDataPoint):
                cumulative, told = 0, {}
                bounds = [*(str(bound) for bound in point.explicit_bounds), "+Inf"]
                for bound, count in zip(bounds, point.bucket_counts, strict=True):
                    cumulative += count
                    told[f"_bucket{bound}"] = float(cumulative)
                told["_count"] = float(point.count)
                total = expected.pop("_sum")
                assert told == expected, (metric.otel, key)
                assert math.isclose(point.sum, total, rel_tol=1e-9, abs_tol=1e-12), (metric.otel, key)
            elif metric in (names.OLDEST_ACTIVE, names.RUN_LAST_SUCCESS, names.GIL_PROBE_WAIT):
                (value,) = expected.values()  # read or taken at two moments
                assert abs(point.value - value) < 10, (metric.otel, key)
            else:
                assert list(expected.values()) == [point.value], (metric.otel, key)


def test_figures_are_those_of_prometheus(meters: Meters) -> None:
    """Good runs, bad runs, nodes that never ran, a node running right now: the same counts, buckets and sums."""
    registry = CollectorRegistry()
    gate = Gate()

    held = holding(gate)

    with make_adapter(registry=registry, meter_provider=meters.provider, max_workers=2, name="shop") as adapter:
        for _ in range(20):
            make_driver(adapter, load, left).execute(["left"])
        with pytest.raises(ValueError, match="a message"):
            make_driver(adapter, load, fails, after).execute(["after"])
        outputs = start(make_driver(adapter, held), ["held"])
        gate.wait_for()
        try:
            points = meters.points()
            assert points["hamilton.nodes"]["shop", "left", "success"].value == 20
            assert points["hamilton.nodes"]["shop", "after", "upstream_error"].value == 1
            assert points["hamilton.threadpool.active.workers"]["shop", "threads"].value == 1
            assert_same(registry, points)
        finally:
            gate.open()
            outputs["held"].result()


def test_every_metric_of_the_inventory_is_there(meters: Meters) -> None:
    """Each by its OpenTelemetry name, kind, unit and description, and no other."""
    with every_metric_has_a_sample(CollectorRegistry(), meter_provider=meters.provider):
        data = meters.reader.get_metrics_data()
    assert data is not None
    kinds = {"Gauge": "gauge", "Sum": "counter", "Histogram": "histogram"}
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.scope.name == "traced_threadpool"
    assert {
        (metric.name, kinds[type(metric.data).__name__], metric.unit, metric.description) for metric in scope.metrics
    } == {(metric.otel, metric.kind, metric.unit, metric.description) for metric in names.METRICS}


def test_bounds_are_those_asked_for(meters: Meters) -> None:
    """So that an objective's threshold is a bound here too; two adapters of a provider have to agree."""
    with make_adapter(meter_provider=meters.provider, metrics=Metrics(run_duration_buckets=(1, 30))) as adapter:
        make_driver(adapter, load).execute(["load"])
        (point,) = meters.points()["hamilton.run.duration"].values()
        assert point.explicit_bounds == (1.0, 30.0)
        with pytest.raises(ValueError, match="this meter provider has hamilton_run_duration_seconds with the bounds"):
            make_adapter(meter_provider=meters.provider, metrics=Metrics(run_duration_buckets=(2, 30)))


def test_exemplars_are_the_spans(meters: Meters) -> None:
    """Of a sampled run; the histogram of runs carries the run's span, that of nodes the node's."""
    traces = Traces()
    with make_adapter(traces, meter_provider=meters.provider) as adapter:
        make_driver(adapter, load).execute(["load"])
    points = meters.points()
    for name, span in (("hamilton.node.duration", "load"), ("hamilton.run.duration", "hamilton.run")):
        (point,) = points[name].values()
        (exemplar,) = point.exemplars
        context = context_of(traces.only(span))
        assert (exemplar.trace_id, exemplar.span_id) == (context.trace_id, context.span_id), name
        assert exemplar.value == point.sum


def test_without_a_provider_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the application has set a global one: it may well be scraped as well."""
    meters = Meters()
    monkeypatch.setattr(otel_api, "get_meter_provider", lambda: meters.provider)
    with make_adapter() as adapter:
        make_driver(adapter, load).execute(["load"])
    assert meters.reader.get_metrics_data() is None


def test_prometheus_is_not_needed(meters: Meters) -> None:
    """`metrics=False` switches Prometheus off, and this not."""
    registry = CollectorRegistry()
    with make_adapter(registry=registry, metrics=False, meter_provider=meters.provider) as adapter:
        make_driver(adapter, load, left).execute(["left"])
    nodes = {key[1]: point.value for key, point in meters.points()["hamilton.nodes"].items() if point.value}
    assert nodes == {"load": 1, "left": 1}
    assert scraped(registry) == {}


def test_adapters_of_one_name_add_up_and_outlive_themselves(meters: Meters) -> None:
    """An adapter per request: what they counted stays and adds up, their gauges go; nothing keeps them."""
    for _ in range(5):
        with make_adapter(meter_provider=meters.provider) as adapter:
            make_driver(adapter, load).execute(["load"])
    gone = weakref.ref(adapter)
    del adapter
    gc.collect()
    points = meters.points()
    assert points["hamilton.nodes"]["default", "load", "success"].value == 5
    assert points["hamilton.node.duration"]["default", "load", "success"].count == 5
    assert "hamilton.threadpool.max.workers" not in points
    assert gone() is None


def test_a_provider_is_not_kept() -> None:
    """Instruments go with their provider."""
    meters = Meters()
    with make_adapter(meter_provider=meters.provider) as adapter:
        make_driver(adapter, load).execute(["load"])
    meters.provider.shutdown()
    gone = weakref.ref(meters.provider)
    del meters, adapter
    gc.collect()
    assert gone() is None


def test_nodes_beyond_the_cap_are_other(meters: Meters) -> None:
    """The label `node` is capped as in Prometheus, in counters and histograms alike."""
    registry = CollectorRegistry()
    with make_adapter(registry=registry, meter_provider=meters.provider, metrics=Metrics(max_node_labels=1)) as adapter:
        make_driver(adapter, load, left).execute(["left"])
    points = meters.points()
    assert {key[1] for key in points["hamilton.node.duration"]} == {"load", "_other"}
    assert_same(registry, points)


class Breaking(otel_api.NoOpMeterProvider):
    """A provider whose histograms fail."""

    def get_meter(self, *args: Any, **kwargs: Any) -> otel_api.Meter:
        class Meter(otel_api.NoOpMeter):
            def create_histogram(self, *args: Any, **kwargs: Any) -> otel_api.Histogram:
                class Histogram(otel_api.NoOpHistogram):
                    def record(self, *args: Any, **kwargs: Any) -> None:
                        raise LookupError("no figures today")

                return Histogram("broken")

        return Meter("broken")


class Refusing(otel_api.NoOpMeterProvider):
    """A provider that has no meters."""

    def get_meter(self, *args: Any, **kwargs: Any) -> otel_api.Meter:
        raise LookupError("no meters today")


@pytest.mark.parametrize(("provider", "errors"), [(Breaking(), 3), (Refusing(), 1)])
def test_a_provider_that_fails_costs_its_metrics_alone(provider: otel_api.MeterProvider, errors: int) -> None:
    """The run succeeds, the failures are counted, Prometheus has its figures."""
    registry = CollectorRegistry()
    with make_adapter(registry=registry, meter_provider=provider) as adapter:
        assert make_driver(adapter, load, left).execute(["left"]) == {"left": 2}
    assert adapter.telemetry_errors == {"otel_metrics": errors}
    ended = scraped(registry)["hamilton_nodes"].samples
    nodes = {sample.labels["node"]: sample.value for sample in ended if sample.value}
    assert nodes == {"load": 1, "left": 1}


def test_a_thing_that_is_no_provider_is_refused() -> None:
    """With a word on what to give."""
    with pytest.raises(TypeError, match="meter_provider must be an opentelemetry"):
        FutureAdapter(meter_provider="http://localhost:4317")  # type: ignore[arg-type]


def test_a_provider_that_hangs_holds_up_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """`execute` waits for it a second at most, once."""
    gate = Gate()

    class Hanging(otel_api.NoOpMeterProvider):
        def get_meter(self, *args: Any, **kwargs: Any) -> otel_api.Meter:
            class Meter(otel_api.NoOpMeter):
                def create_histogram(self, *args: Any, **kwargs: Any) -> otel_api.Histogram:
                    class Histogram(otel_api.NoOpHistogram):
                        def record(self, *args: Any, **kwargs: Any) -> None:
                            gate()

                    return Histogram("hanging")

            return Meter("hanging")

    with make_adapter(meter_provider=Hanging()) as adapter:
        dr = make_driver(adapter, load, left)
        assert dr.execute(["left"]) == {"left": 2}
        gate.wait_for()
        monkeypatch.setattr(OtelMetrics.flush, "__defaults__", (LIMIT_SECONDS,))  # what it would wait, were it to
        started = time.monotonic()
        assert dr.execute(["left"]) == {"left": 2}
        assert time.monotonic() - started < LIMIT_SECONDS
        gate.open()


def test_the_last_run_is_pushed_at_exit() -> None:
    """A program that ends right after `execute`, with a provider that exports at exit, has all its figures there."""
    printed = run_program(
        """
        from hamilton import ad_hoc_utils, driver
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
        from traced_threadpool import FutureAdapter

        class Printing(MetricExporter):
            def export(self, data, timeout_millis=0, **kwargs):
                for metric in data.resource_metrics[0].scope_metrics[0].metrics:
                    if metric.name in ("hamilton.node.duration", "hamilton.run.duration"):
                        print(metric.name, [point.count for point in metric.data.data_points], flush=True)
                return MetricExportResult.SUCCESS
            def force_flush(self, timeout_millis=0): return True
            def shutdown(self, timeout_millis=0, **kwargs): pass

        def load() -> int: return 1
        provider = MeterProvider([PeriodicExportingMetricReader(Printing())])
        adapter = FutureAdapter(meter_provider=provider)
        module = ad_hoc_utils.create_temporary_module(load)
        dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
        for _ in range(300):
            dr.execute(["load"])
        """
    )
    assert sorted(printed.splitlines()) == ["hamilton.node.duration [300]", "hamilton.run.duration [300]"]
