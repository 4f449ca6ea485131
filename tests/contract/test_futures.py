"""The futures that `do_remote_execute` gives. On both adapters."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from tests.contract.shared import MakeAdapter, error_of, identity
from tests.dags import PATIENCE, Held, Stage, in_thread, submit, wait_for


def test_states_of_a_future(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Queued, running, done: (`running()`, `done()`, `cancelled()`)."""
    adapter, held = make_adapter(1), Held(stage)
    first = submit(adapter, held)
    wait_for(held.started)
    second = submit(adapter, identity, x=1)

    def states() -> list[tuple[bool, bool, bool]]:
        return [(future.running(), future.done(), future.cancelled()) for future in (first, second)]

    assert states() == [(True, False, False), (False, False, False)]
    held.release.set()
    second.result(PATIENCE)
    assert states() == [(False, True, False), (False, True, False)]


def test_the_future_of_another_adapter(make_adapter: MakeAdapter, stage: Stage) -> None:
    """As the only argument it is waited for, and the node runs on a thread of its own adapter."""
    adapter, other, held = make_adapter(1), make_adapter(1), Held(stage)

    def above() -> int:
        held()
        return threading.get_ident()

    upstream = submit(other, above)
    wait_for(held.started)
    below = submit(adapter, lambda above: (above, threading.get_ident()), above=upstream)
    held.release.set()
    there, here = below.result(PATIENCE)
    assert there == upstream.result(PATIENCE)
    assert here != there


def test_result_and_exception_time_out(make_adapter: MakeAdapter, stage: Stage) -> None:
    """With `concurrent.futures.TimeoutError`; the node goes on."""
    adapter, held = make_adapter(1), Held(stage)
    future = submit(adapter, held)
    for wait in (future.result, future.exception):
        for timeout in (0, 0.01):
            with pytest.raises(concurrent.futures.TimeoutError):
                wait(timeout=timeout)
    held.release.set()
    assert future.result(timeout=PATIENCE) == "held"


def test_exception_of_a_node_that_went_well(make_adapter: MakeAdapter) -> None:
    """Is None."""
    assert submit(make_adapter(1), identity, x=1).exception(PATIENCE) is None


def test_cancel_a_queued_node(make_adapter: MakeAdapter, stage: Stage) -> None:
    """It never runs, nor does what is below it; others do."""
    adapter, held, called = make_adapter(1), Held(stage), list[str]()
    first = submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, lambda: called.append("queued"))
    below = submit(adapter, lambda x: called.append("below"), x=queued)
    other = submit(adapter, lambda: called.append("other"))
    assert queued.cancel()
    assert (queued.cancelled(), queued.done(), queued.running()) == (True, True, False)
    held.release.set()
    assert [error_of(future) for future in (first, other)] == [None, None]
    assert [type(error_of(future)) for future in (queued, below)] == [CancelledError] * 2
    assert called == ["other"]


