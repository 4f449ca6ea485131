"""Metrics, as a scrape shows them: section 3 of the contract."""

from __future__ import annotations

import functools
import gc
import importlib.util
import re
import shutil
import subprocess
import threading
import time
import urllib.request
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest, start_http_server
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Between,
    Caller,
    Gate,
    Labels,
    Traces,
    buckets,
    context_of,
    every_metric_has_a_sample,
    make_adapter,
    make_driver,
    sample,
    samples,
    spend,
    threads_switched_often,
    times,
    until,
)
from traced_threadpool import FutureAdapter, Metrics
from traced_threadpool.model.states import STATES
from traced_threadpool.recording.critical_path import critical_seconds

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Exemplar

needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.sdk") is None, reason="exemplars need the extra [otlp]"
)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def adapter(registry: CollectorRegistry) -> Iterator[FutureAdapter]:
    with FutureAdapter(max_workers=2, tracing=False, registry=registry) as adapter:
        yield adapter


@pytest.fixture
def one_worker(registry: CollectorRegistry) -> Iterator[FutureAdapter]:
    with FutureAdapter(max_workers=1, tracing=False, registry=registry) as adapter:
        yield adapter


def submit(adapter: FutureAdapter, function: Any, **arguments: Any) -> Future[Any]:
    future: Future[Any] = adapter.do_remote_execute(execute_lifecycle_for_node=function, node=None, **arguments)
    return future


def load() -> int:
    return 1


def left(load: int) -> int:
    return load + 1


def right(load: int) -> int:
    return load + 2


def joined(left: int, right: int) -> int:
    return left + right


def fails() -> int:
    raise ValueError("a message")


def after(fails: int) -> int:
    return fails


def far(after: int) -> int:
    return after


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
    "hamilton_runs_active",
)


def gauges(registry: CollectorRegistry) -> dict[str, dict[Labels, float]]:
    """All gauges of the pool, by what follows `hamilton_` in their names."""
    return {name.removeprefix("hamilton_"): samples(registry, name) for name in GAUGES}


# The critical path


def test_the_critical_path_by_node_adds_up_to_the_runs(registry: CollectorRegistry) -> None:
    """As the records of the same runs have it; a wait for the only worker is `_queue`, of whichever node."""
    with FutureAdapter(max_workers=1, name="one", tracing=False, registry=registry, record=True) as adapter:
        driver = make_driver(adapter, load, left, right, joined)
        for _ in range(3):
            driver.execute(["joined"])
    sums: dict[Labels, float] = {}
    for run in adapter.recorded_runs:
        for name, seconds in critical_seconds(run).items():
            labels = (name, "one", "hamilton.run")
            sums[labels] = sums.get(labels, 0) + seconds
    found = samples(registry, "hamilton_run_critical_path_seconds_total")
    assert found == pytest.approx(sums)
    assert {node for node, _, _ in found} >= {"load", "joined", "_queue"}
    assert sum(found.values()) == pytest.approx(sum(samples(registry, "hamilton_run_duration_seconds_sum").values()))


# Counting


def test_nodes_are_counted_by_outcome(registry: CollectorRegistry) -> None:
    """Every node of every run, once, under how it ended: also those that never ran."""
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    def pending(held: int) -> int:
        return held

    with make_adapter(registry=registry, tracing=False, max_workers=1, name="etl") as adapter:
        good = make_driver(adapter, load, left, right, joined)
        for _ in range(3):
            good.execute(["joined"])
        for _ in range(2):
            with pytest.raises(ValueError, match="a message"):
                make_driver(adapter, fails, after, far).execute(["far"])
        outputs = make_driver(adapter, held, pending).raw_execute(["pending"])
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
    make_driver(adapter, load, held).raw_execute(["held"])
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
    assert samples(registry, "hamilton_threadpool_queue_wait_seconds_count") == {("default",): 1.0}
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


# Runs


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

    def held() -> int:
        gate()
        return 1

    def pending(held: int) -> int:
        return held

    started = time.monotonic()
    adapter = make_adapter(registry=registry, tracing=False, max_workers=1, run_name="nightly")
    good, bad = make_driver(adapter, burns), make_driver(adapter, fails)
    good.execute(["burns"])
    good.execute(["burns"])
    with pytest.raises(ValueError, match="a message"):
        bad.execute(["fails"])
    make_driver(adapter, held, pending).raw_execute(["pending"])
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


