"""A worker process' Python stack, told by a thread of its own when the driver asks.

The thread waits at a pipe, and costs nothing until somebody asks; the driver reaches the pipe, and the file in memory
with the answer, by way of `/proc`. A signal would tell more (also while a node keeps the GIL), and would end waits of C
code in the node. Linux only; elsewhere nobody is told anything.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from traced_threadpool.model.frames import current_frames

PATIENCE_SECONDS: Final = 0.3
MAX_FRAMES: Final = 60

_PR_SET_PTRACER: Final = 0x59616D61
_STACK, _TRACER = b"?", b"t"
_NUMBER_BYTES: Final = 4

_OWN_CODE: Final = str(Path(__file__).parent)
_END: Final = "\n."


def offer() -> tuple[int, int] | None:
    """In the worker, on the thread that runs nodes: from now on it tells its stack.

    Returns:
        The descriptors to ask at and to read from, as they are numbered here; None where it cannot.
    """
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, RuntimeError, AttributeError):
        answer = os.memfd_create("traced_threadpool-stack", os.MFD_CLOEXEC)
        asked, ask = os.pipe()
        # A thread that Python does not know by name: nodes see theirs alone.
        _thread.start_new_thread(_tell, (threading.get_ident(), asked, answer))
        return ask, answer
    return None


def _tell(thread: int, asked: int, answer: int) -> None:
    while said := os.read(asked, 1):
        if said == _TRACER:
            _be_traced_by(int.from_bytes(os.read(asked, _NUMBER_BYTES), "little"))
            continue
        text = "\n".join(_lines(thread)) + _END
        with contextlib.suppress(OSError):
            os.pwrite(answer, text.encode("utf-8", "replace"), 0)


def _be_traced_by(pid: int) -> None:
    """Yama lets a process be looked at by its ancestors, and by one that it names."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, pid, 0, 0, 0)


def let_trace(worker: int, ask: int, tracer: int) -> None:
    """Here: has a worker, which has offered to be asked at this descriptor, let a process look at it.

    Raises OSError: it has gone.
    """
    _say(worker, ask, _TRACER + tracer.to_bytes(_NUMBER_BYTES, "little"))


def _say(worker: int, ask: int, said: bytes) -> None:
    asking = os.open(f"/proc/{worker}/fd/{ask}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(asking, said)
    finally:
        os.close(asking)


def _lines(thread: int) -> list[str]:
    """The node's own calls, innermost last."""
    lines: list[str] = []
    frame = current_frames().get(thread)
    while frame is not None and len(lines) < MAX_FRAMES:
        code = frame.f_code
        if code.co_filename.startswith(_OWN_CODE):
            break
        lines.append(f"{code.co_filename}:{frame.f_lineno} in {getattr(code, 'co_qualname', code.co_name)}")
        frame = frame.f_back
    return lines[::-1]


_asking = threading.Lock()


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker process that runs a node now. `descriptors` are what it has offered."""

    pid: int
    descriptors: tuple[int, int] | None

    @property
    def name(self) -> str:
        return f"process {self.pid}"

    @property
    def thread(self) -> int:
        """The kernel's number of the thread that runs the node."""
        return self.pid

    @property
    def waits(self) -> None:
        """It runs."""

    def stack(self) -> tuple[str, ...] | None:
        """Its calls, innermost last: `file.py:41 in function`. None where it does not tell, as while C code in its node
        keeps the GIL.
        """
        if self.descriptors is None or not _asking.acquire(timeout=PATIENCE_SECONDS):
            return None
        try:
            return self._ask(*self.descriptors)
        except (OSError, ValueError):  # it has ended
            return None
        finally:
            _asking.release()

    def _ask(self, ask: int, answer: int) -> tuple[str, ...] | None:
        files = Path("/proc") / str(self.pid) / "fd"
        with (files / str(answer)).open("r+b", buffering=0) as told:
            told.truncate(0)
            _say(self.pid, ask, _STACK)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                time.sleep(0.001)
                told.seek(0)
                text = told.read().decode("utf-8", "replace")
                if text.endswith(_END):
                    return tuple(text.removesuffix(_END).splitlines()) or None
        return None
