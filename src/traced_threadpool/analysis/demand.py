"""A record into what its executions asked of the machine: waiting, computing with the interpreter lock, and without it.

Of a node's recorded time, `gil` and `runqueue` are contention: they come of who else ran, and are no demand. `cpu` is
computing; everything else is waiting, which overlaps freely. So is `lock`: nobody knows who held the lock.

Whether computing held the interpreter lock is not recorded. It is concluded from what happened to nodes that ran at
the same time. Had a node held the lock through all its cpu time, it would have waited for the lock, for each second of
that, as many seconds as there were others on average who had the lock or waited for it. What it did wait for the lock,
as a part of that, is the part of its cpu time taken to be with the lock. A short execution says little, so this starts
from what is typical of the run. A node for which no wait was to be expected, since it met nobody, is taken to be
typical too; where no node met another, all cpu time is taken to be with the lock, as in plain Python, or as much of it
as the lock had time for.

An execution that no sampler looked at has its waits in `other`. Of these, as much is taken to be contention as was to
be expected had everybody taken turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from traced_threadpool.analysis.machine import Demand
from traced_threadpool.analysis.record import NodeExecution

ROUNDS: Final = 12
"""How often shares are worked out anew from one another."""

DOUBT_NS: Final = 40_000_000
"""A node's own evidence counts for half when it is of this length: two looks of the sampler."""

TELLING_SHARE: Final = 0.1
"""A wait for the lock tells something if at least this part of the cpu time was to be expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What each execution asked for, in the order of the nodes given.

    `held_share` is by name the part of cpu time with the interpreter lock; for the names in `unknown` it is assumed.
    """

    each: tuple[Demand, ...]
    held_share: Mapping[str, float]
    unknown: tuple[str, ...]


class _Time:
    """The time of one execution, by what it means for a replay."""

    __slots__ = ("cpu_ns", "gil_ns", "name", "node", "unseen_ns", "wait_ns")

    def __init__(self, node: NodeExecution) -> None:
        self.node = node
        self.name = node.name
        left_ns = node.duration_ns  # states that add up to more are cut
        cut_ns = []
        for recorded_ns in (node.states.get("cpu", 0), node.states.get("gil", 0), node.states.get("runqueue", 0)):
            cut_ns.append(max(0, min(left_ns, recorded_ns)))
            left_ns -= cut_ns[-1]
        self.cpu_ns: float = cut_ns[0]
        self.gil_ns: float = cut_ns[1]
        self.wait_ns: float = left_ns
        self.unseen_ns: float = 0
        """Waiting that nobody looked at; `gil_ns` is then what of it is taken to be contention."""
        other_ns = min(left_ns, node.states.get("other", 0))
        if not node.samples and not self.gil_ns and other_ns > TELLING_SHARE * self.cpu_ns > 0:
            self.unseen_ns = self.gil_ns = other_ns


def demands(nodes: Sequence[NodeExecution]) -> Demands:
    """What these executions of one run asked for."""
    times = [_Time(node) for node in nodes]
    computing = [time for time in times if time.cpu_ns]
    for time, (there, _) in zip(computing, _others(computing, dict.fromkeys(_names(computing), 1.0)), strict=True):
        if time.unseen_ns:
            time.gil_ns = min(time.unseen_ns, time.cpu_ns * there)
            time.wait_ns -= time.gil_ns
    shares, unknown = _held_shares(computing)
    each = []
    for time in times:
        held_ns = time.cpu_ns * shares.get(time.name, 0.0)
        each.append(Demand(wait_ns=time.wait_ns, held_ns=held_ns, free_ns=time.cpu_ns - held_ns))
    return Demands(each=tuple(each), held_share=shares, unknown=unknown)


