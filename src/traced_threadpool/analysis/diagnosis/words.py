"""Numbers and names into words for sentences.

>>> [seconds(ns) for ns in (0, 850, 12_340, 1_234_000, 999_960_000, 12_345_000_000, 1_250_000_000_000)]
['0 s', '850 ns', '12.3 us', '1.23 ms', '1.00 s', '12.3 s', '1,250 s']
>>> share(0), share(0.0004), share(0.25), share(0.9999), share(1)
('0 %', '<1 %', '25 %', '>99 %', '100 %')
>>> listed(["a", "b", "c", "d", "e", "f"], limit=3)
'a, b, c and 3 more'
>>> count(1, "node"), count(12_000, "node")
('1 node', '12,000 nodes')
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_NAME: Final = 60
_UNITS: Final = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"))


def seconds(ns: float) -> str:
    """Three digits, in the unit that fits."""
    for size, unit in _UNITS:
        number = ns / size
        if number >= 0.9995:
            return f"{number:,.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f} {unit}"
    return f"{ns:.0f} ns" if ns >= 0.5 else "0 s"


def share(part: float) -> str:
    """In whole percent; what is there is never shown as none, and what is missing never as all."""
    if 0 < part < 0.00995:
        return "<1 %"
    if 0.99 < part < 1:
        return ">99 %"
    return f"{part * 100:,.0f} %"


def listed(names: Sequence[str], limit: int = 4) -> str:
    """The first names, and how many more there are."""
    shown = [shortened(name) for name in names[:limit]]
    if len(names) > limit:
        return f"{', '.join(shown)} and {len(names) - limit:,} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def shortened(name: str) -> str:
    """A name, without the middle of an endless one."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2]}...{name[3 - MAX_NAME // 2 :]}"


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
