"""Who held the GIL while nodes waited for it, and the gauge of contention for it in the whole process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import Traces, make_adapter, make_driver, sample, spend
from tests.waits.reported import hogging, needs_sampling, sampling_closely
from traced_threadpool.telemetry import attribute_values


@pytest.mark.measures
@needs_sampling
def test_the_node_that_holds_the_gil_is_named(sampled: None, traces: Traces) -> None:
    """On the run's span, with about the waiting it caused; those who wait are not."""

    def hog() -> int:
        spend(0.4, time.thread_time)
        return 1

    def victim() -> int:
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            time.sleep(0.001)
        return 1

    run = the_one_seen_best(traces, hog, victim)
    holders = gil_holders(run)
    waited = run["hamilton.run.wait.gil.duration"]
    assert next(iter(holders)) == "hog", holders
    assert 0.4 * waited < holders["hog"] < 1.6 * waited, (holders, waited)
    assert holders.get("victim", 0) < 0.5 * holders["hog"], holders


def gil_holders(run: dict[str, Any]) -> dict[str, float]:
    """Seconds by name, the most first."""
    return dict(filter(None, map(attribute_values.gil_holder_of, run.get("hamilton.run.gil.holders", ()))))


def the_one_seen_best(traces: Traces, *functions: Callable[[], int]) -> dict[str, Any]:
    """The attributes of a run of these nodes at once.

    On busy CPUs threads are found to run more often than they do, and so less waiting is seen whose cause is
    known: of several runs it is the one in which most of it was.
    """

    def share(run: dict[str, Any]) -> float:
        return float(sum(gil_holders(run).values()) / run.get("hamilton.run.wait.gil.duration", 1e9))

    runs: list[dict[str, Any]] = []
    with sampling_closely(traces, max_workers=2) as adapter:
        driver = make_driver(adapter, *functions)
        while not runs or (share(runs[-1]) < 0.7 and len(runs) < 6):
            traces.clear()
            driver.execute([function.__name__ for function in functions])
            runs.append(traces.attributes("hamilton.run"))
    return max(runs, key=share)


@pytest.mark.measures
@needs_sampling
def test_a_thread_outside_of_the_pool_that_holds_the_gil_is_named(sampled: None, traces: Traces) -> None:
    """By its name."""

    def victim() -> int:
        spend(0.2, time.thread_time)
        return 1

    with hogging("a hog"):
        run = the_one_seen_best(traces, victim)
    holder, caused = next(iter(gil_holders(run).items()))
    assert holder == "thread:a hog", run
    waited = run["hamilton.run.wait.gil.duration"]
    assert 0.4 * waited < caused < 1.6 * waited, run


@pytest.mark.measures
@needs_sampling
def test_the_wait_for_the_gil_is_counted_for_the_process(sampled: None, registry: CollectorRegistry) -> None:
    """`hamilton_gil_probe_wait_seconds_total` grows while a thread computes, and hardly while all sleep."""

    def naps() -> int:
        time.sleep(0.6)
        return 1

    def growth(driver: Any) -> float:
        before = sample(registry, "hamilton_gil_probe_wait_seconds_total")
        driver.execute(["naps"])
        return sample(registry, "hamilton_gil_probe_wait_seconds_total") - before

    with make_adapter(tracing=False, registry=registry) as adapter:
        driver = make_driver(adapter, naps)
        growth(driver)
        idle = min(growth(driver) for _ in range(2))
        with hogging("a hog"):
            busy = growth(driver)
    assert idle < 0.01
    assert busy > 0.02
    assert busy > 4 * idle
