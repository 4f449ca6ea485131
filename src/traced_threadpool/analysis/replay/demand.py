"""A record into what its executions asked of the machine: waiting, computing with the GIL, and without it.

Of a node's recorded time, `gil` and `runqueue` are contention: they come of who else ran, and are no demand. `cpu` is
computing; everything else is waiting, which overlaps freely. So is `lock`, but for those nodes whose lock is known
(see `locks`): for these it is contention too.

Whether computing held the GIL is not recorded. It is concluded from what happened to nodes that ran at
the same time. Had a node held the lock through all its cpu time, it would have waited for the lock, for each second of
that, as many seconds as there were others on average who had the lock or waited for it. What it did wait for the lock,
as a part of that, is the part of its cpu time taken to be with the lock. A short execution says little, so this starts
from what is typical of the run. A node for which no wait was to be expected, since it met nobody, is taken to be
typical too; where no node met another, all cpu time is taken to be with the lock, as in plain Python, or as much of it
as the lock had time for.

What a node waited for a CPU because of other programs (see `company`) is demand: as long as its computing takes on a
machine that is as busy with them. A thread that holds the GIL meanwhile keeps it.

A node in another process computed under a GIL that is not this process's; one on a cluster, on CPUs that are not this
machine's either: to this machine it waited.

An execution that no sampler looked at has its waits in `other`. Of these, as much is taken to be contention as was to
be expected had everybody taken turns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import add, mul, neg, sub, truediv
from types import MappingProxyType
from typing import Final

from traced_threadpool.analysis.replay.company import others_ns
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.model.recorded_run import NodeExecution

ROUNDS: Final = 12
"""How often shares are worked out anew from one another, at most."""

MANY: Final = 20_000
FEW_ROUNDS: Final = 3
"""So many executions are judged in fewer rounds; their shares have settled to within a few hundredths by then."""

SETTLED: Final = 1e-4
"""By less than that no share changes any more: it is as good as it gets."""

DOUBT_NS: Final = 40_000_000
"""A node's own evidence counts for half when it is of this length: two looks of the sampler."""

TELLING_SHARE: Final = 0.1
"""A wait for the lock tells something if at least this part of the cpu time was to be expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What each execution asked for, in the order of the nodes given.

    `held_share` is by name the part of cpu time with the GIL; for the names in `unknown` it is assumed. `others` is
    what of `each` comes of other programs on the machine: empty where they took no CPU.
    """

    each: tuple[Demand, ...]
    others: tuple[Demand, ...]
    held_share: Mapping[str, float]
    unknown: tuple[str, ...]

    def asked(self, *, gil: bool = True, quiet: bool = False) -> Sequence[Demand]:
        """The same, without the GIL, or on a machine that other programs leave alone."""
        if gil and not (quiet and self.others):
            return self.each
        others = self.others or [Demand()] * len(self.each)
        found = []
        for each, other in zip(self.each, others, strict=True):
            own = each.minus(other)
            more_ns = 0.0 if quiet else other.wait_ns if gil else sum(other)
            own = own if gil else own.without_lock()
            found.append(own._replace(wait_ns=own.wait_ns + more_ns))
        return found

    @property
    def others_held_ns(self) -> float:
        """How long threads held the GIL and had no CPU."""
        return sum([other.held_ns for other in self.others])


