"""What the contract's tests share: both classes, small DAGs, and what is done with them."""

from __future__ import annotations

import signal
import threading
import types
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from hamilton import ad_hoc_utils
from hamilton.htypes import Collect, Parallelizable
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter

from tests.dags import PATIENCE, driver_of, in_thread
from traced_threadpool import FutureAdapter

AdapterClass = type[Any]
MakeAdapter = Callable[..., Any]

BOTH = [pytest.param(HamiltonsAdapter, id="hamilton"), pytest.param(FutureAdapter, id="ours")]

posix_only = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of POSIX")


def one() -> int:
    return 1


def two(one: int) -> int:
    return one + 1


def total(one: int, two: int) -> int:
    return one + two


def run(adapter: Any, *others: Any, outputs: tuple[str, ...] = ("total", "one")) -> Any:
    """What a small DAG gives. The adapter's threads are gone afterwards."""
    try:
        return driver_of(adapter, one, two, total, others=others).execute(list(outputs))
    finally:
        adapter.executor.shutdown()


RIGHT = {"total": 3, "one": 1}


class Sorted:
    """Builds a list; is no result builder of Hamilton's, and says nothing of types."""

    def build_result(self, **outputs: Any) -> list[Any]:
        return sorted(outputs.items())


ITEMS = [("one", 1), ("total", 3)]


def module() -> types.ModuleType:
    """The DAG."""
    return ad_hoc_utils.create_temporary_module(one, two, total)


def outcome_of(future: Future[Any]) -> Any:
    try:
        return future.result(PATIENCE)
    except CancelledError:
        return "cancelled"


def identity(x: Any) -> Any:
    return x


def error_of(future: Future[Any]) -> BaseException | None:
    """What `result` raises."""
    try:
        future.result(PATIENCE)
    except BaseException as error:
        return error
    return None


def within_patience(function: Callable[[], Any]) -> Any:
    """Calls what might deadlock, so that the test fails instead of hanging."""
    return in_thread(function).result(PATIENCE)


def numbers() -> Parallelizable[int]:
    yield from (1, 2, 3)


def squared(numbers: int) -> int:
    return numbers**2


def squares(squared: Collect[int]) -> list[int]:
    return list(squared)


def nested(adapter: Any, depth: int, *, width: int = 1) -> int:
    """Executes a driver whose nodes do the same, `depth` levels down. Returns how many leaves there were."""

    def leaf() -> int:
        return 1

    def left() -> int:
        return nested(adapter, depth - 1, width=width)

    def right() -> int:
        return nested(adapter, depth - 1, width=width)

    def both(left: int, right: int) -> int:
        return left + right

    if depth == 0:
        leaves: int = driver_of(adapter, leaf).execute(["leaf"])["leaf"]
        return leaves
    wanted, nodes = ("both", [left, right, both]) if width == 2 else ("left", [left, leaf])
    total: int = driver_of(adapter, *nodes).execute([wanted])[wanted]
    return total


def announcing(adapter_class: type[Any], building: threading.Event) -> type[Any]:
    """The class, with an event that is set when the main thread begins to wait for its results."""

    class Announcing(adapter_class):  # type: ignore[misc]
        def build_result(self, **outputs: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                building.set()
            return super().build_result(**outputs)

    return Announcing
