"""Exceptions of nodes and of what is downstream of them. On both adapters."""

from __future__ import annotations

import concurrent.futures
from concurrent.futures import CancelledError
from typing import Any

import pytest

from tests.contract.shared import MakeAdapter
from tests.dags import PATIENCE, Held, Stage, driver_of, submit, wait_for


class OddError(Exception):
    """With an initializer that takes nothing that `args` has."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code


class Unusual(BaseException):
    """No `Exception`, and none of Python's own."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        OddError(code=3),
        StopIteration(4),
        SystemExit(5),
        KeyboardInterrupt(),
        GeneratorExit(),
        Unusual(),
        CancelledError("a node's own"),
        concurrent.futures.TimeoutError("a node's own"),
    ],
    ids=lambda error: type(error).__name__,
)
class TestAnyException:
    """Whatever a node raises."""

    def test_it_reaches_the_caller_as_the_very_object(self, make_adapter: MakeAdapter, error: BaseException) -> None:
        """Through the driver; and the adapter works on."""

        def bad() -> int:
            raise error

        def good() -> int:
            return 1

        adapter = make_adapter(1)
        with pytest.raises(type(error)) as raised:
            driver_of(adapter, bad).execute(["bad"])
        assert raised.value is error
        assert driver_of(adapter, good).execute(["good"]) == {"good": 1}

    def test_downstream_carries_it(self, make_adapter: MakeAdapter, error: BaseException) -> None:
        """A node downstream, also an indirect one, never runs, and its future carries the same object."""
        called: list[str] = []

        def bad() -> Any:
            raise error

        adapter = make_adapter(2)
        failed = submit(adapter, bad)
        child = submit(adapter, lambda x: called.append("child"), x=failed)
        grandchild = submit(adapter, lambda x: called.append("grandchild"), x=child)
        late = submit(adapter, lambda x: called.append("late"), x=child)
        assert [future.exception(PATIENCE) for future in (failed, child, grandchild, late)] == [error] * 4
        assert [future.cancelled() for future in (failed, child, grandchild, late)] == [False] * 4
        assert not called


def test_of_two_failed_upstreams_the_first_argument_counts(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Whichever failed first in time: here the second argument."""
    adapter = make_adapter(3)
    first_error, second_error, go = ValueError("first"), ValueError("second"), stage.event()

    def fail_late() -> Any:
        wait_for(go)
        raise first_error

    def fail_at_once() -> Any:
        raise second_error

    first, second = submit(adapter, fail_late), submit(adapter, fail_at_once)
    joined = submit(adapter, lambda a, b: None, a=first, b=second)
    assert second.exception(PATIENCE) is second_error
    go.set()
    assert joined.exception(PATIENCE) is first_error


def test_a_second_argument_fails_and_the_first_is_well(make_adapter: MakeAdapter, stage: Stage) -> None:
    """The node fails with the second's exception, once the first has ended."""
    adapter, held, error = make_adapter(3), Held(stage), ValueError("second")

    def bad() -> Any:
        raise error

    first, second = submit(adapter, held), submit(adapter, bad)
    joined = submit(adapter, lambda a, b: None, a=first, b=second)
    assert second.exception(PATIENCE) is error
    assert not joined.done()
    held.release.set()
    assert joined.exception(PATIENCE) is error


def test_of_two_failed_outputs_the_first_asked_for_is_raised(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Whichever failed first in time."""
    go, first_error, second_error = stage.event(), ValueError("first"), ValueError("second")

    def first() -> int:
        wait_for(go)
        raise first_error

    def second() -> int:
        go.set()
        raise second_error

    with pytest.raises(ValueError, match=r"first|second") as raised:
        driver_of(make_adapter(2), first, second).execute(["first", "second"])
    assert raised.value is first_error


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt("a node's own")], ids=["error", "interrupt"])
def test_nodes_that_do_not_depend_on_a_failure_run(make_adapter: MakeAdapter, error: BaseException) -> None:
    """A failure stops what is downstream of it, and nothing else."""
    ran: list[str] = []

    def bad() -> int:
        raise error

    def below(bad: int) -> int:
        ran.append("below")
        return 1

    def other() -> int:
        ran.append("other")
        return 1

    adapter = make_adapter(1)
    with pytest.raises(type(error)):
        driver_of(adapter, bad, below, other).execute(["below", "other"])
    adapter.executor.shutdown(wait=True)
    assert ran == ["other"]


def test_the_traceback_names_the_line_that_raised(make_adapter: MakeAdapter) -> None:
    """It ends in the node's function."""

    def bad() -> int:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad") as raised:
        driver_of(make_adapter(1), bad).execute(["bad"])
    assert raised.traceback[-1].name == "bad"
