"""Which lock a worker waits for, and on which line: the sampler's notes of the moments, and a look at the threads."""

from __future__ import annotations

import contextlib
import gc
import inspect
import queue
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests import connection_pools
from tests.dags import eventually
from traced_threadpool.model.frames import current_frames
from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.waits import lock_names
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.lock_names import LONG_NS, LockNames, waits_at, waits_since
from traced_threadpool.waits.sampled_process import SampledProcess
from traced_threadpool.waits.sampler import Sampler

MS = 1_000_000


def memory(workers: int) -> memoryview[int]:
    words = memoryview(array("Q", bytes(8 * shm.ROW * (1 + workers))))
    words[shm.ROWS] = words[shm.ROWS_GIVEN] = workers
    return words


class Blocked:
    """Threads that wait, each with a row in which the sampler has seen that for long."""

    def __init__(self, *waits: Callable[[], object]) -> None:
        self.words = memory(len(waits))
        self.since_ns = time.monotonic_ns() - 2 * LONG_NS
        self.rows = [shm.ROW * (1 + number) for number in range(len(waits))]
        self.threads = [threading.Thread(target=wait, daemon=True) for wait in waits]
        for thread in self.threads:
            thread.start()

    def seen(self, number: int, address: int) -> None:
        words, at = self.words, self.rows[number]
        words[at + shm.THREAD] = self.threads[number].native_id or 0
        words[at + shm.DEPTH] = words[at + shm.LOCK_WAITS] = 1
        words[at + shm.LOCK_RING] = address
        words[at + shm.LOCK_RING + 1] = self.since_ns
        words[at + shm.LOCK_RING + 2] = time.monotonic_ns()

    def names(self) -> LockNames:
        """As if each thread waited where its row says."""
        threads = {self.words[at + shm.THREAD]: at for at in self.rows}
        return LockNames(lambda thread: self.words[threads[thread] + shm.LOCK_RING])

    def named(self, names: LockNames, number: int, node: str) -> LockWait | None:
        at = self.rows[number]
        return names.of(at, waits_since(self.words, at, self.since_ns - MS), node, self.since_ns - MS)


@contextmanager
def blocked(release: Callable[[], object], *waits: Callable[[], object], addresses: list[int]) -> Iterator[Blocked]:
    found = Blocked(*waits)
    for number, address in enumerate(addresses):
        found.seen(number, address)
    try:
        yield found
    finally:
        release()
        for thread in found.threads:
            thread.join(60)


def line_of(function: Callable[[], object]) -> str:
    """That of the waiting: the second one of the function."""
    return f"test_lock_names.py:{inspect.getsourcelines(function)[1] + 1}"


def looked_at(found: Blocked, names: LockNames, number: int, node: str, line: str) -> bool:
    names.look(found.words)
    wait = found.named(names, number, node)
    return wait is not None and wait.line == line


