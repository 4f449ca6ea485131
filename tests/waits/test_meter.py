"""Where a node's time went, as spans and metrics tell it: the states add up, and the right one stands out.

How right they are is for `benchmarks/truth`; the bounds here are wide enough for a busy machine.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from opentelemetry.sdk.trace import ReadableSpan
from prometheus_client import CollectorRegistry

from tests.dags import run_process
from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Caller,
    Traces,
    make_adapter,
    make_driver,
    sample,
    samples,
    spend,
    times,
    until,
)
from traced_threadpool import Attribution, FutureAdapter
from traced_threadpool.model.observers import ErrorLog
from traced_threadpool.model.records import NodeRecord
from traced_threadpool.telemetry import names
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import KINDS
from traced_threadpool.waits.meter import STALE_NS, CpuMeter, WaitsMeter
from traced_threadpool.waits.reasons import Method
from traced_threadpool.waits.runqueue import RunQueueDelay
from traced_threadpool.waits.split import Division, History
from traced_threadpool.waits.supervisor import Supervisor, supervisor

STATES = ("cpu", "gil", "runqueue", "network", "disk", "lock", "sleep", "other")

needs_sampling = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are looked at on Linux")


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


def looking_closely(traces: Traces | None = None, **options: Any) -> FutureAdapter:
    """An adapter whose nodes are looked at as often as can be.

    On a machine whose processors others want, a look costs more, and what a hundredth of a processor pays for may be
    one or two in a short node.
    """
    return make_adapter(traces, attribution=Attribution(budget=1.0), **options)


def state_ns(span: ReadableSpan) -> dict[str, int]:
    """The states of a node's or run's span, those that are not 0."""
    attributes: dict[str, Any] = dict(span.attributes or {})
    kind = "node" if "hamilton.node.name" in attributes else "run"
    found = {state: attributes.get(f"hamilton.{kind}.wait.{state}.duration", 0) for state in STATES[1:]}
    found["cpu"] = attributes.get(f"hamilton.{kind}.cpu.duration", 0)
    return {state: round(seconds * 1e9) for state, seconds in found.items() if seconds}


def duration_ns(span: ReadableSpan) -> int:
    started, ended = times(span)
    return ended - started


def shares(span: ReadableSpan) -> dict[str, float]:
    return {state: one_ns / duration_ns(span) for state, one_ns in state_ns(span).items()}


def counted_ns(registry: CollectorRegistry) -> dict[str, Counter[str]]:
    """The time counted by node and state."""
    result: dict[str, Counter[str]] = {}
    for (node, _, state), seconds in samples(registry, "hamilton_node_time_seconds_total").items():
        result.setdefault(node, Counter())[state] = round(seconds * 1e9)
    return result


def counted_durations_ns(registry: CollectorRegistry) -> Counter[str]:
    result: Counter[str] = Counter()
    for (node, _, _), seconds in samples(registry, "hamilton_node_duration_seconds_sum").items():
        result[node] += round(seconds * 1e9)
    return result


@contextmanager
def hogging(name: str) -> Iterator[None]:
    """A thread of this name that computes and never rests."""
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            pass

    thread = threading.Thread(target=spin, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


# The sum


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


def test_a_node_that_fails_has_states(sampled: None, traces: Traces) -> None:
    """As any other; the node below it, which never ran, has none."""

    def fails() -> int:
        time.sleep(0.3)
        raise ValueError("no")

    def below(fails: int) -> int:
        return 1

    with looking_closely(traces) as adapter, pytest.raises(ValueError, match="no"):
        make_driver(adapter, fails, below).execute(["below"])
    span = traces.only("fails")
    assert sum(state_ns(span).values()) == duration_ns(span)
    found = shares(span)
    assert found["sleep"] > 0.7 * (1 - found.get("runqueue", 0)), found
    assert state_ns(traces.only("below")) == {}


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
        with looking_closely(traces, max_workers=workers, name="pool", registry=registry) as adapter:
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


# The right state


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
    """Most of its time is in that state, but for what it waits for a processor of a busy machine."""
    with looking_closely(traces, max_workers=1) as adapter:
        make_driver(adapter, node).execute([node.__name__])
    found = shares(traces.only(node.__name__))
    assert found[state] > 0.6 * (1 - found.get("runqueue", 0)), found


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

    with looking_closely(traces, max_workers=1) as adapter:
        make_driver(adapter, forces_out).execute(["forces_out"])
    span = traces.only("forces_out")
    if state_ns(span)["cpu"] > 0.4 * duration_ns(span):
        pytest.skip("the file system here hardly waits for a disk")
    found = shares(span)
    assert found["disk"] > 0.5 * (1 - found["cpu"] - found.get("runqueue", 0)), found


@needs_sampling
def test_nodes_that_compute_in_python_wait_for_the_interpreter_lock(sampled: None, traces: Traces) -> None:
    """Two of them, each for about half of its time."""

    def one() -> int:
        spend(0.3, time.thread_time)
        return 1

    def another() -> int:
        spend(0.3, time.thread_time)
        return 1

    with looking_closely(traces, max_workers=2) as adapter:
        make_driver(adapter, one, another).execute(["one", "another"])
    found = shares(traces.only("one"))
    assert found["gil"] > 0.2 * (1 - found.get("runqueue", 0)), found
    assert found["gil"] > 3 * sum(found.get(state, 0) for state in ("network", "disk", "lock", "sleep")), found


@needs_sampling
def test_nodes_that_want_the_same_processor_are_in_the_run_queue(traces: Traces) -> None:
    """Three that compute without the interpreter lock, on one processor: exactly known, without any sample."""
    processor = min(os.sched_getaffinity(0))

    def hashes(name: str) -> Callable[[], int]:
        def hashing() -> int:
            os.sched_setaffinity(0, {processor})
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


@needs_sampling
def test_the_run_queue_delay_is_read_once_a_node(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end: a worker that has run since waited for no processor, so that is what the next node starts with."""
    reads = Counter[int]()
    read_ns = RunQueueDelay.read_ns

    def counting(delay: RunQueueDelay) -> int:
        reads[threading.get_native_id()] += 1
        return read_ns(delay)

    monkeypatch.setattr(RunQueueDelay, "read_ns", counting)
    # One of its own: what other tests have left may be put away at this moment, and workers get new places.
    alone = Supervisor(closed_seconds=0.0)
    workers, off_ns = set(), list[int]()

    def naps() -> None:
        off_ns.append(-time.thread_time_ns() + time.monotonic_ns())  # no less than it is, whatever comes in between
        workers.add(threading.get_native_id())
        time.sleep(0.001)
        off_ns.append(time.monotonic_ns() - time.thread_time_ns())  # no more

    with make_adapter(tracing=False, registry=registry, max_workers=1, waits=alone) as adapter:
        futures = [adapter.do_remote_execute(execute_lifecycle_for_node=naps, node=None) for _ in range(200)]
        futures[-1].result()  # the last: who waits for each of them takes the interpreter lock each time
    (worker,) = workers
    if not reads[worker]:
        pytest.skip("the kernel does not count it here")
    # Two a node but for that. One where the worker was held up for long between two nodes, one before all of them, and
    # one when the file was opened.
    held_up = sum(after - before > STALE_NS for before, after in zip(off_ns[1:-1:2], off_ns[2::2], strict=True))
    assert 200 <= reads[worker] <= 202 + held_up
    assert held_up < 150  # else it says nothing
    until(lambda: alone._memory is None)


