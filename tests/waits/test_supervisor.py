"""The sampler's life in one process: started, parked, asked, ended, killed, stopped."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import LIMIT_SECONDS, Caller, Gate, make_driver, until
from tests.waits.supervised import Using, exists, held_node, make_adapter, our_files, said, start, work
from traced_threadpool import Attribution
from traced_threadpool.waits import sampler, sampler_client
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits import supervisor as module
from traced_threadpool.waits.reasons import Method
from traced_threadpool.waits.supervisor import Supervisor

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are sampled on Linux")


def left_a_question(supervisor: Supervisor) -> bool:
    assert supervisor._sampler is not None
    return supervisor._sampler.unanswered


def test_little_work_starts_no_process(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred adapters that come and go with a node or two have a thread at most."""
    spawned = []
    monkeypatch.setattr(module, "start_sampler", lambda *_: spawned.append(1))
    monkeypatch.setattr(module, "WARM_UP_SECONDS", 3.0)  # this machine may be busy, and then a node takes its time
    supervisor = using(closed_seconds=10.0)
    for _ in range(100):
        work(0.0)
        assert sum(thread.name == "traced-threadpool-waits" for thread in threading.enumerate()) <= 2
    assert spawned == []
    assert supervisor.method.method == "none"


def test_adapters_that_come_and_go_share_one_process(using: Using) -> None:
    """Never more than one at a time, and the same one while work is near."""
    supervisor = using(closed_seconds=10.0)
    first = start(supervisor)
    for _ in range(20):
        work(0.01)
        assert supervisor._sampler is not None
        assert supervisor._sampler.process.pid == first


def test_after_idleness_nothing_is_left(using: Using) -> None:
    """No thread, process or file; and the next node finds all of it again."""
    before = our_files()
    supervisor = using(idle_seconds=0.2, closed_seconds=10.0)

    def naps() -> int:
        time.sleep(0.06)
        return 1

    with make_adapter(tracing=False) as adapter:
        driver = make_driver(adapter, naps)
        there: list[tuple[int, threading.Thread]] = []

        def is_there() -> bool:
            driver.execute(["naps"])
            thread, sampler = supervisor._thread, supervisor._sampler  # which may go at any moment
            if thread is not None and sampler is not None:
                there.append((sampler.process.pid, thread))
            return len(there) > 0

        for _ in range(2):
            there.clear()
            until(is_there)
            ((pid, thread),) = there
            until(lambda: not exists(pid) and not thread.is_alive())  # noqa: B023
            assert len(our_files()) <= len(before)  # those of the process's own may go meanwhile
            assert supervisor.method == Method(method="none", reason="warming_up")
        assert adapter.telemetry_errors == {}


def test_after_the_last_adapter_was_closed_nothing_is_left(using: Using) -> None:
    """Two seconds later, here at once."""
    before = our_files()
    supervisor = using(closed_seconds=0.0)
    pid = start(supervisor)
    until(lambda: not exists(pid) and len(our_files()) <= len(before))
    assert supervisor._thread is None


def test_a_worker_that_takes_the_place_of_one_that_has_gone_is_sampled(using: Using) -> None:
    """The same row in shared memory, and another thread's file."""
    supervisor = using(closed_seconds=10.0)
    start(supervisor)
    assert supervisor._memory is not None
    words = supervisor._memory.words
    until(lambda: words[shm.ROW + shm.THREAD] == 0)
    for _ in range(3):
        generation, samples = words[shm.ROW + shm.GENERATION], words[shm.ROW + shm.SAMPLES]
        with held_node():
            until(lambda: words[shm.ROW + shm.SAMPLES] > samples)  # noqa: B023
        assert words[shm.ROWS] == 1
        assert words[shm.ROW + shm.GENERATION] == generation + 1
        until(lambda: words[shm.ROW + shm.THREAD] == 0)


def test_a_worker_that_has_gone_holds_no_lock(using: Using) -> None:
    """The interpreter keeps another thread's state where its was, and that one is to be named as the lock's holder."""
    supervisor = using(closed_seconds=10.0)
    start(supervisor)
    assert supervisor._memory is not None
    words = supervisor._memory.words
    until(lambda: words[shm.ROW + shm.THREAD] == 0)
    assert words[shm.ROWS] == 1
    assert words[shm.ROW + shm.THREAD_STATE] == 0
    with held_node():
        assert words[shm.ROW + shm.THREAD_STATE] != 0


