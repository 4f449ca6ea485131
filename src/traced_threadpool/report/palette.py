"""The states of a node's time into colours, the same hues on light and on dark.

Chosen by a search for the greatest distance between any two of them, as people with normal sight, protanopia and
deuteranopia see them, at a contrast of at least 3 to 1 against the background; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from traced_threadpool.model.records import STATES, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a state is shown. `terminal` is a colour that every terminal has."""

    light: str
    dark: str
    terminal: str
    meaning: str


LIGHT_BACKGROUND: Final = "#ffffff"
DARK_BACKGROUND: Final = "#14181d"

LOOKS: Final[Mapping[State, Look]] = {
    "cpu": Look(light="#3c77d0", dark="#5899f3", terminal="blue", meaning="computing"),
    "gil": Look(light="#962a07", dark="#c43b10", terminal="red", meaning="waiting for the GIL"),
    "runqueue": Look(light="#c48800", dark="#da982b", terminal="yellow", meaning="waiting for a CPU"),
    "network": Look(light="#235a50", dark="#5ac5a6", terminal="green", meaning="waiting for a socket"),
    "disk": Look(light="#4e1e7d", dark="#cbbcfd", terminal="magenta", meaning="waiting for a file"),
    "lock": Look(light="#a34993", dark="#b972aa", terminal="bright_magenta", meaning="waiting for another thread"),
    "sleep": Look(light="#737742", dark="#ebdfa2", terminal="cyan", meaning="sleeping"),
    "other": Look(light="#8793a1", dark="#65696f", terminal="white", meaning="waiting for something else, or unknown"),
}

assert tuple(LOOKS) == STATES
