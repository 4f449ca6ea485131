"""Names into what nodes do side by side. All nodes of a scenario start together, each with a worker of its own.

A scenario opens what it needs (a server in another process, files) and gives the bodies of its nodes.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.truth import work
from benchmarks.truth.work import Piece

Bodies = Mapping[str, Piece]
"""What each node does, by the node's name."""

NestedRun = Callable[[Bodies, float], None]
"""Runs nodes in a nested `execute` on the same adapter, and waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`short`: its nodes take as many milliseconds as they are told, and many executions are compared in the sum."""

    says: str
    open: Callable[[NestedRun], AbstractContextManager[Bodies]]
    short: bool = False


def _fixed(**bodies: Piece) -> Callable[[NestedRun], AbstractContextManager[Bodies]]:
    return lambda nested: contextlib.nullcontext(bodies)


def _numbered(name: str, count: int, body: Callable[[], Piece]) -> dict[str, Piece]:
    return {f"{name}_{number}": body() for number in range(1, count + 1)}


def _sleeping() -> Piece:
    return work.again(time.sleep, 0.02)


def _computing(count: int) -> Callable[[NestedRun], AbstractContextManager[Bodies]]:
    return _fixed(**_numbered("compute", count, lambda: work.busy))


@contextmanager
def _sockets(nested: NestedRun) -> Iterator[Bodies]:
    with work.server() as server:
        yield _numbered("ask", 4, lambda: work.again(server.slow(), 0.02))


@contextmanager
def _ping_pong(nested: NestedRun) -> Iterator[Bodies]:
    with work.server() as server:
        yield _numbered("ping", 2, server.ping_pong)


@contextmanager
def _sockets_beside_cpu(nested: NestedRun) -> Iterator[Bodies]:
    with work.server() as server:
        yield {
            **_numbered("ask", 2, lambda: work.again(server.slow(), 0.01)),
            "ping": server.ping_pong(),
            **_numbered("compute", 2, lambda: work.busy),
        }


@contextmanager
def _fsync(nested: NestedRun) -> Iterator[Bodies]:
    with work.files(2) as (first, second):
        yield {"save_1": first, "save_2": second}


@contextmanager
def _fsync_beside_cpu(nested: NestedRun) -> Iterator[Bodies]:
    with work.files(2) as (first, second):
        yield {"save_1": first, "save_2": second, "compute": work.busy}


@contextmanager
def _lock_convoy(nested: NestedRun) -> Iterator[Bodies]:
    lock = threading.Lock()

    def piece(seconds: float) -> None:
        with lock:
            time.sleep(0.003)
        work.compute(0.001)

    yield _numbered("convoy", 4, lambda: work.again(piece, 0.004))


