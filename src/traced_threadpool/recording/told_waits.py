"""What of a run's critical path is told beside its nodes, so that viewers of traces show the same path.

Such a viewer knows nothing of links: from the run's end it walks back to the child that ended last, strictly before, at
microseconds. So it needs a child wherever a node waited for a worker, or it takes whatever freed the worker, not what
the node waited for before. Each queue wait of `MIN_QUEUE_NS` or longer is told. Other waits between nodes are where the
viewer would leave the path for want of them: those for want of which it is off it for longest, until what is left is no
more than `MISLED_SHARE` of the run. A span costs time: of these there is one for `NEEDED_EVERY_NS` of the run at most,
which only runs of nodes that do next to nothing can come up to.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> load = NodeExecution(key="1", name="load", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=9_000_000)
>>> other = NodeExecution(key="2", name="other", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=9_100_000)
>>> clean = NodeExecution(
...     key="3", name="clean", submitted_ns=0, ready_ns=9_000_000, started_ns=9_300_000, ended_ns=20_000_000
... )
>>> wait = ("queue", clean, 9_000_000, 9_300_000)
>>> path = [("node", clean, 9_300_000, 20_000_000), wait, ("node", load, 0, 9_000_000)]
>>> told_waits(path, [load, other, clean], unix_offset_ns=0) == [wait]
True
>>> told_waits(path, [load, clean], unix_offset_ns=0)  # nothing else ended within that wait
[]
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Final, Protocol, TypeVar

from traced_threadpool.model.records import (
    MIN_QUEUE_NS,
    MISLEADS_FROM_NS,
    QUEUE_INSET_NS,
    Holder,
    KeptNode,
    PathWait,
)
from traced_threadpool.recording.critical_path import Node, Stretch

MISLED_SHARE: Final = 100
"""Other nodes may be shaded for this part of a run, or for `MISLED_NS` of a short one."""
MISLED_NS: Final = 100_000

MOST_NEEDED: Final = 10
NEEDED_EVERY_NS: Final = 1_000_000
"""Of waits that are told for a viewer's sake alone there is one for so much of the run at most, or `MOST_NEEDED`."""

_until_ns: Final = itemgetter(3)
_ended_ns: Final = attrgetter("ended_ns")


class _Kept(KeptNode, Protocol):
    @property
    def before(self) -> Holder | None: ...


_KeptNode = TypeVar("_KeptNode", bound=_Kept)


def holders_of(path: Sequence[Stretch[_KeptNode]], by_end: Sequence[_KeptNode]) -> dict[int, Holder]:
    """What had the worker while a node of the path waited for it, of these nodes or of another run, by its identity.

    Waits on one path do not overlap: all in all each of the nodes, in the order of their ends, is looked at once.
    """
    found: dict[int, Holder] = {}
    ends: Sequence[int] = ()
    for kind, node, since_ns, until_ns in path:
        if kind == "queue" and node is not None and until_ns - since_ns >= MISLEADS_FROM_NS:
            ends = ends or list(map(_ended_ns, by_end))
            holder, before = _holder(node, by_end, ends), node.before
            if before is not None and (holder is None or before.ended_ns > holder.ended_ns):
                found[id(node)] = before
            elif holder is not None:
                found[id(node)] = holder
    return found


def _holder(node: _KeptNode, by_end: Sequence[_KeptNode], ends: Sequence[int]) -> _KeptNode | None:
    """The node that had its worker right before, if that was while it waited."""
    worker, ready_ns = node.worker, node.ready_ns
    if not worker:
        return None
    for index in range(bisect_right(ends, node.started_ns) - 1, -1, -1):
        if ends[index] <= ready_ns:
            break
        other = by_end[index]
        if other.worker == worker and other is not node:
            return other
    return None


def path_waits(
    path: Sequence[Stretch[_KeptNode]],
    by_end: Sequence[_KeptNode],
    holders: Mapping[int, Holder],
    *,
    unix_offset_ns: int,
) -> list[PathWait]:
    """The waits that are told, from the end, as `path` is."""

    return [
        PathWait(
            node=node,
            queued=kind == "queue",
            started_ns=since_ns,
            ended_ns=until_ns,
            behind=holders.get(id(node)) if kind == "queue" else None,
        )
        for kind, node, since_ns, until_ns in told_waits(path, by_end, unix_offset_ns=unix_offset_ns)
        if node is not None
    ]


