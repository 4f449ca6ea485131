"""Workers, their server and the driver ending at any moment: one node fails at most, and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from tests.backends.calls import background, call, held, is_alive, names_in_shared_memory, pids, prepared
from tests.dags import PATIENCE, eventually, in_thread, run_process, start_process
from traced_threadpool.backends import Processes, WorkerCrashed, WorkerSetupError
from traced_threadpool.engine.backends.base import Timing

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and process ids of POSIX")

Make = Callable[..., Processes]

KILLED = "was killed by signal 9 \\(SIGKILL, which the kernel sends when memory runs out\\)"


def running(backend: Processes, tmp_path: Path, name: str = "a") -> tuple[Any, Any, int]:
    """A call that is held: the call, its future, its process."""
    started = tmp_path / f"started-{name}"
    one, future = background(backend, held, started=started, release=tmp_path / f"release-{name}")
    assert eventually(lambda: started.exists() and bool(started.read_text()))
    return one, future, int(started.read_text())


# A worker is killed


def test_before_its_node(processes: Make) -> None:
    """The next node does not notice: it goes to another worker."""
    backend = processes(1)
    pid = call(backend, os.getpid)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not is_alive(pid))
    assert call(backend, os.getpid) != pid


def _prepares() -> Callable[..., None]:
    """Made here, so that a worker gets it by value and does not import this module."""

    def prepares(begun: Path, release: Path) -> None:
        import os
        import time

        with begun.open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not release.exists():
            time.sleep(0.005)

    return prepares


prepares = _prepares()
"""An initializer that says that it runs, in one file, and waits for another."""


def starting(begun: Path, count: int) -> int:
    """The process of the worker that starts, the `count`th one."""
    assert eventually(lambda: begun.exists() and begun.read_text().count("\n") == count)
    return int(begun.read_text().split()[-1])


def test_while_it_starts(processes: Make, tmp_path: Path) -> None:
    """Its node has not begun: another worker is started for it, whichever of the two processes was killed."""
    begun, release = tmp_path / "begun", tmp_path / "release"
    backend = processes(1, initializer=prepares, initargs=(begun, release))
    _, future = background(backend, os.getpid)
    os.kill(starting(begun, 1), signal.SIGKILL)
    server = int(Path(f"/proc/{starting(begun, 2)}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGKILL)
    third = starting(begun, 3)
    release.touch()
    assert future.result(PATIENCE) == third


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_whenever_it_starts(processes: Make, method: str, tmp_path: Path) -> None:
    """After three, the node says so; the next one has as many."""
    begun, release = tmp_path / "begun", tmp_path / "release"
    backend = processes(1, start_method=method, initializer=prepares, initargs=(begun, release))
    _, future = background(backend, os.getpid)
    for count in range(1, 4):
        os.kill(starting(begun, count), signal.SIGKILL)
    with pytest.raises(WorkerSetupError, match="ended before it was ready, with exit code -9"):
        future.result(PATIENCE)
    release.touch()
    assert call(backend, int) == 0


def test_one_that_ends_itself_while_it_starts_is_not_started_again(processes: Make, tmp_path: Path) -> None:
    """It would do the same."""

    def ends(begun: Path) -> None:
        with begun.open("a") as file:
            file.write("x")
        os._exit(3)

    backend = processes(1, initializer=ends, initargs=(tmp_path / "begun",))
    with pytest.raises(WorkerSetupError, match="ended before it was ready, with exit code 3"):
        call(backend, int)
    assert (tmp_path / "begun").read_text() == "x"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells that a connection had unread bytes")
def test_with_its_node_on_the_way(processes: Make) -> None:
    """It has not read the call, so it has not begun: another worker runs it."""
    backend = processes(1)
    pid = call(backend, os.getpid)
    os.kill(pid, signal.SIGSTOP)
    timing = Timing()
    future = in_thread(backend.call, prepared(os.getpid), timing)
    assert eventually(lambda: timing.sent_bytes > 0)
    os.kill(pid, signal.SIGKILL)
    assert future.result(PATIENCE) != pid
    assert timing.attempts == 2


def test_during_its_node(processes: Make, tmp_path: Path) -> None:
    """That node alone fails, with the process and the signal; its sibling and the next one do not."""
    backend = processes(2)
    _, first, pid = running(backend, tmp_path, "a")
    _, second, other = running(backend, tmp_path, "b")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match=KILLED) as raised:
        first.result(PATIENCE)
    assert (raised.value.node, raised.value.pid, raised.value.signal, raised.value.exitcode) == ("node", pid, 9, None)
    (tmp_path / "release-b").touch()
    assert second.result(PATIENCE) == other
    assert call(backend, int) == 0


def test_after_its_node(processes: Make) -> None:
    """Its value, which may be in shared memory, stays whole."""
    numpy = pytest.importorskip("numpy")
    backend = processes(1)

    def makes() -> Any:
        import os

        import numpy

        return os.getpid(), numpy.ones(1_000_000)

    pid, ones = call(backend, makes)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not is_alive(pid))
    assert ones.sum() == 1_000_000
    assert (call(backend, lambda ones: ones + 1, ones=ones) == numpy.full(1_000_000, 2.0)).all()


def test_it_ends_itself(processes: Make) -> None:
    """With an exit code, of which the node is told."""
    backend = processes(1)
    with pytest.raises(WorkerCrashed, match="ended with exit code 3 while it ran node 'node'") as raised:
        call(backend, lambda: os._exit(3))
    assert (raised.value.exitcode, raised.value.signal) == (3, None)


def test_a_process_that_its_node_forked_lives_on(processes: Make, tmp_path: Path) -> None:
    """It has copies of all that the worker had open, and yet the end of the worker is noticed."""
    backend = processes(1)

    def forks(release: Path) -> None:
        import os
        import time

        if os.fork() == 0:
            os.setsid()
            while not release.exists():
                time.sleep(0.01)
            os._exit(0)
        os._exit(4)

    try:
        with pytest.raises(WorkerCrashed, match="exit code 4"):
            call(backend, forks, release=tmp_path / "release")
    finally:
        (tmp_path / "release").touch()


def test_too_much_memory(processes: Make) -> None:
    """Where the limit is known to Python, it is an exception like any other."""
    pytest.importorskip("resource")

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))

    backend = processes(1, initializer=limit)
    with pytest.raises(MemoryError):
        call(backend, lambda: bytes(4 << 30))
    assert call(backend, int) == 0


def test_the_server_is_killed(processes: Make, tmp_path: Path) -> None:
    """Its workers end with it; the nodes that they ran fail, and the next one has a new server."""
    backend = processes(1)
    server = call(backend, os.getppid)
    _, future, pid = running(backend, tmp_path)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(WorkerCrashed):
        future.result(PATIENCE)
    assert eventually(lambda: not is_alive(pid))
    assert call(backend, os.getppid) != server


# Cancelling


def test_cancelling_kills_a_node_that_hangs_in_c(processes: Make, tmp_path: Path) -> None:
    """It has the GIL of its process and lets nobody in; and programs that it has started end as well."""

    def hangs(started: Path) -> None:
        import ctypes
        import os
        import subprocess
        import sys

        program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        started.write_text(f"{os.getpid()} {program.pid}")
        ctypes.PyDLL(None).sleep(1_000)

    backend = processes(1, cancel_grace_seconds=0.1)
    started = tmp_path / "started"
    one, future = background(backend, hangs, started=started)
    assert eventually(lambda: started.exists() and bool(started.read_text()))
    backend.cancel(one)
    with pytest.raises(CancelledError, match="node 'node' was cancelled; its worker process was ended"):
        future.result(PATIENCE)
    assert eventually(lambda: not any(is_alive(int(pid)) for pid in started.read_text().split()))
    assert call(backend, int) == 0


def test_a_node_that_ends_within_the_grace_is_not_killed(processes: Make, tmp_path: Path) -> None:
    backend = processes(1, cancel_grace_seconds=30)
    one, future, pid = running(backend, tmp_path)
    backend.cancel(one)
    (tmp_path / "release-a").touch()
    assert future.result(PATIENCE) == pid
    assert call(backend, os.getpid) == pid


def test_cancelling_what_waits_for_a_worker(processes: Make, tmp_path: Path) -> None:
    """It never runs; the one that runs goes on."""
    backend = processes(1)
    _, first, pid = running(backend, tmp_path)
    one, second = background(backend, os.getpid)
    assert eventually(lambda: one in backend._running)
    backend.cancel(one)
    with pytest.raises(CancelledError, match="before a worker took it"):
        second.result(PATIENCE)
    (tmp_path / "release-a").touch()
    assert first.result(PATIENCE) == pid
    backend.cancel(one)  # too late: nothing happens


def test_cancelling_an_initializer_that_hangs(processes: Make, tmp_path: Path) -> None:
    """The worker is killed before it was ready."""

    def hangs(started: Path) -> None:
        import time

        started.touch()
        time.sleep(1_000)

    backend = processes(1, initializer=hangs, initargs=(tmp_path / "started",), cancel_grace_seconds=0.0)
    one, future = background(backend, int)
    assert eventually((tmp_path / "started").exists)
    backend.cancel(one)
    with pytest.raises(CancelledError):
        future.result(PATIENCE)


def test_closing_ends_what_runs(processes: Make, tmp_path: Path) -> None:
    """Whoever closes has waited, or does not want the values."""
    backend = processes(2)
    _, future, pid = running(backend, tmp_path)
    backend.close()
    with pytest.raises(CancelledError):
        future.result(PATIENCE)
    assert not is_alive(pid)


# The driver ends

DRIVER = """
import time
from traced_threadpool.backends import Processes
from traced_threadpool.engine.backends.base import Call, Timing
from traced_threadpool.model.records import NodeRecord

