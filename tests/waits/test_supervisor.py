"""The sampler's life in one process, and what is said and still known where a part of it cannot be had."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from prometheus_client import CollectorRegistry

from tests.telemetry import telemetry_helpers
from tests.telemetry.telemetry_helpers import (
    LIMIT_SECONDS,
    Caller,
    Gate,
    Traces,
    make_driver,
    samples,
    spend,
    threads_switched_often,
    until,
)
from traced_threadpool import Attribution, FutureAdapter
from traced_threadpool.waits import calibrate, reasons, sampler, sampler_client, spawn, worker_rows
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits import supervisor as module
from traced_threadpool.waits.reasons import REASONS, Method
from traced_threadpool.waits.supervisor import Supervisor

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are looked at on Linux")

STATES = ("gil", "runqueue", "network", "disk", "lock", "sleep", "other")


class Using:
    """Has `make_adapter` make adapters with a supervisor of their own; it is gone at the end of the test."""

    supervisors: ClassVar[list[Supervisor]] = []

    def __call__(self, **options: Any) -> Supervisor:
        supervisor = Supervisor(**{"closed_seconds": 0.0, **options})
        self.supervisors.append(supervisor)
        return supervisor


def make_adapter(traces: Traces | None = None, **options: Any) -> FutureAdapter:
    """An adapter with the supervisor that the test uses, if it uses one."""
    return telemetry_helpers.make_adapter(traces, waits=Using.supervisors[-1] if Using.supervisors else None, **options)


@pytest.fixture
def using() -> Iterator[Using]:
    yield Using()
    supervisors = Using.supervisors.copy()
    Using.supervisors.clear()
    for supervisor in supervisors:
        supervisor.stop()
    until(lambda: all(supervisor._thread is None for supervisor in supervisors))


def work(seconds: float) -> None:
    def naps() -> int:
        time.sleep(seconds)
        return 1

    with make_adapter(tracing=False) as adapter:
        make_driver(adapter, naps).execute(["naps"])


def start(supervisor: Supervisor) -> int:
    """Works until the sampler is there; its process."""

    def naps() -> int:
        time.sleep(0.06)
        return 1

    with make_adapter(tracing=False) as adapter:  # while one is open, it stays
        driver = make_driver(adapter, naps)
        until(lambda: bool(driver.execute(["naps"])) and supervisor.method.method == "process")
        assert supervisor._sampler is not None
        return supervisor._sampler.process.pid


def left_a_question(supervisor: Supervisor) -> bool:
    assert supervisor._sampler is not None
    return supervisor._sampler.unanswered


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "traced_threadpool"]


@contextmanager
def held_node(**options: Any) -> Iterator[None]:
    """While a node runs, until the end of the block."""
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    with make_adapter(tracing=False, **options) as adapter:
        caller = Caller(lambda: make_driver(adapter, held).execute(["held"]))
        gate.wait_for()
        try:
            yield
        finally:
            gate.open()
            assert caller.outcome() == {"held": 1}


def our_files() -> list[str]:
    """Links of descriptors that could be the sampler's."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            link = str(each.readlink())
        except OSError:
            continue
        if "traced-threadpool-waits" in link or link.endswith(("/schedstat", "/syscall", "/mem")):
            found.append(link)
    return found


