"""A thread of this process into what it does right now, and what it waits for. On request only; costs nothing else.

The kernel's own word comes first (`/proc/self/task/<tid>/syscall`): a thread that is blocked in a system call waits for
what that call is about. One that is not blocked, or waits for the GIL (which the asking thread holds at this moment, so
that everybody else seems to), runs or wants to run: which of the two, its CPU time since the last look tells.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

from traced_threadpool.live.kernel_file import read_kernel_file
from traced_threadpool.waits.classify import (
    DISK,
    GIL,
    KINDS,
    NETWORK,
    RUNNING,
    Classifier,
    Table,
    UnknownArchitecture,
    table_for,
)


def _file_of(module: str) -> str | None:
    found = sys.modules.get(module)
    return None if found is None else found.__file__


def _table() -> Table | None:
    try:
        return table_for(platform.machine(), struct.calcsize("P"))
    except UnknownArchitecture:
        return None


_TABLE: Final = _table()

MAX_FRAMES: Final = 60
MAX_TEXT: Final = 200
CPU_BOUND_SHARE: Final = 0.5

_WAITING_CODE: Final = ("threading.py", "queue.py", "_base.py", "thread.py", "selectors.py", "socket.py", "ssl.py")
"""Files of the standard library in which threads wait: the line that called them is what a reader wants."""


_OWN_CODE: Final = str(Path(__file__).parent.parent / "engine")
_HAMILTON: Final = str(Path(hamilton_file).parent) if (hamilton_file := _file_of("hamilton")) else "\0"


@dataclass(frozen=True, slots=True)
class ThreadNow:
    """`state` is one of the wait states, or `cpu`; None where it cannot be told. `on` may be None."""

    state: str | None = None
    on: str | None = None


class ThreadsNow:
    """Looks at threads of a process, this one unless told otherwise.

    Args:
        proc: Where the kernel's `proc` is mounted.
        pid: Another process, of which less can be told.
        gil_address: Gives the address of the GIL, None while it is unknown.
    """

    def __init__(
        self, *, proc: Path = Path("/proc"), pid: str = "self", gil_address: Callable[[], int | None] = lambda: None
    ) -> None:
        self._tasks = f"{proc}/{pid}/task"
        self._fds = f"{proc}/{pid}/fd"
        self._is_own = pid == "self"
        self._gil_address = gil_address
        self._seen: dict[int, tuple[float, int, float | None]] = {}  # by thread: when, its CPU time in ns, its share
        self._classifier: Classifier | None = None  # made anew when the address of the GIL is known
        self._classifies_for: int | None = None

    def look(self, native_id: int, *, stack: Callable[[], FrameType | None], busiest: str | None = None) -> ThreadNow:
        """What the thread does.

        Args:
            native_id: The kernel's number of the thread.
            stack: Gives its innermost frame; asked where the thread waits for a lock.
            busiest: The running node that uses the most CPU, for who holds the GIL.
        """
        text = read_kernel_file(f"{self._tasks}/{native_id}/syscall")
        if _TABLE is None or not text:
            return ThreadNow()
        gil_address = self._gil_address() or 0
        classifier = self._classifier
        if classifier is None or gil_address != self._classifies_for:
            self._classifies_for = gil_address
            self._classifier = classifier = Classifier(_TABLE, gil_address=gil_address, descriptor=self._link)
        kind = classifier.classify(text)
        if kind in (RUNNING, GIL):
            return self._wants_cpu(native_id, waits_for_gil=kind == GIL, busiest=busiest)
        state = KINDS[kind]
        if kind in (NETWORK, DISK):
            return ThreadNow(state, self._descriptor_of(text, network=kind == NETWORK))
        if state == "lock":
            frame = stack()
            return ThreadNow(state, None if frame is None else calling_line(frame))
        return ThreadNow(state)

    def cpu_share(self, native_id: int) -> float | None:
        """CPU seconds for each second since the last look at this thread; None at the first."""
        now = time.monotonic()
        before = self._seen.get(native_id)
        if before is not None and now - before[0] < 0.02:
            return before[2]
        try:
            cpu_ns, *_ = map(int, read_kernel_file(f"{self._tasks}/{native_id}/schedstat").split())
        except ValueError:
            return None
        if len(self._seen) > 10_000:
            self._seen.clear()
        share = None if before is None else (cpu_ns - before[1]) / 1e9 / (now - before[0])
        self._seen[native_id] = (now, cpu_ns, share)
        return share

    def _wants_cpu(self, native_id: int, *, waits_for_gil: bool, busiest: str | None) -> ThreadNow:
        share = self.cpu_share(native_id)
        if share is None or share >= CPU_BOUND_SHARE or not waits_for_gil:
            return ThreadNow("cpu")
        return ThreadNow("gil", None if busiest is None else f"held by {busiest}")

    def _link(self, number: int) -> str:
        with contextlib.suppress(OSError):
            return os.readlink(f"{self._fds}/{number}")  # noqa: PTH115  # half the time of a Path's
        return ""

    def _descriptor_of(self, text: bytes, *, network: bool) -> str | None:
        """The remote address of the socket, or the name of the file, that the call's first argument names."""
        try:
            number = int(text.split(b" ")[1], 16) & 0xFFFF_FFFF
        except (IndexError, ValueError):
            return None
        if not network:
            link = self._link(number)
            return shown(link) if link.startswith("/") else None
        return peer_of(number) if self._is_own and self._link(number).startswith("socket:") else None


def peer_of(descriptor: int) -> str | None:
    """The other end of a socket: `10.0.0.3:5432`, or a path. None for one that has none."""
    try:
        duplicate = os.dup(descriptor)
    except OSError:
        return None
    try:
        with socket.socket(fileno=duplicate) as other:
            peer = other.getpeername()
    except OSError:
        with contextlib.suppress(OSError):
            os.close(duplicate)
        return None
    if isinstance(peer, tuple):
        host = f"[{peer[0]}]" if ":" in str(peer[0]) else peer[0]
        return f"{host}:{peer[1]}"
    return shown(peer) if isinstance(peer, str) and peer else None


def shown(text: str) -> str:
    """Printable, and not endless."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def calling_line(frame: FrameType) -> str | None:
    """`file.py:41` of the innermost call that is not the standard library's own waiting."""
    at: FrameType | None = frame
    while at is not None:
        name = at.f_code.co_filename.rpartition(os.sep)[2]
        if name not in _WAITING_CODE:
            return shown(f"{name}:{at.f_lineno}")
        at = at.f_back
    return None


def stack_of(frame: FrameType, *, within: int = 0) -> tuple[str, ...]:
    """The calls of a thread as lines of text, innermost last: `file.py:41 in function`. No source, no values.

    What is outside of the node, this package's own code and Hamilton's around it, is left out.

    Args:
        frame: The thread's innermost.
        within: How many nodes run on the thread inside of the one that is meant: of runs that it executes itself.
    """
    lines: list[str] = []
    at: FrameType | None = frame
    for _ in range(within):
        while at is not None and not _is_own(at):
            at = at.f_back
        while at is not None and _is_own(at):
            at = at.f_back
    while at is not None and len(lines) < MAX_FRAMES and not _is_own(at):
        code = at.f_code
        lines.append(shown(f"{code.co_filename}:{at.f_lineno} in {_qualified_name(code)}"))
        at = at.f_back
    while len(lines) > 1 and lines[-1].startswith(_HAMILTON):
        lines.pop()
    return tuple(reversed(lines))


def _is_own(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OWN_CODE)


def _qualified_name(code: CodeType) -> str:
    return str(getattr(code, "co_qualname", code.co_name))
