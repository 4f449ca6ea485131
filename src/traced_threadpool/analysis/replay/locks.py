"""Waits for locks in a record into resources with a capacity, which a replay queues for.

Nodes that waited for the same lock share it. How long each *held* it is not recorded; it is concluded. While anybody
waits for a lock, all its permits are held: so the time in which somebody waited, times the capacity, divided by how
often somebody got it then, is how long it is held each time. Where nodes take it once, the moments are known: from when
one got it, which is when its wait ended, until the next one's wait ended. What is held while nobody waits cannot be
seen: at least nothing, at most as long as nodes of the lock ran, and what lies between is a range.

A node that held the lock and never waited for it is known by its siblings: nodes of the same name, or but for its last
word or number, that did. If nobody of all these could have held the lock for much of the time that somebody waited,
something else did: a thread outside of the pool, other nodes. Then the waits stay as they were.

>>> from traced_threadpool.model.lock_wait import LockWait
>>> nodes = []
>>> for number in range(3):  # each holds one lock for 100, in turns
...     wait = LockWait(name="Lock 1", capacity=1, last_ns=100 * number) if number else None
...     times = {"submitted_ns": 0, "ready_ns": 0, "started_ns": 0, "ended_ns": 100 * (number + 1)}
...     states = {"sleep": 100, "lock": 100 * number}
...     nodes.append(NodeExecution(key=str(number), name=f"load_{number}", **times, states=states, lock=wait))
>>> [found] = find_locks(nodes)
>>> found.capacity, found.share, sorted(found.members)
(1, 1.0, [0, 1, 2])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Final, NamedTuple

from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.siblings import stem

TELLING: Final = 0.02
"""Waiting for a lock is worth modelling from this part of the nodes' time on."""

EXPLAINED: Final = 0.6
"""Of the time in which somebody waited for a lock, as much must be such that a node of it may have held it."""

MOST_TURNS: Final = 8
"""How often a node takes a lock in a replay, at most."""

LOW_QUANTILE: Final = 0.15
"""How few members ran beside those that wait, but for this part of the time: no more than these can hold the lock."""

MOSTLY: Final = 0.7
"""If as many of the nodes that waited did so once, the moments at which they did tell who had the lock from when on."""

FEW: Final = 3
"""Fewer moments tell nothing."""

SLIGHT_NS: Final = 15_000_000
"""A wait may be found to have ended so much later than it did: samples are some milliseconds apart."""

AT_ONCE_NS: Final = 8_000_000
"""Nodes that are found waiting so soon after their start want the lock at once."""

COINCIDES_NS: Final = 4_000_000
"""Waits that end on the whole so near to the ends of nodes end with them."""

SURE: Final = 0.1
"""Two answers that differ by less than this part are one."""


class Locking(NamedTuple):
    """How one execution uses a lock: which, for what share of its own time, in how many turns, and how much of the rest
    comes before it in each.
    """

    lock: int
    share: float
    turns: int = 1
    before: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLock:
    """A lock, and the indices of the nodes that use it. `share` is of their own time, between `least` and `most`."""

    name: str
    line: str
    capacity: int
    is_known: bool
    """Whether the capacity is recorded."""
    share: float
    least: float
    most: float
    members: Mapping[int, Locking]
    waits_ns: Mapping[int, int]
    """How long each of the members waited."""

    @property
    def waited_ns(self) -> int:
        """By all of them."""
        return sum(self.waits_ns.values())

    @property
    def is_sure(self) -> bool:
        """Whether what is under the lock is known well enough to give one number."""
        return self.most - self.least <= SURE and self.is_known

    def with_share(self, share: float) -> dict[int, Locking]:
        """Its members, if they have it for this share of their own time."""
        return {index: locking._replace(share=share) for index, locking in self.members.items()}


@dataclass(slots=True)
class _Member:
    index: int
    node: NodeExecution
    waited_ns: int
    since_ns: int
    until_ns: int

    @property
    def density(self) -> float:
        """Which part of the time between its first and last wait it waited."""
        return min(1.0, self.waited_ns / max(1, self.until_ns - self.since_ns))

    @property
    def own_ns(self) -> int:
        return self.node.duration_ns - self.waited_ns


def find_locks(nodes: Sequence[NodeExecution]) -> list[FoundLock]:
    """The locks whose waits can be explained by the nodes that share them."""
    groups: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        if node.lock is not None and node.states.get("lock"):
            groups.setdefault(node.lock.name, []).append(index)
    if not groups:
        return []
    groups = _with_nameless(groups, nodes)
    total_ns = sum([node.duration_ns for node in nodes])
    taken = {index for indices in groups.values() for index in indices}
    found: list[FoundLock] = []
    for name, indices in groups.items():
        waited_ns = sum([nodes[index].states.get("lock", 0) for index in indices])
        if waited_ns >= TELLING * total_ns:
            lock = _found(name, len(found), indices, nodes, taken)
            if lock is not None:
                found.append(lock)
    return found


