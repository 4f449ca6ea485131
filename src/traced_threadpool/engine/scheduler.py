"""(tasks added, tasks ended) into (tasks that may run now). Pure state: no thread, no clock, no lock.

The rule: a task is ready when every input has ended well. Ready tasks wait in one queue per run: the one of the
lowest rank goes first, of several the one that was ready first; without ranks, that alone counts. `take` goes
round the runs that have a ready task, so that no run starves another. At most `max_workers` tasks hold a
slot at once. A task is *doomed*, and never runs, as soon as the first of its inputs (in the order given) that
has not ended well has failed: the answer that waiting for the inputs one by one in that order would give.

A running task that waits for a run of its own (a nested `execute`) can lend its slot to one task of that run
at a time; so nested runs go on however few workers there are.

Of a task's backend there can be a limit, see `limits`: what is beyond it is held, and is not ready yet. A task whose
backend runs it elsewhere needs no slot: once it may go on, `take_leaving` gives it, however many others run.

>>> scheduler, run = Scheduler(max_workers=2), RunQueue()
>>> load, clean, report = (Task(name, queue=run) for name in ("load", "clean", "report"))
>>> for task, inputs in ((load, []), (clean, [load]), (report, [clean])):
...     _ = scheduler.add(task, inputs, now_ns=0)
>>> scheduler.take().name, scheduler.take()
('load', None)
>>> scheduler.end(load, now_ns=50)
[]
>>> scheduler.take() is clean, clean.ready_ns
(True, 50)
>>> [doomed.name for doomed in scheduler.end(clean, failed=True, now_ns=90)]
['report']
>>> scheduler.ready_count, scheduler.blocked_count, scheduler.busy_count
(0, 0, 0)
>>> ranked = RunQueue(ranks={"long": -9.0, "short": -1.0})
>>> for name in ("unknown", "short", "long"):
...     _ = scheduler.add(Task(name, queue=ranked), [], now_ns=0)
>>> scheduler.take().name, scheduler.take().name
('long', 'short')

Time comes in as an argument (`now_ns`), so that a replay can use a virtual one.
The caller serialises all calls to one scheduler.
"""

# Longer than 450 lines: one state machine, whose moves are read side by side.

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from types import MappingProxyType
from typing import Final

from traced_threadpool.engine.limits import Limits
from traced_threadpool.engine.shares import Shares
from traced_threadpool.model.records import NodeRecord, RunRecord

# States in the order of a task's life; OUTSIDE is a future of somebody else's, which only ends.
NEW: Final = 0
BLOCKED: Final = 1
READY: Final = 2
RUNNING: Final = 3
ENDED: Final = 4
OUTSIDE: Final = 5
HELD: Final = 6  # between BLOCKED and READY
LEAVING: Final = 7  # in place of READY, for what runs elsewhere


LAST: Final = math.inf
"""Rank of a task that has none where others do."""

AS_ADDED: Final[Mapping[str, float]] = MappingProxyType({})
"""Ranks of a run whose ready tasks go in the order in which they were added."""


class RunQueue:
    """The waiting tasks of one run.

    `parent` is the running task that this run is nested in, if any. `ranks` gives the order by the tasks' names; it
    is not changed once the run has tasks. `learn(name, nanoseconds)` is told how long each task took that ended well.
    """

    __slots__ = ("blocked", "in_ring", "learn", "parent", "ranked", "ranks", "ready")

    def __init__(
        self,
        parent: Task | None = None,
        *,
        ranks: Mapping[str, float] | None = None,
        learn: Callable[[str, int], object] | None = None,
    ) -> None:
        self.parent = parent
        self.ranks = ranks
        self.learn = learn
        # Ready tasks are in one of the two. A deque costs a fifth of a heap.
        self.ready: deque[Task] = deque()
        self.ranked: list[tuple[float, int, Task]] = []  # a heap; the number tells which was ready first
        self.in_ring = False
        self.blocked: set[Task] = set()

    def waiting(self) -> list[Task]:
        """The tasks that wait for a worker, in no order."""
        tasks = self.ready if self.ranks is None else [task for _, _, task in self.ranked]
        return [task for task in tasks if task.state is READY]

    def is_nested_in(self, task: Task) -> bool:
        """Whether this run, or a run that it is nested in, was started by `task`."""
        parent = self.parent
        while parent is not None:
            if parent is task:
                return True
            parent = parent.queue.parent
        return False


