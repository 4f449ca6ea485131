"""The pool's threads as an executor, which the documented API lets anybody use and shut down."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Protocol

from traced_threadpool.model.formatting import count, outline
from traced_threadpool.model.lock_backoff import Condition, OwnedLock
from traced_threadpool.model.thread_end import wait_for_end


class ShutDown(Protocol):
    """Closes the pool: no new work; what is pending is done, or cancelled; the threads end."""

    def __call__(self, *, wait: bool, cancel_pending: bool) -> None: ...


class PoolExecutor(ThreadPoolExecutor):
    """The pool's threads. To shut it down is to close the pool.

    Args:
        pool: Whose `shut_down` is called. Not kept alive.
        max_workers: How many threads.
        thread_name_prefix: Start of their names.
    """

    def __init__(self, pool: Any, max_workers: int, thread_name_prefix: str) -> None:
        super().__init__(max_workers, thread_name_prefix)
        self._idle_semaphore._cond = Condition(OwnedLock())  # type: ignore[attr-defined]  # the stub leaves it out
        self._pool_reference: Callable[[], Any] = weakref.ref(pool)
        self._refuses = False
        self.in_use = True  # it runs its pool's nodes; otherwise it is one like any other

    def __repr__(self) -> str:
        return outline(self, self._thread_name_prefix, count(self._max_workers, "worker"))

    def is_of(self, pool: object) -> bool:
        return self._pool_reference() is pool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._refuses:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return super().submit(fn, *args, **kwargs)

    def submit_loop(self, loop: Callable[[Any], None], token: object) -> Future[None]:
        """Also after `shutdown`, while nodes that were submitted before are pending."""
        return super().submit(loop, token)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As in `ThreadPoolExecutor`; nodes are what is pending, and `cancel_futures` cancels those not started."""
        self._refuses = True
        pool = self._pool_reference() if self.in_use else None
        if pool is None:
            self.end(wait=wait, cancel_futures=cancel_futures)
        else:
            shut_down: ShutDown = pool.shut_down
            shut_down(wait=wait, cancel_pending=cancel_futures)

    def end(self, *, wait: bool, cancel_futures: bool = False) -> None:
        """The threads end, after what they have been given."""
        self._refuses = True
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            for thread in tuple(self._threads):
                wait_for_end(thread)


def submit_loop(executor: Executor, loop: Callable[[Any], None], token: object) -> Future[None]:
    """Has an executor, the pool's own or another, call `loop(token)` on one of its threads."""
    if isinstance(executor, PoolExecutor):
        return executor.submit_loop(loop, token)
    return executor.submit(loop, token)


def default_max_workers() -> int:
    """What `ThreadPoolExecutor` takes by default: its formula differs between Python versions."""
    return ThreadPoolExecutor()._max_workers
