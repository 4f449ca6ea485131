"""Numbers and names as people read them: the one way to write a duration, a share, a count or a name.

Here and not in `report`, since the sentences of `analysis` hold numbers too, and a figure must not be written in two
ways on one screen.

>>> [duration(ns) for ns in (0, 850, 12_340, 1_234_000, 999_960_000, 12_345_000_000, 125_000_000_000)]
['0 s', '850 ns', '12.3 µs', '1.23 ms', '1.00 s', '12.3 s', '2 min 5 s']
>>> share(0), share(0.0004), share(0.25), share(0.9999), share(1)
('0 %', '<1 %', '25 %', '>99 %', '100 %')
>>> change(before_ns=4_000_000_000, after_ns=3_000_000_000), change(before_ns=4_000_000_000, after_ns=4_001_000_000)
('-1.00 s (-25 %)', '+1.00 ms (<1 %)')
>>> count(1, "node"), count(12_000, "node")
('1 node', '12,000 nodes')
>>> listed(["a", "b", "c", "d", "e", "f"], limit=3)
'a, b, c and 3 more'
>>> one_line("a\\x1b[31m\\n</script>")
'a\\\\x1b[31m\\\\n</script>'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_NAME: Final = 60
_UNITS: Final = ((1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s"))


def duration(ns: float) -> str:
    """Three digits in the unit that fits; minutes and hours from two minutes on."""
    if ns < 0:
        return f"-{duration(-ns)}"
    if ns >= 119_500_000_000:
        return _clock(round(ns / 1e9))
    if ns < 0.5:
        return "0 s"
    # 999.96 ms is 1.00 s
    size, unit = next((each for each in reversed(_UNITS) if ns >= each[0] * 0.9995), _UNITS[0])
    number = ns / size
    decimals = 0 if unit == "ns" or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{decimals}f} {unit}"


def _clock(seconds: int) -> str:
    if seconds >= 3_600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours:,} h {minutes} min"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds} s"


def outline(record: object, name: str | None, *facts: str) -> str:
    """A record in one line, for its `repr`: what it is, its name, and the facts that there are.

    >>> outline(Exception(), "load", "1.20 s", "", "success"), outline(Exception(), None, "3 steps")
    ("<Exception 'load': 1.20 s, success>", '<Exception: 3 steps>')
    """
    named = type(record).__name__ if name is None else f"{type(record).__name__} {shortened(repr(name))}"
    return f"<{': '.join(filter(None, [named, ', '.join(filter(None, facts))]))}>"


def size(number: float) -> str:
    """Bytes, in three digits and the unit that fits.

    >>> size(850), size(12_345), size(20_000_000), size(1.5e9)
    ('850 B', '12.3 kB', '20.0 MB', '1.50 GB')
    """
    if number < 1_000:
        return f"{number:.0f} B"
    scale, unit = next(each for each in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if number >= each[0])
    scaled = number / scale
    return f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f} {unit}"


def signed(ns: float) -> str:
    """A difference, with its sign.

    >>> signed(1_500), signed(-1_500), signed(0)
    ('+1.50 µs', '-1.50 µs', '0 s')
    """
    return f"{'+' if ns >= 0.5 else ''}{duration(ns)}"


def share(part: float) -> str:
    """In whole percent; what is there is never shown as none, and what is missing never as all."""
    if 0 < part < 0.00995:
        return "<1 %"
    if 0.99 < part < 1:
        return ">99 %"
    return f"{part * 100:,.0f} %"


def percent(part: float, whole: float) -> str:
    """A share, where there is something to have one of.

    >>> percent(1, 4), percent(1, 0)
    ('25 %', '-')
    """
    return share(part / whole) if whole > 0 else "-"


def change(*, before_ns: float, after_ns: float) -> str:
    """The difference with its sign, and as a share of what was before."""
    difference = after_ns - before_ns
    if abs(difference) < 0.5:
        return "none"
    if before_ns <= 0:
        return signed(difference)
    part = share(abs(difference) / before_ns)
    sign = "" if part.startswith("<") else "-" if difference < 0 else "+"
    return f"{signed(difference)} ({sign}{part})"


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], limit: int = 4) -> str:
    """The first names, and how many more there are."""
    shown = [shortened(name) for name in names[:limit]]
    if len(names) > limit:
        return f"{', '.join(shown)} and {len(names) - limit:,} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def shortened(name: str) -> str:
    """A name in a sentence, without the middle of an endless one."""
    return one_line(name, MAX_NAME)


def one_line(name: str, limit: int = 0) -> str:
    """A name without anything that a terminal would obey; beyond `limit` characters its middle is left out.

    >>> one_line("a_very_long_name_of_a_node", 12)
    'a_very…_node'
    """
    if not name.isprintable():
        name = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)
    if limit and len(name) > limit:
        head = limit // 2
        name = f"{name[:head]}…{name[head + 1 - limit :]}"
    return name
