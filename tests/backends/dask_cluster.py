"""A Dask scheduler and workers, started by their own command lines; and a value that tells where it arrives."""

from __future__ import annotations

import os
import subprocess
import sys
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
