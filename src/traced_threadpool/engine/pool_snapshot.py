"""A pool in numbers at one moment, whole and by backend: what gauges show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from traced_threadpool.engine.scheduler import Scheduler
from traced_threadpool.engine.work import Run
from traced_threadpool.model.formatting import count, outline
from traced_threadpool.model.records import THREADS


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSnapshot:
    """The nodes of one backend, `threads` among them, as in `PoolSnapshot`."""

    backend: str
    queue_depth: int
    blocked_nodes: int
    active_workers: int
    workers: int
    max_workers: int
    oldest_queued_seconds: float
    oldest_active_seconds: float

    def __repr__(self) -> str:
        running = f"{self.active_workers} of {self.max_workers} running"
        return outline(self, self.backend, running, f"{self.queue_depth:,} queued", f"{self.blocked_nodes:,} blocked")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """The pool at one moment. Ages are in seconds, 0 when there is none."""

    queue_depth: int
    blocked_nodes: int
    active_workers: int
    workers: int
    max_workers: int
    oldest_queued_seconds: float
    oldest_active_seconds: float
    active_runs: int
    lanes: Sequence[LaneSnapshot] = ()
    stalled_nodes: int = 0  # told by whoever watches, not by the pool

    def __repr__(self) -> str:
        running = f"{self.active_workers} of {self.max_workers} running"
        waiting = f"{self.queue_depth:,} queued", f"{self.blocked_nodes:,} blocked"
        return outline(self, None, count(self.active_runs, "run"), running, *waiting)


def snapshot_of(
    scheduler: Scheduler,
    runs: Collection[Run],
    *,
    workers: int,
    limits: Mapping[str, int],
    elsewhere: Collection[str],
    now_ns: int,
) -> PoolSnapshot:
    """Under the pool's lock; `elsewhere` are those of the limited backends whose nodes need no worker."""
    oldest_ready = scheduler.oldest_ready()
    whole = LaneSnapshot(
        backend=THREADS,
        queue_depth=scheduler.queue_depth,
        blocked_nodes=scheduler.blocked_count,
        active_workers=scheduler.busy_count,
        workers=workers,
        max_workers=scheduler.max_workers,
        oldest_queued_seconds=_age(now_ns, oldest_ready.ready_ns if oldest_ready else 0),
        oldest_active_seconds=_age(
            now_ns, min((task.started_ns for task in scheduler.running if task.started_ns), default=0)
        ),
    )
    return PoolSnapshot(
        queue_depth=whole.queue_depth,
        blocked_nodes=whole.blocked_nodes,
        active_workers=whole.active_workers,
        workers=whole.workers,
        max_workers=whole.max_workers,
        oldest_queued_seconds=whole.oldest_queued_seconds,
        oldest_active_seconds=whole.oldest_active_seconds,
        active_runs=sum(run.record is not None for run in runs),
        lanes=_lanes(whole, scheduler, runs, limits, elsewhere, now_ns) if limits else (whole,),
    )


def _lanes(
    whole: LaneSnapshot,
    scheduler: Scheduler,
    runs: Collection[Run],
    limits: Mapping[str, int],
    elsewhere: Collection[str],
    now_ns: int,
) -> Sequence[LaneSnapshot]:
    """The pool by backend."""
    blocked = Counter(task.backend for run in runs for task in run.blocked)
    ready: dict[str, list[int]] = {}
    for task in [*(task for run in runs for task in run.waiting()), *scheduler.held()]:
        ready.setdefault(task.backend, []).append(task.ready_ns)
    running: dict[str, list[int]] = {}
    for task in scheduler.running:
        running.setdefault(task.backend, []).append(task.started_ns or now_ns)
    limited = sum(len(running.get(name, ())) for name in limits if name not in elsewhere)
    active = {THREADS: max(0, whole.active_workers - limited)}
    active |= {name: len(running.get(name, ())) for name in limits}
    return [
        LaneSnapshot(
            backend=name,
            queue_depth=len(ready.get(name, ())),
            blocked_nodes=blocked[name],
            active_workers=active[name],
            workers=whole.workers if name == THREADS else active[name],
            max_workers=limit,
            oldest_queued_seconds=_age(now_ns, min(ready.get(name, ()), default=0)),
            oldest_active_seconds=_age(now_ns, min(running.get(name, ()), default=0)),
        )
        for name, limit in {THREADS: whole.max_workers, **limits}.items()
    ]


def _age(now_ns: int, since_ns: int) -> float:
    return max(0, now_ns - since_ns) / 1e9 if since_ns else 0.0
