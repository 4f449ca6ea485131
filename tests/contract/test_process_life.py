"""Forks, interrupts and ends of processes, in processes of their own; and adapters that nobody closes."""

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

from tests.dags import PATIENCE, Held, Stage, driver_of, eventually, in_thread, run_process, start_process, submit
from traced_threadpool import FutureAdapter

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

CHILD = """
def one() -> int:
    return 1

def two(one: int) -> int:
    return one + 1

def in_child(function):
    "Forks; what the child says, and its exit code, come out in this process's order."
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            say("child:", function())
            code = 0
        except BaseException as error:
            say("child failed:", repr(error))
        finally:
            os._exit(code)
    say("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@needs_fork
def test_fork_while_workers_are_idle() -> None:
    """The child runs a driver on the adapter that it inherited, on workers of its own; the parent goes on."""
    code, said, errors = run_process(
        CHILD
        + """
adapter = FutureAdapter(2)
runs = driver_of(adapter, one, two)
say(runs.execute(["two"]))
in_child(lambda: runs.execute(["two"]))
say(runs.execute(["two"]))
adapter.close()
"""
    )
    assert (code, said) == (0, ["{'two': 2}", "child: {'two': 2}", "exit 0", "{'two': 2}"]), errors


@needs_fork
def test_fork_while_nodes_run() -> None:
    """A node of the parent's is held all the while, another is queued: the child does not wait for them."""
    code, said, errors = run_process(
        CHILD
        + """
started, release = threading.Event(), threading.Event()

def held() -> str:
    started.set()
    release.wait(60)
    return "held"

def below(held: str) -> str:
    return held + "!"

adapter = FutureAdapter(1)
runs = driver_of(adapter, one, two)
futures = driver_of(adapter, held, below).raw_execute(["held", "below"])
started.wait(60)
in_child(lambda: (runs.execute(["two"]), adapter.snapshot().max_workers, adapter.snapshot().blocked_nodes))
say(release.is_set())
release.set()
say(futures["below"].result(60), runs.execute(["two"]))
adapter.close()
"""
    )
    expected = ["child: ({'two': 2}, 1, 0)", "exit 0", "False", "held! {'two': 2}"]
    assert (code, said) == (0, expected), errors


@needs_fork
def test_fork_while_a_failure_of_telemetry_is_counted() -> None:
    """The thread that counts it is not there in the child, which counts on by itself."""
    code, said, errors = run_process(
        CHILD
        + """
import logging

from traced_threadpool.model.observers import Observer, Observers

class Broken(Observer):
    def node_started(self, node):
        raise OSError("no space left on device")

logging.disable()
adapter = FutureAdapter(2, metrics=False, tracing=False)
log = adapter._pool._observers.errors
adapter._pool._observers = Observers([Broken()], log)
adapter._pool._observed = True
runs = driver_of(adapter, one, two)
with log._lock:  # as another thread would have it
    in_child(lambda: (runs.execute(["two"]), adapter.telemetry_errors))
adapter.close()
"""
    )
    assert (code, said) == (0, ["child: ({'two': 2}, {'observer': 2})", "exit 0"]), errors


@needs_fork
def test_fork_while_other_threads_execute() -> None:
    """Twenty times, at any moment of theirs: no child hangs on a lock that a thread of the parent's held."""
    code, said, errors = run_process(
        CHILD
        + """
adapter = FutureAdapter(2)
runs = driver_of(adapter, one, two)
stop = threading.Event()

def busy():
    while not stop.is_set():
        assert runs.execute(["two"]) == {"two": 2}

callers = [threading.Thread(target=busy) for _ in range(2)]
for caller in callers:
    caller.start()
for _ in range(20):
    in_child(lambda: runs.execute(["two"]))
stop.set()
for caller in callers:
    caller.join()
adapter.close()
"""
    )
    assert (code, said) == (0, ["child: {'two': 2}", "exit 0"] * 20), errors


