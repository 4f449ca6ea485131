"""Where a node's time went, as spans and metrics tell it: the states add up, and the right one stands out.

How right they are is for `benchmarks/truth`; the bounds here are wide enough for a busy machine.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import Caller, Traces, make_adapter, make_driver, samples, spend
from tests.waits.reported import (
    counted_durations_ns,
    counted_ns,
    duration_ns,
    needs_sampling,
    sampling_closely,
    shares,
    state_ns,
)


def test_the_states_of_each_node_add_up_to_its_duration(
    sampled: None, traces: Traces, registry: CollectorRegistry
) -> None:
    """To the nanosecond, on spans and in counters, whatever nodes do; and a run's are the sum of its nodes'."""
    lock = threading.Lock()

    def nothing() -> int:
        return 1

    def computes(nothing: int) -> int:
        spend(0.05)
        return 1

    def computes_too(nothing: int) -> int:
        spend(0.05)
        return 1

    def naps(nothing: int) -> int:
        time.sleep(0.05)
        return 1

    def holds(nothing: int) -> int:
        with lock:
            time.sleep(0.03)
        return 1

    def holds_too(nothing: int) -> int:
        with lock:
            time.sleep(0.03)
        return 1

    def last(computes: int, computes_too: int, naps: int, holds: int, holds_too: int) -> int:
        return 1

    with make_adapter(traces, max_workers=4, registry=registry) as adapter:
        driver = make_driver(adapter, nothing, computes, computes_too, naps, holds, holds_too, last)
        for _ in range(3):
            driver.execute(["last"])

    nodes = [span for span in traces.spans if span.name != "hamilton.run"]
    assert len(nodes) == 21
    assert [sum(state_ns(span).values()) for span in nodes] == [duration_ns(span) for span in nodes]
    for run in (span for span in traces.spans if span.name == "hamilton.run"):
        total: Counter[str] = Counter()
        for span in nodes:
            if span.parent is not None and span.parent.span_id == run.context.span_id:
                total.update(state_ns(span))
        assert state_ns(run) == dict(total)
    counted = counted_ns(registry)
    assert {node: sum(states.values()) for node, states in counted.items()} == counted_durations_ns(registry)
    assert all(one_ns >= 0 for states in counted.values() for one_ns in states.values())


@pytest.mark.measures
def test_a_node_that_fails_has_states(sampled: None, traces: Traces) -> None:
    """As any other; the node below it, which never ran, has none."""

    def fails() -> int:
        time.sleep(0.3)
        raise ValueError("no")

    def below(fails: int) -> int:
        return 1

    with sampling_closely(traces) as adapter, pytest.raises(ValueError, match="no"):
        make_driver(adapter, fails, below).execute(["below"])
    span = traces.only("fails")
    assert sum(state_ns(span).values()) == duration_ns(span)
    found = shares(span)
    assert found["sleep"] > 0.7 * (1 - found.get("runqueue", 0)), found
    assert state_ns(traces.only("below")) == {}


@pytest.mark.measures
def test_a_nested_run_is_other_in_the_node_around_it(
    sampled: None, traces: Traces, registry: CollectorRegistry
) -> None:
    """With one worker, which runs the nested node itself, and with two: its time is counted where it belongs, once."""

    def inner() -> int:
        spend(0.1, time.thread_time)
        time.sleep(0.2)
        return 1

    for workers in (1, 2):
        traces.clear()
        with sampling_closely(traces, max_workers=workers, name="pool", registry=registry) as adapter:
            nested = make_driver(adapter, inner)

            def outer() -> int:
                time.sleep(0.1)
                return int(nested.execute(["inner"])["inner"])  # noqa: B023

            make_driver(adapter, outer).execute(["outer"])
        around, within = traces.only("outer"), traces.only("inner")
        assert sum(state_ns(around).values()) == duration_ns(around)
        assert sum(state_ns(within).values()) == duration_ns(within)
        of_outer, of_inner = state_ns(around), state_ns(within)
        assert of_outer["other"] > 0.8 * duration_ns(within)  # with two workers both run for a moment
        assert of_outer["cpu"] < 80_000_000 <= of_inner["cpu"]
        assert of_outer["sleep"] < 200_000_000
        assert of_inner["sleep"] > 100_000_000
    counted = counted_ns(registry)
    assert {node: sum(states.values()) for node, states in counted.items()} == counted_durations_ns(registry)


def naps() -> None:
    time.sleep(0.4)


def waits_for_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=0.4)


def waits_for_event() -> None:
    threading.Event().wait(0.4)


def reads_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Timer(0.4, theirs.send, [b"x"]).start()
        ours.recv(1)


def reads_socket_with_timeout() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.4)
        with pytest.raises(TimeoutError):
            ours.recv(1)


def reads_pipe() -> None:
    readable, writable = os.pipe()
    threading.Timer(0.4, os.write, [writable, b"x"]).start()
    os.read(readable, 1)
    os.close(readable)
    os.close(writable)


def computes() -> None:
    spend(0.3, time.thread_time)


@pytest.mark.measures
@needs_sampling
@pytest.mark.parametrize(
    ("node", "state"),
    [
        (naps, "sleep"),
        (waits_for_lock, "lock"),
        (waits_for_event, "lock"),
        (reads_socket, "network"),
        (reads_socket_with_timeout, "network"),
        (reads_pipe, "other"),
        (computes, "cpu"),
    ],
)
def test_what_a_node_waits_for(sampled: None, traces: Traces, node: Callable[[], None], state: str) -> None:
    """Most of its time is in that state, but for what it waits for a CPU of a busy machine."""
    with sampling_closely(traces, max_workers=1) as adapter:
        make_driver(adapter, node).execute([node.__name__])
    found = shares(traces.only(node.__name__))
    assert found[state] > 0.6 * (1 - found.get("runqueue", 0)), found


@pytest.mark.measures
@needs_sampling
def test_a_node_that_waits_for_the_disk(sampled: None, traces: Traces) -> None:
    """Forcing out a file, where the file system waits for a disk at all."""

    def forces_out() -> int:
        with tempfile.TemporaryFile(dir=Path.cwd()) as file:
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                file.write(bytes(1 << 16))
                file.flush()
                os.fsync(file.fileno())
        return 1

    with sampling_closely(traces, max_workers=1) as adapter:
        make_driver(adapter, forces_out).execute(["forces_out"])
    span = traces.only("forces_out")
    if state_ns(span)["cpu"] > 0.4 * duration_ns(span):
        pytest.skip("the file system here hardly waits for a disk")
    found = shares(span)
    assert found["disk"] > 0.5 * (1 - found["cpu"] - found.get("runqueue", 0)), found


@pytest.mark.measures
@needs_sampling
def test_nodes_that_compute_in_python_wait_for_the_gil(sampled: None, traces: Traces) -> None:
    """Two of them, each for about half of its time."""

    def one() -> int:
        spend(0.3, time.thread_time)
        return 1

    def another() -> int:
        spend(0.3, time.thread_time)
        return 1

    with sampling_closely(traces, max_workers=2) as adapter:
        make_driver(adapter, one, another).execute(["one", "another"])
    found = shares(traces.only("one"))
    assert found["gil"] > 0.2 * (1 - found.get("runqueue", 0)), found
    assert found["gil"] > 3 * sum(found.get(state, 0) for state in ("network", "disk", "lock", "sleep")), found


@pytest.mark.measures
@needs_sampling
def test_nodes_that_want_the_same_cpu_are_in_the_run_queue(traces: Traces) -> None:
    """Three that compute without the GIL, on one CPU: exactly known, without any sample."""
    CPU = min(os.sched_getaffinity(0))

    def hashes(name: str) -> Callable[[], int]:
        def hashing() -> int:
            os.sched_setaffinity(0, {CPU})
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1_000_000)  # in one call: each needs the GIL before and after it
            return 1

        hashing.__name__ = name
        return hashing

    with make_adapter(traces, max_workers=3) as adapter:
        make_driver(adapter, hashes("one"), hashes("two"), hashes("three")).execute(["one", "two", "three"])
    total: Counter[str] = Counter()
    for span in traces.spans:
        total.update(state_ns(span) if span.name != "hamilton.run" else {})
    assert total["runqueue"] > 0.4 * sum(total.values()), total
    assert total["gil"] < 0.1 * sum(total.values()), total


@pytest.mark.measures
@needs_sampling
def test_short_nodes_are_right_in_the_sum(sampled: None, registry: CollectorRegistry) -> None:
    """A node of two milliseconds is rarely sampled, yet what hundreds of them waited is counted for what it was."""

    def short() -> int:
        time.sleep(0.002)
        return 1

    with sampling_closely(tracing=False, registry=registry) as adapter:
        driver = make_driver(adapter, short)
        for _ in range(300):
            driver.execute(["short"])
    (counted,) = counted_ns(registry).values()
    known_ns = counted["cpu"] + counted["runqueue"]
    assert counted["sleep"] > 0.7 * (sum(counted.values()) - known_ns), counted


@needs_sampling
def test_samples_are_said_where_something_was_divided(sampled: None, traces: Traces) -> None:
    """How many samples a node's division rests on; a node that never waited has no such figure."""

    def nothing() -> int:
        return 1

    def naps(nothing: int) -> int:
        time.sleep(0.3)
        return 1

    with sampling_closely(traces, max_workers=1) as adapter:
        make_driver(adapter, nothing, naps).execute(["naps"])
    assert traces.attributes("naps")["hamilton.node.wait.samples"] >= 2


