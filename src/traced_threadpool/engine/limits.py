"""How many tasks of each backend may be on their way at once; the others are held until one of them ends.

What is held has its inputs, and holds no slot: tasks of other backends, and of none, go on. Of several runs whose tasks
are held each has its turn; within a run the order is that of its ready tasks.

A task of a run that is nested in one of the same backend is never held: the outer one waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traced_threadpool.engine.scheduler import RunQueue, Task

Order = tuple[float, int]
"""The rank of a task, and which one was ready first."""


class _Limit:
    __slots__ = ("held", "inside", "most", "ring")

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside: set[Task] = set()
        self.held: dict[RunQueue, list[tuple[Order, Task]]] = {}
        self.ring: deque[RunQueue] = deque()  # the runs whose tasks are held, once each


class Limits:
    """The limits of all backends.

    Args:
        most: How many tasks of each backend, by its name.
    """

    def __init__(self, most: Mapping[str, int]) -> None:
        self._limits = {name: _Limit(number) for name, number in most.items()}
        self.held_count = 0

    def enter(self, task: Task, order: Order) -> bool:
        """Whether the task, which is ready, may go on. If not, `leave` of another gives it back."""
        limit = self._limits.get(task.backend)
        if limit is None:
            return True
        if len(limit.inside) < limit.most or _is_nested(task, limit):
            limit.inside.add(task)
            return True
        held = limit.held.get(task.queue)
        if held is None:
            held = limit.held[task.queue] = []
            limit.ring.append(task.queue)
        heappush(held, (order, task))
        self.held_count += 1
        return False

    def leave(self, task: Task) -> Task | None:
        """The task has ended, or goes back to wait. Returns the one that may go on in its place, if any."""
        limit = self._limits.get(task.backend)
        if limit is None:
            return None
        if task not in limit.inside:
            self._withdraw(task, limit)
            return None
        limit.inside.discard(task)
        if not limit.ring or len(limit.inside) >= limit.most:
            return None
        queue = limit.ring.popleft()
        held = limit.held[queue]
        following = heappop(held)[1]
        if held:
            limit.ring.append(queue)
        else:
            del limit.held[queue]
        self.held_count -= 1
        limit.inside.add(following)
        return following

    def reset(self, running: Iterable[Task]) -> None:
        """Nothing is held, and of what is on its way only that which runs."""
        self._limits = {name: _Limit(limit.most) for name, limit in self._limits.items()}
        self.held_count = 0
        for task in running:
            limit = self._limits.get(task.backend)
            if limit is not None:
                limit.inside.add(task)

    def _withdraw(self, task: Task, limit: _Limit) -> None:
        held = limit.held.get(task.queue, [])
        left = [each for each in held if each[1] is not task]
        if len(left) == len(held):
            return
        self.held_count -= 1
        heapify(left)
        if left:
            limit.held[task.queue] = left
        else:
            del limit.held[task.queue]
            limit.ring.remove(task.queue)

    def held(self, queue: RunQueue | None = None) -> list[Task]:
        """The tasks that are held: of one run, or of all."""
        return [
            task
            for limit in self._limits.values()
            for of, tasks in limit.held.items()
            if queue is None or of is queue
            for _, task in tasks
        ]


def _is_nested(task: Task, limit: _Limit) -> bool:
    parent = task.queue.parent
    while parent is not None:
        if parent in limit.inside:
            return True
        parent = parent.queue.parent
    return False