def exists(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for pid 1 to collect it."""
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return False


# What cannot be had


def no(*_: Any, **__: Any) -> Any:
    raise OSError("not here")


def unreadable(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    (folder / "self").symlink_to("/proc/self")
    return {"proc": folder}


def without_schedstat(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(worker_rows, "RunQueueDelay", no)
    return {}


def another_architecture(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr("platform.machine", lambda: "s390x")
    return {}


def another_c_library(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(calibrate, "_futex_word", lambda text, number: None)
    return {}


def not_linux(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(sys, "platform", "darwin")
    patch.setattr(worker_rows, "RunQueueDelay", no)
    return {}


def free_threaded(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    return {}


def subinterpreter(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(reasons, "_in_subinterpreter", lambda: True)
    return {}


def embedded(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(sys, "executable", "")
    patch.setattr(sys, "base_prefix", str(folder))
    return {}


def frozen(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(sys, "frozen", True, raising=False)
    return {}


def without_ctypes(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setitem(sys.modules, "ctypes", None)
    return {}


def without_memfd(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.delattr(os, "memfd_create")
    return {}


def too_many_workers(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(shm, "MAX_WORKERS", 0)
    return {}


def too_many_files(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(worker_rows, "MAX_DELAY_FILES", 0)
    return {}


def no_process(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(spawn._Unseen, "spawn", no)
    patch.setattr(os, "posix_spawn", no)
    return {}


def old_c_library(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    def posix_spawn(*_: Any, **__: Any) -> int:
        raise NotImplementedError("setsid unavailable on this platform")

    patch.setattr(spawn._Unseen, "spawn", no)
    patch.setattr(os, "posix_spawn", posix_spawn)
    return {}


def no_shared_memory(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(os, "memfd_create", no)
    return {}


def another_program(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(spawn, "_PROGRAM", "raise SystemExit(1)")
    return {}


@pytest.mark.parametrize(
    ("lacking", "method", "reason", "sleep_is"),
    [
        (unreadable, "none", "proc_unreadable", "other"),
        (without_schedstat, "process", "runqueue_unknown", "sleep"),
        (another_architecture, "none", "unknown_architecture", "other"),
        (another_c_library, "process", "gil_not_found", "sleep"),
        (not_linux, "none", "unsupported_platform", "other"),
        (free_threaded, "process", "free_threaded", "sleep"),
        (subinterpreter, "none", "subinterpreter", "other"),
        (embedded, "none", "no_interpreter", "other"),
        (frozen, "none", "no_interpreter", "other"),
        (without_ctypes, "process", "runqueue_unknown,gil_not_found", "sleep"),
        (without_memfd, "none", "unsupported_platform", "other"),
        (too_many_workers, "none", "warming_up,too_many_workers", "other"),
        (too_many_files, "process", "runqueue_unknown", "sleep"),
        (no_process, "none", "sampler_failed", "other"),
        (old_c_library, "none", "sampler_failed", "other"),
        (no_shared_memory, "none", "sampler_failed", "other"),
        (another_program, "none", "sampler_failed", "other"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_cannot_be_had_is_said_and_the_rest_is_right(
    using: Using,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    lacking: Callable[[pytest.MonkeyPatch, Path], dict[str, Any]],
    method: str,
    reason: str,
    sleep_is: str,
) -> None:
    """Once in the log at INFO, on the run's span, in the info metric; the states add up, and none is a guess."""

    def computes() -> int:
        spend(0.05, time.thread_time)
        return 1

    def naps(computes: int) -> int:
        time.sleep(0.3)
        return 1

    caplog.set_level(logging.INFO, "traced_threadpool")
    traces, registry = Traces(), CollectorRegistry()
    with monkeypatch.context() as patch:
        supervisor = using(**lacking(patch, tmp_path))
        with make_adapter(traces, registry=registry, max_workers=1, attribution=Attribution(budget=1.0)) as adapter:
            driver = make_driver(adapter, computes, naps)
            # The sampler, or what it lacks, takes its time to come on a busy machine.
            until(lambda: bool(driver.execute(["naps"])) and supervisor.method == Method(method=method, reason=reason))
            traces.clear()
            driver.execute(["naps"])
            info = samples(registry, "hamilton_attribution_info")
            reasons = [each for each in reason.split(",") if each != "warming_up"]
            until(lambda: len(said(caplog)) >= len(reasons))
            assert adapter.telemetry_errors == {}

    run = traces.attributes("hamilton.run")
    assert (run["hamilton.attribution.method"], run["hamilton.attribution.reason"]) == (method, reason)
    assert info == {(method, reason): 1}
    assert {record.levelno for record in said(caplog)} == {logging.INFO}
    assert sorted(record.getMessage().partition(" (")[0] for record in said(caplog)) == sorted(
        f"where nodes wait is not fully known: {REASONS[each]}" for each in reasons
    )

    for name in ("computes", "naps"):
        span, attributes = traces.only(name), traces.attributes(name)
        states = {state: attributes.get(f"hamilton.node.wait.{state}.duration", 0.0) for state in STATES}
        total_ns = sum(round(one * 1e9) for one in (*states.values(), attributes["hamilton.node.cpu.duration"]))
        assert span.start_time is not None
        assert span.end_time is not None
        assert total_ns == span.end_time - span.start_time
        if name == "naps":
            assert states[sleep_is] > 0.25, states
        else:
            assert attributes["hamilton.node.cpu.duration"] > 0.04
        if method == "none":
            assert not {state for state, one in states.items() if one} - {"other", "runqueue"}
        if {"runqueue_unknown", "too_many_workers", "unsupported_platform"} & set(reasons) and lacking != without_memfd:
            assert states["runqueue"] == 0
        if reason in ("free_threaded", "gil_not_found"):
            assert states["gil"] == 0


def test_without_a_lock_to_wait_for_nothing_waits_for_it(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a free-threaded interpreter the process's counter stands still, whatever the threads do."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    supervisor = using()
    with threads_switched_often():
        work(0.3)
    assert supervisor.gil_wait_seconds == 0


def test_a_sampler_that_could_not_be_started_is_tried_again(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; nothing is to be done for it."""
    supervisor = using(closed_seconds=10.0)
    with monkeypatch.context() as patch:
        no_process(patch, Path())
        with held_node():
            until(lambda: supervisor.method.reason == "sampler_failed")
    assert supervisor.method == Method(method="none", reason="sampler_failed")
    work(0.2)
    assert supervisor.method == Method(method="none", reason="sampler_failed")
    monkeypatch.setattr(module, "RESTART_SECONDS", 0.0)
    start(supervisor)
    assert supervisor.method == Method(method="process")


def test_the_interpreter_lock_is_looked_for_again(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, and while nodes go on, for on a machine with much else to do the first look may see too little."""
    supervisor = using(closed_seconds=10.0)
    with held_node():
        with monkeypatch.context() as patch:
            another_c_library(patch, Path())
            until(lambda: supervisor.method == Method(method="process", reason="gil_not_found"))
        first = supervisor._sampler
        monkeypatch.setattr(module, "RESTART_SECONDS", 0.0)
        until(lambda: supervisor.method == Method(method="process"))
        assert first is not None
        assert first.process.has_ended()


def test_an_interpreter_lock_that_cannot_be_found_is_given_up(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look holds it for a moment, so there are few."""
    supervisor = using(closed_seconds=10.0)
    monkeypatch.setattr(module, "RESTART_SECONDS", 0.0)
    looks = []

    def finds_nothing(**_: Any) -> NoReturn:
        looks.append(1)
        raise calibrate.NoCalibration("no majority")

    monkeypatch.setattr(module, "calibrate", finds_nothing)
    with held_node(attribution=Attribution(budget=1.0)):
        until(lambda: len(looks) == module.GIL_TRIES)
        until(lambda: supervisor.method == Method(method="process", reason="gil_not_found"))
        assert supervisor._memory is not None
        words = supervisor._memory.words
        rounds = words[shm.ROUNDS]
        until(lambda: words[shm.ROUNDS] > rounds + 100)
    assert len(looks) == module.GIL_TRIES


def test_no_descriptor_is_to_be_had(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node pays for one try, no more, and no file of ours stays open."""
    tries = []

    def too_many_open(*_: Any) -> int:
        tries.append(1)
        raise OSError(24, "Too many open files")

    before = our_files()
    supervisor = using()
    monkeypatch.setattr(os, "ftruncate", too_many_open)
    for _ in range(3):
        work(0.0)
    assert (len(tries), our_files()) == (1, before)
    assert supervisor.method == Method(method="none", reason="sampler_failed")


# Its life


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
            assert our_files() == before
            assert supervisor.method == Method(method="none", reason="warming_up")
        assert adapter.telemetry_errors == {}


def test_after_the_last_adapter_was_closed_nothing_is_left(using: Using) -> None:
    """Two seconds later, here at once."""
    before = our_files()
    supervisor = using(closed_seconds=0.0)
    pid = start(supervisor)
    until(lambda: not exists(pid) and our_files() == before)
    assert supervisor._thread is None


def test_a_worker_that_takes_the_place_of_one_that_has_gone_is_looked_at(using: Using) -> None:
    """The same row on the board, and another thread's file."""
    supervisor = using(closed_seconds=10.0)
    start(supervisor)
    assert supervisor._memory is not None
    words = supervisor._memory.words
    until(lambda: words[shm.ROW + shm.THREAD] == 0)
    for _ in range(3):
        generation, looks = words[shm.ROW + shm.GENERATION], words[shm.ROW + shm.SAMPLES]
        with held_node():
            until(lambda: words[shm.ROW + shm.SAMPLES] > looks)  # noqa: B023
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


def test_nothing_is_looked_at_while_no_node_runs(using: Using) -> None:
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


@pytest.mark.parametrize("workers", [1, 16])
def test_the_sampler_keeps_to_its_budget(using: Using, workers: int) -> None:
    """What it uses, beyond what it may save up, is its share; and more workers are looked at less often."""
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
        pytest.skip("no more descriptors are to be had")
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


def test_a_board_that_is_let_go_while_a_node_starts(using: Using) -> None:
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
