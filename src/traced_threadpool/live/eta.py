"""What is left of runs in a pool into when each will be over.

The rule: the rest is replayed through the pool's own scheduler in virtual time, all runs of the pool together, with
each node's usual duration (the median of its earlier executions). A node that runs already has what is usually left
once so much has passed. The range comes from the spread of the durations along the chain of nodes that the end waits
for: their standard deviations add up as those of independent durations do.

A usual duration is taken to be log-normal, with the median and the 95th percentile that were learned: durations have
a lower bound and a long tail.

>>> from traced_threadpool.model.usual_duration import UsualDuration
>>> usual = UsualDuration(p50_seconds=10.0, p95_seconds=20.0, count=8)
>>> [round(left_seconds(usual, elapsed), 1) for elapsed in (0.0, 9.0, 30.0)]
[10.0, 3.5, 3.0]
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from traced_threadpool.engine.scheduler import NEW, RunQueue, Scheduler, Task
from traced_threadpool.live.records import PredictedEnd
from traced_threadpool.model.records import THREADS
from traced_threadpool.model.usual_duration import UsualDuration

Z95: Final = NormalDist().inv_cdf(0.95)
Z80: Final = NormalDist().inv_cdf(0.9)
"""Four out of five lie between minus and plus this many standard deviations."""

LEAST_SIGMA: Final = 0.05
"""Nothing is as regular as a few executions may make it look."""

KNOWN_SHARE: Final = 0.5
"""Of the nodes that are left, at least this share must have a usual duration."""

_NORMAL: Final = NormalDist()


@dataclass(slots=True, kw_only=True, eq=False)
class NodeLeft:
    """A node of a run that has not ended. `upstream` are the places, in the same sequence, of those it waits for.

    `elapsed_seconds` is None unless it runs. Of ready ones the lowest `rank` goes first, then the order given.
    """

    name: str
    run: Hashable
    lane: int = 0
    upstream: Sequence[int] = ()
    elapsed_seconds: float | None = None
    usual: UsualDuration | None = None
    rank: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The predicted end of one run, and the names of the nodes that it waits for, the next first."""

    end: PredictedEnd
    chain: tuple[str, ...] = ()


def left_seconds(usual: UsualDuration, elapsed_seconds: float) -> float:
    """What is usually left of a node that has run for so long: the median of those that took longer."""
    median = max(usual.p50_seconds, 1e-6)
    if elapsed_seconds < median * 1e-9:
        return median
    sigma = _sigma(usual)
    passed = math.log(elapsed_seconds / median) / sigma
    survive = _NORMAL.cdf(-passed)
    if survive < 1e-6:  # it has never taken nearly as long: what is left is anybody's guess, so a tenth
        return elapsed_seconds / 10
    at = median * math.exp(-sigma * _NORMAL.inv_cdf(survive / 2))
    return max(0.0, at - elapsed_seconds)


def _sigma(usual: UsualDuration) -> float:
    if usual.p95_seconds <= usual.p50_seconds or usual.p50_seconds <= 0:
        return LEAST_SIGMA
    return max(LEAST_SIGMA, math.log(usual.p95_seconds / usual.p50_seconds) / Z95)


def predict_ends(
    nodes: Sequence[NodeLeft],
    limits: Sequence[int],
    *,
    reasons: Mapping[Hashable, str] | None = None,
    now: float | None = None,
) -> dict[Hashable, RunEnd]:
    """When each of the runs will be over.

    Args:
        nodes: All nodes of all runs of the pool that have not ended, inputs before what needs them.
        limits: How many nodes run at once: in all, and of each further lane among these.
        reasons: Runs whose end cannot be known, and why.
        now: When the nodes were as they are given, in Unix seconds.

    Returns:
        By run. Where less than half of a run's nodes have a usual duration, there is a reason in place of times.
    """
    reasons = dict(reasons or {})
    known: dict[Hashable, int] = {}
    total: dict[Hashable, int] = {}
    for node in nodes:
        total[node.run] = total.get(node.run, 0) + 1
        known[node.run] = known.get(node.run, 0) + (node.usual is not None)
    for run, count in total.items():
        if not known[run]:
            reasons.setdefault(run, "no earlier execution of the nodes that are left is known")
        elif known[run] < count * KNOWN_SHARE:
            reasons.setdefault(
                run, f"earlier executions are known of {known[run]:,} of the {count:,} nodes that are left"
            )
    replay = _Replay(nodes, limits)
    replay.play()
    now = time.time() if now is None else now
    found: dict[Hashable, RunEnd] = {}
    for run, count in total.items():
        share = known[run] / count
        last = replay.last_of.get(run)
        if run in reasons or last is None:
            reason = reasons.get(run, "nodes wait for something that is not theirs")
            found[run] = RunEnd(end=PredictedEnd(reason=reason, known_share=share))
            continue
        chain = replay.chain(last)
        seconds = replay.ends[last]
        spread = Z80 * math.sqrt(sum(replay.variance(index) for index in chain))
        found[run] = RunEnd(
            end=PredictedEnd(
                seconds=seconds,
                earliest_seconds=max(0.0, seconds - spread),
                latest_seconds=seconds + spread,
                at=now + seconds,
                known_share=share,
            ),
            chain=tuple(nodes[index].name for index in chain),
        )
    return found


