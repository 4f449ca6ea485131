"""A run into its length by number of workers, by replay: what more workers would gain, and where they stop helping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.replay.what_if import Limit, Scaling
from traced_threadpool.model.formatting import change, count, duration
from traced_threadpool.model.recorded_run import RecordedRun

LIMITS: Final[dict[Limit, str]] = {
    "gil": "the GIL",
    "cpus": "the CPUs",
    "backend": "the limit of a backend",
    "critical_path": "the critical path",
    "nodes": "too few ready nodes",
    "none": "the number of workers",
}
"""What keeps a run from being shorter, in words that follow "limited by"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a run would take with so many workers, and what keeps it from being shorter."""

    workers: int
    makespan_ns: int
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """`now` is the recorded number of workers, or where the record does not say, the most that were busy at once."""

    now: int
    recorded_ns: int
    points: tuple[Point, ...]
    scaling: Scaling
    summary: str


def curve(analyzed: AnalyzedRun) -> Curve | None:
    """None where there is nothing to replay: no node ran, or the links form a circle.

    Of a very large run it has what the diagnosis asked about.
    """
    run = analyzed.run
    if analyzed.as_recorded is None:
        return None
    scaling = analyzed.scaling
    assert scaling is not None
    return Curve(
        now=scaling.recorded_workers,
        recorded_ns=run.duration_ns,
        points=points_of(scaling),
        scaling=scaling,
        summary=_summary(run, scaling),
    )


def points_of(scaling: Scaling) -> tuple[Point, ...]:
    """One for each number of workers that was tried."""
    return tuple(
        Point(
            workers=workers,
            makespan_ns=makespan_ns,
            limit=LIMITS[scaling.limits[workers]],
        )
        for workers, makespan_ns in scaling.makespan_ns.items()
    )


def _summary(run: RecordedRun, scaling: Scaling) -> str:
    enough, now = scaling.enough_workers, scaling.recorded_workers
    beyond = scaling.of_more_than(enough)
    if enough == now:
        return beyond
    took_ns = scaling.makespan_ns[enough]
    changed = change(before_ns=run.duration_ns, after_ns=took_ns).replace("none", "no change")
    return f"{count(enough, 'worker')} instead of {now:,} would take {duration(took_ns)} ({changed}). {beyond}"