def _with_nameless(groups: Mapping[str, list[int]], nodes: Sequence[NodeExecution]) -> dict[str, list[int]]:
    """Waits at which nobody looked have a name that is theirs alone: they are for the lock of the nodes that are alike,
    where these have but one.
    """
    named: dict[str, set[str]] = {}
    known = {name for name, indices in groups.items() if any(_line(nodes[index]) for index in indices)}
    for name in known:
        for index in groups[name]:
            named.setdefault(stem(nodes[index].name), set()).add(name)
    found: dict[str, list[int]] = {}
    for name, indices in groups.items():
        theirs = set() if name in known else set().union(*[named.get(stem(nodes[index].name), ()) for index in indices])
        found.setdefault(next(iter(theirs)) if len(theirs) == 1 else name, []).extend(indices)
    return found


def _line(node: NodeExecution) -> str:
    return "" if node.lock is None else node.lock.line


def _found(
    name: str, number: int, indices: Sequence[int], nodes: Sequence[NodeExecution], taken: set[int]
) -> FoundLock | None:
    waiting = [_member(index, nodes[index]) for index in indices]
    stems = {stem(member.node.name) for member in waiting}
    silent = [
        _Member(index=index, node=node, waited_ns=0, since_ns=node.started_ns, until_ns=node.started_ns)
        for index, node in enumerate(nodes)
        if index not in taken and stem(node.name) in stems and node.duration_ns
    ]
    everybody = [*waiting, *silent]
    _set_right(waiting, everybody)
    told = [member.node.lock for member in waiting if member.node.lock is not None]
    known = max((lock.capacity for lock in told if lock.capacity is not None), default=None)
    profile = _Profile(everybody)
    if not profile.contended_ns:
        return None
    capacity = profile.capacity() if known is None else known
    own_ns = sum([member.own_ns for member in everybody])
    if profile.explained() < EXPLAINED or not own_ns:
        return None
    least_ns = min(own_ns, capacity * profile.contended_ns)
    most_ns = min(own_ns, least_ns + profile.uncontended_ns(capacity))
    got = sum([lock.waits for lock in told])
    turns_of_one = max(1.0, got / len(waiting))
    once = [member for member in waiting if member.node.lock is not None and member.node.lock.waits == 1]
    holds_ns = _holds(once, silent, capacity) if len(once) >= MOSTLY * len(waiting) else []
    if len(holds_ns) >= FEW:
        low_ns, each_ns, high_ns = quantiles(holds_ns, n=4)
        times = len(everybody)
        least_ns, most_ns = max(0.0, low_ns * times), min(own_ns, high_ns * times)
        held_ns = min(own_ns, each_ns * times)
    else:
        each_ns = capacity * profile.contended_ns / got
        held_ns = min(most_ns, max(least_ns, each_ns * (got + turns_of_one * len(silent))))
    share = min(1.0, held_ns / own_ns)
    before = _before(once, waiting, share)
    members = {
        member.index: Locking(
            number,
            share,
            min(MOST_TURNS, member.node.lock.waits if member.node.lock is not None else round(turns_of_one)),
            before,
        )
        for member in everybody
    }
    return FoundLock(
        name=name,
        line=next((lock.line for lock in told if lock.line), ""),
        capacity=capacity,
        is_known=known is not None,
        share=share,
        least=min(1.0, least_ns / own_ns),
        most=min(1.0, most_ns / own_ns),
        members=members,
        waits_ns={member.index: member.waited_ns for member in waiting},
    )


def _member(index: int, node: NodeExecution) -> _Member:
    lock = node.lock
    assert lock is not None
    waited_ns = min(node.states.get("lock", 0), node.duration_ns)
    since_ns = node.started_ns + min(max(0, lock.first_ns), node.duration_ns)
    until_ns = node.started_ns + min(max(lock.first_ns + 1, lock.last_ns), node.duration_ns)
    if lock.waits == 1:  # its moments say more than how many of the samples found it waiting
        waited_ns = until_ns - since_ns
    elif until_ns - since_ns < waited_ns:
        since_ns = max(node.started_ns, until_ns - waited_ns)
    return _Member(index=index, node=node, waited_ns=waited_ns, since_ns=since_ns, until_ns=max(until_ns, since_ns + 1))


