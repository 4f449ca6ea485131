"""`do_remote_execute` and the results of nodes, as Hamilton documents them. On both adapters."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from hamilton import lifecycle

from tests.contract.shared import MakeAdapter, error_of, identity
from tests.dags import PATIENCE, Held, Stage, driver_of, in_thread, submit, wait_for


class Line(lifecycle.ResultBuilder):
    """Builds one line of text."""

    def build_result(self, **outputs: Any) -> str:
        return " ".join(f"{name}={value}" for name, value in outputs.items())

    def output_type(self) -> type:
        return str


def test_a_future_comes_at_once(make_adapter: MakeAdapter, stage: Stage) -> None:
    """`do_remote_execute` does not wait for the function."""
    held = Held(stage)
    future = submit(make_adapter(1), held)
    assert isinstance(future, Future)
    wait_for(held.started)
    assert not future.done()
    held.release.set()
    assert future.result(PATIENCE) == "held"


def test_do_remote_execute_takes_keywords_only(make_adapter: MakeAdapter) -> None:
    """As Hamilton calls it."""
    with pytest.raises(TypeError):
        make_adapter(1).do_remote_execute(identity, None, x=1)


def test_arguments_arrive_by_name(make_adapter: MakeAdapter) -> None:
    """Values and futures alike, and no others."""
    adapter = make_adapter(2)
    future = submit(adapter, lambda **arguments: arguments, a=1, b=submit(adapter, identity, x=2), c=None)
    assert future.result(PATIENCE) == {"a": 1, "b": 2, "c": None}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("node", [False, True], ids=["foreign", "of a node"])
def test_futures_of_futures_are_resolved(make_adapter: MakeAdapter, depth: int, *, node: bool) -> None:
    """A future whose value is a future is resolved until a value comes."""
    adapter = make_adapter(2)
    value: Any = "value"
    for _ in range(depth):
        outer = Future[Any]()
        outer.set_result(value)
        value = outer
    argument = submit(adapter, lambda: value) if node else value
    assert submit(adapter, identity, x=argument).result(PATIENCE) == "value"


def test_a_future_of_a_future_that_comes_late(make_adapter: MakeAdapter, stage: Stage) -> None:
    """The inner future is waited for as well, here in three steps."""
    adapter = make_adapter(2)
    outer, middle, inner = Future[Any](), Future[Any](), Future[Any]()
    future = submit(adapter, identity, x=outer)
    outer.set_result(middle)
    middle.set_result(inner)
    assert not future.done()
    inner.set_result("value")
    assert future.result(PATIENCE) == "value"


def test_a_future_of_a_future_that_fails(make_adapter: MakeAdapter) -> None:
    """Its exception is the node's, whose function is not called."""
    adapter = make_adapter(2)
    error, called = ValueError("inner"), list[Any]()
    outer, inner = Future[Any](), Future[Any]()
    future = submit(adapter, called.append, object=outer)
    outer.set_result(inner)
    inner.set_exception(error)
    assert error_of(future) is error
    assert not called


def test_futures_in_containers_are_left_alone(make_adapter: MakeAdapter) -> None:
    """Only arguments that are futures are resolved, not what is inside of a list."""
    adapter = make_adapter(2)
    inside = submit(adapter, identity, x=1)
    (argument,) = submit(adapter, identity, x=[inside]).result(PATIENCE)
    assert argument is inside


def test_a_foreign_future_resolved_later(make_adapter: MakeAdapter) -> None:
    """A future that somebody else made is an input like any other."""
    foreign = Future[Any]()
    future = submit(make_adapter(1), identity, x=foreign)
    assert not future.done()
    foreign.set_result("value")
    assert future.result(PATIENCE) == "value"


def test_a_foreign_future_done_already(make_adapter: MakeAdapter) -> None:
    """Its value is taken."""
    foreign = Future[Any]()
    foreign.set_result("value")
    assert submit(make_adapter(1), identity, x=foreign).result(PATIENCE) == "value"


