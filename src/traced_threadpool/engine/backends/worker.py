"""A worker process: takes calls from a channel, one after the other, until there are no more.

What nodes print and log goes to the driver, which handles it as its own. Between calls, when the driver does not
listen, it goes where this process's `stdout` and `stderr` go.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pickle import PickleError
from typing import Any, Final

from traced_threadpool.engine.backends import remote_call, worker_stack
from traced_threadpool.engine.backends.channel import Channel, Closed
from traced_threadpool.engine.backends.pickling import pickler_class, plain
from traced_threadpool.engine.backends.sampled import InFunction

# Kinds of messages. To the worker:
SETUP: Final = 1
CALL: Final = 2
SAMPLED: Final = 9
# From it:
READY: Final = 3
SETUP_FAILED: Final = 4
RESULT: Final = 5
LOG: Final = 6
PRINTED: Final = 7
LEAVING: Final = 8

_PLAIN: Final = (str, int, float, bool, type(None))
_LOG_FIELDS: Final = frozenset(vars(logging.makeLogRecord({})))


@dataclass(frozen=True, slots=True)
class Setup:
    """How a worker is made ready. Its initializer comes beside it, pickled."""

    versions: Mapping[str, str]
    path: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str | None
    preload: tuple[str, ...]
    log_levels: Mapping[str, int]
    idle_seconds: float
    max_tasks: int | None


def serve(channel: Channel) -> None:
    """Takes calls until the driver goes, tells it to, or has not called for its idle time."""
    try:
        kind, setup, pickled, _, _ = channel.receive()
        assert kind == SETUP
        forwarder = _Forwarder(channel)
        in_function = InFunction()
        _close_in_forks(channel, forwarder, in_function)
        ready = _prepare(setup, pickled, forwarder)
        channel.send(*ready)
        if ready[0] == READY:
            _take_calls(channel, setup, forwarder, in_function)
    except Closed:
        return


def _prepare(setup: Setup, pickled: Any, forwarder: _Forwarder) -> tuple[Any, ...]:
    """What to answer to the driver: ready, or why not."""
    mine = dict(remote_call.VERSIONS)
    if mine != setup.versions:
        found = ", ".join(f"{name} {version}" for name, version in mine.items())
        wanted = ", ".join(f"{name} {version}" for name, version in setup.versions.items())
        return SETUP_FAILED, f"it has {found}, and the program {wanted}"
    sys.path[:] = setup.path
    os.environ.clear()
    os.environ.update(setup.environment)
    if setup.directory is not None:
        with contextlib.suppress(OSError):
            os.chdir(setup.directory)
    forwarder.install(setup.log_levels)
    try:
        for module in setup.preload:
            import_module(module)
        pickler_class()
        if pickled is not None:
            initializer, arguments = pickled.load()
            with forwarder.listening():
                initializer(*arguments)
    except BaseException as error:
        answer, described = remote_call.packed(error)
        return SETUP_FAILED, described, answer
    return READY, (os.getpid(), worker_stack.offer())


def _take_calls(channel: Channel, setup: Setup, forwarder: _Forwarder, in_function: InFunction) -> None:
    left = setup.max_tasks
    while _arrives(channel, setup.idle_seconds):
        kind, request, call, passed, _ = channel.receive()
        received_ns = time.monotonic_ns()
        if kind == SAMPLED and passed:
            in_function.use(request, passed[0])
            continue
        if kind != CALL or call is None:
            return
        if left is not None:
            left -= 1
        with forwarder.listening(request.log_level):
            report, answer = remote_call.perform(request, call, received_ns, in_function)
        del request, call  # not kept until the next call comes
        channel.send(RESULT, (report, left == 0), answer)
        del report, answer
        if left == 0:
            return
    # From here on nothing is read: a call that is on its way finds this answer, and is sent to another worker.
    channel.send(LEAVING, None)


def _arrives(channel: Channel, seconds: float) -> bool:
    """Whether anything comes, or the driver goes, within this time."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1_000))
    return bool(select.select([channel.fileno()], [], [], seconds)[0])


# What is logged and printed


