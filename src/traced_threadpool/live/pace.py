"""The durations of a run's nodes so far into how much slower or faster than usual the rest of it may go.

A machine that others use, or inputs twice as large as yesterday's, change all nodes of a run alike; what nodes are
spread by on their own says nothing of the rest. So the mean of the logarithms of duration by usual duration, weighted
by the usual duration, counts as far as it stands out of its own standard error, and not at all when it does not.

>>> usual = {name: UsualDuration(p50_seconds=1.0, p95_seconds=1.2, count=9) for name in "abcdef"}
>>> pace = Pace(usual.get)
>>> for name, seconds in zip("abcdef", (0.9, 1.1, 0.95, 1.05, 1.1, 0.9)):
...     pace.note(name, seconds * 1e9)
>>> pace.factor()
1.0
>>> pace = Pace(usual.get)
>>> for name, seconds in zip("abcdef", (1.9, 2.1, 1.95, 2.05, 2.1, 1.9)):
...     pace.note(name, seconds * 1e9)
>>> round(pace.factor(), 1)
2.0
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from traced_threadpool.model.usual_duration import UsualDuration

LEAST_NODES: Final = 4
LEAST_SPREAD: Final = 0.05
"""Of one logarithm: nothing is as regular as a few executions may make it look."""

MOST: Final = math.log(20)
"""Beyond, it is the node that has changed and not the run."""


class Pace:
    """Of one run.

    Args:
        usual: How long a node of that name usually takes, as of before the run.
    """

    def __init__(self, usual: Callable[[str], UsualDuration | None]) -> None:
        self._usual = usual
        self._new: list[tuple[str, float]] = []
        self._seen: list[tuple[float, float]] = []  # weight and logarithm

    def learning(self, learn: Callable[[str, int], object] | None) -> Callable[[str, int], object]:
        """Notes each duration before it is learned."""
        note = self.note

        def both(name: str, duration_ns: int) -> None:
            note(name, duration_ns)
            if learn is not None:
                learn(name, duration_ns)

        return both

    def note(self, name: str, duration_ns: float) -> None:
        """A node of the run took so long."""
        self._new.append((name, duration_ns))

    def factor(self) -> float:
        """By what usual durations are multiplied for the rest of the run."""
        new, self._new = self._new, []
        for name, duration_ns in new:
            usual = self._usual(name)
            if usual is not None and usual.p50_seconds > 0 and duration_ns > 0:
                off = math.log(duration_ns / 1e9 / usual.p50_seconds)
                self._seen.append((usual.p50_seconds, max(-MOST, min(MOST, off))))
        count = len(self._seen)
        if count < LEAST_NODES:
            return 1.0
        whole = sum(weight for weight, _ in self._seen)
        mean = sum(weight * off for weight, off in self._seen) / whole
        few = count / (count - 1)
        squares = [weight**2 * ((off - mean) ** 2 * few + LEAST_SPREAD**2) for weight, off in self._seen]
        error = sum(squares) / whole**2  # squared
        return math.exp(mean * max(0.0, 1 - 2 * error / mean**2)) if mean else 1.0
