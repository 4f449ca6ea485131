"""Threads that wait for a lock into which lock it is, and on which line they wait.

The kernel tells at which address a thread waits. Until Python 3.13 all who wait for one `Lock` or `RLock` do so at one
address, and from 3.14 on each at another; who waits for a `Semaphore` or takes from a `Queue` has an address of its
own. So now and then, and only while a worker has been waiting for a lock for long, the frames of all threads are looked
at: the innermost one outside of `threading`, `queue` and installed packages is the line that waits, and what
`threading` or `queue` was called for is the object. A thread that waits elsewhere by then is left out. Names and lines
are kept, no values but one: how many permits a semaphore has, or a queue items, while nobody uses them.

A pool of connections may be built of a `Condition`, as SQLAlchemy's is: who waits for one is told as a resource of
which nobody knows the capacity. Who waits for an `Event`, or for a place in a queue, waits for no resource.
"""

from __future__ import annotations

import os
import queue
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from types import FrameType
from typing import Any, Final, NamedTuple

from traced_threadpool.model.frames import current_frames
from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.model.siblings import stem
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.reasons import has_gil

LONG_NS: Final = 15_000_000
"""A wait of this length is worth a look at the threads."""

FRESH_NS: Final = 100_000_000
"""A wait that the sampler has seen so lately goes on."""

ADDRESS_OF_ITS_OWN: Final = sys.version_info >= (3, 14)
"""Whether each thread waits for a plain lock at another address: then the line that waits stands for the lock."""

MOST_NAMES: Final = 1_000
LONGEST: Final = 200

_WAITING_CODE: Final = frozenset((threading.__file__, queue.__file__))
_COUNTED: Final = (threading.Semaphore, queue.Queue)
_RESOURCES: Final = (*_COUNTED, threading.Condition)
_FOLDERS: Final = (*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(Path(__file__).parents[1]))
_INSTALLED: Final = tuple({folder + os.sep for folder in _FOLDERS})


class SeenLock:
    """A lock that somebody waited for: a plain one, of which no object is known, or what `threading` or `queue` made.
    `capacity` is what is known so far.
    """

    def __init__(self, number: int, line: str, thing: Any = None, *, is_resource: bool = True) -> None:
        self.name = f"{'Lock' if thing is None else type(thing).__name__} {number}"
        self.line = line
        self.is_lock = is_resource
        self._known = 1 if thing is None else 0
        self._thing = (lambda: None) if thing is None else weakref.ref(thing)

    @property
    def thing(self) -> Any:
        """What it is, while that is there and not a plain lock."""
        return self._thing()

    @property
    def capacity(self) -> int | None:
        """The most permits that were ever seen free; of one that says how many it has, that."""
        thing = self.thing
        if isinstance(thing, _COUNTED):
            free = thing.qsize() if isinstance(thing, queue.Queue) else getattr(thing, "_value", 0)
            initial = getattr(thing, "_initial_value", 0)
            self._known = max([self._known, *(each for each in (free, initial) if isinstance(each, int))])
        return self._known or None


class _Waiting(NamedTuple):
    """Where a thread waits. `thing` is what `threading` or `queue` was called for, None for a plain lock."""

    thing: Any
    is_resource: bool
    line: str
    """Of code of the program's own, if any is there."""
    key: str
    """The innermost line, also one of an installed package: the same for all who wait for one plain lock there."""


