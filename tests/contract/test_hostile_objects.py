"""Exceptions and results that raise whenever they are touched: they pass through, and nothing else notices."""

from __future__ import annotations

import asyncio
import builtins
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from tests.dags import PATIENCE, Stage, driver_of, in_thread, submit
from traced_threadpool import FutureAdapter


def refuse(*arguments: object, **keywords: object) -> NoReturn:
    raise RuntimeError("do not touch me")


def hostile_in(*names: str, base: type[BaseException] = Exception) -> BaseException:
    """An exception that refuses one operation, or an attribute."""
    own: dict[str, Any] = {}
    for name in names:
        own[name] = property(refuse, refuse) if name in ATTRIBUTES else refuse
    return type(f"No_{names[0].strip('_')}", (base,), own)("hostile")


ATTRIBUTES = ("__traceback__", "__cause__", "__context__", "__class__", "__notes__", "__suppress_context__", "args")
OPERATIONS = (
    "__setattr__",
    "__getattribute__",
    "__getattr__",
    "__delattr__",
    "__repr__",
    "__str__",
    "__format__",
    "__eq__",
    "__hash__",
    "__bool__",
    "__len__",
    "__iter__",
    "__reduce__",
    "__reduce_ex__",
    "__setstate__",
    "with_traceback",
    "__dir__",
    "__sizeof__",
)


@dataclass(frozen=True)
class Rejected(Exception):
    """As people write them."""

    reason: str


class Slotted(Exception):
    """Nothing can be added to it."""

    __slots__ = ()


class Quits(BaseException):
    """Ends loops that catch `Exception` alone, and its text is unreadable."""

    __str__ = __repr__ = refuse


def in_a_group() -> BaseException:
    if sys.version_info < (3, 11):
        pytest.skip("groups came with Python 3.11")
    return builtins.BaseExceptionGroup("several", [KeyboardInterrupt(), hostile_in("__str__")])


KINDS: dict[str, Callable[[], BaseException]] = {
    **{name: (lambda name=name: hostile_in(name)) for name in (*OPERATIONS, *ATTRIBUTES)},  # type: ignore[misc]
    "all operations": lambda: hostile_in(*(name for name in OPERATIONS if name != "__getattribute__")),
    "a BaseException": lambda: hostile_in("__setattr__", "__repr__", base=BaseException),
    "frozen": lambda: Rejected("no"),
    "slotted": Slotted,
    "quits": Quits,
    "a group": in_a_group,
    "SystemExit": SystemExit,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "KeyboardInterrupt": KeyboardInterrupt,
    "asyncio's CancelledError": asyncio.CancelledError,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
}


def caught(call: Callable[[], object]) -> BaseException | None:
    """What the call raises. `pytest.raises` would look at it."""
    try:
        call()
    except BaseException as error:
        return error
    return None


@pytest.fixture(autouse=True)
def hamilton_logs_no_exceptions(caplog: pytest.LogCaptureFixture) -> None:
    """It does log them, and so does what we log: pytest's handler fails where the others report on standard error."""
    caplog.set_level(logging.CRITICAL + 1, logger="hamilton")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(params=["bare", "all telemetry"])
def make(request: pytest.FixtureRequest, stage: Stage, exporter: InMemorySpanExporter) -> Callable[..., FutureAdapter]:
    """An adapter with one worker, which a node that takes it with it would be missed."""

    def make(**options: Any) -> FutureAdapter:
        if request.param == "bare":
            return stage.adapter(FutureAdapter(1, tracing=False, metrics=False, attribution=False, **options))
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        registry = CollectorRegistry()
        return stage.adapter(FutureAdapter(1, tracer_provider=provider, registry=registry, record=True, **options))

    return make


def works(adapter: FutureAdapter) -> bool:
    """Whether the next run is right."""

    def one() -> int:
        return 1

    def two(one: int) -> int:
        return one + 1

    found: object = in_thread(driver_of(adapter, one, two).execute, ["two"]).result(PATIENCE)
    return found == {"two": 2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fail_fast", [False, True], ids=["", "fail_fast"])
def test_an_exception_reaches_the_caller(
    make: Callable[..., FutureAdapter], exporter: InMemorySpanExporter, kind: str, *, fail_fast: bool
) -> None:
    """As the very object, through a node that depends on the one that raised it; and the adapter works on."""
    error = KINDS[kind]()

    def bad() -> int:
        raise error

    def below(bad: int) -> int:
        return bad

    adapter = make(fail_fast=fail_fast)
    runs = driver_of(adapter, bad, below)
    assert in_thread(caught, lambda: runs.execute(["below"])).result(PATIENCE) is error
    assert works(adapter)
    in_thread(adapter.close).result(PATIENCE)
    spans = [span.name for span in exporter.get_finished_spans() if span.name in ("bad", "below")]
    assert sorted(spans) in ([], ["bad", "below"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_of_a_nested_run(make: Callable[..., FutureAdapter], kind: str) -> None:
    """On the only worker, which helps."""
    error = KINDS[kind]()

    def bad() -> int:
        raise error

    adapter = make()
    inside = driver_of(adapter, bad)

    def outer() -> object:
        return caught(lambda: inside.execute(["bad"])) is error

    assert in_thread(driver_of(adapter, outer).execute, ["outer"]).result(PATIENCE) == {"outer": True}
    assert works(adapter)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_raised_by_two_nodes(make: Callable[..., FutureAdapter], kind: str) -> None:
    """The same object: both futures have it."""
    error = KINDS[kind]()

    def bad(**arguments: object) -> int:
        raise error

    adapter = make()
    first, second = submit(adapter, bad), submit(adapter, bad)
    below = submit(adapter, lambda x, y: 1, x=first, y=second)
    for future in (first, second, below):
        assert in_thread(caught, future.result).result(PATIENCE) is error
    assert works(adapter)


def hostile_value(name: str) -> object:
    own = {name: property(refuse, refuse)} if name in ("__class__", "__dict__", "_state") else {name: refuse}
    return type(f"Value_{name.strip('_')}", (), own)()


VALUES = (
    "__getattribute__",
    "__class__",
    "__eq__",
    "__hash__",
    "__bool__",
    "__len__",
    "__iter__",
    "__repr__",
    "_state",
)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_cannot_be_touched(make: Callable[..., FutureAdapter], name: str) -> None:
    """Goes from node to node, or fails the node that it goes to; the adapter works on."""
    value = hostile_value(name)

    def given() -> object:
        return value

    def same(given: object) -> bool:
        return given is value

    adapter = make()
    answer = in_thread(driver_of(adapter, given, same).execute, ["same"])
    error = answer.exception(PATIENCE)
    assert str(error) == "do not touch me" if error is not None else answer.result() == {"same": True}
    assert works(adapter)
