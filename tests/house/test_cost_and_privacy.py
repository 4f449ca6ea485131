"""The numbers of docs/cost-and-privacy.md, and what it says is never sent."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from dashboards.generate.reference import series_of_a_node
from tests.dags import driver_of
from tests.house.layers import ROOT
from traced_threadpool import FutureAdapter, Metrics, Tracing
from traced_threadpool.options import DEFAULT_NODE_LABELS

TEXT = (ROOT / "docs/cost-and-privacy.md").read_text(encoding="utf-8")
SECRET = "5up3r-s3cr3t"


def stated(what: str) -> int:
    """The number in the row of a table that begins with these words."""
    [number] = re.findall(rf"^\| {re.escape(what)} \| ([\d,]+) \|$", TEXT, re.MULTILINE)
    return int(number.replace(",", ""))


def series(registry: CollectorRegistry, *holding: str) -> list[str]:
    """Those of a scrape, without comments."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and all(each in line for each in holding)]


def failing() -> int:
    raise LookupError(SECRET)


def node(value: str) -> str:
    return value


def test_the_series_of_nodes_and_pools() -> None:
    """Counted in a scrape."""
    registry = CollectorRegistry()
    with FutureAdapter(2, name="p", run_name="r", registry=registry) as adapter:
        runs = driver_of(adapter, node, failing)
        pool = len(series(registry, 'pool="p"'))
        runs.execute(["node"], inputs={"value": SECRET})
        with pytest.raises(LookupError):
            runs.execute(["failing"])
    succeeded = len(series(registry, 'node="node"'))
    assert stated("for each node that always succeeds") == succeeded == series_of_a_node()
    others = [each for each in series(registry, 'node="failing"', "_bucket") if 'outcome="error"' in each]
    assert stated("more, for a node that has failed as well") == len(others) + 2  # its sum and its count
    assert stated("nodes with a label of their own, at most") == DEFAULT_NODE_LABELS
    assert abs(stated("for each pool, with one run name") - pool) <= 10, "a pool has 'about' as many"


def test_nothing_that_a_node_was_given_or_gave_is_sent() -> None:
    """Not in spans, metrics, the live view or a record; nor what an exception says, if so asked."""
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from traced_threadpool.analysis import diagnose

    exporter, provider, registry = InMemorySpanExporter(), TracerProvider(), CollectorRegistry()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    shown: list[str] = []

    def looking(value: str) -> int:
        shown.append(json.dumps(adapter.live(graph=True).as_dict()))
        return len(value)

    with FutureAdapter(
        2,
        registry=registry,
        tracer_provider=provider,
        record=True,
        tracing=Tracing(record_exceptions=False),
        metrics=Metrics(),
    ) as adapter:
        runs = driver_of(adapter, node, looking, failing)
        runs.execute(["node", "looking"], inputs={"value": SECRET}, overrides={})
        with pytest.raises(LookupError):
            runs.execute(["failing", "looking"], inputs={"value": SECRET})
    spans = exporter.get_finished_spans()
    assert len([span for span in spans if "hamilton.node.outcome" in (span.attributes or {})]) == 4
    assert len([span for span in spans if "hamilton.run.outcome" in (span.attributes or {})]) == 2
    sent = [span.to_json() for span in spans] + [generate_latest(registry).decode(), *shown]
    for run in adapter.recorded_runs:
        whole = [vars(run), *map(dataclasses.asdict, run.nodes), dataclasses.asdict(diagnose(run))]
        sent += [repr(run), repr(whole)]
    assert [text for text in sent if SECRET in text] == []
