"""Nodes for tests of spans and of metrics: a diamond, a failure and what is below it, and one that is held."""

from __future__ import annotations

from collections.abc import Callable

from tests.telemetry.telemetry_helpers import Gate


def load() -> int:
    return 1


def left(load: int) -> int:
    return load + 1


def right(load: int) -> int:
    return load + 2


def joined(left: int, right: int) -> int:
    return left + right


def fails() -> int:
    raise ValueError("a message")


def after(fails: int) -> int:
    return fails


def far(after: int) -> int:
    return after


def holding(gate: Gate) -> Callable[[], int]:
    """A node `held`, which waits at the gate."""

    def held() -> int:
        gate()
        return 1

    return held


def pending(held: int) -> int:
    return held
