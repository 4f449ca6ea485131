"""A pool at one moment, for whoever wants to see it: copied under its lock in few steps, and put in order outside.

A run that nothing has happened to since the last look is not copied again: whoever looks gets the same `RunLook`, and
may keep what was made from it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import cast

from traced_threadpool.engine.scheduler import READY, Task
from traced_threadpool.engine.work import Run, Work
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.records import THREADS

Counts = tuple[int, ...]

_INPUTS = attrgetter("inputs")
_REMAINING = attrgetter("remaining")
_RANK_AND_NUMBER = itemgetter(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLook:
    """How one lane stands."""

    backend: str
    limit: int
    active: int
    queued: int
    oldest_queued_seconds: float


class RunLook:
    """One run as the pool has it.

    Attributes:
        submitted: How many nodes it has had.
        done: How many of them have ended, in whatever way.
        failed: How many of these raised; `failed_names` are those of the first.
        skipped: Names of those that ended without running.
        running: What has a worker.
        blocked: What waits for inputs, in no order; `inputs` are theirs, of which `remaining` have not ended.
    """

    def __init__(self, run: Run, running: Sequence[Work], held: Sequence[Task], counts: Counts) -> None:
        """Under the pool's lock."""
        self.run = run
        self.running = running
        self.counts = counts
        self.submitted, pending, *_ = counts
        self.done = self.submitted - pending
        self.failed = run.failed_count
        self.failed_names = tuple(run.failed_names)
        self.skipped = tuple(run.skipped)
        self.blocked = cast("Sequence[Work]", list(run.blocked))  # only Work is ever added
        self.inputs: Sequence[Sequence[Work]] = list(map(_INPUTS, self.blocked))
        self.remaining: Sequence[int] = list(map(_REMAINING, self.blocked))
        # One that was cancelled in the queue is in it until its turn comes.
        self._ready = [task for task in run.ready if task.state is READY]
        self._ranked = [each for each in run.ranked if each[2].state is READY]
        self._held = held

    @lazy
    def ready(self) -> Sequence[Work]:
        """What waits for a worker, in the order in which it starts."""
        ranked = sorted(self._ranked, key=_RANK_AND_NUMBER)
        return cast("Sequence[Work]", [*self._ready, *(task for _, _, task in ranked), *self._held])

    @lazy
    def queued(self) -> Mapping[str, tuple[int, int]]:
        """By lane, how many nodes are ready, and since when the first of them."""
        found: dict[str, tuple[int, int]] = {}
        for task in self.ready:
            number, oldest_ns = found.get(task.backend, (0, task.ready_ns))
            found[task.backend] = number + 1, min(oldest_ns, task.ready_ns)
        return found

    @lazy
    def unended(self) -> frozenset[Work]:
        """All its nodes that had not ended."""
        return frozenset((*self.running, *self.ready, *self.blocked))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLook:
    """The runs of a pool, the first to start first, and its lanes.

    `now_ns` is of the pool's clock; `threads` are those of what runs.
    """

    now_ns: int
    threads: Mapping[Work, threading.Thread | None]
    closed: bool
    lanes: Sequence[LaneLook]
    runs: Sequence[RunLook]


def look_at(run: Run, running: Sequence[Work], held: Sequence[Task], *, before: RunLook | None) -> RunLook:
    """How the run stands; `before` itself, if that is how it stood then. Under the pool's lock.

    A run that has had as many nodes, and has as many left, has none that came or ended since. Of these some may have
    started, which is seen by those that run.
    """
    record = run.record
    counts = (
        0 if record is None else record.node_count,
        len(run.pending),
        len(run.ready),
        len(run.ranked),
        len(run.blocked),
        len(held),
    )
    if before is not None and before.counts == counts and before.running == running and record is not None:
        return before
    return RunLook(run, running, held, counts)


def lanes_of(looks: Iterable[RunLook], limits: Mapping[str, int], busy: int, now_ns: int) -> Sequence[LaneLook]:
    """The lanes, the pool's own threads first.

    Args:
        looks: All runs, and what belongs to none.
        limits: How many nodes of each lane run at once, by backend.
        busy: How many slots are held: nodes of backends hold one of the threads' own.
        now_ns: The moment.
    """
    queued = dict.fromkeys(limits, 0)
    oldest_ns = dict.fromkeys(limits, now_ns)
    active = dict.fromkeys(limits, 0)
    for look in looks:
        for backend, (number, ready_ns) in look.queued.items():
            queued[backend] += number
            oldest_ns[backend] = min(oldest_ns[backend], ready_ns)
        for task in look.running:
            active[task.backend] += 1
    active[THREADS] = max(0, busy - sum(number for backend, number in active.items() if backend != THREADS))
    return [
        LaneLook(
            backend=backend,
            limit=limit,
            active=active[backend],
            queued=queued[backend],
            oldest_queued_seconds=(now_ns - oldest_ns[backend]) / 1e9,
        )
        for backend, limit in limits.items()
    ]
