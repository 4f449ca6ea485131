"""Running nodes into what each does right now: its worker, what it waits for, and its Python stack.

A node of a backend that says where it runs is looked at there; any other on its thread. Where nodes run within one
another on a thread (a node that executes a driver helps with that run), the innermost is what the thread does.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

from traced_threadpool.engine.work import Work
from traced_threadpool.live.kernel_file import read_kernel_file
from traced_threadpool.live.thread_now import ThreadNow, ThreadsNow, stack_of
from traced_threadpool.model.frames import current_frames

LET_GO_SECONDS: Final = 0.01
SAMPLES: Final = 4
WAKES_SHARE: Final = 0.25
"""Of the times that a thread wakes up which waits for the GIL, one that keeps it wakes up for this part at most."""

INNER_RUN: Final = ThreadNow(None, "a run of its own")


class Elsewhere(Protocol):
    """Where a backend runs a node: how that is named, and the process and its thread, where they are on this host."""

    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def thread(self) -> int | None:
        """The kernel's number of it."""

    @property
    def waits(self) -> tuple[str, str] | None:
        """The state, and on what, of a node that nothing runs yet."""

    def stack(self) -> tuple[str, ...] | None:
        """Its calls, innermost last; None where it does not tell."""


@dataclass(frozen=True, slots=True)
class NodeNow:
    """`worker` is a thread or a process; `state` and `on` are as in `LiveNode`."""

    worker: str = ""
    state: str | None = None
    on: str | None = None
    stack: tuple[str, ...] | None = None


class NodesNow:
    """Looks at running nodes.

    Args:
        threads: Looks at threads of this process.
        elsewhere: Where a backend runs a node; None for one on its own thread.
    """

    def __init__(self, threads: ThreadsNow, elsewhere: Callable[[Work], Elsewhere | None] = lambda work: None) -> None:
        self._threads = threads
        self._elsewhere = elsewhere

    def look(
        self, running: Mapping[Work, threading.Thread | None], *, stacks: bool, gil_held_seconds: float = 0.0
    ) -> dict[Work, NodeNow]:
        """What each node does. One that has ended meanwhile is told without a state or a stack.

        Args:
            running: The nodes, each with its thread, if it has one here.
            stacks: Add their stacks.
            gil_held_seconds: For how long no other thread could run Python until now.
        """
        threads = {work: thread for work, thread in running.items() if thread is not None}
        depths = _nodes_within(threads)
        busiest = self._busiest({work: thread for work, thread in threads.items() if not depths[work]})
        found: dict[Work, NodeNow] = {}
        here: dict[Work, threading.Thread] = {}
        for work, thread in running.items():
            elsewhere = self._elsewhere(work)
            if elsewhere is not None:
                found[work] = _look_elsewhere(elsewhere, stacks=stacks)
                continue
            if thread is None:  # it is about to be sent, or has just come back
                found[work] = NodeNow()
                continue
            if not depths[work]:
                here[work] = thread
            now = self._threads_look(work, thread, depths[work], busiest)
            stack = _stack(thread, depths[work]) if stacks else None
            found[work] = NodeNow(thread.name, now.state, now.on, stack)
        if gil_held_seconds:
            found |= _told_of_the_gil({work: found[work] for work in here}, here, gil_held_seconds)
        # What has ended meanwhile may have left its thread to another node.
        return {work: NodeNow(now.worker) if work.ended_ns else now for work, now in found.items()}

    def _threads_look(self, work: Work, thread: threading.Thread, depth: int, busiest: str | None) -> ThreadNow:
        if depth:
            return INNER_RUN
        if thread.native_id is None:
            return ThreadNow()
        return self._threads.look(
            thread.native_id, stack=lambda: _frame(thread), busiest=None if busiest == work.name else busiest
        )

    def _busiest(self, running: Mapping[Work, threading.Thread]) -> str | None:
        """The node that used the most CPU since it was last looked at: who has the GIL where others wait for it."""
        best, name = 0.0, None
        for work, thread in running.items():
            share = None if thread.native_id is None else self._threads.cpu_share(thread.native_id)
            if share is not None and share > best:
                best, name = share, work.name
        return name