def _set_right(waiting: Sequence[_Member], everybody: Sequence[_Member]) -> None:
    """Sampled moments, by exact ones that they coincide with: that nodes want the lock at once, or let go at their end.

    One sample is some milliseconds from the next, and many on a busy machine.
    """
    once = [member for member in waiting if member.node.lock is not None and member.node.lock.waits == 1]
    if not once:
        return
    if median([member.since_ns - member.node.started_ns for member in once]) <= AT_ONCE_NS:
        for member in once:
            member.since_ns = member.node.started_ns
    ends = sorted(member.node.ended_ns for member in everybody)
    near = [_nearest(ends, member.until_ns) for member in once]
    close = [abs(end_ns - member.until_ns) <= SLIGHT_NS for end_ns, member in zip(near, once, strict=True)]
    late_ns = median([end_ns - member.until_ns for end_ns, member in zip(near, once, strict=True)])
    if sum(close) >= MOSTLY * len(once) and abs(late_ns) <= COINCIDES_NS:
        for member, end_ns, is_close in zip(once, near, close, strict=True):
            if is_close and member.since_ns < end_ns < member.node.ended_ns:
                member.until_ns = end_ns
    for member in once:
        member.waited_ns = max(1, member.until_ns - member.since_ns)


def _nearest(ends_ns: Sequence[int], at_ns: int) -> int:
    return min(ends_ns, key=lambda end_ns: abs(end_ns - at_ns))


def _holds(once: Sequence[_Member], silent: Sequence[_Member], capacity: int) -> list[float]:
    """How long the lock was held each time that somebody waited for the end of it.

    Who got it last but for `capacity` - 1 is taken to have let go of it. One that did not wait is taken to have got it
    as long after its start as the others wanted it.
    """
    if not once:
        return []
    wanted_ns = median([member.since_ns - member.node.started_ns for member in once])
    got = [(float(member.until_ns), member) for member in once]
    got += [(member.node.started_ns + wanted_ns, member) for member in silent]
    got.sort(key=lambda each: each[0])
    found = []
    for until_ns, waiter in got:
        if not waiter.waited_ns:
            continue
        holders = [
            since_ns
            for since_ns, member in got
            if since_ns < until_ns and member is not waiter and member.node.ended_ns + SLIGHT_NS >= until_ns
        ]
        if len(holders) >= capacity:
            found.append(until_ns - holders[-capacity])
    return found


def _before(once: Sequence[_Member], waiting: Sequence[_Member], share: float) -> float:
    """Of what the nodes do outside of the lock, how much comes before they want it."""
    outside_ns = sum([member.own_ns for member in once]) * (1 - share)
    if outside_ns <= 0 or len(once) < len(waiting) / 2:
        return 0.5
    before_ns = sum([member.since_ns - member.node.started_ns for member in once])
    return max(0.0, min(1.0, before_ns / outside_ns))


class _Profile:
    """Over time, how many nodes of a lock run and do not wait for it, while somebody does and while nobody does."""

    def __init__(self, members: Sequence[_Member]) -> None:
        changes: list[tuple[int, float, float]] = []  # when, how many run, how many of them wait
        for member in members:
            changes.append((member.node.started_ns, 1.0, 0.0))
            changes.append((member.node.ended_ns, -1.0, 0.0))
            if member.waited_ns:
                changes.append((member.since_ns, 0.0, member.density))
                changes.append((member.until_ns, 0.0, -member.density))
        changes.sort(key=lambda change: change[0])
        self._contended: list[tuple[float, float]] = []  # how many run beside those that wait, for how long
        self._idle: list[tuple[float, float]] = []
        running = waiting = 0.0
        before_ns = changes[0][0]
        for at_ns, runs, waits in changes:
            lasting_ns = at_ns - before_ns
            if lasting_ns > 0 and running > 0:
                somebody = min(1.0, waiting)
                beside = max(0.0, running - waiting)
                if somebody > 1e-9:
                    self._contended.append((beside, lasting_ns * somebody))
                if somebody < 1:
                    self._idle.append((beside, lasting_ns * (1 - somebody)))
            running += runs
            waiting += waits
            before_ns = at_ns
        self.contended_ns = sum([lasting_ns for _, lasting_ns in self._contended])

    def capacity(self) -> int:
        """No more can have it than ever run beside those who wait."""
        left_ns = LOW_QUANTILE * self.contended_ns
        for beside, lasting_ns in sorted(self._contended):
            left_ns -= lasting_ns
            if left_ns <= 0:
                return max(1, round(beside))
        return 1

    def explained(self) -> float:
        """Of the time in which somebody waits, which part somebody runs who may have it."""
        some_ns = sum([lasting_ns for beside, lasting_ns in self._contended if beside >= 0.5])
        return some_ns / self.contended_ns

    def uncontended_ns(self, capacity: int) -> float:
        """As long as it can have been held while nobody waited."""
        return sum([min(capacity, beside) * lasting_ns for beside, lasting_ns in self._idle])