# Gauges


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
    outputs = make_driver(adapter, first, second, queued, blocked, blocked_too).raw_execute(names)
    gate.wait_for(2)
    all_there = time.monotonic()
    spend(0.01)
    waited = time.monotonic() - all_there
    shown = gauges(registry)
    age = Between(waited, time.monotonic() - started)
    assert shown == {
        "threadpool_queue_depth": {("default",): 1.0},
        "threadpool_blocked_nodes": {("default",): 2.0},
        "threadpool_active_workers": {("default",): 2.0},
        "threadpool_workers": {("default",): 2.0},
        "threadpool_max_workers": {("default",): 2.0},
        "threadpool_oldest_queued_seconds": {("default",): age},
        "threadpool_oldest_active_seconds": {("default",): age},
        "runs_active": {("default", "hamilton.run"): 1.0},
    }
    gate.open()
    assert [outputs[name].result(timeout=LIMIT_SECONDS) for name in names] == [1, 1, 1, 1]


def test_gauges_of_an_idle_pool_are_zero(registry: CollectorRegistry, adapter: FutureAdapter) -> None:
    """Ages too: before the first node, and when all is done. Only the threads stay."""
    idle = {
        "threadpool_queue_depth": {("default",): 0.0},
        "threadpool_blocked_nodes": {("default",): 0.0},
        "threadpool_active_workers": {("default",): 0.0},
        "threadpool_workers": {("default",): 0.0},
        "threadpool_max_workers": {("default",): 2.0},
        "threadpool_oldest_queued_seconds": {("default",): 0.0},
        "threadpool_oldest_active_seconds": {("default",): 0.0},
        "runs_active": {("default", "hamilton.run"): 0.0},
    }
    assert gauges(registry) == idle
    make_driver(adapter, load, left).execute(["left"])
    until(lambda: adapter.snapshot().active_workers == 0)
    threads = gauges(registry)["threadpool_workers"]
    assert threads["default",] in (1.0, 2.0)
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
    assert shown[0]["threadpool_active_workers"] == {("default",): 1.0}
    assert shown[0]["threadpool_workers"] == {("default",): 1.0}
    assert shown[0]["runs_active"] == {("default", "hamilton.run"): 2.0}


def test_closed_adapter_is_no_longer_shown(registry: CollectorRegistry) -> None:
    """It has no pool to look at; what it has counted stays."""
    adapter = make_adapter(registry=registry, tracing=False)
    make_driver(adapter, load).execute(["load"])
    adapter.close()
    assert gauges(registry) == {name.removeprefix("hamilton_"): {} for name in GAUGES}
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}


# Several adapters


def test_adapters_of_two_names_are_told_apart(registry: CollectorRegistry) -> None:
    """Each has its own gauges and counters under its own name."""
    with (
        make_adapter(registry=registry, tracing=False, max_workers=1, name="one") as one,
        make_adapter(registry=registry, tracing=False, max_workers=3, name="two") as two,
    ):
        make_driver(one, load).execute(["load"])
        make_driver(two, load, left).execute(["left"])
        assert samples(registry, "hamilton_threadpool_max_workers") == {("one",): 1.0, ("two",): 3.0}
    assert samples(registry, "hamilton_nodes_total") == {
        ("load", "success", "one"): 1.0,
        ("load", "success", "two"): 1.0,
        ("left", "success", "two"): 1.0,
    }


