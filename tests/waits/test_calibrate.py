"""A few held waits into the address of the GIL, on this interpreter and with this kernel."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dags import in_thread
from traced_threadpool.waits import calibrate as module
from traced_threadpool.waits.calibrate import Lock, NoCalibration, calibrate, thread_state_address

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are sampled on Linux"),
    pytest.mark.skipif(
        not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="this interpreter has no lock to be found"
    ),
]


def word_at(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def test_the_lock_lies_within_the_interpreters_own_data() -> None:
    """And its memory names who has it: whoever is able to ask."""
    lock = calibrate()
    runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    assert 0 <= lock.address - runtime < module.RUNTIME_BYTES
    assert lock.holder_address is not None
    assert lock.ident_offset is not None

    def holder() -> tuple[bool, bool, int]:
        assert lock.holder_address is not None
        assert lock.ident_offset is not None
        state = word_at(lock.holder_address)
        is_held = ctypes.c_int32.from_address(lock.holder_address + 8).value
        return state == thread_state_address(), word_at(state + lock.ident_offset) == threading.get_ident(), is_held

    assert holder() == (True, True, 1)
    assert in_thread(holder).result() == (True, True, 1)


@contextmanager
def computing(count: int) -> Iterator[None]:
    """So many threads that want the lock all the time."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(500))

    threads = [threading.Thread(target=compute) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_it_is_the_same_whoever_asks_and_whatever_else_goes_on() -> None:
    """From another thread too, and while others keep the lock busy."""
    found = [calibrate(), in_thread(calibrate).result()]
    with computing(3):
        found.append(calibrate())
    assert found == [found[0]] * 3


def test_nothing_is_left() -> None:
    """Neither the second thread nor a file, whether it is found or not."""

    def what_is_there() -> tuple[set[threading.Thread], int]:
        return set(threading.enumerate()), len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a Path's would be open

    threads, files = what_is_there()
    calibrate()
    with pytest.raises(NoCalibration):
        calibrate(proc=Path("/nowhere"))
    threads_after, files_after = what_is_there()
    assert threads_after <= threads  # those of other tests may end meanwhile
    assert files_after <= files


def proc_that_says(folder: Path, line: str) -> Path:
    """The kernel's, but for what any thread is doing."""

    class Says(type(folder)):  # type: ignore[misc]  # Path is made for this only from 3.12 on
        def __truediv__(self, name: str) -> Path:
            below: Path = super().__truediv__(name)
            if name == "syscall":
                below = Path(folder / name)
                below.write_text(line)
            return below

    return Says(folder)


ON_THE_STACK = "202 0x7ffe11223344 0x189 0x0 0x0 0x0 0xffffffff 0x7ffe11223300 0x7f0000001000"


@pytest.mark.parametrize(
    "line",
    [ON_THE_STACK, "running", "", "230 0x1 0x0 0x7ffe 0x0 0x0 0x0 0x7ffd 0x7f", "202 0x5"],
    ids=["on-the-stack", "running", "empty", "asleep", "half-a-line"],
)
def test_what_is_not_within_the_interpreters_data_is_not_the_lock(tmp_path: Path, line: str) -> None:
    """A C library that keeps its waiters elsewhere (musl: on their stacks), or a kernel that says nothing of use."""
    with pytest.raises(NoCalibration, match="no address had a majority: 0 of"):
        calibrate(proc=proc_that_says(tmp_path, line))


def test_a_second_thread_without_a_CPU_is_waited_for(tmp_path: Path) -> None:
    """It runs, or would if there were a CPU for it: on a busy machine it has a tenth of a second for that."""
    started = time.monotonic()
    with pytest.raises(NoCalibration):
        calibrate(proc=proc_that_says(tmp_path, "running"))
    assert time.monotonic() - started >= 0.1


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Is named, with the reason."""
    with pytest.raises(NoCalibration, match=rf"{tmp_path}/self/task/\d+/syscall cannot be opened \(No such file"):
        calibrate(proc=tmp_path)


def test_an_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory cannot be read, four equal answers are enough, and who has the lock is not known."""
    opened: Callable[[Path], object] = module._opened

    def without_memory(path: Path) -> object:
        if path.name == "mem":
            raise NoCalibration("not to be used")
        return opened(path)

    monkeypatch.setattr(module, "_opened", without_memory)
    found = calibrate()
    monkeypatch.undo()
    assert found == Lock(address=calibrate().address)
