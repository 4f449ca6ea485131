"""The sampler's life, and the seats of the workers that it looks at. One for a process, whatever the adapters.

With the first node a board is made and a thread of ours, the *keeper*, starts. Once nodes have been running for a
twentieth of a second it starts the sampler and finds the interpreter lock, so that a program with little work starts no
process. While nodes run it probes the interpreter lock; while none does it sleeps; when none has for half a minute, or
the last adapter was closed two seconds ago, it ends the sampler, closes everything, and ends.

What cannot be had here is said once in the log, and in `method`:

>>> REASONS["free_threaded"]
'this interpreter has no global lock, so nothing waits for it'
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import platform
import socket
import struct
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import STORES_IN_ORDER, members, values
from traced_threadpool.waits import protocol, spawn
from traced_threadpool.waits import shared_memory as b
from traced_threadpool.waits.calibrate import Lock, NoCalibration, calibrate, thread_state_address
from traced_threadpool.waits.classify import UnknownArchitecture, table_for
from traced_threadpool.waits.runqueue import RunQueueDelay
from traced_threadpool.waits.spawn import SamplerProcess, is_readable

# Where there is one, it is imported now and by nobody later: a fork in the middle of an import leaves the child with
# a lock on the module that nobody will ever let go of.
with contextlib.suppress(ImportError):
    import ctypes as _ctypes  # noqa: F401  # for its being there

logger = logging.getLogger("traced_threadpool")

DEFAULT_BUDGET: Final = 0.01
"""The share of one processor that the sampler may use."""

WARM_UP_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 30.0
CLOSED_SECONDS: Final = 2.0
RESTART_SECONDS: Final = 60.0
GIL_TRIES: Final = 3
"""How often the interpreter lock is looked for: on processors that are busy with others a try may see too little."""

ANSWER_SECONDS: Final = 0.2
PROBE_SECONDS: Final = 0.05
UNSEEN_SECONDS: Final = 1.0
"""For how long a node may go unseen where two threads need not agree on what came first."""

PROBE_SLACK_NS: Final = 200_000
"""How late a thread wakes up without anybody being at fault: timers are rounded, and wake-ups take a moment."""

MAX_NAMES: Final = 100_000
MAX_DELAY_FILES: Final = 256

REASONS: Final = {
    "warming_up": "nodes have not been running for long enough to start the sampler",
    "unsupported_platform": "threads cannot be looked at on this platform",
    "unknown_architecture": "the numbers of system calls on this processor architecture are not known",
    "subinterpreter": "a subinterpreter may start no process",
    "no_interpreter": "the path of a Python interpreter to run the sampler with is not known",
    "proc_unreadable": "the kernel does not let one process see the system calls of another here",
    "gil_not_found": "the interpreter lock could not be told from other locks, so time waiting for any is in `other`",
    "runqueue_unknown": "how long each worker waited for a processor is not to be had, so it is in `other`",
    "too_many_workers": "there are more workers than can be looked at; the waits of the others are in `other`",
    "free_threaded": "this interpreter has no global lock, so nothing waits for it",
    "no_init": "a sampler would become a child of this program, or stay behind as a zombie, so there is none",
    "is_init": "this program is pid 1, so the sampler is its child; it ends when the program waits for any child",
    "sampler_failed": "the sampler could not be started, or has ended",
}

# A program in which a pipe that breaks is deadly must not die of a sampler that has ended.
_SEND_FLAGS: Final = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

_NO_LOCK: Final = Lock(address=-1)
_ABSENT_LOCK: Final = Lock(address=0)  # an address that nobody waits at


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How the states of a node's time are found out: `process`, or `none`; and what is missing, by `REASONS`.

    Of several reasons the gravest is first, with commas between them.
    """

    method: str
    reason: str | None = None