def test_adapters_of_one_name_add_up(registry: CollectorRegistry) -> None:
    """Two of one name in one registry are shown as one pool; of their ages the oldest counts."""
    old, young = Gate(), Gate()
    with (
        make_adapter(registry=registry, tracing=False, max_workers=1) as one,
        make_adapter(registry=registry, tracing=False, max_workers=3) as two,
    ):
        started = time.monotonic()
        submit(one, old)
        old.wait_for()
        submit(one, load)
        spend(0.1)
        submit(two, young)
        young.wait_for()
        spend(0.1)
        shown = gauges(registry)
        expected = Between(0.2, time.monotonic() - started)
        assert shown == {
            "threadpool_queue_depth": {("default",): 1.0},
            "threadpool_blocked_nodes": {("default",): 0.0},
            "threadpool_active_workers": {("default",): 2.0},
            "threadpool_workers": {("default",): 2.0},
            "threadpool_max_workers": {("default",): 4.0},
            "threadpool_oldest_queued_seconds": {("default",): expected},
            "threadpool_oldest_active_seconds": {("default",): expected},
            "runs_active": {("default", "hamilton.run"): 0.0},
        }
        old.open()
        young.open()
    assert samples(registry, "hamilton_nodes_total") == {
        ("Gate", "success", "default"): 2.0,
        ("load", "success", "default"): 1.0,
    }


def test_runs_of_one_pool_name_are_told_apart_by_their_name(registry: CollectorRegistry) -> None:
    """Adapters that share `name` and differ in `run_name`: pools add up, runs do not."""
    with (
        make_adapter(registry=registry, tracing=False, run_name="daily") as daily,
        make_adapter(registry=registry, tracing=False, run_name="hourly") as hourly,
    ):
        make_driver(daily, load).execute(["load"])
        make_driver(hourly, load).execute(["load"])
        assert set(samples(registry, "hamilton_runs_active")) == {("default", "daily"), ("default", "hourly")}
    assert samples(registry, "hamilton_run_duration_seconds_count") == {
        (outcome, "default", run): float(outcome == "success")
        for outcome in ("success", "error", "cancelled")
        for run in ("daily", "hourly")
    }


def test_dropped_adapter_leaves_its_counts(registry: CollectorRegistry) -> None:
    """The registry does not keep it alive: its gauges go with it, its counters stay, and a successor counts on."""
    adapter = make_adapter(registry=registry, tracing=False)
    make_driver(adapter, load).execute(["load"])
    gone = weakref.ref(adapter)
    del adapter
    gc.collect()
    assert gone() is None
    assert gauges(registry) == {name.removeprefix("hamilton_"): {} for name in GAUGES}
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}
    with make_adapter(registry=registry, tracing=False) as successor:
        make_driver(successor, load).execute(["load"])
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 2.0}


def test_registry_can_be_dropped() -> None:
    """An application's own registry is freed with the last adapter that counts into it."""
    registry: CollectorRegistry | None = CollectorRegistry()
    gone = weakref.ref(registry)
    with make_adapter(registry=registry, tracing=False) as adapter:
        make_driver(adapter, load).execute(["load"])
    del adapter, registry
    gc.collect()
    assert gone() is None


def test_scrapes_while_adapters_come_and_go(registry: CollectorRegistry) -> None:
    """Threads that make, use and drop adapters, while others scrape: no scrape fails, and no count is lost."""
    working = threading.Event()
    working.set()

    def come_and_go(number: int) -> int:
        for turn in range(10):
            adapter = make_adapter(registry=registry, tracing=False, max_workers=2, name=f"pool-{turn % 3}")
            make_driver(adapter, load, left).execute(["left"])
            if number % 2:
                adapter.close()
        return number

    def scrape() -> int:
        count = 0
        while working.is_set():
            generate_latest(registry)
            count += 1
        return count

    scrapers = [Caller(scrape), Caller(scrape)]
    workers = [Caller(functools.partial(come_and_go, number)) for number in range(3)]
    assert [worker.outcome() for worker in workers] == [0, 1, 2]
    working.clear()
    assert all(scraper.outcome() > 0 for scraper in scrapers)
    until(lambda: sum(samples(registry, "hamilton_nodes_total").values()) == 60.0)
    assert sum(samples(registry, "hamilton_run_duration_seconds_count").values()) == 30.0


# Labels


@pytest.mark.parametrize(
    ("options", "pool"),
    [({}, "default"), ({"thread_name_prefix": "etl"}, "etl"), ({"thread_name_prefix": "etl", "name": "shop"}, "shop")],
    ids=["neither", "prefix", "name"],
)
def test_pool_is_called_by_name_or_prefix(registry: CollectorRegistry, options: dict[str, Any], pool: str) -> None:
    """`name=`, else `thread_name_prefix`, else `default`."""
    with make_adapter(registry=registry, tracing=False, **options):
        assert set(samples(registry, "hamilton_threadpool_workers")) == {(pool,)}


