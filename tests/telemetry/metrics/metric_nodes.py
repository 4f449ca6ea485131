"""Nodes for the tests of metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.telemetry.telemetry_helpers import samples

if TYPE_CHECKING:
    from prometheus_client import Metric

import importlib.util
from typing import TYPE_CHECKING

from tests.telemetry.telemetry_helpers import Labels, spend

needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.sdk") is None, reason="exemplars need the extra [otlp]"
)


def burns() -> int:
    spend(0.03, time.thread_time)
    return 1


GAUGES = (
    "hamilton_threadpool_queue_depth",
    "hamilton_threadpool_blocked_nodes",
    "hamilton_threadpool_active_workers",
    "hamilton_threadpool_workers",
    "hamilton_threadpool_max_workers",
    "hamilton_threadpool_oldest_queued_seconds",
    "hamilton_threadpool_oldest_active_seconds",
    "hamilton_stalled_nodes",
    "hamilton_runs_active",
)


def gauges(registry: CollectorRegistry) -> dict[str, dict[Labels, float]]:
    """All gauges of the pool, by what follows `hamilton_` in their names."""
    return {name.removeprefix("hamilton_"): samples(registry, name) for name in GAUGES}


def parsed_openmetrics(text: str) -> list[Metric]:
    """The families, by a parser that refuses what the format does not allow."""
    return list(text_string_to_metric_families(text))
