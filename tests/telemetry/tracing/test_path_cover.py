"""Which steps of a large run's critical path have spans of their own, and which share one."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hypothesis import given
from hypothesis import strategies as st

from traced_threadpool.model.records import MIN_QUEUE_NS, MISLEADS_FROM_NS, KeptNodes, PathStretch, PathWait
from traced_threadpool.telemetry.tracing.path_cover import PathCover, path_cover, with_own_span

MS = 1_000_000


@dataclass(slots=True, eq=False)
class Node:
    """As far as it is looked at here."""

    name: str
    has_span: bool
    started_ns: int = 0
    ended_ns: int = 0
    outcome: str = "success"
    upstream: Any = field(default=())


def kept_of(steps: list[tuple[str, int, bool]]) -> KeptNodes:
    """A path of these kinds and durations, from the run's start; waits are for the node that comes next."""
    stretches: list[PathStretch] = []
    at_ns, following = sum(duration_ns for _, duration_ns, _ in steps), None
    for number, (kind, duration_ns, has_span) in reversed(list(enumerate(steps))):
        since_ns = at_ns - duration_ns
        if kind == "node":
            following = Node(f"n{number}", has_span, since_ns, at_ns)
        stretches.append((kind, None if kind == "outside" else following, since_ns, at_ns))  # type: ignore[arg-type]
        at_ns = since_ns
    waits = [
        PathWait(node=node, queued=True, started_ns=since_ns, ended_ns=until_ns, behind=None)
        for kind, node, since_ns, until_ns in stretches
        if kind == "queue" and until_ns - since_ns >= MIN_QUEUE_NS and node is not None
    ]
    return KeptNodes(nodes=(), stretches=stretches, whole=True, waits=waits)


def lacks_span(node: Any) -> bool:
    return not node.has_span


def cover(kept: KeptNodes, most_nodes: int, most_waits: int) -> PathCover:
    return path_cover(kept, lacks_span, most_nodes=most_nodes, most_waits=most_waits)


def test_a_short_path_has_a_span_for_each_node_and_for_the_waits_that_are_told() -> None:
    kept = kept_of([("node", 5 * MS, False), ("queue", 2 * MS, False), ("node", MS, True), ("node", MS, False)])
    found = cover(kept, 2, 1)
    assert [node.name for node in found.nodes] == ["n3", "n0"]
    assert (found.waits, found.joined) == (kept.waits, ())


def test_what_is_between_the_longest_steps_shares_a_span() -> None:
    """It reaches from one to the other, also over waits that are too short to count."""
    kept = kept_of(
        [
            ("node", 9 * MS, False),
            ("node", 1 * MS, False),
            ("queue", 2 * MS, False),
            ("node", 1 * MS, False),
            ("queue", MISLEADS_FROM_NS - 1, False),
            ("node", 9 * MS, False),
        ]
    )
    found = cover(kept, 2, 1)
    assert sorted(node.name for node in found.nodes) == ["n0", "n5"]
    assert found.waits == []
    (joined,) = found.joined
    assert [node.name for node in joined.nodes] == ["n1", "n3"]
    assert (joined.last.name, joined.queue_ns) == ("n3", 2 * MS)
    assert (joined.started_ns, joined.ended_ns) == (9 * MS, 13 * MS + MISLEADS_FROM_NS - 1)


def test_with_too_few_spans_for_the_gaps_between_those_that_are_there_the_longest_are_covered() -> None:
    steps = [("node", (1 + number % 5) * MS, number % 2 == 1) for number in range(20)]
    found = cover(kept_of(steps), 2, 1)
    assert (found.nodes, found.waits) == ([], [])
    assert [each.ended_ns - each.started_ns for each in found.joined] == [5 * MS] * 2 + [4 * MS]


@pytest.mark.parametrize(("most", "own"), [(0, set()), (1, set()), (2, {0}), (3, {0, 1, 2}), (9, {0, 1, 2})])
def test_the_longest_are_alone(most: int, own: set[int]) -> None:
    assert with_own_span([3, 1, 2], is_open=[True] * 3, most=most) == own


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["node", "node", "queue", "outside"]),
        st.integers(MISLEADS_FROM_NS, 3 * MS),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=60,
)


@given(steps=STEPS, most_nodes=st.integers(0, 12), most_waits=st.integers(0, 6))
def test_all_of_the_path_is_covered_with_no_more_spans_than_there_may_be(
    steps: list[tuple[str, int, bool]], most_nodes: int, most_waits: int
) -> None:
    kept = kept_of([*steps, ("node", MS, False)])
    found = cover(kept, most_nodes, most_waits)
    assert len(found.nodes) <= most_nodes
    assert len(found.nodes) + len(found.waits) + len(found.joined) <= most_nodes + most_waits
    if not found.joined:
        return
    there = [(node.started_ns, node.ended_ns) for _, node, _, _ in kept.stretches if node and node.has_span]  # type: ignore[attr-defined]
    spans = sorted(
        {
            *there,
            *((node.started_ns, node.ended_ns) for node in found.nodes),
            *((each.started_ns, each.ended_ns) for each in (*found.waits, *found.joined)),
        }
    )
    covered_ns = sum(ended_ns - started_ns for started_ns, ended_ns in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    if len(found.nodes) + len(found.waits) + len(found.joined) < most_nodes + most_waits:
        assert covered_ns == kept.stretches[0][3]