@needs_sampling
def test_how_states_are_found_out_is_said(sampled: None, traces: Traces, registry: CollectorRegistry) -> None:
    """On the run's span and in an info metric."""

    def one() -> int:
        return 1

    with make_adapter(traces, registry=registry) as adapter:
        make_driver(adapter, one).execute(["one"])
        info = samples(registry, "hamilton_attribution_info")
    attributes = traces.attributes("hamilton.run")
    assert (attributes["hamilton.attribution.method"], attributes.get("hamilton.attribution.reason")) == (
        "process",
        None,
    )
    assert info == {("process", ""): 1}


def test_without_attribution_there_is_cpu_time_alone(traces: Traces, registry: CollectorRegistry) -> None:
    """`attribution=False`: the rest is `other` in the counters, and spans say no more than they know."""

    def naps() -> int:
        time.sleep(0.05)
        return 1

    with make_adapter(traces, attribution=False, registry=registry) as adapter:
        make_driver(adapter, naps).execute(["naps"])
    assert set(state_ns(traces.only("naps"))) == {"cpu"}
    run = traces.attributes("hamilton.run")
    assert not [key for key in run if key.startswith(("hamilton.run.wait", "hamilton.run.gil", "hamilton.attribution"))]
    counted = counted_ns(registry)
    assert {state for state, one_ns in counted["naps"].items() if one_ns} == {"cpu", "other"}
    assert {node: sum(states.values()) for node, states in counted.items()} == counted_durations_ns(registry)
    assert samples(registry, "hamilton_attribution_info") == {}


def test_two_threads_of_one_caller_share_an_adapter(sampled: None, registry: CollectorRegistry) -> None:
    """Counters add up when many callers run nodes of the same name at once."""

    def short() -> int:
        time.sleep(0.001)
        return 1

    with make_adapter(tracing=False, max_workers=4, registry=registry) as adapter:
        driver = make_driver(adapter, short)

        def many() -> None:
            for _ in range(50):
                driver.execute(["short"])

        for caller in [Caller(many) for _ in range(4)]:
            assert caller.outcome() is None
        assert adapter.telemetry_errors == {}
    counted = counted_ns(registry)
    assert {node: sum(states.values()) for node, states in counted.items()} == counted_durations_ns(registry)
