"""A kind of work and a number of seconds into a function that does it.

Computing is a fixed amount of it, not a fixed time: how many turns a second takes is measured once.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

Work = Callable[[float], object]
"""Takes about that many seconds when it runs alone."""

# Answers each request for some seconds of sleep when they are over; ends with its standard input.
_SERVER = """
import asyncio, struct, sys
async def serve(reader, writer):
    while len(asked := await reader.read(8)) == 8:
        await asyncio.sleep(struct.unpack("d", asked)[0])
        writer.write(asked)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""


@dataclass(kw_only=True)
class Worker:
    """Knows how to work. `port` is where the server listens."""

    port: int

    @cached_property
    def python_turns(self) -> float:
        """Turns of `_turn` in a second."""
        return _turns_per_second(_turn, 200_000)

    @cached_property
    def hash_turns(self) -> float:
        return _turns_per_second(_hash, 100_000)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def fetch(self, seconds: float) -> None:
        """A request and its answer."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(struct.pack("d", seconds))
            connection.recv(8)

    def python(self, seconds: float) -> None:
        """Computing with the GIL."""
        _turn(int(seconds * self.python_turns))

    def hash(self, seconds: float) -> None:
        """Computing without the GIL."""
        _hash(int(seconds * self.hash_turns))

    def fetch_and_parse(self, seconds: float) -> None:
        """One half after the other."""
        self.fetch(seconds / 2)
        self.python(seconds / 2)

    def fetch_and_parse_pages(self, seconds: float) -> None:
        """Eight times, a third of it parsing."""
        for _ in range(8):
            self.fetch(seconds / 12)
            self.python(seconds / 24)

    def hash_and_python(self, seconds: float) -> None:
        self.hash(seconds * 0.7)
        self.python(seconds * 0.3)

    def fetch_and_hash(self, seconds: float) -> None:
        for _ in range(4):
            self.fetch(seconds / 8)
            self.hash(seconds / 8)


def _turn(turns: int) -> int:
    total = 0
    for number in range(turns):
        total = (total + number * number) % 1_000_003
    return total


def _hash(turns: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", b"password", b"salt", max(1, turns))


def _turns_per_second(function: Callable[[int], object], turns: int) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.thread_time()
        function(turns)
        best = min(best, time.thread_time() - started)
    return turns / best


@contextmanager
def worker() -> Iterator[Worker]:
    """With its server, which runs in a process of its own so as not to want this one's GIL."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            yield Worker(port=int(server.stdout.readline()))
        finally:
            server.stdin.close()