class Task(NodeRecord):
    """A node as the scheduler sees it. Equality is identity."""

    __slots__ = ("dependents", "failed", "number", "queue", "remaining", "state")

    inputs: Sequence[Task]
    number: int  # of the tasks added, where the run's ranks are `AS_ADDED`

    def __init__(
        self,
        name: str,
        *,
        queue: RunQueue,
        run: RunRecord | None = None,
        run_id: str | None = None,
        task_id: str | None = None,
        definition: object = None,
        submitted_ns: int = 0,
    ) -> None:
        super().__init__(
            name, run=run, run_id=run_id, task_id=task_id, definition=definition, submitted_ns=submitted_ns
        )
        self.queue = queue
        self.state: int = NEW
        self.failed = False
        self.remaining = 0
        self.dependents: list[Task] | None = None

    @property
    def parent(self) -> Task | None:
        return self.queue.parent


class Scheduler:
    """Which task may run now. See the module's text for the rules."""

    def __init__(
        self, max_workers: int, limits: Mapping[str, int] | None = None, elsewhere: Collection[str] = ()
    ) -> None:
        self.max_workers = max_workers
        self._limits = Limits(limits) if limits else None
        self._elsewhere = elsewhere  # backends, of those that have a limit
        self.leaving: deque[Task] = deque()
        self.ready_count = 0
        self.blocked_count = 0
        self.running: set[Task] = set()
        self.busy_count = 0  # slots held; a task on a lent slot holds none of its own
        self._lender_of: dict[Task, Task | None] = {}  # for each task without a slot of its own, the task that lends it
        self._lending: set[Task | None] = set()
        self._parked: set[Task] = set()  # tasks that wait for a run nested in them and have nothing of it to do
        self._ring: deque[RunQueue] = deque()  # every run that has a ready task, once
        self._ranked = 0  # how many tasks with a rank were ready so far
        self._ended_ns = 0  # the latest end that was told of
        self.shares: Shares | None = None  # while there are several runs

    def share(self, now_ns: int) -> None:
        """There are several runs: from now on it is kept which of them has the workers while tasks wait."""
        self.shares = shares = Shares(workers=self.max_workers, now_ns=now_ns)
        for task in self.running:
            if task not in self._lender_of:
                shares.start(task)

    def add(self, task: Task, inputs: Sequence[Task], now_ns: int) -> bool:
        """Takes in a new task with its inputs, in the order in which they are resolved.

        Returns False for a task that is doomed already: it has ended, and it counts as failed.
        """
        if task.queue.ranks is AS_ADDED:
            self._ranked = task.number = self._ranked + 1
        if not inputs:
            self._push(task, now_ns)
            return True
        task.inputs = inputs
        remaining, failed = 0, False
        for upstream in inputs:
            if upstream.state is not ENDED:
                remaining += 1
                if upstream.dependents is None:
                    upstream.dependents = [task]
                else:
                    upstream.dependents.append(task)
            elif upstream.failed:
                failed = True
        task.remaining = remaining
        if failed:
            task.failed = True
            if self._is_doomed(task):
                self._leave(task, failed=True)
                return False
        if remaining:
            task.state = BLOCKED
            task.queue.blocked.add(task)
            self.blocked_count += 1
        else:
            self._push(task, max(now_ns, self._ended_ns))
        return True

    def add_again(self, task: Task, inputs: Sequence[Task], now_ns: int) -> None:
        """Sends a task just taken back to wait for more (an input's value was itself a future)."""
        self.running.discard(task)
        self._give_back_slot(task, now_ns)
        self._leave_backend(task)
        task.state = NEW
        self.add(task, [*task.inputs, *inputs], now_ns)

    def take(self, slot_of: Task | None = None) -> Task | None:
        """The next task to run, or None. It is `RUNNING` from now on and holds a slot until `end`.

        `slot_of`: the running task that lends its slot: only for tasks of runs nested in it, so that it gets
        back to its own work soon; for any task when every worker waits like this, since nobody else would.
        """
        if not self.ready_count:
            return None
        if slot_of is None:
            if self.busy_count >= self.max_workers:
                return None
            self.busy_count += 1
            ring = self._ring
            first = ring[0]
            ranked = first.ranked
            if ranked and ranked[0][2].state is READY and len(ring) == 1:
                # What is done below, without the calls: this is nearly every node's way in.
                task = heappop(ranked)[2]
                self.ready_count -= 1
                if not ranked:
                    ring.clear()
                    first.in_ring = False
            else:
                task = self._pop(self._first_queue())
        else:
            queue = self._queue_for(slot_of)
            if queue is None:
                return None
            task = self._pop(queue)
            self._lender_of[task] = slot_of
            self._lending.add(slot_of)
        task.state = RUNNING
        self.running.add(task)
        if self.shares is not None:
            self.shares.start(task, lent=slot_of is not None)
        return task

    def take_leaving(self) -> Task | None:
        """The next task that runs elsewhere, or None. It is `RUNNING` from now on, and holds no slot."""
        while self.leaving:
            task = self.leaving.popleft()
            if task.state is LEAVING:  # it may have been cancelled
                task.state = RUNNING
                self.running.add(task)
                self._lender_of[task] = None
                if self.shares is not None:
                    self.shares.start(task, lent=True)
                return task
        return None

    def can_lend(self, slot_of: Task) -> bool:
        """Whether `take(slot_of)` would give a task."""
        return self.ready_count > 0 and self._queue_for(slot_of) is not None

    def park(self, task: Task) -> None:
        """The worker of this running task has nothing to do but wait; `unpark` when it goes on."""
        self._parked.add(task)

    def unpark(self, task: Task) -> None:
        self._parked.discard(task)

    def retire(self, tasks: Iterable[Task], now_ns: int) -> None:
        """The threads that run these tasks are not among the workers any more: the tasks hold no slot from now on."""
        for task in tasks:
            if task not in self._lender_of:
                self._give_back_slot(task, now_ns)
                self._lender_of[task] = None

    def end(self, task: Task, now_ns: int, *, failed: bool = False) -> Sequence[Task]:
        """The task has ended. Its dependents become ready, or are doomed by its failure.

        Returns the tasks that ended without ever running, each with `cause` set, inputs before dependents.
        """
        if task.state is RUNNING:  # what `_leave` does, without the call: this is every node's way out
            self.running.discard(task)
            if self._lender_of or self.shares is not None:
                self._give_back_slot(task, now_ns)
            else:
                self.busy_count -= 1
            task.state = ENDED
            task.failed = failed
            if self._limits is not None:
                self._leave_backend(task)
            learn = task.queue.learn
            if learn is not None and not failed:
                learn(task.name, now_ns - task.started_ns)
        else:
            self._leave(task, failed=failed)
        dependents = task.dependents
        if now_ns > self._ended_ns:
            self._ended_ns = now_ns
        else:  # a worker that was held up after its node comes after others: nobody is ready before an input has ended
            now_ns = self._ended_ns
        if dependents is None:
            return ()
        if failed:
            return self._settle((task,), now_ns)
        task.dependents = None
        doomed: list[Task] = []
        for dependent in dependents:
            if dependent.state is not BLOCKED:
                continue
            dependent.remaining = remaining = dependent.remaining - 1
            if dependent.failed:
                if self._is_doomed(dependent):
                    self._leave(dependent, failed=True)
                    doomed.append(dependent)
                    doomed += self._settle((dependent,), now_ns)
            elif not remaining:
                dependent.queue.blocked.discard(dependent)
                self.blocked_count -= 1
                self._push(dependent, now_ns)
        return doomed

    def cancel(self, tasks: Iterable[Task], now_ns: int, cause: Task | None = None) -> list[Task]:
        """Ends those of `tasks` that have not started, and what depends on them in whichever run.

        Returns all tasks that ended so, with `cause` (else the cancelled task itself) as theirs.
        """
        ended = []
        for task in tasks:
            if task.state in (BLOCKED, READY, HELD, LEAVING):
                self._leave(task, failed=True)
                task.cause = cause
                ended.append(task)
        return ended + self._settle(ended, now_ns)

    def rebuild(
        self, queues: Iterable[RunQueue], pending: Collection[Task], held: Collection[Task], now_ns: int
    ) -> list[Task]:
        """Everything anew from the tasks themselves, after a change was interrupted in the middle.

        Args:
            queues: All runs.
            pending: All tasks that have been added and are not known to everybody as ended.
            held: Those of them that some thread runs. One that is `RUNNING` and held by nobody is ready again.
            now_ns: The moment.

        Returns:
            The tasks that are doomed, as `end` does.
        """
        for queue in queues:
            queue.ready.clear()
            queue.ranked.clear()
            queue.blocked.clear()
            queue.in_ring = False
        self._ring.clear()
        self.leaving.clear()
        self.ready_count = self.blocked_count = 0
        self.running = {task for task in pending if task.state is RUNNING and task in held}
        self._lender_of = {
            task: lender
            for task, lender in self._lender_of.items()
            if task in self.running and (lender is None or lender in self.running)
        }
        self._lending = set(self._lender_of.values())
        self._parked &= self.running
        self.busy_count = len(self.running) - len(self._lender_of)
        if self.shares is not None:
            self.share(now_ns)
        if self._limits is not None:
            self._limits.reset(self.running)
        waiting = [task for task in pending if task.state is not ENDED and task not in self.running]
        waiting.sort(key=lambda task: (task.ready_ns or task.submitted_ns, task.submitted_ns))
        for task in waiting:
            for upstream in task.inputs:
                if upstream.state is not ENDED:
                    upstream.dependents = []
        doomed: list[Task] = []
        for task in waiting:
            unfinished = [upstream for upstream in task.inputs if upstream.state is not ENDED]
            task.failed = any(upstream.state is ENDED and upstream.failed for upstream in task.inputs)
            task.remaining = len(unfinished)
            for upstream in unfinished:
                assert upstream.dependents is not None
                upstream.dependents.append(task)
            if task.failed and self._is_doomed(task):
                task.state = ENDED
                doomed.append(task)
            elif unfinished:
                task.state = BLOCKED
                task.queue.blocked.add(task)
                self.blocked_count += 1
            else:
                ready_ns = task.ready_ns
                self._push(task, now_ns)
                task.ready_ns = ready_ns or task.ready_ns
        return doomed + self._settle(doomed, now_ns)

    def unstarted(self, queue: RunQueue) -> list[Task]:
        """The tasks of a run that have been added and have not been started."""
        leaving = [task for task in self.leaving if task.queue is queue and task.state is LEAVING]
        return queue.waiting() + list(queue.blocked) + self.held(queue) + leaving

    @property
    def queue_depth(self) -> int:
        """How many tasks have their inputs and wait: for a worker, or for their backend."""
        return self.ready_count + (0 if self._limits is None else self._limits.held_count)

    def held(self, queue: RunQueue | None = None) -> list[Task]:
        return [] if self._limits is None else self._limits.held(queue)

    def oldest_ready(self) -> Task | None:
        """Of the tasks that wait for a worker, the one that has waited longest."""
        waiting = [
            task
            for queue in self._ring
            if self._has_ready(queue)
            for task in ((queue.ready[0],) if queue.ranks is None else queue.waiting())
        ]
        return min(waiting + self.held(), key=lambda task: task.ready_ns, default=None)

    def _enters_backend(self, limits: Limits, task: Task) -> bool:
        ranks = task.queue.ranks
        self._ranked = number = self._ranked + 1
        if ranks is AS_ADDED:
            number = task.number
        task.state = HELD
        return limits.enter(task, (LAST if ranks is None else ranks.get(task.name, LAST), number))

    def _leave_backend(self, task: Task) -> None:
        """Another task of its backend may go on, if any is held."""
        following = None if self._limits is None else self._limits.leave(task)
        if following is not None:
            self._push(following, following.ready_ns, held=True)

    def _push(self, task: Task, now_ns: int, held: bool = False) -> None:
        submitted_ns = task.submitted_ns
        # Its last input may have ended just before it was submitted.
        task.ready_ns = now_ns if now_ns > submitted_ns else submitted_ns
        if self.shares is not None and not held:
            self.shares.ready(task, now_ns)
        if self._limits is not None:
            if not held and not self._enters_backend(self._limits, task):
                return
            if task.backend in self._elsewhere:
                task.state = LEAVING
                self.leaving.append(task)
                return
        task.state = READY
        self.ready_count += 1
        queue = task.queue
        ranks = queue.ranks
        if ranks is None:
            queue.ready.append(task)
        else:
            if ranks is AS_ADDED:
                number = task.number
            else:
                self._ranked = number = self._ranked + 1
            heappush(queue.ranked, (ranks.get(task.name, LAST), number, task))
        if not queue.in_ring:
            queue.in_ring = True
            self._ring.append(queue)

    def _pop(self, queue: RunQueue) -> Task:
        """Takes the head of a run that has a ready task, and sends the run to the end of the ring."""
        ring = self._ring
        ready: deque[Task] | list[tuple[float, int, Task]]
        if queue.ranks is None:
            ready = queue.ready
            task = ready.popleft()
        else:
            ready = queue.ranked
            task = heappop(ready)[2]
        self.ready_count -= 1
        if ready and len(ring) == 1:
            return task
        if ring[0] is queue:
            ring.popleft()
        else:
            ring.remove(queue)
        if ready:
            ring.append(queue)
        else:
            queue.in_ring = False
        return task

    def _first_queue(self) -> RunQueue:
        """The run whose turn it is. There is one, since `ready_count` is not 0."""
        ring = self._ring
        while True:
            queue = ring[0]
            ranked = queue.ranked
            if ranked:
                if ranked[0][2].state is READY:
                    return queue
            elif queue.ready and queue.ready[0].state is READY:
                return queue
            if self._has_ready(queue):
                return queue
            ring.popleft()
            queue.in_ring = False

    @staticmethod
    def _has_ready(queue: RunQueue) -> bool:
        """A task cancelled in the queue stays there until it comes to the head; this drops such."""
        ranked = queue.ranked
        if ranked:
            while ranked and ranked[0][2].state is not READY:
                heappop(ranked)
            return bool(ranked)
        ready = queue.ready
        while ready and ready[0].state is not READY:
            ready.popleft()
        return bool(ready)

    def _queue_for(self, lender: Task) -> RunQueue | None:
        if lender in self._lending:
            return None
        if len(self._parked) >= self.max_workers:
            return self._first_queue()
        for queue in self._ring:
            if queue.is_nested_in(lender) and self._has_ready(queue):
                return queue
        return None

    def _leave(self, task: Task, *, failed: bool) -> None:
        """Takes a task out of wherever its state has it; it has ended."""
        state = task.state
        if state is RUNNING:
            self.running.discard(task)
            self._give_back_slot(task, 0)
        elif state is READY:
            self.ready_count -= 1
        elif state is BLOCKED:
            task.queue.blocked.discard(task)
            self.blocked_count -= 1
        task.state = ENDED
        task.failed = failed
        if self._limits is not None:
            self._leave_backend(task)

    def _give_back_slot(self, task: Task, now_ns: int) -> None:
        if task in self._lender_of:
            self._lending.discard(self._lender_of.pop(task))
            return
        self.busy_count -= 1
        if self.shares is not None:
            self.shares.end(task, now_ns)

    def _settle(self, ended: Iterable[Task], now_ns: int) -> list[Task]:
        """Tells dependents, and theirs, without recursion: a chain of 20,000 nodes may fall at once."""
        waiting = list(ended)
        doomed: list[Task] = []
        for task in waiting:  # grows while it is gone through
            dependents, task.dependents = task.dependents, None
            for dependent in dependents or ():
                if dependent.state is not BLOCKED:
                    continue
                dependent.remaining -= 1
                if task.failed:
                    dependent.failed = True
                if dependent.failed and self._is_doomed(dependent):
                    self._leave(dependent, failed=True)
                    doomed.append(dependent)
                    waiting.append(dependent)
                elif not dependent.remaining:
                    dependent.queue.blocked.discard(dependent)
                    self.blocked_count -= 1
                    self._push(dependent, now_ns)
        return doomed

    @staticmethod
    def _is_doomed(task: Task) -> bool:
        """Whether the first input that has not ended well has failed; if so, that is the cause."""
        for upstream in task.inputs:
            if upstream.state is not ENDED:
                return False
            if upstream.failed:
                task.cause = upstream.cause or upstream
                return True
        return False
