"""Which part of a ready task's wait for a worker is because of tasks of other runs.

While a task waits the workers are busy: with tasks of its own run, and with those of others. Its wait is *behind other
runs* in proportion of the workers that these have meanwhile. It is kept as sums, so that a start, an end and a task
that becomes ready cost a constant time; and only while there are several runs: see `Pool`.

>>> from traced_threadpool.engine.scheduler import RunQueue, Task
>>> mine, other = RunQueue(), RunQueue()
>>> first, theirs, waiting = Task("a", queue=mine), Task("b", queue=other), Task("c", queue=mine)
>>> shares = Shares(workers=2, now_ns=0)
>>> shares.start(first); shares.start(theirs); shares.ready(waiting, 0)
>>> shares.end(first, 100); shares.start(waiting)
>>> waiting.queue_others_ns
50
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traced_threadpool.engine.scheduler import RunQueue, Task


class _Share:
    """How many workers a run has, since when, and for how long it had any before: workers times nanoseconds."""

    __slots__ = ("busy", "since_ns", "used_ns")

    def __init__(self) -> None:
        self.busy = self.since_ns = self.used_ns = 0

    def used_until(self, now_ns: int) -> int:
        return self.used_ns + self.busy * (now_ns - self.since_ns)

    def change(self, by: int, now_ns: int) -> None:
        self.used_ns = self.used_until(now_ns)
        self.since_ns = now_ns
        self.busy += by


class Shares:
    """Under the scheduler's caller's lock. Time never goes back: what comes late counts as now."""

    def __init__(self, *, workers: int, now_ns: int) -> None:
        self.workers = workers
        self._now_ns = now_ns
        self._all = _Share()
        self._of: dict[RunQueue, _Share] = {}
        self._all.since_ns = now_ns

    def advance(self, now_ns: int) -> None:
        if now_ns > self._now_ns:
            self._now_ns = now_ns

    def ready(self, task: Task, now_ns: int) -> None:
        """It waits from now on."""
        self.advance(now_ns)
        task.queue_others_ns = -self._others_ns(self._share(task))

    def start(self, task: Task, *, lent: bool = False) -> None:
        """It has a worker: of its own, or lent by a task of its own run that waits for it."""
        share = self._share(task)
        # One that was ready before there were several runs waited behind nobody else until then.
        task.queue_others_ns += self._others_ns(share)
        if not lent:
            share.change(1, self._now_ns)
            self._all.change(1, self._now_ns)

    def end(self, task: Task, now_ns: int) -> None:
        """Its worker is free."""
        self.advance(now_ns)
        self._share(task).change(-1, self._now_ns)
        self._all.change(-1, self._now_ns)

    def forget(self, run: RunQueue) -> None:
        """It is over."""
        self._of.pop(run, None)

    def _others_ns(self, share: _Share) -> int:
        now_ns = self._now_ns
        return (self._all.used_until(now_ns) - share.used_until(now_ns)) // self.workers

    def _share(self, task: Task) -> _Share:
        """That of the run, with all that is nested in it."""
        queue = task.queue
        while queue.parent is not None:
            queue = queue.parent.queue
        share = self._of.get(queue)
        if share is None:
            share = self._of[queue] = _Share()
            share.since_ns = self._now_ns
        return share