@contextmanager
def _queues(nested: NestedRun) -> Iterator[Bodies]:
    handed: queue.Queue[float] = queue.Queue()

    def produce(seconds: float) -> None:
        work.compute(0.003)
        time.sleep(0.002)
        handed.put(seconds)

    def consume(seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            handed.get(timeout=seconds)
            work.compute(0.001)

    yield {
        **_numbered("produce", 2, lambda: work.again(produce, 0.005)),
        **_numbered("consume", 3, lambda: work.again(consume, 0.05)),
    }


@contextmanager
def _mixes(nested: NestedRun, count: int = 1) -> Iterator[Bodies]:
    with work.server() as server, work.files(count) as savers:
        yield {
            f"mix_{number}": work.mixed(
                [work.compute, time.sleep, server.slow(), work.locked_out, save, work.digest], number
            )
            for number, save in enumerate(savers, 1)
        }


@contextmanager
def _children(nested: NestedRun) -> Iterator[Bodies]:
    with work.pipe() as pipe:
        yield {"wait": work.again(work.child, 0.03), "read": pipe}


@contextmanager
def _hogged(nested: NestedRun) -> Iterator[Bodies]:
    with work.server() as server, work.hog():
        yield {
            "compute": work.busy,
            "nap": work.again(time.sleep, 0.005),
            "ask": work.again(server.slow(), 0.005),
        }


@contextmanager
def _gil_kept(nested: NestedRun) -> Iterator[Bodies]:
    yield {
        "keep": work.again(work.in_turn(work.keep_the_lock, time.sleep), 0.03),
        "compute": work.busy,
        "nap": work.again(time.sleep, 0.005),
    }


@contextmanager
def _nested(nested: NestedRun) -> Iterator[Bodies]:
    inner = {"inner_nap": _sleeping(), "inner_compute": work.busy}

    def outer(seconds: float) -> None:
        work.compute(seconds / 4)
        nested(inner, seconds / 2)
        time.sleep(seconds / 4)

    yield {"outer": outer, "beside": work.busy}


@contextmanager
def _short_sockets(nested: NestedRun) -> Iterator[Bodies]:
    with work.server() as server:
        yield _numbered("ask", 3, server.slow)


@contextmanager
def _short_mixed(nested: NestedRun) -> Iterator[Bodies]:
    with work.server() as server:
        yield {
            "compute": work.compute,
            "nap": time.sleep,
            "ask": server.slow(),
            "mix": work.in_turn(work.compute, time.sleep, server.slow(), work.locked_out),
        }


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "cpu_1": Scenario(says="one node computes", open=_computing(1)),
    "cpu_2": Scenario(says="two nodes compute", open=_computing(2)),
    "cpu_4": Scenario(says="four nodes compute", open=_computing(4)),
    "cpu_8": Scenario(says="eight nodes compute", open=_computing(8)),
    "gil_free": Scenario(
        says="six nodes hash and compress without the GIL",
        open=_fixed(**_numbered("digest", 3, lambda: work.digest), **_numbered("compress", 3, lambda: work.compress)),
    ),
    "sleepers": Scenario(says="four nodes sleep, 20 ms at a time", open=_fixed(**_numbered("nap", 4, _sleeping))),
    "sleepers_beside_cpu": Scenario(
        says="three nodes sleep, 5 ms at a time, one computes",
        open=_fixed(**_numbered("nap", 3, lambda: work.again(time.sleep, 0.005)), compute=work.busy),
    ),
    "sockets": Scenario(says="four nodes ask a server in another process that takes 20 ms", open=_sockets),
    "ping_pong": Scenario(says="two nodes ask a server that answers at once", open=_ping_pong),
    "sockets_beside_cpu": Scenario(says="two nodes ask, one asks at once, two compute", open=_sockets_beside_cpu),
    "fsync": Scenario(says="two nodes write a megabyte and wait for the disk", open=_fsync),
    "fsync_beside_cpu": Scenario(says="two nodes write, one computes", open=_fsync_beside_cpu),
    "lock_convoy": Scenario(says="four nodes sleep 3 ms under one lock, and compute 1 ms outside", open=_lock_convoy),
    "queues": Scenario(says="two nodes compute, sleep and put into a queue, three take from it", open=_queues),
    "mix": Scenario(
        says="one node computes, sleeps, asks, waits for a lock, writes, hashes: 2-20 ms each, by chance", open=_mixes
    ),
    "mix_8": Scenario(says="eight nodes do so", open=lambda nested: _mixes(nested, 8)),
    "children": Scenario(says="one node waits for child processes, one reads from a pipe", open=_children),
    "gil_hog": Scenario(says="a thread outside of the pool computes beside three nodes", open=_hogged),
    "gil_kept": Scenario(says="one node sleeps in C code that keeps the GIL", open=_gil_kept),
    "nested": Scenario(says="a node executes a driver on the same adapter", open=_nested),
    "short_cpu": Scenario(
        says="three nodes compute", open=_fixed(**_numbered("compute", 3, lambda: work.compute)), short=True
    ),
    "short_sleep": Scenario(
        says="three nodes sleep", open=_fixed(**_numbered("nap", 3, lambda: time.sleep)), short=True
    ),
    "short_socket": Scenario(says="three nodes ask a server", open=_short_sockets, short=True),
    "short_mixed": Scenario(says="four nodes: compute, sleep, ask, a bit of each", open=_short_mixed, short=True),
}
