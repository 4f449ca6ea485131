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

The latest `KEPT` durations of a name are kept as they are, for the median and the 95th percentile:

>>> durations.usual("load")
UsualDuration(p50_seconds=0.115, p95_seconds=0.1895, count=4)
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

from traced_threadpool.model import forks
from traced_threadpool.model.atomic_write import write_whole
from traced_threadpool.model.formatting import count, outline
from traced_threadpool.model.usual_duration import UsualDuration

WEIGHT: Final = 0.25
STEP: Final = 0.1
STEP_NS: Final = 100_000
NEAR_NS: Final = 20_000
"""What is as near as this to the average does not move it: short nodes, which are many, are then learned for little."""
MOST_NAMES: Final = 100_000
KEPT: Final = 20
FEW: Final = 5
FEW_SPREAD: Final = 1.5
"""Of fewer executions than `FEW`, the 95th percentile is told as this many times the median, or more."""

VERSION: Final = 2
READABLE: Final = (1, 2)


class _Learned:
    """What is known of one name, in nanoseconds."""

    __slots__ = ("average", "count", "latest", "settled")

    def __init__(self, duration_ns: float) -> None:
        self.average = self.settled = duration_ns
        self.latest = deque((duration_ns,), KEPT)
        self.count = 1  # of executions, those of an earlier process among them


