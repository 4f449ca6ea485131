"""Hamilton's dynamic execution with a task state that does not slow down: what is left is linear, ours and Hamilton's.

Hamilton's own `ExecutionState` goes through all tasks, all that are queued and all states for every task that ends, so
branches of a `Parallelizable` take a time that is quadratic in their number (docs/performance.md has figures), and what
an adapter adds is lost in it. Here each of these walks is given what it would have found, in a time that does not
depend on the number of tasks; everything else is Hamilton's code as it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hamilton.execution import state
from hamilton.execution.state import ExecutionState, GraphState, TaskState


@contextmanager
def linear_task_state() -> Iterator[None]:
    """Drivers that execute meanwhile, in any thread, have such a task state."""
    module = vars(state)
    module["ExecutionState"] = _LinearState
    try:
        yield
    finally:
        module["ExecutionState"] = ExecutionState


class _States(defaultdict[str, TaskState]):
    """A task's state by its name. Knows how many tasks are in each, and which have succeeded lately."""

    def __init__(self) -> None:
        super().__init__(lambda: TaskState.UNINITIALIZED)
        self.counts: Counter[TaskState] = Counter()
        self.succeeded: list[str] = []

    def __setitem__(self, task_id: str, to: TaskState) -> None:
        if task_id in self:
            self.counts[self[task_id]] -= 1
        self.counts[to] += 1
        super().__setitem__(task_id, to)
        if to is TaskState.SUCCESSFUL:
            self.succeeded.append(task_id)


class _Pool(dict[str, Any]):
    """Tasks by name. `items`, through which Hamilton looks for what may start, gives those that nothing keeps back."""

    def __init__(self, states: _States) -> None:
        self._states = states
        self._new: list[Any] = []
        self._left: dict[str, int] = {}
        self._dependents: dict[str, list[Any]] = {}

    def __setitem__(self, task_id: str, task: Any) -> None:
        super().__setitem__(task_id, task)
        self._new.append(task)

    def items(self) -> Any:
        """Each task once, when the last that it depends on has succeeded. Hamilton looks at its state again itself."""
        free: list[tuple[str, Any]] = []
        for succeeded in self._states.succeeded:
            for task in self._dependents.pop(succeeded, ()):
                self._left[task.task_id] -= 1
                if not self._left[task.task_id]:
                    free.append((task.task_id, task))
        self._states.succeeded.clear()
        for task in self._new:
            needed = [each for several in task.realized_dependencies.values() for each in several]
            awaited = [each for each in needed if self._states[each] is not TaskState.SUCCESSFUL]
            self._left[task.task_id] = len(awaited)
            for each in awaited:
                self._dependents.setdefault(each, []).append(task)
            if not awaited:
                free.append((task.task_id, task))
        self._new.clear()
        return free


class _Queue(deque[Any]):
    """Tasks that may start. Hamilton goes through them only to check itself."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class _LinearState(ExecutionState):
    task_states: _States

    def __setattr__(self, name: str, value: Any) -> None:
        """Puts ours in the place of the containers that Hamilton's constructor makes, which are empty then."""
        if name == "task_states":
            value = _States()
        elif name == "task_pool":
            value = _Pool(self.task_states)
        elif name == "task_queue":
            value = _Queue()
        super().__setattr__(name, value)

    def _format_task_queue(self, verbose: bool = False) -> str:
        return f"{len(self.task_queue)} tasks"

    def get_graph_state(self) -> GraphState:
        counts, total = self.task_states.counts, len(self.task_states)
        if counts[TaskState.FAILED]:
            return GraphState.FAILED
        if counts[TaskState.SUCCESSFUL] == total:
            return GraphState.SUCCESSFUL
        return GraphState.INITIALIZED if counts[TaskState.INITIALIZED] == total else GraphState.RUNNING