class Seat:
    """A worker thread's row on the board, and the file with its run-queue delay."""

    __slots__ = (
        "__weakref__",
        "_free",
        "_process",
        "cpu_at_ns",
        "cpu_ns",
        "delay",
        "delay_at_ns",
        "delay_cpu_ns",
        "delay_ns",
        "epoch",
        "looks",
        "row",
        "seen",
        "words",
    )

    def __init__(
        self,
        words: memoryview[int],
        row: int,
        *,
        epoch: int,
        delay: RunQueueDelay | None,
        free: Callable[[int], None],
    ) -> None:
        self.words = words
        self.row = row
        self.epoch = epoch
        self.delay = delay
        self.delay_ns = self.delay_at_ns = self.delay_cpu_ns = 0  # as last read, when, and the processor time then
        self.cpu_ns = self.cpu_at_ns = 0  # likewise, of the thread's processor time at the end of a node
        self.looks = -1  # as last read, with `seen`
        self.seen: list[int] = []
        self._free: Callable[[int], None] | None = free
        self._process = os.getpid()

    def close(self) -> None:
        """Lets go of the board, without a word on it: in a forked child it is the parent's."""
        self._free = None
        self.delay = None  # the last who reads it closes the file: closed under a reader, its number may be another's

    def __del__(self) -> None:  # with the thread, whose local it is
        # A forked child drops the other threads before it calls anybody: their rows are still in use, by the parent.
        if self._free is not None and self._process == os.getpid():
            with contextlib.suppress(ValueError):  # the board is closed
                self.words[self.row + b.STATE] = 0  # another thread's may be at that address next
                self.words[self.row + b.DEPTH] = 0
                self.words[self.row + b.THREAD] = 0
                self._free(self.row)


