"""Many nodes, runs and branches, wide fan-ins: nothing of ours recurses, keeps results, slows down or gets stuck."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hamilton import ad_hoc_utils, driver
from hamilton.htypes import Collect, Parallelizable
from prometheus_client import CollectorRegistry

from benchmarks.linear_tasks import linear_task_state
from tests.telemetry.telemetry_helpers import make_dynamic_driver, objects_of_ours
from traced_threadpool import FutureAdapter

pytestmark = pytest.mark.slow


@pytest.fixture(params=["untraced", "metrics"])
def adapter(request: pytest.FixtureRequest) -> Iterator[FutureAdapter]:
    with FutureAdapter(4, tracing=False, metrics=request.param == "metrics", registry=CollectorRegistry()) as made:
        yield made


def submit(adapter: FutureAdapter, function: Any, **arguments: Any) -> Any:
    return adapter.do_remote_execute(execute_lifecycle_for_node=function, node=None, **arguments)


def test_a_chain_of_twenty_thousand_nodes(adapter: FutureAdapter) -> None:
    """It is as deep as it likes: resolving, ending and letting go do not recurse."""
    future = submit(adapter, lambda: 0)
    for _ in range(20_000):
        future = submit(adapter, lambda before: before + 1, before=future)
    assert future.result(timeout=150) == 20_000


def test_a_failure_falls_through_a_chain_of_twenty_thousand_nodes(adapter: FutureAdapter) -> None:
    """All of them end with the exception of the first."""
    gate, error = threading.Event(), ValueError("first")

    def fails() -> None:
        assert gate.wait(150)
        raise error

    future = submit(adapter, fails)
    for _ in range(20_000):
        future = submit(adapter, lambda before: before, before=future)
    gate.set()
    assert future.exception(timeout=150) is error


def test_a_node_with_five_thousand_upstreams(adapter: FutureAdapter) -> None:
    """It starts once, when the last of them has ended."""
    upstream = {f"u{number}": submit(adapter, lambda number=number: number) for number in range(5_000)}
    total = submit(adapter, lambda **values: sum(values.values()), **upstream)
    assert total.result(timeout=150) == sum(range(5_000))


def test_a_thousand_runs_at_once(adapter: FutureAdapter) -> None:
    """A thousand callers, each with a run of its own in the pool at the same time: each gets its own result."""
    everybody = threading.Event()

    def start(number: int) -> int:
        assert everybody.wait(150)
        return number

    def end(start: int) -> int:
        return start * 2

    module = ad_hoc_utils.create_temporary_module(start, end)
    built = driver.Builder().with_modules(module).with_adapters(adapter).build()
    results: dict[int, int] = {}

    def run(number: int) -> None:
        results[number] = built.execute(["end"], inputs={"number": number})["end"]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1_000)]
    for thread in threads:
        thread.start()
    everybody.set()
    for thread in threads:
        thread.join(50)
    assert results == {number: number * 2 for number in range(1_000)}


def test_no_lock_of_the_pool_is_held_in_user_code(adapter: FutureAdapter) -> None:
    """A node's function, and a done-callback, also of a node that never ran: each can have the lock."""
    pool: Any = adapter._pool
    had: list[str] = []

    def take(where: str) -> None:
        if pool._lock.acquire(timeout=10):  # in vain if this thread had it already
            pool._lock.release()
            had.append(where)

    def fails() -> None:
        take("function")
        raise ValueError

    gate = threading.Event()
    first = submit(adapter, lambda: gate.wait(150))
    second = submit(adapter, lambda first: fails(), first=first)
    third = submit(adapter, lambda second: None, second=second)
    called = [threading.Event(), threading.Event()]
    for where, future, event in (("ended", second, called[0]), ("never ran", third, called[1])):
        future.add_done_callback(lambda _, where=where, event=event: (take(where), event.set()))
    gate.set()
    assert all(event.wait(150) for event in called)
    assert sorted(had) == ["ended", "function", "never ran"]


class Large:
    """A result that can be seen to go."""


def test_a_result_goes_when_its_last_reader_has_ended(adapter: FutureAdapter) -> None:
    """While the run goes on, nothing of ours holds what no node needs any more."""
    seen: list[weakref.ref[Large]] = []

    def make() -> Large:
        large = Large()
        seen.append(weakref.ref(large))
        return large

    def read(large: Large) -> int:
        return 1

    gone = threading.Event()

    def later(read: int) -> bool:
        gc.collect()
        gone.wait(150)
        return seen[0]() is None

    one = submit(adapter, make)
    two = submit(adapter, read, large=one)
    last = submit(adapter, later, read=two)
    assert two.result(timeout=150) == 1
    del one
    gone.set()
    assert last.result(timeout=150)


def each(count: int) -> Parallelizable[int]:
    yield from range(count)


def made(each: int) -> Large:
    large = Large()
    living.add(large)
    return large


def read_again(made: Large, each: int) -> int:
    return 2 * each


def total(read_again: Collect[int]) -> int:
    """By now nobody needs what the branches made in between."""
    gc.collect()
    assert not living
    return sum(read_again)


living: weakref.WeakSet[Large] = weakref.WeakSet()


@linear_task_state()
def test_ten_thousand_branches(adapter: FutureAdapter) -> None:
    """Each runs once and lets go of what it made, and after the run nothing of ours is left of any of its nodes."""
    built = make_dynamic_driver(adapter, each, made, read_again, total)
    before = objects_of_ours()
    assert built.execute(["total"], inputs={"count": 10_000}) == {"total": 99_990_000}
    left = objects_of_ours() - before
    assert sum(left.values()) < 500, left


@linear_task_state()
def test_work_for_branches_is_linear(adapter: FutureAdapter) -> None:
    """Hamilton's walk has to wait for as many of our instructions in each of 2,000 branches as in each of 200."""
    built = make_dynamic_driver(adapter, each, made, read_again, total)

    def instructions(count: int) -> float:
        return instructions_of_ours(lambda: built.execute(["total"], inputs={"count": count})) / count

    instructions(20)
    few, many = instructions(200), instructions(2_000)
    assert many < 1.2 * few


def instructions_of_ours(action: Callable[[], object]) -> int:
    """How many bytecode instructions of this package the calling thread executes meanwhile."""
    count = 0

    def one(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return one

    def hear(frame: FrameType, event: str, argument: Any) -> Any:
        if "/traced_threadpool/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return one

    sys.settrace(hear)
    try:
        action()
    finally:
        sys.settrace(None)
    return count
