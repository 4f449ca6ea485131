"""The driver's inputs, overrides, and ways to run. On both adapters."""

from __future__ import annotations

import gc
import typing
import weakref
from concurrent.futures import Future
from typing import Any

import pytest
from hamilton import driver
from hamilton.function_modifiers import config

from tests.contract.shared import MakeAdapter, identity
from tests.dags import PATIENCE, driver_of, eventually, in_thread, submit


def test_inputs_overrides_and_config(make_adapter: MakeAdapter) -> None:
    """Together: a value given, a node replaced, a node chosen."""

    def given(number: int) -> int:
        return number

    def replaced(given: int) -> int:
        raise AssertionError

    @config.when(mode="short")
    def text__short(replaced: int, given: int) -> str:
        return f"{given}{replaced}"

    @config.when(mode="long")
    def text__long(replaced: int) -> str:
        raise AssertionError

    runs = driver_of(make_adapter(1), given, replaced, text__short, text__long, config={"mode": "short"})
    result = runs.execute(["text", "replaced", "number"], inputs={"number": 1}, overrides={"replaced": 7})
    assert result == {"text": "17", "replaced": 7, "number": 1}


def test_optional_inputs(make_adapter: MakeAdapter) -> None:
    """A parameter's default is used where nothing is given."""

    def node(number: int = 3) -> int:
        return number

    runs = driver_of(make_adapter(1), node)
    assert [runs.execute(["node"]), runs.execute(["node"], inputs={"number": 4})] == [{"node": 3}, {"node": 4}]


def test_a_future_as_an_input_of_the_user(make_adapter: MakeAdapter) -> None:
    """Nodes get its value, and so does the caller who asks for it back."""

    def node(given: Any) -> Any:
        return given

    foreign = Future[Any]()
    runs = in_thread(lambda: driver_of(make_adapter(1), node).execute(["node", "given"], inputs={"given": foreign}))
    foreign.set_result(5)
    assert runs.result(PATIENCE) == {"node": 5, "given": 5}


def test_a_missing_input(make_adapter: MakeAdapter) -> None:
    """Hamilton's own error, before any node runs; the adapter works on."""
    called: list[int] = []

    def first() -> int:
        called.append(1)
        return 1

    def node(first: int, missing: int) -> int:
        return missing

    adapter = make_adapter(1)
    with pytest.raises(ValueError, match="missing"):
        driver_of(adapter, first, node).execute(["node"])
    assert not called
    assert driver_of(adapter, first).execute(["first"]) == {"first": 1}


def test_a_legacy_driver(make_adapter: MakeAdapter) -> None:
    """`driver.Driver(config, module, adapter=...)`, without the builder."""

    def one() -> int:
        return 1

    module = driver_of(make_adapter(1), one).graph_modules[0]
    assert driver.Driver({}, module, adapter=make_adapter(1)).execute(["one"]) == {"one": 1}


def test_a_node_that_returns_none(make_adapter: MakeAdapter) -> None:
    """Is a result like any other."""

    def nothing() -> typing.Any:
        return None

    def after(nothing: typing.Any) -> bool:
        return nothing is None

    assert driver_of(make_adapter(1), nothing, after).execute(["nothing", "after"]) == {"nothing": None, "after": True}


def test_results_are_let_go(make_adapter: MakeAdapter) -> None:
    """The adapter, idle again, keeps no node's value alive."""
    import weakref

    class Value:
        pass

    made: list[weakref.ref[Value]] = []

    def first() -> Any:
        value = Value()
        made.append(weakref.ref(value))
        return value

    def second(first: Any) -> int:
        return 1

    driver_of(make_adapter(1), first, second).execute(["second"])

    def gone() -> bool:
        gc.collect()
        return made[0]() is None

    assert eventually(gone)


def test_a_deep_chain(make_adapter: MakeAdapter) -> None:
    """300 nodes in a row, on one worker."""
    adapter = make_adapter(1)
    future = submit(adapter, identity, x=0)
    for _ in range(300):
        future = submit(adapter, lambda x: x + 1, x=future)
    assert future.result(PATIENCE) == 300