@pytest.mark.parametrize("already", [False, True], ids=["later", "already"])
def test_a_foreign_future_that_fails(make_adapter: MakeAdapter, *, already: bool) -> None:
    """Its exception, the very object, is the node's."""
    foreign, error = Future[Any](), ValueError("foreign")
    if already:
        foreign.set_exception(error)
    future = submit(make_adapter(1), identity, x=foreign)
    if not already:
        foreign.set_exception(error)
    assert future.exception(PATIENCE) is error


@pytest.mark.parametrize("already", [False, True], ids=["later", "already"])
def test_a_foreign_future_that_is_cancelled(make_adapter: MakeAdapter, *, already: bool) -> None:
    """`result` raises `CancelledError`, and the function is not called."""
    foreign, called = Future[Any](), list[Any]()
    if already:
        foreign.cancel()
    future = submit(make_adapter(1), called.append, object=foreign)
    if not already:
        foreign.cancel()
    assert isinstance(error_of(future), CancelledError)
    assert not called


def test_the_future_of_another_adapter(make_adapter: MakeAdapter) -> None:
    """Is an input like any other."""
    first, second = make_adapter(1), make_adapter(1)
    assert submit(second, identity, x=submit(first, identity, x=5)).result(PATIENCE) == 5


def test_one_future_under_two_names(make_adapter: MakeAdapter) -> None:
    """Both arguments get the value."""
    adapter = make_adapter(1)
    both = submit(adapter, identity, x=[1])
    first, second = submit(adapter, lambda a, b: (a, b), a=both, b=both).result(PATIENCE)
    assert first is second


def test_results_in_the_order_asked_for(make_adapter: MakeAdapter) -> None:
    """Not in that of the graph, nor of completion."""

    def one() -> int:
        return 1

    def two(one: int) -> int:
        return one + 1

    def three(two: int) -> int:
        return two + 1

    result = driver_of(make_adapter(2), one, two, three).execute(["two", "three", "one"])
    assert list(result.items()) == [("two", 2), ("three", 3), ("one", 1)]


def test_build_result_resolves_futures_and_keeps_values(make_adapter: MakeAdapter) -> None:
    """Outputs that are no futures pass through, in their places."""
    adapter = make_adapter(1)
    result = adapter.build_result(b=submit(adapter, identity, x=1), a=2, c=None)
    assert list(result.items()) == [("b", 1), ("a", 2), ("c", None)]


def test_build_result_waits(make_adapter: MakeAdapter, stage: Stage) -> None:
    """It blocks until the last future is resolved."""
    adapter, held = make_adapter(1), Held(stage)
    building = in_thread(lambda: adapter.build_result(x=submit(adapter, held)))
    wait_for(held.started)
    assert not building.done()
    held.release.set()
    assert building.result(PATIENCE) == {"x": "held"}


def test_do_build_result(make_adapter: MakeAdapter) -> None:
    """Takes the outputs as one dict."""
    adapter = make_adapter(1)
    assert adapter.do_build_result({"x": submit(adapter, identity, x=1)}) == {"x": 1}


def test_a_wrapped_builder_builds(make_adapter: MakeAdapter) -> None:
    """From values, not from futures, in the order asked for."""

    def a() -> int:
        return 1

    def b(a: int) -> int:
        return a * 10

    assert driver_of(make_adapter(2, result_builder=Line()), a, b).execute(["b", "a"]) == "b=10 a=1"


def test_a_failing_builder(make_adapter: MakeAdapter) -> None:
    """Its exception reaches the caller, and the adapter works on."""
    error = ValueError("builder")

    class Failing(lifecycle.ResultBuilder):
        def build_result(self, **outputs: Any) -> Any:
            assert outputs == {"one": 1}
            raise error

    def one() -> int:
        return 1

    adapter = make_adapter(1, result_builder=Failing())
    with pytest.raises(ValueError, match="builder") as raised:
        driver_of(adapter, one).execute(["one"])
    assert raised.value is error
    assert submit(adapter, identity, x=1).result(PATIENCE) == 1