class Durations:
    """Learned durations of nodes, by name. Every method may be called from any thread, also on a copy being saved.

    There is no lock: each step is one operation on a dict or a list, which Python does as a whole. Of two updates of
    one name at the same moment one may be lost, which an average bears.
    """

    __slots__ = ("__weakref__", "_learned", "_usual", "changes", "place", "placement")

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._learned: dict[str, _Learned] = {}
        self._usual: dict[str, UsualDuration] = {}  # as they were when somebody last asked
        self.changes = 0  # of what `settled` gives
        self.placement: Mapping[str, Any] = {}  # what an earlier process knew of where nodes run best
        self.place: Callable[[], Mapping[str, Any]] = dict  # the same as of now
        for name, value in (seconds or {}).items():
            self.learn(name, value * 1e9)
        forks.register(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        self._learned = forks.kept_in_child(self._learned, {})
        self._usual = {}

    def __repr__(self) -> str:
        return outline(self, None, count(len(self), "node"))

    def __len__(self) -> int:
        return len(self._learned)

    def learn(self, name: str, duration_ns: float) -> None:
        """An execution of the node took this long."""
        learned = self._learned.get(name)
        if learned is None:
            if len(self._learned) < MOST_NAMES:
                self._learned[name] = _Learned(duration_ns)
                self.changes += 1
            return
        learned.latest.append(duration_ns)
        learned.count += 1
        difference = duration_ns - learned.average
        if -NEAR_NS < difference < NEAR_NS:
            return
        learned.average = average = learned.average + difference * WEIGHT
        most = learned.settled * STEP + STEP_NS
        if not -most <= average - learned.settled <= most:
            learned.settled = average
            self.changes += 1

    def seconds(self) -> dict[str, float]:
        """The averages."""
        return {name: round(learned.average) / 1e9 for name, learned in dict(self._learned).items()}

    def usual(self, name: str) -> UsualDuration | None:
        """Median and 95th percentile of the latest executions, None for a name that is not known."""
        learned = self._learned.get(name)
        if learned is None:
            return None
        executions = learned.count
        cached = self._usual.get(name)
        if cached is not None and cached.count == executions:
            return cached
        known = sorted(learned.latest.copy())
        p50, p95 = _percentile(known, 0.5), _percentile(known, 0.95)
        if len(known) < FEW:
            p95 = max(p95, p50 * FEW_SPREAD)
        usual = UsualDuration(p50_seconds=round(p50) / 1e9, p95_seconds=round(p95) / 1e9, count=executions)
        self._usual[name] = usual
        return usual

    def _restore(self, name: str, usual: UsualDuration) -> None:
        """Durations with this median and percentile stand for those that an earlier process has seen."""
        learned = self._learned.get(name)
        if learned is None:
            return
        learned.latest = deque(_spread(usual, min(usual.count, KEPT // 2)), KEPT)
        learned.count = usual.count
        self._usual.pop(name, None)

    def settled(self, names: Iterable[str]) -> dict[str, float]:
        """Of those names that are known, the averages as they were when they last moved much."""
        known = self._learned.get
        return {name: learned.settled / 1e9 for name in names if (learned := known(name)) is not None}

    def settled_each(self, names: Iterable[str]) -> list[float | None]:
        """The same as a list, with None for each name that is not known."""
        return [None if learned is None else learned.settled / 1e9 for learned in map(self._learned.get, names)]


def save(durations: Durations, path: str | os.PathLike[str]) -> None:
    """Writes names and seconds. Whoever reads the file meanwhile sees the old one or the new one, whole.

    Raises:
        OSError: It cannot be written. What was there is still there.
    """
    seconds = durations.seconds()
    spread = {
        name: [usual.p50_seconds, usual.p95_seconds, usual.count]
        for name in seconds
        if (usual := durations.usual(name)) is not None
    }
    document = {"version": VERSION, "seconds": seconds, "spread": spread}
    if placement := durations.place() or durations.placement:
        document["placement"] = placement
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
    if version not in READABLE:
        raise ValueError(f"{str(path)!r} has version {version!r}, and this release reads {READABLE}; {_REMEDY}")
    for name, value in document["seconds"].items():
        if not _is_duration(value):
            raise ValueError(f"{str(path)!r} has {value!r} for node {name!r}, which are no seconds; {_REMEDY}")
    durations = Durations(document["seconds"])
    spread = document.get("spread", {})
    if not isinstance(spread, dict):
        raise ValueError(f"{str(path)!r} has {spread!r} as 'spread', which is no object; {_REMEDY}")
    for name, values in spread.items():
        if not _is_spread(values):
            raise ValueError(
                f"{str(path)!r} has {values!r} as the spread of node {name!r}, expected "
                f"[median, 95th percentile, count]; {_REMEDY}"
            )
        p50, p95, count = values
        durations._restore(name, UsualDuration(p50_seconds=p50, p95_seconds=p95, count=count))
    placement = document.get("placement", {})
    if not isinstance(placement, dict) or not all(map(_is_placed, placement.values())):
        raise ValueError(f"{str(path)!r} has a 'placement' that save_durations() did not write; {_REMEDY}")
    durations.placement = placement
    return durations


def _percentile(known: list[float], share: float) -> float:
    """By linear interpolation between the two nearest."""
    at = (len(known) - 1) * share
    below = int(at)
    above = min(below + 1, len(known) - 1)
    return known[below] + (known[above] - known[below]) * (at - below)


def _spread(usual: UsualDuration, count: int) -> list[float]:
    """So many nanoseconds, of a log-normal distribution with that median and 95th percentile."""
    if usual.p50_seconds <= 0 or usual.p95_seconds <= usual.p50_seconds or count < 2:
        return [usual.p50_seconds * 1e9] * max(1, count)
    normal = NormalDist()
    sigma = math.log(usual.p95_seconds / usual.p50_seconds) / normal.inv_cdf(0.95)
    shares = [0.05 + 0.9 * index / (count - 1) for index in range(count)]
    return [usual.p50_seconds * math.exp(sigma * normal.inv_cdf(share)) * 1e9 for share in shares]


_REMEDY: Final = "write one with save_durations(), or remove it to start with nothing learned"


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


_PLACED: Final = {
    "state": (str,),
    "executions": (int,),
    "duration_ns": (int, float),
    "gained_ns": (int, float),
    "transfer_ns": (int, float, type(None)),
    "reason": (str,),
}


def _is_placed(values: Any) -> bool:
    return (
        isinstance(values, dict)
        and values.keys() == _PLACED.keys()
        and all(type(values[key]) in kinds for key, kinds in _PLACED.items())
    )


def _is_spread(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == 3
        and _is_duration(values[0])
        and _is_duration(values[1])
        and values[0] <= values[1]
        and type(values[2]) is int
        and values[2] >= 1
    )
