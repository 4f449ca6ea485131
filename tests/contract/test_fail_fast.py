"""`fail_fast=True`: after the first failure nothing of the run starts."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest
from hamilton.execution.executors import TaskExecutor
from hamilton.htypes import Collect, Parallelizable
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter

from tests.contract.shared import identity, within_patience
from tests.dags import (
    PATIENCE,
    REFUTATION,
    Held,
    Stage,
    driver_of,
    dynamic_driver_of,
    in_thread,
    start,
    submit,
    wait_for,
)
from traced_threadpool import FutureAdapter


def test_hamiltons_has_no_fail_fast() -> None:
    """The argument is unknown to it."""
    with pytest.raises(TypeError, match="fail_fast"):
        HamiltonsAdapter(fail_fast=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(("fail_fast", "expected"), [(True, []), (False, ["other 1", "other 2"])])
def test_nothing_is_started_after_a_failure(stage: Stage, expected: list[str], *, fail_fast: bool) -> None:
    """With `fail_fast`; without, what does not depend on the failure runs, as documented."""
    ran: list[str] = []
    go, error = stage.event(), ValueError("bad")

    def bad() -> int:
        wait_for(go)
        raise error

    def other_1() -> None:
        ran.append("other 1")

    def other_2(other_1: None) -> None:
        ran.append("other 2")

    adapter = stage.adapter(FutureAdapter(1, fail_fast=fail_fast))
    futures = start(driver_of(adapter, bad, other_1, other_2), ["bad", "other_2"])
    go.set()
    adapter.close()
    assert futures["bad"].exception(0) is error
    assert futures["other_2"].done()
    assert ran == expected


@pytest.mark.parametrize("fail_fast", [True, False])
def test_the_caller_hears_of_a_failure_at_once(stage: Stage, *, fail_fast: bool) -> None:
    """With `fail_fast`, while a node still runs that was asked for first; without, after that node."""
    held, error, failed = Held(stage), ValueError("bad"), stage.event()

    def slow() -> str:
        return held()

    def bad() -> int:
        wait_for(held.started)
        failed.set()
        raise error

    adapter = stage.adapter(FutureAdapter(2, fail_fast=fail_fast))
    caller = in_thread(lambda: driver_of(adapter, slow, bad).execute(["slow", "bad"]))
    wait_for(failed)
    if fail_fast:
        assert caller.exception(PATIENCE) is error
        assert not held.release.is_set()
    else:
        with pytest.raises(FutureTimeoutError):
            caller.exception(REFUTATION)
        held.release.set()
        assert caller.exception(PATIENCE) is error


def test_the_caller_hears_of_a_failure_that_it_did_not_ask_for(stage: Stage) -> None:
    """The failing node is far upstream of an output, beside one that is slow."""
    held, error = Held(stage), ValueError("bad")

    def slow() -> str:
        return held()

    def bad() -> int:
        wait_for(held.started)
        raise error

    def join(slow: str, bad: int) -> int:
        return bad

    def last(join: int) -> int:
        return join

    adapter = stage.adapter(FutureAdapter(2, fail_fast=True))
    caller = in_thread(lambda: driver_of(adapter, slow, bad, join, last).execute(["last"]))
    assert caller.exception(PATIENCE) is error
    assert not held.release.is_set()


class StepByStep(FutureAdapter):
    """Waits for the node `bad` before it submits the next, so that the failure comes during submission."""

    def do_remote_execute(self, **arguments: Any) -> Any:
        future = super().do_remote_execute(**arguments)
        if arguments["node"].name == "bad":
            future.exception(PATIENCE)
        return future


def test_a_failure_during_submission(stage: Stage) -> None:
    """Nodes that are submitted after it never start, and the caller gets the exception."""
    ran, error = list[str](), ValueError("bad")

    def bad() -> int:
        raise error

    def later() -> None:
        ran.append("later")

    adapter = stage.adapter(StepByStep(2, fail_fast=True))
    with pytest.raises(ValueError, match="bad") as raised:
        driver_of(adapter, bad, later).execute(["bad", "later"])
    adapter.close()
    assert raised.value is error
    assert not ran


def test_fail_fast_concerns_one_run(stage: Stage) -> None:
    """Another run on the same adapter goes on."""
    held = Held(stage)

    def slow() -> str:
        return held()

    def below(slow: str) -> str:
        return slow + "!"

    def bad() -> int:
        raise ValueError("bad")

    adapter = stage.adapter(FutureAdapter(2, fail_fast=True))
    caller = in_thread(lambda: driver_of(adapter, slow, below).execute(["below"]))
    wait_for(held.started)
    with pytest.raises(ValueError, match="bad"):
        driver_of(adapter, bad).execute(["bad"])
    held.release.set()
    assert caller.result(PATIENCE) == {"below": "held!"}


def test_fail_fast_in_branches(stage: Stage, remote_executor: TaskExecutor) -> None:
    """The first of a hundred branches fails, on one worker: its second node never runs, nor does any other's."""
    ran, error, all_there = list[int](), ValueError("branch"), stage.event()

    def numbers() -> Parallelizable[int]:
        yield from range(100)

    def fragile(numbers: int) -> int:
        ran.append(numbers)
        wait_for(all_there)
        raise error

    def whole(fragile: Collect[int]) -> int:
        return 0

    class AllThere(FutureAdapter):
        def build_result(self, **outputs: Any) -> Any:
            all_there.set()
            return super().build_result(**outputs)

    adapter = stage.adapter(AllThere(1, fail_fast=True))
    runs = dynamic_driver_of(adapter, numbers, fragile, whole, remote_executor=remote_executor)
    with pytest.raises(ValueError, match="branch") as raised:
        runs.execute(["whole"])
    adapter.close()
    assert raised.value is error
    assert len(ran) == 1


def test_a_failure_that_a_node_handles_is_none(stage: Stage) -> None:
    """The nested run fails fast, the run that it is nested in goes on."""
    adapter = stage.adapter(FutureAdapter(1, fail_fast=True))

    def bad() -> int:
        raise ValueError("bad")

    def outer() -> str:
        try:
            driver_of(adapter, bad).execute(["bad"])
        except ValueError:
            return "handled"
        raise AssertionError

    def below(outer: str) -> str:
        return outer + "!"

    runs = driver_of(adapter, outer, below)
    assert within_patience(lambda: runs.execute(["below"])) == {"below": "handled!"}


def test_fail_fast_without_a_failure(stage: Stage) -> None:
    """Changes nothing."""
    adapter = stage.adapter(FutureAdapter(2, fail_fast=True))
    assert adapter.build_result(a=submit(adapter, identity, x=1), b=2) == {"a": 1, "b": 2}
    assert adapter.build_result(b=2) == {"b": 2}
