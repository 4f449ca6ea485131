"""What nodes on worker processes wait for, as spans and metrics tell it: the same states as on threads, measured.

The bounds are those of `test_reported_states`. Nodes are made in functions, so that workers get them by value.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")
pytest.importorskip("cloudpickle", reason="the extra [processes] is not installed")

from prometheus_client import CollectorRegistry

from tests.backends.calls import background, call
from tests.dags import eventually, run_process
from tests.telemetry.telemetry_helpers import Traces, make_adapter, make_driver
from tests.waits import supervised
from tests.waits.reported import (
    counted_durations_ns,
    counted_ns,
    duration_ns,
    needs_sampling,
    sampling_closely,
    shares,
    state_ns,
)
from tests.waits.supervised import Using
from traced_threadpool import Attribution
from traced_threadpool.backends import Processes, WorkerCrashed
from traced_threadpool.engine.backends import processes as processes_module
from traced_threadpool.engine.backends.sampled import InFunction
from traced_threadpool.engine.backends.worker_stack import let_trace
from traced_threadpool.model.far_waits import Place
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits import supervisor as supervisor_module
from traced_threadpool.waits.sampler_client import SamplerClient, start_sampler
from traced_threadpool.waits.supervisor import supervisor

pytestmark = needs_sampling

WITHOUT_SAMPLES = {"cpu", "runqueue", "transfer", "remote_queue", "other"}


@pytest.fixture(autouse=True)
def _nothing_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are there at once."""
    monkeypatch.setattr(processes_module, "PRELOADED", ())


@pytest.fixture(scope="module")
def one() -> Iterator[Processes]:
    """A worker process for the tests that do it no harm."""
    backend = Processes(1)
    backend.open("tests")
    yield backend
    backend.close()


def on(backend: Processes, **options: Any) -> dict[str, Any]:
    """Options of an adapter all of whose nodes run there."""
    return {"backends": {"cpu": backend}, "run_on": "cpu", **options}


def _nodes() -> dict[str, Callable[[], int]]:
    def naps() -> int:
        import time

        time.sleep(0.4)
        return 1

    def reads_socket() -> int:
        import socket
        import threading

        ours, theirs = socket.socketpair()
        with ours, theirs:
            threading.Timer(0.4, theirs.send, [b"x"]).start()
            ours.recv(1)
        return 1

    def waits_for_lock() -> int:
        """Which a thread of its own holds."""
        import threading
        import time

        lock, held = threading.Lock(), threading.Event()

        def holds() -> None:
            with lock:
                held.set()
                time.sleep(0.4)

        thread = threading.Thread(target=holds)
        thread.start()
        held.wait()
        with lock:
            thread.join()
        return 1

    def computes() -> int:
        import time

        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        return 1

    def reads_pipe() -> int:
        import os
        import threading

        readable, writable = os.pipe()
        threading.Timer(0.4, os.write, [writable, b"x"]).start()
        os.read(readable, 1)
        os.close(readable)
        os.close(writable)
        return 1

    def tells() -> int:
        """Its process."""
        import os
        import time

        time.sleep(0.1)
        return os.getpid()

    return {each.__name__: each for each in (naps, reads_socket, waits_for_lock, computes, reads_pipe, tells)}


NODES = _nodes()
naps, tells = NODES["naps"], NODES["tells"]


@pytest.mark.measures
@pytest.mark.parametrize(
    ("node", "state"),
    [
        ("naps", "sleep"),
        ("reads_socket", "network"),
        ("waits_for_lock", "lock"),
        ("computes", "cpu"),
        ("reads_pipe", "other"),
    ],
)
def test_what_a_node_waits_for(sampled: None, traces: Traces, one: Processes, node: str, state: str) -> None:
    """Most of its time is in that state, but for what it waits for a CPU, and what it takes to get there and back."""
    with sampling_closely(traces, **on(one)) as adapter:
        make_driver(adapter, NODES[node]).execute([node])
        assert adapter.telemetry_errors == {}
    span = traces.only(node)
    found = shares(span)
    elsewhere = sum(found.get(each, 0) for each in ("runqueue", "transfer", "remote_queue"))
    assert found[state] > 0.6 * (1 - elsewhere), found
    if state != "cpu":
        assert traces.attributes(node)["hamilton.node.wait.samples"] >= 2


