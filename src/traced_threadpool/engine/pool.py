"""Ready tasks into calls on threads. Owns the lock, the scheduler, cancelling, closing and helping.

Worker loops run on a `ThreadPoolExecutor`. A loop takes the next ready task, runs it, ends it and takes the next
under one hold of the lock, until there is none; a node made ready by the one just ended so runs on the same
worker, with no hand-off. A further loop is started only while there is ready work and a worker is free.

A worker never waits for an upstream node. What it may wait for is a run of its own: a node function that executes
a driver. Then it *helps*: it runs that run's ready nodes on its own slot instead of blocking (see `scheduler`).

No lock is held across a call into user code: node functions, hooks, done-callbacks, observers.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures._base import FINISHED
from concurrent.futures._base import RUNNING as RUNNING_FUTURE
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from traced_threadpool.engine.scheduler import AS_ADDED, ENDED, RUNNING, RunQueue, Scheduler, Task
from traced_threadpool.engine.work import NodeFuture, Run, Work, closed_error, current_work
from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import yield_to_holder
from traced_threadpool.model.observers import Observers
from traced_threadpool.model.records import NodeRecord

MOST_WORKERS: Final = 1_000_000
"""Of an executor that says it has more, or no end of them."""

QUIET_SECONDS: Final = 1.0
"""How long `close` waits for the next node of a run that its caller has not left."""


class _Executor(ThreadPoolExecutor):
    """The pool's threads. To shut it down, as the documented API lets anybody do, is to close the pool."""

    def __init__(self, pool: Pool, max_workers: int, thread_name_prefix: str) -> None:
        super().__init__(max_workers, thread_name_prefix)
        self._pool_reference: Callable[[], Pool | None] = weakref.ref(pool)
        self._refuses = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._refuses:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return super().submit(fn, *args, **kwargs)

    def submit_loop(self, loop: Callable[[_LoopStart], None], start: _LoopStart) -> None:
        """Also after `shutdown`, while nodes that were submitted before are pending."""
        super().submit(loop, start)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As in `ThreadPoolExecutor`; nodes are what is pending, and `cancel_futures` cancels those not started."""
        self._refuses = True
        pool = self._pool_reference()
        if pool is None:
            self.end(wait=wait, cancel_futures=cancel_futures)
        else:
            pool.shut_down(wait=wait, cancel_pending=cancel_futures)

    def leave_pool(self) -> None:
        """Another executor has taken its place: from now on it is one like any other."""
        self._pool_reference = lambda: None

    def end(self, *, wait: bool, cancel_futures: bool = False) -> None:
        """The threads end, after what they have been given."""
        self._refuses = True
        super().shutdown(wait=wait, cancel_futures=cancel_futures)


class _LoopStart:
    """One request for a worker loop. Void once it is known that it could not be started."""

    __slots__ = ("void",)

    def __init__(self) -> None:
        self.void = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """The pool at one moment. Ages are in seconds, 0 when there is none."""

    queue_depth: int
    blocked_nodes: int
    active_workers: int
    workers: int
    max_workers: int
    oldest_queued_seconds: float
    oldest_active_seconds: float
    active_runs: int


class Meter(Protocol):
    """Reads clocks at a node's start and end, on its worker, and says where its time went. Must not raise."""

    def start(self, node: NodeRecord) -> None:
        """Sets `started_ns`."""

    def end(self, node: NodeRecord) -> None:
        """Sets `ended_ns`, `cpu_ns` and what else it knows."""

    def leave(self, node: NodeRecord) -> None:
        """The worker turns from the node to what runs within it, until `come_back`."""

    def come_back(self, node: NodeRecord) -> None: ...


