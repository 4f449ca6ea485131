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
[33, 0, 832, 0, 135, 0]

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

from traced_threadpool.model.states import SAMPLED

OTHER: Final = SAMPLED.index("other")
"""Its place in all sequences here, which are in the order of `SAMPLED`."""

_UNKNOWN: Final = [float(state == "other") for state in SAMPLED]

TRUST: Final = (2.0, 8.0, 32.0, 128.0)
"""How many looks the past may count for. Each has the weight that it would have predicted what was seen with."""

TELLING_LOOKS: Final = 3
"""So many looks at one execution tell how alike it is to the others; fewer do not."""

TRUST_FLOOR: Final = -4.0
"""By how much, as a logarithm, earlier executions may speak against one of them."""

TRUST_KEPT: Final = 0.9
"""Of what earlier executions say of them, at each further one."""

MEMORY_LOOKS: Final = 400
"""After so many looks, what an account knows counts half: nodes change."""

SETTLED_LOOKS: Final = 50
"""Within so many looks, or as many as there have been, what was counted wrong is made good."""

RENEWALS: Final = 16
"""When this part more of all looks has come, what is worked out of them is done anew."""

CORRECTIONS: Final = 4
"""How often within the time that `SETTLED_LOOKS` stand for it is worked out anew what is to be made good."""


class Division(NamedTuple):
    """One execution's `off`, divided: as far as can be told, and as it is to be counted. Each adds up to it."""

    estimate: list[int]
    counted: list[int]


class _Prior(NamedTuple):
    """The past, if it counts for so many looks: how many each state has, and what weighing it needs."""

    counts_for: float
    log_gamma: float
    of_each: list[float]
    log_gammas: list[float]


class _Past:
    """What was known of a node's executions at one moment, and how much more of them it is good for."""

    __slots__ = (
        "_counted_largest",
        "_largest",
        "counted_shares",
        "good_for_looks",
        "good_for_ns",
        "kept_of_few",
        "priors",
        "shares",
    )

    def __init__(self, seen: Sequence[float], looks: float, trust: Sequence[float]) -> None:
        whole = sum(seen) or 1.0
        self.shares = self.counted_shares = shares = [each / whole for each in seen]
        self._largest = self._counted_largest = shares.index(max(shares))
        self.good_for_looks = looks / RENEWALS
        self.good_for_ns = 0.0
        self.priors: list[_Prior] = []
        self.kept_of_few: list[float] = []
        """How much so many looks at an execution count for beside the past, where they tell nothing of its trust."""
        if looks:
            # Half a look is spread over all states, for what was never seen is not impossible.
            scale, spread = looks / (looks + 0.5), 0.5 / len(SAMPLED) / (looks + 0.5)
            for each_trust in TRUST:
                count = 1 / (1 / each_trust + 1 / looks)  # the past is itself known from so many looks and no more
                of_each = [count * (share * scale + spread) for share in shares]
                self.priors.append(_Prior(count, lgamma(count), of_each, [lgamma(each) for each in of_each]))
            self.kept_of_few = [self.kept(few, trust) for few in range(TELLING_LOOKS)]

    def kept(self, looks: int, trust: Sequence[float]) -> float:
        """How much the looks at an execution count for beside the past."""
        weights = [exp(each) for each in trust]
        kept = 0.0
        for weight, prior in zip(weights, self.priors, strict=True):
            kept += weight * looks / (looks + prior.counts_for)
        return kept / sum(weights)

    def mixed(self, seen: Sequence[int], own: int, kept: float) -> list[float]:
        """The shares of an execution that was looked at, as far as can be told."""
        each_kept, past_kept = kept / own, 1.0 - kept
        return [each_kept * each + past_kept * share for each, share in zip(seen, self.shares, strict=True)]

    def divided(self, off_ns: int, seen: Sequence[int] = (), own: int = 0, kept: float = 0.0) -> list[int]:
        """The `off` of an execution by these, or by what was known before."""
        parts = [int(off_ns * share) for share in (self.mixed(seen, own, kept) if own else self.shares)]
        parts[self._largest] += off_ns - sum(parts)
        return parts

    def count_as(self, parts: Sequence[float], off_ns: int) -> None:
        """From now on, and for this much at least."""
        whole = sum(parts)
        if whole:
            self.counted_shares = shares = [each / whole for each in parts]
            self._counted_largest = shares.index(max(shares))
        self.good_for_ns = max(off_ns, self.good_for_ns)

    def counted(self, off_ns: int) -> list[int]:
        """The `off` of an execution as it is to be counted."""
        parts = [int(off_ns * share) for share in self.counted_shares]
        parts[self._counted_largest] += off_ns - sum(parts)
        return parts


