"""A Dask scheduler and workers, started by their own command lines; and a value that tells where it arrives."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.dags import eventually

QUIET = {
    **os.environ,
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "PYTHONPATH": str(Path(__file__).parent.parent.parent),
}


class DaskCluster:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "scheduler.json"
        self._count = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "scheduler", "--scheduler-file", str(self._file), "--host", "127.0.0.1", "--port", "0", "--no-dashboard"
        )
        assert eventually(self._is_there)

    def _is_there(self) -> bool:
        return self._file.exists() and self._file.stat().st_size > 0

    @property
    def address(self) -> str:
        import json

        return str(json.loads(self._file.read_text())["address"])

    def worker(self, *options: str, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Starts a worker of one thread, which is not started again when it dies."""
        return self._start(
            "worker",
            *("--scheduler-file", str(self._file), "--nthreads", "1", "--no-nanny", "--no-dashboard"),
            *("--local-directory", str(self._directory), *options),
            within=within,
        )

    def _start(self, *words: str, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        self._count += 1
        with (self._directory / f"{words[0]}-{self._count}.log").open("wb") as log:
            process = subprocess.Popen(
                [*within, sys.executable, "-m", "dask", *words], env=QUIET, stdout=log, stderr=subprocess.STDOUT
            )
        self._processes.append(process)
        return process

    def end_workers(self) -> None:
        _end(self._processes[1:])
        del self._processes[1:]

    def end(self) -> None:
        _end(self._processes)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.kill()
    for process in processes:
        process.wait()


class Traveller:
    """A value that remembers, in each process, how often it has arrived there."""

    arrivals = 0

    def __init__(self, payload: Any = None) -> None:
        self.payload = payload

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.payload,)


def _arrived(payload: Any) -> Traveller:
    Traveller.arrivals += 1
    return Traveller(payload)


class StallingProxy:
    """A way to an address that can be held up: while it is, connections stay and nothing passes."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition("/")[2].rpartition(":")
        self._target = host, int(port)
        self._passes = threading.Event()
        self._passes.set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._server]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._server.getsockname()[1]}"

    def stall(self) -> None:
        self._passes.clear()

    def go_on(self) -> None:
        self._passes.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, far = self._server.accept()[0], socket.create_connection(self._target)
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._pass, args=pair, daemon=True))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._passes.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._passes.set()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()
