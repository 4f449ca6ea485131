"""A backend of an adapter as a record has it: of what kind it is, and how many of its nodes may run at once."""

from __future__ import annotations

from typing import Final, NamedTuple

PROCESSES: Final = "processes"
"""The kind of backend that runs nodes in other processes of this machine."""


class Lane(NamedTuple):
    """`kind` is `threads`, `processes`, `dask`, or what else the backend's class is called.

    >>> str(Lane("processes", 4)), lane_of("cpu processes 4")
    ('processes 4', ('cpu', Lane(kind='processes', max_workers=4)))
    """

    kind: str
    max_workers: int

    def __str__(self) -> str:
        return f"{self.kind} {self.max_workers}"


def lane_of(text: str) -> tuple[str, Lane] | None:
    """The name and the lane that a word of a record tells: None for what is none.

    >>> lane_of("my cluster dask 8"), lane_of("cpu processes 0"), lane_of("4")
    (('my cluster', Lane(kind='dask', max_workers=8)), None, None)
    """
    name, kind, number = (["", "", "", *text.rsplit(" ", 2)])[-3:]
    if not (name and kind and number.isascii() and number.isdigit() and int(number)):
        return None
    return name, Lane(kind, int(number))