def told_waits(
    path: Sequence[Stretch[Node]],
    by_end: Sequence[Node],
    *,
    unix_offset_ns: int,
) -> list[Stretch[Node]]:
    """The waits that are told, from the end, each with the node that came next.

    Args:
        path: From the end, too.
        by_end: All nodes of the run, in the order of their ends.
        unix_offset_ns: What makes Unix time of the nodes' times.
    """
    steps: list[Stretch[Node]] = []
    after: Node | None = None
    for kind, node, since_ns, until_ns in path:
        after = node or after
        if kind == "node" or (after is not None and until_ns - since_ns >= MISLEADS_FROM_NS):
            steps.append((kind, after, since_ns, until_ns))
    certain = {
        place
        for place, (kind, _, since_ns, until_ns) in enumerate(steps)
        if kind == "queue" and until_ns - since_ns >= MIN_QUEUE_NS
    }
    needed: set[int] = set()
    if len(certain) < sum(each[0] != "node" for each in steps):
        duration_ns = path[0][3] - path[-1][2]
        allowed_ns = max(duration_ns // MISLED_SHARE, MISLED_NS)
        most = max(MOST_NEEDED, duration_ns // NEEDED_EVERY_NS)
        needed = _needed(_Viewer(steps, certain, by_end, unix_offset_ns), steps, certain, allowed_ns, most)
    return sorted((steps[place] for place in certain | needed), key=_until_ns, reverse=True)


def _needed(
    viewer: _Viewer, steps: Sequence[Stretch[Node]], certain: Collection[int], allowed_ns: int, most: int
) -> set[int]:
    """Which other waits are told, so that a viewer is off the path for no more than is allowed.

    How long it is off for want of one wait is told without any of the others, so with some of them it is not longer.
    """
    strays: list[tuple[int, int]] = []  # for how long, for want of which
    left_ns, at = allowed_ns, 0
    while at < len(steps) - 1:
        following = at + 1
        if steps[following][0] == "node" or following in certain:
            at, strayed_ns = viewer.next_on_path(at)
            left_ns -= strayed_ns
        else:
            at, strayed_ns = viewer.next_on_path(at, until_strayed_ns=allowed_ns)
            if strayed_ns:
                strays.append((strayed_ns, following))
                at = following
    strays.sort()
    untold = 0
    for strayed_ns, _ in strays:
        if (left_ns := left_ns - strayed_ns) < 0:
            break
        untold += 1
    return {place for _, place in strays[untold:][-most:]}


class _Viewer:
    """Walks back from child to child by their ends alone, as a viewer of traces does."""

    def __init__(
        self, steps: Sequence[Stretch[Node]], told: Iterable[int], by_end: Sequence[Node], unix_offset_ns: int
    ) -> None:
        self._steps = steps
        self._offset_ns = unix_offset_ns
        self._places = {id(step[1]): place for place, step in enumerate(steps) if step[0] == "node"}
        self._by_end = by_end
        self._ends = list(map(_ended_ns, by_end))
        self._told = sorted(told, reverse=True)  # by their ends
        self._told_ends = [steps[place][3] - QUEUE_INSET_NS for place in self._told]

    def next_on_path(self, place: int, *, until_strayed_ns: int | None = None) -> tuple[int, int]:
        """To which step of the path it comes after that at `place`, and for how long it is on other children.

        Beyond `until_strayed_ns` the place is of no interest.
        """
        kind, _, at_ns, _ = self._steps[place]
        if kind != "node":
            at_ns += QUEUE_INSET_NS
        strayed_ns = 0
        while until_strayed_ns is None or strayed_ns <= until_strayed_ns:
            before_ns = at_ns - (at_ns + self._offset_ns) % 1_000  # to the microsecond of Unix time
            index = bisect_left(self._ends, before_ns) - 1
            wait = bisect_left(self._told_ends, before_ns) - 1
            if wait >= 0 and (index < 0 or self._told_ends[wait] >= self._ends[index]):
                return self._told[wait], strayed_ns
            if index < 0:
                break
            node = self._by_end[index]
            found = self._places.get(id(node), -1)
            if found > place:
                return found, strayed_ns
            at_ns = node.started_ns
            strayed_ns += node.ended_ns - at_ns
        return len(self._steps), strayed_ns
