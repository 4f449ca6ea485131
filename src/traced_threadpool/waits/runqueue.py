"""How long a thread has wanted a CPU and had none, as the kernel's scheduler counts it (`schedstat`).

https://docs.kernel.org/scheduler/sched-stats.html: the second number of the file, in nanoseconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class RunQueueDelay:
    """The calling thread's delay so far. Reading it keeps the GIL: `os.pread` would release it, and then
    wait for it, up to 5 ms at a time.

    Raises:
        OSError: The kernel does not count it, or this interpreter has no `ctypes`.
    """

    __slots__ = ("_buffer", "_descriptor", "_read")

    def __init__(self, proc: Path, thread: int) -> None:
        self._descriptor = -1
        self._read, self._buffer = _keeping_read()
        self._descriptor = os.open(proc / "self" / "task" / str(thread) / "schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self.read_ns()
        if self._buffer.value.split() in ([], [b"0"] * 3):  # the last is how often it has run, and it runs now
            self.close()
            raise OSError("schedstat is empty")

    def read_ns(self) -> int:
        """In nanoseconds; 0 where it cannot be read any more."""
        buffer = self._buffer
        length = self._read(self._descriptor, buffer, 64, 0)
        try:
            return int(buffer[:length].split()[1]) if length > 0 else 0
        except (IndexError, ValueError):
            return 0

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _keeping_read() -> tuple[Callable[..., int], Any]:
    try:
        import ctypes

        prototype = ctypes.PYFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
        return prototype(("pread", ctypes.PyDLL(None))), ctypes.create_string_buffer(64)
    except (ImportError, AttributeError, OSError) as error:
        raise OSError(f"no way to read without releasing the GIL ({error})") from None
