"""The sampler's process: started so that it is no child of this program, watched, and ended.

A program may wait for *any* child until it has none left. With the sampler among them it would wait for as long as that
lives. So a process in between starts the sampler and ends at once. What is left is an orphan, which pid 1 adopts.

The process in between should not be seen either. With glibc on x86-64 it is a `clone` that sends no signal when it
ends: `wait` overlooks such a child, and no SIGCHLD comes. It shares the memory of this program, as that of any
`posix_spawn` does, and runs nothing but `posix_spawn` and `_exit`. It is there for less than a millisecond, in which
no Python code runs here. Elsewhere it is a Python that forks the sampler: a child for some 20 ms.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, Final

from traced_threadpool.waits import protocol, sampler_process

START_SECONDS: Final = 5.0
END_SECONDS: Final = 1.0

MAX_ABANDONED: Final = 16
"""So many ended samplers may wait for pid 1 to collect them, before no other is started. Some inits are slow at it."""

PR_SET_PTRACER: Final = 0x59616D61
PR_GET_CHILD_SUBREAPER: Final = 37

# The sampler's own modules alone: the package itself would import Hamilton and OpenTelemetry.
_PROGRAM: Final = (
    "import sys, types; package = types.ModuleType('traced_threadpool'); "
    f"package.__path__ = [{str(Path(__file__).parent.parent)!r}]; sys.modules['traced_threadpool'] = package; "
    "from traced_threadpool.waits.sampler_process import main; main({})"
)

_DEFAULT_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE")


class SamplerProcess:
    """A process that is nobody's here: its end is seen by a descriptor, where the kernel has such (Linux 5.3)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._has_ended = False
        self._descriptor = -1
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(pid)

    def has_ended(self) -> bool:
        if not self._has_ended:
            if self._descriptor < 0:
                self._has_ended = not sampler_process.exists(self.pid)
            elif is_readable(self._descriptor, 0.0):
                self._has_ended = True
                with contextlib.suppress(OSError):  # it is our child only where we are pid 1
                    os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
        return self._has_ended

    def end(self) -> None:
        """Waits for the end that its closed channel means; not for long."""
        deadline = time.monotonic() + END_SECONDS
        while not self.has_ended():
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                deadline += END_SECONDS
            time.sleep(0.005)
        self.close()

    def close(self) -> None:
        """Lets go of it, whatever it does."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def interpreter() -> str | None:
    """A Python of this version; None inside a program that merely embeds one."""
    if getattr(sys, "frozen", False):
        return None
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.executable or ""), Path(sys.base_prefix, "bin", name)):
        if path.name.startswith("python") and os.access(path, os.X_OK):
            return str(path)
    return None


def why_not_an_orphan(proc: Path = Path("/proc")) -> str | None:
    """Why an orphan would come back to this program, or stay behind as a zombie; None where neither is so."""
    if _is_subreaper():
        return "this program is a subreaper: orphaned processes become its children"
    abandoned = 0
    with contextlib.suppress(OSError):
        for pid in (proc / "1" / "task" / "1" / "children").read_bytes().split():
            folder = proc / pid.decode()
            with contextlib.suppress(OSError):
                if (folder / "comm").read_bytes() == protocol.COMM:
                    abandoned += (folder / "stat").read_bytes().rpartition(b") ")[2].startswith(b"Z")
    if abandoned > MAX_ABANDONED:
        return f"pid 1 does not collect the processes that it adopts: {abandoned} ended samplers are left"
    return None


def _is_subreaper() -> bool:
    try:
        import ctypes

        found = ctypes.c_int(0)
        return ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0) == 0 and found.value != 0
    except (ImportError, OSError, AttributeError):
        return False  # the sampler itself sees whose child it is


def spawn(interpreter: str, memory: int) -> tuple[SamplerProcess, socket.socket]:
    """Starts the sampler with the shared memory; what else it must know goes over the channel.

    In few steps, for each that releases the GIL can wait long to get it back. `posix_spawn` keeps it.

    Raises:
        OSError: No process can be started.
    """
    import fcntl  # not on Windows

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    copies: list[int] = []
    try:
        with theirs:
            # Above the numbers that they get there, else one could take the other's place.
            for each in (memory, theirs.fileno()):
                copies += [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, protocol.CHANNEL + 1)]
            try:
                pid = _Unseen().spawn(interpreter, copies)
            except (ImportError, AttributeError, OSError):
                pid = _spawn_by_fork(interpreter, copies, ours)
    except BaseException:
        ours.close()
        raise
    finally:
        for descriptor in copies:
            os.close(descriptor)
    return SamplerProcess(pid), ours


def _arguments(interpreter: str, *, fork: bool) -> list[str]:
    return [interpreter, "-I", "-S", "-c", _PROGRAM.format(f"{fork=}")]


def _spawn_by_fork(interpreter: str, copies: list[int], channel: socket.socket) -> int:
    """The Python that is started forks the sampler, says its pid, and ends."""
    between = os.posix_spawn(
        interpreter,
        _arguments(interpreter, fork=True),
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
            (os.POSIX_SPAWN_DUP2, copies[0], protocol.MEMORY),
            (os.POSIX_SPAWN_DUP2, copies[1], protocol.CHANNEL),
        ],
        setsid=True,  # Ctrl-C is not meant for it
        setsigmask=(),
        setsigdef=[getattr(signal, name) for name in _DEFAULT_SIGNALS],
    )
    said = is_readable(channel, START_SECONDS)
    with contextlib.suppress(OSError):
        if not said:
            os.kill(between, signal.SIGKILL)
        os.waitpid(between, 0)  # unless the program, which may wait for any child, was first
    try:
        return int(channel.recv(64)) if said else _fail_to_start()
    except ValueError:
        return _fail_to_start()


def _fail_to_start() -> int:
    raise OSError("the sampler's process could not be started")


class _Unseen:
    """`posix_spawn` in a process that `wait` overlooks, for glibc on x86-64.

    `clone` runs one function with one argument; `setcontext` is such a function, and goes on with any other one, as
    `makecontext` has prepared it, and with the next one after that.

    Raises:
        ImportError, AttributeError, OSError: Not here.
    """

    CLONE_VM, CLONE_VFORK, CLONE_PARENT_SETTID, WALL = 0x100, 0x4000, 0x100000, 0x40000000
    SET_SIGDEF, SET_SIGMASK, SET_SID = 0x04, 0x08, 0x80
    NOBODY = (1 << 31) - 1  # above all pids: to wait for it fails

    def __init__(self) -> None:
        import ctypes

        if platform.machine() != "x86_64" or struct.calcsize("P") != 8:
            raise OSError("not tried on this CPU architecture")
        self._c = ctypes
        self._library = ctypes.PyDLL(None)  # calls that keep the GIL
        self._kept: list[Any] = []

    def spawn(self, interpreter: str, copies: list[int]) -> int:
        c, library = self._c, self._library
        pid, between = c.c_int(0), c.c_int(self.NOBODY)
        attributes, actions = self._block(1_024), self._block(512)
        self._check(library.posix_spawnattr_init(attributes))
        self._check(library.posix_spawn_file_actions_init(actions))
        # Signals wait while two processes have one memory, for Python's handlers write in it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._fill(attributes, actions, copies)
            last = self._context(0, "_exit", c.c_void_p(0))
            first = self._context(
                c.addressof(last),
                "posix_spawn",
                c.byref(pid),
                self._kept_here(c.create_string_buffer(os.fsencode(interpreter))),
                actions,
                attributes,
                self._strings(os.fsencode(each) for each in _arguments(interpreter, fork=False)),
                self._strings(name + b"=" + value for name, value in os.environb.items()),
            )
            stack = self._block(32_768)
            flags = self.CLONE_VM | self.CLONE_VFORK | self.CLONE_PARENT_SETTID  # and no signal
            top = c.c_void_p(c.addressof(stack) + len(stack))
            calls = (
                partial(library.clone, self._function("setcontext"), top, flags, first, c.byref(between)),
                partial(library.waitpid, between, None, self.WALL),
            )
            deque(map(partial.__call__, calls), maxlen=0)  # in one go: the GIL is kept in between
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            library.posix_spawnattr_destroy(attributes)
            library.posix_spawn_file_actions_destroy(actions)
        if pid.value <= 0:
            raise OSError("a process in between could not be started")
        return int(pid.value)

    def _fill(self, attributes: Any, actions: Any, copies: list[int]) -> None:
        c, library = self._c, self._library
        signals = self._block(128)
        library.sigemptyset(signals)
        self._check(library.posix_spawnattr_setsigmask(attributes, signals))
        for name in _DEFAULT_SIGNALS:
            library.sigaddset(signals, int(getattr(signal, name)))
        self._check(library.posix_spawnattr_setsigdefault(attributes, signals))
        flags = self.SET_SIGDEF | self.SET_SIGMASK | self.SET_SID  # Ctrl-C is not meant for it
        self._check(library.posix_spawnattr_setflags(attributes, c.c_short(flags)))
        null = os.fsencode(os.devnull)
        self._check(library.posix_spawn_file_actions_addopen(actions, 0, null, os.O_RDWR, 0))
        for one, other in ((0, 1), (0, 2), (copies[0], protocol.MEMORY), (copies[1], protocol.CHANNEL)):
            self._check(library.posix_spawn_file_actions_adddup2(actions, one, other))

    def _context(self, then: int, name: str, *arguments: Any) -> Any:
        """A `ucontext_t` that calls a function, and then goes on with another one."""
        c = self._c
        context, stack = self._block(4_096), self._block(65_536)
        self._check(self._library.getcontext(context))
        fields = (c.c_uint64 * 5).from_buffer(context)  # flags, link, and the stack's address, flags and size
        fields[1], fields[2], fields[4] = then, c.addressof(stack), len(stack)
        self._library.makecontext(context, self._function(name), len(arguments), *arguments)
        return context

    def _function(self, name: str) -> Any:
        return self._c.cast(getattr(self._library, name), self._c.c_void_p)

    def _strings(self, strings: Any) -> Any:
        each = [self._kept_here(self._c.create_string_buffer(string)) for string in strings]
        addresses = (self._c.c_void_p * (len(each) + 1))(*map(self._c.addressof, each), None)
        return self._kept_here(addresses)

    def _block(self, size: int) -> Any:
        """Zeroed memory at a multiple of 16."""
        c = self._c
        whole = self._kept_here(c.create_string_buffer(size + 16))
        return (c.c_char * size).from_buffer(whole, -c.addressof(whole) % 16)

    def _kept_here(self, memory: Any) -> Any:
        self._kept.append(memory)
        return memory

    def _check(self, error: int) -> None:
        if error:
            raise OSError(error, os.strerror(error))


def is_readable(descriptor: socket.socket | int, seconds: float) -> bool:
    """Whether it is within that time. Not by `select`, which knows no descriptor above 1,023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds * 1000)))


def greeted(channel: socket.socket, pid: int) -> tuple[tuple[str, str] | None, bool]:
    """Waits for the sampler's first words. Returns why it cannot work, if it cannot: a reason, and a detail; and
    whether it had to be let to trace this process.
    """
    asked_again = False
    while is_readable(channel, START_SECONDS):
        said = channel.recv(1024)
        if said[:1] == protocol.READY:
            return None, asked_again
        detail = said[1:].decode(errors="replace")
        if said[:1] == protocol.ORPHANED:
            return ("no_init", "orphaned processes become children of this program"), False
        if said[:1] != protocol.REFUSED:
            return ("sampler_failed", "it ended at once"), False
        if asked_again or not _let_trace(pid):
            return ("proc_unreadable", detail), False
        asked_again = True
        channel.send(protocol.AGAIN, socket.MSG_NOSIGNAL)
    return ("sampler_failed", f"it did not answer for {START_SECONDS:.0f} s"), False


def _let_trace(pid: int) -> bool:
    """Yama lets a process be read by its ancestors, and by one that it names."""
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(PR_SET_PTRACER, pid, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False