@needs_fork
def test_a_forked_child_ends_by_itself() -> None:
    """With `sys.exit`, so with all that Python does at exit, on an adapter that nobody closes."""
    code, said, errors = run_process(
        CHILD
        + """
adapter = FutureAdapter(2)
runs = driver_of(adapter, one, two)
runs.execute(["two"])
pid = os.fork()
if pid == 0:
    say("child:", runs.execute(["two"]))
    sys.exit(7)
say("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert (code, said) == (0, ["child: {'two': 2}", "exit 7"]), errors


@needs_fork
def test_fork_in_a_node() -> None:
    """The child may execute a driver and end there; the node goes on in the parent."""
    code, said, errors = run_process(
        CHILD
        + """
adapter = FutureAdapter(1)
inside = driver_of(adapter, one, two)

def forks() -> str:
    in_child(lambda: inside.execute(["two"]))
    return "forked"

say(driver_of(adapter, forks).execute(["forks"]))
adapter.close()
"""
    )
    assert (code, said) == (0, ["child: {'two': 2}", "exit 0", "{'forks': 'forked'}"]), errors


@needs_fork
def test_a_child_that_returns_from_the_node() -> None:
    """Runs none of the parent's other nodes, and ends."""
    code, said, errors = run_process(
        CHILD
        + """
adapter = FutureAdapter(1)
forked = []

def forks() -> str:
    forked.append(os.fork())
    return "child" if forked[-1] == 0 else "parent"

def below(forks: str) -> str:
    say("below in", forks)
    return forks

say(driver_of(adapter, forks, below).execute(["below"]))
adapter.close()
os.waitpid(forked[0], 0)
say("child has ended")
"""
    )
    assert (code, said) == (0, ["below in parent", "{'below': 'parent'}", "child has ended"]), errors


@needs_fork
def test_multiprocessing_pool_that_forks() -> None:
    """Its processes use the adapter that they inherited."""
    code, said, errors = run_process(
        CHILD
        + """
import multiprocessing

def plus(two: int, number: int) -> int:
    return two + number

adapter = FutureAdapter(2)
runs = driver_of(adapter, one, two, plus)
runs.execute(["two"])

def call(number):
    return runs.execute(["plus"], inputs={"number": number})["plus"]

with multiprocessing.get_context("fork").Pool(2) as pool:
    say(pool.map(call, range(4)))
adapter.close()
"""
    )
    assert (code, said) == (0, ["[2, 3, 4, 5]"]), errors


@needs_fork
def test_fork_of_a_closed_adapter() -> None:
    """It is closed in the child too."""
    code, said, errors = run_process(
        CHILD
        + """
adapter = FutureAdapter(1)
runs = driver_of(adapter, one)
runs.execute(["one"])
adapter.close()

def refused():
    try:
        runs.execute(["one"])
    except RuntimeError as error:
        return error

in_child(refused)
"""
    )
    expected = "child: this FutureAdapter is closed and takes no new work; make a new one"
    assert (code, said) == (0, [expected, "exit 0"]), errors


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
driver_of(FutureAdapter({workers}), first, second, wide_1, wide_2, last).materialize(additional_vars=["last"])
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

driver_of(adapter, outer, after).materialize(additional_vars=["after"])
"""
    )
    assert (code, said, errors) == (0, ["first", "second", "wide", "wide", "last", "after"], "")


def test_sys_exit_with_nodes_pending() -> None:
    """Its code is the process's."""
    code, said, errors = run_process(
        PENDING
        + """
driver_of(FutureAdapter(1), first, second).materialize(additional_vars=["second"])
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

driver_of(adapter, waits).materialize(additional_vars=["waits"], inputs={"given": foreign})
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


def test_threads_of_an_adapter_that_was_dropped(no_thread_left: None) -> None:
    """End, although nobody closed it."""
    adapter = FutureAdapter(2, "dropped")
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
