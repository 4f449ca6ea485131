"""Nodes that run for much longer than usual are told of, once each, while they still run."""

from __future__ import annotations

import ctypes
import logging
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.dags import PATIENCE, Held, Stage, driver_of, eventually, in_thread, wait_for
from traced_threadpool import FutureAdapter, Metrics
from traced_threadpool.engine.durations import Durations
from traced_threadpool.live.stalls import limit_seconds


def stalls_told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "is stalled" in record.getMessage()]


@pytest.mark.parametrize("attribution", [True, False])
def test_a_stalled_node_is_told_once(stage: Stage, caplog: pytest.LogCaptureFixture, attribution: bool) -> None:
    """With its stack and what it waits for; the live view marks it; others that are quick are not told of."""
    lock, release = threading.Lock(), stage.event()
    lock.acquire()

    def quick() -> int:
        return 1

    def stuck(quick: int) -> int:
        with lock:
            return quick

    adapter = stage.adapter(FutureAdapter(2, stall_after=0.05, attribution=attribution))
    with caplog.at_level(logging.WARNING, "traced_threadpool"):
        call = in_thread(lambda: driver_of(adapter, quick, stuck).execute(["stuck"]))
        assert eventually(lambda: bool(stalls_told(caplog)))
        [node] = adapter.live().runs[0].running
        assert (node.name, node.stalled) == ("stuck", True)
        time.sleep(0.2)  # several further looks: it is not told again
        lock.release()
        release.set()
        call.result(PATIENCE)
    [told] = stalls_told(caplog)
    assert told.startswith("node 'stuck' is stalled: it has run for")
    assert "in stuck" in told or ".stuck" in told
    assert "quick" not in told.splitlines()[0]