@pytest.mark.parametrize(("own_addresses", "addresses"), [(False, [0x10, 0x10, 0x20]), (True, [0x10, 0x30, 0x20])])
def test_all_who_wait_for_one_lock_are_told_the_same(
    own_addresses: bool, addresses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the address at which they wait, and where each has its own, by the line; another lock is another one."""
    monkeypatch.setattr(lock_names, "ADDRESS_OF_ITS_OWN", own_addresses)
    lock, other = threading.Lock(), threading.Lock()
    lock.acquire()
    other.acquire()

    def waits() -> None:
        lock.acquire()
        lock.release()

    def waits_elsewhere() -> None:
        other.acquire()

    def let_go() -> None:
        lock.release()
        other.release()

    with blocked(let_go, waits, waits, waits_elsewhere, addresses=addresses) as found:
        names = found.names()
        assert eventually(lambda: looked_at(found, names, 0, "load_1", line_of(waits)))
        assert eventually(lambda: looked_at(found, names, 2, "save", line_of(waits_elsewhere)))
        first, second, third = (found.named(names, number, f"n{number}x") for number in range(3))
        assert first is not None
        assert second is not None
        assert third is not None
        assert first.name == second.name != third.name
        assert (first.capacity, first.line, first.waits) == (1, line_of(waits), 1)
        assert first.last_ns > first.first_ns >= 0


def test_who_waits_for_one_semaphore_is_told_so_whatever_the_address() -> None:
    """With its capacity, once it was seen free; a bounded one says it."""
    semaphore, bounded = threading.Semaphore(2), threading.BoundedSemaphore(3)
    for _ in range(2):
        semaphore.acquire()
    for _ in range(3):
        bounded.acquire()

    def waits() -> None:
        semaphore.acquire()
        semaphore.release()

    def waits_elsewhere() -> None:
        bounded.acquire()
        bounded.release()

    def let_go() -> None:
        for _ in range(2):
            semaphore.release()
        for _ in range(3):
            bounded.release()

    with blocked(let_go, waits, waits, waits_elsewhere, addresses=[0x10, 0x20, 0x30]) as found:
        names = found.names()
        assert eventually(lambda: looked_at(found, names, 0, "a", line_of(waits)))
        assert eventually(lambda: looked_at(found, names, 1, "b", line_of(waits)))
        assert eventually(lambda: looked_at(found, names, 2, "c", line_of(waits_elsewhere)))
        first, second, third = (found.named(names, number, name) for number, name in enumerate("abc"))
        assert first is not None
        assert second is not None
        assert third is not None
        assert first.name == second.name
        assert first.name.startswith("Semaphore ")
        assert first.capacity is None
        assert third.capacity == 3
        let_go_once = semaphore.release
        let_go_once()
        semaphore.release()
        for thread in found.threads[:2]:
            thread.join(60)
        names.look(found.words)
        after = found.named(names, 0, "a")
        assert after is not None
        assert after.capacity == 2
        semaphore.acquire()
        semaphore.acquire()


def test_a_queue_of_connections_is_a_resource_and_an_event_is_none() -> None:
    connections: queue.Queue[int] = queue.Queue()
    connections.put(1)
    connections.get()
    event = threading.Event()

    def waits() -> None:
        connections.put(connections.get())

    def waits_for_word() -> None:
        event.wait()

    def let_go() -> None:
        connections.put(1)
        event.set()

    with blocked(let_go, waits, waits_for_word, addresses=[0x10, 0x20]) as found:
        names = found.names()
        assert eventually(lambda: looked_at(found, names, 0, "query", line_of(waits)))

        def is_known() -> bool:
            names.look(found.words)
            return found.named(names, 1, "word") is None

        assert eventually(is_known)
        wait = found.named(names, 0, "query")
        assert wait is not None
        assert wait.name.startswith("Queue ")


def test_a_pool_of_connections_may_be_a_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a capacity that nobody knows, at the line of the program that asks the pool, where that is installed."""
    monkeypatch.setattr(lock_names, "_INSTALLED", (connection_pools.__file__, contextlib.__file__))
    pool = connection_pools.OfACondition(1)
    taken = contextlib.ExitStack()
    taken.enter_context(pool.connection())

    def waits() -> None:
        with pool.connection():
            pass

    with blocked(taken.close, waits, waits, addresses=[0x10, 0x20]) as found:
        names = found.names()
        assert eventually(lambda: looked_at(found, names, 0, "query", line_of(waits)))
        assert eventually(lambda: looked_at(found, names, 1, "query", line_of(waits)))
        first, second = found.named(names, 0, "query"), found.named(names, 1, "query")
        assert first is not None
        assert second is not None
        assert first.name == second.name
        assert first.name.startswith("Condition ")
        assert first.capacity is None


def test_who_waits_for_a_place_in_a_queue_waits_for_no_resource() -> None:
    """What it waits for is that somebody takes."""
    full: queue.Queue[int] = queue.Queue(1)
    full.put(0)

    def waits() -> None:
        full.put(1)

    with blocked(full.get, waits, addresses=[0x10]) as found:
        names = found.names()

        def is_known() -> bool:
            names.look(found.words)
            return found.named(names, 0, "save") is None

        assert eventually(is_known)


def test_a_wait_that_is_over_names_no_line() -> None:
    """The frame is of what came after it, such as what is done under the lock."""
    go_on = threading.Event()

    def waits() -> None:
        go_on.wait()

    with blocked(go_on.set, waits, addresses=[0x10]) as found:
        names = LockNames(lambda thread: 0x20)
        names.look(found.words)
        wait = found.named(names, 0, "load")
        assert wait is not None
        assert wait.line == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a thread")
def test_where_a_thread_waits_the_kernel_tells() -> None:
    """All who wait for one lock do so at one address, as long as they do."""
    lock = threading.Lock()
    lock.acquire()

    def waits() -> None:
        with lock:
            pass

    with blocked(lock.release, waits, waits, addresses=[0, 0]) as found:
        first, second = (thread.native_id or 0 for thread in found.threads)
        same = not lock_names.ADDRESS_OF_ITS_OWN
        assert eventually(lambda: bool(waits_at(first)) and (waits_at(first) == waits_at(second)) is same)
    assert waits_at(first) is None


def test_nobody_is_looked_at_while_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor again for what is known."""
    looks = []
    frames = sys._current_frames
    monkeypatch.setattr(sys, "_current_frames", lambda: looks.append(1) or frames())
    lock = threading.Lock()
    lock.acquire()

    def waits() -> None:
        lock.acquire()

    with blocked(lock.release, waits, addresses=[0x10]) as found:
        names = found.names()
        place = found.rows[0] + shm.LOCK_RING
        found.words[place + 1] = found.words[place + 2] - LONG_NS // 2
        names.look(found.words)
        assert looks == []
        found.seen(0, 0x10)
        assert eventually(lambda: looked_at(found, names, 0, "load", line_of(waits)))
        many = len(looks)
        names.look(found.words)
        assert len(looks) == many


def test_the_sampler_notes_when_a_wait_for_a_lock_began_and_ended() -> None:
    """The same call at samples one after the other is one wait; what comes between them makes two."""
    words = memory(1)
    sampler = Sampler(words, SampledProcess("/proc/self", {b"202": 8, b"35": 5}, gil_address=0))
    sampler._find_workers()
    (worker,) = sampler._workers
    text = b"202 0x7f10 0x80 0x0 0x0 0x0 0x0 0x7e00 0x7d00"
    for number in (1, 2, 3, 6, 7):
        sampler._round = number
        sampler._note_lock(worker, text, number * 10 * MS, 10 * MS)
    at = shm.ROW
    assert words[at + shm.LOCK_WAITS] == 2
    assert waits_since(words, at, 0) == [(0x7F10, 5 * MS, 35 * MS), (0x7F10, 55 * MS, 75 * MS)]
    assert waits_since(words, at, 50 * MS) == [(0x7F10, 55 * MS, 75 * MS)]
    for number in range(20, 60, 2):
        sampler._round = number
        sampler._note_lock(worker, text, number * 10 * MS, 10 * MS)
    assert len(waits_since(words, at, 0)) == shm.LOCKS_KEPT


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no collection comes in the middle of the call any more")
def test_frames_are_asked_for_without_a_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that drops a `threading.local` in the middle of the call waits for a lock that the call holds, for ever."""
    seen = []
    monkeypatch.setattr(sys, "_current_frames", lambda: seen.append(gc.isenabled()) or {})
    assert gc.isenabled()
    assert current_frames() == {}
    assert seen == [False]
    assert gc.isenabled()
    gc.disable()
    try:
        current_frames()
        assert not gc.isenabled()
    finally:
        gc.enable()
