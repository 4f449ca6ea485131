"""What is counted of nodes and runs, and where their time went."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.dags import start, submit
from tests.telemetry.metrics.metric_nodes import burns
from tests.telemetry.small_nodes import after, fails, far, holding, joined, left, load, pending, right
from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Between,
    Caller,
    Gate,
    Labels,
    buckets,
    make_adapter,
    make_driver,
    sample,
    samples,
    spend,
    threads_switched_often,
    until,
)
from traced_threadpool import FutureAdapter, Metrics
from traced_threadpool.model.states import STATES
from traced_threadpool.recording.critical_path import critical_ns


def test_the_critical_path_by_node_adds_up_to_the_runs(registry: CollectorRegistry) -> None:
    """As the records of the same runs have it; a wait for the only worker is `_queue`, of whichever node."""
    with FutureAdapter(max_workers=1, name="one", tracing=False, registry=registry, record=True) as adapter:
        driver = make_driver(adapter, load, left, right, joined)
        for _ in range(3):
            driver.execute(["joined"])
    sums: dict[Labels, float] = {}
    for run in adapter.recorded_runs:
        for name, total_ns in critical_ns(run).items():
            labels = (name, "one", "hamilton.run")
            sums[labels] = sums.get(labels, 0) + total_ns / 1e9
    found = samples(registry, "hamilton_run_critical_path_seconds_total")
    assert found == pytest.approx(sums)
    assert {node for node, _, _ in found} >= {"load", "joined", "_queue"}
    assert sum(found.values()) == pytest.approx(sum(samples(registry, "hamilton_run_duration_seconds_sum").values()))


def test_nodes_are_counted_by_outcome(registry: CollectorRegistry) -> None:
    """Every node of every run, once, under how it ended: also those that never ran."""
    gate = Gate()

    held = holding(gate)

    with make_adapter(registry=registry, tracing=False, max_workers=1, name="etl") as adapter:
        good = make_driver(adapter, load, left, right, joined)
        for _ in range(3):
            good.execute(["joined"])
        for _ in range(2):
            with pytest.raises(ValueError, match="a message"):
                make_driver(adapter, fails, after, far).execute(["far"])
        outputs = start(make_driver(adapter, held, pending), ["pending"])
        gate.wait_for()
        assert outputs["pending"].cancel()
        gate.open()
    assert samples(registry, "hamilton_nodes_total") == {
        ("load", "success", "etl"): 3.0,
        ("left", "success", "etl"): 3.0,
        ("right", "success", "etl"): 3.0,
        ("joined", "success", "etl"): 3.0,
        ("fails", "error", "etl"): 2.0,
        ("after", "upstream_error", "etl"): 2.0,
        ("far", "upstream_error", "etl"): 2.0,
        ("held", "success", "etl"): 1.0,
        ("pending", "cancelled", "etl"): 1.0,
    }


def test_what_has_not_happened_yet_is_there_with_zero(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """A run's outcomes from the adapter on, a node's from its first end on: a rate sees the first failure."""
    gate = Gate()

    def held(load: int) -> int:
        gate()
        return load

    page = generate_latest(registry).decode()
    for outcome in ("success", "error"):
        labels = f'outcome="{outcome}",pool="default",run="hamilton.run"'
        assert f"hamilton_run_duration_seconds_count{{{labels}}} 0.0" in page
    start(make_driver(adapter, load, held), ["held"])
    gate.wait_for()
    page = generate_latest(registry).decode()
    for outcome, count in {"success": 1.0, "error": 0.0, "upstream_error": 0.0, "cancelled": 0.0}.items():
        assert f'hamilton_nodes_total{{node="load",outcome="{outcome}",pool="default"}} {count}' in page
    gate.open()


def test_nodes_that_never_ran_are_in_no_histogram(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """They have no duration, waited for no worker, and spent no time."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after, far).execute(["far"])
    adapter.close()
    assert samples(registry, "hamilton_node_duration_seconds_count") == {("fails", "error", "default"): 1.0}
    assert samples(registry, "hamilton_threadpool_queue_wait_seconds_count") == {("threads", "default"): 1.0}
    times = samples(registry, "hamilton_node_time_seconds_total")
    assert {node for (node, _, _), seconds in times.items() if seconds} == {"fails"}


