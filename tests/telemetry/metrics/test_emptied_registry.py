"""A registry that was emptied, and a meter provider that was shut down: shown again, or counted and logged."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from tests.telemetry.telemetry_helpers import make_adapter, make_driver, samples
from traced_threadpool import FutureAdapter


def one() -> int:
    return 1


def empty(registry: CollectorRegistry) -> None:
    for collector in list(registry._collector_to_names):
        registry.unregister(collector)


def execute(adapter: FutureAdapter) -> None:
    make_driver(adapter, one).execute(["one"])


def counted(registry: CollectorRegistry) -> dict[Any, float]:
    return samples(registry, "hamilton_nodes_total")


def test_a_new_adapter_shows_the_metrics_again() -> None:
    """With what had been counted: a counter does not go back."""
    registry = CollectorRegistry()
    for expected in (1, 2, 3):
        with make_adapter(registry=registry) as adapter:
            execute(adapter)
        assert counted(registry) == {("one", "success", "default"): expected}
        empty(registry)
        assert counted(registry) == {}


def test_the_next_run_shows_the_metrics_again() -> None:
    """Of an adapter that was made before, and that nobody makes anew."""
    registry = CollectorRegistry()
    with make_adapter(registry=registry) as adapter:
        execute(adapter)
        empty(registry)
        execute(adapter)
        assert counted(registry) == {("one", "success", "default"): 2}
    assert adapter.telemetry_errors == {}


def test_names_that_somebody_else_has_by_now_are_a_failure_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Counted each time, logged once, and no matter to the run."""
    registry = CollectorRegistry()
    with make_adapter(registry=registry) as adapter:
        execute(adapter)
        empty(registry)
        Counter("hamilton_nodes", "somebody else's", registry=registry)
        for _ in range(2):
            execute(adapter)
    assert adapter.telemetry_errors == {"metrics": 2}
    assert [record.getMessage()[:28] for record in caplog.records] == ["telemetry failed in metrics "]


def test_a_registry_that_is_full_of_ours_stays_as_it_is() -> None:
    """Nothing is registered twice, by however many adapters and runs."""
    registry = CollectorRegistry()
    for _ in range(3):
        with make_adapter(registry=registry) as adapter:
            execute(adapter)
    assert len(registry._collector_to_names) == 1


def test_a_meter_provider_that_was_shut_down_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """It takes what it is given and drops it: counted at each run, and at a new adapter, logged once for each."""
    metrics = pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    provider = metrics.MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    with make_adapter(meter_provider=provider) as adapter:
        execute(adapter)
        assert adapter.telemetry_errors == {}
        provider.shutdown()
        execute(adapter)
    assert adapter.telemetry_errors == {"otel_metrics": 1}
    with make_adapter(meter_provider=provider) as late:
        execute(late)
    assert late.telemetry_errors == {"otel_metrics": 1}
    never_used = metrics.MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    never_used.shutdown()
    with make_adapter(meter_provider=never_used) as refused:
        execute(refused)
    assert refused.telemetry_errors == {"otel_metrics": 1}
    ours = [record for record in caplog.records if record.getMessage().startswith("telemetry failed")]
    assert len(ours) == 3
