"""What a backend asks of whoever samples waits, for a thread of a worker process to be among those that are sampled.

The backend knows the process, and can talk to it; the sampler knows neither. So the one gives the other a row of its
memory, which the backend has its worker write to::

    thread = sampler.far_thread(pid, thread_id, let_trace)   # once a worker
    thread.tell(send)                                        # the worker maps the memory
    thread.leave()                                           # before each call, on the thread that waits for it
    thread.come_back(timing)                                 # after it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from traced_threadpool.model.timing import Timing


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker process writes in the shared memory of `length` bytes, as numbers of 64-bit words.

    At `depth_at` 1 while its function runs, else 0; at `runtime_at` where its interpreter's data is, or `no_gil` where
    it has no GIL: if it is the very `interpreter` that this program runs in.
    """

    length: int
    depth_at: int
    runtime_at: int
    no_gil: int
    interpreter: str


class FarThread(Protocol):
    """A thread of a worker process that is sampled while it is in a function."""

    def tell(self, send: Callable[[Place, int], object]) -> None:
        """Gives what the worker is to be told, and a descriptor of the memory, which is open as long as this takes."""

    @property
    def is_sampled(self) -> bool:
        """False once the sampler has made its memory anew: then another is to be asked for."""

    def leave(self) -> None:
        """A call begins, for which the calling thread waits."""

    def come_back(self, timing: Timing) -> None:
        """It is over: puts what was seen meanwhile into its timing."""

    def close(self) -> None:
        """The worker has gone."""


class FarSampler(Protocol):
    """Whoever samples waits."""

    def far_thread(self, process: int, thread: int, let_trace: Callable[[int], None]) -> FarThread | None:
        """A thread of another process is to be sampled. None: nothing is, or there are too many.

        Args:
            process: Its id.
            thread: The kernel's number of the thread.
            let_trace: Has that process let the one of this id look at it, where the kernel asks for that.
        """
