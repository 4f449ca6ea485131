"""A node's exact parts and its samples into a division of its time that adds up.

What is neither CPU time nor run-queue delay is `off`. A sample of a waiting worker stands for a stretch of time; `off`
is divided in proportion of what the samples of this node stood for::

    state = off * seen(state) / (seen(gil) + seen(network) + ... + seen(other))

A few samples say little, so that proportion is mixed with the past of the same node, which counts as much as
`PAST_SAMPLES` samples. Without samples it is the past alone, and without a past `off` is `other`.

>>> history = History()
>>> history.settle(900, [0, 0, 0, 0, 0, 0], samples=0).estimate
[0, 0, 0, 0, 0, 900]
>>> history.settle(1_000, [1_000, 0, 0, 0, 0, 0], samples=4).estimate
[1000, 0, 0, 0, 0, 0]
>>> history.settle(1_000, [0, 0, 0, 0, 1_000, 0], samples=4).estimate  # its own four samples, and four of the past
[500, 0, 0, 0, 500, 0]

Counters must be right in the sum, also where each node is too short to be sampled, and may never fall. Adding up single
figures would not do: where the long executions of a node wait for one thing and the short ones for another, the past is
a wrong guess for both. So a `History` also knows what its node's executions should have been given so far, all their
`off` divided as all their samples, and makes good for what they were not. Not all at once, for then a counter would
rest in each minute on that minute's few samples alone, but over about as much time as `SETTLED_SAMPLES` stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from traced_threadpool.model.states import SAMPLED

OTHER: Final = SAMPLED.index("other")
"""Its place in all sequences here, which are in the order of `SAMPLED`."""

PAST_SAMPLES: Final = 4
"""How many samples of an execution count as much as all that is known of those before it (docs/accuracy.md)."""

MEMORY_SAMPLES: Final = 400
"""After so many samples, what is known counts half: nodes change."""

SETTLED_SAMPLES: Final = 50
"""Within so many samples, or as many as there have been, what was counted wrong is made good."""

_UNKNOWN: Final = [float(state == "other") for state in SAMPLED]


class Division(NamedTuple):
    """One execution's `off`, divided: as far as can be told, and as it is to be counted. Each adds up to it."""

    estimate: list[int]
    counted: list[int]


class History:
    """One node's executions so far: their `off` in nanoseconds, what samples of them stood for, what was counted."""

    __slots__ = ("_counted", "_off_ns", "_only", "_samples", "_seen")

    def __init__(self) -> None:
        self._off_ns = 0.0
        self._seen = [0.0] * len(SAMPLED)
        self._counted = [0.0] * len(SAMPLED)
        self._samples = 0.0
        self._only: int | None = OTHER
        """The one state that there has been: most nodes wait for one thing, and need no arithmetic."""

    def settle(self, off_ns: int, seen: Sequence[int], *, samples: int) -> Division:
        """Divides the `off` of one execution that is over, and learns from it."""
        own = sum(seen) if samples else 0
        if self._only is not None and (division := self._settle_only(self._only, off_ns, seen, own, samples)):
            return division
        shares = self._shares(seen, own, samples)
        self._see(seen, own, samples)
        estimate = counted = _whole(off_ns, shares)
        total = sum(self._seen)
        if total:
            before_ns = self._off_ns
            part = min(1.0, off_ns / (before_ns + off_ns or 1) * max(1.0, self._samples / SETTLED_SAMPLES))
            due = zip(shares, self._seen, self._counted, strict=True)
            counted = _whole(
                off_ns,
                [
                    max(0.0, off_ns * share + (before_ns * state_seen / total - so_far) * part)
                    for share, state_seen, so_far in due
                ],
            )
        self._count(off_ns, counted)
        return Division(estimate, counted)

    def glance(self, off_ns: int, seen: Sequence[int], *, samples: int) -> Division:
        """What `settle` estimates, without a change to anything: another thread may be in the middle of one."""
        parts = _whole(off_ns, self._shares(seen, sum(seen) if samples else 0, samples))
        return Division(parts, parts)

    def learn(self, off_ns: int, seen: Sequence[int], counted: Sequence[int], *, samples: int) -> None:
        """What `settle` would have, of an execution that has been divided without it."""
        own = sum(seen) if samples else 0
        if self._only is not None and own != seen[self._only]:
            self._only = None
        self._see(seen, own, samples)
        self._count(off_ns, counted)

    def _settle_only(self, only: int, off_ns: int, seen: Sequence[int], own: int, samples: int) -> Division | None:
        """All of it is one state, if this execution is not the first to show another."""
        if own:
            now = seen.index(max(seen))
            if own != seen[now] or (now != only and self._samples):
                self._only = None
                return None
            self._only = only = now
            self._samples += samples
            self._seen[only] += own
            if self._samples > MEMORY_SAMPLES:
                self._forget_half()
        self._off_ns += off_ns
        self._counted[only] += off_ns
        parts = [0] * len(SAMPLED)
        parts[only] = off_ns
        return Division(parts, parts)

    def _shares(self, seen: Sequence[int], own: int, samples: int) -> Sequence[float]:
        """In what proportion an execution is divided, by its own samples and by those before."""
        past = self._seen
        total = sum(past)
        if not own:
            return past if total else _UNKNOWN
        if not total:
            return [each / own for each in seen]
        past_samples = min(PAST_SAMPLES, self._samples)
        own_part = samples / (samples + past_samples) / own
        past_part = past_samples / (samples + past_samples) / total
        return [own_part * each + past_part * before for each, before in zip(seen, past, strict=True)]

    def _see(self, seen: Sequence[int], own: int, samples: int) -> None:
        if own:
            if self._samples > MEMORY_SAMPLES:
                self._forget_half()
            self._samples += samples
            self._seen = [before + now for before, now in zip(self._seen, seen, strict=True)]

    def _count(self, off_ns: int, counted: Sequence[int]) -> None:
        self._off_ns += off_ns
        self._counted = [before + now for before, now in zip(self._counted, counted, strict=True)]

    def _forget_half(self) -> None:
        self._samples /= 2
        self._off_ns /= 2
        self._seen = [each / 2 for each in self._seen]
        self._counted = [each / 2 for each in self._counted]


def _whole(total_ns: int, shares: Sequence[float]) -> list[int]:
    """`total_ns` in proportion of `shares`, in whole nanoseconds that add up to it.

    >>> _whole(100, [1.0, 1.0, 1.0])
    [34, 33, 33]
    """
    scale = total_ns / (sum(shares) or 1.0)
    parts = [int(share * scale) for share in shares]
    parts[parts.index(max(parts))] += total_ns - sum(parts)
    return parts
