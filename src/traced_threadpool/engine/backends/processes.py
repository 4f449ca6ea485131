"""Nodes on local worker processes, one a slot: what is pure Python runs side by side, and a crash costs one node.

No process is started before the first node that needs one. A worker that has had none for its idle time ends, and with
the last one the process that forks them. Nobody waits for a thread of this process: the node's own dispatch thread
talks to the worker.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, Final

from traced_threadpool.engine.backends import remote_call, worker
from traced_threadpool.engine.backends.base import Call, Timing
from traced_threadpool.engine.backends.channel import Channel, Closed
from traced_threadpool.engine.backends.errors import NotPicklable, WorkerSetupError
from traced_threadpool.engine.backends.launch import Launcher, Process, launcher_for
from traced_threadpool.engine.backends.pickling import Pickled, dump, dump_call, pickler_class, reason_in
from traced_threadpool.engine.backends.process_options import (
    StartMethod,
    checked_count,
    checked_env,
    checked_method,
    checked_seconds,
)
from traced_threadpool.engine.backends.remote_call import Report, Request
from traced_threadpool.engine.backends.requests import Requests
from traced_threadpool.engine.backends.sampled import Sampled
from traced_threadpool.engine.backends.worker_messages import crash, deliver, fill, setup_error
from traced_threadpool.engine.backends.worker_stack import RunningWorker, let_trace
from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import members
from traced_threadpool.model.far_waits import FarSampler
from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.model.lock_backoff import Condition, OwnedLock
from traced_threadpool.model.records import NodeRecord, usable_cpus

IDLE_SECONDS: Final = 60.0
CANCEL_GRACE_SECONDS: Final = 1.0
MAX_ATTEMPTS: Final = 3
LAUNCH_TRIES: Final = 3
"""How many workers are started for a call that are killed before they are ready."""

PRELOADED: Final = ("numpy", "pandas", "hamilton.function_modifiers")
"""What workers have imported before their first node, where the program has imported it too: it takes a second."""


class Processes:
    """Runs nodes on local worker processes.

    Args:
        max_workers: How many, and so how many nodes at once. Default: the CPUs that this process may use.
        start_method: `"forkserver"` or `"spawn"`. Default: `"forkserver"` on Linux, `"spawn"` elsewhere.
        initializer: Called in each worker before its first node, such as one that sets up tracing.
        initargs: Its arguments.
        max_tasks_per_worker: How many nodes a worker runs before it is replaced. Default: no limit.
        env: Environment variables of workers, besides those of this process.
        preload: Modules that workers import before their first node, besides Hamilton, NumPy and pandas where this
            process has imported them. With `"forkserver"` they are imported once for all workers.
        idle_seconds: How long a worker waits for its next node before it ends.
        cancel_grace_seconds: How long a node goes on after it was cancelled, before its worker is killed.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot work.
        ImportError: cloudpickle is not installed.
    """

    @explains_keywords("Processes")
    def __init__(
        self,
        max_workers: int | None = None,
        *,
        start_method: StartMethod | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
        max_tasks_per_worker: int | None = None,
        env: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
        idle_seconds: float = IDLE_SECONDS,
        cancel_grace_seconds: float = CANCEL_GRACE_SECONDS,
    ) -> None:
        self._max_workers = usable_cpus() if max_workers is None else checked_count("max_workers", max_workers)
        self._method = checked_method(start_method)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a function, not {initializer!r}")
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._max_tasks = (
            None if max_tasks_per_worker is None else checked_count("max_tasks_per_worker", max_tasks_per_worker)
        )
        self._env = checked_env(env)
        if isinstance(preload, str):
            raise TypeError(f"preload must be a list of names of modules, such as [{preload!r}], not a string")
        self._preload = tuple(preload)
        self._idle_seconds = checked_seconds("idle_seconds", idle_seconds)
        self._grace_seconds = checked_seconds("cancel_grace_seconds", cancel_grace_seconds)
        pickler_class()
        self._requests = Requests()
        self._sampler: FarSampler | None = None
        self._reset()
        forks.register(self._forget)
        _all.add(self)

    def _reset(self) -> None:
        self._changed = Condition(OwnedLock())
        self._launcher: Launcher | None = None
        self._idle: list[_Worker] = []
        self._count = 0  # workers that are starting, idle or running a node
        self._running: dict[Call, _Worker | None] = {}
        self._cancelled: set[Call] = set()
        self._users = 0

    @property
    def max_workers(self) -> int:
        """How many nodes run at once."""
        return self._max_workers

    @property
    def home(self) -> None:
        """Values come back here."""

    def __repr__(self) -> str:
        return f"<Processes, {self._max_workers} workers, {self._method}>"

    def open(self, name: str) -> None:
        """An adapter begins to use it. Several may; the workers are shared."""
        with self._changed:
            self._users += 1

    def sampled_by(self, sampler: FarSampler) -> None:
        """What its workers' nodes wait for is to be sampled."""
        self._sampler = sampler

    # One call

    def call(self, call: Call, timing: Timing) -> Any:
        """Runs a node's function on a worker; see `base.Backend`."""
        began_ns = time.monotonic_ns()
        node = call.record.name
        request = self._requests.of(call)
        pickled = dump_call(node, call.function, call.arguments)
        with self._changed:
            self._running[call] = None
        try:
            while True:
                asked_ns = time.monotonic_ns()
                running = self._acquire(call)
                timing.remote_queue_ns += time.monotonic_ns() - asked_ns
                answer = self._exchange(call, running, request, pickled, timing)
                if answer is not None:
                    break
        finally:
            with self._changed:
                self._running.pop(call, None)
                self._cancelled.discard(call)
        del pickled
        report, result = answer
        try:
            return remote_call.value_of(node, report, result)
        finally:
            fill(timing, report, began_ns)

    def _exchange(
        self, call: Call, running: _Worker, request: Request, pickled: Pickled, timing: Timing
    ) -> tuple[Report, Pickled] | None:
        """Sends the call and waits for the answer. None where the worker never had it."""
        reusable = False
        try:
            timing.attempts += 1
            timing.worker_pid = running.pid
            running.sampled.begin(self._sampler, running.pid, running.let_trace)
            timing.sent_bytes = running.channel.send(worker.CALL, request, pickled)
            while True:
                kind, head, result, _, size = running.channel.receive()
                if kind == worker.RESULT:
                    report, last = head
                    timing.received_bytes = size
                    reusable = not last
                    return report, result  # type: ignore[return-value]  # such a message has one
                if kind == worker.LEAVING:
                    timing.attempts -= 1  # it reads nothing after that
                    return None
                deliver(kind, head, call)
        except Closed as closed:
            # Without all of the call it cannot have run it: the call goes to another worker.
            if closed.unread and running.has_left():
                timing.attempts -= 1
                return None
            if closed.unread and timing.attempts < MAX_ATTEMPTS and call not in self._cancelled:
                return None
            code = running.process.exit_code()
            if call in self._cancelled:
                raise CancelledError(f"node {request.node!r} was cancelled; its worker process was ended") from None
            raise crash(request.node, running.pid, code) from None
        finally:
            running.sampled.end(timing)
            self._release(running, reusable=reusable)

    def worker_of(self, node: NodeRecord) -> RunningWorker | None:
        """The worker that runs a node now, for whoever looks at it."""
        with self._changed:
            for call, running in self._running.items():
                if call.record is node and running is not None and running.pid:
                    return RunningWorker(running.pid, running.descriptors)
        return None

    # Workers

    def _acquire(self, call: Call) -> _Worker:
        """An idle worker, the last one used first, so that the others can end; or a new one."""
        with self._changed:
            while True:
                if call in self._cancelled:
                    raise CancelledError(f"node {call.record.name!r} was cancelled before a worker took it")
                while self._idle:
                    found = self._idle.pop()
                    if found.is_there():
                        self._running[call] = found
                        return found
                    self._count -= 1
                    found.channel.close()
                if self._count < self._max_workers:
                    self._count += 1
                    break
                self._changed.wait()
        try:
            for _ in range(LAUNCH_TRIES - 1):
                if (started := self._start(call, final=False)) is not None:
                    return started
            started = self._start(call, final=True)
            assert started is not None
            return started
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise

    def _start(self, call: Call, *, final: bool) -> _Worker | None:
        """A new worker, ready.

        None, unless this try is final, where it did not end by itself: it was killed, or the server was leaving.
        """
        node = call.record.name
        initializer = self._pickled_initializer(node)
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        process: Process | None = None
        try:
            with theirs:
                process = self._launcher_now().launch(theirs)
            started = _Worker(channel, process)
            with self._changed:
                self._running[call] = started
                cancelled = call in self._cancelled
            if cancelled:
                raise CancelledError(f"node {node!r} was cancelled before a worker took it")
            channel.send(worker.SETUP, self._setup(), initializer)
            while True:
                kind, head, answer, _, _ = channel.receive()
                if kind == worker.READY:
                    started.pid, started.descriptors = head
                    return started
                if kind == worker.SETUP_FAILED:
                    raise setup_error(node, head, answer)
                deliver(kind, head, call)
        except BaseException as error:
            channel.close()
            if process is not None:
                code = process.exit_code() if isinstance(error, Closed) else None
                process.kill()
                if call in self._cancelled:
                    raise CancelledError(f"node {node!r} was cancelled before a worker took it") from None
                if isinstance(error, Closed):
                    if not final and (code is None or code < 0):
                        return None
                    raise WorkerSetupError(
                        f"the worker process for node {node!r} ended before it was ready, with exit code {code}"
                    ) from None
            raise

    def _launcher_now(self) -> Launcher:
        with self._changed:
            if self._launcher is None:
                preload = [*self._preload, *(name for name in PRELOADED if name in sys.modules)]
                environment = {**os.environ, **self._env}
                self._launcher = launcher_for(self._method, environment, preload, self._idle_seconds)
            return self._launcher

    def _setup(self) -> worker.Setup:
        manager = logging.root.manager
        levels = {
            name: logged.level
            for name, logged in list(manager.loggerDict.items())
            if isinstance(logged, logging.Logger) and logged.level != logging.NOTSET
        }
        try:
            directory = os.getcwd()  # noqa: PTH109  # as it is handed on
        except OSError:  # it has been removed
            directory = None
        return worker.Setup(
            versions=remote_call.VERSIONS,
            path=tuple(map(str, sys.path)),
            environment={**os.environ, **self._env},
            directory=directory,
            preload=self._preload if self._method == "spawn" else (),
            log_levels=levels,
            idle_seconds=self._idle_seconds,
            max_tasks=self._max_tasks,
        )

    def _pickled_initializer(self, node: str) -> Pickled | None:
        if self._initializer is None:
            return None
        try:
            return dump((self._initializer, self._initargs))
        except BaseException as error:
            raise NotPicklable(node, "the initializer of the worker", reason_in(error)) from error

    def _release(self, used: _Worker, *, reusable: bool) -> None:
        with self._changed:
            if reusable:
                self._idle.append(used)
            else:
                self._count -= 1
            self._changed.notify()
        if not reusable:
            used.channel.close()
            used.process.kill()  # whatever it is doing: nobody will hear of it
            used.sampled.close()

    # Cancelling and closing

    def cancel(self, call: Call) -> None:
        """The node's worker is killed if it goes on for longer than the grace."""
        with self._changed:
            if call not in self._running:
                return
            self._cancelled.add(call)
            running = self._running[call]
            self._changed.notify_all()
        timer = threading.Timer(self._grace_seconds, self._kill, (call, running))
        timer.daemon = True
        timer.start()

    def _kill(self, call: Call, running: _Worker | None) -> None:
        with self._changed:
            current = self._running.get(call)
            if current is None or (running is not None and current is not running):
                return
            process = current.process
        process.kill()

    def close(self) -> None:
        """Ends the workers, when the last adapter that uses them is closed. A call after that starts new ones."""
        with self._changed:
            self._users -= 1
            if self._users > 0:
                return
            self._users = 0
        self._end()

    def _end(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            running = [each for each in self._running.values() if each is not None]
            self._cancelled.update(self._running)
            launcher, self._launcher = self._launcher, None
            self._changed.notify_all()
        for each in running:
            each.process.kill()
        for each in idle:
            each.channel.close()
        if launcher is not None:
            launcher.close()

    def _forget(self) -> None:
        """For a forked child: the workers are the parent's."""
        for each in [*self._idle, *(running for running in self._running.values() if running is not None)]:
            each.channel.close_copy()
        if self._launcher is not None:
            self._launcher.forget()
        users = self._users
        self._reset()
        self._users = users


class _Worker:
    """A worker process as the driver sees it."""

    __slots__ = ("channel", "descriptors", "pid", "process", "sampled")

    def __init__(self, channel: Channel, process: Process) -> None:
        self.channel = channel
        self.process = process
        self.pid = 0
        self.descriptors: tuple[int, int] | None = None
        self.sampled = Sampled(channel, worker.SAMPLED)

    def let_trace(self, tracer: int) -> None:
        """Has it let another process look at it."""
        if self.descriptors is not None:
            let_trace(self.pid, self.descriptors[0], tracer)

    def has_left(self) -> bool:
        """Whether it has said so before it ended."""
        try:
            while self.channel.receive()[0] != worker.LEAVING:
                pass
        except Closed:
            return False
        return True

    def is_there(self) -> bool:
        """False when it has ended, or is about to: it says nothing between calls but that."""
        try:
            return not _readable(self.channel.fileno())
        except (OSError, ValueError):
            return False


def _readable(descriptor: int) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])


_all: weakref.WeakSet[Processes] = weakref.WeakSet()


def _end_all() -> None:
    for each in members(_all):
        each._end()


atexit.register(_end_all)
