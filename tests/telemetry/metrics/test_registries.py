"""Registries that refuse, and a live scrape."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest, start_http_server

from tests.telemetry.metrics.metric_nodes import needs_sdk, parsed_openmetrics
from tests.telemetry.small_nodes import load
from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Traces,
    every_metric_has_a_sample,
    make_adapter,
    make_driver,
    samples,
)
from traced_threadpool import FutureAdapter


def test_default_registry_is_prometheus_clients_own() -> None:
    """With no registry given the metrics are where `start_http_server` and others find them."""
    with FutureAdapter(tracing=False, name="in the default registry") as adapter:
        make_driver(adapter, load).execute(["load"])
    assert samples(REGISTRY, "hamilton_nodes_total")["load", "success", "in the default registry"] == 1.0


def test_metrics_can_be_switched_off(registry: CollectorRegistry) -> None:
    """`metrics=False` registers nothing and counts nothing."""
    with make_adapter(registry=registry, metrics=False) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert generate_latest(registry) == b""


def test_registry_that_refuses_costs_the_metrics_alone(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """An application's own metric has one of the names: the run is right, the failure is counted and logged."""
    Gauge("hamilton_runs_active", "The application's own", registry=registry)
    with make_adapter(registry=registry, tracing=False) as adapter:
        assert make_driver(adapter, load).execute(["load"]) == {"load": 1}
    assert adapter.telemetry_errors == {"metrics": 1}
    assert [record.levelname for record in caplog.records if record.name == "traced_threadpool"] == ["WARNING"]
    assert samples(registry, "hamilton_nodes_total") == {}


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, MemoryError, OSError])
def test_registry_that_raises_costs_the_metrics_alone(error: type[BaseException]) -> None:
    """Whatever it raises: the run is right, the failure is counted."""

    class Raising(CollectorRegistry):
        def register(self, collector: object) -> None:
            raise error("no")

    with make_adapter(registry=Raising(), tracing=False) as adapter:
        assert make_driver(adapter, load).execute(["load"]) == {"load": 1}
    assert adapter.telemetry_errors == {"metrics": 1}


def test_an_interrupt_while_an_adapter_is_made() -> None:
    """Is the program's, which asked to be told of it."""

    class Interrupted(CollectorRegistry):
        def register(self, collector: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_adapter(registry=Interrupted())


def test_registry_knows_our_names(registry: CollectorRegistry) -> None:
    """An application that registers one of them afterwards is refused, where its name first came up."""
    make_adapter(registry=registry).close()
    with pytest.raises(ValueError, match="hamilton_nodes"):
        Counter("hamilton_nodes", "The application's own", registry=registry)


def test_thing_that_is_no_registry_is_refused() -> None:
    """The message says what to write instead."""
    with pytest.raises(TypeError, match=r"CollectorRegistry, not 'here'; for no metrics at all give metrics=False"):
        make_adapter(registry="here")


TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@contextmanager
def served(registry: CollectorRegistry) -> Iterator[str]:
    """The address at which the registry can be scraped."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(LIMIT_SECONDS)


def scrape(address: str, accept: str) -> tuple[str, str]:
    """The content type and the text, as a Prometheus server gets them."""
    request = urllib.request.Request(address, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as response:
        return response.headers["Content-Type"], response.read().decode()


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on PATH (Debian's package `prometheus` has it)"
)
def test_promtool_passes_a_live_scrape(registry: CollectorRegistry) -> None:
    """Prometheus's own linter has nothing to say on names, types, units and help texts."""
    with every_metric_has_a_sample(registry), served(registry) as address:
        content_type, text = scrape(address, TEXT)
    assert content_type.startswith("text/plain")
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@needs_sdk
def test_live_openmetrics_scrape_is_valid(registry: CollectorRegistry) -> None:
    """A scraper that asks for OpenMetrics gets what a strict parser takes, exemplars and all, the same as in text."""
    traces = Traces()
    with every_metric_has_a_sample(registry, traces), served(registry) as address:
        content_type, text = scrape(address, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parsed_openmetrics(text)}
    assert {family.type for family in families.values()} == {"gauge", "counter", "histogram"}
    assert any(each.exemplar for each in families["hamilton_node_duration_seconds"].samples)


def test_one_metric_can_be_scraped_alone(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """`?name[]=` selects by the names that the collector has described."""
    make_driver(adapter, load).execute(["load"])
    with served(registry) as address:
        _, text = scrape(f"{address}?name[]=hamilton_nodes_total", TEXT)
    lines = [line for line in text.splitlines() if not line.startswith("#") and not line.endswith(" 0.0")]
    assert lines == ['hamilton_nodes_total{node="load",outcome="success",pool="default"} 1.0']