class _Forwarder(logging.Handler):
    """Sends log records and printed text to the driver, while it listens."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._listens = False
        self._streams: list[_Stream] = []

    def install(self, levels: Mapping[str, int]) -> None:
        root = logging.getLogger()
        for handler in root.handlers[:]:
            root.removeHandler(handler)  # of modules that were loaded beforehand
        root.addHandler(self)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in ("stdout", "stderr"):
            stream = _Stream(self, name, getattr(sys, f"__{name}__"))
            self._streams.append(stream)
            setattr(sys, name, stream)

    @contextlib.contextmanager
    def listening(self, log_level: int | None = None) -> Any:
        """The driver reads what comes, until the answer."""
        if log_level is not None and logging.root.level != log_level:
            logging.root.setLevel(log_level)
        self._listens = True
        try:
            yield
        finally:
            for stream in self._streams:
                stream.flush()
            self._listens = False

    def emit(self, record: logging.LogRecord) -> None:
        if not (self._listens and self._send(LOG, _fields_of(record))) and sys.__stderr__ is not None:
            sys.__stderr__.write(self.format(record) + "\n")

    def printed(self, name: str, text: str) -> bool:
        return self._listens and self._send(PRINTED, (name, text))

    def stop(self) -> None:
        self._listens = False

    def _send(self, kind: int, head: object) -> bool:
        try:
            self._channel.send(kind, head)
        except (OSError, PickleError):
            return False
        return True


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """A record as plain values: its message is formatted here, where its arguments are."""
    fields = {name: value for name, value in vars(record).items() if type(value) in _PLAIN}
    fields["msg"], fields["args"] = plain(record.getMessage()), None
    if record.exc_info:
        fields["exc_text"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
    fields["exc_info"] = None
    return fields


class _Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a worker. Sends whole lines; the rest at the end of a node."""

    def __init__(self, forwarder: _Forwarder, name: str, original: Any) -> None:
        self._forwarder = forwarder
        self._name = name
        self._original = original
        self._text = threading.local()  # a thread's lines are its own

    def write(self, text: str) -> int:
        pending = getattr(self._text, "pending", "") + plain(text)
        whole, newline, rest = pending.rpartition("\n")
        self._text.pending = rest
        if newline:
            self._put(whole + newline)
        return len(text)

    def flush(self) -> None:
        pending = getattr(self._text, "pending", "")
        self._text.pending = ""
        if pending:
            self._put(pending)
        if self._original is not None:
            self._original.flush()

    def _put(self, text: str) -> None:
        if not self._forwarder.printed(self._name, text) and self._original is not None:
            self._original.write(text)
            self._original.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._original is None:
            raise io.UnsupportedOperation("fileno")
        return self._original.fileno()  # type: ignore[no-any-return]  # whatever file it is

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute there
        return "utf-8"

    @property
    def buffer(self) -> Any:
        return self._original.buffer


# The process


def _close_in_forks(channel: Channel, forwarder: _Forwarder, in_function: InFunction) -> None:
    """A process that a node forks is no worker: the driver must see this one end, whatever lives on."""

    def in_child() -> None:
        forwarder.stop()
        channel.close_copy()
        in_function.forget()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child)


def leave_signals_alone() -> None:
    """Ctrl-C is for the driver, which ends its workers. Programs that nodes start have the default again."""
    signal.signal(signal.SIGINT, _ignore)


def _ignore(number: int, frame: object) -> None:
    pass


def run(sock: socket.socket, *, watch: Callable[[], object] | None = None) -> None:
    """The whole life of a worker process. Does not return.

    Args:
        sock: The worker's end of the connection.
        watch: Returns when the driver has gone: called on a thread of its own, where nothing else ends this process.
    """
    code = 1
    try:
        leave_signals_alone()
        if watch is not None:
            threading.Thread(
                target=_end_after, args=(watch,), daemon=True, name="traced_threadpool-driver-watch"
            ).start()
        serve(Channel(sock))
        code = 0
    except BaseException:
        logging.getLogger("traced_threadpool").exception("a worker process failed outside of nodes")
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # as at an interpreter's end: waits for threads
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # what initializers registered, such as the flush of a tracer provider
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(Exception):
                stream.flush()  # type: ignore[union-attr]  # None is suppressed as well
        os._exit(code)


def main(descriptor: int | None) -> None:
    """A worker that is a fresh interpreter. It ends when its standard input does, which is held by the driver."""
    stdin = os.dup(0)
    with open(os.devnull) as nothing:  # noqa: PTH123  # nodes have nothing to read
        os.dup2(nothing.fileno(), 0)
    if sys.platform == "win32":
        size = int.from_bytes(_read_exactly(stdin, 4), "little")
        sock = socket.fromshare(_read_exactly(stdin, size))
    else:
        assert descriptor is not None
        sock = socket.socket(fileno=descriptor)
    run(sock, watch=lambda: os.read(stdin, 1))


def _read_exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(descriptor, size - len(data))
        if not part:
            os._exit(1)  # the driver has gone already
        data += part
    return data


def _end_after(watch: Callable[[], object]) -> None:
    watch()
    os._exit(1)
