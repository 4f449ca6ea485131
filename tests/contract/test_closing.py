"""`close()` and `with`: no new work, pending work done or cancelled, threads gone."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from hamilton.execution.executors import TaskExecutor
from hamilton.htypes import Parallelizable
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter

from tests.contract.shared import identity, nested, squared, squares, within_patience
from tests.dags import PATIENCE, Held, Stage, driver_of, dynamic_driver_of, eventually, in_thread, submit, wait_for
from traced_threadpool import FutureAdapter


def is_closed(adapter: FutureAdapter) -> bool:
    return "closed" in repr(adapter)


def test_hamiltons_cannot_be_closed() -> None:
    """It has neither `close` nor `with`."""
    assert not hasattr(HamiltonsAdapter, "close")
    assert not hasattr(HamiltonsAdapter, "__enter__")


def test_close_lets_pending_nodes_end(stage: Stage) -> None:
    """Running, queued and blocked ones; it returns after the last."""
    adapter, held = stage.adapter(FutureAdapter(1)), Held(stage)
    running = submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, identity, x=1)
    blocked = submit(adapter, identity, x=queued)
    closing = in_thread(adapter.close)
    assert eventually(lambda: is_closed(adapter))
    assert not closing.done()
    held.release.set()
    closing.result(PATIENCE)
    assert [future.result(0) for future in (running, queued, blocked)] == ["held", 1, 1]


def test_close_that_cancels(stage: Stage) -> None:
    """What has not started is cancelled at once; what runs is waited for."""
    adapter, held, called = stage.adapter(FutureAdapter(1)), Held(stage), list[str]()
    running = submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, lambda: called.append("queued"))
    blocked = submit(adapter, lambda x: called.append("blocked"), x=running)
    closing = in_thread(lambda: adapter.close(cancel_pending=True))
    for future in (queued, blocked):
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
    assert not closing.done()
    held.release.set()
    closing.result(PATIENCE)
    assert running.result(0) == "held"
    assert not called


def test_close_that_cancels_a_run(stage: Stage) -> None:
    """Its caller, in another thread, gets `CancelledError`."""
    adapter, held = stage.adapter(FutureAdapter(1)), Held(stage)

    def first() -> str:
        return held()

    def second(first: str) -> str:
        return first

    caller = in_thread(lambda: driver_of(adapter, first, second).execute(["second"]))
    wait_for(held.started)
    closing = in_thread(lambda: adapter.close(cancel_pending=True))
    with pytest.raises(CancelledError):
        caller.result(PATIENCE)
    held.release.set()
    closing.result(PATIENCE)


def test_close_while_another_thread_executes(stage: Stage) -> None:
    """That run is done first, and right."""
    adapter, held = stage.adapter(FutureAdapter(2)), Held(stage)

    def first() -> str:
        return held()

    def second(first: str) -> str:
        return first + "!"

    caller = in_thread(lambda: driver_of(adapter, first, second).execute(["second", "first"]))
    wait_for(held.started)
    closing = in_thread(adapter.close)
    assert eventually(lambda: is_closed(adapter))
    held.release.set()
    closing.result(PATIENCE)
    assert caller.result(PATIENCE) == {"second": "held!", "first": "held"}


def test_close_while_another_thread_expands(stage: Stage, remote_executor: TaskExecutor) -> None:
    """A run whose later nodes do not exist yet is done first as well."""
    adapter, held = stage.adapter(FutureAdapter(2)), Held(stage)

    def numbers() -> Parallelizable[int]:
        held()
        yield from (1, 2)

    runs = dynamic_driver_of(adapter, numbers, squared, squares, remote_executor=remote_executor)
    caller = in_thread(lambda: runs.execute(["squares"]))
    wait_for(held.started)
    closing = in_thread(adapter.close)
    assert eventually(lambda: is_closed(adapter))
    held.release.set()
    assert caller.result(PATIENCE) == {"squares": [1, 4]}
    closing.result(PATIENCE)


def test_a_pending_node_may_execute_a_driver_while_the_adapter_closes(stage: Stage) -> None:
    """That run belongs to work that was there before."""
    adapter, held = stage.adapter(FutureAdapter(1)), Held(stage)

    def outer() -> int:
        held()
        return nested(adapter, 2)

    caller = in_thread(lambda: driver_of(adapter, outer).execute(["outer"]))
    wait_for(held.started)
    closing = in_thread(adapter.close)
    assert eventually(lambda: is_closed(adapter))
    held.release.set()
    assert caller.result(PATIENCE) == {"outer": 1}
    closing.result(PATIENCE)


def test_close_again(stage: Stage) -> None:
    """Does nothing, from two threads at once neither."""
    adapter, held = stage.adapter(FutureAdapter(1)), Held(stage)
    submit(adapter, held)
    wait_for(held.started)
    closings = [in_thread(adapter.close) for _ in range(2)]
    held.release.set()
    for closing in closings:
        closing.result(PATIENCE)
    adapter.close()
    adapter.close(cancel_pending=True)


def test_close_an_adapter_that_was_never_used() -> None:
    """Is fine."""
    FutureAdapter(1).close()


def test_a_context_manager_closes(no_thread_left: None) -> None:
    """After pending nodes."""
    with FutureAdapter(1) as adapter:
        future = submit(adapter, identity, x=1)
    assert future.result(0) == 1
    assert is_closed(adapter)


def test_a_context_manager_closes_when_its_body_raises() -> None:
    """Whose exception goes on."""
    adapters: list[FutureAdapter] = []

    def use() -> None:
        with FutureAdapter(1) as adapter:
            adapters.append(adapter)
            raise ValueError("body")

    with pytest.raises(ValueError, match="body"):
        use()
    assert is_closed(adapters[0])


def test_use_after_close(stage: Stage) -> None:
    """A clear error from `execute` and from `do_remote_execute`; no node runs."""
    called: list[int] = []

    def node() -> int:
        called.append(1)
        return 1

    adapter = FutureAdapter(1)
    runs = driver_of(adapter, node)
    adapter.close()
    with pytest.raises(RuntimeError, match=r"this FutureAdapter is closed.*make a new one"):
        runs.execute(["node"])
    with pytest.raises(RuntimeError, match=r"this FutureAdapter is closed.*make a new one"):
        submit(adapter, identity, x=1)
    assert not called


def test_threads_are_gone_after_close(stage: Stage) -> None:
    """All that ran nodes."""
    adapter, barrier = FutureAdapter(4), threading.Barrier(4)

    def meet() -> threading.Thread:
        barrier.wait(PATIENCE)
        return threading.current_thread()

    threads = {future.result(PATIENCE) for future in [submit(adapter, meet) for _ in range(4)]}
    assert len(threads & set(threading.enumerate())) == 4
    adapter.close()
    assert not threads & set(threading.enumerate())


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="a thread's end is told by no lock")
def test_close_after_an_interrupt_that_hid_a_threads_end(stage: Stage) -> None:
    """Two signals within a `join` can leave the lock taken by which a thread tells its end."""
    before = set(threading.enumerate())
    adapter = stage.adapter(FutureAdapter(2))
    assert submit(adapter, identity, x=1).result(PATIENCE) == 1
    locks = [thread._tstate_lock for thread in set(threading.enumerate()) - before]  # type: ignore[attr-defined]
    assert locks
    adapter.executor.shutdown(wait=False)
    for lock in locks:
        assert lock.acquire(timeout=PATIENCE)
    in_thread(adapter.close).result(PATIENCE)


def test_close_from_a_node_is_refused(stage: Stage) -> None:
    """It would wait for itself; the adapter stays open."""
    adapter = stage.adapter(FutureAdapter(1))

    def closer() -> None:
        adapter.close()

    with pytest.raises(RuntimeError, match=r"'closer'.*call close\(\) from the code that calls execute"):
        within_patience(lambda: driver_of(adapter, closer).execute(["closer"]))
    assert submit(adapter, identity, x=1).result(PATIENCE) == 1


def test_close_from_a_nested_node_is_refused(stage: Stage) -> None:
    """As well, also where another adapter's node is in between."""
    adapter, between = stage.adapter(FutureAdapter(1)), stage.adapter(FutureAdapter(1))

    def closer() -> None:
        adapter.close()

    def outer() -> None:
        driver_of(between, closer).execute(["closer"])

    with pytest.raises(RuntimeError, match=r"call close\(\) from the code that calls execute"):
        within_patience(lambda: driver_of(adapter, outer).execute(["outer"]))


def test_close_from_a_done_callback_is_refused(stage: Stage) -> None:
    """It runs in the worker, before its node has quite ended."""
    adapter, held, answer = stage.adapter(FutureAdapter(1)), Held(stage), Future[Any]()

    def closer(done: Future[Any]) -> None:
        try:
            adapter.close()
        except RuntimeError as error:
            answer.set_result(str(error))

    submit(adapter, held).add_done_callback(closer)
    held.release.set()
    assert "call close() from the code that calls execute()" in answer.result(PATIENCE)


def test_a_node_may_close_another_adapter(stage: Stage) -> None:
    """For which it is a caller like any other."""
    adapter, other = stage.adapter(FutureAdapter(1)), stage.adapter(FutureAdapter(1))
    future = submit(other, identity, x=1)
    assert submit(adapter, other.close).result(PATIENCE) is None
    assert future.result(0) == 1
