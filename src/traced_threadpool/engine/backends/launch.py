"""Worker processes into being, in one of two ways, and out of it.

`forkserver`: a process that has imported what workers need forks them (see `forkserver`). It is nobody's child: a
program that waits for its children does not wait for it, and it leaves no zombie. `spawn`: each worker is a fresh
interpreter, a child of this process; the way of platforms where a fork of a process that has imported much is not safe.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing.spawn
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from traced_threadpool.engine.backends import forkserver
from traced_threadpool.engine.backends.channel import Channel, Closed
from traced_threadpool.engine.backends.errors import WorkerSetupError

START_SECONDS: Final = 60.0
STATUS_SECONDS: Final = 2.0
OTHER_PYTHON: Final = 86
"""The exit code of an interpreter that is not of this one's version."""

MAX_STATUSES: Final = 1_000


class Process(Protocol):
    """One worker process."""

    def kill(self) -> None:
        """With SIGKILL, and what its nodes have started, where there are process groups."""

    def exit_code(self) -> int | None:
        """Waits a moment for its end. Negative: the signal that ended it. None: not known."""


class Launcher(Protocol):
    """A way to start worker processes."""

    def launch(self, theirs: socket.socket) -> Process:
        """Starts a worker that has this end of a connection.

        Raises WorkerSetupError or OSError.
        """

    def close(self) -> None:
        """Waits for the end of all workers, whose connections have been closed; kills those that do not end."""

    def forget(self) -> None:
        """For a forked child: lets go of copies, and leaves the processes alone."""


def launcher_for(method: str, environment: Mapping[str, str], preload: Sequence[str], idle_seconds: float) -> Launcher:
    """The launcher of a start method."""
    if method == "forkserver":
        return ForkServer(environment, preload, idle_seconds)
    return Spawner(environment)


def _command(*statements: str) -> list[str]:
    """Runs statements in a fresh interpreter with this one's flags and path."""
    executable: Any = multiprocessing.spawn.get_executable()
    path = list(map(str, sys.path))
    package = str(Path(__file__).parents[3])
    if package not in path:
        path.append(package)
    code = "; ".join(
        [
            "import os, sys",
            f"sys.version_info[:2] == {tuple(sys.version_info[:2])} or sys.exit({OTHER_PYTHON})",
            f"sys.path[:] = {path!r}",
            *statements,
        ]
    )
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    return [executable if isinstance(executable, str) else os.fsdecode(executable), *flags, "-c", code]


def _explained(code: int) -> str:
    if code == OTHER_PYTHON:
        return (
            f"{os.fsdecode(multiprocessing.spawn.get_executable())} is another version of Python than this one "
            f"({sys.version_info[0]}.{sys.version_info[1]}): functions are sent as bytecode, so both must be the same"
        )
    return f"the interpreter ended with exit code {code}; what it said is on stderr"


