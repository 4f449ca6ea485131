"""The runs of a case into what the replay of each foretells of the others, against what these took."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.what_if.cases import Case
from benchmarks.what_if.run import Measured
from traced_threadpool.analysis.replay.what_if import replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """A DAG on a number of workers: what was foretold from one record on another number, and the median of its runs.

    `spread` is by how much its shortest and its longest run differ, as a part of the median: nobody foretells better.
    """

    kind: str
    name: str
    recorded: int
    workers: int
    predicted_seconds: float
    measured_seconds: float
    recorded_seconds: float
    spread: float

    @property
    def error(self) -> float:
        """
        >>> facts = {"kind": "I/O", "name": "n", "recorded": 1, "workers": 2, "recorded_seconds": 4, "spread": 0}
        >>> Foretold(predicted_seconds=1.5, measured_seconds=2, **facts).error
        -0.25
        """
        return self.predicted_seconds / self.measured_seconds - 1


def foretold(case: Case, runs: Mapping[int, Sequence[Measured]]) -> list[Foretold]:
    """For each number of workers from each other one. The record is that of the run of median length."""
    found = []
    for recorded, of_recorded in runs.items():
        typical = sorted(of_recorded, key=lambda each: each.seconds)[len(of_recorded) // 2]
        for workers, measured in runs.items():
            if workers != recorded:
                seconds = [each.seconds for each in measured]
                median = statistics.median(seconds)
                found.append(
                    Foretold(
                        kind=case.kind,
                        name=case.name,
                        recorded=recorded,
                        workers=workers,
                        predicted_seconds=replay(typical.record, workers=workers).makespan_seconds,
                        measured_seconds=median,
                        recorded_seconds=typical.seconds,
                        spread=(max(seconds) - min(seconds)) / median,
                    )
                )
    return found
