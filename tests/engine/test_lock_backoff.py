"""A thread that finds a lock held yields to its holder; one that fails with a lock in hand releases it."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

from traced_threadpool.model.lock_backoff import OwnedLock, release_owned, yield_to_holder


def test_returns_when_the_holder_has_let_go() -> None:
    """It takes the GIL from nobody, so that the holder gets to its end; and it does not take the lock."""
    lock = OwnedLock()
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            assert let_go.wait(60)

    with ThreadPoolExecutor(1) as other:
        holding = other.submit(hold)
        assert held.wait(60)
        assert lock.locked()
        let_go.set()
        yield_to_holder(lock)
        holding.result(10)
    assert not lock.locked()


def test_gives_up_on_a_holder_that_does_not_let_go() -> None:
    """After that, queueing is right: the caller's `acquire` does."""
    lock = threading.Lock()
    with lock:
        yield_to_holder(lock)
        assert lock.locked()


def test_releases_what_the_calling_thread_holds_and_nothing_else() -> None:
    """However often it was taken; another thread's stays."""
    mine, theirs = OwnedLock(), OwnedLock()
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with theirs:
            held.set()
            assert let_go.wait(60)

    with ThreadPoolExecutor(1) as other:
        holding = other.submit(hold)
        assert held.wait(60)
        mine.acquire()
        mine.acquire()
        assert release_owned() == 2
        assert theirs.locked()
        let_go.set()
        holding.result(10)
    assert not mine.locked()


def test_locks_come_and_go_during_a_garbage_collection() -> None:
    """Whatever is made or freed while they are counted, nobody who makes one meets an error."""
    kept = [OwnedLock() for _ in range(3_000)]
    before, thresholds = len(kept), gc.get_threshold()

    def make(_phase: str, _facts: dict[str, int]) -> None:
        kept.append(OwnedLock())

    gc.callbacks.append(make)
    try:
        gc.set_threshold(500)  # so that lists of thousands meet one
        made = [OwnedLock() for _ in range(20_000)]
        assert release_owned() == 0
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(make)
    assert len(made) == 20_000
    assert len(kept) > before
