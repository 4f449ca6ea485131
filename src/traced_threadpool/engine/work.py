"""One node as a piece of work, its future, and its run: what the adapter hands to the pool.

Waiting belongs here too, since it is futures that are waited for: inside a node, a wait *helps* the pool.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any, Final, NoReturn

from traced_threadpool.engine.backends.base import Backend, Call
from traced_threadpool.engine.backends.held import Held
from traced_threadpool.engine.scheduler import NEW, RUNNING, RunQueue, Task
from traced_threadpool.model.concurrency import STORES_IN_ORDER
from traced_threadpool.model.exceptions import is_a, reason_of
from traced_threadpool.model.lock_backoff import Condition, OwnedLock
from traced_threadpool.model.records import THREADS

if TYPE_CHECKING:
    from traced_threadpool.engine.pool import Pool
    from traced_threadpool.model.records import RunRecord

logger = logging.getLogger("traced_threadpool")

NO_PICKLE = (
    "a FutureAdapter and its futures cannot be sent to another process: this executor pickles its tasks. "
    "For Parallelizable/Collect use .with_remote_executor(SynchronousLocalTaskExecutor()), which runs every "
    "branch in this adapter's threads, or MultiThreadingExecutor"
)


def closed_error() -> RuntimeError:
    """What using a closed adapter raises."""
    return RuntimeError("this FutureAdapter is closed and takes no new work; make a new one")


MOST_FAILED_NAMES: Final = 100
"""How many names of nodes that raised a run keeps, for whoever looks at it while it goes on."""

MOST_CAUSES: Final = 16
"""How far an exception is followed to what it was raised from."""

current_work: contextvars.ContextVar[Work | None] = contextvars.ContextVar(
    "traced_threadpool_current_work", default=None
)
"""The node that the current code belongs to."""


class Run(RunQueue):
    """A run as the pool sees it: `record` is None for nodes submitted outside of any run."""

    __slots__ = (
        "built",
        "caller_context",
        "caller_thread_id",
        "calls",
        "cancelled",
        "closed",
        "errors",
        "expanded",
        "fail_fast",
        "failed_count",
        "failed_names",
        "failure",
        "opened",
        "opening",
        "outer_error",
        "pending",
        "placement",
        "plan",
        "record",
        "skipped",
        "stopped",
    )

    def __init__(
        self,
        record: RunRecord | None,
        *,
        parent: Task | None = None,
        fail_fast: bool = False,
        outer_error: BaseException | None = None,
    ) -> None:
        super().__init__(parent)
        self.caller_context = contextvars.copy_context()
        self.caller_thread_id = threading.get_ident()
        if record is not None:
            record.caller = self.caller_thread_id
        self.outer_error = outer_error  # what the caller was handling already when it started the run
        self.opening = OwnedLock()
        self.opened = False
        self.expanded: dict[str, Work] = {}  # nodes whose results were split into branches
        self.record = record
        self.fail_fast = fail_fast
        self.pending: set[Work] = set()  # nodes submitted whose end has not been told to everyone yet
        self.closed = False  # no more nodes will come
        self.built = False  # Hamilton has asked for its result
        self.failure: Work | None = None  # the first node that failed
        self.failed_count = 0
        self.failed_names: list[str] = []  # of the first that raised
        self.skipped: list[str] = []  # names of the nodes that ended without running
        self.plan: Callable[[], Mapping[str, Sequence[str]] | None] | None = None  # the nodes that it will have
        self.errors: list[BaseException] = []  # of all that failed
        self.cancelled = False  # some node of it was, or all that was left
        self.stopped = False  # nothing that has not started may start
        self.placement: Mapping[str, str] = {}  # the backends of its nodes, where they are not threads
        self.calls: dict[Call, Backend] = {}  # that run elsewhere now

    def stop(self) -> None:
        """Nothing that has not started may start, and what runs elsewhere is cancelled there. Waits for nobody."""
        self.stopped = True
        for call, backend in self.calls.copy().items():
            try:
                backend.cancel(call)
            except Exception:  # such as no thread for the timer: the call then runs to its end
                logger.exception("node %r could not be cancelled on its backend", call.record.name)

    def forget_call(self, call: Call) -> None:
        """It will not be made. Waits for nobody."""
        backend = self.calls.pop(call, None)
        if backend is not None:
            backend.cancel(call)

    def note_failed(self, name: str) -> None:
        """One of its nodes raised. Under the pool's lock."""
        self.failed_count += 1
        if len(self.failed_names) < MOST_FAILED_NAMES:
            self.failed_names.append(name)

    def raised(self, error: BaseException) -> bool:
        """Whether this came from one of the run's nodes: it raised it, or what it was raised from; or was cancelled."""
        if is_a(error, CancelledError) and self.cancelled:
            return True
        known = [*self.errors, *(() if self.failure is None else (self.failure.error,))]
        step: BaseException | None = error
        for _ in range(MOST_CAUSES):
            if step is None:
                break
            if any(each is step for each in known):
                return True
            step = reason_of(step) if is_a(step, Exception) else None
        return False


