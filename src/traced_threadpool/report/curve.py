"""A run into its length by number of workers, by replay: what more workers would gain, and where they stop helping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.replay.what_if import MOST_WORKERS, Limit, Scaling, scale
from traced_threadpool.model.formatting import change, count, duration, percent
from traced_threadpool.model.recorded_run import RecordedRun

LIMITS: Final[dict[Limit, str]] = {
    "gil": "the GIL",
    "cpus": "the CPUs",
    "critical_path": "the critical path",
    "nodes": "too few ready nodes",
    "none": "the number of workers",
}
"""What keeps a run from being shorter, in words that follow "limited by"."""

_FEW_NODES: Final = 300
_MANY_NODES: Final = 2_000


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
    scaling = analyzed.more_workers if analyzed.is_large else scale(run, workers_to_try(run), plan=analyzed.plan)
    assert scaling is not None
    return Curve(
        now=scaling.recorded_workers,
        recorded_ns=run.duration_ns,
        points=points_of(scaling),
        scaling=scaling,
        summary=_summary(run, scaling),
    )


def points_of(scaling: Scaling) -> tuple[Point, ...]:
    """Below the number that is enough, workers are what is short; from there on, what the replay says."""
    return tuple(
        Point(
            workers=workers,
            makespan_ns=makespan_ns,
            limit=LIMITS[scaling.limit] if workers >= scaling.enough_workers else LIMITS["none"],
        )
        for workers, makespan_ns in scaling.makespan_ns.items()
    )


def workers_to_try(run: RecordedRun) -> Sequence[int]:
    """1 to 64 for a small run, fewer numbers for a larger one, and always the recorded number and twice that.

    >>> workers_to_try(RecordedRun(id="1", name="r", pool="p", started_ns=0, ended_ns=1, nodes=(), max_workers=80))[-4:]
    [63, 64, 80, 160]
    """
    now = {run.max_workers, 2 * run.max_workers} if run.max_workers else set()
    if len(run.nodes) <= _FEW_NODES:
        tried = set(range(1, MOST_WORKERS + 1))
    elif len(run.nodes) <= _MANY_NODES:
        tried = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST_WORKERS}
    else:
        tried = {1, 4, 16, MOST_WORKERS}
    return sorted(tried | now)


def more_workers(scaling: Scaling) -> str:
    """What more workers than are enough would gain, of the numbers that were tried; empty where none were."""
    enough = scaling.enough_workers
    more = [makespan_ns for workers, makespan_ns in scaling.makespan_ns.items() if workers > enough]
    if not more or enough not in scaling.makespan_ns:
        return ""
    enough_ns = scaling.makespan_ns[enough]
    if (gained_ns := enough_ns - min(more)) < 0.5:
        return f"More than {count(enough, 'worker')} would not help: {scaling.reason}."
    gained = f"{duration(gained_ns)}, {percent(gained_ns, enough_ns)}"
    return f"More than {count(enough, 'worker')} would gain {gained} at most: {scaling.reason}."


def _summary(run: RecordedRun, scaling: Scaling) -> str:
    enough, now = scaling.enough_workers, scaling.recorded_workers
    beyond = more_workers(scaling)
    if enough == now or enough not in scaling.makespan_ns:
        return beyond
    took_ns = scaling.makespan_ns[enough]
    changed = change(before_ns=run.duration_ns, after_ns=took_ns).replace("none", "no change")
    return f"{count(enough, 'worker')} instead of {now:,} would take {duration(took_ns)} ({changed}). {beyond}".strip()