def _held_shares(computing: Sequence[_Time]) -> tuple[dict[str, float], tuple[str, ...]]:
    """By name the part of cpu time with the lock, and the names for which that is assumed."""
    waited_ns: dict[str, float] = defaultdict(float)
    cpu_ns: dict[str, float] = defaultdict(float)
    for time in computing:
        if not time.unseen_ns:
            waited_ns[time.name] += time.gil_ns
            cpu_ns[time.name] += time.cpu_ns
    most_ns = _expected(computing, dict.fromkeys(_names(computing), 1.0))
    known = {name for name in cpu_ns if most_ns[name] >= TELLING_SHARE * cpu_ns[name]}
    # Were all nodes alike, the part that they hold would count twice: one waits only for what the other holds.
    total_ns = sum(most_ns[name] for name in known)
    typical = min(1.0, (sum(waited_ns[name] for name in known) / total_ns) ** 0.5) if known else _most_held(computing)
    shares = dict.fromkeys(_names(computing), typical)
    for _ in range(ROUNDS):
        expected_ns = _expected(computing, shares)
        for name in known:
            shares[name] = min(1.0, (waited_ns[name] + typical * DOUBT_NS) / (expected_ns[name] + DOUBT_NS))
    return shares, tuple(sorted(set(shares) - known))


def _most_held(computing: Sequence[_Time]) -> float:
    """The part of all cpu time that can have been with the lock, if the lock was held whenever anybody computed."""
    covered_ns, reached_ns = 0, -1
    for time in sorted(computing, key=lambda time: time.node.started_ns):
        covered_ns += max(0, time.node.ended_ns - max(reached_ns, time.node.started_ns))
        reached_ns = max(reached_ns, time.node.ended_ns)
    return min(1.0, covered_ns / (sum(time.cpu_ns for time in computing) or 1))


def _expected(computing: Sequence[_Time], shares: Mapping[str, float]) -> dict[str, float]:
    """By name, for how long nodes that were looked at would have waited for the lock, had they computed with it only.

    Taking turns, it is as long as others had the lock or waited for it, for each second of the node's own; but nobody
    waits for longer than others have it.
    """
    expected_ns: dict[str, float] = defaultdict(float)
    for time, (there, having) in zip(computing, _others(computing, shares), strict=True):
        if not time.unseen_ns:
            expected_ns[time.name] += min(time.cpu_ns * there, time.node.duration_ns * having)
    return expected_ns


def _others(computing: Sequence[_Time], shares: Mapping[str, float]) -> list[tuple[float, float]]:
    """For each, how many others had the lock or waited for it while it ran, on average; and how many had it."""
    levels = []
    for time in computing:
        held_ns = shares[time.name] * time.cpu_ns
        waited_ns = time.gil_ns * (shares[time.name] if time.unseen_ns else 1)
        duration_ns = time.node.duration_ns
        levels.append(((held_ns + waited_ns) / duration_ns, held_ns / duration_ns))
    changes = sorted(
        [(time.node.started_ns, there, having) for time, (there, having) in zip(computing, levels, strict=True)]
        + [(time.node.ended_ns, -there, -having) for time, (there, having) in zip(computing, levels, strict=True)]
    )
    sums: dict[int, tuple[float, float]] = {}  # up to each moment
    sum_there = sum_having = level_there = level_having = 0.0
    before_ns = changes[0][0] if changes else 0
    for moment_ns, there, having in changes:
        sum_there += level_there * (moment_ns - before_ns)
        sum_having += level_having * (moment_ns - before_ns)
        level_there += there
        level_having += having
        sums[moment_ns] = sum_there, sum_having
        before_ns = moment_ns
    found = []
    for time, (there, having) in zip(computing, levels, strict=True):
        node = time.node
        end, start = sums[node.ended_ns], sums[node.started_ns]
        found.append(
            (
                max(0.0, (end[0] - start[0]) / node.duration_ns - there),
                max(0.0, (end[1] - start[1]) / node.duration_ns - having),
            )
        )
    return found


def _names(computing: Sequence[_Time]) -> list[str]:
    return [time.name for time in computing]
