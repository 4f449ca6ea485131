"""Which runs there are, by id and by the thread of their caller: announced, then started, then left.

A run is announced by `pre_graph_execute` and starts with its first node: it may never come to that. It is left when
Hamilton says so. When that never comes, it is when the same caller begins its next one at the same depth, or when the
adapter goes.
"""

from __future__ import annotations

import threading
from typing import Final

from traced_threadpool.engine.pool import Pool
from traced_threadpool.engine.work import Run
from traced_threadpool.model import forks

MAX_ANNOUNCED: Final = 4_096
MAX_WITHIN: Final = 32
"""How many runs of one thread, each begun within the one before, are known."""


class RunRegistry:
    """The runs of one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._forget()
        forks.register(self._forget)

    def _forget(self) -> None:
        self.started: dict[str, Run] = {}
        # The oldest first. Threads that meet in an `OrderedDict` can corrupt it, see `concurrency`.
        self._announced: dict[str, Run] = {}
        self._of_thread: dict[int, list[Run]] = {}  # those that it has begun and not left, the innermost last

    def announce(self, run: Run) -> None:
        """A run is about to begin, in the calling thread."""
        begun = self._of_thread.setdefault(run.caller_thread_id, [])
        if begun:
            self._leave_behind(begun[-1], run)
        assert run.record is not None
        self._announced[run.record.id] = run
        self._of_thread[run.caller_thread_id] = [*begun[-MAX_WITHIN:], run]
        if len(self._announced) > MAX_ANNOUNCED:
            for oldest in list(self._announced)[:-MAX_ANNOUNCED]:
                self._announced.pop(oldest, None)

    def start(self, run_id: str | None) -> Run | None:
        """The run of this id, started if it was only announced. None when it is unknown."""
        if run_id is None:
            return None
        run = self._announced.get(run_id)
        if run is None:
            return self.started.get(run_id)  # another thread may have started it just now
        self._pool.open_run(run)
        if run.record is not None:
            run.record.graph = None  # whoever wants it has it: a future that is kept keeps no driver
        self.started[run_id] = run
        self._announced.pop(run_id, None)
        return run

    def leave(self, run_id: str) -> Run | None:
        """Hamilton has left this run, which no longer belongs to its thread; None when it is unknown."""
        run = self.start(run_id)
        if run is not None:
            self.started.pop(run_id, None)
            begun = self._of_thread.get(run.caller_thread_id, [])
            if run in begun:
                self._keep(run.caller_thread_id, begun[: begun.index(run)])
        return run

    def has_begun(self) -> bool:
        """Whether the calling thread is in a run."""
        return threading.get_ident() in self._of_thread

    def innermost(self) -> Run | None:
        """The run that the calling thread has begun last and not left."""
        begun = self._of_thread.get(threading.get_ident())
        return begun[-1] if begun else None

    def innermost_id(self) -> str | None:
        """Its id."""
        run = self.innermost()
        return None if run is None or run.record is None else run.record.id

    def _keep(self, thread_id: int, begun: list[Run]) -> None:
        if begun:
            self._of_thread[thread_id] = begun
        else:
            self._of_thread.pop(thread_id, None)

    def _leave_behind(self, stale: Run, run: Run) -> None:
        """Ends a run whose end was never told, begun before `run` by the same caller at the same depth.

        If it goes on after all (a hook of its own executes a driver), its next node finds it again.
        """
        if stale.record is None or not stale.opened or stale.parent is not run.parent:
            return
        if self.started.pop(stale.record.id, None) is not None:
            self._announced[stale.record.id] = stale
            self._pool.close_run(stale)