def test_cancel_what_runs_or_is_done(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Is refused, and changes nothing."""
    adapter, held = make_adapter(1), Held(stage)
    future = submit(adapter, held)
    wait_for(held.started)
    assert not future.cancel()
    held.release.set()
    assert future.result(PATIENCE) == "held"
    assert not future.cancel()
    assert not future.cancelled()


def test_cancel_twice(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Says yes both times, and calls back once."""
    adapter, held, calls = make_adapter(1), Held(stage), list[Future[Any]]()
    submit(adapter, held)
    queued = submit(adapter, identity, x=1)
    queued.add_done_callback(calls.append)
    assert [queued.cancel(), queued.cancel()] == [True, True]
    held.release.set()
    adapter.executor.shutdown()
    assert calls == [queued]


def test_wait_for_the_first(make_adapter: MakeAdapter, stage: Stage) -> None:
    """`concurrent.futures.wait(..., FIRST_COMPLETED)` returns with one done and one running."""
    adapter, held = make_adapter(2), Held(stage)
    slow, quick = submit(adapter, held), submit(adapter, identity, x=1)
    result = concurrent.futures.wait([slow, quick], PATIENCE, return_when=concurrent.futures.FIRST_COMPLETED)
    assert result == ({quick}, {slow})


def test_wait_for_an_exception(make_adapter: MakeAdapter, stage: Stage) -> None:
    """`FIRST_EXCEPTION` returns while another node runs; the nodes below have failed as well."""
    adapter, held, go = make_adapter(2), Held(stage), stage.event()

    def bad() -> Any:
        wait_for(go)
        raise ValueError("bad")

    slow, failing = submit(adapter, held), submit(adapter, bad)
    waiting = in_thread(lambda: concurrent.futures.wait([slow, failing], PATIENCE, concurrent.futures.FIRST_EXCEPTION))
    go.set()
    assert waiting.result(PATIENCE) == ({failing}, {slow})


def test_wait_for_all(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Cancelled, failed and good ones alike."""
    adapter, held = make_adapter(1), Held(stage)
    slow = submit(adapter, held)
    wait_for(held.started)
    cancelled = submit(adapter, identity, x=1)
    failing = submit(adapter, identity, wrong=1)
    waiting = in_thread(lambda: concurrent.futures.wait([slow, cancelled, failing], PATIENCE))
    cancelled.cancel()
    held.release.set()
    assert waiting.result(PATIENCE) == ({slow, cancelled, failing}, set())


def test_as_completed(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Yields in the order of completion."""
    adapter, held = make_adapter(2), Held(stage)
    slow, quick = submit(adapter, held), submit(adapter, identity, x=1)
    order = []
    for future in concurrent.futures.as_completed([slow, quick], PATIENCE):
        order.append(future)
        held.release.set()
    assert order == [quick, slow]


def test_done_callbacks(make_adapter: MakeAdapter, stage: Stage) -> None:
    """In the order given, with the very future, in the worker; one that raises stops neither others nor the worker."""
    adapter, held, calls = make_adapter(1, thread_name_prefix="crunch"), Held(stage), list[tuple[str, Any, str]]()

    def note(name: str) -> Callable[[Future[Any]], None]:
        return lambda future: calls.append((name, future, threading.current_thread().name))

    def fail(future: Future[Any]) -> None:
        raise ValueError("callback")

    future = submit(adapter, held)
    future.add_done_callback(note("first"))
    future.add_done_callback(fail)
    future.add_done_callback(note("second"))
    held.release.set()
    assert submit(adapter, identity, x=1).result(PATIENCE) == 1
    future.add_done_callback(note("late"))
    here = threading.current_thread().name
    assert calls == [("first", future, "crunch_0"), ("second", future, "crunch_0"), ("late", future, here)]


def test_a_callback_may_submit(make_adapter: MakeAdapter) -> None:
    """No lock is held while it runs."""
    adapter, chained = make_adapter(1), Future[Any]()
    first = submit(adapter, identity, x=1)
    first.add_done_callback(lambda done: chained.set_result(submit(adapter, identity, x=done)))
    assert chained.result(PATIENCE).result(PATIENCE) == 1


def test_awaiting_a_node(make_adapter: MakeAdapter) -> None:
    """`asyncio.wrap_future` gives values and exceptions."""
    adapter, error = make_adapter(2), ValueError("bad")

    def bad() -> Any:
        raise error

    async def main() -> list[Any]:
        futures = [asyncio.wrap_future(submit(adapter, identity, x=1)), asyncio.wrap_future(submit(adapter, bad))]
        return await asyncio.gather(*futures, return_exceptions=True)

    assert asyncio.run(main()) == [1, error]


def test_cancelling_from_asyncio(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Cancelling the wrapper cancels the node."""
    adapter, held = make_adapter(1), Held(stage)
    submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, identity, x=1)

    async def main() -> None:
        wrapped = asyncio.wrap_future(queued)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    asyncio.run(main())
    assert queued.cancelled()


def test_waiting_threads_all_wake(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Several threads may wait for one future."""
    adapter, held = make_adapter(1), Held(stage)
    future = submit(adapter, held)
    waiting = [in_thread(future.result, PATIENCE) for _ in range(4)]
    wait_for(held.started)
    held.release.set()
    assert [each.result(PATIENCE) for each in waiting] == ["held"] * 4
