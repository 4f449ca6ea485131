"""A node's exact parts and its samples into a split of its time that adds up.

What is neither processor time nor run-queue delay is `off`. A look at a blocked worker stands for a stretch of time;
`off` is divided in proportion of what the looks at this node stood for::

    state = off * seen(state) / (seen(gil) + seen(network) + ... + seen(other))

A few looks say little, so a node that was looked at `n` times has that proportion mixed with the past of the same
node, which counts as much as `m` looks. How many that is, is learned too: where executions have been alike the
past counts for much, where each was different for little (`TRUST`). One that is unlike all before it tells so by its
own looks, and the past counts for less in it. Without looks and without a past, `off` is `other`.

>>> account = Account()
>>> account.settle(900, [0, 0, 0, 0, 0, 0], looks=0).counted
[0, 0, 0, 0, 0, 900]
>>> for _ in range(50):
...     same = account.settle(1_000, [200, 0, 0, 0, 800, 0], looks=10)
>>> account.settle(1_000, [300, 0, 0, 0, 700, 0], looks=10).estimate  # as ever, as far as ten looks can tell
[215, 0, 0, 0, 785, 0]
>>> account.settle(1_000, [0, 0, 1_000, 0, 0, 0], looks=10).estimate  # not as ever
[33, 0, 834, 0, 133, 0]

Counters must be right in the sum, also where each node is too short to be looked at, and may never fall. Adding up
single figures would not do: where the long executions of a node wait for one thing and the short ones for another, the
past is a wrong guess for both. So an `Account` also knows what its node's executions should have been given so far, all
their `off` divided as all their looks, and makes good for what they were not. Not all at once, for then a counter would
rest in each minute on that minute's few looks alone, but over about as much time as `SETTLED_LOOKS` looks stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma
from typing import Final, NamedTuple

BLOCKED: Final = ("gil", "network", "disk", "lock", "sleep", "other")
"""The states that `off` is divided among, in the order of all sequences here."""

OTHER: Final = 5

TRUST: Final = (2.0, 8.0, 32.0, 128.0)
"""How many looks the past may count for. Each has the weight that it would have predicted what was seen with."""

TRUST_FLOOR: Final = -4.0
"""By how much, as a logarithm, earlier executions may speak against one of them."""

TRUST_KEPT: Final = 0.9
"""Of what earlier executions say of them, at each further one."""

MEMORY_LOOKS: Final = 400
"""After so many looks, what an account knows counts half: nodes change."""


SETTLED_LOOKS: Final = 50
"""Within so many looks, or as many as there have been, what was counted wrong is made good."""


class Division(NamedTuple):
    """One execution's `off`, divided: as far as can be told, and as it is to be counted. Each adds up to it."""

    estimate: list[int]
    counted: list[int]


class Account:
    """One node's executions so far: their `off` in nanoseconds, what looks at them stood for, what was counted."""

    __slots__ = ("_counted", "_looks", "_off_ns", "_seen", "_trust")

    def __init__(self) -> None:
        self._off_ns = 0.0
        self._seen = [0.0] * len(BLOCKED)
        self._counted = [0.0] * len(BLOCKED)
        self._looks = 0.0
        self._trust = [0.0] * len(TRUST)

    def settle(self, off_ns: int, seen: Sequence[int], *, looks: int) -> Division:
        """Divides the `off` of one execution that is over, and learns from it."""
        own = sum(seen)
        shares = self._shares(seen, own, looks if own else 0)
        if own and looks:
            self._looks += looks
            self._seen = [then + now for then, now in zip(self._seen, seen, strict=True)]
        self._off_ns += off_ns
        division = Division(_whole(off_ns, shares), self._count(off_ns, shares))
        if self._looks > MEMORY_LOOKS:
            self._looks /= 2
            self._off_ns /= 2
            self._seen = [value / 2 for value in self._seen]
            self._counted = [value / 2 for value in self._counted]
        return division

    def _shares(self, seen: Sequence[int], own: int, looks: int) -> list[float]:
        past = sum(self._seen)
        if not past:
            return [each / own for each in seen] if looks else [0.0] * OTHER + [1.0]
        theirs = [each / past for each in self._seen]
        if not looks:
            return theirs
        mine = [each / own for each in seen]
        if mine == theirs and 1.0 in mine:  # it waits for one thing only, as most do
            return theirs
        # The past is itself known from so many looks and no more.
        counts_for = [1 / (1 / trust + 1 / self._looks) for trust in TRUST]
        weights = self._weigh(counts_for, theirs, mine, looks)
        kept = sum(weight * looks / (looks + count) for weight, count in zip(weights, counts_for, strict=True))
        return [kept * own_share + (1 - kept) * past_share for own_share, past_share in zip(mine, theirs, strict=True)]

    def _weigh(self, counts_for: list[float], theirs: list[float], mine: list[float], looks: int) -> list[float]:
        """How much each trust in the past is to be trusted. They add up to 1. A single look cannot tell."""
        trust = self._trust
        if looks > 1:
            # Half a look is spread over all states, for what was never seen is not impossible.
            scale, spread = self._looks / (self._looks + 0.5), 0.5 / len(BLOCKED) / (self._looks + 0.5)
            pairs = [
                (looks * own_share, past_share * scale + spread)
                for own_share, past_share in zip(mine, theirs, strict=True)
                if own_share
            ]
            # The logarithm of how likely these looks were: Pólya's urn, with so many looks of the past in it.
            likely = [
                lgamma(count)
                - lgamma(count + looks)
                + sum(lgamma(count * share + number) - lgamma(count * share) for number, share in pairs)
                for count in counts_for
            ]
            now = [before + each for before, each in zip(trust, likely, strict=True)]
            most = max(now)
            kept = [TRUST_KEPT * (each - most) for each in now]
            self._trust = [max(TRUST_FLOOR, each - max(kept)) for each in kept]
            trust = [each - most for each in now]
        weights = [exp(each) for each in trust]
        whole = sum(weights)
        return [weight / whole for weight in weights]

    def _count(self, off_ns: int, shares: list[float]) -> list[int]:
        total = sum(self._seen)
        if total and self._off_ns:
            before_ns = self._off_ns - off_ns
            part = min(1.0, off_ns / self._off_ns * max(1.0, self._looks / SETTLED_LOOKS))
            shares = [
                max(0.0, off_ns * share + (before_ns * seen_ns / total - counted) * part)
                for share, seen_ns, counted in zip(shares, self._seen, self._counted, strict=True)
            ]
        given = _whole(off_ns, shares)
        self._counted = [counted + now for counted, now in zip(self._counted, given, strict=True)]
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
