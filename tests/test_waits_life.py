"""The sampler's process and the lives of others: its parent's end, a fork, a node that never lets go."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are looked at on Linux")

PROGRAM = """
import ctypes, os, sys, time
from prometheus_client import CollectorRegistry
from traced_threadpool import FutureAdapter
from traced_threadpool.waits.service import service

adapter = FutureAdapter(4, tracing=False, registry=CollectorRegistry(), record=True)

def submit(function):
    return adapter.do_remote_execute(execute_lifecycle_for_node=function, node=None)

def until_sampled():
    done = time.monotonic() + 30
    while service.method.method != "process":
        assert time.monotonic() < done, service.method
        submit(lambda: time.sleep(0.05)).result()
    return service._process.pid

"""


def run(program: str, *, fails: bool = False) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM + program], capture_output=True, text=True, timeout=50, check=False
    )
    assert fails or found.returncode == 0, found.stderr
    return found


def is_gone(pid: int) -> bool:
    """Within some seconds; one that nobody has waited for counts."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    "end",
    ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit(0)", "adapter.close()"],
    ids=["killed", "_exit", "exit", "closed"],
)
def test_the_sampler_ends_with_its_parent(end: str) -> None:
    """However that ends, and also in the middle of a node."""
    found = run(f"submit(lambda: time.sleep(2)); print(until_sampled(), flush=True)\n{end}\n", fails=True)
    assert is_gone(int(found.stdout))
    assert found.stderr == ""


def test_ctrl_c_is_not_for_the_sampler() -> None:
    """It is in a session of its own, and goes on."""
    found = run("pid = until_sampled(); print(os.getsid(pid) == pid, os.getpgid(pid) == os.getpgid(0))")
    assert found.stdout.split() == ["True", "False"]


def test_a_forked_child_has_a_sampler_of_its_own() -> None:
    """And leaves the parent's alone, which goes on."""
    found = run(
        """
first = until_sampled()
child = os.fork()
if not child:
    second = until_sampled()
    print(second != first, flush=True)
    adapter.close()
    os._exit(0)
os.waitpid(child, 0)
print(until_sampled() == first)
"""
    )
    assert found.stdout.split() == ["True", "True"]


def test_a_node_that_forks_goes_on_in_both() -> None:
    """In the child its readings are void, and nothing breaks."""
    found = run(
        """
until_sampled()
def forks():
    child = os.fork()
    if not child:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(submit(forks).result(), adapter.telemetry_errors)
"""
    )
    assert found.stdout.split() == ["7", "{}"]


def test_a_node_in_c_code_that_never_returns_holds_up_nobody() -> None:
    """Others are looked at as before, and the process can end."""
    found = run(
        """
until_sampled()
submit(ctypes.CDLL(None).pause)
submit(lambda: time.sleep(0.3)).result()
print(service.method.method, adapter.telemetry_errors, flush=True)
os._exit(0)
"""
    )
    assert found.stdout.split() == ["process", "{}"]


def test_a_node_that_blocks_all_signals_is_a_node_as_any() -> None:
    """Nothing here relies on a signal."""
    found = run(
        """
import signal
until_sampled()
def blocks():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(0.2)
    return 1
print(submit(blocks).result(), service.method.method, adapter.telemetry_errors)
"""
    )
    assert found.stdout.split() == ["1", "process", "{}"]


def test_the_samplers_process_imports_little() -> None:
    """Neither Hamilton nor OpenTelemetry, and it has none of its parent's files."""
    found = run(
        """
kept = open(sys.executable, "rb")
pid = until_sampled()
files = {os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
maps = open(f"/proc/{pid}/maps").read()
print(os.path.realpath(sys.executable) in files, "grpc" in maps or "hamilton" in maps)
kept.close()
"""
    )
    assert found.stdout.split()[:2] == ["False", "False"]


def test_sigterm_to_the_sampler_costs_samples_and_no_node() -> None:
    """The nodes go on, and it is said."""
    found = run(
        f"""
pid = until_sampled()
os.kill(pid, {int(signal.SIGTERM)})
done = time.monotonic() + 20
while service.method.method == "process" and time.monotonic() < done:
    submit(lambda: time.sleep(0.05)).result()
print(service.method.method, os.path.exists(f"/proc/{{pid}}"))
"""
    )
    assert found.stdout.split() == ["none", "False"]
