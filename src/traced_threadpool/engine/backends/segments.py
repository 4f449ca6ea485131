"""Large blocks of bytes into anonymous shared memory, which the kernel frees whatever dies.

A segment is a `memfd`: it has no name, is not in `/dev/shm`, and lives for as long as a descriptor or a mapping of it
does. Whoever makes one writes it once and sends the descriptor; whoever receives it maps it *privately*: what is
written through the mapping goes to copies of the pages. So a segment never changes, and can be sent on without a copy
as long as nothing was written through the mapping, which the kernel tells (`/proc/self/pagemap`).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from traced_threadpool.model import forks

SUPPORTED: Final = hasattr(os, "memfd_create")

SHARED_BYTES: Final = 1 << 20
"""Blocks of this size go through shared memory. Below it, a copy through the socket costs less than a mapping."""

MAX_LIVE: Final = 256
"""How many received segments keep their descriptor. The others are copied on receipt, and hold none."""

_PAGE: Final = mmap.PAGESIZE
_MAX_WRITE: Final = 1 << 30


def create(parts: Sequence[memoryview]) -> int:
    """The descriptor of a new segment with these bytes.

    Raises OSError when there is no memory, or no descriptor left.
    """
    descriptor = os.memfd_create("traced_threadpool", os.MFD_CLOEXEC)
    try:
        for part in parts:
            done = 0
            while done < part.nbytes:
                done += os.write(descriptor, part[done : done + _MAX_WRITE])
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Segments:
    """The segments that this process has received and whose bytes are still in use.

    Args:
        max_live: How many may hold a descriptor.
        proc: Where the kernel's `proc` is mounted.
    """

    def __init__(self, *, max_live: int | None = None, proc: Path = Path("/proc")) -> None:
        self._max_live = _max_live() if max_live is None else max_live
        self._pagemap = proc / "self" / "pagemap"
        self._lock = threading.RLock()  # a garbage collection may end a mapping under it
        self._live: dict[int, tuple[int, int]] = {}  # by address: size, descriptor

    def receive(self, descriptor: int, size: int) -> memoryview:
        """The bytes of a segment, writable. Takes the descriptor over; the memory goes with the last view of it."""
        if len(self._live) >= self._max_live:
            try:
                return _read(descriptor, size)
            finally:
                os.close(descriptor)
        try:
            # Not closed by anybody: it goes when the last object over it does.
            mapping = _map(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        with self._lock:
            self._live[address] = size, descriptor
        finalizer = weakref.finalize(mapping, self._forget, address, descriptor)
        finalizer.atexit = False
        return memoryview(mapping)

    def find(self, view: memoryview) -> tuple[int, int, int] | None:
        """The descriptor, size and offset of the segment that holds these very bytes, unchanged; else None.

        Use the descriptor while `view` lives.
        """
        if not self._live or view.readonly:
            return None
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        with self._lock:
            for start, (size, descriptor) in self._live.items():
                if start <= address and address + view.nbytes <= start + size:
                    return (descriptor, size, address - start) if self._unwritten(address, view.nbytes) else None
        return None

    @property
    def live(self) -> int:
        """How many segments hold a descriptor."""
        return len(self._live)

    def _unwritten(self, address: int, size: int) -> bool:
        """Whether every page is still the segment's own: a page that was written to is a private copy."""
        first, last = address // _PAGE, (address + size - 1) // _PAGE
        count = last - first + 1
        try:
            with self._pagemap.open("rb", buffering=0) as pagemap:
                entries = os.pread(pagemap.fileno(), 8 * count, 8 * first)
        except OSError:
            return False
        if len(entries) != 8 * count:
            return False
        bits = int.from_bytes(entries, sys.byteorder)
        swapped, present, of_file = (bits & _each(count, bit) for bit in (62, 63, 61))
        return not swapped and not (present >> 2) & ~of_file

    def _forget(self, address: int, descriptor: int) -> None:
        with self._lock:
            self._live.pop(address, None)
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def reset_after_fork(self) -> None:
        """For a forked child, in which the thread that held the lock does not exist."""
        self._lock = threading.RLock()


@lru_cache(maxsize=8)
def _each(count: int, bit: int) -> int:
    """A number of `count` words of 64 bits, with one bit set in each."""
    return int.from_bytes((1 << bit).to_bytes(8, sys.byteorder) * count, sys.byteorder)


def _map(descriptor: int, size: int) -> mmap.mmap:
    how: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    return mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE, **how)


def _read(descriptor: int, size: int) -> memoryview:
    """A copy of a segment, in this process's own memory."""
    view = memoryview(bytearray(size))
    done = 0
    while done < size:
        got = os.preadv(descriptor, [view[done : done + _MAX_WRITE]], done)
        if not got:
            raise OSError(f"a shared memory segment of {size} bytes ends after {done}")
        done += got
    return view


def _max_live() -> int:
    try:
        import resource
    except ImportError:
        return MAX_LIVE
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_LIVE if soft == resource.RLIM_INFINITY else min(MAX_LIVE, soft // 8)


SEGMENTS: Final = Segments()
"""This process's."""

forks.register(SEGMENTS.reset_after_fork)
