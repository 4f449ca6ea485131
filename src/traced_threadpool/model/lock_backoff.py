"""Locks that forgive: whoever meets one held gives way, and whoever fails with one in hand lets go of it.

**Giving way.** Under the GIL only one thread runs. A thread that meets one of our locks held has met a holder that was
made to give up the GIL in the middle of its few lines. To queue for the lock then is the worst to do: the lock goes to
a thread that does not have the GIL, while the one that has it soon needs the lock. From then on each use of the lock
costs two switches of threads, until chance ends it (a *lock convoy*). So one sleeps for a moment *before* queueing:

    if not lock.acquire(False):
        acquire_late(lock)
    try:
        ...
    finally:
        lock.release()

On a free-threaded build nobody waits for the GIL: the holder is at its few lines on another core. To sleep there made
2,400 short nodes of 8 callers take 20 s instead of 0.5 s; one queues.

**Letting go.** An exception can come between any two lines: a signal handler's, a MemoryError. One that comes right
before a lock is released leaves it held for ever. `release_owned` lets go of every `OwnedLock` that the calling thread
holds; whoever catches an exception that was not meant to be calls it first.

**Taking whole.** `with lock:` is one step of the interpreter, so no signal handler's exception comes between taking
the lock and being bound to let go of it. `with condition:` is none, since the standard library's conditions enter in
Python: an exception that comes there leaves the lock held, and whoever sets that event or resolves that future waits
for ever. `Condition` and `Event` here enter as their locks do.

>>> lock = OwnedLock()
>>> lock.acquire(), release_owned(), lock.acquire(False)
(True, 1, True)
>>> release_owned()
1
"""

from __future__ import annotations

import _thread
import functools
import threading
import time
import weakref
from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, Final, TypeVar, cast

from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import STORES_IN_ORDER

MOMENT_SECONDS: Final = 0.00001
"""The kernel makes 60 µs of it: enough for a holder to get the GIL and do its few lines."""

MOMENTS: Final = 100


class OwnedLock(_thread.RLock):  # type: ignore[misc]  # final in the stub alone
    """A lock that knows which thread holds it. It is not meant to be taken twice."""

    __slots__ = ()

    is_owned: ClassVar[Callable[[OwnedLock], bool]] = _thread.RLock._is_owned  # type: ignore[attr-defined]  # conditions need it
    """Whether the calling thread holds it. No step of Python, as `release`: it can be asked where none is left."""

    def __new__(cls) -> OwnedLock:
        lock = super().__new__(cls)
        _every.add(lock)
        return lock

    def locked(self) -> bool:
        """Whether another thread holds it."""
        if not self.acquire(False):
            return True
        self.release()
        return False


class ObserverLock(OwnedLock):  # type: ignore[misc]  # likewise
    """One of an observer's. Whoever tells observers lets go of what one has left held when it failed."""

    __slots__ = ()


class Condition(threading.Condition):
    """One that is entered and left without a step of Python."""

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))


class Changing:
    """`with changing:` holds a lock. Where the block raises, the lock stays held: half a change is for nobody to see.

    Whoever catches the exception makes whole what was changed, and lets go, at the last by steps that are not Python's:
    where the limit of recursion was met there is none left.

    Args:
        lock: That.
    """

    __slots__ = ("_lock",)

    def __init__(self, lock: OwnedLock) -> None:
        self._lock = lock

    __enter__ = property(attrgetter("_lock.__enter__"))

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            self._lock.release()


class Event(threading.Event):
    """One that an exception in `set`, `wait` or `clear` leaves usable.

    Args:
        kind: Of its lock.
    """

    def __init__(self, kind: type[OwnedLock] = OwnedLock) -> None:
        super().__init__()
        self._cond = Condition(kind())


class _Every:
    """All of them, as long as they are referenced.

    By references without a callback, as a `WeakSet` would have: with one, Python 3.10 at times frees a lock twice.
    """

    def __init__(self) -> None:
        self._forget()
        forks.register(self._forget)

    def _forget(self) -> None:
        # A child's locks are made anew by those who use them.
        self._references: dict[int, weakref.ref[OwnedLock]] = {}
        self._enough = 1_000

    def add(self, lock: OwnedLock) -> None:
        reference = weakref.ref(lock)
        self._references[id(reference)] = reference
        if len(self._references) > self._enough:
            # A list of its items may be interrupted by a garbage collection, and with that by other threads.
            for key, each in self._references.copy().items():
                if each() is None:
                    self._references.pop(key, None)
            self._enough = 2 * len(self._references) + 1_000

    def alive(self) -> list[OwnedLock]:
        found = [reference() for reference in self._references.copy().values()]
        return [lock for lock in found if lock is not None]


_every: Final = _Every()

_Function = TypeVar("_Function", bound=Callable[..., Any])


def letting_go(function: _Function) -> _Function:
    """Whatever is raised within the function leaves no lock of an observer held."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except BaseException:
            release_owned(ObserverLock)
            raise

    return cast("_Function", call)


def release_owned(kind: type[OwnedLock] = OwnedLock, *, but: OwnedLock | None = None) -> int:
    """Lets go of every lock of this kind that the calling thread holds, `but` one. Returns how many there were."""
    count = 0
    for lock in _every.alive():
        while isinstance(lock, kind) and lock is not but and lock.is_owned():
            lock.release()
            count += 1
    return count


def acquire_late(lock: OwnedLock) -> None:
    """Takes a lock that was met held: gives way first, and queues when it was met held often."""
    yield_to_holder(lock)
    lock.acquire()


def yield_to_holder(lock: OwnedLock | threading.Lock) -> None:
    """Returns when the lock is free, or has been met held so often that to queue is better."""
    if not STORES_IN_ORDER:
        return
    for _ in range(MOMENTS):
        time.sleep(MOMENT_SECONDS)
        if not lock.locked():
            return