def test_quotes_and_backslashes_in_names_are_escaped(registry: CollectorRegistry) -> None:
    """Any printable name is a label value that comes back as it was."""
    name = 'a "b" \\ c {d="e"} ünïcode'
    with make_adapter(registry=registry, tracing=False, name=name, run_name=name) as adapter:
        make_driver(adapter, load).execute(["load"])
        until(lambda: adapter.snapshot().active_runs == 0)
        assert samples(registry, "hamilton_runs_active") == {(name, name): 0.0}
    assert r'pool="a \"b\" \\ c {d=\"e\"} ünïcode"' in generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("bad", "error"),
    [("", ValueError), ("  ", ValueError), ("two\nlines", ValueError), ("nul\0", ValueError), (7, TypeError)],
    ids=repr,
)
@pytest.mark.parametrize("option", ["name", "run_name"])
def test_name_that_is_no_label_value_is_refused(option: str, bad: Any, error: type[Exception]) -> None:
    """The message says which option, what was found and what to write instead."""
    with pytest.raises(error, match=rf"^{option} must be .*not {re.escape(repr(bad))}"):
        make_adapter(**{option: bad})


def test_prefix_that_is_no_label_value_is_made_one(registry: CollectorRegistry) -> None:
    """The documented argument takes any string, as Hamilton's own adapter does."""
    with make_adapter(registry=registry, tracing=False, thread_name_prefix="two\nlines"):
        assert set(samples(registry, "hamilton_threadpool_workers")) == {("two_lines",)}


def test_nodes_beyond_the_cap_are_counted_as_other(registry: CollectorRegistry) -> None:
    """The first two nodes have a label value of their own, in all their outcomes; the rest share one, none is lost."""

    def flickers(fail: bool) -> int:
        if fail:
            raise ValueError("a message")
        return 1

    with make_adapter(registry=registry, tracing=False, max_workers=1, metrics=Metrics(max_node_labels=2)) as adapter:
        dr = make_driver(adapter, load, flickers, left, right, joined)
        for name in ("load", "flickers", "joined"):
            dr.execute([name], inputs={"fail": False})
        with pytest.raises(ValueError, match="a message"):
            dr.execute(["flickers"], inputs={"fail": True})
    assert samples(registry, "hamilton_nodes_total") == {
        ("load", "success", "default"): 2.0,
        ("flickers", "success", "default"): 1.0,
        ("flickers", "error", "default"): 1.0,
        ("_other", "success", "default"): 3.0,
    }
    assert set(samples(registry, "hamilton_node_duration_seconds_count")) == {
        ("load", "success", "default"),
        ("flickers", "success", "default"),
        ("flickers", "error", "default"),
        ("_other", "success", "default"),
    }
    assert {node for node, _, _ in samples(registry, "hamilton_node_time_seconds_total")} == {
        "load",
        "flickers",
        "_other",
    }


def test_node_label_can_be_switched_off(registry: CollectorRegistry) -> None:
    """`max_node_labels=0`: all nodes are counted under one value."""
    with make_adapter(registry=registry, tracing=False, metrics=Metrics(max_node_labels=0)) as adapter:
        make_driver(adapter, load, left).execute(["left"])
    assert samples(registry, "hamilton_nodes_total") == {("_other", "success", "default"): 2.0}


def test_cap_is_a_thousand_by_default(registry: CollectorRegistry) -> None:
    """Of 1,001 nodes one shares `_other`."""
    with make_adapter(registry=registry, tracing=False) as adapter:
        for number in range(1_001):

            def node() -> int:
                return 1

            node.__name__ = f"n{number}"
            submit(adapter, node)
    counted = samples(registry, "hamilton_nodes_total")
    assert len(counted) == 1_001
    assert counted["_other", "success", "default"] == 1.0


@pytest.mark.parametrize(("cap", "error"), [(-1, ValueError), (1.5, TypeError), ("many", TypeError), (True, TypeError)])
def test_cap_that_is_no_number_is_refused(cap: Any, error: type[Exception]) -> None:
    """A whole number, 0 or more."""
    with pytest.raises(error, match=r"^max_node_labels must be"):
        Metrics(max_node_labels=cap)


