"""Eight busy workers into what finding out where their time goes costs: the same work with it and without, in turns."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from time import perf_counter, process_time

from prometheus_client import CollectorRegistry

from benchmarks.samples import Action, Series, per_node, take_turns
from benchmarks.settings import Settings, say
from traced_threadpool import FutureAdapter

SECTION = "attribution"
ON, OFF = "on (the default)", "off"
WORKERS = 8
ROUNDS = 60
NODES = 192
BLOCK = b"x" * 1_000_000


def interpreted() -> int:
    """Holds the GIL, about 5 ms."""
    return sum(sum(range(1_000)) for _ in range(300))


def hashed() -> int:
    """Computes without it, about 5 ms."""
    return sum(len(hashlib.sha256(BLOCK).digest()) for _ in range(16))


def mixed() -> int:
    """Both, and waits of two milliseconds in between."""
    found = 0
    for _ in range(5):
        found += sum(sum(range(1_000)) for _ in range(20))
        found += len(hashlib.sha256(BLOCK[:200_000]).digest())
        time.sleep(0.002)
    return found


WORK: Mapping[str, Callable[[], int]] = {
    "interpreted, 8 workers": interpreted,
    "hashing, 8 workers": hashed,
    "mixed, 8 workers": mixed,
}


def measure(settings: Settings) -> list[Series]:
    """The time of a batch of nodes, with attribution on and off."""
    found: list[Series] = []
    nodes = WORKERS if settings.smoke else NODES
    for case, work in WORK.items():
        say(f"attribution: {case}")
        with (
            FutureAdapter(WORKERS, tracing=False, registry=CollectorRegistry()) as on,
            FutureAdapter(WORKERS, tracing=False, registry=CollectorRegistry(), attribution=False) as off,
        ):
            actions = {ON: _batch(on, work, nodes), OFF: _batch(off, work, nodes)}
            taken = take_turns(actions, rounds=settings.rounds(ROUNDS), choice=settings.choice)
        found += per_node(SECTION, case, nodes, taken)
    return found


def _batch(adapter: FutureAdapter, work: Callable[[], int], nodes: int) -> Action:
    def action() -> Mapping[str, float]:
        started, cpu_started = perf_counter(), process_time()
        futures = [adapter.do_remote_execute(execute_lifecycle_for_node=work, node=None) for _ in range(nodes)]
        for future in futures:
            future.result()
        return {"wall": perf_counter() - started, "cpu": process_time() - cpu_started}

    return action