class Work(Task):
    """One node function to call, with its arguments, some of which are futures."""

    __slots__ = ("arguments", "collected", "context", "function", "future", "pool", "reported")

    queue: Run

    # Fields are set here, without a call of the base classes' initializers: this is done for every node. Those that are
    # not are set before they are read.
    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        queue: Run,
        pool: Pool,
        context: contextvars.Context,
        run_id: str | None = None,
        task_id: str | None = None,
        definition: object = None,
        collected: str | None = None,
    ) -> None:
        self.name = name
        self.function: Callable[..., Any] | None = function
        self.arguments = arguments
        self.collected = collected  # the argument that is a list which may hold futures
        self.queue = queue
        self.run = queue.record
        self.pool = pool
        self.context: contextvars.Context | None = context
        self.run_id = run_id
        self.task_id = task_id
        self.definition = definition
        self.future: NodeFuture | None = None  # None again once resolved: a cycle would keep results alive
        self.state = NEW
        self.failed = self.reported = False  # reported: observers have heard of its end
        self.dependents = self.cause = self.outcome = self.error = None
        self.inputs = self.parameters = ()
        self.ready_ns = self.started_ns = self.ended_ns = self.cpu_ns = self.aside_ns = self.samples = (
            self.queue_others_ns
        ) = 0
        self.thread = self.span = self.span_context = self.state_ns = self.counted_ns = self.timing = self.lock = None
        self.backend = THREADS


DONE = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))


class _MadeWhenAsked:
    """An attribute that is made when it is first asked for. What is in an instance's own dict goes before it.

    A `__getattr__` would do as well, but the interpreter looks up every attribute the slow way on a class that has one.
    """

    def __init__(self, make: Callable[[], object], *, watched: bool = False) -> None:
        self._make = make
        self._watched = watched

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, future: NodeFuture | None, owner: type) -> Any:
        if future is None:
            return self
        if self._watched:
            future._watched = True
        return future.__dict__.setdefault(self._name, self._make())


class NodeFuture(Future[Any]):
    """The future of a node. Waiting for it inside a node of a pool helps instead of blocking.

    Most futures of a DAG are never waited for: their values go to other nodes. So the condition and the lists that
    `Future` makes at once, two thirds of the cost of a future, are made here when somebody first asks for them.

    The race: a waiter sets `_watched`, then looks at `_state`; the pool sets `_state`, then looks at `_watched`.
    Whichever comes first, one of them sees the other. That holds where stores are seen in one order, as under the
    GIL; without the GIL every future counts as watched.
    """

    __slots__ = ("_exception", "_result", "_state", "_watched", "work")  # a dict of its own only when asked

    _condition = _MadeWhenAsked(lambda: Condition(OwnedLock()), watched=True)
    _waiters = _MadeWhenAsked(list)
    _done_callbacks = _MadeWhenAsked(list)

    def __init__(self, work: Work) -> None:
        self._state = PENDING
        self._result = self._exception = None
        self._watched = not STORES_IN_ORDER
        self.work = work

    def done(self) -> bool:
        return self._state in DONE

    def result(self, timeout: float | None = None) -> Any:
        if self._state != FINISHED:
            self._await(timeout)
        if self._exception is None:
            value = self._result
            return value.result() if type(value) is Held else value
        try:
            raise self._exception
        finally:
            del self  # which is in the exception's traceback from now on

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state != FINISHED:
            self._await(timeout)
        return self._exception

    def _await(self, timeout: float | None) -> None:
        """Returns when it is finished; raises CancelledError or TimeoutError. `Future.result` asks exceptions whether
        they are true, and an exception may say no, or raise.
        """
        super().exception(self._help(timeout))

    def cancel(self) -> bool:
        return self.work.pool.cancel_work(self.work, self)

    def set_outcome(self, result: Any, error: BaseException | None) -> None:
        """What it will be resolved with."""
        self._result = result
        self._exception = error

    def resolve(self) -> None:
        """Resolved from now on. By the pool, under its lock, so that whoever sees it done finds the node ended."""
        if self._state in DONE:
            logger.error("the future of node %r was resolved by somebody else", self.work.name)
        else:
            self._state = FINISHED

    def resolve_cancelled(self) -> None:
        """As `resolve`, for a node that was cancelled."""
        self._state = CANCELLED_AND_NOTIFIED

    def notify(self) -> None:
        """Wakes those who wait and calls those who asked to be called. After `resolve`, without the pool's lock.

        May be called again after it was interrupted: what was called is not called again.
        """
        if not self._watched:
            return
        with self._condition:
            for waiter in self._waiters:
                if self._state != FINISHED:
                    waiter.add_cancelled(self)
                elif self._exception is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        callbacks = self._done_callbacks
        while callbacks:
            callback = callbacks[0]
            try:
                callback(self)
            except BaseException:  # a callback that calls sys.exit() must not end the worker
                logger.exception("a done-callback of the future of node %r failed", self.work.name)
            del callbacks[0]

    def _help(self, timeout: float | None) -> float | None:
        return timeout if self._state in DONE else help_until_done(self, timeout)

    def __reduce__(self) -> NoReturn:
        raise TypeError(NO_PICKLE)


def help_until_done(future: Future[Any], timeout: float | None = None) -> float | None:
    """Helps while `future` is not done, where the caller is, or acts for, a node of a pool; else does nothing.

    Returns what is left of `timeout`.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    slot = _slot_for(future)
    if slot is not None:
        slot.pool.help(slot, future, deadline)
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _slot_for(future: Future[Any]) -> Work | None:
    """The running node in which the caller waits: the caller's own, else the one that the future's run is nested in.

    The latter is how a thread of somebody else's, such as those of Hamilton's `MultiThreadingExecutor`, is known
    to act for a node that itself only polls.
    """
    slot: Task | None = current_work.get()
    if slot is None and isinstance(future, NodeFuture):
        slot = future.work.queue.parent
    while slot is not None and slot.state != RUNNING:
        slot = slot.queue.parent
    return slot if isinstance(slot, Work) else None