@needs_sdk
def test_no_id_and_no_value_is_a_label(registry: CollectorRegistry) -> None:
    """A scrape's labels are names and outcomes: no run's or trace's id, no input, no result, no message."""

    def shout(word: str) -> str:
        return word.upper()

    def complain(shout: str) -> str:
        raise ValueError(shout)

    traces = Traces()
    with make_adapter(traces, registry=registry) as adapter, pytest.raises(ValueError, match="SECRET"):
        make_driver(adapter, shout, complain).execute(["complain"], inputs={"word": "secret"})
    text = generate_latest(registry).decode()
    run = traces.only("hamilton.run")
    found = [
        word
        for word in (
            "secret",
            "SECRET",
            str(traces.attributes("hamilton.run")["hamilton.run.id"]),
            f"{context_of(run).trace_id:032x}",
            f"{context_of(run).span_id:016x}",
        )
        if word in text
    ]
    assert found == []
    assert 'node="complain"' in text
    assert set(re.findall(r'(\w+)="', text)) == {
        *("pool", "node", "outcome", "run", "state", "le"),
        *("method", "reason", "stage"),
    }


# Buckets


def test_buckets_can_be_set(registry: CollectorRegistry) -> None:
    """So that the threshold of an objective is a bound: each of the three histograms has its own."""
    with make_adapter(
        registry=registry,
        tracing=False,
        metrics=Metrics(node_duration_buckets=[0.3, 3], queue_wait_buckets=(0.00001, 0.75), run_duration_buckets=[90]),
    ) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert {
        name: [list(each) for each in buckets(registry, name).values()]
        for name in (
            "hamilton_node_duration_seconds",
            "hamilton_threadpool_queue_wait_seconds",
            "hamilton_run_duration_seconds",
        )
    } == {
        "hamilton_node_duration_seconds": [["0.3", "3.0", "+Inf"]],
        "hamilton_threadpool_queue_wait_seconds": [["1e-05", "0.75", "+Inf"]],
        "hamilton_run_duration_seconds": [["90.0", "+Inf"]],
    }


def test_later_adapter_takes_the_buckets_that_are_there(registry: CollectorRegistry) -> None:
    """One that asks for none, or for the same, is content; one that asks for others is told of it."""
    make_adapter(registry=registry, metrics=Metrics(node_duration_buckets=[0.3, 3])).close()
    make_adapter(registry=registry, metrics=Metrics(node_duration_buckets=[0.3, 3.0])).close()
    make_adapter(registry=registry).close()
    with pytest.raises(ValueError, match=r"hamilton_node_duration_seconds .*\(0\.3, 3\.0\).*\(1\.0,\)"):
        make_adapter(registry=registry, metrics=Metrics(node_duration_buckets=[1]))


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ([], ValueError),
        ([0.0, 1.0], ValueError),
        ([-1.0], ValueError),
        ([2.0, 1.0], ValueError),
        ([1.0, 1.0], ValueError),
        ([1.0, float("inf")], ValueError),
        ([float("nan")], ValueError),
        (["soon"], TypeError),
        (3, TypeError),
        ("123", TypeError),
    ],
    ids=repr,
)
@pytest.mark.parametrize("option", ["node_duration_buckets", "queue_wait_buckets", "run_duration_buckets"])
def test_buckets_that_are_none_are_refused(option: str, bounds: Any, error: type[Exception]) -> None:
    """Positive, finite and rising numbers; the message names the metric."""
    metric = {
        "node_duration_buckets": "hamilton_node_duration_seconds",
        "queue_wait_buckets": "hamilton_threadpool_queue_wait_seconds",
        "run_duration_buckets": "hamilton_run_duration_seconds",
    }[option]
    with pytest.raises(error, match=f"bounds for {metric} must be"):
        Metrics(**{option: bounds})


# Exemplars


def openmetrics_text(registry: CollectorRegistry) -> str:
    text: str = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    return text


