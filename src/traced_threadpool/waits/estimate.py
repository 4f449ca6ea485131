"""A node's exact parts and its samples into a split of its time that adds up.

What is neither processor time nor run-queue delay is `off`. A look at a blocked worker stands for a stretch of time;
`off` is divided in proportion of what the looks at this node stood for::

    state = off * seen(state) / (seen(gil) + seen(network) + ... + seen(other))

A single node that was looked at `n` times has that proportion mixed with the past of the same node, which counts as
much as `PAST_LOOKS` looks. Without looks and without a past, `off` is `other`.

Counters must be right in the sum, also where each node is too short to be looked at, and may never fall. So what is
counted is not the single node's figure: each `Account` knows what its node's executions should have been given so far,
all their `off` divided as all their looks, and gives each new `off` to the states that are behind.

>>> account = Account()
>>> for looked in ([10, 0, 0, 0, 0, 0], [0] * 6, [0] * 6, [0, 10, 0, 0, 0, 0]):
...     account.settle(600, looked, looks=sum(looked) // 10)
[600, 0, 0, 0, 0, 0]
[600, 0, 0, 0, 0, 0]
[600, 0, 0, 0, 0, 0]
[0, 600, 0, 0, 0, 0]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

BLOCKED: Final = ("gil", "network", "disk", "lock", "sleep", "other")
"""The states that `off` is divided among, in the order of all sequences here."""

OTHER: Final = 5
PAST_LOOKS: Final = 10
MEMORY_LOOKS: Final = 400
"""After so many looks, what an account knows counts half: nodes change."""


class Account:
    """One node's executions so far: their `off` in nanoseconds, what looks at them stood for, what was counted."""

    __slots__ = ("_counted", "_looks", "_off_ns", "_seen")

    def __init__(self) -> None:
        self._off_ns = 0.0
        self._seen = [0.0] * len(BLOCKED)
        self._counted = [0.0] * len(BLOCKED)
        self._looks = 0.0

    def estimate(self, off_ns: int, seen: Sequence[int], *, looks: int) -> list[int]:
        """The best guess for one execution that is over: before `settle`, so that its own looks count once."""
        own, past = sum(seen), sum(self._seen)
        past_looks = min(PAST_LOOKS, self._looks) if past else 0.0
        if not own:
            looks = 0
        weight = looks + past_looks
        if not weight:
            return _whole(off_ns, [0.0] * OTHER + [1.0])
        shares = [0.0] * len(BLOCKED)
        for state, (mine, theirs) in enumerate(zip(seen, self._seen, strict=True)):
            if mine:
                shares[state] += looks / weight * mine / own
            if theirs:
                shares[state] += past_looks / weight * theirs / past
        return _whole(off_ns, shares)

    def settle(self, off_ns: int, seen: Sequence[int], *, looks: int) -> list[int]:
        """What to add to the counters for one more execution. Adds up to `off_ns`."""
        self._off_ns += off_ns
        if looks:
            self._looks += looks
            self._seen = [sum(pair) for pair in zip(self._seen, seen, strict=True)]
        total = sum(self._seen)
        if not total:
            given = [0] * OTHER + [off_ns]
        else:
            due_each_ns = self._off_ns / total
            behind = [
                max(0.0, seen_ns * due_each_ns - counted)
                for seen_ns, counted in zip(self._seen, self._counted, strict=True)
            ]
            given = _whole(off_ns, behind)
        self._counted = [sum(pair) for pair in zip(self._counted, given, strict=True)]
        if self._looks > MEMORY_LOOKS:
            self._looks /= 2
            self._off_ns /= 2
            self._seen = [value / 2 for value in self._seen]
            self._counted = [value / 2 for value in self._counted]
        return given


def _whole(total_ns: int, shares: Sequence[float]) -> list[int]:
    """`total_ns` in proportion of `shares`, in whole nanoseconds that add up to it.

    >>> _whole(100, [1.0, 1.0, 1.0])
    [34, 33, 33]
    """
    scale = total_ns / (sum(shares) or 1.0)
    parts = [int(share * scale) for share in shares]
    largest = max(range(len(parts)), key=parts.__getitem__)
    parts[largest] += total_ns - sum(parts)
    return parts
