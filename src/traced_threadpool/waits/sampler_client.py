"""This program's side of the sampler: what it is told at its start, and what it is asked later."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from traced_threadpool.model.lock_backoff import ObserverLock
from traced_threadpool.waits import protocol, spawn
from traced_threadpool.waits.calibrate import Lock, runtime_address
from traced_threadpool.waits.classify import UnknownArchitecture, table_for

ANSWER_SECONDS: Final = 0.2

# A program in which a pipe that breaks is deadly must not die of a sampler that has ended.
_SEND_FLAGS: Final = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)


class CannotSample(Exception):
    """The reason is a word of `REASONS`; the detail, if there is one, is for the log."""

    def __init__(self, reason: str, detail: object = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class SamplerClient:
    """A sampler that works. Used by any thread.

    `needs_leave` tells whether each process has to let it look.
    """

    def __init__(self, process: spawn.SamplerProcess, channel: socket.socket, *, needs_leave: bool) -> None:
        self.process = process
        self.channel = channel
        self.needs_leave = needs_leave
        self.unanswered = False
        """Whether it has left a question open, because it is stopped: then no other waits for an answer."""
        self._asking = ObserverLock()

    def wake(self) -> None:
        """It is parked, and a node starts."""
        with contextlib.suppress(OSError):
            self.channel.send(protocol.WAKE, _SEND_FLAGS)

    def holders(self, run_number: int) -> list[str]:
        """Who held the GIL while nodes of a run waited for it, as the sampler writes it. Waits for the answer."""
        with self._asking:
            try:
                self.channel.send(protocol.HOLDERS + str(run_number).encode(), _SEND_FLAGS)
                # One that has not answered before, because it was stopped, holds up no further run until it does.
                deadline = time.monotonic() + (0.0 if self.unanswered else ANSWER_SECONDS)
                while spawn.is_readable(self.channel, deadline - time.monotonic()):
                    self.unanswered = False
                    number, *held = self.channel.recv(65_536).decode().split()
                    if number == str(run_number):
                        return held
                    deadline = time.monotonic() + ANSWER_SECONDS  # that was the answer to a question given up
                self.unanswered = True
            except (OSError, ValueError):  # it has gone
                pass
        return []

    def hang_up(self) -> None:
        """From now on it ends by itself; `end` waits for that."""
        with self._asking:
            self.channel.close()

    def end(self) -> None:
        self.process.end()

    def release(self) -> None:
        """Closes what is open here, whatever the sampler does: in a forked child it is the parent's."""
        self.channel.close()
        self.process.close()


def start_sampler(memory: int, proc: Path, find_gil: Callable[[], Lock]) -> SamplerClient:
    """Starts a sampler of this process and waits until it works.

    Args:
        memory: The descriptor of the shared memory.
        proc: Where the kernel's `proc` is mounted.
        find_gil: Finds the GIL, while the other process comes up.

    Raises:
        CannotSample: It cannot work here.
    """
    interpreter = spawn.interpreter()
    if interpreter is None:
        raise CannotSample("no_interpreter")
    no_init = spawn.why_not_an_orphan()
    if no_init is not None:
        raise CannotSample("no_init", no_init)
    machine, pointer_bytes = platform.machine(), struct.calcsize("P")
    try:
        table_for(machine, pointer_bytes)
    except UnknownArchitecture as error:
        raise CannotSample("unknown_architecture", error) from None
    try:
        process, channel = spawn.spawn(interpreter, memory)
    except (OSError, NotImplementedError, AttributeError) as error:  # as the C library has `posix_spawn`
        raise CannotSample("sampler_failed", error) from None
    try:
        gil = find_gil()
        told = (
            os.getpid(),
            pointer_bytes,
            gil.address,
            -1 if gil.holder_address is None else gil.holder_address,
            -1 if gil.ident_offset is None else gil.ident_offset,
            runtime_address(),
            machine,
            proc,
        )
        channel.send("\n".join(map(str, told)).encode(), socket.MSG_NOSIGNAL)
        refused, needs_leave = spawn.greeted(channel, process.pid)
    except OSError as error:
        refused, needs_leave = ("sampler_failed", str(error)), False
    if refused is not None:
        channel.close()
        process.end()
        raise CannotSample(*refused)
    return SamplerClient(process, channel, needs_leave=needs_leave)