@pytest.mark.measures
def test_a_node_that_computes_beside_a_thread_of_its_own_waits_for_its_own_gil(
    sampled: None, traces: Traces, one: Processes
) -> None:
    """That of its process: no lock, and nothing that anybody here holds."""

    def beside() -> int:
        import threading
        import time

        done = threading.Event()

        def spins() -> None:
            while not done.is_set():
                pass

        thread = threading.Thread(target=spins)
        thread.start()
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        done.set()
        thread.join()
        return 1

    with sampling_closely(traces, **on(one)) as adapter:
        make_driver(adapter, beside).execute(["beside"])
    found = shares(traces.only("beside"))
    assert found["gil"] > 0.2 * (1 - found.get("runqueue", 0)), found
    assert found["gil"] > 3 * sum(found.get(state, 0) for state in ("network", "disk", "lock", "sleep")), found
    assert "hamilton.run.gil.holders" not in traces.attributes("hamilton.run")


@pytest.mark.measures
def test_a_node_that_waits_for_the_disk(sampled: None, traces: Traces, one: Processes) -> None:
    """Forcing out a file, where the file system waits for a disk at all."""

    def forces_out(folder: str) -> int:
        import os
        import tempfile
        import time

        with tempfile.TemporaryFile(dir=folder) as file:
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                file.write(bytes(1 << 16))
                file.flush()
                os.fsync(file.fileno())
        return 1

    with sampling_closely(traces, **on(one)) as adapter:
        make_driver(adapter, forces_out).execute(["forces_out"], inputs={"folder": str(Path.cwd())})
    found = shares(traces.only("forces_out"))
    if found["cpu"] > 0.4:
        pytest.skip("the file system here hardly waits for a disk")
    known = sum(found.get(each, 0) for each in ("cpu", "runqueue", "transfer", "remote_queue"))
    assert found["disk"] > 0.5 * (1 - known), found


@pytest.mark.measures
def test_short_nodes_are_right_in_the_sum(sampled: None, registry: CollectorRegistry, one: Processes) -> None:
    """A node of two milliseconds is rarely sampled, yet what hundreds of them waited is counted for what it was."""

    def short() -> int:
        import time

        time.sleep(0.002)
        return 1

    with sampling_closely(tracing=False, registry=registry, **on(one)) as adapter:
        driver = make_driver(adapter, short)
        for _ in range(300):
            driver.execute(["short"])
    (counted,) = counted_ns(registry).values()
    assert counted["sleep"] > 0.7 * 300 * 2_000_000, counted  # what waits for a CPU here, around the call, is `other`
    assert counted["sleep"] > 5 * sum(counted[state] for state in ("gil", "network", "disk", "lock")), counted


def test_the_states_of_each_node_add_up_to_its_duration(
    sampled: None, traces: Traces, registry: CollectorRegistry
) -> None:
    """To the nanosecond, on spans and in counters, whatever nodes do, also beside nodes on threads."""

    def here(naps: int) -> int:
        return 1

    options = {**on(Processes(2)), "run_on": {**dict.fromkeys(NODES, "cpu"), "here": "threads"}}
    with make_adapter(traces, max_workers=2, registry=registry, **options) as adapter:
        driver = make_driver(adapter, *NODES.values(), here)
        for _ in range(2):
            driver.execute([*NODES, "here"])
        assert adapter.telemetry_errors == {}
    nodes = [span for span in traces.spans if span.name != "hamilton.run"]
    assert len(nodes) == 2 * (len(NODES) + 1)
    assert [sum(state_ns(span).values()) for span in nodes] == [duration_ns(span) for span in nodes]
    counted = counted_ns(registry)
    assert {node: sum(states.values()) for node, states in counted.items()} == counted_durations_ns(registry)
    assert all(one_ns >= 0 for states in counted.values() for one_ns in states.values())


# Whatever ends


