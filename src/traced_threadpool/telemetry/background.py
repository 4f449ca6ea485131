"""What can be done later into calls on a thread of their own: a slow or hanging span processor holds up no worker.

The thread is started by the first item and ends when it has had nothing to do for a second. It never keeps a
process alive. `flush` waits until everything handed over so far has been dealt with; it gives up after its time
limit, and then at once until the thread moves again, so that a processor that hangs costs one limit and not one
a run. The queue is bounded: beyond the bound items are dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from traced_threadpool.convoys import let_holder_go_on
from traced_threadpool.observers import ErrorLog

MAX_WAITING: Final = 100_000
IDLE_SECONDS: Final = 1.0
EXIT_SECONDS: Final = 5.0


class Background:
    """Calls `handle(item)` for every item put in, in order, on one thread; `dropped(item)` for one too many."""

    def __init__(
        self,
        handle: Callable[[Any], None],
        errors: ErrorLog,
        component: str,
        *,
        dropped: Callable[[Any], None] = lambda item: None,
        max_waiting: int = MAX_WAITING,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._handle = handle
        self._errors = errors
        self._component = component
        self._dropped = dropped
        self._max_waiting = max_waiting
        self._idle_seconds = idle_seconds
        self._reset()
        _backgrounds.add(self)

    def _reset(self) -> None:
        self._waiting: deque[Any] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._sleeping = False
        self._flushing = 0
        self._put_count = 0
        self._done_count = 0
        self._stuck_at = -1  # the value of _done_count at which a flush last gave up

    def put(self, item: Any) -> None:
        if self._lock.locked():
            let_holder_go_on(self._lock)
        with self._lock:
            if len(self._waiting) >= self._max_waiting:
                full = True
            else:
                full = False
                self._waiting.append(item)
                self._put_count += 1
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=_work, args=(self,), name="traced-threadpool-telemetry", daemon=True
                    )
                    start: threading.Thread | None = self._thread
                else:
                    start = None
                    if self._sleeping:
                        self._sleeping = False
                        self._changed.notify_all()
        if full:
            self._dropped(item)
            self._errors.record(self._component, RuntimeError(f"{self._max_waiting} items wait; this one is dropped"))
        elif start is not None:
            self._start(start)

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:  # the interpreter is at its exit: what remains is done here
            self._drain_here()

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until everything put in before has been handled. False when that took too long."""
        if not threading.main_thread().is_alive():
            self._drain_here()
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            goal = self._put_count
            if self._stuck_at == self._done_count < goal:
                return False
            self._flushing += 1
            try:
                while self._done_count < goal:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        self._stuck_at = self._done_count
                        return False
                    self._changed.wait(left)
            finally:
                self._flushing -= 1
        return True

    def _drain_here(self) -> None:
        """Daemon threads may be gone already when the interpreter exits; this is for whoever is still there."""
        while self._handle_next():
            pass

    def _handle_next(self) -> bool:
        try:
            item = self._waiting.popleft()
        except IndexError:
            return False
        try:
            self._handle(item)
        except BaseException as error:
            self._errors.record(self._component, error)
        del item
        if self._lock.locked():
            let_holder_go_on(self._lock)
        with self._lock:
            self._done_count += 1
            if self._flushing:
                self._changed.notify_all()
        return True

    def work(self) -> bool:
        """Handles what there is, then waits for more. False when there was none for so long that it should end."""
        while self._handle_next():
            pass
        with self._lock:
            if self._waiting:
                return True
            self._sleeping = True
            woken = self._changed.wait_for(lambda: not self._sleeping, self._idle_seconds)
            if not woken and not self._waiting:
                self._thread = None
                return False
            self._sleeping = False
        return True

    def reset_after_fork(self) -> None:
        """The parent ends its own spans; the child starts with none."""
        self._reset()


def call(item: tuple[Any, ...]) -> None:
    """A `handle` for items that are a function and its arguments."""
    function, *arguments = item
    function(*arguments)


def _work(background: Background) -> None:
    while background.work():
        pass


_backgrounds: weakref.WeakSet[Background] = weakref.WeakSet()


def flush_all(timeout_seconds: float) -> bool:
    """Waits until every adapter has ended the spans of the nodes and runs that have ended.

    Args:
        timeout_seconds: How long to wait in all.

    Returns:
        Whether all were dealt with in that time.
    """
    deadline = time.monotonic() + timeout_seconds
    results = [background.flush(max(0.0, deadline - time.monotonic())) for background in list(_backgrounds)]
    return all(results)


def _reset_after_fork() -> None:
    for background in list(_backgrounds):
        background.reset_after_fork()


def _flush_at_exit() -> None:
    flush_all(EXIT_SECONDS)


atexit.register(_flush_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
