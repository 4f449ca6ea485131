"""Ready tasks into calls on threads. Owns the lock, the scheduler, cancelling, closing and helping.

Worker loops run on a `ThreadPoolExecutor`. A loop takes the next ready task, runs it, ends it and takes the next
under one hold of the lock, until there is none; a node made ready by the one just ended so runs on the same
worker, with no hand-off. A further loop is started only while there is ready work and a worker is free.

A node that a backend runs elsewhere has a thread of its own meanwhile, which waits and is no worker: how many there are
is for the backend to say.

A worker never waits for an upstream node. What it may wait for is a run of its own: a node function that executes
a driver. Then it *helps*: it runs that run's ready nodes on its own slot instead of blocking (see `scheduler`).

No lock is held across a call into user code: node functions, hooks, done-callbacks, observers.

An exception may come between any two lines of this file: a signal handler's in the caller's thread, a MemoryError
anywhere. What is counted is therefore kept as sets of who is counted, and whoever is interrupted lets go of the lock,
says what it had in hand, and has everything made anew from the tasks themselves (`_repair`): the interrupted run ends
with the error, and every other goes on.
"""

# Longer than 450 lines: all that one lock guards, and what puts it right after an interrupt, is read together.

from __future__ import annotations

import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures._base import FINISHED
from concurrent.futures._base import RUNNING as RUNNING_FUTURE
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Final, Protocol, TypeVar, cast

from traced_threadpool.engine.backends.base import Call, SendsAhead
from traced_threadpool.engine.executor import PoolExecutor, submit_loop
from traced_threadpool.engine.inputs import (
    Outside,
    add_callback,
    failure_of,
    find_inputs,
    forget_callback,
    input_of,
    resolve,
)
from traced_threadpool.engine.loop import Loop
from traced_threadpool.engine.pool_look import PoolLook, RunLook, lanes_of, look_at
from traced_threadpool.engine.pool_snapshot import PoolSnapshot, snapshot_of
from traced_threadpool.engine.scheduler import AS_ADDED, ENDED, RUNNING, RunQueue, Scheduler, Task
from traced_threadpool.engine.work import NodeFuture, Run, Work, closed_error, current_work
from traced_threadpool.model import forks
from traced_threadpool.model.exceptions import is_a, set_traceback, traceback_of
from traced_threadpool.model.lock_backoff import (
    Changing,
    Condition,
    Event,
    OwnedLock,
    acquire_late,
    release_owned,
)
from traced_threadpool.model.observers import Observers
from traced_threadpool.model.records import THREADS, NodeRecord

logger = logging.getLogger("traced_threadpool")

MOST_WORKERS: Final = 1_000_000
"""Of an executor that says it has more, or no end of them."""

QUIET_SECONDS: Final = 1.0
"""How long `close` waits for the next node of a run that its caller has not left."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _repairing(method: _Method) -> _Method:
    """Whatever is raised in the middle of the method leaves a pool that works."""

    @wraps(method)
    def call(self: Pool, *arguments: Any, **keywords: Any) -> Any:
        try:
            return method(self, *arguments, **keywords)
        except BaseException:
            try:
                self._repair()
            finally:
                while self._lock.is_owned():
                    self._lock.release()
            raise

    return cast("_Method", call)


class Meter(Protocol):
    """Reads clocks at a node's start and end, on its worker, and says where its time went. Must not raise."""

    def before_start(self, node: NodeRecord) -> None: ...

    def after_start(self, node: NodeRecord) -> None:
        """`started_ns` is there."""

    def before_end(self, node: NodeRecord) -> None: ...

    def after_end(self, node: NodeRecord) -> None:
        """`ended_ns` is there: sets `cpu_ns` and what else it knows."""

    def leave(self, node: NodeRecord) -> None:
        """The worker turns from the node to what runs within it, until `come_back`."""

    def come_back(self, node: NodeRecord) -> None: ...

    def hand_over(self, node: NodeRecord) -> None:
        """The node's function runs elsewhere, and its thread here does nothing but wait, until `take_back`."""

    def take_back(self, node: NodeRecord) -> None: ...


