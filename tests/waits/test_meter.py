"""A node's readings become its states; what they cost; budgets; and that nothing is left."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from prometheus_client import CollectorRegistry

from tests.dags import run_process
from tests.telemetry.telemetry_helpers import LIMIT_SECONDS, Caller, make_adapter, make_driver, spend, until
from tests.waits.reported import counted_durations_ns, counted_ns, needs_sampling
from traced_threadpool import Attribution
from traced_threadpool.model.observers import ErrorLog
from traced_threadpool.model.records import NodeRecord
from traced_threadpool.model.states import in_order
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import KINDS
from traced_threadpool.waits.meter import STALE_NS, CpuMeter, WaitsMeter
from traced_threadpool.waits.runqueue import RunQueueDelay
from traced_threadpool.waits.split import Division, History
from traced_threadpool.waits.supervisor import Supervisor

MS = 10**6


@pytest.mark.measures
@needs_sampling
def test_the_run_queue_delay_is_read_once_a_node(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end: a worker that has run since waited for no CPU, so that is what the next node starts with."""
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
        futures[-1].result()  # the last: who waits for each of them takes the GIL each time
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
        """Milliseconds; of each state that is `seen`, in a sample for each 10 of them."""
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
    assert node.state_ns == in_order({"cpu": 20 * MS, "gil": 30 * MS, "runqueue": 10 * MS, "network": 40 * MS})


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
    assert within.state_ns == in_order({"cpu": 5 * MS, "runqueue": 15 * MS, "disk": 30 * MS})
    assert node.state_ns == in_order({"cpu": 20 * MS, "runqueue": 5 * MS, "sleep": 30 * MS, "other": 50 * MS})


def test_cpu_time_is_a_nodes_own_however_soon_it_starts() -> None:
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


@needs_sampling
@pytest.mark.slow
def test_nothing_leaks_over_thousands_of_runs() -> None:
    """Threads, files and memory are after them as they were before."""
    code, said, errors = run_process(
        COUNTS
        + """
import gc, time
from collections import Counter
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
    threads = sorted(thread.name for thread in threading.enumerate())
    return len(gc.get_objects()), len(os.listdir("/proc/self/fd")), threads

def stable():
    "Once the thread that looks for stalls has ended, as it does a second after the last run."
    end = time.monotonic() + 60
    while "traced-threadpool-stalls" in (found := objects())[2] and time.monotonic() < end:
        time.sleep(0.1)
    return found

def new_threads(before, after):
    return sorted((Counter(after[2]) - Counter(before[2])).elements())

for _ in range(500):
    runs.execute(["one"])
before = stable()
for _ in range(5_000):
    runs.execute(["one"])
for _ in range(50):
    after = stable()
    if after[0] - before[0] < 500 and not new_threads(before, after):
        break
    time.sleep(0.1)  # without a GIL, what two threads have used goes a moment later
say(after[0] - before[0] < 500, max(after[1] - before[1], 0), new_threads(before, after))
adapter.close()
"""
    )
    assert (code, said) == (0, ["True 0 []"]), errors


def test_workers_that_come_and_go_leave_their_places() -> None:
    """Sixty pools of two threads take no more rows in shared memory, and no more files, than one or two at once."""
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
