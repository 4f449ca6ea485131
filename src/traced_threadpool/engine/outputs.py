"""A caller waits for the outputs of a run: all there, or the failure that it is to hear of.

Whoever waits inside a node helps the pool meanwhile. When an exception that no node raised ends the wait, such as
Ctrl-C, the rest of the run is cancelled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError  # the builtin one from 3.11 on
from typing import Any, Final

from traced_threadpool.engine.work import NodeFuture, help_until_done
from traced_threadpool.model.exceptions import is_a
from traced_threadpool.model.lock_backoff import Condition, OwnedLock

LOST_SECONDS: Final = 1.0
"""After how long a wait for the first failure looks again by itself."""


def wait_for_outputs(futures: Sequence[Future[Any]], *, fail_fast: bool) -> None:
    """Returns when all are done and none has failed.

    Args:
        futures: Of nodes, some of them perhaps of others.
        fail_fast: Whether the first failure of the run is raised at once.

    Raises:
        BaseException: That of the first of these futures that failed; with `fail_fast` that of the first node that did.
    """
    try:
        if fail_fast:
            _wait_for_all_or_failure(futures)
        for future in futures:
            help_until_done(future)
            future.result()
    except BaseException as error:  # Ctrl-C or what else a signal handler raises, unless it is a node's own
        if not _came_from(futures, error):
            _cancel_runs_of(futures)
        raise


def _wait_for_all_or_failure(futures: Sequence[Future[Any]]) -> None:
    """Returns when all are done; raises the first failure of their run as soon as there is one."""
    gate: Future[None] = Future()
    gate._condition = Condition(OwnedLock())  # which an exception that comes here does not leave locked
    ended: set[Future[Any]] = set()

    def one_done(future: Future[Any]) -> None:
        ended.add(future)
        if _error_of(future) is not None or len(ended) == count:
            with contextlib.suppress(InvalidStateError):  # it was open
                gate.set_result(None)

    count = len(set(futures))
    for future in futures:
        future.add_done_callback(one_done)
    while count and not gate.done():
        with contextlib.suppress(FutureTimeoutError):
            gate.result(help_until_done(gate, LOST_SECONDS))
        # Futures drop what their callbacks raise: an exception at a bad moment leaves the gate closed.
        if all(future.done() for future in futures) or any(map(_has_failed, futures)):
            break
    for future in futures:
        if isinstance(future, NodeFuture):
            failure = future.work.queue.failure
            if failure is not None and failure.error is not None:
                raise failure.error


def _has_failed(future: Future[Any]) -> bool:
    return future.done() and _error_of(future) is not None


def _error_of(future: Future[Any]) -> BaseException | None:
    """The exception of a future that is done."""
    try:
        return future.exception()
    except BaseException as error:  # CancelledError
        return error


def _came_from(futures: Sequence[Future[Any]], error: BaseException) -> bool:
    """Whether an error that was met while waiting for these futures is that of one of them, or of their run."""
    return any(
        (is_a(error, CancelledError) and future.cancelled())
        or (future.done() and _error_of(future) is error)
        or (isinstance(future, NodeFuture) and future.work.queue.raised(error))
        for future in futures
    )


def _cancel_runs_of(futures: Sequence[Future[Any]]) -> None:
    for future in futures:
        if isinstance(future, NodeFuture):
            run = future.work.queue
            if run.record is None:
                future.cancel()
            else:
                future.work.pool.cancel_run(run)
