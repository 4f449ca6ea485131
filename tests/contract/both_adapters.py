"""What tests of both adapters share: the classes, a small DAG, and builders of its results."""

from __future__ import annotations

import types
from concurrent.futures import CancelledError, Future
from typing import Any

from hamilton import ad_hoc_utils

from tests.dags import PATIENCE, driver_of

AdapterClass = type[Any]


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
