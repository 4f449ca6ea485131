"""The states of a node's time, in one table: each moment between a node's start and end is in exactly one of them.

All else follows from it: the order of a division, attributes, the metric's labels, colours, reference pages. To add a
state, add a row here; if samples are to tell it, add a rule in `waits/classify.py` too.

A division is a tuple of nanoseconds in the order of `STATES`:

>>> division = in_order({"cpu": 3, "sleep": 5})
>>> division[CPU], division[OTHER], has_waits(division)
(3, 0, True)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Literal, get_args

State = Literal["cpu", "gil", "runqueue", "network", "disk", "lock", "sleep", "transfer", "remote_queue", "other"]

Measured = Literal["cpu_clock", "schedstat", "sampled", "backend", "rest"]
"""How a state's time is known: by the thread's CPU clock; by the kernel's count of its run-queue delay; by samples of
what the thread waits for; by the backend that runs the node; or it is what is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateInfo:
    """A state. `light` and `dark` are its colours on pages, `terminal` and `panel` those elsewhere."""

    name: State
    meaning: str
    measured: Measured
    light: str
    dark: str
    terminal: str
    panel: str


# The same hues on light and on dark, chosen by a search for the greatest distance between any two of them, as people
# with normal sight, protanopia and deuteranopia see them, at a contrast of at least 3 to 1; a test holds them to it.
TABLE: Final = (
    StateInfo(
        name="cpu",
        meaning="computing",
        measured="cpu_clock",
        light="#3c77d0",
        dark="#5899f3",
        terminal="blue",
        panel="green",
    ),
    StateInfo(
        name="gil",
        meaning="waiting for the GIL",
        measured="sampled",
        light="#962a07",
        dark="#c43b10",
        terminal="red",
        panel="red",
    ),
    StateInfo(
        name="runqueue",
        meaning="waiting for a CPU",
        measured="schedstat",
        light="#c48800",
        dark="#da982b",
        terminal="yellow",
        panel="orange",
    ),
    StateInfo(
        name="network",
        meaning="waiting for a socket",
        measured="sampled",
        light="#235a50",
        dark="#5ac5a6",
        terminal="green",
        panel="blue",
    ),
    StateInfo(
        name="disk",
        meaning="waiting for a file",
        measured="sampled",
        light="#4e1e7d",
        dark="#cbbcfd",
        terminal="magenta",
        panel="purple",
    ),
    StateInfo(
        name="lock",
        meaning="waiting for another thread",
        measured="sampled",
        light="#a34993",
        dark="#b972aa",
        terminal="bright_magenta",
        panel="dark-red",
    ),
    StateInfo(
        name="sleep",
        meaning="sleeping",
        measured="sampled",
        light="#737742",
        dark="#ebdfa2",
        terminal="cyan",
        panel="light-blue",
    ),
    StateInfo(
        name="transfer",
        meaning="moving to a backend and back",
        measured="backend",
        light="#0e05e1",
        dark="#fdfe06",
        terminal="bright_blue",
        panel="dark-blue",
    ),
    StateInfo(
        name="remote_queue",
        meaning="waiting for a worker of a backend",
        measured="backend",
        light="#550306",
        dark="#aa05ca",
        terminal="bright_yellow",
        panel="dark-yellow",
    ),
    StateInfo(
        name="other",
        meaning="waiting for something else, or unknown",
        measured="rest",
        light="#8793a1",
        dark="#65696f",
        terminal="white",
        panel="gray",
    ),
)

STATES: Final[tuple[State, ...]] = tuple(each.name for each in TABLE)
INFO: Final[Mapping[State, StateInfo]] = {each.name: each for each in TABLE}
assert set(STATES) == set(get_args(State))

CPU: Final = STATES.index("cpu")
OTHER: Final = STATES.index("other")
RUNQUEUE: Final = STATES.index("runqueue")
TRANSFER: Final = STATES.index("transfer")
REMOTE_QUEUE: Final = STATES.index("remote_queue")

SAMPLED: Final[tuple[State, ...]] = tuple(each.name for each in TABLE if each.measured in ("sampled", "rest"))
"""The states that samples tell apart, `other` among them, in the order of the table."""

_waits: Final = itemgetter(*(at for at in range(len(STATES)) if at not in (CPU, OTHER)))


def _places(*measured: State) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    """Puts values of these states, followed by a 0 for all others, in the order of `STATES`."""
    return itemgetter(*(measured.index(state) if state in measured else len(measured) for state in STATES))


_sampled: Final = _places("cpu", "runqueue", *SAMPLED)
_unsampled: Final = _places("cpu", "runqueue", "other")


def sampled(cpu_ns: int, runqueue_ns: int, sampled_ns: Sequence[int]) -> tuple[int, ...]:
    """The division with these parts; the last are of each state in `SAMPLED`."""
    return _sampled((cpu_ns, runqueue_ns, *sampled_ns, 0))


def unsampled(cpu_ns: int, runqueue_ns: int, other_ns: int) -> tuple[int, ...]:
    """The division where all that is not measured exactly is `other`."""
    return _unsampled((cpu_ns, runqueue_ns, other_ns, 0))


def in_order(parts: Mapping[State, int]) -> tuple[int, ...]:
    """The division with these parts, and 0 for all other states."""
    return tuple([parts.get(state, 0) for state in STATES])


def has_waits(division: Sequence[int]) -> bool:
    """Whether there is time in any state but `cpu` and `other`."""
    return any(_waits(division))