class Pool:
    """Runs submitted work on at most `max_workers` threads, each piece once all its inputs are there."""

    def __init__(
        self,
        max_workers: int,
        thread_name_prefix: str,
        observers: Observers,
        meter: Meter,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock = clock
        self._meter = meter
        self._observers = observers
        self._observed = observers.any
        self._thread_name_prefix = thread_name_prefix
        self.executor: Executor = _Executor(self, max_workers, thread_name_prefix)
        self.max_workers = max_workers
        self.closed = False
        self._reset()
        forks.register(self._reset_after_fork)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._scheduler = Scheduler(self.max_workers)
        self._runs: set[Run] = set()
        self.unbound = Run(None)  # nodes submitted outside of any run
        if self.max_workers == 1:
            self.unbound.ranks = AS_ADDED
        self._runs.add(self.unbound)
        self._parked: dict[Task, list[threading.Event]] = {}
        self._threads: set[threading.Thread] = set()  # as many as `max_workers` at most: they end with the executor
        self._loops = 0
        self._starting = 0
        self._pending = 0
        self._ends_when_idle = False

    def use_executor(self, executor: Executor) -> None:
        """What starts from now on runs on threads of somebody else's, as many nodes at once as it has workers."""
        workers = getattr(executor, "_max_workers", None)
        with self._lock:
            replaced, self.executor = self.executor, executor
            if isinstance(workers, (int, float)) and workers >= 1:
                self.max_workers = self._scheduler.max_workers = math.ceil(min(workers, MOST_WORKERS))
        if isinstance(replaced, _Executor):
            replaced.leave_pool()

    def _reset_after_fork(self) -> None:
        """Fresh workers and locks in a forked child: the parent's threads do not exist there."""
        self.executor = _Executor(self, self.max_workers, self._thread_name_prefix)
        if self.closed:
            self._end_threads(wait=False)
        self._reset()

    # Submitting

    def submit(self, work: Work) -> NodeFuture:
        """Takes in a piece of work; returns its future at once.

        Raises RuntimeError when the pool is closed, or when no thread can be started for it.
        """
        future = work.future = NodeFuture(work)
        outside = self._find_inputs(work) if work.arguments else None
        work.submitted_ns = now_ns = self._clock()
        run = work.queue
        record = run.record
        never_ran: Sequence[Task] = ()
        starts = 0
        lock = self._lock
        if lock.locked():
            yield_to_holder(lock)
        with lock:
            if record is not None:
                record.node_count += 1
            elif self.closed and run is self.unbound:
                raise closed_error()
            run.pending += 1
            self._pending += 1
            stopped = run.stopped
            if stopped:
                work.state = ENDED
                work.failed = True
                work.cause = run.failure
                never_ran = (work,)
            elif not self._scheduler.add(work, work.inputs, now_ns):
                never_ran = (work,)
            if (self._loops < self.max_workers or self._parked) and self._scheduler.ready_count:
                starts = self._plan_loops()
        if outside:
            self._listen(outside)
        if never_ran:
            self._end_unrun(never_ran, now_ns, cancelled=stopped)
        if starts:
            error = self._start_loops(starts)
            if error is not None and not self._has_loops():
                self._withdraw(work)
                raise closed_error() if self.closed else error
        return future

    def _find_inputs(self, work: Work) -> Outside:
        """Sets what the work waits for. Returns those of its inputs that are somebody else's futures."""
        inputs: list[Task] = []
        parameters: list[str] = []
        outside: Outside = {}
        expanded = work.queue.expanded
        for name, value in work.arguments.items():
            if type(value) is NodeFuture and (upstream := value.work).pool is self:
                parameters.append(name)
                inputs.append(upstream)
            elif isinstance(value, Future):
                parameters.append(name)
                inputs.append(self._input(value, outside))
            elif name == work.collected and isinstance(value, list):
                for each in value:
                    if isinstance(each, Future):
                        parameters.append(name)
                        inputs.append(self._input(each, outside))
            elif name in expanded:  # an element of that node's list: there already, but where it came from is told
                parameters.append(name)
                inputs.append(expanded[name])
        if inputs:
            work.inputs = inputs
            work.parameters = parameters
        return outside

    def _input(self, future: Future[Any], outside: Outside) -> Task:
        """What to wait for: the node itself, or what stands for a future that is not one of this pool's nodes."""
        if isinstance(future, NodeFuture) and future.work.pool is self:
            return future.work
        known = outside.get(id(future))
        if known is not None:
            return known[0]
        task = Task("", queue=_OUTSIDE_QUEUE)
        self._scheduler.add_outside(task)
        outside[id(future)] = (task, future)
        return task

    def _listen(self, outside: Outside) -> None:
        """Hears of the end of futures that are not this pool's, once those who wait for them are known."""
        for task, future in outside.values():
            future.add_done_callback(partial(self._outside_done, task))

    def _outside_done(self, task: Task, future: Future[Any]) -> None:
        if isinstance(future, NodeFuture):  # a node of another adapter: not ours to run, but upstream all the same
            task.name = future.work.name
            task.span_context = future.work.span_context
        task.error = _failure_of(future)
        if future.cancelled():
            task.outcome = "cancelled"
        now_ns = self._clock()
        with self._lock:
            never_ran = self._scheduler.end(task, now_ns, failed=task.error is not None)
            starts = self._plan_loops()
        if never_ran:
            self._end_unrun(never_ran, now_ns)
        self._start_loops_or_fail(starts)

    # Worker loops

    def _plan_loops(self) -> int:
        """How many loops to start for what is ready now. Under the lock; the caller starts them outside of it."""
        scheduler = self._scheduler
        ready = scheduler.ready_count
        if not ready:
            return 0
        if self._parked:
            self._wake_helpers()
        starts = min(ready - self._starting, self.max_workers - self._loops)
        if starts <= 0:
            return 0
        self._starting += starts
        self._loops += starts
        return starts

    def _start_loops(self, count: int) -> RuntimeError | None:
        for started in range(count):
            start = _LoopStart()
            try:
                if isinstance(executor := self.executor, _Executor):
                    executor.submit_loop(self._loop, start)
                else:
                    executor.submit(self._loop, start).add_done_callback(partial(self._loop_refused, start))
            except BaseException as error:
                with self._lock:
                    start.void = True
                    self._starting -= count - started
                    self._loops -= count - started
                if isinstance(error, RuntimeError):  # interpreter at exit, or no thread can start
                    return error
                raise  # Ctrl-C
        return None

    def _start_loops_or_fail(self, count: int) -> None:
        """For work that becomes ready with no caller to raise to: it fails when nobody is left to run it."""
        error = self._start_loops(count)
        if error is None or self._has_loops():
            return  # the loops that run take everything that is ready before they end
        now_ns = self._clock()
        with self._lock:
            ready = [task for run in self._runs for task in run.waiting()]
            never_ran = self._scheduler.cancel(ready, now_ns)
        self._end_unrun(never_ran, now_ns, error=error, cancelled=True)

    def _loop_refused(self, start: _LoopStart, future: Future[Any]) -> None:
        """Another's executor was shut down with `cancel_futures=True` before this loop began."""
        if not future.cancelled():
            return
        with self._lock:
            if start.void:
                return
            start.void = True
            self._starting -= 1
            self._loops -= 1
            left = self._loops
            ready = [] if left else [task for run in self._runs for task in run.waiting()]
            never_ran = self._scheduler.cancel(ready, self._clock())
        self._end_unrun(never_ran, self._clock(), cancelled=True)

    def _has_loops(self) -> bool:
        if self._lock.locked():
            yield_to_holder(self._lock)
        with self._lock:
            return self._loops > 0

    def _loop(self, start: _LoopStart) -> None:
        if self._lock.locked():
            yield_to_holder(self._lock)
        with self._lock:
            if start.void:
                return
            self._threads.add(threading.current_thread())
            self._starting -= 1
            scheduler = self._scheduler
            work = self._take()
        run, end_and_take = self._run, self._end_and_take
        while work is not None:
            ended = run(work)
            if scheduler is not self._scheduler:
                return  # forked inside the node: this process has a scheduler of its own, without this work
            work = end_and_take(work) if ended else self._take_locked()

    def _take(self) -> Work | None:
        """The loop's next work; without one it counts as ended from this moment on. Under the lock."""
        work = self._scheduler.take()
        if work is None:
            self._loops -= 1
        return work  # type: ignore[return-value]  # only Work is ever added

    def _take_locked(self) -> Work | None:
        if self._lock.locked():
            yield_to_holder(self._lock)
        with self._lock:
            return self._take()

    def _run(self, work: Work) -> bool:
        """Calls the node's function; its future keeps the result. False when it went back to wait for more inputs."""
        future, context = work.future, work.context
        assert future is not None
        assert context is not None
        try:
            more = self._resolve(work) if work.inputs else None
        except BaseException as error:  # a future's own value was a future, and that one failed
            work.ended_ns = work.started_ns = self._clock()
            work.outcome = "cancelled" if isinstance(error, CancelledError) else "upstream_error"
            work.error = error
            self._observers.node_ended(work)
            future.keep(None, error)
            return True
        if more:
            self._await_more(work, more)
            return False
        future._state = RUNNING_FUTURE  # nobody cancels it from now on
        try:
            future._result = context.run(self._call_observed if self._observed else self._call, work)
        except BaseException as error:
            _forget_own_frames(error)
            future.keep(None, error)
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
        meter.start(work)
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
            meter.end(work)
            observers.node_ended(work)

    def _resolve(self, work: Work) -> Sequence[tuple[str, Future[Any]]]:
        """Puts values in the place of futures. Returns the futures among the values that are not resolved yet."""
        arguments = work.arguments
        more: list[tuple[str, Future[Any]]] = []
        for name in work.parameters:
            future = arguments.get(name)
            # What `result` does, without the calls: this is done for every input of every node.
            if type(future) is NodeFuture:
                if future._state is FINISHED and future._exception is None:
                    value = future._result
                    if not isinstance(value, Future):
                        arguments[name] = value
                        continue
            elif not isinstance(future, Future):
                continue
            arguments[name] = _value_of(work, name, future, more)
        collect = work.collected
        if collect is not None and isinstance(collected := arguments.get(collect), list):
            arguments[collect] = [
                _value_of(work, collect, each, more) if isinstance(each, Future) else each for each in collected
            ]
        return more

    def _await_more(self, work: Work, futures: Sequence[tuple[str, Future[Any]]]) -> None:
        """Sends work back to wait for futures that came as values of its futures."""
        outside: Outside = {}
        inputs = [self._input(future, outside) for _, future in futures]
        work.parameters = [*work.parameters, *(name for name, _ in futures)]
        with self._lock:
            self._scheduler.add_again(work, inputs, self._clock())
        self._listen(outside)

    def _end_and_take(self, work: Work) -> Work | None:
        """Ends work that has run, and takes the loop's next, under one hold of the lock."""
        run, scheduler = work.queue, self._scheduler
        future = work.future
        assert future is not None
        cancelled: Sequence[Task] = ()
        finished = False
        starts = 0
        lock = self._lock
        # Half the cost of a `with`. Only a Ctrl-C needs that, which meets the main thread, and this is a worker.
        if not lock.acquire(False):
            yield_to_holder(lock)
            lock.acquire()
        try:
            if future._state is RUNNING_FUTURE:
                future._state = FINISHED
            else:
                future.finish()
            if work.error is None:
                doomed = scheduler.end(work, work.ended_ns)  # by another input, which failed before
            else:
                cancelled, doomed = self._end_failed(work)
            following: Work | None = scheduler.take()  # type: ignore[assignment]  # only Work is ever added
            if following is None:
                self._loops -= 1
            if (self._loops < self.max_workers or self._parked) and scheduler.ready_count:
                starts = self._plan_loops()
            if run.pending > 1:
                run.pending -= 1
                self._pending -= 1
            else:
                finished = self._count_down(run)
        finally:
            lock.release()
        if future._watched:
            future.tell()
        work.function = work.context = work.future = work.thread = None
        work.arguments = _NO_ARGUMENTS
        work.inputs = work.parameters = ()
        if cancelled or doomed:
            self._end_unrun(cancelled, work.ended_ns, cancelled=True)
            self._end_unrun(doomed, work.ended_ns)
        if finished:
            self._finish(run)
        if starts:
            self._start_loops_or_fail(starts)
        if self._ends_when_idle:
            self._end_if_idle()
        return following

    def _end_failed(self, work: Work) -> tuple[Sequence[Task], Sequence[Task]]:
        """Under the lock. Returns the tasks that never run: cancelled by `fail_fast`, and doomed."""
        run, scheduler = work.queue, self._scheduler
        cancelled: Sequence[Task] = ()
        if work.error is not None:
            run.errors.append(work.error)
        if run.failure is None:
            run.failure = work
        if run.fail_fast and not run.stopped:
            run.stopped = True
            cancelled = scheduler.cancel(scheduler.unstarted(run), work.ended_ns, work)
        return cancelled, scheduler.end(work, work.ended_ns, failed=True)

    def _end_unrun(
        self,
        tasks: Sequence[Task],
        now_ns: int,
        *,
        cancelled: bool = False,
        error: BaseException | None = None,
    ) -> None:
        """Tells everyone of tasks that have ended without running. The scheduler has let go of them already.

        They carry `error`, else that of the node that stopped them; without either the future is cancelled.
        """
        for task in tasks:
            assert isinstance(task, Work)
            future = task.future
            assert future is not None
            cause = task.cause
            if cause is not None and cause is not task:
                error_here = error or cause.error
                unrun_because_cancelled = cancelled or cause.outcome == "cancelled"
            else:
                error_here, unrun_because_cancelled = error, True
            task.error = error_here
            task.outcome = "cancelled" if unrun_because_cancelled else "upstream_error"
            # What stopped it may have ended just before it was submitted.
            task.started_ns = task.ended_ns = max(now_ns, task.submitted_ns, task.ready_ns)
            task.ready_ns = task.ready_ns or task.ended_ns
            self._observers.node_ended(task)
            run = task.queue
            future.keep(None, error_here)
            with self._lock:
                if error_here is None:
                    future.finish_cancelled()
                else:
                    future.finish()
                if task.outcome == "cancelled":
                    run.cancelled = True
                elif run.failure is None:
                    run.failure = task
                finished = self._count_down(run)
            future.tell()
            _release(task)
            if finished:
                self._finish(run)
        if self._ends_when_idle:
            self._end_if_idle()

    def _count_down(self, run: Run) -> bool:
        """One more node of the run is done with. Returns whether the run is. Under the lock."""
        run.pending -= 1
        self._pending -= 1
        if not self._pending:
            self._idle.notify_all()
        if run.closed and not run.pending:
            self._runs.discard(run)
            self._idle.notify_all()
            return True
        return False

    # Runs

    def open_run(self, run: Run) -> None:
        """The run starts. Of several threads that bring its first nodes, one does it and the others wait."""
        with run.opening:
            if run.opened:
                return
            with self._lock:
                if self.closed and run.parent is None:
                    raise closed_error()
                self._runs.add(run)
            if run.record is not None:
                self._observers.run_started(run.record)
            run.opened = True

    def close_run(self, run: Run) -> None:
        """No more nodes will come; the run ends when its last node has."""
        with self._lock:
            run.closed = True
            finished = not run.pending and run in self._runs
            if finished:
                self._runs.discard(run)
                self._idle.notify_all()
        if finished:
            self._finish(run)

    def cancel_run(self, run: Run) -> None:
        """Nothing of the run that has not started is started any more; those nodes' futures are cancelled."""
        now_ns = self._clock()
        with self._lock:
            run.stopped = run.cancelled = True
            never_ran = self._scheduler.cancel(self._scheduler.unstarted(run), now_ns)
        self._end_unrun(never_ran, now_ns, cancelled=True)

    def cancel_work(self, work: Work, future: NodeFuture) -> bool:
        """`Future.cancel`: True when the node will not run."""
        now_ns = self._clock()
        with self._lock:
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
            record.error = record.error or run.failure.error
        elif run.cancelled and isinstance(record.error, CancelledError):
            record.error = None  # which is how the caller heard of it
        if record.error is not None:
            record.outcome = "error"
        else:
            record.outcome = "cancelled" if run.cancelled else "success"
        self._observers.run_ended(record)

    def _withdraw(self, work: Work) -> None:
        """Takes back work whose submission is about to fail."""
        with self._lock:
            never_ran = self._scheduler.cancel([work], self._clock())
        self._end_unrun(never_ran, self._clock(), cancelled=True)

    # Helping

    def help(self, slot: Work, future: Future[Any], deadline: float | None) -> None:
        """Waits for a future inside `slot`, a running node of this pool, and runs what is nested in it meanwhile."""
        if slot.thread is not threading.current_thread():  # not observed, or a thread of the node's own
            self._help(slot, future, deadline)
            return
        self._meter.leave(slot)
        try:
            self._help(slot, future, deadline)
        finally:
            self._meter.come_back(slot)

    def _help(self, slot: Work, future: Future[Any], deadline: float | None) -> None:
        event = threading.Event()

        def wake(_: Future[Any]) -> None:
            event.set()

        future.add_done_callback(wake)
        try:
            self._help_until(event, slot, future, deadline)
        finally:
            _forget_callback(future, wake)

    def _help_until(self, event: threading.Event, slot: Work, future: Future[Any], deadline: float | None) -> None:
        while True:
            event.clear()
            if future.done():
                return
            with self._lock:
                self._park(slot, event)  # first: it may be the last worker that did not wait, and so take anything
                work = self._scheduler.take(slot)
                if work is None:
                    self._wake_helpers()  # for whom the same is true now
                else:
                    self._unpark(slot, event)
            if work is not None:
                assert isinstance(work, Work)
                self._run_helping(work)
                continue
            try:
                woken = event.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            finally:
                with self._lock:
                    self._unpark(slot, event)
            if not woken:
                return

    def _run_helping(self, work: Work) -> None:
        scheduler = self._scheduler
        ended = self._run(work)
        if not ended or scheduler is not self._scheduler:
            return
        run = work.queue
        future = work.future
        assert future is not None
        cancelled: Sequence[Task] = ()
        doomed: Sequence[Task] = ()
        with self._lock:
            future.finish()
            if work.error is None:
                doomed = scheduler.end(work, work.ended_ns)  # by another input, which failed before
            else:
                cancelled, doomed = self._end_failed(work)
            starts = self._plan_loops()
            finished = self._count_down(run)
        future.tell()
        _release(work)
        self._end_unrun(cancelled, work.ended_ns, cancelled=True)
        self._end_unrun(doomed, work.ended_ns)
        if finished:
            self._finish(run)
        self._start_loops_or_fail(starts)

    def _park(self, slot: Work, event: threading.Event) -> None:
        self._parked.setdefault(slot, []).append(event)
        self._scheduler.park(slot)

    def _unpark(self, slot: Work, event: threading.Event) -> None:
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
        if isinstance(self.executor, _Executor):
            self.executor.shutdown(wait=True, cancel_futures=cancel_pending)
        else:
            self.shut_down(wait=True, cancel_pending=cancel_pending)

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
            while wait and (self._pending or self.has_runs):
                # A run with nothing pending is about to bring more nodes, or to be left by its caller. Or that has
                # happened and nobody told.
                if not self._idle.wait(None if self._pending else QUIET_SECONDS) and not self._pending:
                    break
            self._ends_when_idle = ends_later = bool(self._pending)
        if not ends_later:
            self._end_threads(wait=wait, cancel_futures=cancel_pending)
        if wait:
            self.end_runs()

    @property
    def has_runs(self) -> bool:
        """Whether any run has not ended. Without the lock, and it may be late."""
        return len(self._runs) > 1  # one is not a run

    def end_runs(self, *, cancel_pending: bool = False) -> None:
        """No run gets more nodes, because nobody is left to bring them. Each ends when its last node has."""
        with self._lock:
            runs = [run for run in self._runs if run.record is not None]
        for run in runs:
            if cancel_pending and run.pending:
                self.cancel_run(run)
            self.close_run(run)

    def _end_threads(self, *, wait: bool, cancel_futures: bool = False) -> None:
        """Those of its own; an executor that somebody put in their place is theirs to shut down."""
        if isinstance(self.executor, _Executor):
            self.executor.end(wait=wait, cancel_futures=cancel_futures)

    def _refuse_to_wait_for_oneself(self) -> None:
        within: Task | None = current_work.get()
        while within is not None and not (isinstance(within, Work) and within.pool is self and within.state == RUNNING):
            within = within.queue.parent
        with self._lock:
            own_thread = threading.current_thread() in self._threads
        if within is not None or own_thread:
            where = "a done-callback of a node" if within is None else f"node {within.name!r}"
            raise RuntimeError(
                f"close() was called from {where}, which runs in this adapter's own threads and would wait for "
                "itself; call close() from the code that calls execute()"
            )

    def _end_if_idle(self) -> None:
        """The last pending node of a pool that was shut down without waiting takes the threads with it."""
        with self._lock:
            if self._pending:
                return
        self._end_threads(wait=False)

    # Looking

    def snapshot(self) -> PoolSnapshot:
        now_ns = self._clock()
        with self._lock:
            scheduler = self._scheduler
            oldest_ready = scheduler.oldest_ready()
            return PoolSnapshot(
                queue_depth=scheduler.ready_count,
                blocked_nodes=scheduler.blocked_count,
                active_workers=scheduler.busy_count,
                workers=sum(thread.is_alive() for thread in self._threads),
                max_workers=self.max_workers,
                oldest_queued_seconds=_age(now_ns, oldest_ready.ready_ns if oldest_ready else 0),
                oldest_active_seconds=_age(
                    now_ns, min((task.started_ns for task in scheduler.running if task.started_ns), default=0)
                ),
                active_runs=sum(run.record is not None for run in self._runs),
            )


def default_max_workers() -> int:
    """What `ThreadPoolExecutor` takes by default: its formula differs between Python versions."""
    return ThreadPoolExecutor()._max_workers


def _forget_own_frames(error: BaseException) -> None:
    """Cuts `_run` and `_call` off the traceback: of no use to a reader, and their locals would form a cycle."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    if traceback is not None:
        error.__traceback__ = traceback


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


def _value_of(work: Work, name: str, future: Future[Any], more: list[tuple[str, Future[Any]]]) -> Any:
    """The value of an argument whose future is done; if that is a future, its value, and so on."""
    value = future.result()
    while isinstance(value, Future):
        if not value.done():
            more.append((name, value))
            return value
        if isinstance(value, NodeFuture) and value.work not in work.inputs:  # upstream too, by way of another
            work.inputs = [*work.inputs, value.work]
            work.parameters = [*work.parameters, name]
            if value.work.error is not None:
                work.cause = value.work.cause or value.work
        value = value.result()
    return value


def _forget_callback(future: Future[Any], callback: Callable[[Future[Any]], None]) -> None:
    """Takes a done-callback back, so that a node that looks again and again leaves nothing behind.

    Only of a future that is not done: of one that is, its list is being gone through without the lock.
    """
    with future._condition:
        if not future.done():
            future._done_callbacks.remove(callback)  # type: ignore[attr-defined]  # the stub leaves it out


def _failure_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _age(now_ns: int, since_ns: int) -> float:
    return max(0, now_ns - since_ns) / 1e9 if since_ns else 0.0


_NO_ARGUMENTS: Final[dict[str, Any]] = {}

Outside = dict[int, tuple[Task, Future[Any]]]
"""Futures that are not the pool's own, each with the task that stands for it, by the future's identity."""

_OUTSIDE_QUEUE = RunQueue()
