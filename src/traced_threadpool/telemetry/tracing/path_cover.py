"""The critical path of a large run into no more spans than it may have, with no part of it left without one.

Where the path has more steps than that, the longest have a span each, and those between two of them share one: a viewer
that walks back from child to child (see `recording/told_waits.py`) stays on the path.

>>> durations = [40, 10, 30, 99, 20]  # the fourth has a span already
>>> sorted(with_own_span(durations, is_open=[True, True, True, False, True], most=3))  # 10 and 30 share the third
[0, 4]
>>> sorted(with_own_span(durations, is_open=[True, True, True, False, True], most=2))
[4]
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from traced_threadpool.model.records import MISLEADS_FROM_NS, KeptNode, KeptNodes, PathStretch, PathWait


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedSteps:
    """Steps that follow each other and share a span: `nodes`, from first to last, and the waits around them.

    `last` is the last node, or the one that waited where there is none.
    """

    nodes: Sequence[KeptNode]
    last: KeptNode
    queue_ns: int
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PathCover:
    """What gets a span: nodes that have none yet, waits, and steps that share one."""

    nodes: Sequence[KeptNode] = ()
    waits: Sequence[PathWait] = ()
    joined: Sequence[JoinedSteps] = ()


def path_cover(
    kept: KeptNodes, lacks_span: Callable[[KeptNode], bool], *, most_nodes: int, most_waits: int
) -> PathCover:
    """At most so many nodes, and at most the sum of both in all."""
    nodes = [node for kind, node, _, _ in kept.stretches if kind == "node" and node is not None and lacks_span(node)]
    if len(nodes) <= most_nodes and len(kept.waits) <= most_waits:
        return PathCover(nodes=nodes, waits=kept.waits)
    steps = _steps(kept.stretches)
    is_open = [kind != "node" or lacks_span(node) for kind, node, _, _ in steps]
    own = with_own_span(
        [until_ns - since_ns for _, _, since_ns, until_ns in steps],
        is_open=is_open,
        most=most_nodes + most_waits,
        is_node=[kind == "node" for kind, _, _, _ in steps],
        most_nodes=most_nodes,
    )
    left = most_nodes + most_waits - len(own)
    joined = [
        _join(steps, [place for place, _ in places])
        for shared, places in groupby(enumerate(is_open), lambda each: each[1] and each[0] not in own)
        if shared
    ]
    joined = [each for each in joined if each.ended_ns - each.started_ns >= MISLEADS_FROM_NS]
    return PathCover(
        nodes=[steps[place][1] for place in own if steps[place][0] == "node"],
        waits=[_wait(steps[place], kept) for place in own if steps[place][0] != "node"],
        joined=heapq.nlargest(left, joined, key=lambda each: each.ended_ns - each.started_ns),
    )


def with_own_span(
    durations: Sequence[int],
    *,
    is_open: Sequence[bool],
    most: int,
    is_node: Sequence[bool] = (),
    most_nodes: int | None = None,
) -> set[int]:
    """The places of those steps that have a span each, the longest, where the open ones between them share spans."""
    shares = [*is_open, False]  # the one after the last is also the one before the first
    left = most - sum(shares[place] and not shares[place - 1] for place in range(len(durations)))
    found: set[int] = set()
    for place in sorted(range(len(durations)), key=lambda place: -durations[place]):
        counts = bool(is_node) and is_node[place] and most_nodes is not None
        if not shares[place] or (counts and not most_nodes):
            continue
        more = shares[place - 1] + shares[place + 1]  # its own, and one for each side, in place of one for them all
        if more <= left:
            left -= more
            shares[place] = False
            found.add(place)
            if counts and most_nodes is not None:
                most_nodes -= 1
    return found


_Step = tuple[str, KeptNode, int, int]


def _steps(stretches: Sequence[PathStretch]) -> list[_Step]:
    """From the end, waits with the node that came next; none of what follows the last node."""
    steps: list[_Step] = []
    after: KeptNode | None = None
    for kind, node, since_ns, until_ns in stretches:
        after = node or after
        if after is not None and (kind == "node" or until_ns - since_ns >= MISLEADS_FROM_NS):
            steps.append((kind, after, since_ns, until_ns))
    return steps


def _join(steps: Sequence[_Step], places: Sequence[int]) -> JoinedSteps:
    """Up to the start of what follows, and from the end of what is before: waits in between may be no steps."""
    joined = [steps[place] for place in places]
    _, last, _, ended_ns = joined[0]
    nodes = [node for kind, node, _, _ in reversed(joined) if kind == "node"]
    return JoinedSteps(
        nodes=nodes,
        last=nodes[-1] if nodes else last,
        queue_ns=sum(until_ns - since_ns for kind, _, since_ns, until_ns in joined if kind == "queue"),
        started_ns=steps[places[-1] + 1][3] if places[-1] + 1 < len(steps) else joined[-1][2],
        ended_ns=steps[places[0] - 1][2] if places[0] else ended_ns,
    )


def _wait(step: _Step, kept: KeptNodes) -> PathWait:
    kind, node, since_ns, until_ns = step
    queued = kind == "queue"
    return PathWait(
        node=node,
        queued=queued,
        started_ns=since_ns,
        ended_ns=until_ns,
        behind=kept.holders.get(id(node)) if queued else None,
    )