@pytest.mark.measures
def test_of_a_node_whose_worker_is_killed_is_told_what_was_seen(sampled: None, traces: Traces) -> None:
    """Its waits; and nobody looks for the worker any more."""

    def dies() -> int:
        import os
        import signal
        import time

        time.sleep(0.4)
        os.kill(os.getpid(), signal.SIGKILL)
        return 1

    with sampling_closely(traces, **on(Processes(1))) as adapter:
        make_driver(adapter, naps).execute(["naps"])
        with pytest.raises(WorkerCrashed):
            make_driver(adapter, dies).execute(["dies"])
        assert adapter.telemetry_errors == {}
        assert not busy_rows()
    span = traces.only("dies")
    assert sum(state_ns(span).values()) == duration_ns(span)
    found = state_ns(span)
    assert 300_000_000 < found["sleep"] < 500_000_000, found


def busy_rows() -> list[int]:
    """The rows of workers that are in a function, of the process's own sampler."""
    memory = supervisor._memory
    assert memory is not None
    rows = range(1, memory.words[shm.ROWS] + 1)
    return [row for row in rows if memory.words[shm.ROW * row + shm.DEPTH]]


def test_each_worker_is_looked_at_where_each_node_has_its_own(sampled: None, traces: Traces) -> None:
    """A row of one that has gone is the next one's: there are no more than there are workers at once."""

    def first() -> int:
        import os
        import time

        time.sleep(0.3)
        return os.getpid()

    def second(first: int) -> int:
        import os
        import time

        time.sleep(0.3)
        return os.getpid()

    def third(second: int) -> int:
        import os
        import time

        time.sleep(0.3)
        return os.getpid()

    names = ["first", "second", "third"]
    assert supervisor._rows is not None
    with sampling_closely(traces, **on(Processes(1, max_tasks_per_worker=1))) as adapter:
        found = make_driver(adapter, first, second, third).execute(names)
        assert supervisor._memory is not None
        words = supervisor._memory.words
        processes = words[shm.ROW + shm.PROCESS :: shm.ROW].tolist()
        assert not set(found.values()) & set(processes)
        assert adapter.telemetry_errors == {}
    assert len(set(found.values())) == 3
    assert all(traces.attributes(name)["hamilton.node.wait.sleep.duration"] > 0 for name in names)


def test_a_sampler_that_is_killed_costs_no_node(sampled: None, using: Using, traces: Traces, one: Processes) -> None:
    """While one runs: it and the next ones end as ever, with states that add up; no other sampler looks for it."""
    own = using()
    pid = supervised.start(own)

    def kills(sampler: int) -> int:
        import os
        import signal
        import time

        os.kill(sampler, signal.SIGKILL)
        time.sleep(0.2)
        return 1

    with make_adapter(tracing=False, **on(one)) as another, supervised.make_adapter(traces, **on(one)) as adapter:
        make_driver(another, naps).execute(["naps"])
        one.sampled_by(own)
        make_driver(adapter, kills).execute(["kills"], inputs={"sampler": pid})
        assert eventually(lambda: own.method.method == "none")
        make_driver(adapter, naps).execute(["naps"])
        assert adapter.telemetry_errors == {}
    for name in ("kills", "naps"):
        span = traces.only(name)
        assert sum(state_ns(span).values()) == duration_ns(span)
    assert set(state_ns(traces.only("naps"))) <= WITHOUT_SAMPLES
    assert state_ns(traces.only("naps"))["other"] > 300_000_000


def test_without_attribution_waits_are_other(sampled: None, traces: Traces, registry: CollectorRegistry) -> None:
    """Also in counters, and although another adapter's nodes on the same workers are sampled."""
    backend = Processes(1)
    with (
        make_adapter(tracing=False, **on(backend)) as seen,
        make_adapter(traces, attribution=False, registry=registry, **on(backend)) as unseen,
    ):
        make_driver(seen, naps).execute(["naps"])
        make_driver(unseen, naps).execute(["naps"])
    found = state_ns(traces.only("naps"))
    assert set(found) <= WITHOUT_SAMPLES
    assert found["other"] > 300_000_000
    assert "hamilton.node.wait.samples" not in traces.attributes("naps")
    (counted,) = counted_ns(registry).values()
    assert {state for state, one_ns in counted.items() if one_ns} <= WITHOUT_SAMPLES