def test_a_question_is_answered_at_once(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the sampler sleeps between rounds that are seconds apart: it needs none of them for that."""
    monkeypatch.setattr(sampler_client, "ANSWER_SECONDS", LIMIT_SECONDS)  # on a busy machine an answer takes its time
    supervisor = using(closed_seconds=10.0)
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    start(supervisor)
    with make_adapter(tracing=False, attribution=Attribution(budget=0.000_01)) as adapter:
        caller = Caller(lambda: make_driver(adapter, held).execute(["held"]))
        gate.wait_for(1)
        assert supervisor._memory is not None
        words = supervisor._memory.words
        until(lambda: words[shm.INTERVAL_NS] == sampler.MOST_NS)
        rounds = words[shm.ROUNDS]
        for run_number in range(10):
            assert supervisor.holders(run_number) == {}
        assert words[shm.ROUNDS] - rounds < 5
        assert not left_a_question(supervisor)
        gate.open()
        assert isinstance(caller.outcome(), dict)


def test_nothing_is_sampled_while_no_node_runs(using: Using) -> None:
    """The sampler and the thread beside it sleep; the next node wakes both."""
    supervisor = using(closed_seconds=10.0)
    start(supervisor)
    assert supervisor._memory is not None
    words = supervisor._memory.words
    until(lambda: words[shm.PHASE] == shm.PARKED and supervisor.sleeps)
    rounds, used_ns = words[shm.ROUNDS], words[shm.CPU_NS]
    time.sleep(0.3)
    assert (words[shm.ROUNDS], words[shm.CPU_NS], words[shm.PHASE]) == (rounds, used_ns, shm.PARKED)
    with held_node():
        until(lambda: words[shm.ROUNDS] > rounds)


@pytest.mark.measures
@pytest.mark.parametrize("workers", [1, 16])
def test_the_sampler_keeps_to_its_budget(using: Using, workers: int) -> None:
    """What it uses, beyond what it may save up, is its share; and more workers are sampled less often."""
    supervisor = using(closed_seconds=10.0)
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    functions = []
    for index in range(workers):

        def each() -> int:
            return held()

        each.__name__ = f"node_{index}"
        functions.append(each)
    start(supervisor)
    with make_adapter(tracing=False, max_workers=workers, attribution=Attribution(budget=0.01)) as adapter:
        caller = Caller(lambda: make_driver(adapter, *functions).execute([function.__name__ for function in functions]))
        gate.wait_for(workers)
        assert supervisor._memory is not None
        words = supervisor._memory.words
        used_ns, started_ns = words[shm.CPU_NS], time.monotonic_ns()
        time.sleep(1.5)
        elapsed_ns = time.monotonic_ns() - started_ns
        used_ns = words[shm.CPU_NS] - used_ns
        interval_ns = words[shm.INTERVAL_NS]
        gate.open()
        assert isinstance(caller.outcome(), dict)
    assert used_ns < sampler.SAVINGS_NS + 2 * 0.01 * elapsed_ns
    assert interval_ns >= sampler.LEAST_NS


def test_a_sampler_that_was_killed(using: Using, caplog: pytest.LogCaptureFixture) -> None:
    """Nodes go on and add up, the reason is said, no zombie stays; after a while there is another."""
    caplog.set_level(logging.INFO, "traced_threadpool")
    supervisor = using(closed_seconds=10.0)
    pid = start(supervisor)
    os.kill(pid, 9)
    with held_node():
        until(lambda: supervisor.method == Method(method="none", reason="sampler_failed"))
        assert not exists(pid)
        until(lambda: bool(said(caplog)))  # a moment later
    assert [record.getMessage() for record in said(caplog)] == [
        "where nodes wait is not fully known: the sampler could not be started, or has ended"
    ]
    supervisor._failed_at = None  # a minute later
    assert start(supervisor) != pid


def test_a_sampler_that_is_stopped(using: Using) -> None:
    """A question takes its time limit once; then none does until there are answers again."""
    supervisor = using(closed_seconds=10.0)
    pid = start(supervisor)
    os.kill(pid, 19)
    try:
        before = time.monotonic()
        assert [supervisor.holders(number) for number in range(50)] == [{}] * 50
        assert time.monotonic() - before < 10 * sampler_client.ANSWER_SECONDS
        assert left_a_question(supervisor)
    finally:
        os.kill(pid, 18)

    def answers() -> bool:
        supervisor.holders(1)
        return not left_a_question(supervisor)

    until(answers)


def test_a_stopped_sampler_is_ended_all_the_same(using: Using) -> None:
    """By force, once its time is up."""
    supervisor = using(closed_seconds=0.1)
    pid = start(supervisor)
    os.kill(pid, 19)
    until(lambda: not exists(pid))


def test_many_descriptors(using: Using) -> None:
    """A process with thousands open, also at the numbers that the sampler has them at, has a sampler."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 1_200
    if hard != resource.RLIM_INFINITY and hard < count + 200:
        pytest.skip("no more descriptors are to be used")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 200), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    try:
        supervisor = using(closed_seconds=10.0)
        start(supervisor)
        assert supervisor._sampler is not None
        assert supervisor._sampler.channel.fileno() > 1_024
        assert supervisor.method == Method(method="process")
        assert supervisor.holders(1) == {}
    finally:
        for each in opened:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_that_is_let_go_while_a_node_starts(using: Using) -> None:
    """The worker writes where nobody looks any more: no error, and the node adds up."""
    supervisor = using(closed_seconds=10.0)

    def lets_go() -> int:
        with supervisor._lock:
            supervisor._close()
        return 1

    registry = CollectorRegistry()
    with make_adapter(tracing=False, registry=registry) as adapter:
        assert make_driver(adapter, lets_go).execute(["lets_go"]) == {"lets_go": 1}
        assert adapter.telemetry_errors == {}


def test_at_exit_nothing_waits_for_nodes_that_still_run(using: Using) -> None:
    """`stop` ends the sampler at once, although a node runs; it adds up when it ends."""
    supervisor = using(closed_seconds=10.0)
    pid = start(supervisor)
    gate, registry = Gate(), CollectorRegistry()

    def held() -> int:
        gate()
        return 1

    with make_adapter(tracing=False, registry=registry) as adapter:
        caller = Caller(lambda: make_driver(adapter, held).execute(["held"]))
        gate.wait_for()
        thread = supervisor._thread
        assert thread is not None
        supervisor.stop()
        until(lambda: not exists(pid) and not thread.is_alive())  # and the node runs
        gate.open()
        assert caller.outcome() == {"held": 1}
        assert adapter.telemetry_errors == {}
