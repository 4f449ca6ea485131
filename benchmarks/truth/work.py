"""What the scenarios' nodes do: pieces that take about as long as they are told, in one state as far as can be."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

Piece = Callable[[float], None]
"""Takes about so many seconds."""

SERVER: Final = Path(__file__).with_name("server.py")
_BLOCK: Final = random.Random(1).randbytes(1 << 20)


def compute(seconds: float) -> None:
    """Python code, for so much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(500):
            pass


def busy(seconds: float) -> None:
    """Python code, until so much time has passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(500):
            pass


def digest(seconds: float) -> None:
    """Hashing without the GIL, until so much time has passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hashlib.sha256(_BLOCK)


def compress(seconds: float) -> None:
    """Compressing without the GIL, until so much time has passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        zlib.compress(_BLOCK[: 1 << 17], 6)


def locked_out(seconds: float) -> None:
    """Wait for a lock that nobody lets go."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=seconds)


def child(seconds: float) -> None:
    """Wait for a child process."""
    subprocess.run(["sleep", f"{seconds:.4f}"], check=True)


def keep_the_lock(seconds: float) -> None:
    """Sleep in C code that keeps the GIL."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def again(piece: Piece, slice_seconds: float) -> Piece:
    """The piece over and over until the time has passed."""

    def body(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            piece(min(slice_seconds, left))

    return body


def mixed(pieces: Sequence[Piece], seed: int, *, least: float = 0.002, most: float = 0.02) -> Piece:
    """Pieces in random order and slices until the time has passed."""
    choice = random.Random(seed)

    def body(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            choice.choice(pieces)(min(choice.uniform(least, most), left))

    return body


def in_turn(*pieces: Piece) -> Piece:
    """Each piece once, for an equal share of the time."""

    def body(seconds: float) -> None:
        for piece in pieces:
            piece(seconds / len(pieces))

    return body


class Server:
    """A process that answers when it is told to. `connect` gives a piece with a connection of its own."""

    def __init__(self, port: int, connections: contextlib.ExitStack) -> None:
        self._port = port
        self._connections = connections

    def slow(self) -> Piece:
        """Ask for an answer that comes after the time."""
        connection = self._connect()
        return lambda seconds: _ask(connection, seconds)

    def ping_pong(self) -> Piece:
        """Ask for answers that come at once, until the time has passed."""
        connection = self._connect()

        def piece(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                _ask(connection, 0.0)

        return piece

    def _connect(self) -> socket.socket:
        connection = self._connections.enter_context(socket.create_connection(("127.0.0.1", self._port)))
        connection.settimeout(None)  # with a timeout, Python polls before it reads
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def _ask(connection: socket.socket, delay: float) -> None:
    request = struct.pack("d", delay)
    connection.sendall(request)
    received = b""
    while len(received) < len(request):
        received += connection.recv(len(request) - len(received))


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server in another process, for as long as the body runs."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process, contextlib.ExitStack() as connections:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()), connections)


@contextlib.contextmanager
def files(count: int) -> Iterator[list[Piece]]:
    """Pieces that write to a file of their own and wait until it is on the disk, until the time has passed."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as opened:
        yield [_sync(opened.enter_context((Path(directory) / str(number)).open("wb", 0))) for number in range(count)]


def _sync(file: object) -> Piece:
    descriptor: int = file.fileno()  # type: ignore[attr-defined]  # a raw file

    def piece(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            os.pwrite(descriptor, _BLOCK, 0)
            os.fsync(descriptor)

    return piece


@contextlib.contextmanager
def pipe() -> Iterator[Piece]:
    """A piece that reads from a pipe, into which another process writes every 5 ms."""
    program = "import os, time\nwhile True:\n    time.sleep(0.005)\n    os.write(1, b'x')"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    descriptor = process.stdout.fileno()

    def piece(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            os.read(descriptor, 1)

    with process:
        try:
            yield piece
        finally:
            process.kill()


@contextlib.contextmanager
def hog() -> Iterator[None]:
    """A thread outside of every pool that computes for as long as the body runs."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            compute(0.01)

    thread = threading.Thread(target=run, name="hog")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