def parsed_openmetrics(text: str) -> list[Metric]:
    """The families, by a parser that refuses what the format does not allow."""
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def exemplars(registry: CollectorRegistry) -> dict[str, Exemplar]:
    """Those of an OpenMetrics scrape, by the metric and its node or run."""
    return {
        " ".join(filter(None, (each.name, each.labels.get("node"), each.labels.get("run")))): each.exemplar
        for family in parsed_openmetrics(openmetrics_text(registry))
        for each in family.samples
        if each.exemplar is not None
    }


@needs_sdk
def test_histograms_carry_the_span_as_exemplar(registry: CollectorRegistry) -> None:
    """The span's ids and the value observed: a node's for its duration and its wait, the run's for the run."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class SmallIds(RandomIdGenerator):
        """Whose zeros in front belong to the id."""

        def generate_trace_id(self) -> int:
            return 0xAB

        def generate_span_id(self) -> int:
            return super().generate_span_id() >> 8

    traces = Traces(id_generator=SmallIds())
    with make_adapter(traces, registry=registry) as adapter:
        make_driver(adapter, load).execute(["load"])
    found = exemplars(registry)
    node, run = traces.only("load"), traces.only("hamilton.run")
    node_ids = {"trace_id": f"{context_of(node).trace_id:032x}", "span_id": f"{context_of(node).span_id:016x}"}
    run_ids = {"trace_id": f"{context_of(run).trace_id:032x}", "span_id": f"{context_of(run).span_id:016x}"}
    assert {name: exemplar.labels for name, exemplar in found.items()} == {
        "hamilton_threadpool_queue_wait_seconds_bucket": node_ids,
        "hamilton_node_duration_seconds_bucket load": node_ids,
        "hamilton_run_duration_seconds_bucket hamilton.run": run_ids,
    }
    values = {name: exemplar.value for name, exemplar in found.items()}
    start_ns, end_ns = times(node)
    assert values["hamilton_node_duration_seconds_bucket load"] == pytest.approx((end_ns - start_ns) / 1e9)
    assert values["hamilton_threadpool_queue_wait_seconds_bucket"] == pytest.approx(
        traces.attributes("load")["hamilton.node.queue.duration"]
    )
    now = time.time()
    assert [float(exemplar.timestamp or 0) for exemplar in found.values()] == [Between(now - LIMIT_SECONDS, now)] * 3


@needs_sdk
def test_exemplars_are_in_the_openmetrics_format_only(registry: CollectorRegistry) -> None:
    """The plain text format has no place for them."""
    traces = Traces()
    with make_adapter(traces, registry=registry) as adapter:
        make_driver(adapter, load).execute(["load"])
    trace_id = f"{context_of(traces.only('load')).trace_id:032x}"
    assert trace_id in openmetrics_text(registry)
    assert trace_id not in generate_latest(registry).decode()


@needs_sdk
@pytest.mark.parametrize("sampler", ["ALWAYS_OFF", "RECORD_ONLY"])
def test_span_that_is_not_sampled_is_no_exemplar(registry: CollectorRegistry, sampler: str) -> None:
    """Nobody could look it up."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, StaticSampler

    traces = Traces(sampler=ALWAYS_OFF if sampler == "ALWAYS_OFF" else StaticSampler(Decision.RECORD_ONLY))
    with make_adapter(traces, registry=registry) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert exemplars(registry) == {}
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}


def test_without_an_sdk_there_is_no_exemplar(registry: CollectorRegistry) -> None:
    """Metrics need no tracing."""
    with make_adapter(registry=registry, tracer_provider=trace.NoOpTracerProvider()) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert exemplars(registry) == {}
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}


# Registries


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


def test_registry_knows_our_names(registry: CollectorRegistry) -> None:
    """An application that registers one of them afterwards is refused, where its name first came up."""
    make_adapter(registry=registry).close()
    with pytest.raises(ValueError, match="hamilton_nodes"):
        Counter("hamilton_nodes", "The application's own", registry=registry)


def test_thing_that_is_no_registry_is_refused() -> None:
    """The message says what to write instead."""
    with pytest.raises(TypeError, match=r"CollectorRegistry, not 'here'; for no metrics at all give metrics=False"):
        make_adapter(registry="here")


# A live scrape

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