class ForkServer:
    """Has a server fork workers. Starts it with the first worker, and again when it has gone."""

    def __init__(self, environment: Mapping[str, str], preload: Sequence[str], idle_seconds: float) -> None:
        self._environment = dict(environment)
        self._start = forkserver.Start(preload=tuple(preload), idle_seconds=idle_seconds)
        self._numbers = itertools.count(1)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._channel: Channel | None = None
        self._socket: socket.socket | None = None
        self._codes: dict[int, int | None] = {}  # the last ones

    def launch(self, theirs: socket.socket) -> Process:
        with self._lock:
            number = next(self._numbers)
            for _ in range(2):
                if self._channel is None:
                    self._start_server()
                try:
                    self._read_codes(0.0)
                    assert self._channel is not None
                    self._channel.send(forkserver.SPAWN, number, descriptors=[theirs.fileno()])
                except Closed:  # it has ended, for want of work or killed
                    self._drop()
                else:
                    return _Forked(self, number)
        raise WorkerSetupError("the process that forks workers ends as soon as it is started; see stderr")

    def _start_server(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            # Forks and ends, so that the server is no child of this process.
            command = _command(
                "os.fork() and os._exit(0)",
                "from traced_threadpool.engine.backends.forkserver import main",
                f"main({theirs.fileno()})",
            )
            starter = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal is not for it
            )
            try:
                code = starter.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                starter.kill()
                starter.wait()
                raise WorkerSetupError(f"the interpreter did not start within {START_SECONDS:g} s") from None
            if code:
                raise WorkerSetupError(f"no worker process could be started: {_explained(code)}")
            self._channel = Channel(ours)
            self._socket = ours
            self._channel.send(forkserver.START, self._start)
        except BaseException:
            ours.close()
            self._channel = self._socket = None
            raise
        finally:
            theirs.close()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = self._socket = None

    def kill(self, number: int) -> None:
        with self._lock:
            if self._channel is not None:
                with contextlib.suppress(OSError):
                    self._channel.send(forkserver.KILL, number)

    def exit_code(self, number: int) -> int | None:
        deadline = time.monotonic() + STATUS_SECONDS
        while number not in self._codes and (left := deadline - time.monotonic()) > 0:
            if not self._read_codes(min(left, 0.1)):
                break
        return self._codes.pop(number, None)

    def _read_codes(self, seconds: float) -> bool:
        """Reads what the server has said, waiting for the first word. False when it has gone."""
        with self._reading:
            sock, channel = self._socket, self._channel
            while sock is not None and channel is not None:
                try:
                    if not _readable(sock, seconds):
                        return True
                    kind, head, _, _, _ = channel.receive()
                except (OSError, ValueError):
                    return False
                if kind == forkserver.ENDED:
                    self._keep(*head)
                seconds = 0.0
            return False

    def _keep(self, number: int, code: int | None) -> None:
        self._codes[number] = code
        while len(self._codes) > MAX_STATUSES:
            self._codes.pop(next(iter(self._codes)))

    def close(self) -> None:
        with self._lock:
            sock = self._socket
            if sock is None:
                return
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)  # it ends its workers, then itself
            deadline = time.monotonic() + forkserver.GRACE_SECONDS + STATUS_SECONDS
            while self._read_codes(0.1) and time.monotonic() < deadline:
                pass
            self._drop()

    def forget(self) -> None:
        if self._channel is not None:
            self._channel.close_copy()
        self._reset()


class _Forked:
    def __init__(self, server: ForkServer, number: int) -> None:
        self._server = server
        self._number = number

    def kill(self) -> None:
        self._server.kill(self._number)

    def exit_code(self) -> int | None:
        return self._server.exit_code(self._number)


class Spawner:
    """Starts each worker as a child."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()

    def launch(self, theirs: socket.socket) -> Process:
        command = _command(
            "from traced_threadpool.engine.backends.worker import main",
            f"main({theirs.fileno() if sys.platform != 'win32' else None})",
        )
        how: dict[str, Any] = {} if sys.platform == "win32" else {"pass_fds": [theirs.fileno()], "process_group": 0}
        if sys.version_info < (3, 11) and how:
            del how["process_group"]
            how["start_new_session"] = True
        # Its standard input stays open for as long as this process lives, which is how it knows.
        child = subprocess.Popen(command, stdin=subprocess.PIPE, env=self._environment, **how)
        if sys.platform == "win32":
            assert child.stdin is not None
            shared = theirs.share(child.pid)
            child.stdin.write(len(shared).to_bytes(4, "little") + shared)
            child.stdin.flush()
        with self._lock:
            ended = {each for each in self._children if each.poll() is not None}
            self._children = self._children - ended | {child}
        for each in ended:
            _close_stdin(each)
        return _Spawned(child)

    def close(self) -> None:
        with self._lock:
            children, self._children = self._children, set()
        deadline = time.monotonic() + forkserver.GRACE_SECONDS
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _Spawned(child).kill()
                child.wait()
            _close_stdin(child)

    def forget(self) -> None:
        for child in self._children:
            child.returncode = 0  # no child of this process
            if child.stdin is not None:
                os.close(child.stdin.fileno())
        self._lock = threading.Lock()
        self._children = set()


def _close_stdin(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()


class _Spawned:
    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def kill(self) -> None:
        if sys.platform != "win32" and self._child.poll() is None:
            forkserver.kill_group(self._child.pid)
        self._child.kill()

    def exit_code(self) -> int | None:
        try:
            code = self._child.wait(STATUS_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        if code == OTHER_PYTHON:
            raise WorkerSetupError(f"no worker process could be started: {_explained(code)}")
        return code


def _readable(sock: socket.socket, seconds: float) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(seconds * 1_000))
    return bool(select.select([sock], [], [], seconds)[0])
