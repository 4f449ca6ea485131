"""One DAG of nodes that do nothing into how long the pool's lock is held, and how often, for each of them."""

from __future__ import annotations

import gc
import statistics
from time import perf_counter_ns
from types import TracebackType
from typing import Any

from hamilton import driver

from benchmarks import dags
from benchmarks.samples import Series
from benchmarks.settings import Settings, say
from traced_threadpool import FutureAdapter

SECTION = "lock"
PEER = "ours, untraced"
WORKERS = 8
ROUNDS = 5


class _Timed:
    """A lock that notes how long each hold takes. Reading the clock twice is part of it, some 0.1 µs."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.locked = lock.locked
        self.held_ns: list[int] = []
        self._since_ns = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        got: bool = self._lock.acquire(blocking, timeout)
        if got:
            self._since_ns = perf_counter_ns()
        return got

    def release(self) -> None:
        self.held_ns.append(perf_counter_ns() - self._since_ns)
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()


def measure(settings: Settings) -> list[Series]:
    """Median and 99th percentile of the holds, their number and sum per node, and the longest."""
    dag = dags.layered(4, 10, 3) if settings.smoke else dags.layered(20, 50, 3)
    say(f"lock: {dag.name}")
    taken: dict[tuple[str, str], list[float]] = {}
    with FutureAdapter(WORKERS, tracing=False, metrics=False) as adapter:
        builder = driver.Builder().with_modules(dag.module).with_adapters(adapter)
        built = builder.build()
        built.execute([dag.end])
        pool: Any = adapter._pool
        lock = pool._lock
        for _ in range(settings.rounds(ROUNDS)):
            timed = _Timed(lock)
            gc.collect()
            pool._lock = timed
            try:
                built.execute([dag.end])
            finally:
                pool._lock = lock
            held = sorted(timed.held_ns)
            for key, amount in (
                (("median of a hold", "µs"), statistics.median(held) / 1e3),
                (("99th percentile of a hold", "µs"), held[int(len(held) * 0.99)] / 1e3),
                (("longest hold", "µs"), held[-1] / 1e3),
                (("holds of a node", ""), len(held) / len(dag)),
                (("held for a node", "µs"), sum(held) / len(dag) / 1e3),
            ):
                taken.setdefault(key, []).append(amount)
    return [
        Series(section=SECTION, case=dag.name, peer=PEER, measure=name, unit=unit, values=tuple(values))
        for (name, unit), values in taken.items()
    ]
