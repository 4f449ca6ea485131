"""Fixtures of these tests."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")


import pytest
from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import LIMIT_SECONDS, Traces, make_adapter, make_driver, until
from traced_threadpool.waits.reasons import Method
from traced_threadpool.waits.supervisor import supervisor

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")


from tests.waits.supervised import Using


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def sampled() -> None:
    """The process's sampler runs, and nothing is missing."""

    def naps() -> None:
        time.sleep(0.06)

    deadline = time.monotonic() + LIMIT_SECONDS
    with make_adapter(tracing=False) as adapter:
        while supervisor.method.method != "process" and time.monotonic() < deadline:
            make_driver(adapter, naps).execute(["naps"])
    if supervisor.method != Method(method="process"):
        pytest.skip(f"states are not sampled here: {supervisor.method.reason}")


@pytest.fixture
def using() -> Iterator[Using]:
    yield Using()
    supervisors = Using.supervisors.copy()
    Using.supervisors.clear()
    for each in supervisors:
        each.stop()
    until(lambda: all(each._thread is None for each in supervisors))