def test_healthy_nodes_are_never_told_of(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A node of no known duration has no limit, and thirty seconds is the least for the others."""

    def node() -> int:
        return 1

    adapter = stage.adapter(FutureAdapter(2))
    driver = driver_of(adapter, node)
    with caplog.at_level(logging.WARNING, "traced_threadpool"):
        for _ in range(500):
            driver.execute(["node"])
    assert stalls_told(caplog) == []


def test_the_learned_limit_is_five_times_the_95th_percentile_and_thirty_seconds_at_least() -> None:
    """The rule by itself."""
    durations = Durations({"short": 0.001, "long": 100.0})
    short, long = durations.usual("short"), durations.usual("long")
    assert limit_seconds(None, short) == 30.0
    assert long is not None
    assert limit_seconds(None, long) == 5 * 3 * long.p50_seconds  # one execution tells little of the spread
    assert limit_seconds(None, replace(long, count=20)) == 5 * long.p95_seconds
    assert limit_seconds(None, durations.usual("unknown")) is None
    assert limit_seconds(2.0, long) == 2.0


LIMIT = 0.5


@pytest.mark.measures
@pytest.mark.parametrize("attribution", [True, False])
@pytest.mark.parametrize("kind", ["lock", "socket", "sleep", "gil"])
def test_a_planted_stall_is_told_in_time_with_its_cause(
    stage: Stage, caplog: pytest.LogCaptureFixture, kind: str, attribution: bool
) -> None:
    """What the node waits for, or that C code in it keeps the GIL, within twice `stall_after`."""
    held = threading.Lock()
    held.acquire()
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    accepted, _ = server.accept()
    release = stage.event()

    def keep_the_gil() -> None:
        usleep = ctypes.PyDLL(None).usleep  # a function that does not let go of it
        while not release.is_set():
            usleep(120_000)

    ways: dict[str, tuple[Callable[[], object], Callable[[], object], str]] = {
        "lock": (held.acquire, held.release, "lock test_stalls.py:"),
        "socket": (lambda: client.recv(1), lambda: accepted.send(b"x"), f"network 127.0.0.1:{port}"),
        "sleep": (lambda: time.sleep(2 * LIMIT + 0.5), lambda: None, ", sleep"),
        "gil": (keep_the_gil, release.set, ", gil held by this node for "),
    }
    wait, end, said = ways[kind]
    if kind == "gil" and sys.platform == "win32":
        pytest.skip("there is no usleep")

    def stuck() -> int:
        wait()
        return 1

    limit = 2 * LIMIT if kind == "gil" else LIMIT
    adapter = stage.adapter(FutureAdapter(1, stall_after=limit, attribution=attribution))
    with caplog.at_level(logging.WARNING, "traced_threadpool"):
        call = in_thread(lambda: driver_of(adapter, stuck).execute(["stuck"]))
        assert eventually(lambda: bool(stalls_told(caplog)))
        end()
        release.set()
        call.result(PATIENCE)
    for each in (accepted, client, server):
        each.close()
    [told] = stalls_told(caplog)
    after = re.search(r"has run for (\d+\.\d) s", told)
    assert after is not None
    assert limit <= float(after[1]) <= 2 * limit, told
    if Path("/proc/self/syscall").exists():
        assert said in told
    assert "stuck" in told.splitlines()[1]


@pytest.mark.measures
@pytest.mark.skipif(sys.platform == "win32", reason="there is no usleep")
def test_who_waits_while_another_thread_keeps_the_gil_is_not_told_to_keep_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a node that waits for a lock, nor one that asks for it now and then."""
    held, release = threading.Lock(), stage.event()
    held.acquire()

    def keep_the_gil() -> None:
        usleep = ctypes.PyDLL(None).usleep
        while len(stalls_told(caplog)) < 2:
            usleep(120_000)

    def waits() -> None:
        held.acquire()

    def asks() -> None:
        while not release.wait(0.02):
            pass

    adapter = stage.adapter(FutureAdapter(2, stall_after=0.5))
    with caplog.at_level(logging.WARNING, "traced_threadpool"):
        call = in_thread(lambda: driver_of(adapter, waits, asks).execute(["waits", "asks"]))
        in_thread(keep_the_gil).result(PATIENCE)
        held.release()
        release.set()
        call.result(PATIENCE)
    assert not [told for told in stalls_told(caplog) if "held by this node" in told]


SPREADS: dict[str, Callable[[random.Random], float]] = {
    "uniform": lambda some: some.uniform(0.3, 3.0),
    "exponential": lambda some: 0.2 + some.expovariate(1.0),
    "log-normal": lambda some: some.lognormvariate(0.0, 0.5),
    "two kinds": lambda some: some.choice((1.0, 4.0)) * some.uniform(0.9, 1.1),
}


@pytest.mark.parametrize("spread", SPREADS)
def test_ten_thousand_healthy_nodes_of_spread_durations(spread: str) -> None:
    """None is ever beyond its limit, from its second execution on, while the limit is learned."""
    some, draw = random.Random(16), SPREADS[spread]
    durations = Durations()
    for index in range(10_000):
        name, seconds = f"node {index % 50}", 100 * draw(some)  # so long that thirty seconds are no limit
        limit = limit_seconds(None, durations.usual(name))
        assert limit is None or seconds < limit, (name, index // 50, seconds, limit)
        durations.learn(name, seconds * 1e9)


@pytest.mark.slow
def test_ten_thousand_nodes_that_run(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Real ones, of spread durations, looked at all the time: none is told of but the one that is stuck among them."""
    some = random.Random(16)
    held = Held(stage)
    is_last = stage.event()

    def make(index: int) -> Callable[[], int]:
        def node() -> int:
            time.sleep(min(0.02, some.expovariate(1000)))
            return index

        node.__name__ = f"n{index}"
        return node

    def stuck() -> str:
        return held() if is_last.is_set() else ""

    adapter = stage.adapter(FutureAdapter(8, attribution=False))
    watch = adapter._assembly.stalls
    watch.interval_seconds, watch.least_seconds = 0.002, 3.0
    names = ["stuck", *(f"n{index}" for index in range(500))]
    driver = driver_of(adapter, stuck, *map(make, range(500)))
    with caplog.at_level(logging.WARNING, "traced_threadpool"):
        for number in range(20):
            if number == 19:
                is_last.set()
                call = in_thread(lambda: driver.execute(names))
                assert eventually(lambda: bool(stalls_told(caplog)))
                held.release.set()
                call.result(PATIENCE)
            else:
                driver.execute(names)
    [told] = stalls_told(caplog)
    assert told.startswith("node 'stuck' is stalled")


def test_the_span_gets_an_event(stage: Stage) -> None:
    """`stalled`, with the stack as `code.stacktrace`."""
    pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")
    from tests.telemetry.telemetry_helpers import Traces

    traces = Traces()
    held = stage.event()

    def stuck() -> int:
        wait_for(held)
        return 1

    adapter = stage.adapter(FutureAdapter(1, stall_after=0.05, tracer_provider=traces.provider))
    call = in_thread(lambda: driver_of(adapter, stuck).execute(["stuck"]))
    assert eventually(lambda: bool(adapter.live().runs) and any(n.stalled for n in adapter.live().runs[0].running))
    held.set()
    call.result(PATIENCE)
    adapter.close()
    [span] = [span for span in traces.spans if span.name == "stuck"]
    [event] = [event for event in span.events if event.name == "stalled"]
    assert "stuck" in str((event.attributes or {})["code.stacktrace"])


def test_stalls_are_counted(stage: Stage) -> None:
    """One execution once, while it runs; the gauge falls when it ends; nodes beyond the cap share a label."""
    registry = CollectorRegistry()
    held = Held(stage)

    def stuck() -> str:
        return held()

    def another() -> str:
        return held()

    adapter = stage.adapter(
        FutureAdapter(2, name="etl", stall_after=0.05, registry=registry, metrics=Metrics(max_node_labels=1))
    )
    call = in_thread(lambda: driver_of(adapter, stuck, another).execute(["stuck", "another"]))

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, {"pool": "etl", **labels}) or 0.0

    assert eventually(lambda: value("hamilton_stalled_nodes") == 2)
    assert adapter.snapshot().stalled_nodes == 2
    time.sleep(0.2)  # more rounds of the watcher: counted once
    by_node = {name: value("hamilton_node_stalls_total", node=name) for name in ("stuck", "another", "_other")}
    assert sorted(by_node.values()) == [0, 1, 1]
    assert by_node["_other"] == 1
    held.release.set()
    call.result(PATIENCE)
    assert value("hamilton_stalled_nodes") == 0
    assert sum(value("hamilton_node_stalls_total", node=name) for name in by_node) == 2


def test_bad_limits_are_errors() -> None:
    """At once, with what to write instead."""
    for wrong in ("1", True, [5]):
        with pytest.raises(TypeError, match="stall_after must be a number of seconds"):
            FutureAdapter(stall_after=wrong)  # type: ignore[arg-type]
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="stall_after must be a number of seconds above 0"):
            FutureAdapter(stall_after=wrong)