def test_every_state_is_there_from_the_first_end(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """At 0, so that the first wait for a lock is a rise; also of a node that never ran."""
    with pytest.raises(ValueError, match="a message"):
        make_driver(adapter, fails, after, far).execute(["far"])
    adapter.close()
    times = samples(registry, "hamilton_node_time_seconds_total")
    assert {labels[0]: sorted(state for node, _, state in times if node == labels[0]) for labels in times} == {
        node: sorted(STATES) for node in ("fails", "after", "far")
    }
    assert times["far", "default", "lock"] == 0.0


def test_nodes_without_a_run_are_counted_without_one(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """`do_remote_execute` called directly is a node, and no run."""
    assert submit(adapter, load).result() == 1
    adapter.close()
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}
    assert set(samples(registry, "hamilton_run_duration_seconds_count").values()) == {0.0}


def test_node_duration_is_what_the_clock_shows(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """From start to end of the function: not shorter than what it does, not longer than the call, wait left out."""
    gate = Gate()
    submitting = time.monotonic()
    inside = submit(adapter, gate)
    gate.wait_for()
    entered = time.monotonic()
    spend(0.02)
    opened = time.monotonic()
    gate.open()
    inside.result(timeout=LIMIT_SECONDS)
    adapter.close()
    assert samples(registry, "hamilton_node_duration_seconds_sum") == {
        ("Gate", "success", "default"): Between(opened - entered, time.monotonic() - submitting)
    }
    assert samples(registry, "hamilton_node_duration_seconds_count") == {("Gate", "success", "default"): 1.0}


def test_buckets_are_cumulative_and_agree_with_the_sum(registry: CollectorRegistry) -> None:
    """One observation at or below the first bound and one between the two, as their durations say."""

    def short() -> int:
        return 1

    def long() -> int:
        spend(0.6)
        return 1

    bounds = (0.5, 3600.0)
    with make_adapter(registry=registry, tracing=False, metrics=Metrics(node_duration_buckets=bounds)) as adapter:
        make_driver(adapter, short, long).execute(["short", "long"])
    assert buckets(registry, "hamilton_node_duration_seconds") == {
        ("short", "success", "default"): {"0.5": 1.0, "3600.0": 1.0, "+Inf": 1.0},
        ("long", "success", "default"): {"0.5": 0.0, "3600.0": 1.0, "+Inf": 1.0},
    }


def test_queue_wait_is_the_wait_for_a_worker(registry: CollectorRegistry, one_worker: FutureAdapter) -> None:
    """One worker, held: the sum is the second node's wait, within the test's own readings, and not the first's run."""
    gate = Gate()
    started = time.monotonic()
    submit(one_worker, gate)
    gate.wait_for()
    queued = submit(one_worker, load)
    queued_at = time.monotonic()
    spend(0.02)
    opened_at = time.monotonic()
    gate.open()
    queued.result(timeout=LIMIT_SECONDS)
    one_worker.close()
    assert sample(registry, "hamilton_threadpool_queue_wait_seconds_count") == 2.0
    assert sample(registry, "hamilton_threadpool_queue_wait_seconds_sum") == Between(
        opened_at - queued_at, time.monotonic() - started
    )


def test_queue_wait_leaves_out_the_wait_for_inputs(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """With a worker free, a node that waits for its input has waited in no queue."""
    gate = Gate()
    started = time.monotonic()
    held = submit(adapter, gate)
    gate.wait_for()
    waiting = submit(adapter, lambda upstream: upstream, upstream=held)
    waiting_at = time.monotonic()
    spend(0.2)
    opened_at = time.monotonic()
    gate.open()
    waiting.result(timeout=LIMIT_SECONDS)
    ended = time.monotonic()
    adapter.close()
    assert sample(registry, "hamilton_threadpool_queue_wait_seconds_count") == 2.0
    # One was in the queue before the other waited, and that one after the gate was opened, however long it took.
    in_queue = (waiting_at - started) + (ended - opened_at)
    assert sample(registry, "hamilton_threadpool_queue_wait_seconds_sum") < in_queue


def test_node_submitted_by_a_callback_of_its_input_has_waited_no_negative_time(
    registry: CollectorRegistry, adapter: FutureAdapter
) -> None:
    """It was submitted after its input's end: its wait begins with its submission, and not before."""
    gate, called = Gate(), threading.Event()
    submitted_at: list[float] = []

    def follow(held: Future[Any]) -> None:
        spend(0.1)  # the input's function has ended, and its future is resolved
        submitted_at.append(time.monotonic())
        submit(adapter, lambda upstream: upstream, upstream=held)
        called.set()

    started = time.monotonic()
    held = submit(adapter, gate)
    held.add_done_callback(follow)
    gate.wait_for()
    entered_at = time.monotonic()
    gate.open()
    assert called.wait(LIMIT_SECONDS)
    adapter.close()
    # One was in the queue before it came to the gate, and the other after it was submitted, however long it took.
    in_queue = (entered_at - started) + (time.monotonic() - submitted_at[0])
    assert 0 <= sample(registry, "hamilton_threadpool_queue_wait_seconds_sum") < in_queue


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def test_states_sum_to_the_duration_exactly(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """`cpu` and `other` of a node add up to its durations to the nanosecond, of all outcomes together."""
    calls: list[int] = []

    def flickers() -> int:
        calls.append(1)
        spend(0.005, time.thread_time)
        if len(calls) % 2:
            raise ValueError("a message")
        return 1

    dr = make_driver(adapter, flickers, burns, load)
    for _ in range(3):
        with pytest.raises(ValueError, match="a message"):
            dr.execute(["flickers", "burns", "load"])
        dr.execute(["flickers", "burns", "load"])
    adapter.close()
    states: dict[str, int] = {}
    for (node, _, _), seconds in samples(registry, "hamilton_node_time_seconds_total").items():
        states[node] = states.get(node, 0) + _nanoseconds(seconds)
    durations: dict[str, int] = {}
    for (node, _, _), seconds in samples(registry, "hamilton_node_duration_seconds_sum").items():
        durations[node] = durations.get(node, 0) + _nanoseconds(seconds)
    assert states == durations
    assert set(states) == {"flickers", "burns", "load"}


def test_cpu_time_is_the_threads_own(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """A node that computes has its time under `cpu`, one that waits elsewhere, and no state is a guess."""
    gate = Gate()
    waiting = submit(adapter, gate)
    gate.wait_for()
    submit(adapter, burns).result(timeout=LIMIT_SECONDS)
    spend(0.1)
    gate.open()
    waiting.result(timeout=LIMIT_SECONDS)
    adapter.close()
    states = samples(registry, "hamilton_node_time_seconds_total")
    assert states["burns", "default", "cpu"] > 0.03
    assert states["Gate", "default", "cpu"] < 0.05
    waited = [states.get(("Gate", "default", state), 0.0) for state in STATES if state != "cpu"]
    assert sum(waited) > 0.05


def test_run_outcomes_are_there_before_the_first_run(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """At 0, so that the first failure is a rise, which a series that begins with 1 is not."""
    assert samples(registry, "hamilton_run_duration_seconds_count") == {
        (outcome, "default", "hamilton.run"): 0.0 for outcome in ("success", "error", "cancelled")
    }


def test_run_is_counted_when_execute_returns(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """A program may scrape or push right after `execute`, also when other threads keep its own from running."""
    dr = make_driver(adapter, load, left)
    unfinished = 0
    with threads_switched_often():
        for _ in range(200):
            dr.execute(["left"])
            unfinished += adapter.snapshot().active_runs  # a scrape would take so long that it is over
            until(lambda: adapter.snapshot().active_runs == 0)
    assert unfinished == 0
    assert samples(registry, "hamilton_run_duration_seconds_count") == {
        ("success", "default", "hamilton.run"): 200.0,
        ("error", "default", "hamilton.run"): 0.0,
        ("cancelled", "default", "hamilton.run"): 0.0,
    }


def test_runs_are_counted_by_outcome(registry: CollectorRegistry) -> None:
    """Whole runs, under their name and how they ended, with their durations within the test's own readings."""
    gate = Gate()

    held = holding(gate)

    started = time.monotonic()
    adapter = make_adapter(registry=registry, tracing=False, max_workers=1, run_name="nightly")
    good, bad = make_driver(adapter, burns), make_driver(adapter, fails)
    good.execute(["burns"])
    good.execute(["burns"])
    with pytest.raises(ValueError, match="a message"):
        bad.execute(["fails"])
    start(make_driver(adapter, held, pending), ["pending"])
    gate.wait_for()
    closing = Caller(functools.partial(adapter.close, cancel_pending=True))
    until(lambda: adapter.snapshot().blocked_nodes == 0)
    gate.open()
    assert closing.outcome() is None
    assert samples(registry, "hamilton_run_duration_seconds_count") == {
        ("success", "default", "nightly"): 2.0,
        ("error", "default", "nightly"): 1.0,
        ("cancelled", "default", "nightly"): 1.0,
    }
    sums = samples(registry, "hamilton_run_duration_seconds_sum")
    assert sums["success", "default", "nightly"] == Between(0.06, time.monotonic() - started)
    assert sum(sums.values()) < time.monotonic() - started


def test_nested_run_is_a_run(registry: CollectorRegistry, one_worker: FutureAdapter) -> None:
    """A run that a node executes on the same adapter is counted like any other."""
    inner = make_driver(one_worker, load)

    def outer() -> int:
        result: dict[str, int] = inner.execute(["load"])
        return result["load"]

    make_driver(one_worker, outer).execute(["outer"])
    one_worker.close()
    assert samples(registry, "hamilton_run_duration_seconds_count") == {
        ("success", "default", "hamilton.run"): 2.0,
        ("error", "default", "hamilton.run"): 0.0,
        ("cancelled", "default", "hamilton.run"): 0.0,
    }


def test_last_success_is_the_time_of_the_last_good_run(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """There is none before the first; a failed run leaves it as it was."""
    good, bad = make_driver(adapter, load), make_driver(adapter, fails)
    with pytest.raises(ValueError, match="a message"):
        bad.execute(["fails"])
    assert samples(registry, "hamilton_run_last_success_timestamp_seconds") == {}
    before = time.time()
    good.execute(["load"])
    until(lambda: adapter.snapshot().active_runs == 0)
    between = time.time()
    with pytest.raises(ValueError, match="a message"):
        bad.execute(["fails"])
    assert samples(registry, "hamilton_run_last_success_timestamp_seconds") == {
        ("default", "hamilton.run"): Between(before, between)
    }
