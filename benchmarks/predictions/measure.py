"""A case and a number of workers into how long its runs take, and their records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from types import ModuleType
from typing import Any, Final

from hamilton import ad_hoc_utils, driver
from hamilton.function_modifiers import group, inject, parameterize, source, value
from prometheus_client import CollectorRegistry

from benchmarks.predictions.cases import Case
from benchmarks.what_if.work import Worker
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis.replay.what_if import replay
from traced_threadpool.model.recorded_run import RecordedRun

END: Final = "whole"
WARM_UP: Final = "warm_up"
WARM_UP_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The mean over all runs of a case at once, and what was recorded of each."""

    seconds: float
    records: tuple[RecordedRun, ...]

    def foretold(self, workers: int) -> tuple[float, float, float]:
        """The mean of what the replays say: at least, at best guess, at most."""
        found = [replay(record, workers=workers) for record in self.records]
        ranges = [each.range_ns or (each.makespan_ns, each.makespan_ns) for each in found]
        return (
            fmean(low for low, _ in ranges) / 1e9,
            fmean(each.makespan_ns for each in found) / 1e9,
            fmean(high for _, high in ranges) / 1e9,
        )


def measure(case: Case, worker: Worker, workers: int) -> Measured:
    """All its clients once, after a node that makes the sampler's process look for the first time."""
    module = _module(case, case.make(worker))
    many = case.clients * case.rounds
    with FutureAdapter(workers, name="predictions", registry=CollectorRegistry(), record=many + 1) as adapter:
        builder = driver.Builder()
        drivers = [builder.copy().with_modules(module).with_adapters(adapter).build() for _ in range(case.clients)]
        drivers[0].execute([WARM_UP])
        seconds: list[float] = []
        start = threading.Barrier(case.clients)

        def client(dr: driver.Driver) -> None:
            start.wait()
            for _ in range(case.rounds):
                began = time.perf_counter()
                dr.execute([END])
                seconds.append(time.perf_counter() - began)

        threads = [threading.Thread(target=client, args=(dr,)) for dr in drivers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        records = adapter.recorded_runs[-many:]
    return Measured(seconds=fmean(seconds), records=tuple(records))


def _module(case: Case, node: Callable[[int], object]) -> ModuleType:
    each: dict[str, Any] = {f"part_{number}": {"number": value(number)} for number in range(case.nodes)}

    @parameterize(**each)
    def part(number: int) -> int:
        node(number)
        return number

    parts: Any = group(*[source(f"part_{number}") for number in range(case.nodes)])

    @inject(parts=parts)
    def whole(parts: list[int]) -> int:
        return sum(parts)

    def warm_up() -> int:
        time.sleep(WARM_UP_SECONDS)
        return 0

    return ad_hoc_utils.create_temporary_module(part, whole, warm_up)
