"""What is seen of a pool at the moment of a scrape."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry

from tests.dags import start, submit
from tests.telemetry.metrics.metric_nodes import GAUGES, gauges
from tests.telemetry.small_nodes import holding, left, load
from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Between,
    Gate,
    Labels,
    make_adapter,
    make_driver,
    sample,
    samples,
    spend,
    until,
)
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Threads


def test_gauges_show_the_pool_at_the_moment_of_the_scrape(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """Two workers held, one node behind them in the queue, and two that wait for inputs."""
    gate = Gate()

    def first() -> int:
        gate()
        return 1

    def second() -> int:
        gate()
        return 1

    def queued() -> int:
        return 1

    def blocked(first: int) -> int:
        return first

    def blocked_too(blocked: int, queued: int) -> int:
        return blocked

    started = time.monotonic()
    names = ["first", "second", "queued", "blocked_too"]
    outputs = start(make_driver(adapter, first, second, queued, blocked, blocked_too), names)
    gate.wait_for(2)
    all_there = time.monotonic()
    spend(0.01)
    waited = time.monotonic() - all_there
    shown = gauges(registry)
    age = Between(waited, time.monotonic() - started)
    assert shown == {
        "threadpool_queue_depth": {("threads", "default"): 1.0},
        "threadpool_blocked_nodes": {("threads", "default"): 2.0},
        "threadpool_active_workers": {("threads", "default"): 2.0},
        "threadpool_workers": {("threads", "default"): 2.0},
        "threadpool_max_workers": {("threads", "default"): 2.0},
        "threadpool_oldest_queued_seconds": {("threads", "default"): age},
        "threadpool_oldest_active_seconds": {("threads", "default"): age},
        "stalled_nodes": {("default",): 0.0},
        "runs_active": {("default", "hamilton.run"): 1.0},
    }
    gate.open()
    assert [outputs[name].result(timeout=LIMIT_SECONDS) for name in names] == [1, 1, 1, 1]


def test_gauges_of_an_idle_pool_are_zero(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """Ages too: before the first node, and when all is done. Only the threads stay."""
    idle = {
        "threadpool_queue_depth": {("threads", "default"): 0.0},
        "threadpool_blocked_nodes": {("threads", "default"): 0.0},
        "threadpool_active_workers": {("threads", "default"): 0.0},
        "threadpool_workers": {("threads", "default"): 0.0},
        "threadpool_max_workers": {("threads", "default"): 2.0},
        "threadpool_oldest_queued_seconds": {("threads", "default"): 0.0},
        "threadpool_oldest_active_seconds": {("threads", "default"): 0.0},
        "stalled_nodes": {("default",): 0.0},
        "runs_active": {("default", "hamilton.run"): 0.0},
    }
    assert gauges(registry) == idle
    make_driver(adapter, load, left).execute(["left"])
    until(lambda: adapter.snapshot().active_workers == 0)
    threads = gauges(registry)["threadpool_workers"]
    assert threads["threads", "default"] in (1.0, 2.0)
    assert gauges(registry) == {**idle, "threadpool_workers": threads}


def test_ages_are_of_the_oldest(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """Of two nodes that run, and of two in the queue, the one that has for longer; it falls when that one ends."""
    gate, later = Gate(), Gate()
    oldest = submit(adapter, gate)
    gate.wait_for()
    spend(0.05)
    later_submitted = time.monotonic()
    submit(adapter, later)
    later.wait_for()
    submit(adapter, load)
    spend(0.02)
    submit(adapter, load)
    queued_age = sample(registry, "hamilton_threadpool_oldest_queued_seconds")
    assert sample(registry, "hamilton_threadpool_oldest_active_seconds") > 0.07
    assert queued_age > 0.02
    gate.open()
    oldest.result(timeout=LIMIT_SECONDS)
    until(lambda: adapter.snapshot().active_workers == 1)
    shown = sample(registry, "hamilton_threadpool_oldest_active_seconds")
    assert shown < time.monotonic() - later_submitted
    assert sample(registry, "hamilton_threadpool_oldest_queued_seconds") == 0.0
    later.open()


def test_worker_that_helps_a_nested_run_is_one_worker(registry: CollectorRegistry, one_worker: FutureAdapter) -> None:
    """A node and the node that it waits for share a worker: never more active ones than there are."""
    shown: list[dict[str, dict[Labels, float]]] = []

    def innermost() -> int:
        shown.append(gauges(registry))
        return 1

    inner = make_driver(one_worker, innermost)

    def outer() -> int:
        result: dict[str, int] = inner.execute(["innermost"])
        return result["innermost"]

    make_driver(one_worker, outer).execute(["outer"])
    assert shown[0]["threadpool_active_workers"] == {("threads", "default"): 1.0}
    assert shown[0]["threadpool_workers"] == {("threads", "default"): 1.0}
    assert shown[0]["runs_active"] == {("default", "hamilton.run"): 2.0}


def test_closed_adapter_is_no_longer_shown(registry: CollectorRegistry) -> None:
    """It has no pool to look at; what it has counted stays."""
    adapter = make_adapter(registry=registry, tracing=False)
    make_driver(adapter, load).execute(["load"])
    adapter.close()
    assert gauges(registry) == {name.removeprefix("hamilton_"): {} for name in GAUGES}
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}


def test_gauges_and_queue_waits_by_backend(registry: CollectorRegistry) -> None:
    """Each has its own limit, and the nodes that are asked to run there."""
    backends = {"db": Threads(1)}
    options: dict[str, Any] = {"backends": backends, "run_on": {"held": "db", "queued": "db"}}
    with make_adapter(registry=registry, tracing=False, max_workers=4, **options) as adapter:
        gate = Gate()

        held = holding(gate)

        def queued() -> int:
            return 1

        def here() -> int:
            return 1

        runs = make_driver(adapter, held, queued, here)
        outputs = start(runs, ["held", "queued", "here"])
        gate.wait_for()
        outputs["here"].result(timeout=LIMIT_SECONDS)
        until(lambda: samples(registry, "hamilton_threadpool_active_workers")["threads", "default"] == 0)
        found = gauges(registry)
        gate.open()
        outputs["queued"].result(timeout=LIMIT_SECONDS)
    shown = {name: (found[f"threadpool_{name}"]["db", "default"]) for name in ("active_workers", "max_workers")}
    assert shown == {"active_workers": 1.0, "max_workers": 1.0}
    assert found["threadpool_queue_depth"] == {("db", "default"): 1.0, ("threads", "default"): 0.0}
    assert found["threadpool_max_workers"]["threads", "default"] == 4.0
    assert samples(registry, "hamilton_threadpool_queue_wait_seconds_count") == {
        ("db", "default"): 2.0,
        ("threads", "default"): 1.0,
    }