class LockNames:
    """Which lock each worker waits for. `look` is called by one thread, the rest by all workers.

    Args:
        address_of: Gives the address at which a thread waits in the kernel, by its number there.
    """

    def __init__(self, address_of: Callable[[int], int | None] | None = None) -> None:
        self._address_of = address_of or waits_at
        self._by_wait: dict[tuple[int, int], SeenLock] = {}  # by row, and when the wait began
        self._by_address: dict[int | str, SeenLock] = {}  # or by line
        self._by_stem: dict[str, SeenLock] = {}  # of the nodes that waited
        self._by_object: dict[int, SeenLock] = {}
        self._count = 0

    def look(self, words: memoryview[int]) -> None:
        """Finds out for whom the workers wait who have been waiting for long and of whom that is not known."""
        now_ns = time.monotonic_ns()
        unknown = [(at, since_ns, address) for at, since_ns, address in _ongoing(words, now_ns)]
        unknown = [(at, since, address) for at, since, address in unknown if not self._is_known(at, since, address)]
        for seen in list(self._by_object.values()):
            _ = seen.capacity  # there may be more free now
        if not unknown or not has_gil():
            return
        idents = {thread.native_id: thread.ident for thread in threading.enumerate()}
        frames = current_frames()
        found = []
        for at, since_ns, address in unknown:
            thread = words[at + shm.THREAD]
            ident = idents.get(thread)
            frame = None if ident is None else frames.get(ident)
            if frame is not None:
                found.append((at, since_ns, address, thread, _waiting(frame)))
        del frames
        for at, since_ns, address, thread, waiting in found:
            if self._address_of(thread) == address:  # else the frame may be of what came after the wait
                self._keep(at, since_ns, address, waiting)

    def of(self, at: int, waits: list[tuple[int, int, int]], node_name: str, started_ns: int) -> LockWait | None:
        """What a node waited for, given the waits of its worker while it ran: address, from, until."""
        lengths: dict[SeenLock, int] = {}
        for address, since_ns, until_ns in waits:
            lock = self._lock_of(at, since_ns, address, node_name)
            lengths[lock] = lengths.get(lock, 0) + max(1, until_ns - max(since_ns, started_ns))
        if not lengths:
            return None
        lock = max(lengths, key=lengths.__getitem__)
        if not lock.is_lock:
            return None
        self._bound(self._by_stem)[stem(node_name)] = lock
        own = [wait for wait in waits if self._lock_of(at, wait[1], wait[0], node_name) is lock]
        return LockWait(
            name=lock.name,
            line=lock.line,
            capacity=lock.capacity,
            waits=len(own),
            first_ns=max(0, own[0][1] - started_ns),
            last_ns=max(0, own[-1][2] - started_ns),
        )

    def _lock_of(self, at: int, since_ns: int, address: int, node_name: str) -> SeenLock:
        found = self._by_wait.get((at, since_ns)) or self._by_address.get(address)
        if found is None:
            found = self._by_stem.get(stem(node_name))
        if found is None:  # nobody looked at it
            self._count += 1
            found = self._bound(self._by_address)[address] = SeenLock(self._count, "")
        return found

    def _is_known(self, at: int, since_ns: int, address: int) -> bool:
        if (at, since_ns) in self._by_wait:
            return True
        found = self._by_address.get(address)
        return found is not None and bool(found.line)

    def _keep(self, at: int, since_ns: int, address: int, waiting: _Waiting) -> None:
        thing, line = waiting.thing, waiting.line
        if thing is None:
            key = waiting.key if ADDRESS_OF_ITS_OWN else address
            lock = self._by_address.get(key)
            if lock is None:
                self._count += 1
                lock = self._bound(self._by_address)[key] = SeenLock(self._count, line)
            lock.line = line
        else:
            lock = self._by_object.get(id(thing))
            if lock is None or lock.thing is not thing:
                self._count += 1
                lock = SeenLock(self._count, line, thing, is_resource=waiting.is_resource)
                self._bound(self._by_object)[id(thing)] = lock
        self._bound(self._by_wait)[at, since_ns] = lock

    @staticmethod
    def _bound(known: dict[Any, SeenLock]) -> dict[Any, SeenLock]:
        """The same, with place for one more: what was known for longest is forgotten."""
        if len(known) >= MOST_NAMES:
            for key in list(known)[: MOST_NAMES // 2]:
                known.pop(key, None)
        return known


def _waiting(frame: FrameType) -> _Waiting:
    called, code = None, frame
    while code.f_code.co_filename in _WAITING_CODE and code.f_back is not None:
        called, code = code, code.f_back
    own: FrameType | None = code
    while own is not None and own.f_code.co_filename.startswith(_INSTALLED):
        own = own.f_back
    thing = None if called is None else called.f_locals.get("self")
    # Who puts waits for a place in a queue, and not for what somebody else gives back.
    is_resource = thing is None or (
        isinstance(thing, _RESOURCES) and called is not None and called.f_code.co_name not in ("put", "join")
    )
    return _Waiting(thing, is_resource, _line(own or code), _line(code))


def _line(code: FrameType) -> str:
    return f"{PurePath(code.f_code.co_filename).name}:{code.f_lineno}"[:LONGEST]


def waits_at(thread: int) -> int | None:
    """The address that a thread of this process waits at in the kernel, if it does at any: first in its system call."""
    try:
        text = Path(f"/proc/self/task/{thread}/syscall").read_bytes()
        return int(text.split(b" ", 2)[1], 16)
    except (OSError, IndexError, ValueError):
        return None


def waits_since(words: memoryview[int], at: int, started_ns: int) -> list[tuple[int, int, int]]:
    """The latest waits for locks of a worker since a moment, in their order: address, from, until."""
    count = words[at + shm.LOCK_WAITS]
    kept = words[at + shm.LOCK_RING : at + shm.LOCK_RING + 3 * shm.LOCKS_KEPT].tolist()
    found = []
    for number in range(max(0, count - shm.LOCKS_KEPT), count):
        place = 3 * (number % shm.LOCKS_KEPT)
        address, since_ns, until_ns = kept[place : place + 3]
        if until_ns > started_ns:
            found.append((address, since_ns, until_ns))
    return found


def _ongoing(words: memoryview[int], now_ns: int) -> Iterator[tuple[int, int, int]]:
    """Rows of workers that have been waiting for a lock for long, since when, and where."""
    for at in range(shm.ROW, shm.ROW * (1 + words[shm.ROWS]), shm.ROW):
        count = words[at + shm.LOCK_WAITS]
        if count and words[at + shm.DEPTH]:
            place = at + shm.LOCK_RING + 3 * ((count - 1) % shm.LOCKS_KEPT)
            address, since_ns, until_ns = words[place : place + 3].tolist()
            if now_ns - until_ns < FRESH_NS and until_ns - since_ns >= LONG_NS:
                yield at, since_ns, address
