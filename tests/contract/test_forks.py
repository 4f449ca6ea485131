"""Forked children, in processes of their own: each uses the adapter that it inherited, and ends."""

from __future__ import annotations

import os
import sys

import pytest

from tests.dags import run_process

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# A child that Python has not seen being forked hangs at its end from 3.13 on, wherever the parent had an executor:
# the interpreter joins the parent's threads, by handles that only its own fork resets.
ENDS = ["os._exit(7)", *(["sys.exit(7)", "adapter.close(); sys.exit(7)"] if sys.version_info < (3, 13) else [])]

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

def wakings():
    "How often each other thread has left its CPU so far: one that waits for the GIL does every 5 ms."
    import pathlib

    own, tasks = threading.get_native_id(), pathlib.Path("/proc/self/task").iterdir()
    return {task.name: (task / "status").read_text().split("voluntary")[1:] for task in tasks if int(task.name) != own}

def fork_in_c():
    "Forks as uWSGI does. A thread that waits for the GIL just then leaves it broken in the child: CPython's own fault."
    import ctypes, time

    library = ctypes.PyDLL(None)  # keeps the GIL
    before = None
    while before != (before := wakings()):
        time.sleep(0.1)
    return library.fork()
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
futures = start(driver_of(adapter, held, below), ["held", "below"])
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
@pytest.mark.parametrize("before", ['runs.execute(["two"])', "pass"], ids=["used before", "not used before"])
def test_forked_child_imports_nothing(before: str) -> None:
    """A thread of the parent's may be in the middle of the same import: the child would wait for its lock for ever."""
    code, said, errors = run_process(
        CHILD
        + f"""
parent = os.getpid()
looked_for = []

class Finder:
    "Finds nothing, and keeps what a child looks for."
    def find_spec(self, name, path=None, target=None):
        if os.getpid() != parent:
            looked_for.append(name)

sys.meta_path.insert(0, Finder())
adapter = FutureAdapter(2, stall_after=60)
runs = driver_of(adapter, one, two)
{before}

def child():
    found = runs.execute(["two"])
    adapter.close()
    return found, looked_for

in_child(child)
adapter.close()
"""
    )
    assert (code, said) == (0, ["child: ({'two': 2}, [])", "exit 0"]), errors


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calls the C library's fork")
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("telemetry", ["", "tracing=False, metrics=False, attribution=False", "record=True"])
def test_a_fork_that_python_does_not_see(telemetry: str, ends: str) -> None:
    """As uWSGI makes it, without `py-call-osafterfork`: the child runs a driver on workers of its own, and ends."""
    code, said, errors = run_process(
        CHILD
        + f"""
adapter = FutureAdapter(2, {telemetry})
runs = driver_of(adapter, one, two)
runs.execute(["two"])
pid = fork_in_c()
if pid == 0:
    say("child:", runs.execute(["two"]), adapter.snapshot().workers > 0)
    {ends}
say("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
say(runs.execute(["two"]))
adapter.close()
"""
    )
    assert (code, said) == (0, ["child: {'two': 2} True", "exit 7", "{'two': 2}"]), errors


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calls the C library's fork")
def test_a_fork_that_python_does_not_see_while_nodes_run() -> None:
    """Neither the locks nor the nodes of the parent's threads matter in the child."""
    code, said, errors = run_process(
        CHILD
        + """
started, release = threading.Event(), threading.Event()

def held() -> str:
    started.set()
    release.wait(60)
    return "held"

adapter = FutureAdapter(1, attribution=False)  # which looks at a node's thread twenty times a second
runs = driver_of(adapter, one, two)
futures = start(driver_of(adapter, held), ["held"])
started.wait(60)
with adapter._pool._lock, adapter._assembly.errors._lock:  # as another thread would have them
    pid = fork_in_c()
    if pid == 0:
        say("child:", runs.execute(["two"]), adapter.telemetry_errors)
        os._exit(7)
say("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
release.set()
say(futures["held"].result(60))
adapter.close()
"""
    )
    assert (code, said) == (0, ["child: {'two': 2} {}", "exit 7", "held"]), errors


@needs_fork
def test_forks_while_containers_change() -> None:
    """Four threads run drivers of ever new graphs, which fill all containers: of 40 children none hangs."""
    code, said, errors = run_process(
        CHILD
        + """
adapter = FutureAdapter(2, record=True)
stop = threading.Event()

def busy():
    while not stop.is_set():
        assert driver_of(adapter, one, two).execute(["two"]) == {"two": 2}

callers = [threading.Thread(target=busy) for _ in range(4)]
for caller in callers:
    caller.start()
runs = driver_of(adapter, one, two)
for _ in range(40):
    in_child(lambda: runs.execute(["two"]))
stop.set()
for caller in callers:
    caller.join()
adapter.close()
"""
    )
    assert (code, said) == (0, ["child: {'two': 2}", "exit 0"] * 40), errors
