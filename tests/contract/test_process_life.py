"""Interrupts and ends of processes, in processes of their own; and adapters that nobody closes."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import subprocess
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from tests.contract.shared import AdapterClass
from tests.dags import PATIENCE, Held, Stage, driver_of, eventually, in_thread, run_process, start_process, submit
from traced_threadpool import FutureAdapter

PENDING = """
import time
from concurrent.futures import ThreadPoolExecutor

spare = ThreadPoolExecutor(1)

def wait_for_exit():
    "Until the interpreter is at its end: from then on no executor takes work."
    try:
        while True:
            spare.submit(int)
            time.sleep(0.01)
    except RuntimeError:
        return

def first() -> int:
    wait_for_exit()
    say("first")
    return 1

def second(first: int) -> int:
    say("second")
    return 2

def wide_1(second: int) -> int:
    say("wide")
    return 1

def wide_2(second: int) -> int:
    say("wide")
    return 1

def last(wide_1: int, wide_2: int) -> int:
    say("last")
    return 1
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_exit_with_nodes_pending(workers: int) -> None:
    """They are done, as with `ThreadPoolExecutor`; then the process ends by itself."""
    code, said, errors = run_process(
        PENDING
        + f"""
start(driver_of(FutureAdapter({workers}), first, second, wide_1, wide_2, last), ["last"])
"""
    )
    assert (code, said, errors) == (0, ["first", "second", "wide", "wide", "last"], "")


def test_exit_while_a_node_executes_a_driver() -> None:
    """The nested run is done too."""
    code, said, errors = run_process(
        PENDING
        + """
adapter = FutureAdapter(1)

def outer() -> int:
    return driver_of(adapter, first, second, wide_1, wide_2, last).execute(["last"])["last"]

def after(outer: int) -> int:
    say("after")
    return 1

start(driver_of(adapter, outer, after), ["after"])
"""
    )
    assert (code, said, errors) == (0, ["first", "second", "wide", "wide", "last", "after"], "")


def test_sys_exit_with_nodes_pending() -> None:
    """Its code is the process's."""
    code, said, errors = run_process(
        PENDING
        + """
start(driver_of(FutureAdapter(1), first, second), ["second"])
sys.exit(3)
"""
    )
    assert (code, said, errors) == (3, ["first", "second"], "")


def test_exit_with_a_foreign_future_that_nobody_resolves() -> None:
    """Its node never runs; the process ends all the same."""
    code, said, errors = run_process(
        """
adapter, foreign = FutureAdapter(1), Future()

def waits(given: object) -> object:
    say("never")

start(driver_of(adapter, waits), ["waits"], inputs={"given": foreign})
say("end")
"""
    )
    assert (code, said, errors) == (0, ["end"], "")


def test_exit_with_an_idle_adapter_that_nobody_closed() -> None:
    """Is quiet."""
    code, said, errors = run_process(
        """
def one() -> int:
    return 1

adapter = FutureAdapter(2)
say(driver_of(adapter, one).execute(["one"]))
"""
    )
    assert (code, said, errors) == (0, ["{'one': 1}"], "")


def sent_and_noticed(process: subprocess.Popen[str], answer: Future[Any]) -> bool:
    """Sends a SIGINT. One that comes just before the main thread waits for a lock goes unnoticed: then another."""
    process.send_signal(signal.SIGINT)
    concurrent.futures.wait([answer], 2)
    return answer.done()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_sigint_ends_a_script() -> None:
    """Ctrl-C in the terminal: running nodes end, nothing else starts, and `KeyboardInterrupt` is what it dies of."""
    script = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background is told to ignore it

class Announcing(FutureAdapter):
    def build_result(self, **outputs):
        say("waiting")
        return super().build_result(**outputs)

def first() -> int:
    sys.stdin.readline()
    say("first has ended")
    return 1

def second(first: int) -> int:
    say("second has started")
    return 2

def other() -> int:
    say("other has started")
    return 3

try:
    driver_of(Announcing(1), first, second, other).execute(["second", "other"])
except KeyboardInterrupt:
    say("interrupted")
    raise
"""
    with start_process(script) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "waiting\n"
            interrupted = in_thread(process.stdout.readline)
            assert eventually(lambda: sent_and_noticed(process, interrupted))
            assert interrupted.result() == "interrupted\n"
            said, errors = process.communicate("go on\n", timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT, errors
    assert said == "first has ended\n"
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


# Adapters that nobody closes


def all_gone(prefix: str) -> bool:
    """Whether there are no such threads, once what can be collected is.

    A free-threaded interpreter collects an adapter's pool, which its workers have used too, where another would count
    references; and it may be that a worker still has it in hand the first time.
    """
    gc.collect()
    return not worker_threads(prefix)


def worker_threads(prefix: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


def test_threads_of_an_adapter_that_was_dropped(adapter_class: AdapterClass) -> None:
    """End, although nobody closed it."""
    adapter = adapter_class(2, "dropped")
    submit(adapter, lambda: 1).result(PATIENCE)
    assert worker_threads("dropped")
    del adapter
    assert eventually(lambda: all_gone("dropped"))


def test_nodes_of_an_adapter_that_was_dropped(stage: Stage) -> None:
    """Are done all the same, running, queued and blocked ones."""
    held, adapter = Held(stage), FutureAdapter(1, "dropped")
    futures = [submit(adapter, held)]
    futures += [submit(adapter, lambda: "queued"), submit(adapter, lambda x: x, x=futures[0])]
    del adapter
    gc.collect()
    held.release.set()
    assert [future.result(PATIENCE) for future in futures] == ["held", "queued", "held"]
    del futures, held
    assert eventually(lambda: all_gone("dropped"))


def test_a_node_that_waits_for_a_foreign_future_when_its_adapter_is_dropped(no_thread_left: None) -> None:
    """Is done as well: who can resolve the future keeps what depends on it."""
    foreign = Future[Any]()
    future = submit(FutureAdapter(1, "dropped"), lambda x: x, x=foreign)
    gc.collect()
    foreign.set_result("there")
    assert future.result(PATIENCE) == "there"
    del future, foreign
    assert eventually(lambda: all_gone("dropped"))


@pytest.mark.parametrize("close", [True, False], ids=["closed", "dropped"])
def test_threads_after_a_hundred_adapters(no_thread_left: None, *, close: bool) -> None:
    """Are as many as before."""

    def one() -> int:
        return 1

    def two(one: int) -> int:
        return one + 1

    before = set(threading.enumerate())
    for _ in range(100):
        adapter = FutureAdapter(2)
        assert driver_of(adapter, one, two).execute(["two"]) == {"two": 2}
        if close:
            adapter.close()
    del adapter
    assert eventually(lambda: gc.collect() >= 0 and set(threading.enumerate()) <= before)


def test_when_no_thread_can_be_started(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told, nothing is left behind, and later, when there are threads again, the adapter works."""

    def one() -> int:
        return 1

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    adapter = stage.adapter(FutureAdapter(1))
    runs = driver_of(adapter, one)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            runs.execute(["one"])
    pool = adapter.snapshot()
    assert (pool.queue_depth, pool.active_workers, pool.workers, pool.active_runs) == (0, 0, 0, 0)
    assert in_thread(runs.execute, ["one"]).result(PATIENCE) == {"one": 1}


def test_an_interrupt_while_a_thread_is_started(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C can come anywhere, also there: the adapter works on."""

    def one() -> int:
        return 1

    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    runs = driver_of(stage.adapter(FutureAdapter(1)), one)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.execute(["one"])
    assert in_thread(runs.execute, ["one"]).result(PATIENCE) == {"one": 1}
