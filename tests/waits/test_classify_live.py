"""Threads of this process that really wait are classified as what they do."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dags import PATIENCE, eventually, in_thread
from traced_threadpool.waits.classify import (
    DISK,
    KINDS,
    LOCK,
    NETWORK,
    RUNNING,
    SLEEP,
    Classifier,
    UnknownArchitecture,
    table_for,
)


@pytest.fixture
def live() -> Classifier:
    """A classifier of this process that knows of no GIL; skips where its threads cannot be sampled."""
    return _live_classifier(gil_address=0)


def _live_classifier(gil_address: int) -> Classifier:
    try:
        table = table_for(platform.machine(), struct.calcsize("P"))
        Path(f"/proc/self/task/{threading.get_native_id()}/syscall").read_bytes()
    except (UnknownArchitecture, OSError) as error:
        pytest.skip(f"this machine does not say what a thread does: {error}")

    def descriptor(number: int) -> str:
        try:
            return str(Path(f"/proc/self/fd/{number}").readlink())
        except OSError:
            return ""

    return Classifier(table, gil_address=gil_address, descriptor=descriptor)


@contextmanager
def looking_at(function: Callable[[], object], *, release: Callable[[], object]) -> Iterator[Path]:
    """Runs a function in a thread, which `release` must let end; gives the file with what it does."""
    identifiers: list[int] = []

    def run() -> None:
        identifiers.append(threading.get_native_id())
        function()

    future = in_thread(run)
    try:
        assert eventually(lambda: bool(identifiers))
        yield Path(f"/proc/self/task/{identifiers[0]}/syscall")
    finally:
        release()
        future.result(PATIENCE)


def settled(file: Path) -> bytes:
    """The line once it stays the same over five looks, so that the thread is where it is going to wait."""
    lines: list[bytes] = []

    def is_settled() -> bool:
        lines.append(file.read_bytes())
        return len(lines) >= 5 and len(set(lines[-5:])) == 1 and lines[-1] != b"running\n"

    assert eventually(is_settled)
    return lines[-1]


def test_a_sleeping_thread(live: Classifier) -> None:
    """`time.sleep`, by whatever call this Python makes it."""
    over = threading.Event()

    def naps() -> None:
        while not over.is_set():
            time.sleep(0.5)

    with looking_at(naps, release=over.set) as file:
        assert KINDS[live.classify(settled(file))] == "sleep"


@pytest.mark.parametrize("arguments", [(), (True, PATIENCE)], ids=["forever", "timeout"])
def test_a_thread_that_waits_for_another(live: Classifier, arguments: tuple[bool, float]) -> None:
    """A lock, with and without a time limit."""
    lock = threading.Lock()
    lock.acquire()
    with looking_at(lambda: lock.acquire(*arguments), release=lock.release) as file:
        assert KINDS[live.classify(settled(file))] == "lock"


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda end: end.recv(1), id="recv"),
        pytest.param(lambda end: os.read(end.fileno(), 1), id="read"),
        pytest.param(lambda end: (end.settimeout(PATIENCE), end.recv(1)), id="recv with a timeout"),
        pytest.param(lambda end: select.select([end], [], []), id="select"),
    ],
)
def test_a_thread_that_waits_for_a_socket(live: Classifier, wait: Callable[[socket.socket], object]) -> None:
    """By a call for sockets, one for any descriptor, and one for many."""
    one, other = socket.socketpair()
    with one, other, looking_at(lambda: wait(one), release=lambda: other.send(b"x")) as file:
        assert KINDS[live.classify(settled(file))] == "network"


def test_a_thread_that_waits_for_a_pipe(live: Classifier) -> None:
    """The same call as for a socket or a file: its descriptor tells."""
    reading, writing = os.pipe()
    try:
        with looking_at(lambda: os.read(reading, 1), release=lambda: os.write(writing, b"x")) as file:
            text = settled(file)
            assert (KINDS[live.classify(text)], live.asked_descriptor) == ("other", True)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_thread_that_waits_for_the_disk(live: Classifier, tmp_path: Path) -> None:
    """One that does nothing but write and force it out is in `disk` now and then, and in no wait for anything else."""
    over = threading.Event()

    def forces_out() -> None:
        block = bytes(1 << 20)
        with (tmp_path / "file").open("wb") as file:
            while not over.is_set():
                os.pwrite(file.fileno(), block, 0)
                os.fsync(file.fileno())

    seen: set[int] = set()
    with looking_at(forces_out, release=over.set) as file:
        deadline = time.monotonic() + 3.0
        while DISK not in seen and time.monotonic() < deadline:
            seen.add(live.classify(file.read_bytes()))
    if DISK not in seen:
        pytest.skip("this file system never lets a thread wait")
    assert seen.isdisjoint({NETWORK, SLEEP})


def test_a_thread_that_computes(live: Classifier) -> None:
    """It is seen running, at a look at which it is not waiting for the lock of whoever looks."""
    over = threading.Event()
    block = bytearray(1 << 24)

    def computes() -> None:
        while not over.is_set():
            block.count(b"x")

    with looking_at(computes, release=over.set) as file:
        assert eventually(lambda: live.classify(file.read_bytes()) == RUNNING)


def test_a_thread_that_waits_for_the_gil() -> None:
    """While this thread keeps the lock in a call, another that wants to run is in `gil`; other locks are not."""
    if platform.libc_ver()[0] != "glibc" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("needs glibc, and an interpreter that has the lock")
    no_lock = _live_classifier(gil_address=0)
    over = threading.Event()
    lock = threading.Lock()
    lock.acquire()

    def naps() -> None:
        while not over.is_set():
            time.sleep(0.0001)

    with looking_at(naps, release=over.set) as napper, looking_at(lock.acquire, release=lock.release) as other:
        # Where CPUs are busy, it may be on its way to the lock yet when it is looked at.
        held = [_read_keeping_the_lock(napper) for _ in range(60)]
        waits = [text for text in held if no_lock.classify(text) == LOCK]
        assert len(waits) >= 5, f"the other thread was not seen to wait, but {held}"
        classifier = _live_classifier(gil_address=int(waits[0].split()[1], 16) & ~7)
        assert {KINDS[classifier.classify(text)] for text in waits} == {"gil"}
        assert KINDS[classifier.classify(settled(other))] == "lock"


def _read_keeping_the_lock(path: Path) -> bytes:
    """Keeps the GIL for 3 ms, then reads the file without having let go of it in between."""
    keeping = ctypes.PyDLL(None)
    keeping.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
    buffer = ctypes.create_string_buffer(256)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        time.sleep(0.002)  # lets the other thread have its nap
        keeping.usleep(3_000)
        length = keeping.pread(descriptor, buffer, 256, 0)
    finally:
        os.close(descriptor)
    return buffer.raw[:length]
