"""The rows of shared memory that worker threads write and the sampler reads: who has which, from when until when."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import members
from traced_threadpool.model.lock_backoff import ObserverLock
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.calibrate import NoCalibration, thread_state_address
from traced_threadpool.waits.classify import KINDS
from traced_threadpool.waits.runqueue import RunQueueDelay

MAX_NAMES: Final = 100_000
MAX_DELAY_FILES: Final = 256


class WorkerRow:
    """A worker thread's row, which begins at `words[at]`, and the file with its run-queue delay.

    It also keeps the latest readings, so that a node's start can take over those of the end before.
    """

    __slots__ = (
        "__weakref__",
        "_free",
        "_process_id",
        "at",
        "cpu_at_ns",
        "cpu_ns",
        "delay",
        "delay_at_ns",
        "delay_cpu_ns",
        "delay_ns",
        "epoch",
        "samples",
        "seen_ns",
        "words",
    )

    def __init__(
        self,
        words: memoryview[int],
        at: int,
        *,
        epoch: int,
        delay: RunQueueDelay | None,
        free: Callable[[int], None],
    ) -> None:
        self._free: Callable[[int], None] | None = None  # until all is there, for `__del__`
        self._process_id = os.getpid()
        self.words = words
        self.at = at
        self.epoch = epoch
        self.delay = delay
        self.delay_ns = self.delay_at_ns = self.delay_cpu_ns = 0  # as last read, when, and the CPU time then
        self.cpu_ns = self.cpu_at_ns = 0  # likewise, of the thread's CPU time at the end of a node
        self.samples = -1  # as last read, with `seen_ns`
        self.seen_ns: list[int] = []
        self._free = free

    def read_delay(self, now_ns: int, cpu_ns: int) -> None:
        delay = self.delay
        if delay is not None:
            self.delay_ns = delay.read_ns()
            self.delay_at_ns = now_ns
            self.delay_cpu_ns = cpu_ns

    def read_seen(self, samples: int) -> None:
        start = self.at + shm.SEEN_NS
        self.seen_ns = self.words[start : start + len(KINDS)].tolist()
        self.samples = samples

    def close(self) -> None:
        """Leaves the memory as it is: in a forked child it is the parent's."""
        self._free = None
        self.delay = None  # the last who reads it closes the file: closed under a reader, its number may be another's

    def __del__(self) -> None:  # with the thread, whose local it is
        # A forked child drops the other threads before it calls anybody: their rows are still in use, by the parent.
        if self._free is not None and self._process_id == os.getpid():
            with contextlib.suppress(ValueError):  # the memory is closed
                self.words[self.at + shm.THREAD_STATE] = 0  # another thread's may be at that address next
                self.words[self.at + shm.DEPTH] = 0
                self.words[self.at + shm.THREAD] = 0
                self._free(self.at)


class WorkerRows:
    """Gives each thread that asks a row of its own, and takes it back when the thread ends. Under the caller's lock.

    Args:
        words: The shared memory's.
        proc: Where the kernel's `proc` is mounted.
        epoch: What the rows are marked with.
        lack: Is told, by a word of `REASONS`, what a row cannot have.
    """

    def __init__(self, words: memoryview[int], proc: Path, *, epoch: int, lack: Callable[[str], None]) -> None:
        self._words = words
        self._proc = proc
        self._epoch = epoch
        self._lack = lack
        self._free: list[int] = []
        self._all: weakref.WeakSet[WorkerRow] = weakref.WeakSet()

    def row(self) -> WorkerRow | None:
        """A new one, for the calling thread; None for one too many."""
        words = self._words
        at = self._place()
        if at is None:
            return None
        thread = threading.get_native_id()
        words[at + shm.THREAD_STATE] = _thread_state()
        words[at + shm.THREAD] = thread
        delay = delay_of(self._proc, thread) if len(self._all) < MAX_DELAY_FILES else None
        if delay is None:
            self._lack("runqueue_unknown")
        row = WorkerRow(words, at, epoch=self._epoch, delay=delay, free=self._free.append)
        self._all.add(row)
        words[shm.ROWS_GIVEN] += 1  # when all the rest is there
        return row

    def far_row(self, process: int, thread: int) -> int | None:
        """Where that of a thread of another process begins; None for one too many. `give_back` takes it."""
        words = self._words
        at = self._place()
        if at is not None:
            words[at + shm.THREAD_STATE] = words[at + shm.RUNTIME] = 0
            words[at + shm.PROCESS] = process
            words[at + shm.THREAD] = thread
            words[shm.ROWS_GIVEN] += 1
        return at

    def give_back(self, at: int) -> None:
        self._free.append(at)

    def _place(self) -> int | None:
        words = self._words
        if self._free:
            at = self._free.pop()
        elif words[shm.ROWS] < shm.MAX_WORKERS:
            words[shm.ROWS] += 1
            at = shm.ROW * words[shm.ROWS]
        else:
            self._lack("too_many_workers")
            return None
        words[at + shm.GENERATION] += 1
        words[at + shm.DEPTH] = words[at + shm.PROCESS] = 0
        return at

    def is_active(self) -> bool:
        """Whether any worker is in a node."""
        words = self._words
        return any(words[shm.ROW + shm.DEPTH : shm.ROW * (1 + words[shm.ROWS]) : shm.ROW])

    def close(self) -> None:
        for row in members(self._all):
            row.close()

    def reset_after_fork(self) -> None:
        self._all = forks.kept_in_child(self._all, weakref.WeakSet())


class NodeNumbers:
    """Numbers that stand for nodes' names in shared memory."""

    def __init__(self) -> None:
        self._names: list[str] = [""]
        self._numbers: dict[str, int] = {}
        self._lock = ObserverLock()

    def number_of(self, name: str) -> int:
        """Always the same for a name; 0 for one name too many."""
        number = self._numbers.get(name)
        if number is None:
            with self._lock:
                number = self._numbers.get(name)
                if number is None:
                    if len(self._names) >= MAX_NAMES:
                        return 0
                    number = self._numbers[name] = len(self._names)
                    self._names.append(name)
        return number

    def name_of(self, number: int) -> str:
        return self._names[number] or "_other"


def delay_of(proc: Path, thread: int) -> RunQueueDelay | None:
    """The run-queue delay of the calling thread, where the kernel tells it."""
    try:
        return RunQueueDelay(proc, thread)
    except OSError:
        return None


def _thread_state() -> int:
    """The address of the calling thread's state in the interpreter, 0 where the interpreter does not tell it."""
    try:
        return thread_state_address()
    except NoCalibration:
        return 0
