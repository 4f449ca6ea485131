"""A worker process' thread into a row of shared memory, for as long as the process is there (`model/far_waits.py`).

The row's first words are written here, but for two: the worker says when it is in a function, and where its
interpreter is. What samples find is read here, so that a worker that dies in the middle has been seen all the same.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Final

from traced_threadpool.model.far_waits import Place
from traced_threadpool.model.timing import Timing
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import KINDS

_GONE: Final[memoryview[int]] = memoryview(b"").cast("Q")


class FarRow:
    """The row of one thread. Used by one call at a time.

    Args:
        words: The shared memory's.
        at: Where its row begins.
        memory: The descriptor of the shared memory, of which a copy is kept until the worker has been told.
        epoch: Of the memory.
        epoch_now: Gives that of the memory that is in use.
        let_trace: Has the process let another look at it.
        free: Takes the row back.
    """

    __slots__ = (
        "__weakref__",
        "_epoch",
        "_epoch_now",
        "_free",
        "_memory",
        "_process_id",
        "_samples",
        "_seen_ns",
        "at",
        "let_trace",
        "words",
    )

    def __init__(
        self,
        words: memoryview[int],
        at: int,
        *,
        memory: int,
        epoch: int,
        epoch_now: Callable[[], int],
        let_trace: Callable[[int], None],
        free: Callable[[int], None],
    ) -> None:
        self._free: Callable[[int], None] | None = None  # until all is there, for `__del__`
        self._memory = -1
        self._process_id = os.getpid()
        self.words = words
        self.at = at
        self.let_trace = let_trace
        self._epoch = epoch
        self._epoch_now = epoch_now
        self._samples = 0
        self._seen_ns: list[int] = []
        self._free = free
        self._memory = os.dup(memory)

    def tell(self, send: Callable[[Place, int], object]) -> None:
        place = Place(
            length=shm.SIZE,
            depth_at=self.at + shm.DEPTH,
            runtime_at=self.at + shm.RUNTIME,
            no_gil=shm.NO_GIL,
            interpreter=sys.version,
        )
        try:
            send(place, self._memory)
        finally:
            self._close_memory()

    @property
    def is_sampled(self) -> bool:
        return self._free is not None and self._epoch == self._epoch_now()

    def leave(self) -> None:
        self._samples, self._seen_ns = self._read()

    def come_back(self, timing: Timing) -> None:
        samples, seen_ns = self._read()
        timing.samples = samples - self._samples
        timing.seen_ns = [now - then for now, then in zip(seen_ns, self._seen_ns, strict=True)]

    def _read(self) -> tuple[int, list[int]]:
        start = self.at + shm.SEEN_NS
        return self.words[self.at + shm.SAMPLES], self.words[start : start + len(KINDS)].tolist()

    def close(self) -> None:
        """The process writes nothing that matters any more. In a forked child the memory is the parent's."""
        free, self._free = self._free, None
        self._close_memory()
        if free is not None and self._process_id == os.getpid():
            with contextlib.suppress(ValueError):  # the memory is closed
                for word in (shm.DEPTH, shm.THREAD, shm.PROCESS):
                    self.words[self.at + word] = 0
                free(self.at)
        self.words = _GONE

    def _close_memory(self) -> None:
        memory, self._memory = self._memory, -1
        if memory >= 0:
            os.close(memory)

    def __del__(self) -> None:  # with what is known of the worker
        self.close()


def have_let_trace(rows: Iterable[FarRow], sampler: int) -> None:
    """Has the processes of these rows let the sampler of this id look at them."""
    for each in rows:
        with contextlib.suppress(OSError):  # it has gone, or has closed what it was to be told by
            each.let_trace(sampler)
