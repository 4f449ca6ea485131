"""The life of all that samples waits: the shared memory, the sampler's process, and a thread that watches over both.

One for a process, whatever the adapters. With the first node memory is made and the thread starts. Once nodes have been
running for a twentieth of a second it finds the GIL and starts the sampler, so that a program with little work starts
no process. While nodes run it probes the GIL; while none does it sleeps. When none has for half a minute, or the last
adapter was closed two seconds ago, it ends the sampler, closes everything, and ends.

To start a sampler takes 16 ms of CPU time and 25 to 65 ms until it samples, in which waits are `other`: hence half a
minute, so that a program with a run every few seconds keeps its own.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import STORES_IN_ORDER, members, values
from traced_threadpool.model.lock_backoff import Event, ObserverLock, release_owned
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.calibrate import Lock, NoCalibration, calibrate
from traced_threadpool.waits.far_row import FarRow, have_let_trace
from traced_threadpool.waits.gil_probe import PROBE_SECONDS, GilProbe
from traced_threadpool.waits.lock_names import LockNames
from traced_threadpool.waits.reasons import Method, Notices, has_gil, why_unsupported
from traced_threadpool.waits.runqueue import RunQueueDelay
from traced_threadpool.waits.sampler_client import CannotSample, SamplerClient, start_sampler
from traced_threadpool.waits.worker_rows import NodeNumbers, WorkerRow, WorkerRows, delay_of

# Where there is one, it is imported now and by nobody later: a fork in the middle of an import leaves the child with
# a lock on the module that nobody will ever let go of.
with contextlib.suppress(ImportError):
    import ctypes as _ctypes  # noqa: F401  # for its being there

DEFAULT_BUDGET: Final = 0.01
"""The share of one CPU that the sampler may use."""

WARM_UP_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 30.0
CLOSED_SECONDS: Final = 2.0
RESTART_SECONDS: Final = 60.0
GIL_TRIES: Final = 3
"""How often the GIL is looked for: on CPUs that are busy with others a try may see too little."""

UNSEEN_SECONDS: Final = 1.0
"""For how long a node may go unseen where two threads need not agree on what came first."""

_NO_LOCK: Final = Lock(address=-1)
_ABSENT_LOCK: Final = Lock(address=0)  # an address that nobody waits at


class Supervisor:
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
        self._notices = Notices()
        self.probe = GilProbe()
        self.epoch = 0
        self._reset()

    def _reset(self) -> None:
        self.epoch += 1
        self._lock = ObserverLock()  # a garbage collection under it may run anything
        self._woken = Event(ObserverLock)
        self._thread: threading.Thread | None = None
        self.sleeps = False
        self._stopping = False
        self._numbers = NodeNumbers()
        self.lock_names = LockNames()
        self._run_numbers = itertools.count(1)
        self._gil: Lock | None = None
        self._gil_tries = 0
        self._gil_tried_at: float | None = None
        self._failed_at: float | None = None
        self._thread_failed_at: float | None = None
        self._why_none = why_unsupported()  # a reason, empty while the sampler works
        self._forget()

    def _forget(self) -> None:
        """As before the first node."""
        self._why_none = self._why_none or "warming_up"
        self._lacks: dict[str, None] = {}
        self._of_thread = threading.local()
        self._own_delay: RunQueueDelay | None = None
        self._memory: shm.SharedMemory | None = None
        self._descriptor = -1
        self._rows: WorkerRows | None = None
        self._sampler: SamplerClient | None = None
        self._far: weakref.WeakSet[FarRow] = weakref.WeakSet()

    @property
    def method(self) -> Method:
        """At this moment."""
        reasons = [self._why_none] if self._why_none else []
        if not has_gil():
            reasons.append("free_threaded")
        reasons.extend(self._lacks)
        return Method(method="none" if self._why_none else "process", reason=",".join(reasons) or None)

    # Who uses it

    def join(self, user: object, budget: float) -> None:
        """Somebody whose nodes are to be sampled. Of several budgets the least counts."""
        with self._lock:
            self._users[user] = budget
            self._set_budget()

    def leave(self, user: object) -> None:
        with self._lock:
            self._users.pop(user, None)
            self._set_budget()
        self._woken.set()

    def _set_budget(self) -> None:
        if self._memory is not None:
            share = min(values(self._users), default=DEFAULT_BUDGET)
            self._memory.words[shm.BUDGET_PPM] = max(1, round(share * 1e6))

    # What workers need

    def worker_row(self) -> WorkerRow | None:
        """The calling thread's; None for one too many."""
        try:
            row: WorkerRow = self._of_thread.row
            if row.epoch == self.epoch:
                return row
        except AttributeError:  # none yet, or one too many
            pass
        with self._lock:
            new = None
            if self._thread is not None or self._start():
                assert self._rows is not None
                new = self._rows.row()
            self._of_thread.row = new
        self._notices.log()
        return new

    def far_thread(self, process: int, thread: int, let_trace: Callable[[int], None]) -> FarRow | None:
        """A thread of another process is to be sampled (`model/far_waits.py`)."""
        with self._lock:
            rows, memory = self._rows, self._memory
            if rows is None or memory is None or self._descriptor < 0:
                return None
            at = rows.far_row(process, thread)
            if at is None:
                return None
            found = FarRow(
                memory.words,
                at,
                memory=self._descriptor,
                epoch=self.epoch,
                epoch_now=lambda: self.epoch,
                let_trace=let_trace,
                free=rows.give_back,
            )
            self._far.add(found)
            client = self._sampler
        if client is not None and client.needs_leave:
            have_let_trace([found], client.process.pid)
        return found

    def wake_sampler(self) -> None:
        """It is parked, and a node starts."""
        client = self._sampler
        if client is not None:
            client.wake()

    def wake(self) -> None:
        """The thread sleeps, and a node starts."""
        self._woken.set()

    def number_of(self, name: str) -> int:
        """A number that stands for a node's name in shared memory."""
        return self._numbers.number_of(name)

    def next_run_number(self) -> int:
        return next(self._run_numbers)

    # What reports need

    @property
    def gil_wait_seconds(self) -> float:
        """How long the probe has waited for the GIL, since the process began."""
        return self.probe.waited_seconds

    @property
    def gil_address(self) -> int | None:
        """Where the GIL is in memory, None as long as that has not been found out."""
        return None if self._gil is None or self._gil.address <= 0 else self._gil.address

    def stolen(self) -> tuple[int, int]:
        """CPU time that a hypervisor took away, and all of it, in ticks so far; up to a second old."""
        with contextlib.suppress(AttributeError, ValueError):  # no memory, or closed
            words = self._memory.words  # type: ignore[union-attr]  # None: suppressed
            return words[shm.STEAL], words[shm.TICKS]
        return 0, 0

    def holders(self, run_number: int) -> dict[str, int]:
        """Who held the GIL while nodes of a run waited for it, and nanoseconds of waiting caused.

        Who: a node's name; outside of nodes `thread:` and the thread's. Waits for the sampler's answer, and each run
        can be asked for once.
        """
        client = self._sampler
        answer = [] if client is None else client.holders(run_number)
        threads = {thread.ident: thread.name for thread in threading.enumerate()}
        named: dict[str, int] = {}
        for item in answer:
            who, _, caused_ns = item.partition("=")
            number = int(who[1:])
            name = self._numbers.name_of(number) if who[0] == "n" else "thread:" + threads.get(number, "unknown")
            named[name] = named.get(name, 0) + int(caused_ns)
        return named

    # The thread

    def _start(self) -> bool:
        if self._stopping or _is_recent(self._thread_failed_at):
            return False
        if self._why_none not in ("warming_up", "sampler_failed"):
            self._notices.add(self._why_none)
        if self._why_none == "subinterpreter":
            return False  # it could not be ended while a thread of ours is in it, and would take the process along
        if not has_gil():
            self._notices.add("free_threaded")
        try:
            self._descriptor = shm.make_memory()
            self._memory = shm.SharedMemory(self._descriptor)
            self._rows = WorkerRows(self._memory.words, self._proc, epoch=self.epoch, lack=self._lack)
            self._set_budget()
            self._woken.clear()
            self._thread = threading.Thread(target=self._run, name="traced-threadpool-waits", daemon=True)
            self._thread.start()
        except (OSError, RuntimeError) as error:  # no descriptor or no thread left
            self._close()
            self._thread_failed_at = time.monotonic()
            self._fail("sampler_failed", error)
            return False
        self._thread_failed_at = None
        return True

    def _run(self) -> None:
        try:
            client = self._watch()
        except BaseException as error:  # nodes go on without
            release_owned(ObserverLock)
            with self._lock:
                client = self._close()
                self._fail("sampler_failed", error)
            self._notices.log()
        if client is not None:
            client.end()

    def _watch(self) -> SamplerClient | None:
        """Until nothing has been left to do for long enough; returns the sampler that is to end."""
        self._own_delay = delay_of(self._proc, threading.get_native_id())
        active_seconds, idle_since = 0.0, time.monotonic()
        active = True  # somebody is about to start a node, or we would not be here
        while True:
            self._notices.log()
            if self._stopping:
                with self._lock:
                    return self._close()
            if active or self._is_active():
                before = time.monotonic()
                self.probe.probe(self._own_delay)
                active, idle_since = False, time.monotonic()
                if self._is_active():
                    active_seconds += idle_since - before
                client = self._sampler
                if client is not None and self._memory is not None:
                    self.lock_names.look(self._memory.words)
                if client is None:
                    if active_seconds >= WARM_UP_SECONDS and self._is_active():
                        self._start_sampler()
                elif client.process.has_ended():
                    self._lose_sampler()
                elif self._is_gil_worth_another_try():
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
            self.sleeps = True
            if not self._is_active() and not self._stopping:
                # The worker says that it is in a node before it looks whether we sleep.
                self._woken.wait(max(0.0, limit - idle if STORES_IN_ORDER else min(limit - idle, UNSEEN_SECONDS)))
            self.sleeps = False
            self._woken.clear()

    def _is_active(self) -> bool:
        assert self._rows is not None
        return self._rows.is_active()

    def _start_sampler(self) -> None:
        if self._why_none not in ("warming_up", "sampler_failed") or _is_recent(self._failed_at):
            return
        not_found: list[str] = []
        try:
            client = start_sampler(self._descriptor, self._proc, lambda: self._find_gil(not_found))
        except CannotSample as error:
            self._fail(error.reason, error.detail)
            return
        with self._lock:
            self._sampler = client
            self._why_none, self._failed_at = "", None
            self._lacks.pop("gil_not_found", None)
            if os.getpid() == 1:
                self._lack("is_init")
            for detail in not_found:
                self._lack("gil_not_found", detail)
            far = members(self._far) if client.needs_leave else []
        have_let_trace(far, client.process.pid)

    def _find_gil(self, not_found: list[str]) -> Lock:
        """Where the GIL is, or why that is not known. Once found, it stays there."""
        if not has_gil():
            return _ABSENT_LOCK
        if self._gil is None:
            self._gil_tries += 1
            self._gil_tried_at = time.monotonic()
            try:
                self._gil = calibrate(proc=self._proc)
            except (NoCalibration, RuntimeError) as error:  # no second thread can be started
                not_found.append(str(error))
                return _NO_LOCK
        return self._gil

    def _is_gil_worth_another_try(self) -> bool:
        return "gil_not_found" in self._lacks and self._gil_tries < GIL_TRIES and not _is_recent(self._gil_tried_at)

    def _part_from_sampler(self, reason: str) -> SamplerClient:
        """States are not sampled from now on, because of this. Returns the sampler, which ends by itself."""
        client = self._sampler
        assert client is not None
        client.hang_up()
        with self._lock:
            self._sampler = None
            self._why_none = reason
        return client

    def _lose_sampler(self) -> None:
        self._part_from_sampler("sampler_failed").release()
        self._fail("sampler_failed" if self._lacks.pop("is_init", 1) else "is_init")

    def _fail(self, reason: str, detail: object = None) -> None:
        """From now on states are not sampled, because of this."""
        if reason == "sampler_failed":
            self._failed_at = time.monotonic()
        self._why_none = reason
        self._notices.add(reason, detail)

    def _lack(self, reason: str, detail: object = None) -> None:
        """States are sampled, but not all, or not of all."""
        if reason not in self._lacks and self._why_none != "unsupported_platform":
            self._lacks[reason] = None
            self._notices.add(reason, detail)

    def _close(self) -> SamplerClient | None:
        """Lets go of everything; returns the sampler, which ends now that its channel is closed. Under the lock.

        The memory goes with the last row: a worker may be about to write there.
        """
        client, descriptor = self._sampler, self._descriptor
        self.epoch += 1
        if self._rows is not None:
            self._rows.close()
        for each in members(self._far):
            each.close()
        if self._own_delay is not None:
            self._own_delay.close()  # a forked child has the file, and not the thread
        self._forget()
        self._thread = None
        if client is not None:
            client.channel.close()
        if descriptor >= 0:
            os.close(descriptor)
        return client

    def stop(self) -> None:
        """Ends what is there, at the interpreter's exit."""
        self._stopping = True
        self._woken.set()
        thread = self._thread
        if thread is not None:
            thread.join(2.0)

    def reset_after_fork(self) -> None:
        """For a forked child, which has neither the thread nor a sampler; the memory is its parent's."""
        memory = self._memory
        if self._rows is not None:
            self._rows.reset_after_fork()
        with contextlib.suppress(OSError):
            client = self._close()
            if client is not None:
                client.release()
        if memory is not None:
            memory.close()  # threads that do not exist here may hold it
        self._users = forks.kept_in_child(self._users, weakref.WeakKeyDictionary())
        self._notices.reset_after_fork()
        self._reset()


def _is_recent(failed_at: float | None) -> bool:
    return failed_at is not None and time.monotonic() - failed_at < RESTART_SECONDS


supervisor: Final = Supervisor()
"""The process's own."""

atexit.register(supervisor.stop)
forks.register(supervisor.reset_after_fork)