def test_a_worker_that_is_stopped_in_the_middle_of_dividing_holds_up_no_other(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that has lost the interpreter there; what the other's node did is counted, and adds up."""
    stopped, go_on = threading.Event(), threading.Event()
    settle = History.settle

    def settle_first(history: History, off_ns: int, seen: Sequence[int], *, samples: int) -> Division:
        if not stopped.is_set():
            stopped.set()
            assert go_on.wait(LIMIT_SECONDS)
        return settle(history, off_ns, seen, samples=samples)

    monkeypatch.setattr(History, "settle", settle_first)

    def first() -> None:
        time.sleep(0.001)

    def second() -> None:
        assert stopped.wait(LIMIT_SECONDS)
        time.sleep(0.001)

    def third() -> None:
        time.sleep(0.001)

    with make_adapter(tracing=False, registry=registry, max_workers=2) as adapter:
        caller = Caller(lambda: make_driver(adapter, first, second, third).execute(["first", "second", "third"]))
        until(lambda: {"second", "third"} <= counted_ns(registry).keys())
        assert "first" not in counted_ns(registry)
        go_on.set()
        caller.outcome()
    counted = counted_ns(registry)
    assert {node: sum(states.values()) for node, states in counted.items()} == counted_durations_ns(registry)


@needs_sampling
def test_short_nodes_are_right_in_the_sum(sampled: None, registry: CollectorRegistry) -> None:
    """A node of two milliseconds is rarely looked at, yet what hundreds of them waited is counted for what it was."""

    def short() -> int:
        time.sleep(0.002)
        return 1

    with looking_closely(tracing=False, registry=registry) as adapter:
        driver = make_driver(adapter, short)
        for _ in range(300):
            driver.execute(["short"])
    (counted,) = counted_ns(registry).values()
    known_ns = counted["cpu"] + counted["runqueue"]
    assert counted["sleep"] > 0.7 * (sum(counted.values()) - known_ns), counted


# Who holds the interpreter lock


@needs_sampling
def test_the_node_that_holds_the_interpreter_lock_is_named(sampled: None, traces: Traces) -> None:
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
    return dict(filter(None, map(names.gil_holder_of, run.get("hamilton.run.gil.holders", ()))))


def the_one_seen_best(traces: Traces, *functions: Callable[[], int]) -> dict[str, Any]:
    """The attributes of a run of these nodes at once.

    On busy processors threads are found to run more often than they do, and so less waiting is seen whose cause is
    known: of several runs it is the one in which most of it was.
    """

    def share(run: dict[str, Any]) -> float:
        return float(sum(gil_holders(run).values()) / run.get("hamilton.run.wait.gil.duration", 1e9))

    runs: list[dict[str, Any]] = []
    with looking_closely(traces, max_workers=2) as adapter:
        driver = make_driver(adapter, *functions)
        while not runs or (share(runs[-1]) < 0.7 and len(runs) < 6):
            traces.clear()
            driver.execute([function.__name__ for function in functions])
            runs.append(traces.attributes("hamilton.run"))
    return max(runs, key=share)


@needs_sampling
def test_a_thread_outside_of_the_pool_that_holds_the_interpreter_lock_is_named(sampled: None, traces: Traces) -> None:
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


@needs_sampling
def test_the_wait_for_the_interpreter_lock_is_counted_for_the_process(
    sampled: None, registry: CollectorRegistry
) -> None:
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


# What is said of it


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


@needs_sampling
def test_samples_are_said_where_something_was_divided(sampled: None, traces: Traces) -> None:
    """How many looks a node's split rests on; a node that never waited has no such figure."""

    def nothing() -> int:
        return 1

    def naps(nothing: int) -> int:
        time.sleep(0.3)
        return 1

    with looking_closely(traces, max_workers=1) as adapter:
        make_driver(adapter, nothing, naps).execute(["naps"])
    assert traces.attributes("naps")["hamilton.node.wait.samples"] >= 2


def test_without_attribution_there_is_processor_time_alone(traces: Traces, registry: CollectorRegistry) -> None:
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


COUNTS = """
import time
from pathlib import Path
from traced_threadpool.waits.supervisor import supervisor

def naps() -> int:
    time.sleep(0.5)
    return 1

def what_there_is():
    "Threads other than the main one and the workers, the sampler's process, files of it."
    threads = sorted(each.name for each in threading.enumerate() if "waits" in each.name)
    links = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(each))
        except OSError:
            pass
    files = [link for link in links if "waits" in link or "schedstat" in link or "socket" in link]
    return threads, supervisor._sampler is not None, len(files)
"""


class _Worker:
    """The calling thread under clocks that the test moves: what the kernel and the sampler would say of it."""

    def __init__(self, folder: Path) -> None:
        self.now_ns, self.cpu_ns, self._delay_ns = 10**9, 5 * 10**6, 0
        self._schedstat = folder / "self" / "task" / str(threading.get_native_id()) / "schedstat"
        self._schedstat.parent.mkdir(parents=True)
        self.spends()
        self.supervisor = Supervisor(proc=folder)
        clocks: dict[str, Any] = {"clock": lambda: self.now_ns, "cpu_clock": lambda: self.cpu_ns}
        self.meter = WaitsMeter(self.supervisor, ErrorLog(), **clocks)

    def spends(self, cpu: int = 0, runqueue: int = 0, **seen: int) -> None:
        """Milliseconds; of each state that is `seen`, in a look for each 10 of them."""
        self.now_ns += (cpu + runqueue + sum(seen.values())) * 10**6
        self.cpu_ns += cpu * 10**6
        self._delay_ns += runqueue * 10**6
        self._schedstat.write_text(f"{self.cpu_ns} {self._delay_ns} 1\n")
        for state, milliseconds in seen.items():
            row = self.supervisor.worker_row()
            assert row is not None
            row.words[row.at + shm.SEEN_NS + KINDS.index(state)] += milliseconds * 10**6
            row.words[row.at + shm.SAMPLES] += milliseconds // 10

    def starts(self, node: NodeRecord) -> None:
        start(self.meter, node, lambda: self.now_ns)

    def ends(self, node: NodeRecord) -> None:
        end(self.meter, node, lambda: self.now_ns)


def start(meter: CpuMeter, node: NodeRecord, clock: Callable[[], int] = time.monotonic_ns) -> None:
    """As the pool does."""
    meter.before_start(node)
    node.started_ns = clock()
    meter.after_start(node)


def end(meter: CpuMeter, node: NodeRecord, clock: Callable[[], int] = time.monotonic_ns) -> None:
    meter.before_end(node)
    node.ended_ns = clock()
    meter.after_end(node)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[_Worker]:
    worker = _Worker(tmp_path)
    yield worker
    worker.supervisor.stop()


@needs_sampling
def test_readings_become_states(worker: _Worker) -> None:
    """To the nanosecond, by clocks and a `/proc` of the test's own; what comes before the node is not its."""
    worker.spends(cpu=7, runqueue=3)
    node = NodeRecord("n", run=None)
    worker.starts(node)
    worker.spends(cpu=20, runqueue=10, gil=30, network=40)
    worker.ends(node)
    assert (node.duration_ns, node.cpu_ns, node.samples) == (100 * 10**6, 20 * 10**6, 7)
    assert node.state_ns == tuple(each * 10**6 for each in (20, 30, 10, 40, 0, 0, 0, 0))


@needs_sampling
def test_time_aside_is_other_and_its_states_are_not_the_nodes(worker: _Worker) -> None:
    """What a node's worker does for nodes within it is theirs, and `other` for the node."""
    node, within = NodeRecord("n", run=None), NodeRecord("within", run=None)
    worker.starts(node)
    worker.spends(cpu=10, sleep=20)
    worker.meter.leave(node)
    worker.starts(within)
    worker.spends(cpu=5, runqueue=15, disk=30)
    worker.ends(within)
    worker.meter.come_back(node)
    worker.spends(cpu=10, runqueue=5, sleep=10)
    worker.ends(node)
    assert within.state_ns == tuple(each * 10**6 for each in (5, 0, 15, 0, 30, 0, 0, 0))
    assert node.state_ns == tuple(each * 10**6 for each in (20, 0, 5, 0, 0, 0, 30, 50))


def test_processor_time_is_a_nodes_own_however_soon_it_starts() -> None:
    """Right after another on its thread, and after a sleep: neither that one's time nor the sleep is in it."""
    meter = CpuMeter()

    def measured(before_seconds: float, cpu_seconds: float) -> NodeRecord:
        node = NodeRecord("n", run=None)
        if before_seconds:
            time.sleep(before_seconds)
        start(meter, node)
        spend(cpu_seconds, time.thread_time)
        end(meter, node)
        return node

    measured(0, 0.03)
    at_once, after_sleep, again = measured(0, 0.005), measured(0.03, 0.005), measured(0, 0.005)
    for node in (at_once, after_sleep, again):
        assert 0.0049e9 < node.cpu_ns < 0.02e9
        assert node.cpu_ns <= node.duration_ns


@needs_sampling
def test_switched_off_there_is_nothing() -> None:
    """No thread, no process, no file; switched on there are."""
    code, said, errors = run_process(
        COUNTS
        + """
adapter = FutureAdapter(2, attribution=False)
driver_of(adapter, naps).execute(["naps"])
say(*what_there_is())
adapter = FutureAdapter(2)
end = time.monotonic() + 60
while not what_there_is()[1] and time.monotonic() < end:  # on a busy machine it may take more than one
    driver_of(adapter, naps).execute(["naps"])
threads, process, files = what_there_is()
say(threads, process, files > 2)
"""
    )
    assert (code, said) == (0, ["[] False 0", "['traced-threadpool-waits'] True True"]), errors


# The budget


@pytest.mark.parametrize("budget", [0, -0.1, 1.5, float("nan")])
def test_a_budget_that_is_none(budget: float) -> None:
    """Is refused, and the message says what to write."""
    with pytest.raises(ValueError, match=r"budget must be above 0 and at most 1, such as 0\.01"):
        Attribution(budget=budget)


def test_of_several_budgets_the_least_counts() -> None:
    """For as long as its adapter is open."""
    alone = Supervisor(closed_seconds=0.0)

    def one() -> int:
        return 1

    def budget_ppm() -> int:
        assert alone._memory is not None
        return alone._memory.words[shm.BUDGET_PPM]

    with make_adapter(tracing=False, waits=alone, attribution=Attribution(budget=0.05)) as adapter:
        make_driver(adapter, one).execute(["one"])
        assert budget_ppm() == 50_000
        with make_adapter(tracing=False, waits=alone, attribution=Attribution(budget=0.002)):
            assert budget_ppm() == 2_000
        assert budget_ppm() == 50_000
    until(lambda: alone._memory is None)


# Over time


@needs_sampling
@pytest.mark.slow
def test_nothing_leaks_over_ten_thousand_runs() -> None:
    """Threads, files and memory are after them as they were before."""
    code, said, errors = run_process(
        COUNTS
        + """
import gc, time
from prometheus_client import CollectorRegistry

def one() -> int:
    return 1

# Both workers are there from now on.
both = threading.Barrier(2)

def first() -> int:
    return both.wait(60)

def second() -> int:
    return both.wait(60)

adapter = FutureAdapter(2, tracing=False, registry=CollectorRegistry())
driver_of(adapter, naps).execute(["naps"])
driver_of(adapter, first, second).execute(["first", "second"])
runs = driver_of(adapter, one)

def objects():
    gc.collect()
    return len(gc.get_objects()), len(os.listdir("/proc/self/fd")), threading.active_count()

for _ in range(500):
    runs.execute(["one"])
before = objects()
for _ in range(10_000):
    runs.execute(["one"])
for _ in range(50):
    after = objects()
    if after[0] - before[0] < 500:
        break
    time.sleep(0.1)  # without an interpreter lock, what two threads have used goes a moment later
say(after[0] - before[0] < 500, after[1] - before[1], after[2] - before[2])
adapter.close()
"""
    )
    assert (code, said) == (0, ["True 0 0"]), errors


def test_workers_that_come_and_go_leave_their_places() -> None:
    """Sixty pools of two threads take no more rows on the board, and no more files, than one or two at once."""
    alone = Supervisor(closed_seconds=0.0, idle_seconds=0.0)

    def one() -> int:
        return 1

    with make_adapter(tracing=False, waits=alone) as kept:
        make_driver(kept, one).execute(["one"])
        for _ in range(60):
            with make_adapter(tracing=False, waits=alone, max_workers=2) as adapter:
                make_driver(adapter, one).execute(["one"])
        if (memory := alone._memory) is not None:
            assert memory.words[shm.ROWS] < 10
        if (rows := alone._rows) is not None:
            assert len(rows._all) < 10
    until(lambda: alone._memory is None)


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
