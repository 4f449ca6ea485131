"""`OtlpFileSpanExporter`: a file for an application that has a tracer provider of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.dags import driver_of
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis import read_runs

pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")


def load() -> int:
    return 2


def parse(load: int) -> int:
    return load + 1


def test_an_applications_own_provider_writes_a_file_that_can_be_explained(tmp_path: Path) -> None:
    """As the README has it; what the application's own code traces is no trouble to the reader."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from traced_threadpool import OtlpFileSpanExporter

    provider = TracerProvider()
    exporter = OtlpFileSpanExporter(tmp_path / "trace.jsonl")
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=32_768))
    with (
        FutureAdapter(name="shop", tracer_provider=provider, registry=CollectorRegistry()) as adapter,
        provider.get_tracer("app").start_as_current_span("request"),
    ):
        driver_of(adapter, load, parse).execute(["parse"])
    provider.shutdown()
    [run] = read_runs(tmp_path / "trace.jsonl")
    assert ([node.name for node in run.nodes], run.pool, run.problems) == (["load", "parse"], "shop", ())
    assert exporter.failed_spans == 0


@pytest.mark.parametrize(
    ("file", "kind", "message"),
    [
        (3, TypeError, "file=3 is of type int; expected a path, such as 'trace.jsonl'"),
        ("", ValueError, "file='' is empty"),
        ("nowhere/trace.jsonl", OSError, "there is no directory .*nowhere'; create it"),
    ],
)
def test_a_file_that_cannot_work_is_an_error_at_once(
    file: object, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a background thread, where nobody would see it."""
    from traced_threadpool import OtlpFileSpanExporter

    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        OtlpFileSpanExporter(file)  # type: ignore[arg-type]  # as a user may
