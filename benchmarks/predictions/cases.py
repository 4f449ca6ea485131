"""The programs of the table: nodes side by side that meet at something, and what they do for how long."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from benchmarks.what_if.work import Worker

NODES: Final = 12
HELD: Final = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`make` gives a fresh function for each run, which every node calls with its number. Of `clients` more than one,
    each executes the nodes `rounds` times, one after the other.
    """

    kind: str
    name: str
    make: Callable[[Worker], Callable[[int], object]]
    nodes: int = NODES
    clients: int = 1
    rounds: int = 1


def _under(
    lock: Callable[[], AbstractContextManager[object]], *, before: float = 0.0, held: float = HELD, after: float = 0.0
) -> Callable[[Worker], Callable[[int], object]]:
    def make(worker: Worker) -> Callable[[int], object]:
        shared = lock()

        def node(number: int) -> None:
            if before:
                time.sleep(before)
            with shared:
                time.sleep(held)
            if after:
                time.sleep(after)

        return node

    return make


def _turns(worker: Worker) -> Callable[[int], object]:
    lock = threading.Lock()

    def node(number: int) -> None:
        for _ in range(4):
            time.sleep(0.01)
            with lock:
                time.sleep(0.04)

    return node


def _connections(worker: Worker) -> Callable[[int], object]:
    free: queue.Queue[int] = queue.Queue()
    for connection in range(3):
        free.put(connection)

    def node(number: int) -> None:
        connection = free.get()
        time.sleep(HELD)
        free.put(connection)

    return node


def _client_under_a_lock(worker: Worker) -> Callable[[int], object]:
    """A request under a lock, and parsing outside of it."""
    lock = threading.Lock()

    def node(number: int) -> None:
        with lock:
            worker.fetch(0.05)
        worker.python(0.01)

    return node


def _clients_under_a_lock(worker: Worker) -> Callable[[int], object]:
    """What is behind the lock is slow; runs of several clients meet there, and in the pool."""
    lock = threading.Lock()

    def node(number: int) -> None:
        time.sleep(0.06)
        with lock:
            time.sleep(0.02)

    return node


def _sleeps(*seconds: float) -> Callable[[Worker], Callable[[int], object]]:
    return lambda worker: lambda number: time.sleep(seconds[number % len(seconds)])


CASES: Final[Mapping[str, Case]] = {
    case.name: case
    for case in (
        Case(kind="lock", name="a lock", make=_under(threading.Lock)),
        Case(kind="lock", name="a reentrant lock", make=_under(threading.RLock)),
        Case(kind="lock", name="a lock in four turns", make=_turns),
        Case(kind="lock", name="a client under a lock", make=_client_under_a_lock),
        Case(kind="half under a lock", name="the second half", make=_under(threading.Lock, before=HELD)),
        Case(kind="half under a lock", name="the first half", make=_under(threading.Lock, after=HELD)),
        Case(kind="half under a lock", name="the last quarter", make=_under(threading.Lock, before=0.09, held=0.03)),
        Case(kind="semaphore", name="of two", make=_under(lambda: threading.Semaphore(2))),
        Case(kind="semaphore", name="of three, bounded", make=_under(lambda: threading.BoundedSemaphore(3))),
        Case(
            kind="semaphore", name="of two, half of the node", make=_under(lambda: threading.Semaphore(2), before=HELD)
        ),
        Case(kind="semaphore", name="a queue of three connections", make=_connections),
        Case(kind="I/O", name="sleeps", make=_sleeps(0.05, 0.08, 0.11), nodes=24),
        Case(kind="I/O", name="requests", make=lambda worker: lambda number: worker.fetch(0.06), nodes=24),
        Case(kind="GIL", name="plain Python", make=lambda worker: lambda number: worker.python(0.08)),
        Case(kind="mixed", name="fetch and parse", make=lambda worker: lambda number: worker.fetch_and_parse(0.12)),
        Case(
            kind="mixed", name="pages", make=lambda worker: lambda number: worker.fetch_and_parse_pages(0.24), nodes=16
        ),
        Case(kind="shared pool", name="six runs at once", make=_sleeps(0.05, 0.08, 0.11), nodes=8, clients=6),
        Case(
            kind="shared pool",
            name="four clients, three runs each",
            make=_sleeps(0.05, 0.08, 0.11),
            nodes=8,
            clients=4,
            rounds=3,
        ),
        Case(
            kind="shared pool",
            name="three clients under a lock",
            make=_clients_under_a_lock,
            nodes=8,
            clients=3,
        ),
    )
}
