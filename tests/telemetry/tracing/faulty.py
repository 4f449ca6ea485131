"""Nodes that fail, for the tests of failing telemetry."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")


class Boom(Exception):
    """What telemetry raises here."""


def load() -> int:
    return 1


def left(load: int) -> int:
    return load + 1


def fails() -> int:
    raise ValueError("a message")


def after(fails: int) -> int:
    return fails


class Big:
    """A value that can be watched."""


def make_big() -> tuple[Any, list[weakref.ref[Big]]]:
    """A node that makes a `Big`, and where to find it."""
    made: list[weakref.ref[Big]] = []

    def big() -> Big:
        value = Big()
        made.append(weakref.ref(value))
        return value

    return big, made