def test_a_worker_is_told_of_memory_that_was_made_anew(using: Using, traces: Traces, one: Processes) -> None:
    """When no node has run for a while, the memory goes; the worker stays, and is sampled in the next."""
    own = using(idle_seconds=0.05)
    supervised.start(own)
    with supervised.make_adapter(traces, attribution=Attribution(budget=1.0), **on(one)) as adapter:
        driver = make_driver(adapter, naps)
        driver.execute(["naps"])
        before = own.epoch
        assert eventually(lambda: own._memory is None)
        traces.clear()
        driver.execute(["naps"])
        assert own.epoch > before
        assert len(own._far) == 1
        # The sampler is started anew in this time, too.
        assert eventually(lambda: driver.execute(["naps"]) and "sleep" in state_ns(traces.spans[-2]))
        assert adapter.telemetry_errors == {}


def test_a_process_that_a_node_forks_is_not_taken_for_the_worker(sampled: None, traces: Traces) -> None:
    """It writes nothing to the worker's row, whatever it returns to."""

    def forks() -> int:
        import os
        import time

        child = os.fork()
        if child == 0:
            return 2
        os.waitpid(child, 0)
        time.sleep(0.3)
        return 1

    with sampling_closely(traces, **on(Processes(1))) as adapter:
        assert make_driver(adapter, forks).execute(["forks"]) == {"forks": 1}
    assert traces.attributes("forks")["hamilton.node.wait.sleep.duration"] > 0.1


