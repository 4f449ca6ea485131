"""How long nodes took into how long they may take next time; to a small file, and from it.

A moving average for each name: the first duration as it is, later ones with a weight of a quarter, so that it has
followed a lasting change after some ten runs and soon forgets one bad run. The first `MOST_NAMES` names are kept.

>>> durations = Durations()
>>> for milliseconds in (100, 100, 200):
...     durations.learn("load", milliseconds * 1_000_000)
>>> durations.seconds()
{'load': 0.125}

The order of nodes is made from a copy that follows only when the average has moved by more than a tenth (and 0.1 ms):
nodes of steady durations do not cause it to be made anew in every run.

>>> durations.learn("load", 130_000_000)
>>> durations.seconds(), durations.settled(["load", "unknown"]), durations.changes
({'load': 0.12625}, {'load': 0.125}, 2)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from traced_threadpool.model import forks
from traced_threadpool.model.atomic_write import write_whole

WEIGHT: Final = 0.25
STEP: Final = 0.1
STEP_NS: Final = 100_000
NEAR_NS: Final = 20_000
"""What is as near as this to the average does not move it: short nodes, which are many, are then learned for little."""
MOST_NAMES: Final = 100_000
VERSION: Final = 1


class Durations:
    """Learned durations of nodes, by name. Every method may be called from any thread, also on a copy being saved.

    There is no lock: each step is one operation on a dict or a list, which Python does as a whole. Of two updates of
    one name at the same moment one may be lost, which an average bears.
    """

    __slots__ = ("__weakref__", "_estimates", "changes")

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._estimates: dict[str, list[float]] = {}  # nanoseconds: the average, and its settled copy
        self.changes = 0  # of what `settled` gives
        for name, value in (seconds or {}).items():
            self.learn(name, value * 1e9)
        forks.register(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        self._estimates = forks.kept_in_child(self._estimates, {})

    def __len__(self) -> int:
        return len(self._estimates)

    def learn(self, name: str, duration_ns: float) -> None:
        """An execution of the node took this long."""
        estimate = self._estimates.get(name)
        if estimate is None:
            if len(self._estimates) < MOST_NAMES:
                self._estimates[name] = [duration_ns, duration_ns]
                self.changes += 1
            return
        average, settled = estimate
        if -NEAR_NS < duration_ns - average < NEAR_NS:
            return
        estimate[0] = average = average + (duration_ns - average) * WEIGHT
        most = settled * STEP + STEP_NS
        if not -most <= average - settled <= most:
            estimate[1] = average
            self.changes += 1

    def seconds(self) -> dict[str, float]:
        """The averages."""
        return {name: round(estimate[0]) / 1e9 for name, estimate in dict(self._estimates).items()}

    def settled(self, names: Iterable[str]) -> dict[str, float]:
        """Of those names that are known, the averages as they were when they last moved much."""
        known = self._estimates.get
        return {name: estimate[1] / 1e9 for name in names if (estimate := known(name)) is not None}

    def settled_each(self, names: Iterable[str]) -> list[float | None]:
        """The same as a list, with None for each name that is not known."""
        return [None if estimate is None else estimate[1] / 1e9 for estimate in map(self._estimates.get, names)]


def save(durations: Durations, path: str | os.PathLike[str]) -> None:
    """Writes names and seconds. Whoever reads the file meanwhile sees the old one or the new one, whole.

    Raises:
        OSError: It cannot be written. What was there is still there.
    """
    document = {"version": VERSION, "seconds": durations.seconds()}
    write_whole(path, json.dumps(document, indent=0, ensure_ascii=False) + "\n")


def load(path: str | os.PathLike[str]) -> Durations:
    """Reads what `save` wrote.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a file.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no file of durations: it is not JSON ({error}); {_REMEDY}") from error
    except RecursionError:
        raise ValueError(f"{str(path)!r} is no file of durations: it is nested too deeply; {_REMEDY}") from None
    if not isinstance(document, dict) or not isinstance(document.get("seconds"), dict):
        raise ValueError(f"{str(path)!r} is no file of durations: it has no object 'seconds'; {_REMEDY}")
    version = document.get("version")
    if version != VERSION:
        raise ValueError(f"{str(path)!r} has version {version!r}, and this release reads {VERSION}; {_REMEDY}")
    for name, value in document["seconds"].items():
        if not _is_duration(value):
            raise ValueError(f"{str(path)!r} has {value!r} for node {name!r}, which are no seconds; {_REMEDY}")
    return Durations(document["seconds"])


_REMEDY: Final = "write one with save_durations(), or remove it to start with nothing learned"


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf
