"""(tasks added, tasks ended) into (tasks that may run now). Pure state: no thread, no clock, no lock.

The rule: a task is ready when every input has ended well. Ready tasks wait in one FIFO queue per run, and
`take` goes round the runs that have one, so that no run starves another. At most `max_workers` tasks hold a
slot at once. A task is *doomed*, and never runs, as soon as the first of its inputs (in the order given) that
has not ended well has failed: the answer that waiting for the inputs one by one in that order would give.

A running task that waits for a run of its own (a nested `execute`) can lend its slot to one task of that run
at a time; so nested runs go on however few workers there are.

>>> scheduler, run = Scheduler(max_workers=2), RunQueue()
>>> load, clean, report = (Task(name, queue=run) for name in ("load", "clean", "report"))
>>> clean.inputs, report.inputs = [load], [clean]
>>> for task in (load, clean, report):
...     _ = scheduler.add(task, now_ns=0)
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

Time comes in as an argument (`now_ns`), so that a replay can use a virtual one.
The caller serialises all calls to one scheduler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from traced_threadpool.runs import NodeRecord, RunRecord

# States in the order of a task's life; OUTSIDE is a future of somebody else's, which only ends.
NEW: Final = 0
BLOCKED: Final = 1
READY: Final = 2
RUNNING: Final = 3
ENDED: Final = 4
OUTSIDE: Final = 5


class RunQueue:
    """The waiting tasks of one run. `parent` is the running task that this run is nested in, if any."""

    __slots__ = ("blocked", "in_ring", "parent", "ready")

    def __init__(self, parent: Task | None = None) -> None:
        self.parent = parent
        self.ready: deque[Task] = deque()
        self.in_ring = False
        self.blocked: set[Task] = set()

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

    inputs: Sequence[Task]

    __slots__ = ("dependents", "failed", "lender", "lending", "parked", "queue", "remaining", "state")

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
        self.lender: Task | None = None  # whose slot this task runs on, when not on one of its own
        self.lending = False
        self.parked = False  # waits for a run nested in it and has nothing of it to do


class Scheduler:
    """Which task may run now. See the module's text for the rules."""

    def __init__(self, max_workers: int) -> None:
        self.max_workers = max_workers
        self.ready_count = 0
        self.blocked_count = 0
        self.running: set[Task] = set()
        self.busy_count = 0  # slots held; a task on a lent slot holds none of its own
        self._parked_count = 0
        self._ring: deque[RunQueue] = deque()  # every run whose `ready` is not empty, once

    def add(self, task: Task, *, now_ns: int) -> bool:
        """Takes in a new task; its `inputs` are in the order in which they are resolved.

        Returns False for a task that is doomed already: it has ended, and it counts as failed.
        """
        return self._await(task, task.inputs, now_ns)

    def await_more(self, task: Task, more: Sequence[Task], *, now_ns: int) -> bool:
        """Sends a task just taken back to wait for more inputs (an input's value was itself a future)."""
        self.running.discard(task)
        self._give_back_slot(task)
        task.state = NEW
        return self._await(task, more, now_ns)

    def add_outside(self, task: Task) -> None:
        """Takes in something that others wait for and that nobody here runs. `end` ends it."""
        task.state = OUTSIDE

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
            task = self._pop(self._first_queue())
            self.busy_count += 1
        else:
            queue = self._queue_for(slot_of)
            if queue is None:
                return None
            task = self._pop(queue)
            task.lender = slot_of
            slot_of.lending = True
        task.state = RUNNING
        self.running.add(task)
        return task

    def can_lend(self, slot_of: Task) -> bool:
        """Whether `take(slot_of)` would give a task."""
        return self.ready_count > 0 and self._queue_for(slot_of) is not None

    def park(self, task: Task) -> None:
        """The worker of this running task has nothing to do but wait; `unpark` when it goes on."""
        if not task.parked:
            task.parked = True
            self._parked_count += 1

    def unpark(self, task: Task) -> None:
        if task.parked:
            task.parked = False
            self._parked_count -= 1

    def end(self, task: Task, *, failed: bool = False, now_ns: int) -> list[Task]:
        """The task has ended. Its dependents become ready, or are doomed by its failure.

        Returns the tasks that ended without ever running, each with `cause` set, inputs before dependents.
        """
        self._leave(task, failed=failed)
        return self._settle((task,), now_ns)

    def cancel(self, tasks: Iterable[Task], cause: Task | None = None, *, now_ns: int) -> list[Task]:
        """Ends those of `tasks` that have not started, and what depends on them in whichever run.

        Returns all tasks that ended so, with `cause` (else the cancelled task itself) as theirs.
        """
        ended = []
        for task in tasks:
            if task.state is BLOCKED or task.state is READY:
                self._leave(task, failed=True)
                task.cause = cause
                ended.append(task)
        return ended + self._settle(ended, now_ns)

    def unstarted(self, queue: RunQueue) -> list[Task]:
        """The tasks of a run that have been added and have not been started."""
        return [task for task in queue.ready if task.state is READY] + list(queue.blocked)

    def oldest_ready(self) -> Task | None:
        """Of the tasks that wait for a worker, the one that has waited longest."""
        heads = [queue.ready[0] for queue in self._ring if self._has_ready(queue)]
        return min(heads, key=lambda task: task.ready_ns, default=None)

    def _await(self, task: Task, inputs: Sequence[Task], now_ns: int) -> bool:
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
        task.failed = failed
        if failed and self._is_doomed(task):
            self._leave(task, failed=True)
            return False
        if remaining:
            task.state = BLOCKED
            task.queue.blocked.add(task)
            self.blocked_count += 1
        else:
            self._push(task, now_ns)
        return True

    def _push(self, task: Task, now_ns: int) -> None:
        task.state = READY
        task.ready_ns = now_ns
        self.ready_count += 1
        queue = task.queue
        queue.ready.append(task)
        if not queue.in_ring:
            queue.in_ring = True
            self._ring.append(queue)

    def _pop(self, queue: RunQueue) -> Task:
        """Takes the head of a run that has a ready task, and sends the run to the end of the ring."""
        task = queue.ready.popleft()
        self.ready_count -= 1
        if self._ring[0] is queue:
            self._ring.popleft()
        else:
            self._ring.remove(queue)
        if queue.ready:
            self._ring.append(queue)
        else:
            queue.in_ring = False
        return task

    def _first_queue(self) -> RunQueue:
        """The run whose turn it is. There is one, since `ready_count` is not 0."""
        ring = self._ring
        while True:
            queue = ring[0]
            if self._has_ready(queue):
                return queue
            ring.popleft()
            queue.in_ring = False

    @staticmethod
    def _has_ready(queue: RunQueue) -> bool:
        """A task cancelled in the queue stays there until it comes to the head; this drops such."""
        ready = queue.ready
        while ready and ready[0].state is not READY:
            ready.popleft()
        return bool(ready)

    def _queue_for(self, lender: Task) -> RunQueue | None:
        if lender.lending:
            return None
        if self._parked_count >= self.max_workers:
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
            self._give_back_slot(task)
        elif state is READY:
            self.ready_count -= 1
        elif state is BLOCKED:
            task.queue.blocked.discard(task)
            self.blocked_count -= 1
        task.state = ENDED
        task.failed = failed

    def _give_back_slot(self, task: Task) -> None:
        lender = task.lender
        if lender is None:
            self.busy_count -= 1
        else:
            lender.lending = False
            task.lender = None

    def _settle(self, ended: Iterable[Task], now_ns: int) -> list[Task]:
        """Tells dependents, and theirs, without recursion: a chain of 20,000 nodes may fall at once."""
        doomed: list[Task] = []
        waiting = deque(ended)
        while waiting:
            task = waiting.popleft()
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
