"""What the tests of spans share: an adapter whose spans are kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace

from tests.telemetry.telemetry_helpers import Traces, make_adapter
from traced_threadpool import FutureAdapter


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def adapter(traces: Traces) -> Iterator[FutureAdapter]:
    with make_adapter(traces, max_workers=4) as adapter:
        yield adapter


@pytest.fixture
def one_worker(traces: Traces) -> Iterator[FutureAdapter]:
    with make_adapter(traces, max_workers=1) as adapter:
        yield adapter


@pytest.fixture
def tracer(traces: Traces) -> trace.Tracer:
    """The application's own."""
    return traces.provider.get_tracer("application")