def _nodes_within(running: Mapping[Work, threading.Thread]) -> dict[Work, int]:
    """Of each node, how many run on its thread inside of it."""
    by_thread: dict[threading.Thread, list[Work]] = {}
    for work, thread in running.items():
        by_thread.setdefault(thread, []).append(work)
    return {
        work: depth
        for works in by_thread.values()
        for depth, work in enumerate(sorted(works, key=lambda work: -work.started_ns))
    }


def _told_of_the_gil(
    found: Mapping[Work, NodeNow], threads: Mapping[Work, threading.Thread], seconds: float
) -> dict[Work, NodeNow]:
    """C code that keeps the GIL lets nobody look: afterwards its thread waits for the GIL, as any that wants it does.

    Or it has the GIL again by then, and sleeps in C code. So we look again. Who waits for
    something else does not go on meanwhile, and who waits for the GIL wakes up once each switch interval. One sample
    may meet a moment at which another thread has the GIL: two have to agree.
    """
    seen: set[Work] = set()
    for _ in range(SAMPLES):
        able = _able_to_hold(threads)
        if len(able) == 1 and able[0] in seen:
            return {able[0]: replace(found[able[0]], state="gil", on=f"held by this node for {seconds:.2f} s")}
        seen.update(able if len(able) == 1 else ())
    return {}


def _able_to_hold(threads: Mapping[Work, threading.Thread]) -> list[Work]:
    """The nodes whose threads went on for a moment and did not wait for the GIL all the time."""
    before, began = {work: _Waits.of(thread) for work, thread in threads.items()}, time.monotonic()
    time.sleep(LET_GO_SECONDS)
    after, elapsed = {work: _Waits.of(thread) for work, thread in threads.items()}, time.monotonic() - began
    able = []
    for work in threads:
        count = after[work].count - before[work].count
        could_wake = (elapsed - (after[work].delay_seconds - before[work].delay_seconds)) / sys.getswitchinterval()
        if 0 < count <= WAKES_SHARE * could_wake:
            able.append(work)
    return able


@dataclass(frozen=True, slots=True)
class _Waits:
    """How often a thread has begun to wait, and for how long it wanted a CPU: 0 where the kernel does not tell."""

    count: int = 0
    delay_seconds: float = 0.0

    @classmethod
    def of(cls, thread: threading.Thread, proc: Path = Path("/proc/self/task")) -> _Waits:
        try:
            status = read_kernel_file(f"{proc}/{thread.native_id}/status")
            delay_ns = int(read_kernel_file(f"{proc}/{thread.native_id}/schedstat").split()[1])
            return cls(int(status[status.rindex(b"\nvoluntary_ctxt_switches") :].split()[1]), delay_ns / 1e9)
        except (OSError, IndexError, ValueError):
            return cls()


def _frame(thread: threading.Thread) -> FrameType | None:
    return None if thread.ident is None else current_frames().get(thread.ident)


def _stack(thread: threading.Thread, within: int) -> tuple[str, ...] | None:
    frame = _frame(thread)
    return None if frame is None else stack_of(frame, within=within)


def _look_elsewhere(elsewhere: Elsewhere, *, stacks: bool) -> NodeNow:
    pid, thread = elsewhere.pid, elsewhere.thread
    if elsewhere.waits is not None:
        return NodeNow(elsewhere.name, *elsewhere.waits)
    if pid is None or thread is None:
        return NodeNow(elsewhere.name, stack=elsewhere.stack() if stacks else None)
    life = _life(pid)
    if life is not None:
        return NodeNow(elsewhere.name, "other", f"process {pid} {life}")
    now = ThreadsNow(pid=str(pid)).look(thread, stack=lambda: None)
    return NodeNow(elsewhere.name, now.state, now.on, elsewhere.stack() if stacks else None)


def _life(pid: int, proc: Path = Path("/proc")) -> str | None:
    """What keeps a process from running at all; None for nothing, and where there is no `/proc`."""
    if not proc.is_dir():
        return None
    try:
        state = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "is dead"
    return {"T": "is stopped", "t": "is stopped by a debugger", "Z": "is dead", "X": "is dead"}.get(state)
