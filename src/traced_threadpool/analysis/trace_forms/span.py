"""A span as the analysis sees it, whatever file format it came in; what the formats have in common."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import ulp
from sys import intern
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from traced_threadpool.telemetry import names

Attributes = Mapping[str, Any]

_EXACT_DOUBLES: Final = 2**53
_HALF: Final = 2**32 - 1
_INFINITY: Final = float("inf")
_OF_OURS: Final = "hamilton."
_OF_RUNS: Final = "hamilton.run."
_OF_NODES: Final = "hamilton.node."
_OF_OTHERS: Final = frozenset({names.THREAD_NAME, names.THREAD_ID, names.ERROR_TYPE})


class Span(NamedTuple):
    """One span. `id`, `parent_id` and `links` name a span by its trace id and span id together.

    `links` are those of the span that name a parameter, or all of them where the format does not tell.
    `attributes` are those of Hamilton nodes and runs, and what else a record needs; not a node's tags, nor others'.
    Times are Unix time, exact to `resolution_ns`. `error_message` is the description of a status that is an error.
    """

    id: str
    name: str
    started_ns: int
    ended_ns: int
    parent_id: str | None = None
    parent_is_remote: bool = False
    links: tuple[str, ...] = ()
    dropped_links: int = 0
    dropped_attributes: int = 0
    attributes: Attributes = MappingProxyType({})
    resolution_ns: int = 1
    error_message: str | None = None

    @property
    def is_run(self) -> bool:
        attributes = self.attributes
        if names.RUN_OUTCOME in attributes or names.RUN_NODE_COUNT in attributes:
            return True
        return self.dropped_attributes > 0 and any(
            key.startswith(_OF_RUNS) for key in attributes if key != names.RUN_ID
        )

    @property
    def is_node(self) -> bool:
        attributes = self.attributes
        if names.NODE_NAME in attributes or names.NODE_OUTCOME in attributes:
            return True
        return self.dropped_attributes > 0 and any(key.startswith(_OF_NODES) for key in attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """What stands in the place of a span without ids or times."""


Found = Iterator[tuple[str, "Span | Unreadable"]]
"""Spans, each with the identity of the process that it says it came from."""


def span_id(trace: object, span: object) -> str | None:
    """Both ids as one, from hex or base64; None where either is missing or neither.

    >>> span_id("5B8EFFF798038103D269B633813FC60C", "eee19b7ec3c1b173")
    '5b8efff798038103d269b633813fc60ceee19b7ec3c1b173'
    >>> span_id("W47/95gDgQPSabYzgT/GDA==", "7uGbfsPBsXM=")
    '5b8efff798038103d269b633813fc60ceee19b7ec3c1b173'
    >>> span_id("1f", "7"), span_id("", "07"), span_id("0" * 32, "zz")
    ('0000000000000000000000000000001f0000000000000007', None, None)
    """
    return _both(trace, span) if isinstance(trace, str) and isinstance(span, str) else None


@lru_cache(maxsize=4_096)  # a parent or a linked span has often been met lately
def _both(trace: str, span: str) -> str | None:
    trace_hex, span_hex = _trace_hex(trace), _hex(span, 16)
    return None if trace_hex is None or span_hex is None else trace_hex + span_hex


@lru_cache(maxsize=256)
def _trace_hex(text: str) -> str | None:
    return _hex(text, 32)


def _hex(text: str, digits: int) -> str | None:
    try:
        number = int.from_bytes(b64decode(text, validate=True), "big") if text.endswith("=") else int(text, 16)
    except ValueError:
        return None
    return f"{number:0{digits}x}" if 0 < number < 16**digits else None


def unix_ns(value: object, unit_ns: int = 1) -> int | None:
    """A point in time, in units of `unit_ns`; None for what cannot be one."""
    number = whole(value)
    return None if number is None or not 0 < number < 2**63 // unit_ns else number * unit_ns


def rounded_to_ns(*times: object) -> int:
    """To how many nanoseconds the times of a span are exact, from the way in which they are written.

    JSON has them as strings, since the numbers of JavaScript are doubles: what a page writes as numbers, such as a
    download from Grafana, is rounded to 256 ns in these years. It writes 17 digits, and zeros.

    >>> rounded_to_ns(1777555053780274700), rounded_to_ns("1.7775550537802747e18"), rounded_to_ns("1777555053780274611")
    (256, 256, 1)
    """
    for time in times:
        if not _is_a_double(time):
            return 1
    return max(1, *[int(ulp(float(whole(time) or 0))) for time in times])


def _is_a_double(time: object) -> bool:
    if type(time) is str:
        if not time.endswith("00"):  # as most that are exact
            return "e" in time or "E" in time or "." in time
        time = whole(time)
    if type(time) is int:
        return time % 100 == 0 and time > _EXACT_DOUBLES and int(Decimal(repr(float(time)))) == time
    return type(time) is float


def whole(value: object) -> int | None:
    """A whole number, also one written as a string, as JSON has it for 64 bits, or in two halves, as JavaScript may.

    No protocol has more than 64 bits, and floats fail at more.

    >>> whole("1e300"), whole("9" * 400), whole(-(10**20))
    (None, None, None)
    >>> whole("12"), whole(3.0), whole("1.5e3"), whole({"low": -1, "high": 1}), whole("later"), whole(None)
    (12, 3, 1500, 8589934591, None, None)
    """
    if isinstance(value, (int, str, float)):
        try:
            found = int(value)
        except (ValueError, OverflowError):
            number = number_of(value) if isinstance(value, str) else None
            if number is None:
                return None
            found = int(number)
        return found if -(2**63) <= found < 2**64 else None
    if type(value) is dict and type(low := value.get("low")) is type(high := value.get("high")) is int:
        return (high & _HALF) << 32 | low & _HALF
    return None


def attributes_of(pairs: object, value_of: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
    """The attributes that a record needs, of a list of objects that have a `key`."""
    attributes: dict[str, Any] = {}
    for pair in pairs if type(pairs) is list else ():
        key = pair.get("key") if type(pair) is dict else None
        if type(key) is str and (wanted := _wanted(key)) is not None:
            value = value_of(pair)
            attributes[wanted] = intern(value) if type(value) is str else value
    return attributes


@lru_cache(maxsize=1_000)  # a file has few different keys
def _wanted(key: str) -> str | None:
    """The same key, once for all spans; None for one that no record needs."""
    is_ours = key.startswith(_OF_OURS) and not key.startswith(names.NODE_TAG_PREFIX)
    return intern(key) if is_ours or key in _OF_OTHERS else None


def texts(value: object) -> tuple[str, ...]:
    """A list of strings, also one that was flattened into JSON text, as Jaeger has it.

    >>> texts(["a", "b"]), texts('["a","b"]'), texts("a"), texts(None)
    (('a', 'b'), ('a', 'b'), ('a',), ())
    """
    return tuple(intern(str(each)) for each in _items(value))


def numbers(value: object) -> tuple[float, ...]:
    """A list of numbers, likewise."""
    return tuple(number for number in map(number_of, _items(value)) if number is not None)


def number_of(value: object) -> float | None:
    """A finite number, also one written as a string."""
    if type(value) is float and -_INFINITY < value < _INFINITY:
        return value
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        if abs(number) < _INFINITY:
            return number
    return None


def text_of(attributes: Attributes, name: str) -> str | None:
    """An attribute as text; None where it is missing or empty."""
    value = attributes.get(name)
    return None if value is None or value == "" else str(value)


def _items(value: object) -> Sequence[Any]:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return (value,)
    if isinstance(value, list):
        return value
    return () if value is None or value == "" else (value,)