class _Time:
    """The time of one execution, by what it means for a replay."""

    __slots__ = ("cpu_ns", "duration_ns", "gil_ns", "name", "node", "number", "others_ns", "unseen_ns", "wait_ns")

    def __init__(self, node: NodeExecution, lock_ns: int = 0, others_ns: float = 0.0, *, is_far: bool = False) -> None:
        self.node = node
        self.name = node.name
        self.duration_ns = left_ns = node.duration_ns  # states that add up to more are cut
        recorded_ns = node.states.get
        self.cpu_ns: float = max(0, min(left_ns, recorded_ns("cpu", 0)))
        if is_far:
            self.cpu_ns = 0
        left_ns -= self.cpu_ns
        # That of another process is kept by nobody here: such a wait is the node's own.
        self.gil_ns: float = 0 if node.is_remote else max(0, min(left_ns, recorded_ns("gil", 0)))
        left_ns -= self.gil_ns
        self.wait_ns: float = left_ns - max(0, min(left_ns, recorded_ns("runqueue", 0)))
        self.wait_ns -= max(0, min(self.wait_ns, lock_ns))
        self.others_ns = max(0.0, min(others_ns, left_ns - self.wait_ns))
        self.cpu_ns += self.others_ns  # as long as it took; what of it was no computing is told apart below
        self.number = 0
        """That of its name."""
        self.unseen_ns: float = 0
        """Waiting that nobody looked at; `gil_ns` is then what of it is taken to be contention."""
        other_ns = min(self.wait_ns, recorded_ns("other", 0))
        if not node.is_remote and not node.samples and not self.gil_ns and other_ns > TELLING_SHARE * self.cpu_ns > 0:
            self.unseen_ns = self.gil_ns = other_ns


def demands(
    nodes: Sequence[NodeExecution],
    locks_ns: Mapping[int, int] = MappingProxyType({}),
    far: Collection[str] = (),
    cpus: int | None = None,
) -> Demands:
    """What these executions asked for.

    `locks_ns` is by index how long they waited for locks of which it is known who shares them: that is contention.
    `far` are the backends whose workers compute on other CPUs than this machine's, which are `cpus`.
    """
    is_far = [node.is_remote and node.backend in far for node in nodes]
    near = [index for index, each in enumerate(is_far) if not each]
    by_others = dict(zip(near, others_ns([nodes[index] for index in near], cpus), strict=False))
    times = [
        _Time(node, locks_ns.get(index, 0), by_others.get(index, 0.0), is_far=is_far[index])
        for index, node in enumerate(nodes)
    ]
    # By their start, so that what happens at about the same time lies close together in memory.
    computing = sorted(
        (time for time in times if time.cpu_ns and not time.node.is_remote), key=lambda time: time.node.started_ns
    )
    numbers = {name: number for number, name in enumerate(dict.fromkeys([time.name for time in computing]))}
    for time in computing:
        time.number = numbers[time.name]
    meetings = _Meetings(computing, len(numbers))
    if any(time.unseen_ns for time in computing):
        everybody, _ = meetings.others([1.0] * len(numbers))
        for time, there in zip(computing, everybody, strict=True):
            if time.unseen_ns:
                time.gil_ns = min(time.unseen_ns, time.cpu_ns * max(0.0, there))
                time.wait_ns -= time.gil_ns
        meetings.ask_for_waits()
    shares, known = _held_shares(computing, len(numbers), meetings)
    each, others = [], []
    for time in times:
        share = shares[time.number] if time.cpu_ns and not time.node.is_remote else 0.0
        other = Demand(time.others_ns * (1 - share), time.others_ns * share) if time.others_ns else Demand()
        held_ns = time.cpu_ns * share
        free_ns = time.cpu_ns - held_ns - other.wait_ns
        each.append(Demand(time.wait_ns + other.wait_ns, held_ns, free_ns))
        others.append(other)
    return Demands(
        each=tuple(each),
        others=tuple(others) if any(by_others.values()) else (),
        held_share=dict(zip(numbers, shares, strict=True)),
        unknown=tuple(sorted(name for name, number in numbers.items() if number not in known)),
    )


def _held_shares(computing: Sequence[_Time], names: int, meetings: _Meetings) -> tuple[list[float], set[int]]:
    """By the number of its name the part of cpu time with the lock, and for which names that is known."""
    waited_ns, cpu_ns = [0.0] * names, [0.0] * names
    for time in computing:
        if not time.unseen_ns:
            waited_ns[time.number] += time.gil_ns
            cpu_ns[time.number] += time.cpu_ns
    most_ns = meetings.expected_ns([1.0] * names)
    known = [each for each in range(names) if cpu_ns[each] and most_ns[each] >= TELLING_SHARE * cpu_ns[each]]
    # Were all nodes alike, the part that they hold would count twice: one waits only for what the other holds.
    total_ns = sum([most_ns[each] for each in known])
    typical = min(1.0, (sum([waited_ns[each] for each in known]) / total_ns) ** 0.5) if known else _most_held(computing)
    shares = [typical] * names
    for _ in range(ROUNDS if len(computing) < MANY else FEW_ROUNDS):
        expected_ns = meetings.expected_ns(shares)
        changed = 0.0
        for each in known:
            share = min(1.0, (waited_ns[each] + typical * DOUBT_NS) / (expected_ns[each] + DOUBT_NS))
            changed = max(changed, abs(share - shares[each]))
            shares[each] = share
        if changed < SETTLED:
            break
    return shares, set(known)


