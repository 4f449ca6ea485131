"""What running nodes do, wherever they run: with all telemetry off, within one another, and on worker processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dags import PATIENCE, Held, Stage, driver_of, eventually, in_thread, wait_for
from tests.live.worker_nodes import keeps_the_gil, ready, sleeps
from traced_threadpool import FutureAdapter
from traced_threadpool.engine.backends import worker_stack
from traced_threadpool.live.records import LiveNode

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


def nodes(adapter: FutureAdapter) -> dict[str, LiveNode]:
    return {node.name: node for run in adapter.live(stacks=True).runs for node in run.running}


def test_all_telemetry_off(stage: Stage) -> None:
    """Worker, state and stack are known without any observer of nodes."""
    held = Held(stage)

    def stuck() -> str:
        return held()

    adapter = stage.adapter(FutureAdapter(1, name="bare", tracing=False, metrics=False, attribution=False))
    call = in_thread(lambda: driver_of(adapter, stuck).execute(["stuck"]))
    wait_for(held.started)
    node = nodes(adapter)["stuck"]
    assert node.worker.startswith("bare")
    assert node.stack is not None
    assert "stuck" in node.stack[0]
    if sys.platform == "linux":
        assert eventually(lambda: nodes(adapter)["stuck"].state == "lock")
    held.release.set()
    call.result(PATIENCE)


@pytest.mark.parametrize("observed", [True, False])
def test_a_node_that_executes_a_driver(stage: Stage, observed: bool) -> None:
    """On one thread, each node has its own stack, and the outer one runs a run of its own."""
    held = Held(stage)
    adapter = stage.adapter(FutureAdapter(1, tracing=observed, metrics=observed, attribution=observed))

    def inner() -> str:
        return held()

    def outer() -> str:
        return str(driver_of(adapter, inner).execute(["inner"])["inner"])

    call = in_thread(lambda: driver_of(adapter, outer).execute(["outer"]))
    wait_for(held.started)
    found = nodes(adapter)
    assert found["outer"].worker == found["inner"].worker != ""
    assert (found["outer"].state, found["outer"].on) == (None, "a run of its own")
    inner_stack, outer_stack = found["inner"].stack, found["outer"].stack
    assert inner_stack is not None
    assert outer_stack is not None
    assert "inner" in inner_stack[0]
    assert "outer" in outer_stack[0]
    assert not [line for line in outer_stack if ".inner" in line or " in inner" in line]
    held.release.set()
    call.result(PATIENCE)


# On worker processes


@LINUX
@pytest.mark.parametrize("function", [sleeps, keeps_the_gil])
def test_the_stack_of_a_worker_process(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[[str], int]
) -> None:
    """Told by the worker itself. While C code keeps the GIL there it tells nothing, and nobody waits for it."""
    pytest.importorskip("cloudpickle", reason="needs the extra [processes]")
    if function is sleeps:  # it answers, when a busy machine lets it
        monkeypatch.setattr(worker_stack, "PATIENCE_SECONDS", PATIENCE)
    from traced_threadpool.backends import Processes

    adapter = stage.adapter(FutureAdapter(1, backends={"cpu": Processes(1)}, run_on={function.__name__: "cpu"}))
    path = tmp_path / "pid"
    call = in_thread(lambda: driver_of(adapter, function).execute([function.__name__], inputs={"path": str(path)}))
    assert eventually(lambda: path.exists() and path.read_text() != "")
    pid = int(path.read_text())

    def is_there() -> bool:  # where the function stays; it has just written the file
        stack = nodes(adapter)[function.__name__].stack
        return stack is None if function is keeps_the_gil else stack is not None and stack[-1].endswith(" in sleeps")

    assert eventually(is_there)
    for _ in range(3):
        node = nodes(adapter)[function.__name__]
        assert (node.backend, node.worker) == ("cpu", f"process {pid}")
        if function is keeps_the_gil:
            assert node.stack is None
            continue
        assert node.stack is not None
        assert "worker_nodes.py:" in node.stack[-1]
        assert node.stack[-1].endswith(f" in {function.__name__}")
        assert not [line for line in node.stack if "traced_threadpool" in line]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Exception, match="worker"):
        call.result(PATIENCE)


@LINUX
def test_a_worker_process_that_does_not_run(stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stopped worker is a stall, told within twice its limit, with the process and what is wrong with it."""
    pytest.importorskip("cloudpickle", reason="needs the extra [processes]")
    from traced_threadpool.backends import Processes

    places = {"sleeps": "cpu", "ready": "cpu"}
    adapter = stage.adapter(FutureAdapter(1, backends={"cpu": Processes(1)}, run_on=places, stall_after=2.0))
    path = tmp_path / "pid"
    driver_of(adapter, ready).execute(["ready"])  # to start a process takes a second
    caplog.clear()
    with caplog.at_level(logging.WARNING, "traced_threadpool"):
        call = in_thread(lambda: driver_of(adapter, sleeps).execute(["sleeps"], inputs={"path": str(path)}))
        assert eventually(lambda: path.exists() and path.read_text() != "")
        pid = int(path.read_text())
        os.kill(pid, signal.SIGSTOP)
        assert eventually(lambda: any("is stalled" in message for message in caplog.messages))
        assert "is stopped" in str(nodes(adapter)["sleeps"].on)
    [told] = [message for message in caplog.messages if "is stalled" in message]
    assert f"on process {pid}, other process {pid} is stopped" in told
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Exception, match="worker"):
        call.result(PATIENCE)


@LINUX
def test_a_process_that_has_ended_is_told_so() -> None:
    """Between its end and the moment at which its backend hears of it."""
    from traced_threadpool.live.node_now import _life

    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert eventually(lambda: _life(process.pid) == "is dead")
    assert _life(process.pid) == "is dead"
    assert _life(os.getpid()) is None
