"""What a forked child makes anew: locks that a thread of the parent held, and what such a thread was changing.

In the child only the forking thread exists. Whatever another thread held is held for ever there: locks, and on a
free-threaded build a dict's own lock. So whoever has locks, threads, or containers that several threads change,
registers what makes them anew:

    class Recorder:
        def __init__(self):
            self._parts = {}
            forks.register(self._reset_after_fork)

        def _reset_after_fork(self):
            self._parts = {}

Python tells of its own forks. A fork in C (uWSGI's, without `py-call-osafterfork`) it does not see: `check` compares
the process id, which costs 0.1 µs, and then does the same. The adapter calls it once a run.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Final, TypeVar

from traced_threadpool.model.concurrency import STORES_IN_ORDER

logger = logging.getLogger("traced_threadpool")

Reset = Callable[[], None]
"""Called in the child before anything else is done there. It waits for nobody, and may be called twice."""

_Container = TypeVar("_Container")


class _Registry:
    """Who is registered, the oldest first: one tuple, which no thread ever changes, so that it can be read anywhere."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resets: tuple[Callable[[], Reset | None], ...] = ()
        self._process_id = os.getpid()
        self._resetting: dict[int, threading.Lock] = {}  # by process id: no thread of the parent's has held the child's

    def register(self, reset: Reset) -> None:
        reference = weakref.WeakMethod(reset) if isinstance(reset, MethodType) else lambda: reset
        with self._lock:
            self._resets = (*(each for each in self._resets if each() is not None), reference)

    def check(self) -> None:
        if os.getpid() != self._process_id:
            _tell_threading()
            self.reset()

    def reset(self) -> None:
        process_id = os.getpid()
        with self._resetting.setdefault(process_id, threading.Lock()):
            if self._process_id == process_id:
                return
            self._lock = threading.Lock()
            for reference in self._resets:
                reset = reference()
                if reset is not None:
                    _call(reset)
            self._process_id = process_id  # last: whoever comes meanwhile waits, or begins again


def _tell_threading() -> None:
    """Has `threading` forget the parent's threads, as after a fork that it sees: the child's end would join them."""
    try:
        alive = {task.name for task in Path("/proc/self/task").iterdir()}
        known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # private, so the
        forget: Reset = threading._after_fork  # type: ignore[attr-defined]  # stub leaves both out
    except (OSError, AttributeError):
        return
    others = [thread for ident, thread in known.copy().items() if ident != threading.get_ident()]
    if not any(str(thread.native_id) in alive for thread in others):  # else it would forget the child's own as well
        forget()


def _call(reset: Reset) -> None:
    try:
        reset()
    except Exception:
        logger.exception("a forked child could not call %s", getattr(reset, "__qualname__", reset))


def kept_in_child(container: _Container, fresh: _Container) -> _Container:
    """The container where it has no lock of its own, else the fresh one: for what is good to have and can be lost."""
    return container if STORES_IN_ORDER else fresh


_registry: Final = _Registry()

register: Final = _registry.register
"""Has a function, or a method of an object that lives as long as somebody else refers to it, called in each child."""

check: Final = _registry.check
"""Resets what is registered if this process is a child that Python did not see being forked."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_registry.reset)