def _most_held(computing: Sequence[_Time]) -> float:
    """The part of all cpu time that can have been with the lock, if the lock was held whenever anybody computed."""
    covered_ns, reached_ns = 0, -1
    for time in sorted(computing, key=lambda time: time.node.started_ns):
        covered_ns += max(0, time.node.ended_ns - max(reached_ns, time.node.started_ns))
        reached_ns = max(reached_ns, time.node.ended_ns)
    return min(1.0, covered_ns / (sum(time.cpu_ns for time in computing) or 1))


class _Meetings:
    """Who computed while who else did, for any shares: what is the same for all of them is worked out once.

    Time goes from one start or end to the next. A level is how many have something at a time, an area its sum over
    time; so of each execution, what others had meanwhile is the area between its start and its end, less its own.
    """

    def __init__(self, computing: Sequence[_Time], names: int) -> None:
        self._computing = computing
        self._names = names
        self._numbers = [time.number for time in computing]
        many = len(computing)
        starts, ends = [time.node.started_ns for time in computing], [time.node.ended_ns for time in computing]
        moments = starts + ends
        order = sorted(range(2 * many), key=moments.__getitem__)
        place = [0] * (2 * many)
        for at, each in enumerate(order):
            place[each] = at
        self._order = order
        self._started_at, self._ended_at = place[:many], place[many:]
        in_order = [moments[each] for each in order]
        self._lasting_ns = [0, *map(sub, in_order[1:], in_order)] if in_order else []
        self._durations_ns = [time.duration_ns for time in computing]
        self._computed = [time.cpu_ns / time.duration_ns for time in computing]
        self._unseen = [index for index, time in enumerate(computing) if time.unseen_ns]
        self.ask_for_waits()

    def ask_for_waits(self) -> None:
        """How long each waited for the lock may be judged anew; when they met stays."""
        self._waited = [time.gil_ns / time.duration_ns for time in self._computing]

    def expected_ns(self, shares: Sequence[float]) -> list[float]:
        """By name, how long nodes that were looked at would have waited for the lock, had they computed with it only.

        Taking turns, it is as long as others had the lock or waited for it, for each second of the node's own; but
        nobody waits for longer than others have it.
        """
        expected_ns = [0.0] * self._names
        there, having = self.others(shares)
        for time, by_turns, at_most in zip(self._computing, there, having, strict=True):
            if by_turns > 0 < at_most and not time.unseen_ns:
                turns_ns, most_ns = time.cpu_ns * by_turns, time.duration_ns * at_most
                expected_ns[time.number] += turns_ns if turns_ns < most_ns else most_ns
        return expected_ns

    def others(self, shares: Sequence[float]) -> tuple[list[float], list[float]]:
        """For each, how many others had the lock or waited for it while it ran, on average; and how many had it.

        A rounding error below 0 is none.
        """
        held = list(map(shares.__getitem__, self._numbers))
        having = list(map(mul, held, self._computed))
        waited = self._waited
        if self._unseen:
            waited = waited.copy()
            for index in self._unseen:
                waited[index] *= held[index]
        return self._beside(list(map(add, having, waited))), self._beside(having)

    def _beside(self, own: Sequence[float]) -> list[float]:
        """For each, the average level of the others while it ran, from everybody's own while they ran."""
        changes = [*own, *map(neg, own)]
        levels = accumulate(map(changes.__getitem__, self._order), initial=0.0)
        areas = list(accumulate(map(mul, levels, self._lasting_ns)))
        area = areas.__getitem__
        between = map(sub, map(area, self._ended_at), map(area, self._started_at))
        return list(map(sub, map(truediv, between, self._durations_ns), own))