def test_where_memory_cannot_be_shared_waits_are_other(
    using: Using, traces: Traces, one: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS: there is nothing to tell a worker of, and no row for it."""
    monkeypatch.delattr(os, "memfd_create")
    own = using()
    with supervised.make_adapter(traces, **on(one)) as adapter:
        make_driver(adapter, naps).execute(["naps"])
        assert own._memory is not None
        assert own._memory.words[shm.ROWS] == 1  # of the thread that waits for it
        assert adapter.telemetry_errors == {}
    assert set(state_ns(traces.only("naps"))) <= WITHOUT_SAMPLES


# What the two sides tell each other


def test_a_file_that_is_none_of_the_samplers_is_left_alone(tmp_path: Path) -> None:
    """Its number may have been another's by the time it was sent."""
    path = tmp_path / "file"
    path.write_bytes(bytes(64))
    place = Place(length=64, depth_at=0, runtime_at=1, no_gil=1, interpreter=sys.version)
    in_function = InFunction()
    in_function.use(place, os.open(path, os.O_RDWR))
    in_function.enter()
    assert path.read_bytes() == bytes(64)


def test_another_interpreter_says_nothing_of_its_gil() -> None:
    """What is known of this one's layout is not true of it."""
    words = shm.SharedMemory(descriptor := shm.make_memory()).words
    place: dict[str, Any] = {"length": shm.SIZE, "depth_at": 2, "runtime_at": 6, "no_gil": shm.NO_GIL}
    try:
        in_function = InFunction()
        in_function.use(Place(**place, interpreter=sys.version), os.dup(descriptor))
        assert words[6] > shm.NO_GIL or not getattr(sys, "_is_gil_enabled", lambda: True)()
        in_function.use(Place(**place, interpreter="another"), os.dup(descriptor))
        assert words[6] == 0
        in_function.enter()
        assert words[2] == 1
        in_function.leave()
        assert words[2] == 0
    finally:
        os.close(descriptor)


def unread(pid: int, number: int) -> int:
    """Bytes in a pipe of another process."""
    import fcntl  # these two are not on Windows
    import termios

    descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
    finally:
        os.close(descriptor)


def test_a_worker_that_lets_itself_be_looked_at_still_tells_its_stack(tmp_path: Path) -> None:
    """Both are asked for at one place, in any order."""

    def held(gate: str) -> int:
        import time
        from pathlib import Path

        while not Path(gate, "open").exists():
            time.sleep(0.005)
        return 1

    backend = Processes(1)
    backend.open("test")
    try:
        held_call, waiting = background(backend, held, gate=str(tmp_path))
        assert eventually(lambda: backend.worker_of(held_call.record) is not None)
        asked = backend.worker_of(held_call.record)
        assert asked is not None
        assert asked.descriptors is not None
        try:
            ask, answer = asked.descriptors
            let_trace(asked.pid, ask, os.getpid())
            assert eventually(lambda: unread(asked.pid, ask) == 0)
            assert Path(f"/proc/{asked.pid}/fd/{answer}").stat().st_size == 0  # that was no question
            assert eventually(lambda: any(line.endswith("held") for line in asked.stack() or ()))
            let_trace(asked.pid, ask, 0)
        finally:
            (tmp_path / "open").touch()
        assert waiting.result(60) == 1
    finally:
        backend.close()
    with pytest.raises(FileNotFoundError):
        let_trace(asked.pid, asked.descriptors[0], os.getpid())


def test_workers_let_a_sampler_look_that_needs_their_leave(
    using: Using, one: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are there when it starts, and those that come later; a worker that cannot costs nothing."""
    asked: list[tuple[int, int]] = []

    def asking(worker: int, ask: int, tracer: int) -> None:
        asked.append((worker, tracer))
        raise OSError("gone")

    def starting(*arguments: Any) -> SamplerClient:
        client = start_sampler(*arguments)
        client.needs_leave = True  # as under Yama
        return client

    monkeypatch.setattr(processes_module, "let_trace", asking)
    monkeypatch.setattr(supervisor_module, "start_sampler", starting)
    own = using()
    call(one, os.getpid)  # else the sampler would be there before the worker
    with supervised.make_adapter(tracing=False, **on(one)) as adapter:
        driver = make_driver(adapter, tells)
        assert eventually(lambda: bool(driver.execute(["tells"])) and own.method.method == "process")
        assert own._sampler is not None
        sampler = own._sampler.process.pid
        first = driver.execute(["tells"])["tells"]
        assert asked == [(first, sampler)]
        with supervised.make_adapter(tracing=False, **on(Processes(1))) as another:
            second = make_driver(another, tells).execute(["tells"])["tells"]
            assert asked == [(first, sampler), (second, sampler)]
            assert another.telemetry_errors == {}
        assert adapter.telemetry_errors == {}


REFUSES = """
import ctypes, time
from prometheus_client import CollectorRegistry
from traced_threadpool import Attribution
from traced_threadpool.backends import Processes

SET_DUMPABLE = 4

def closed() -> None:
    ctypes.CDLL(None).prctl(SET_DUMPABLE, 0, 0, 0, 0)

def hidden() -> int:
    time.sleep(0.4)
    return 1

def seen(hidden: int) -> int:
    ctypes.CDLL(None).prctl(SET_DUMPABLE, 1, 0, 0, 0)
    time.sleep(0.4)
    return 1

registry = CollectorRegistry()
options = {"backends": {"cpu": Processes(1, initializer=closed)}, "run_on": "cpu", "tracing": False}
with FutureAdapter(1, registry=registry, attribution=Attribution(budget=1.0), **options) as adapter:
    driver_of(adapter, hidden, seen).execute(["seen"])
    assert adapter.telemetry_errors == {}, adapter.telemetry_errors
for node in ("hidden", "seen"):
    labels = {"pool": "default", "node": node, "state": "sleep"}
    say(registry.get_sample_value("hamilton_node_time_seconds_total", labels))
"""

# What root starts may look at everything, unless it has lost this capability (PR_CAPBSET_DROP, CAP_SYS_PTRACE).
AS_ANYBODY = (
    sys.executable,
    "-c",
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 19, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])",
)


def test_a_worker_that_may_not_be_looked_at() -> None:
    """Its nodes have states as without a sampler, from then on when it may: it is tried again."""
    code, said, errors = run_process(REFUSES, within=AS_ANYBODY)
    assert code == 0, errors
    hidden, seen = map(float, said)
    assert hidden == 0
    assert 0.1 < seen < 0.5