class _Virtual(Task):
    __slots__ = ("index",)

    def __init__(self, index: int, name: str, queue: RunQueue, lane: str) -> None:
        # Not all that a live task has: thousands of these are made, and only the scheduler reads them.
        self.index = index
        self.name = name
        self.queue = queue
        self.backend = lane
        self.state = NEW
        self.failed = False
        self.dependents = None
        self.submitted_ns = 0


class _Replay:
    """The nodes that are left, in virtual time, through a scheduler with the pool's limits."""

    def __init__(self, nodes: Sequence[NodeLeft], limits: Sequence[int]) -> None:
        self._nodes = nodes
        self._unknown = _middle(nodes)
        self._limits = limits
        self.ends: list[float] = [0.0] * len(nodes)
        self._governing: list[int | None] = [None] * len(nodes)  # whose end let this one start
        self.last_of: dict[Hashable, int] = {}

    def usual(self, index: int) -> UsualDuration:
        return self._nodes[index].usual or self._unknown

    def variance(self, index: int) -> float:
        """Of how long the node will go on."""
        usual, elapsed = self.usual(index), self._nodes[index].elapsed_seconds or 0.0
        spread = usual.p50_seconds * (math.exp(_sigma(usual)) - 1)
        return (spread if elapsed <= usual.p50_seconds else max(spread / 2, left_seconds(usual, elapsed))) ** 2

    def play(self) -> None:
        nodes, ends, governing, unknown = self._nodes, self.ends, self._governing, self._unknown
        scheduler = self._scheduler()
        queues: dict[Hashable, RunQueue] = {}
        ranks: dict[Hashable, dict[str, float]] = {}
        tasks: list[_Virtual] = []
        for index, node in enumerate(nodes):
            if node.run not in queues:
                ranks[node.run] = {}
                queues[node.run] = RunQueue(ranks=ranks[node.run])
            ranks[node.run][node.name] = node.rank
            tasks.append(_Virtual(index, node.name, queues[node.run], _lane(node.lane)))
        events: list[tuple[float, int]] = []
        for index, node in enumerate(nodes):  # what runs already has its worker
            if node.elapsed_seconds is not None:
                scheduler.add(tasks[index], (), 0)
                scheduler.take()
                ends[index] = left_seconds(node.usual or unknown, node.elapsed_seconds)
                heapq.heappush(events, (ends[index], index))
        for index, node in enumerate(nodes):
            if node.elapsed_seconds is None:
                scheduler.add(tasks[index], [tasks[each] for each in node.upstream], 0)
        now, ended = 0.0, None
        take, end, push, pop = scheduler.take, scheduler.end, heapq.heappush, heapq.heappop
        while True:
            while (task := take()) is not None:
                index = task.index  # type: ignore[attr-defined]  # nothing else was added
                governing[index] = ended  # it was an input, or had the worker
                ends[index] = at = now + (nodes[index].usual or unknown).p50_seconds
                push(events, (at, index))
            if not events:
                return
            now, ended = pop(events)
            end(tasks[ended], 0)
            self.last_of[nodes[ended].run] = ended

    def _scheduler(self) -> Scheduler:
        """With a place for everything that runs already, more than the limits where runs are nested in nodes."""
        running = [0] * len(self._limits)
        for node in self._nodes:
            running[node.lane] += node.elapsed_seconds is not None
        places = [max(limit, number) for limit, number in zip(self._limits, running, strict=True)]
        return Scheduler(
            max(places[0], sum(running)), {_lane(lane): limit for lane, limit in enumerate(places) if lane} or None
        )

    def chain(self, last: int) -> list[int]:
        """From a node that runs now, or starts at once, to the last."""
        found = [last]
        while (before := self._governing[found[-1]]) is not None and len(found) <= len(self._nodes):
            found.append(before)
        return found[::-1]


def _lane(number: int) -> str:
    return str(number) if number else THREADS


def _middle(nodes: Sequence[NodeLeft]) -> UsualDuration:
    """For a node of which nothing is known: the median of the others."""
    known = sorted(node.usual.p50_seconds for node in nodes if node.usual is not None)
    middle = known[len(known) // 2] if known else 0.0
    return UsualDuration(p50_seconds=middle, p95_seconds=3 * middle, count=0)
