"""A run and other settings into what `what-if` shows: a predicted length for each number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from traced_threadpool.analysis.replay.estimate import WHOLE
from traced_threadpool.analysis.replay.what_if import HELPS, Plan, Scaling, counts_to_try, scale
from traced_threadpool.engine.priorities import PriorityName
from traced_threadpool.model.formatting import count
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.curve import Point, points_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is to be different. `workers` empty: as many as recorded; nothing at all: some fewer and some more."""

    workers: tuple[int, ...] = ()
    faster: Mapping[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    cpus: int | None = None
    gil: bool = True
    priority: PriorityName | None = None
    run_on: Mapping[str, str] = field(default_factory=dict)
    processes: int | None = None
    moves: Mapping[str, float] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=dict)

    @property
    def in_words(self) -> str:
        """
        >>> Settings(faster={"parse": 2}, without=("log",), gil=False).in_words
        'parse 2x faster, without log, no GIL'
        >>> Settings(run_on={"parse": "processes"}, processes=4).in_words
        'parse on processes, 4 processes'
        >>> Settings(lanes={"db": 4}).in_words
        '4 at once in db'
        """
        parts = [f"{name} on {backend}" for name, backend in self.run_on.items()]
        parts += (
            [f"{self.processes:,} process{'' if self.processes == 1 else 'es'}"] if self.processes is not None else []
        )
        parts += [f"{most:,} at once in {name}" for name, most in self.lanes.items()]
        parts += [f"{name} {factor:g}x faster" for name, factor in self.faster.items()]
        parts += [f"without {name}" for name in self.without]
        parts += ["no GIL"] if not self.gil else []
        parts += [count(self.cpus, "CPU")] if self.cpus is not None else []
        parts += [f"priority {self.priority}"] if self.priority is not None else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The run as it was, and as it would be."""

    run: RecordedRun
    settings: Settings
    scaling: Scaling

    @property
    def points(self) -> tuple[Point, ...]:
        return points_of(self.scaling)


def workers_by_default(now: int) -> tuple[int, ...]:
    """
    >>> workers_by_default(4), workers_by_default(1)
    ((2, 4, 8, 16), (1, 2, 4))
    """
    return tuple(sorted({max(1, now // 2), now, 2 * now, 4 * now}))


def predict(run: RecordedRun, settings: Settings) -> Prediction:
    """Replay the run with each number of workers.

    Raises:
        ValueError: There is nothing to replay, or a setting makes no sense for this run.
    """
    plan = Plan(run)
    asked = settings.workers or (workers_by_default(plan.workers) if settings == Settings() else (plan.workers,))
    scaled = partial(
        scale,
        run,
        asked,
        faster=settings.faster,
        without=settings.without,
        cpus=settings.cpus,
        gil=settings.gil,
        priority=settings.priority,
        run_on=settings.run_on,
        processes=settings.processes,
        moves=settings.moves,
        lanes=settings.lanes,
        plan=plan,
    )
    scaling = scaled()
    if settings == Settings(workers=settings.workers) and len(plan.nodes) <= WHOLE and _may_be_shorter(scaling):
        # What limits a number of workers is what `explain` says, which asks about these.
        scaling = scaled(beside={plan.workers, *counts_to_try(run)})
    return Prediction(run=run, settings=settings, scaling=scaling)


def _may_be_shorter(scaling: Scaling) -> bool:
    """Whether some number that was not asked about may beat one that more workers seem not to help."""
    return any(
        limit != "none" and scaling.makespan_ns[number] * (1 - HELPS) > scaling.floor_ns
        for number, limit in scaling.limits.items()
    )
