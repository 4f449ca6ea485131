"""A worker process among those whose waits are sampled: the near side, which asks for it, and the far side's own words.

The driver has a sampler, which reads what the kernel says of threads, and memory that it shares with that. A worker's
thread has a row there. The worker is told of it before the first call, and from then on writes there when its function
starts and ends. So one sampler with one budget looks at all processes, and only at what a node does.

Whatever goes wrong here, a node runs as it would without.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from traced_threadpool.engine.backends.channel import Channel
from traced_threadpool.model.far_waits import FarSampler, FarThread, Place
from traced_threadpool.model.timing import Timing

logger = logging.getLogger("traced_threadpool")

_MEMORY: Final = "/memfd:"


class Sampled:
    """The near side: a worker's thread, which runs one call at a time.

    Args:
        channel: The worker's.
        kind: Of the message that tells it.
    """

    __slots__ = ("_channel", "_kind", "_sampler", "_thread")

    def __init__(self, channel: Channel, kind: int) -> None:
        self._channel = channel
        self._kind = kind
        self._thread: FarThread | None = None
        self._sampler: FarSampler | None = None  # whose it is

    def begin(self, sampler: FarSampler | None, pid: int, let_trace: Callable[[int], None]) -> None:
        """A call is about to be sent, by the calling thread, which is to wait for it."""
        thread = self._thread
        try:
            if sampler is None:
                self.close()
                return
            if thread is None or self._sampler is not sampler or not thread.is_sampled:
                self.close()
                thread = sampler.far_thread(pid, pid, let_trace)
                if thread is None:
                    return
                thread.tell(self._send)
                self._thread, self._sampler = thread, sampler
            thread.leave()
        except Exception:  # without it, waits are not known
            logger.debug("the waits of a worker process cannot be sampled", exc_info=True)
            self.close()

    def _send(self, place: Place, memory: int) -> None:
        self._channel.send(self._kind, place, descriptors=[memory])

    def end(self, timing: Timing) -> None:
        """It has come to an end, whichever."""
        if self._thread is not None:
            try:
                self._thread.come_back(timing)
            except Exception:  # the memory is gone
                self.close()

    def close(self) -> None:
        """The worker is gone, or nobody looks."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()


class InFunction:
    """The far side: says in the shared memory whether the worker's function runs."""

    __slots__ = ("_depth_at", "_words")

    def __init__(self) -> None:
        self._words: Any = [0]  # nobody's, until it is told
        self._depth_at = 0

    def use(self, place: Place, descriptor: int) -> None:
        """From now on there."""
        self.forget()
        try:
            if sys.platform == "linux" and os.readlink(f"/proc/self/fd/{descriptor}").startswith(_MEMORY):  # noqa: PTH115  # one call
                words = memoryview(mmap.mmap(descriptor, place.length)).cast("Q")
                words[place.runtime_at] = _runtime(place)
                self._words, self._depth_at = words, place.depth_at
        except (OSError, ValueError):  # without it, waits are not known
            pass
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """In a process that a node has forked, the row is its parent's."""
        self._words, self._depth_at = [0], 0

    def enter(self) -> None:
        self._words[self._depth_at] = 1

    def leave(self) -> None:
        self._words[self._depth_at] = 0


def _runtime(place: Place) -> int:
    """Where this interpreter's own data are; 0 where that says nothing of the GIL."""
    if sys.version != place.interpreter:
        return 0
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return place.no_gil
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    except (AttributeError, ValueError):
        return 0
