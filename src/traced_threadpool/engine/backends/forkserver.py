"""The process that makes workers: it has imported what they need, and forks one at each request.

One thread, which does nothing else, so that a fork is safe whatever the program's threads are doing. It is also what
ends the workers: when the driver's end of the control channel closes, however the driver died, workers that have not
ended by themselves within `GRACE_SECONDS` are killed; and where the kernel can, they are tied to its own life.

Started with the standard library's own `subprocess`, as
`python -c "...; from traced_threadpool.engine.backends.forkserver import main; main(descriptor)"`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import time
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from traced_threadpool.engine.backends import worker
from traced_threadpool.engine.backends.channel import Channel, Closed

# Kinds of messages. To the server:
START: Final = 1
SPAWN: Final = 2
KILL: Final = 3
# From it:
ENDED: Final = 4

GRACE_SECONDS: Final = 2.0

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Start:
    """What the server does first, imports modules; and how long it stays when there is no worker."""

    preload: tuple[str, ...]
    idle_seconds: float


def main(descriptor: int) -> None:
    """Serves until the driver closes its end or has gone, and every worker has ended."""
    channel = Channel(socket.socket(fileno=descriptor))
    worker.leave_signals_alone()
    wakeup, waker = socket.socketpair()
    wakeup.setblocking(False)
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, _noticed)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    try:
        _serve(channel, wakeup, waker)
    finally:  # of the server alone: its forks end elsewhere
        signal.set_wakeup_fd(-1)
        for each in (channel, wakeup, waker):
            each.close()


def _serve(channel: Channel, wakeup: socket.socket, waker: socket.socket) -> None:
    try:
        kind, start, _, _, _ = channel.receive()
    except Closed:
        return
    assert kind == START
    for module in start.preload:
        # Whatever it raises, a node that needs it will raise as well, where it is seen.
        with contextlib.suppress(BaseException):
            import_module(module)
    gc.collect()
    gc.freeze()  # pages of what was imported stay shared, since no collection touches them
    _Server(channel, wakeup, waker, start.idle_seconds).run()


def _noticed(number: int, frame: object) -> None:
    """SIGCHLD has a handler, so that it writes to the wake-up socket."""


class _Server:
    def __init__(self, channel: Channel, wakeup: socket.socket, waker: socket.socket, idle_seconds: float) -> None:
        self._channel = channel
        self._idle_seconds = idle_seconds
        self._wakeup = wakeup
        self._waker = waker
        self._workers: dict[int, int] = {}  # process ids by number
        self._killed_at: float | None = None  # when those that are left are killed

    def run(self) -> None:
        """Until the driver has gone, or has wanted nothing for the idle time, and no worker is left."""
        selector = selectors.DefaultSelector()
        selector.register(self._channel, selectors.EVENT_READ)
        selector.register(self._wakeup, selectors.EVENT_READ)
        while self._killed_at is None or self._workers:
            happened = selector.select(self._patience())
            if not happened and self._killed_at is None:
                return  # a request that is on its way is not answered, and goes to another server
            for key, _ in happened:
                if key.fileobj is self._wakeup:
                    with contextlib.suppress(BlockingIOError):
                        self._wakeup.recv(4_096)
                elif not self._obey():
                    selector.unregister(self._channel)
                    self._killed_at = time.monotonic() + GRACE_SECONDS
            self._reap()
            if self._killed_at is not None and time.monotonic() >= self._killed_at:
                for pid in self._workers.values():
                    kill_group(pid)

    def _patience(self) -> float | None:
        if self._killed_at is not None:
            return max(0.05, self._killed_at - time.monotonic())
        return None if self._workers else self._idle_seconds

    def _obey(self) -> bool:
        """Does what the driver asks. False when it has gone."""
        try:
            kind, number, _, descriptors, _ = self._channel.receive()
        except (Closed, OSError):
            return False
        if kind == SPAWN:
            self._spawn(number, descriptors[0])
        elif kind == KILL and number in self._workers:
            kill_group(self._workers[number])
        return True

    def _spawn(self, number: int, descriptor: int) -> None:
        server_pid = os.getpid()
        try:
            with warnings.catch_warnings():
                # Python 3.12 warns of forks while there are threads: here those of numeric libraries, which see to it.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError:  # no more processes: the driver sees that the connection closes
            os.close(descriptor)
            self._tell(ENDED, (number, None))
            return
        if pid:
            os.close(descriptor)
            self._workers[number] = pid
            # Both do it, so that it is done before either goes on.
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            return
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)  # a kill reaches what its nodes have started as well
            if not _die_with(server_pid):
                return
            self._channel.close_copy()
            self._wakeup.close()
            self._waker.close()
            _reseed()
            worker.run(socket.socket(fileno=descriptor))
        finally:
            os._exit(1)

    def _reap(self) -> None:
        for number, pid in list(self._workers.items()):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found, status = pid, 0
            if found:
                del self._workers[number]
                self._tell(ENDED, (number, os.waitstatus_to_exitcode(status)))

    def _tell(self, kind: int, what: object) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(kind, what)


def kill_group(pid: int) -> None:
    """Kills a worker, and the programs that its nodes have started and that stayed in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _die_with(parent: int) -> bool:
    """Ties this process's life to its parent's, where the kernel can. False when the parent has gone already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def _reseed() -> None:
    """Copies of one generator of random numbers would give every worker the same. Python's own sees to itself."""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        with contextlib.suppress(Exception):
            numpy.seed()