def call(function, **arguments):
    return backend.call(Call(record=NodeRecord("node", run=None), function=function, arguments=arguments), Timing())

def in_background(function, **arguments):
    threading.Thread(target=call, args=(function,), kwargs=arguments, daemon=True).start()
"""

HANGS = """
def hangs(how, large=b""):
    os.write(1, f"{os.getpid()} {os.getppid()}\\n".encode())
    if how == "python":
        time.sleep(1000)
    import ctypes
    ctypes.PyDLL(None).sleep(1000)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_driver_is_killed(method: str) -> None:
    """No process of it is left after 5 s, whether its workers are idle, wait, or hang in C with the GIL of theirs.

    Nor is anything in shared memory, where one of them had its argument.
    """
    hanging = ["python", "c"] if method == "forkserver" else ["python", "python"]
    script = f"""{DRIVER}{HANGS}
backend = Processes(3, start_method={method!r})
say(call(os.getpid), 0)
for how in {hanging!r}:
    in_background(hangs, how=how)
in_background(hangs, how="python", large=bytes(20_000_000))
time.sleep(1000)
"""
    shared = names_in_shared_memory()
    with start_process(script) as driver:
        assert driver.stdout is not None
        found = {int(pid) for _ in range(4) for pid in driver.stdout.readline().split()} - {0, driver.pid}
        assert len(found) == (4 if method == "forkserver" else 3)
        driver.kill()
        driver.wait()
        ended_by = time.monotonic() + 5
        while any(is_alive(pid) for pid in found) and time.monotonic() < ended_by:
            time.sleep(0.02)
        left = [pid for pid in found if is_alive(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left
    assert eventually(lambda: names_in_shared_memory() <= shared)  # others use it too, for a while


def test_the_driver_ends_by_itself() -> None:
    """Workers end as programs do: what their initializer registered for the end is done."""
    code, said, errors = run_process(
        f"""{DRIVER}
def prepare():
    import atexit
    atexit.register(os.write, 1, b"flushed\\n")

backend = Processes(1, initializer=prepare)
say(call(int))
"""
    )
    assert (code, said) == (0, ["0", "flushed"]), errors


def test_ctrl_c_is_for_the_driver_alone() -> None:
    """A terminal sends it to the whole group: nodes go on until the driver decides."""
    script = f"""{DRIVER}
def node():
    os.write(1, b"started\\n")
    time.sleep(1)
    return "done"

backend = Processes(1)
result = Future()
threading.Thread(target=lambda: result.set_result(call(node))).start()
try:
    result.result()
except KeyboardInterrupt:
    say("interrupted")
say(result.result())
"""
    with start_process(script, within=["setsid"]) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "started\n"
        os.killpg(os.getpgid(driver.pid), signal.SIGINT)
        said, errors = driver.communicate(timeout=PATIENCE)
    assert said.splitlines() == ["interrupted", "done"], errors


def test_the_driver_forks() -> None:
    """The child has workers of its own, the parent keeps its; both end."""
    code, said, errors = run_process(
        f"""{DRIVER}
backend = Processes(1)
mine = call(os.getpid)
pid = os.fork()
if pid == 0:
    other = call(os.getpid)
    say("child", other != mine, call(os.getpid) == other)
    backend.close()
    os._exit(0)
say("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
say("parent", call(os.getpid) == mine)
"""
    )
    assert (code, said) == (0, ["child True True", "exit 0", "parent True"]), errors


def test_a_child_of_the_driver_outlives_it() -> None:
    """It has inherited the driver's ends of all connections, and yet the workers see the driver's end."""
    script = f"""{DRIVER}
backend = Processes(1)
worker = call(os.getpid)
child = os.fork()
if child == 0:
    time.sleep(1000)
say(worker, child)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with start_process(script) as driver:
        assert driver.stdout is not None
        worker, child = map(int, driver.stdout.readline().split())
        driver.wait(PATIENCE)
        try:
            assert eventually(lambda: not is_alive(worker))
        finally:
            os.kill(child, signal.SIGKILL)


# All at once


def test_random_kills(processes: Make) -> None:
    """Whenever a worker is killed, its call has a value or says that it crashed, and the next one works."""
    backend = processes(2)
    generator = random.Random(7)
    calls, callers = 100, 2
    outcomes: list[str] = []
    stop = threading.Event()

    def work(seconds: float) -> int:
        import time

        time.sleep(seconds)
        return 1

    def caller() -> None:
        for _ in range(calls // callers):
            try:
                call(backend, work, seconds=generator.random() * 0.01)
            except WorkerCrashed:
                outcomes.append("crashed")
            else:
                outcomes.append("value")

    def killer() -> None:
        while not stop.wait(generator.random() * 0.05):
            for worker in [each for each in backend._running.values() if each is not None and each.pid]:
                with_pid = worker.pid
                try:
                    os.kill(with_pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                break

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    kills = threading.Thread(target=killer)
    for thread in [*threads, kills]:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    stop.set()
    kills.join(PATIENCE)
    assert len(outcomes) == calls
    assert {"value", "crashed"} == set(outcomes)
    assert call(backend, int) == 0
    assert backend._running == {}


def test_nothing_is_left_in_shared_memory(processes: Make, tmp_path: Path) -> None:
    """It has no name, so nothing can stay in `/dev/shm`, whatever is killed."""
    numpy = pytest.importorskip("numpy")
    before = names_in_shared_memory()
    backend = processes(2)
    for pid in pids(backend, 2, tmp_path):
        call(backend, lambda array: array + 1, array=numpy.ones(1_000_000))
        subprocess.run(["kill", "-9", str(pid)], check=False)
    assert eventually(lambda: names_in_shared_memory() <= before)
