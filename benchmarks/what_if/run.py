"""A case and a number of workers into how long a run takes, and its record."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from hamilton import driver
from prometheus_client import CollectorRegistry

from traced_threadpool import FutureAdapter
from traced_threadpool.model.recorded_run import RecordedRun

QUIET_SHARE = 0.15
"""A run counts as undisturbed when others took no more than this of one CPU meanwhile."""

TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run. `others` is how much of one CPU was taken by other processes and by the hypervisor."""

    seconds: float
    others: float
    record: RecordedRun


def measure(module: ModuleType, end: str, workers: int) -> Measured:
    """Runs until it was quiet enough, and returns the quietest of the runs."""
    tried: list[Measured] = []
    while len(tried) < TRIES:
        tried.append(run(module, end, workers))
        if tried[-1].others <= QUIET_SHARE:
            break
    return min(tried, key=lambda measured: measured.others)


def run(module: ModuleType, end: str, workers: int) -> Measured:
    with FutureAdapter(workers, name="what-if", registry=CollectorRegistry(), record=1) as adapter:
        builder = driver.Builder()
        built = builder.with_modules(module).with_adapters(adapter).build()
        gc.collect()
        with _others() as others:
            started = time.perf_counter()
            built.execute([end])
            seconds = time.perf_counter() - started
        (record,) = adapter.recorded_runs
    return Measured(seconds=seconds, others=others[0], record=record)


@contextmanager
def _others() -> Iterator[list[float]]:
    """Fills in what others take of one CPU until the block ends; 0 where that is unknown."""
    found = [0.0]
    started, busy, own = time.perf_counter(), _busy_seconds(), time.process_time()
    yield found
    passed = time.perf_counter() - started
    found[0] = max(0.0, (_busy_seconds() - busy) - (time.process_time() - own)) / passed


def _busy_seconds() -> float:
    """What all CPUs together have done, and what the hypervisor took of them, since the machine started."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return time.process_time()
    user, nice, system, _, _, irq, softirq, steal = (int(each) for each in fields[:8])
    return (user + nice + system + irq + softirq + steal) / float(os.sysconf("SC_CLK_TCK"))