class Account:
    """One node's executions so far: their `off` in nanoseconds, what looks at them stood for, what was counted.

    This is part of what a worker does between two nodes, when all that it touches has left the processor's caches. So
    an execution that was looked at little, or not at all, is divided by what was worked out before (`_Past`), which is
    done anew when a sixteenth more is known; and a node that has only ever been seen waiting for one thing (`_only`)
    needs no shares at all.
    """

    __slots__ = ("_counted", "_looks", "_off_ns", "_only", "_past", "_seen", "_since_ns", "_trust")

    def __init__(self) -> None:
        self._off_ns = 0.0
        self._seen = [0.0] * len(SAMPLED)
        self._counted = [0.0] * len(SAMPLED)
        self._looks = 0.0
        self._trust = [0.0] * len(TRUST)
        self._only: int | None = OTHER
        self._past: _Past | None = None
        self._since_ns = 0  # `off` counted by `_past`, or by `_only`; in `_off_ns` and `_counted` not yet

    def settle(self, off_ns: int, seen: Sequence[int], *, looks: int) -> Division:
        """Divides the `off` of one execution that is over, and learns from it."""
        own = sum(seen) if looks else 0
        if self._only is not None:
            if not own:
                return self._undivided(off_ns)
            only = seen.index(max(seen))
            if own == seen[only] and (only == self._only or not self._looks):
                if only != self._only:
                    self._add_up()
                    self._only = only
                self._looks += looks
                self._seen[only] += own
                if self._looks > MEMORY_LOOKS:
                    self._forget_half()
                return self._undivided(off_ns)
        past = self._past
        if past is None or off_ns > past.good_for_ns or looks > past.good_for_looks:
            past = self._renew()
            if looks > past.good_for_looks or not self._looks:  # it is itself a large part of what is known
                return self._settle_at_length(off_ns, seen, own, looks, past)
            past.count_as(self._corrected(off_ns, past.shares), off_ns)
        past.good_for_ns -= off_ns
        self._since_ns += off_ns
        counted = past.counted(off_ns)
        if not own:
            return Division(past.divided(off_ns), counted)
        kept = past.kept_of_few[looks] if looks < TELLING_LOOKS else self._weigh(past, seen, own, looks)
        past.good_for_looks -= looks
        self._looks += looks
        self._seen = [then + now for then, now in zip(self._seen, seen, strict=True)]
        return Division(past.divided(off_ns, seen, own, kept), counted)

    def glance(self, off_ns: int, seen: Sequence[int], *, looks: int) -> Division:
        """About what `settle` does, without a change to anything: somebody else may be in the middle of one."""
        own, past = sum(seen) if looks else 0, self._seen
        whole = sum(past)
        shares: Sequence[float] = past if whole else _UNKNOWN
        if own:
            shares = [each / own + (then / whole if whole else 0.0) for each, then in zip(seen, past, strict=True)]
        parts = _whole(off_ns, shares)
        return Division(parts, parts)

    def learn(self, off_ns: int, seen: Sequence[int], counted: Sequence[int], *, looks: int) -> None:
        """What `settle` would have, of an execution that has been divided without it."""
        self._add_up()
        self._off_ns += off_ns
        self._counted = [then + now for then, now in zip(self._counted, counted, strict=True)]
        if looks and any(seen):
            if self._only is not None and sum(seen) != seen[self._only]:
                self._only = None
            self._looks += looks
            self._seen = [then + now for then, now in zip(self._seen, seen, strict=True)]
            self._past = None

    def _undivided(self, off_ns: int) -> Division:
        """All of it is the one state that there is."""
        assert self._only is not None
        self._since_ns += off_ns
        parts = [0] * len(SAMPLED)
        parts[self._only] = off_ns
        return Division(parts, parts)

    def _settle_at_length(self, off_ns: int, seen: Sequence[int], own: int, looks: int, past: _Past) -> Division:
        kept = 1.0
        if self._looks:
            kept = past.kept_of_few[looks] if looks < TELLING_LOOKS else self._weigh(past, seen, own, looks)
        shares = past.mixed(seen, own, kept)
        self._looks += looks
        self._seen = [then + now for then, now in zip(self._seen, seen, strict=True)]
        counted = _whole(off_ns, self._corrected(off_ns, shares))
        self._off_ns += off_ns
        self._counted = [then + now for then, now in zip(self._counted, counted, strict=True)]
        self._past = None
        return Division(_whole(off_ns, shares), counted)

    def _renew(self) -> _Past:
        self._add_up()
        self._only = None
        if self._looks > MEMORY_LOOKS:
            self._forget_half()
        self._past = past = _Past(self._seen, self._looks, self._trust)
        past.good_for_ns = self._off_ns / max(1.0, self._looks / SETTLED_LOOKS) / CORRECTIONS
        return past

    def _add_up(self) -> None:
        since_ns, self._since_ns = self._since_ns, 0
        self._off_ns += since_ns
        if self._only is not None:
            self._counted[self._only] += since_ns
        elif self._past is not None:
            shares = self._past.counted_shares
            self._counted = [then + since_ns * share for then, share in zip(self._counted, shares, strict=True)]

    def _forget_half(self) -> None:
        self._add_up()
        self._looks /= 2
        self._off_ns /= 2
        self._seen = [value / 2 for value in self._seen]
        self._counted = [value / 2 for value in self._counted]

    def _weigh(self, past: _Past, seen: Sequence[int], own: int, looks: int) -> float:
        """How much its own looks count for, after they have told how much each trust in the past is to be trusted."""
        found = [(state, looks * each / own) for state, each in enumerate(seen) if each]
        now = []
        for before, prior in zip(self._trust, past.priors, strict=True):
            likely = before + prior.log_gamma - lgamma(prior.counts_for + looks)
            for state, number in found:
                likely += lgamma(prior.of_each[state] + number) - prior.log_gammas[state]
            now.append(likely)
        most = max(now)
        self._trust = [max(TRUST_FLOOR, TRUST_KEPT * (each - most)) for each in now]
        return past.kept(looks, [each - most for each in now])

    def _corrected(self, off_ns: int, shares: Sequence[float]) -> list[float]:
        """In what proportion the next `off_ns` is to be counted: as it is divided, and what is to be made good."""
        before_ns, total = self._off_ns, sum(self._seen)
        part = min(1.0, off_ns / (before_ns + off_ns or 1) * max(1.0, self._looks / SETTLED_LOOKS))
        return [
            max(0.0, off_ns * share + (before_ns * seen_ns / total - counted) * part)
            for share, seen_ns, counted in zip(shares, self._seen, self._counted, strict=True)
        ]


def _whole(total_ns: int, shares: Sequence[float]) -> list[int]:
    """`total_ns` in proportion of `shares`, in whole nanoseconds that add up to it.

    >>> _whole(100, [1.0, 1.0, 1.0])
    [34, 33, 33]
    """
    scale = total_ns / (sum(shares) or 1.0)
    parts = [int(share * scale) for share in shares]
    parts[parts.index(max(parts))] += total_ns - sum(parts)
    return parts
