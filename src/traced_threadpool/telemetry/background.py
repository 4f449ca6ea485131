"""What can be done later into calls on a thread of their own: a slow or hanging span processor holds up no worker.

The thread is started by the first item and ends when it has had nothing to do for a second. It never keeps a
process alive. `flush` waits until everything handed over so far has been dealt with; it gives up after its time
limit, and then at once until the thread moves again, so that a processor that hangs costs one limit and not one
a run. The queue is bounded: beyond the bound items are dropped and counted.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import STORES_IN_ORDER, members
from traced_threadpool.model.lock_backoff import (
    MOMENT_SECONDS,
    Condition,
    Event,
    ObserverLock,
    acquire_late,
)
from traced_threadpool.model.observers import ErrorLog

MAX_WAITING: Final = 100_000
IDLE_SECONDS: Final = 1.0
EXIT_SECONDS: Final = 5.0


ENOUGH_WAITING: Final = 64
"""With more than this waiting, a worker lets the thread go first, if that has got on since: what waits for long has
left the CPU's caches, and is looked at by each garbage collection."""


class _Mark:
    """Put in by `flush`, to know when everything before it has been handled."""

    __slots__ = ("passed",)

    def __init__(self) -> None:
        self.passed = Event(ObserverLock)


class Background:
    """Calls `handle(item)` for every item put in, in order, on one thread; `dropped(item)` for one too many."""

    def __init__(
        self,
        handle: Callable[[Any], None],
        errors: ErrorLog,
        component: str,
        *,
        dropped: Callable[[Any], None] = lambda item: None,
    ) -> None:
        self._handle = handle
        self._errors = errors
        self._component = component
        self._dropped = dropped
        self._reset()
        _backgrounds.add(self)
        forks.register(self._reset_after_fork)

    def _reset(self) -> None:
        self._waiting: deque[Any] = deque()
        self._lock = ObserverLock()
        self._changed = Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._awake = False  # a thread is there, and will look at what waits before it sleeps
        self._done_count = 0
        self._stuck_at = -1  # the value of _done_count at which a flush last gave up
        self._gave_way_at = -1  # likewise, at which a worker last let the thread go first

    def put(self, item: Any) -> None:
        """Hands an item over. Without the lock, as long as the thread is awake.

        The race: here the item is put in before `_awake` is read; the thread says that it is no longer awake before it
        looks for the last time. Whichever comes first, one sees the other, where stores are seen in one order, as under
        the GIL; without it the slow way is taken.
        """
        waiting = self._waiting
        count = len(waiting)
        if count >= MAX_WAITING:
            self._dropped(item)
            self._errors.record(self._component, RuntimeError(f"{MAX_WAITING} items wait; this one is dropped"))
            return
        waiting.append(item)
        if not self._awake or not STORES_IN_ORDER:
            self._wake()
        elif count > ENOUGH_WAITING and self._done_count != self._gave_way_at:
            self._gave_way_at = self._done_count
            time.sleep(MOMENT_SECONDS)

    def _wake(self) -> None:
        start: threading.Thread | None = None
        if not self._lock.acquire(False):
            acquire_late(self._lock)
        try:
            self._awake = True
            if self._thread is None:
                start = self._thread = threading.Thread(
                    target=_work, args=(self,), name="traced-threadpool-telemetry", daemon=True
                )
            else:
                self._changed.notify_all()
        finally:
            self._lock.release()
        if start is not None:
            self._start(start)

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:  # the interpreter is at its exit: what remains is done here
            with self._lock:
                self._thread = None
                self._awake = False
            self._drain_here()

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until everything put in before has been handled. False when that took too long."""
        if not threading.main_thread().is_alive():
            self._drain_here()
        if not self._waiting and not self._awake:
            return True
        if self._stuck_at == self._done_count:
            return False
        mark = _Mark()
        self._waiting.append(mark)
        self._wake()
        if mark.passed.wait(timeout_seconds):
            return True
        self._stuck_at = self._done_count
        return False

    def _drain_here(self) -> None:
        """Daemon threads may be gone already when the interpreter exits; this is for whoever is still there."""
        while self._handle_next():
            pass

    def _handle_next(self) -> bool:
        try:
            item = self._waiting.popleft()
        except IndexError:
            return False
        if type(item) is _Mark:
            item.passed.set()
            return True
        try:
            self._handle(item)
        except BaseException as error:
            self._errors.caught(self._component, error)
        self._done_count += 1
        return True

    def work(self) -> bool:
        """Handles what there is, then waits for more. False when there was none for so long that it should end."""
        while self._handle_next():
            pass
        with self._lock:
            self._awake = False
            if not self._waiting:
                self._changed.wait_for(lambda: self._awake, IDLE_SECONDS)
            if not self._awake and not self._waiting:
                self._thread = None
                return False
            self._awake = True
        return True

    def count_error(self, error: BaseException) -> None:
        self._errors.caught(self._component, error)

    def _reset_after_fork(self) -> None:
        """The parent ends its own spans; the child starts with none."""
        self._reset()


def call(item: tuple[Any, ...]) -> None:
    """A `handle` for items that are a function and its arguments."""
    function, *arguments = item
    function(*arguments)


def _work(background: Background) -> None:
    going_on = True
    while going_on:
        try:
            going_on = background.work()
        except BaseException as error:  # in the middle of what is done around an item
            background.count_error(error)


_backgrounds: weakref.WeakSet[Background] = weakref.WeakSet()


def flush_all(timeout_seconds: float) -> bool:
    """Waits until every adapter has ended the spans of the nodes and runs that have ended.

    Args:
        timeout_seconds: How long to wait in all.

    Returns:
        Whether all were dealt with in that time.
    """
    deadline = time.monotonic() + timeout_seconds
    results = [background.flush(max(0.0, deadline - time.monotonic())) for background in members(_backgrounds)]
    return all(results)


def _flush_at_exit() -> None:
    flush_all(EXIT_SECONDS)


atexit.register(_flush_at_exit)