class Service:
    """See the module.

    Args:
        proc: Where the kernel's `proc` is mounted.
        idle_seconds: How long it stays ready when no node runs.
        closed_seconds: The same once nobody has an open adapter.
    """

    def __init__(
        self,
        *,
        proc: Path = Path("/proc"),
        idle_seconds: float = IDLE_SECONDS,
        closed_seconds: float = CLOSED_SECONDS,
    ) -> None:
        self._proc = proc
        self._idle_seconds = idle_seconds
        self._closed_seconds = closed_seconds
        self._users: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self._names: list[str] = [""]
        self._numbers: dict[str, int] = {}
        self._run_numbers = itertools.count(1)
        self._gil_wait_ns = 0
        self._said: set[str] = set()
        self._unsaid: deque[tuple[str, object]] = deque()
        self.epoch = 0
        self._reset()

    def _reset(self) -> None:
        self.epoch += 1
        self._lock = threading.RLock()  # a garbage collection under it may run anything
        self._asking = threading.Lock()
        self._woken = threading.Event()
        self._keeper: threading.Thread | None = None
        self.keeper_sleeps = False
        self._stopping = False
        self._gil: Lock | None = None
        self._gil_tries = 0
        self._gil_tried_at: float | None = None
        self._failed_at: float | None = None
        self._keeper_failed_at: float | None = None
        self._why_none = _why_none_here()  # a reason, empty while the sampler works
        self._forget()

    def _forget(self) -> None:
        """As before the first node."""
        self._why_none = self._why_none or "warming_up"
        self._lacks: dict[str, None] = {}
        self._seats = threading.local()
        self._all_seats: weakref.WeakSet[Seat] = weakref.WeakSet()
        self._keepers_delay: RunQueueDelay | None = None
        self._free_rows: list[int] = []
        self._board: b.Board | None = None
        self._memory = -1
        self._channel: socket.socket | None = None
        self._process: SamplerProcess | None = None
        self._unanswered = False

    @property
    def method(self) -> Method:
        """At this moment."""
        reasons = [self._why_none] if self._why_none else []
        if not _has_gil():
            reasons.append("free_threaded")
        reasons.extend(self._lacks)
        return Method(method="none" if self._why_none else "process", reason=",".join(reasons) or None)

    # Who uses it

    def join(self, user: object, budget: float) -> None:
        """Somebody whose nodes are to be looked at. Of several budgets the least counts."""
        with self._lock:
            self._users[user] = budget
            self._set_budget()

    def leave(self, user: object) -> None:
        with self._lock:
            self._users.pop(user, None)
            self._set_budget()
        self._woken.set()

    def _set_budget(self) -> None:
        if self._board is not None:
            share = min(values(self._users), default=DEFAULT_BUDGET)
            self._board.words[b.BUDGET_PPM] = max(1, round(share * 1e6))

    # What workers need

    def seat(self) -> Seat | None:
        """The calling thread's; None for one too many."""
        try:
            seat: Seat = self._seats.seat
            if seat.epoch == self.epoch:
                return seat
        except AttributeError:  # none yet, or none to be had
            pass
        with self._lock:
            self._seats.seat = new = self._new_seat()
        self._say_what_is_new()
        return new

    def _new_seat(self) -> Seat | None:
        if self._keeper is None and not self._start_keeper():
            return None
        assert self._board is not None
        words = self._board.words
        if self._free_rows:
            row = self._free_rows.pop()
        elif words[b.ROWS] < b.MAX_WORKERS:
            words[b.ROWS] += 1
            row = b.ROW * words[b.ROWS]
        else:
            self._lack("too_many_workers")
            return None
        thread = threading.get_native_id()
        words[row + b.GENERATION] += 1
        words[row + b.DEPTH] = 0
        words[row + b.STATE] = _thread_state()
        words[row + b.THREAD] = thread
        delay = self._delay_of(thread) if len(self._all_seats) < MAX_DELAY_FILES else None
        if delay is None and self._why_none != "unsupported_platform":
            self._lack("runqueue_unknown")
        seat = Seat(words, row, epoch=self.epoch, delay=delay, free=self._free_rows.append)
        self._all_seats.add(seat)
        words[b.SEATING] += 1  # when all the rest is there
        return seat

    def _delay_of(self, thread: int) -> RunQueueDelay | None:
        try:
            return RunQueueDelay(self._proc, thread)
        except OSError:
            return None

    def wake_sampler(self) -> None:
        """It is parked, and a node starts."""
        channel = self._channel
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.send(protocol.WAKE, _SEND_FLAGS)

    def wake_keeper(self) -> None:
        """It sleeps, and a node starts."""
        self._woken.set()

    def number_of(self, name: str) -> int:
        """A number that stands for a node's name on the board; 0 for one name too many."""
        number = self._numbers.get(name)
        if number is None:
            with self._lock:
                number = self._numbers.get(name)
                if number is None:
                    if len(self._names) >= MAX_NAMES:
                        return 0
                    number = self._numbers[name] = len(self._names)
                    self._names.append(name)
        return number

    def next_run_number(self) -> int:
        return next(self._run_numbers)

    # What reports need

    @property
    def gil_wait_seconds(self) -> float:
        """How long the probe has waited for the interpreter lock, since the process began."""
        return self._gil_wait_ns / 1e9

    @property
    def gil_address(self) -> int | None:
        """Where the GIL is in memory, None as long as that has not been found out."""
        return None if self._gil is None or self._gil.address <= 0 else self._gil.address

    def stolen(self) -> tuple[int, int]:
        """Processor time that a hypervisor took away, and all of it, in ticks so far; up to a second old."""
        with contextlib.suppress(AttributeError, ValueError):  # no board, or no longer
            words = self._board.words  # type: ignore[union-attr]
            return words[b.STEAL], words[b.TICKS]
        return 0, 0

    @property
    def sampler_cpu_seconds(self) -> float:
        """What the sampler that runs now has cost."""
        with contextlib.suppress(AttributeError, ValueError):
            return self._board.words[b.CPU_NS] / 1e9  # type: ignore[union-attr]
        return 0.0

    def holders(self, run_number: int) -> dict[str, int]:
        """Who held the interpreter lock while nodes of a run waited for it, and nanoseconds of waiting caused.

        Who: a node's name; outside of nodes `thread:` and the thread's. Waits for the sampler's answer, and each run
        can be asked for once.
        """
        with self._asking:
            answer = self._ask(run_number)
        threads = {thread.ident: thread.name for thread in threading.enumerate()}
        named: dict[str, int] = {}
        for item in answer:
            who, _, caused_ns = item.partition("=")
            if who[0] == "n":
                name = self._names[int(who[1:])] or "_other"
            else:
                name = "thread:" + threads.get(int(who[1:]), "unknown")
            named[name] = named.get(name, 0) + int(caused_ns)
        return named

    def _ask(self, run_number: int) -> list[str]:
        channel = self._channel
        if channel is None:
            return []
        try:
            channel.send(protocol.HOLDERS + str(run_number).encode(), _SEND_FLAGS)
            # One that has not answered before, because it was stopped, holds up no further run until it does.
            deadline = time.monotonic() + (0.0 if self._unanswered else ANSWER_SECONDS)
            while is_readable(channel, deadline - time.monotonic()):
                self._unanswered = False
                number, *held = channel.recv(65_536).decode().split()
                if number == str(run_number):
                    return held
                deadline = time.monotonic() + ANSWER_SECONDS  # that was the answer to a question given up
            self._unanswered = True
        except (OSError, ValueError):  # it has gone
            pass
        return []

    # The keeper

    def _start_keeper(self) -> bool:
        if self._stopping or _is_recent(self._keeper_failed_at):
            return False
        if self._why_none not in ("warming_up", "sampler_failed"):
            self._unsaid.append((self._why_none, None))
        if self._why_none == "subinterpreter":
            return False  # it could not be ended while a thread of ours is in it, and would take the process along
        if not _has_gil():
            self._unsaid.append(("free_threaded", None))
        try:
            self._memory = b.make_memory()
            self._board = b.Board(self._memory)
            self._set_budget()
            self._woken.clear()
            self._keeper = threading.Thread(target=self._keep, name="traced-threadpool-waits", daemon=True)
            self._keeper.start()
        except (OSError, RuntimeError) as error:  # no descriptor or no thread to be had
            self._close()
            self._keeper_failed_at = time.monotonic()
            self._fail("sampler_failed", error)
            return False
        self._keeper_failed_at = None
        return True

    def _keep(self) -> None:
        try:
            process = self._watch()
        except Exception as error:  # nodes go on without
            with self._lock:
                process = self._close()
                self._fail("sampler_failed", error)
            self._say_what_is_new()
        if process is not None:
            process.end()

    def _watch(self) -> SamplerProcess | None:
        """Until nothing has been left to do for long enough; returns the sampler that is to end."""
        self._keepers_delay = self._delay_of(threading.get_native_id())
        active_seconds, idle_since = 0.0, time.monotonic()
        active = True  # somebody is about to start a node, or we would not be here
        while True:
            self._say_what_is_new()
            if self._stopping:
                with self._lock:
                    return self._close()
            if active or self._is_active():
                before = time.monotonic()
                self._probe()
                active, idle_since = False, time.monotonic()
                if self._is_active():
                    active_seconds += idle_since - before
                if self._process is not None and self._process.has_ended():
                    self._lose_sampler()
                elif self._process is None and active_seconds >= WARM_UP_SECONDS and self._is_active():
                    self._start_sampler()
                elif self._process is not None and self._is_gil_worth_another_try():
                    self._part_from_sampler("warming_up").end()
                    self._start_sampler()
                continue
            idle = time.monotonic() - idle_since
            limit = self._idle_seconds if self._users else self._closed_seconds
            if idle >= limit:
                with self._lock:
                    if not self._is_active():
                        return self._close()
            if idle < 2 * PROBE_SECONDS:
                time.sleep(PROBE_SECONDS)  # the next node is often near, and to wake us would cost it
                continue
            self.keeper_sleeps = True
            if not self._is_active() and not self._stopping:
                # The worker says that it is in a node before it looks whether we sleep.
                self._woken.wait(max(0.0, limit - idle if STORES_IN_ORDER else min(limit - idle, UNSEEN_SECONDS)))
            self.keeper_sleeps = False
            self._woken.clear()

    def _is_active(self) -> bool:
        assert self._board is not None
        words = self._board.words
        return any(words[b.ROW + b.DEPTH : b.ROW * (1 + words[b.ROWS]) : b.ROW])

    def _probe(self) -> None:
        """Sleeps, and takes what it wakes up too late by, for no want of a processor, as a wait for the lock."""
        delay = self._keepers_delay
        delay_ns = delay.read_ns() if delay else 0
        before_ns = time.monotonic_ns()
        time.sleep(PROBE_SECONDS)
        late_ns = time.monotonic_ns() - before_ns - int(PROBE_SECONDS * 1e9) - PROBE_SLACK_NS
        if delay:
            late_ns -= delay.read_ns() - delay_ns
        if late_ns > 0 and _has_gil():
            self._gil_wait_ns += late_ns

    def _start_sampler(self) -> None:
        if self._why_none not in ("warming_up", "sampler_failed") or _is_recent(self._failed_at):
            return
        interpreter = spawn.interpreter()
        if interpreter is None:
            self._fail("no_interpreter")
            return
        no_init = spawn.why_not_an_orphan()
        if no_init is not None:
            self._fail("no_init", no_init)
            return
        machine, pointer_bytes = platform.machine(), struct.calcsize("P")
        try:
            table_for(machine, pointer_bytes)
        except UnknownArchitecture as error:
            self._fail("unknown_architecture", error)
            return
        try:
            process, channel = spawn.spawn(interpreter, self._memory)
        except (OSError, NotImplementedError, AttributeError) as error:  # as the C library has `posix_spawn`
            self._fail("sampler_failed", error)
            return
        gil, not_found = self._find_gil()  # while the other process comes up
        try:
            channel.send(
                "\n".join(
                    (
                        str(os.getpid()),
                        str(pointer_bytes),
                        str(gil.address),
                        str(-1 if gil.holder_address is None else gil.holder_address),
                        str(-1 if gil.ident_offset is None else gil.ident_offset),
                        machine,
                        str(self._proc),
                    )
                ).encode(),
                socket.MSG_NOSIGNAL,
            )
            refused = spawn.greeted(channel, process.pid)
        except OSError as error:
            refused = "sampler_failed", str(error)
        if refused is not None:
            channel.close()
            process.end()
            self._fail(*refused)
            return
        with self._lock:
            self._channel, self._process = channel, process
            self._why_none, self._failed_at = "", None
            self._unanswered = False
            self._lacks.pop("gil_not_found", None)
            if os.getpid() == 1:
                self._lack("is_init")
            if not_found is not None:
                self._lack("gil_not_found", not_found)

    def _find_gil(self) -> tuple[Lock, str | None]:
        """Where the interpreter lock is, or why that is not known. Once found, it stays there."""
        if not _has_gil():
            return _ABSENT_LOCK, None
        if self._gil is None:
            self._gil_tries += 1
            self._gil_tried_at = time.monotonic()
            try:
                self._gil = calibrate(proc=self._proc)
            except (NoCalibration, RuntimeError) as error:  # no second thread to be had
                return _NO_LOCK, str(error)
        return self._gil, None

    def _is_gil_worth_another_try(self) -> bool:
        return "gil_not_found" in self._lacks and self._gil_tries < GIL_TRIES and not _is_recent(self._gil_tried_at)

    def _part_from_sampler(self, reason: str) -> SamplerProcess:
        """States are not sampled from now on, because of this. Returns the process, which ends by itself."""
        process = self._process
        assert process is not None
        with self._asking, self._lock:
            if self._channel is not None:
                self._channel.close()
            self._channel = self._process = None
            self._why_none = reason
        return process

    def _lose_sampler(self) -> None:
        self._part_from_sampler("sampler_failed").close()
        self._fail("sampler_failed" if self._lacks.pop("is_init", 1) else "is_init")

    def _fail(self, reason: str, error: object = None) -> None:
        """From now on states are not sampled, because of this."""
        if reason == "sampler_failed":
            self._failed_at = time.monotonic()
        self._why_none = reason
        self._unsaid.append((reason, error))

    def _lack(self, reason: str, error: object = None) -> None:
        """States are sampled, but not all, or not of all."""
        if reason not in self._lacks:
            self._lacks[reason] = None
            self._unsaid.append((reason, error))

    def _say_what_is_new(self) -> None:
        """Outside of the lock: a log's handlers may do anything."""
        while self._unsaid:
            try:
                reason, error = self._unsaid.popleft()
            except IndexError:  # somebody else says it
                return
            if reason not in self._said:
                self._said.add(reason)
                detail = "" if error is None else f" ({error})"
                logger.info("where nodes wait is not fully known: %s%s", REASONS[reason], detail)

    def _close(self) -> SamplerProcess | None:
        """Lets go of everything; returns the sampler, which ends now that its channel is closed. Under the lock.

        The board goes with the last seat: a worker may be about to write on it.
        """
        process, channel, memory = self._process, self._channel, self._memory
        self.epoch += 1
        for seat in members(self._all_seats):
            seat.close()
        if self._keepers_delay is not None:
            self._keepers_delay.close()  # a forked child has the file, and not the thread
        self._forget()
        self._keeper = None
        if channel is not None:
            channel.close()
        if memory >= 0:
            os.close(memory)
        return process

    def stop(self) -> None:
        """Ends what is there, at the interpreter's exit."""
        self._stopping = True
        self._woken.set()
        keeper = self._keeper
        if keeper is not None:
            keeper.join(2.0)

    def reset_after_fork(self) -> None:
        """For a forked child, which has neither the keeper nor a sampler, and must not write on its parent's board."""
        board = self._board
        self._all_seats = forks.kept_in_child(self._all_seats, weakref.WeakSet())
        with contextlib.suppress(OSError):
            process = self._close()
            if process is not None:
                process.close()
        if board is not None:
            board.close()  # threads that do not exist here may hold it
        self._users = forks.kept_in_child(self._users, weakref.WeakKeyDictionary())
        self._said = forks.kept_in_child(self._said, set())
        self._unsaid = deque()
        self._names, self._numbers = [""], {}
        self._run_numbers = itertools.count(1)
        self._reset()


def _why_none_here() -> str:
    if not sys.platform.startswith("linux") or not hasattr(os, "memfd_create"):
        return "unsupported_platform"
    return "subinterpreter" if _in_subinterpreter() else "warming_up"


def _is_recent(failed_at: float | None) -> bool:
    return failed_at is not None and time.monotonic() - failed_at < RESTART_SECONDS


def _has_gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _in_subinterpreter() -> bool:
    for module in ("_interpreters", "_xxsubinterpreters"):  # from 3.13, and before
        try:
            interpreters = __import__(module)
            return int(_id_of(interpreters.get_current())) != int(_id_of(interpreters.get_main()))
        except ImportError:
            continue
    return False


def _id_of(interpreter: Any) -> Any:
    return interpreter[0] if isinstance(interpreter, tuple) else interpreter


def _thread_state() -> int:
    """The address of the calling thread's state in the interpreter, 0 where that is not to be had."""
    try:
        return thread_state_address()
    except NoCalibration:
        return 0


service: Final = Service()
"""The process's own."""

atexit.register(service.stop)
forks.register(service.reset_after_fork)
