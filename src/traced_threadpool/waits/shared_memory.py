"""The memory that workers and the sampler share: rows of 64-bit words. Each word has one writer, so there is no lock.

Row 0 is the sampler's own. A worker's row has in its first half what the worker says of itself, in its second what
the sampler has seen of it: how often it found it waiting, and for each kind the nanoseconds that samples stand for.
These only grow, so that the difference of two readings tells of the time between them. Last come its latest waits for
locks, with their moments.

A row may also be of a worker process' thread. That process maps the memory too, and writes two words of its row.
"""

from __future__ import annotations

import contextlib
import mmap
import os

from traced_threadpool.waits.classify import KINDS

# Words of row 0. The supervisor writes the first two, and the last.
BUDGET_PPM = 0  # of one CPU, in millionths
ROWS = 1  # how many have ever been used
PHASE = 2
ROUNDS = 3
CPU_NS = 4  # that the sampler has used
INTERVAL_NS = 5  # between rounds, at present
STEAL = 6  # of all CPUs, in ticks, as /proc/stat has it
TICKS = 7
ROWS_GIVEN = 8  # how many workers have been given a row

STARTING, SAMPLING, PARKED = range(3)
"""Phases of the sampler."""

# Words of a worker's row. The worker writes the first half.
THREAD = 0  # its native id, 0 when the row is free
GENERATION = 1  # how many workers have had this row
DEPTH = 2  # nodes that it is in: more than one where it helps; besides `AWAY`
NODE = 3  # run number and name number, see `packed`
THREAD_STATE = 4  # its address in the interpreter
PROCESS = 5  # which one's thread it is; 0: this program's
RUNTIME = 6  # of another process: where its interpreter's data is (`_PyRuntime`), 0: unknown, `NO_GIL`: it has no GIL
SAMPLES = 8  # that found it waiting: one that runs has nothing new to read at a node's end
SEEN_NS = 9  # the first of as many sums as there are kinds of samples, in their order
LOCK_WAITS = SEEN_NS + len(KINDS)  # how often it was found to begin to wait for a lock
LOCK_RING = LOCK_WAITS + 1  # the last of these waits: address, from, until; each at its number modulo `LOCKS_KEPT`
LOCKS_KEPT = 8

AWAY = 1 << 32
"""A worker's `DEPTH` is this much more while it only waits for another process, whose thread is looked at instead."""

NO_GIL = 1

ROW = 8 * -(-(LOCK_RING + 3 * LOCKS_KEPT) // 8)  # words, in whole cache lines
MAX_WORKERS = 1024
SIZE = ROW * 8 * (1 + MAX_WORKERS)

NAME_BITS = 24


def packed(run_number: int, name_number: int) -> int:
    """Both in one word, so that a reader never has the one of before and the other of now.

    >>> unpacked(packed(7, 3))
    (7, 3)
    """
    return run_number << NAME_BITS | name_number


def unpacked(word: int) -> tuple[int, int]:
    """A run number and a name number."""
    return word >> NAME_BITS, word & ((1 << NAME_BITS) - 1)


class SharedMemory:
    """A sequence of words. Without a descriptor, memory of this process alone."""

    def __init__(self, descriptor: int = -1) -> None:
        self._memory = mmap.mmap(descriptor, SIZE)
        self._bytes = memoryview(self._memory)
        self.words = self._bytes.cast("Q")

    def close(self) -> None:
        """At once, and not with the last reference. Whoever uses it after that gets a ValueError."""
        with contextlib.suppress(BufferError):  # somebody is in the middle of a reading
            self.words.release()
            self._bytes.release()
            self._memory.close()


def make_memory() -> int:
    """The descriptor of fresh memory, all zero; -1 where memory cannot be shared by one."""
    if not hasattr(os, "memfd_create"):
        return -1
    descriptor = os.memfd_create("traced-threadpool-waits", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, SIZE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
