"""Calls of functions on a backend, without an adapter around them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.dags import eventually, in_thread
from traced_threadpool.engine.backends.base import Backend, Call, Timing
from traced_threadpool.model.records import NodeRecord


def prepared(function: Callable[..., Any], /, node: str = "node", **arguments: Any) -> Call:
    """A call of a node of this name."""
    return Call(record=NodeRecord(node, run=None, run_id="run-1"), function=function, arguments=arguments)


def call(backend: Backend, function: Callable[..., Any], /, **arguments: Any) -> Any:
    """What the function returns, or raises, on the backend."""
    return backend.call(prepared(function, **arguments), Timing())


def timed(backend: Backend, function: Callable[..., Any], /, **arguments: Any) -> tuple[Any, Timing]:
    """The same, and how it went."""
    timing = Timing()
    return backend.call(prepared(function, **arguments), timing), timing


def background(backend: Backend, function: Callable[..., Any], /, **arguments: Any) -> tuple[Call, Any]:
    """Begins a call on a thread; the call, and the future of its value."""
    one = prepared(function, **arguments)
    return one, in_thread(backend.call, one, Timing())


def is_alive(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def names_in_shared_memory() -> set[Path]:
    """All that anybody has there under a name."""
    place = Path("/dev/shm")
    return set(place.iterdir()) if place.exists() else set()


def alive_at(started: Path) -> int:
    """Waits until `held` says that it runs; its process."""
    assert eventually(lambda: started.exists() and bool(started.read_text()))
    return int(started.read_text())


def pids(backend: Backend, count: int, tmp_path: Path) -> list[int]:
    """The worker processes of a backend: as many calls at once, which wait for each other."""
    barrier = tmp_path / "barrier"
    barrier.mkdir()

    def meet(number: int, where: Path, count: int) -> int:
        import os
        import time

        (where / str(number)).touch()
        while len(list(where.iterdir())) < count:
            time.sleep(0.005)
        return os.getpid()

    calls = [background(backend, meet, number=number, where=barrier, count=count)[1] for number in range(count)]
    return [each.result(60) for each in calls]


def _held() -> Callable[..., int]:
    """Made here, so that a worker gets it by value and does not import this module."""

    def held(started: Path, release: Path) -> int:
        import os
        import time

        started.write_text(str(os.getpid()))
        while not release.exists():
            time.sleep(0.005)
        return os.getpid()

    return held


held = _held()
"""A function that says that it runs, in one file, and waits for another."""
