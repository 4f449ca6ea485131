"""A thread that finds a lock held yields to its holder."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from traced_threadpool.model.lock_backoff import yield_to_holder


def test_returns_when_the_holder_has_let_go() -> None:
    """It takes the interpreter from nobody, so that the holder gets to its end; and it does not take the lock."""
    lock = threading.Lock()
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            assert let_go.wait(60)

    with ThreadPoolExecutor(1) as other:
        holding = other.submit(hold)
        assert held.wait(60)
        let_go.set()
        yield_to_holder(lock)
        holding.result(10)
    assert not lock.locked()


def test_gives_up_on_a_holder_that_does_not_let_go() -> None:
    """After that, queueing up is right: the caller's `with` does."""
    lock = threading.Lock()
    with lock:
        yield_to_holder(lock)
        assert lock.locked()