class Pool:
    """Runs submitted work on at most `max_workers` threads, each piece once all its inputs are there."""

    def __init__(
        self,
        max_workers: int,
        thread_name_prefix: str,
        observers: Observers,
        meter: Meter,
        *,
        limits: Mapping[str, int] | None = None,
        elsewhere: Collection[str] = (),
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock = clock
        self._limits = limits  # how many nodes of each backend run at once
        self._elsewhere = elsewhere  # those of them whose nodes need no worker
        self._meter = meter
        self._observers = observers
        self._observed = observers.any
        self._thread_name_prefix = thread_name_prefix
        self.executor: Executor = PoolExecutor(self, max_workers, thread_name_prefix)
        self.max_workers = max_workers
        self.closed = False
        self._reset()
        forks.register(self._reset_after_fork)

    def _reset(self) -> None:
        self._lock = OwnedLock()
        self._idle = Condition(self._lock)
        self._changing = Changing(self._lock)  # whatever raises within is caught by somebody who calls `_repair`
        self._scheduler = Scheduler(self.max_workers, self._limits, self._elsewhere)
        self._runs: set[Run] = set()
        self.unbound = Run(None)  # nodes submitted outside of any run
        if self.max_workers == 1:
            self.unbound.ranks = AS_ADDED
        self._runs.add(self.unbound)
        self._parked: dict[Task, list[Event]] = {}
        self._threads: set[threading.Thread] = set()  # as many as `max_workers` at most: they end with the executor
        self._loops: set[Loop] = set()
        self._starting: set[Loop] = set()  # those of them that have not begun
        # Those that help, those whose executor was replaced, and the nodes that run elsewhere.
        self._helpers: set[Loop] = set()
        self._senders = PoolExecutor(self, MOST_WORKERS, f"{self._thread_name_prefix or 'nodes'}-on-backends")
        self._senders.in_use = False
        self._ends_when_idle = False
        self._after_each = False  # whether there is more to do after each node, see `_after_node`

    @_repairing
    def use_executor(self, executor: Executor) -> None:
        """What starts from now on runs on threads of somebody else's, as many nodes at once as it has workers.

        Nodes that run go on where they are, and keep none of the new workers from the others.
        """
        workers = getattr(executor, "_max_workers", None)
        with self._changing:
            replaced, self.executor = self.executor, executor
            if executor is not replaced:
                self._after_each = True
                self._helpers |= {loop for loop in self._loops if not loop.to_begin}
                self._loops.clear()  # those that have not begun see that they are not wanted
                self._starting.clear()
                self._loops = set()
                self._scheduler.retire(self._scheduler.running, self._clock())
            if isinstance(workers, (int, float)) and workers >= 1:
                self.max_workers = self._scheduler.max_workers = math.ceil(min(workers, MOST_WORKERS))
                if self._scheduler.shares is not None:
                    self._scheduler.share(self._clock())
            loops = self._plan_loops()
        for each in (replaced, executor):
            if isinstance(each, PoolExecutor) and each.is_of(self):
                each.in_use = each is executor
        self._start_loops_or_fail(loops)

    def _own_executor(self) -> PoolExecutor | None:
        """The executor, unless somebody put another in its place: that is theirs to shut down."""
        executor = self.executor
        return executor if isinstance(executor, PoolExecutor) and executor.is_of(self) else None

    def _reset_after_fork(self) -> None:
        """Fresh workers and locks in a forked child: the parent's threads do not exist there."""
        self.executor = PoolExecutor(self, self.max_workers, self._thread_name_prefix)
        if self.closed:
            self._end_threads(wait=False)
        self._reset()

    # Submitting

    def submit(self, work: Work) -> NodeFuture:
        """Takes in a piece of work; returns its future at once.

        Raises RuntimeError when the pool is closed, or when no thread can be started for it.
        """
        future = work.future = NodeFuture(work)
        try:
            outside = find_inputs(work) if work.arguments else None
            work.submitted_ns = now_ns = self._clock()
            run = work.queue
            record = run.record
            never_ran: Sequence[Task] = ()
            loops: Sequence[Loop] = ()
            lock = self._lock
            # No `try` of its own: an exception that comes at the line of a nested one passes by those around it
            # (CPython 3.11, 3.12). `_withdraw` lets go of the lock.
            if not lock.acquire(False):
                acquire_late(lock)
            if record is None and self.closed and run is self.unbound:
                raise closed_error()
            run.pending.add(work)
            if record is not None:
                record.node_count += 1
            stopped = run.stopped
            if stopped:
                work.state = ENDED
                work.failed = True
                work.cause = run.failure
                never_ran = (work,)
            elif not self._scheduler.add(work, work.inputs, now_ns):
                never_ran = (work,)
            if (
                (len(self._loops) < self.max_workers or self._parked) and self._scheduler.ready_count
            ) or self._scheduler.leaving:
                loops = self._plan_loops()
            lock.release()
            if outside:
                self._listen(outside)
            if never_ran:
                self._end_unrun(never_ran, now_ns, cancelled=stopped)
            if loops:
                error = self._start_loops(loops)
                if error is not None and not self._has_loops():
                    raise closed_error() if self.closed else error
        except BaseException:
            try:
                self._withdraw(work)
            finally:
                while self._lock.is_owned():
                    self._lock.release()
            raise
        return future

    def _withdraw(self, work: Work) -> None:
        """Takes back work whose submission fails, unless a worker has it already."""
        self._hold()
        if work in work.queue.pending and work.state is not RUNNING:
            work.state = ENDED
            work.failed = True
            work.outcome = work.cause = None
        self._repair()

    def _listen(self, outside: Outside) -> None:
        """Hears of the end of futures that are not this pool's, once those who wait for them are known."""
        for task, future in outside.values():
            add_callback(future, partial(self._outside_done, task))

    def _outside_done(self, task: Task, future: Future[Any]) -> None:
        try:
            self._end_outside(task, future)
        except BaseException:
            try:
                self._repair()
                self._end_outside(task, future)
            finally:
                while self._lock.is_owned():
                    self._lock.release()
            raise

    def _end_outside(self, task: Task, future: Future[Any]) -> None:
        if isinstance(future, NodeFuture):  # a node of another adapter: not ours to run, but upstream all the same
            task.name = future.work.name
            task.span_context = future.work.span_context
        task.error = failure_of(future)
        if future.cancelled():
            task.outcome = "cancelled"
        now_ns = self._clock()
        never_ran: Sequence[Task] = ()
        with self._changing:
            if task.state is not ENDED:
                never_ran = self._scheduler.end(task, now_ns, failed=task.error is not None)
            loops = self._plan_loops()
        if never_ran:
            self._end_unrun(never_ran, now_ns)
        self._start_loops_or_fail(loops)

    # Worker loops

    def _plan_loops(self) -> Sequence[Loop]:
        """The loops to start for what is ready now. Under the lock; the caller starts them outside of it."""
        scheduler = self._scheduler
        ready = scheduler.ready_count
        if not ready:
            return self._plan_senders() if scheduler.leaving else ()
        if self._parked:
            self._wake_helpers()
        count = min(ready - len(self._starting), self.max_workers - len(self._loops))
        loops = [Loop(scheduler) for _ in range(count)]
        self._starting.update(loops)
        self._loops.update(loops)
        return [*loops, *self._plan_senders()] if scheduler.leaving else loops

    def _plan_senders(self) -> Sequence[Loop]:
        """As `_plan_loops`, for what runs elsewhere: each with its node."""
        senders = []
        while (work := self._scheduler.take_leaving()) is not None:
            assert isinstance(work, Work)
            senders.append(Loop(self._scheduler, work))
            self._helpers.add(senders[-1])
        return senders

    def _start_loops(self, loops: Sequence[Loop]) -> RuntimeError | None:
        for loop in loops:
            try:
                if loop.elsewhere:
                    if self._forward(loop):
                        continue
                    loop.call = self._senders.submit_loop(self._send, loop)
                else:
                    loop.call = submit_loop(self.executor, self._loop, loop)
                loop.submitted = True
                # None of our code where the loop has begun: a callback that fails there takes the thread with it.
                add_callback(loop.call, partial(next, map(self._lost, loop.to_begin)))
            except RuntimeError as error:  # the interpreter is at its exit, or no thread can be started
                if loop.submitted:
                    raise
                if loop.elsewhere:
                    self._recover(loop, error)
                    continue
                self._forget_own_plans()
                return error
        return None

    def _forward(self, loop: Loop) -> bool:
        """Whether its backend sends the node of this loop and waits for it: then its thread comes after that."""
        work = loop.work
        if work is None or (timing := work.timing) is None or not isinstance(call := timing.call, Call):
            return False
        backend = work.queue.calls.get(call)
        if not isinstance(backend, SendsAhead):
            return False
        timing.handed_over_ns = work.started_ns = self._clock()
        backend.forward(call, partial(self._resume, loop))
        loop.submitted = True
        return True

    @_repairing
    def _resume(self, loop: Loop) -> None:
        """The node of this loop has ended elsewhere, or needs its thread to be sent there."""
        try:
            loop.call = self._senders.submit_loop(self._send, loop)
            add_callback(loop.call, partial(next, map(self._lost, loop.to_begin)))
        except RuntimeError as error:
            if loop.call is not None:
                raise
            self._recover(loop, error)

    def _forget_own_plans(self) -> None:
        """Loops that this thread has planned and not started are not counted any more."""
        me = threading.get_ident()
        with self._lock:
            for loop in [each for each in self._starting if each.planner == me and not each.submitted]:
                self._starting.discard(loop)
                self._loops.discard(loop)

    def _start_loops_or_fail(self, loops: Sequence[Loop]) -> None:
        """For work that becomes ready with no caller to raise to: it fails when nobody is left to run it."""
        if not loops:
            return
        error = self._start_loops(loops)
        if error is None or self._has_loops():
            return  # the loops that run take everything that is ready before they end
        self._fail_ready(error)

    def _fail_ready(self, error: BaseException | None) -> None:
        now_ns = self._clock()
        with self._changing:
            ready = [task for run in self._runs for task in run.waiting()]
            never_ran = self._scheduler.cancel(ready, now_ns)
        self._end_unrun(never_ran, now_ns, error=error, cancelled=True)

    @_repairing
    def _lost(self, loop: Loop) -> None:
        """The loop's call is over, and it has not begun: an exception was earlier, or the executor was shut down."""
        call = loop.call
        assert call is not None
        if not call.cancelled():
            error = call.exception()
            self._recover(loop, RuntimeError("a worker's loop did not begin") if error is None else error)
            return
        with self._lock:  # another's executor, with `cancel_futures=True`
            if loop not in self._loops:
                return
            self._starting.discard(loop)
            self._loops.discard(loop)
            left = bool(self._loops)
        if not left:
            self._fail_ready(None)

    def _has_loops(self) -> bool:
        lock = self._lock
        if not lock.acquire(False):
            acquire_late(lock)
        try:
            return bool(self._loops)
        finally:
            lock.release()

    def _loop(self, loop: Loop) -> None:
        try:
            self._work_through(loop)
        except BaseException as error:
            try:
                self._recover(loop, error)
            finally:
                while self._lock.is_owned():
                    self._lock.release()

    def _send(self, loop: Loop) -> None:
        """One node that runs elsewhere, on a thread that waits for it."""
        try:
            work = loop.work
            # Not in the helpers: its start was interrupted, and the node is another's by now.
            if loop.to_begin and work is not None and loop in self._helpers:
                loop.to_begin.clear()
                loop.thread = threading.current_thread()
                self._run_helping(loop, work)
        except BaseException as error:
            try:
                self._recover(loop, error)
            finally:
                while self._lock.is_owned():
                    self._lock.release()

    def _work_through(self, loop: Loop) -> None:
        lock, loops, scheduler = self._lock, self._loops, self._scheduler
        # Here and below no `try` of its own: `_recover` makes whole what was left half done, and lets go of the lock.
        if not lock.acquire(False):
            acquire_late(lock)
        loop.to_begin.clear()
        if loop not in loops:
            lock.release()
            return  # it is known that it could not be started, which it was all the same
        loop.thread = threading.current_thread()
        self._threads.add(loop.thread)
        self._starting.discard(loop)
        work = self._take(loop)
        lock.release()
        run, end_and_take = self._run, self._end_and_take
        while work is not None:
            ended = run(work)
            if loops is not self._loops:
                if scheduler is self._scheduler:  # the executor was replaced
                    self._end_alone(loop, work, ended)
                return  # or forked inside the node: this process has a scheduler of its own, without this work
            work = end_and_take(loop, work) if ended else self._take_locked(loop)

    def _take(self, loop: Loop) -> Work | None:
        """The loop's next work; without one it counts as ended from this moment on. Under the lock."""
        if loop not in self._loops:  # its executor was replaced a moment ago
            self._helpers.discard(loop)
            loop.work = None
            return None
        if self._scheduler.shares is not None:
            self._scheduler.shares.advance(self._clock())
        loop.work = work = self._scheduler.take()  # type: ignore[assignment]  # only Work is ever added
        if work is None:
            self._loops.discard(loop)
        return work  # type: ignore[return-value]  # likewise

    def _take_locked(self, loop: Loop) -> Work | None:
        lock = self._lock
        if not lock.acquire(False):
            acquire_late(lock)
        work = self._take(loop)
        lock.release()
        return work

    def _run(self, work: Work) -> bool:
        """Calls the node's function; its future keeps the result. False when it went back to wait for more inputs."""
        future: NodeFuture = work.future  # type: ignore[assignment]  # it has both until it has ended
        context: contextvars.Context = work.context  # type: ignore[assignment]  # likewise
        try:
            more = resolve(work) if work.inputs else None
        except BaseException as error:  # a future's own value was a future, and that one failed
            work.ended_ns = work.started_ns = self._clock()
            work.outcome = "cancelled" if is_a(error, CancelledError) else "upstream_error"
            work.error = error
            self._observers.node_ended(work)
            future.set_outcome(None, error)
            return True
        if more:
            self._await_more(work, more)
            return False
        future._state = RUNNING_FUTURE  # nobody cancels it from now on
        try:
            future._result = context.run(self._call_observed if self._observed else self._call, work)
        except BaseException as error:
            if error is not work.error:  # not the function's: of what is around it
                release_owned()
                if work.error is None:
                    work.outcome, work.error = "error", error
            future.set_outcome(None, work.error)
            _forget_own_frames(error)
        return True

    def _call(self, work: Work) -> Any:
        """Inside the node's own context, on its worker, where nobody looks."""
        current_work.set(work)
        work.started_ns = self._clock()
        try:
            return work.function(**work.arguments)  # type: ignore[misc]  # it has one until it has run
        except BaseException as error:
            work.outcome = "error"
            work.error = error
            raise
        finally:
            work.ended_ns = self._clock()

    def _call_observed(self, work: Work) -> Any:
        """As `_call`, and tells observers."""
        function = work.function
        assert function is not None
        current_work.set(work)
        observers, meter = self._observers, self._meter
        work.thread = threading.current_thread()
        meter.before_start(work)
        work.started_ns = self._clock()
        meter.after_start(work)
        observers.node_started(work)
        try:
            result = function(**work.arguments)
        except BaseException as error:
            work.outcome = "error"
            work.error = error
            raise
        else:
            work.outcome = "success"
            return result
        finally:
            meter.before_end(work)
            work.ended_ns = self._clock()
            meter.after_end(work)
            observers.node_ended(work)
            work.reported = True

    def _await_more(self, work: Work, futures: Sequence[tuple[str, Future[Any]]]) -> None:
        """Sends work back to wait for futures that came as values of its futures."""
        outside: Outside = {}
        inputs = [input_of(work, future, outside) for _, future in futures]
        work.parameters = [*work.parameters, *(name for name, _ in futures)]
        with self._changing:
            self._scheduler.add_again(work, inputs, self._clock())
        self._listen(outside)

    def _end_and_take(self, loop: Loop, work: Work) -> Work | None:
        """Ends work that has run, and takes the loop's next, under one hold of the lock."""
        run, scheduler = work.queue, self._scheduler
        future: NodeFuture = work.future  # type: ignore[assignment]  # it has one until it has ended
        cancelled: Sequence[Task] = ()
        loops: Sequence[Loop] = ()
        finished = False
        lock = self._lock
        if not lock.acquire(False):
            acquire_late(lock)
        if work.error is None:
            doomed = scheduler.end(work, work.ended_ns)  # by another input, which failed before
        else:
            cancelled, doomed = self._end_failed(work)
        if future._state is RUNNING_FUTURE:
            future._state = FINISHED
        else:
            future.resolve()
        run.pending.discard(work)
        if not run.pending:
            finished = self._run_is_empty(run)
        told = future._watched or cancelled or doomed or finished
        # A done-callback may wait for the node that would be next here: then others may take that.
        calls = told and bool(cancelled or doomed or future._done_callbacks)
        following: Work | None = None if calls else scheduler.take()  # type: ignore[assignment]  # only Work is added
        if following is None and not calls:
            self._loops.discard(loop)
        if ((len(self._loops) < self.max_workers or self._parked) and scheduler.ready_count) or scheduler.leaving:
            loops = self._plan_loops()
        if told or loops:
            loop.following = following  # until then it is this one that is in hand as well
        else:
            loop.work = following
        lock.release()
        if loop.work is work:
            if loops:
                self._start_loops_or_fail(loops)
            if future._watched:
                future.notify()
            if cancelled or doomed:
                self._end_unrun(cancelled, work.ended_ns, cancelled=True)
                self._end_unrun(doomed, work.ended_ns)
            if finished:
                self._finish(run)
            if calls:
                following = self._take_locked(loop)
            loop.work, loop.following = following, None
        work.function = work.context = work.future = work.thread = None
        work.arguments = _NO_ARGUMENTS
        work.inputs = work.parameters = ()
        if self._after_each:
            self._after_node(loop, following)
        return following

    def _after_node(self, loop: Loop, following: Work | None) -> None:
        """The pool was shut down without waiting for its nodes, or its executor was replaced."""
        if self._ends_when_idle:
            self._end_if_idle()
        with self._changing:
            if loop in self._loops:
                return
            if following is None:
                self._helpers.discard(loop)
                return
            # Taken while the executor was being replaced.
            self._scheduler.retire([following], self._clock())
            loops = self._plan_loops()
        self._start_loops_or_fail(loops)

    def _end_failed(self, work: Work) -> tuple[Sequence[Task], Sequence[Task]]:
        """Under the lock. Returns the tasks that never run: cancelled by `fail_fast`, and doomed."""
        run, scheduler = work.queue, self._scheduler
        cancelled: Sequence[Task] = ()
        if work.error is not None:
            run.errors.append(work.error)
        if run.failure is None:
            run.failure = work
        run.note_failed(work.name)
        if run.fail_fast and not run.stopped:
            run.stop()
            cancelled = scheduler.cancel(scheduler.unstarted(run), work.ended_ns, work)
        return cancelled, scheduler.end(work, work.ended_ns, failed=True)

    def _end_unrun(
        self,
        tasks: Iterable[Task],
        now_ns: int,
        *,
        cancelled: bool = False,
        error: BaseException | None = None,
    ) -> None:
        """Tells everyone of tasks that have ended without running. The scheduler has let go of them already.

        They carry `error`, else that of the node that stopped them; without either the future is cancelled.
        """
        interrupted: BaseException | None = None
        for task in tasks:
            assert isinstance(task, Work)
            try:
                self._end_one_unrun(task, now_ns, cancelled=cancelled, error=error)
            except BaseException as fault:
                interrupted = fault
                release_owned()
                task.outcome = task.outcome or "cancelled"
                self._conclude(task)
        if interrupted is not None:
            raise interrupted
        if self._ends_when_idle:
            self._end_if_idle()

    def _end_one_unrun(self, task: Work, now_ns: int, *, cancelled: bool, error: BaseException | None) -> None:
        future = task.future
        if future is None:
            return
        if (timing := task.timing) is not None and isinstance(call := timing.call, Call):
            timing.call = None
            task.queue.forget_call(call)
        cause = task.cause
        if cause is not None and cause is not task:
            error_here = cause.error if error is None else error
            unrun_because_cancelled = cancelled or cause.outcome == "cancelled"
        else:
            error_here, unrun_because_cancelled = error, True
        with self._lock:
            if task.outcome is not None:
                return  # somebody else tells of it
            task.outcome = "cancelled" if unrun_because_cancelled else "upstream_error"
            task.queue.skipped.append(task.name)
        task.error = error_here
        # What stopped it may have ended just before it was submitted.
        task.started_ns = task.ended_ns = max(now_ns, task.submitted_ns, task.ready_ns)
        task.ready_ns = task.ready_ns or task.ended_ns
        future.set_outcome(None, error_here)
        self._observers.node_ended(task)
        self._conclude(task)

    def _conclude(self, work: Work) -> None:
        """The end of work that is not told of in `_end_and_take`. May be called again after it was interrupted."""
        run, future = work.queue, work.future
        if future is None:
            return
        finished = False
        with self._lock:
            if work in run.pending:
                self._resolve(work)
                if work.outcome == "cancelled":
                    run.cancelled = True
                elif work.error is not None and run.failure is None:
                    run.failure = work
                run.pending.discard(work)
                if not run.pending:
                    finished = self._run_is_empty(run)
        future.notify()
        _release(work)
        if finished:
            self._finish(run)

    @staticmethod
    def _resolve(work: Work) -> None:
        """Under the lock; those who wait are notified later."""
        future = work.future
        if future is None or future.done():
            return
        if work.error is None and work.outcome == "cancelled":
            future.resolve_cancelled()
        else:
            future.set_outcome(future._result, work.error)
            future.resolve()

    def _run_is_empty(self, run: Run) -> bool:
        """All nodes of the run that were submitted are done with. Returns whether the run is over. Under the lock."""
        self._idle.notify_all()
        if run.closed:
            self._leave_run(run)
        return run.closed

    def _leave_run(self, run: Run) -> None:
        """Under the lock."""
        self._runs.discard(run)
        shares = self._scheduler.shares
        if shares is not None:
            shares.forget(run)
            if len(self._runs) == 1 and not self.unbound.pending:
                self._scheduler.shares = None

    def _is_shared(self, run: Run) -> bool:
        """Whether other runs may have workers while this one's nodes wait. Under the lock."""
        return len(self._runs) > 2 or bool(self.unbound.pending)  # this one, and nodes of no run

    @property
    def _has_pending(self) -> bool:
        """Under the lock."""
        return any(run.pending for run in self._runs)

    # What was interrupted

    def _recover(self, loop: Loop, error: BaseException) -> None:
        """A worker was interrupted in the middle of the pool's own code: its node fails with that, the rest goes on."""
        try:
            self._hold()
            if loop.scheduler is not self._scheduler:
                return  # of before a fork
            self._starting.discard(loop)
            self._loops.discard(loop)
            self._helpers.discard(loop)
            loop.to_begin.clear()
            work, loop.work, loop.following = loop.work, None, None
            fails = work is not None and work in work.queue.pending and work.state is RUNNING
            if work is not None and fails:
                work.state = ENDED
                work.failed = True
                work.outcome = "error"
                work.error = error if work.error is None else work.error
                work.started_ns = work.started_ns or self._clock()
                work.ended_ns = work.ended_ns or self._clock()
                work.queue.errors.append(work.error)
                work.queue.note_failed(work.name)
            elif work is not None and work in work.queue.pending and work.state is ENDED:
                self._resolve(work)  # before anybody takes what is ready now, and looks at it
            repaired = self._rebuild()
        finally:
            release_owned()
        self._start_loops_or_fail(repaired.loops)  # first: a done-callback may wait for what they run
        if work is None:
            logger.error("a worker was interrupted between two nodes, and goes on", exc_info=error)
        else:
            if fails and self._observed and not work.reported:
                self._observers.node_ended(work)
            self._conclude(work)
            if work.queue.closed and not work.queue.pending:
                self._finish(work.queue)
        self._end_rest(repaired)

    def _repair(self) -> None:
        """After an exception in the middle of anything here: makes all that is counted anew from the tasks."""
        try:
            self._hold()
            repaired = self._rebuild()
        finally:
            release_owned()
        self._start_loops_or_fail(repaired.loops)
        self._end_rest(repaired)

    def _hold(self) -> None:
        """Holds the pool's lock and no other: what was interrupted may have left it held, so that nobody sees that."""
        release_owned(but=self._lock)
        if not self._lock.is_owned():
            self._lock.acquire()

    def _rebuild(self) -> _Repaired:
        """Under the lock."""
        me = threading.get_ident()
        for loop in [each for each in self._starting if each.planner == me and not each.submitted]:
            self._starting.discard(loop)
            self._loops.discard(loop)
        for loop in [each for each in self._helpers if each.elsewhere and each.planner == me]:
            if not loop.submitted:
                self._helpers.discard(loop)
        pending = [work for run in self._runs for work in run.pending]
        held = {work for loop in (*self._loops, *self._helpers) for work in loop.in_hand()}
        # Where nobody looks a node that ends well has no outcome, and its future is done.
        lost = [
            work
            for work in pending
            if work.state is ENDED and work.outcome is None and (work.future is None or not work.future.done())
        ]
        doomed = self._scheduler.rebuild(self._runs, pending, held, self._clock())
        for slot in [each for each in self._parked if each not in self._scheduler.running]:
            del self._parked[slot]
        over = [run for run in self._runs if run.closed and not run.pending]
        for run in over:
            self._leave_run(run)
        self._idle.notify_all()
        return _Repaired(unrun=[*lost, *doomed], over=over, loops=self._plan_loops())

    def _end_rest(self, repaired: _Repaired) -> None:
        self._end_unrun(repaired.unrun, self._clock())
        for run in repaired.over:
            self._finish(run)

    # Runs

    @_repairing
    def open_run(self, run: Run) -> None:
        """The run starts. Of several threads that bring its first nodes, one does it and the others wait."""
        with run.opening:
            if run.opened:
                return
            with self._changing:
                if self.closed and run.parent is None:
                    raise closed_error()
                self._runs.add(run)
                if run.parent is None and self._scheduler.shares is None and self._is_shared(run):
                    self._scheduler.share(self._clock())
            try:
                if run.record is not None:
                    self._observers.run_started(run.record)
            finally:
                run.opened = True  # whatever was raised while observers were told, they are not told twice

    @_repairing
    def close_run(self, run: Run) -> None:
        """No more nodes will come; the run ends when its last node has."""
        with self._changing:
            run.closed = True
            finished = not run.pending and run in self._runs
            if finished:
                self._leave_run(run)
                self._idle.notify_all()
        if finished:
            self._finish(run)

    @_repairing
    def cancel_run(self, run: Run) -> None:
        """Nothing of the run that has not started is started any more; those nodes' futures are cancelled."""
        now_ns = self._clock()
        with self._changing:
            run.cancelled = True
            run.stop()
            never_ran = self._scheduler.cancel(self._scheduler.unstarted(run), now_ns)
        self._end_unrun(never_ran, now_ns, cancelled=True)

    @_repairing
    def cancel_work(self, work: Work, future: NodeFuture) -> bool:
        """`Future.cancel`: True when the node will not run."""
        now_ns = self._clock()
        with self._changing:
            never_ran = self._scheduler.cancel([work], now_ns)
        if never_ran:
            self._end_unrun(never_ran, now_ns)
        return future.cancelled()

    def _finish(self, run: Run) -> None:
        record = run.record
        if record is None or record.ended_ns:
            return
        record.ended_ns = self._clock()
        if run.failure is not None:
            record.error = run.failure.error if record.error is None else record.error
        elif run.cancelled and is_a(record.error, CancelledError):
            record.error = None  # which is how the caller heard of it
        if record.error is not None:
            record.outcome = "error"
        else:
            record.outcome = "cancelled" if run.cancelled else "success"
        self._observers.run_ended(record)

    # Helping

    def help(self, slot: Work, future: Future[Any], deadline: float | None) -> None:
        """Waits for a future inside `slot`, a running node of this pool, and runs what is nested in it meanwhile."""
        with self.aside(slot):
            self._help(slot, future, deadline)

    @contextmanager
    def aside(self, work: Work) -> Iterator[None]:
        """What is done meanwhile on the node's thread is no work of the node's own."""
        if work.thread is not threading.current_thread():  # not observed, or a thread of the node's own
            yield
            return
        self._meter.leave(work)
        try:
            yield
        finally:
            self._meter.come_back(work)

    @contextmanager
    def handed_over(self, work: Work) -> Iterator[None]:
        """The node's function runs elsewhere meanwhile: what this thread waits for is not to be sampled."""
        if work.thread is not threading.current_thread():  # not observed
            yield
            return
        self._meter.hand_over(work)
        try:
            yield
        finally:
            self._meter.take_back(work)

    def announce(self, work: Work) -> None:
        """Sets up the context that the node will run in, as far as it is known, in the calling thread's own."""
        self._observers.node_announced(work)

    def _help(self, slot: Work, future: Future[Any], deadline: float | None) -> None:
        event = Event()
        helper = Loop(self._scheduler)
        helper.thread = threading.current_thread()
        wake = _Wake(event)
        future.add_done_callback(wake)
        try:
            self._help_until(event, slot, future, deadline, helper)
        except BaseException as error:
            try:
                self._helpers.add(helper)
                self._recover(helper, error)
                with self._lock:
                    self._unpark(slot, event)
            finally:
                while self._lock.is_owned():
                    self._lock.release()
            raise
        finally:
            forget_callback(future, wake)

    def _help_until(self, event: Event, slot: Work, future: Future[Any], deadline: float | None, helper: Loop) -> None:
        while True:
            event.clear()
            if future.done():
                return
            with self._changing:
                self._park(slot, event)  # first: it may be the last worker that did not wait, and so take anything
                self._helpers.add(helper)
                helper.work = work = self._scheduler.take(slot)  # type: ignore[assignment]  # only Work is ever added
                if work is None:
                    self._helpers.discard(helper)
                    self._wake_helpers()  # for whom the same is true now
                else:
                    self._unpark(slot, event)
            if work is not None:
                assert isinstance(work, Work)
                if not self._run_helping(helper, work):
                    return
                continue
            try:
                woken = event.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            finally:
                with self._lock:
                    self._unpark(slot, event)
            if not woken:
                return

    def _run_helping(self, helper: Loop, work: Work) -> bool:
        """Runs one node on a lent slot, or without one. False after a fork within it."""
        scheduler = self._scheduler
        ended = self._run(work)
        if scheduler is not self._scheduler:
            return False
        self._end_alone(helper, work, ended)
        return True

    def _end_alone(self, helper: Loop, work: Work, ended: bool) -> None:
        """Ends work that has run, or went back to wait for more, on a thread that takes nothing in its place."""
        if not ended:
            with self._changing:
                helper.work = None
                self._helpers.discard(helper)
                loops = self._plan_loops()
            self._start_loops_or_fail(loops)
            return
        cancelled: Sequence[Task] = ()
        future = work.future
        with self._changing:
            if work.error is None:
                doomed = self._scheduler.end(work, work.ended_ns)  # by another input, which failed before
            else:
                cancelled, doomed = self._end_failed(work)
            if future is not None and not future.done():
                future.resolve()  # before anybody takes what is ready now, and looks at it
            loops = self._plan_loops()
        self._start_loops_or_fail(loops)  # first: a done-callback may wait for what they run
        self._conclude(work)
        self._end_unrun(cancelled, work.ended_ns, cancelled=True)
        self._end_unrun(doomed, work.ended_ns)
        with self._lock:
            helper.work = None
            self._helpers.discard(helper)
        if self._ends_when_idle:
            self._end_if_idle()

    def _park(self, slot: Work, event: Event) -> None:
        self._parked.setdefault(slot, []).append(event)
        self._scheduler.park(slot)

    def _unpark(self, slot: Work, event: Event) -> None:
        events = self._parked.get(slot, [])
        if event in events:
            events.remove(event)
        if not events:
            self._parked.pop(slot, None)
            self._scheduler.unpark(slot)

    def _wake_helpers(self) -> None:
        for slot, events in self._parked.items():
            if self._scheduler.can_lend(slot):
                events[0].set()

    # Closing

    def close(self, *, cancel_pending: bool) -> None:
        """No new work; what is pending is done, or cancelled where it has not started; the threads end."""
        if (own := self._own_executor()) is not None:
            own.shutdown(wait=True, cancel_futures=cancel_pending)
        else:
            self.shut_down(wait=True, cancel_pending=cancel_pending)

    @_repairing
    def shut_down(self, *, wait: bool, cancel_pending: bool) -> None:
        """What `executor.shutdown` does."""
        if wait:
            self._refuse_to_wait_for_oneself()
        with self._lock:
            self.closed = True
            runs = list(self._runs)
        if cancel_pending:
            for run in runs:
                self.cancel_run(run)
        with self._lock:
            while wait and ((pending := self._has_pending) or self.has_runs):
                # A run with nothing pending is about to bring more nodes, or to be left by its caller. Or that has
                # happened and nobody told.
                if not self._idle.wait(None if pending else QUIET_SECONDS) and not self._has_pending:
                    break
            self._ends_when_idle = ends_later = self._has_pending
            self._after_each = self._after_each or ends_later
        if not ends_later:
            self._end_threads(wait=wait, cancel_futures=cancel_pending)
        if wait:
            self.end_runs()

    @property
    def has_runs(self) -> bool:
        """Whether any run has not ended. Without the lock, so it may be late."""
        return len(self._runs) > 1  # one is not a run

    @_repairing
    def end_runs(self, *, cancel_pending: bool = False) -> None:
        """No run gets more nodes, because nobody is left to bring them. Each ends when its last node has."""
        with self._lock:
            runs = [run for run in self._runs if run.record is not None]
        for run in runs:
            if cancel_pending and run.pending:
                self.cancel_run(run)
            self.close_run(run)

    def _end_threads(self, *, wait: bool, cancel_futures: bool = False) -> None:
        if (own := self._own_executor()) is not None:
            own.end(wait=wait, cancel_futures=cancel_futures)
        self._senders.end(wait=wait)

    def _refuse_to_wait_for_oneself(self) -> None:
        within: Task | None = current_work.get()
        while within is not None and not (isinstance(within, Work) and within.pool is self and within.state == RUNNING):
            within = within.queue.parent
        with self._lock:
            me = threading.current_thread()
            # Somebody else's executor may run nodes on the thread that calls: it has none of ours afterwards.
            own_thread = (me in self._threads and self._own_executor() is not None) or any(
                loop.thread is me for loop in (*self._loops, *self._helpers)
            )
        if within is not None or own_thread:
            where = "a done-callback of a node" if within is None else f"node {within.name!r}"
            raise RuntimeError(
                f"close() was called from {where}, which runs in this adapter's own threads and would wait for "
                "itself; call close() from the code that calls execute()"
            )

    def _end_if_idle(self) -> None:
        """The last pending node of a pool that was shut down without waiting takes the threads with it."""
        with self._lock:
            if self._has_pending:
                return
        self._end_threads(wait=False)

    # Looking

    def snapshot(self) -> PoolSnapshot:
        now_ns = self._clock()
        with self._lock:
            return snapshot_of(
                self._scheduler,
                self._runs,
                workers=sum(thread.is_alive() for thread in self._threads),
                limits=self._limits or {},
                elsewhere=self._elsewhere,
                now_ns=now_ns,
            )

    def look(self, before: PoolLook | None = None) -> PoolLook:
        """The runs in progress and their nodes, copied at one moment.

        Args:
            before: The last look. A run in which nothing has come, started or ended since is not copied again.
        """
        known = {} if before is None else {each.run: each for each in before.runs}
        with self._lock:
            now_ns = self._clock()
            scheduler = self._scheduler
            threads = self._threads_at_work()
            running: dict[RunQueue, list[Work]] = {}
            for task in scheduler.running:
                running.setdefault(task.queue, []).append(task)  # type: ignore[arg-type]  # only Work is ever added
            looks = [
                look_at(run, running.get(run, ()), scheduler.held(run), before=known.get(run)) for run in self._runs
            ]
            closed, busy = self.closed, scheduler.busy_count
        limits = {THREADS: self.max_workers, **(self._limits or {})}
        return PoolLook(
            now_ns=now_ns,
            threads=threads,
            closed=closed,
            lanes=lanes_of(looks, limits, busy, now_ns),
            runs=sorted((look for look in looks if look.run.record is not None), key=_started_ns),
        )

    def running(self) -> tuple[int, Mapping[Work, threading.Thread | None]]:
        """The moment, and the nodes that run, each with its thread, if it has one here."""
        with self._lock:
            return self._clock(), self._threads_at_work()

    def _threads_at_work(self) -> dict[Work, threading.Thread | None]:
        """Under the lock. Known without a word from the nodes: they need not be observed."""
        return {
            loop.work: loop.thread
            for loop in (*self._loops, *self._helpers)
            if loop.work is not None
            and loop.work.state is RUNNING
            and (loop.thread is not None or (loop.elsewhere and loop.submitted))
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repaired:
    """What is left to do, without the lock, once all is made anew."""

    unrun: Sequence[Task]
    over: Sequence[Run]
    loops: Sequence[Loop]


def _started_ns(look: RunLook) -> int:
    return 0 if look.run.record is None else look.run.record.started_ns


class _Wake:
    """A done-callback that can be told from others and taken back."""

    __slots__ = ("_event",)

    def __init__(self, event: Event) -> None:
        self._event = event

    def __call__(self, _: Future[Any]) -> None:
        self._event.set()


def _forget_own_frames(error: BaseException) -> None:
    """Cuts `_run` and `_call` off the traceback: of no use to a reader, and their locals would form a cycle.

    An exception may refuse to be changed (a frozen dataclass does): then it keeps them.
    """
    try:
        traceback = traceback_of(error)
        while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
            traceback = traceback.tb_next
        if traceback is not None:
            set_traceback(error, traceback)
    except BaseException:
        logger.debug("a node's exception of type %s keeps the pool's frames", type(error).__name__)


def _release(work: Work) -> None:
    """Lets go of everything that only running needed, so that results live no longer than their futures.

    `_end_and_take` does the same without a call.
    """
    work.function = None
    work.arguments = _NO_ARGUMENTS
    work.context = None
    work.future = None
    work.thread = None
    work.inputs = ()
    work.parameters = ()


_NO_ARGUMENTS: Final[dict[str, Any]] = {}
