"""Which nodes wait for a worker, and which node had it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from tests.telemetry.small_nodes import holding
from tests.telemetry.telemetry_helpers import Caller, Gate, make_adapter, make_driver, sample, samples, spend, until

QUEUED = 0.01


def test_the_counters_say_who_waited_and_behind_whom() -> None:
    """Of one worker and two runs: the second run's node waits for as long as the first run's node is held."""
    registry, gate = CollectorRegistry(), Gate()

    held = holding(gate)

    def waits() -> int:
        return 2

    with make_adapter(registry=registry, max_workers=1, run_name="etl") as adapter:
        first = Caller(lambda: make_driver(adapter, held).execute(["held"]))
        gate.wait_for()
        second = Caller(lambda: make_driver(adapter, waits).execute(["waits"]))
        until(lambda: adapter.snapshot().queue_depth == 1)
        spend(QUEUED)
        gate.open()
        assert (first.outcome(), second.outcome()) == ({"held": 1}, {"waits": 2})
        until(lambda: len(samples(registry, "hamilton_run_critical_path_seconds_total")) > 0)
    by_node = samples(registry, "hamilton_node_queue_seconds_total")
    assert by_node["waits", "default"] >= QUEUED
    assert sum(by_node.values()) == pytest.approx(sample(registry, "hamilton_threadpool_queue_wait_seconds_sum"))
    behind = samples(registry, "hamilton_run_queued_behind_seconds_total")
    assert behind["held", "default", "etl"] >= QUEUED
    assert behind["waits", "default", "etl"] == 0.0  # there at 0, so that its first wait is a rise
