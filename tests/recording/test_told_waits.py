"""Which waits of a critical path are told beside its nodes, so that who walks back by ends alone stays on it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.recording.critical_path import Stretch, walk_back
from traced_threadpool.recording.told_waits import MOST_NEEDED, NEEDED_EVERY_NS, told_waits

US = 1_000
MS = 1_000_000
INSET_NS = 2 * US


def node(key: str, submitted: int, ready: int, started: int, ended: int, *upstream: str) -> NodeExecution:
    return NodeExecution(
        key=key,
        name=f"n{key}",
        submitted_ns=submitted,
        ready_ns=ready,
        started_ns=started,
        ended_ns=ended,
        upstream=upstream,
    )


def path_of(nodes: Sequence[NodeExecution], ended_ns: int) -> list[Stretch[NodeExecution]]:
    by_key = {each.key: each for each in nodes}
    last = max(nodes, key=lambda each: each.ended_ns)
    return walk_back(last, 0, ended_ns, lambda each: [by_key[key] for key in each.upstream])


def told_of(nodes: Sequence[NodeExecution], path: Sequence[Stretch[NodeExecution]]) -> list[Stretch[NodeExecution]]:
    return told_waits(path, sorted(nodes, key=lambda each: each.ended_ns), unix_offset_ns=0)


def shown(told: Sequence[Stretch[NodeExecution]]) -> list[tuple[str, str]]:
    return [(kind, "" if each is None else each.key) for kind, each, _, _ in told]


@pytest.mark.parametrize(("waited_ns", "told"), [(MS, [("queue", "b")]), (MS - 1, [])])
def test_a_queue_wait_of_a_millisecond_is_told(waited_ns: int, told: list[tuple[str, str]]) -> None:
    """Whether it misleads or not: in a chain nothing else could be shaded."""
    nodes = [node("a", 0, 0, 0, 9 * MS), node("b", 0, 9 * MS, 9 * MS + waited_ns, 20 * MS, "a")]
    assert shown(told_of(nodes, path_of(nodes, 20 * MS))) == told


def test_a_shorter_one_is_told_where_it_misleads() -> None:
    nodes = [node("a", 0, 0, 0, 9 * MS), node("b", 0, 9 * MS, 9_500 * US, 20 * MS, "a")]
    nodes.append(node("c", 0, 0, 0, 9_300 * US))
    assert shown(told_of(nodes, path_of(nodes, 20 * MS))) == [("queue", "b")]


def test_time_before_a_node_was_submitted_is_told_where_it_misleads() -> None:
    nodes = [node("a", 0, 0, 0, 9 * MS), node("b", 10 * MS, 10 * MS, 10 * MS, 20 * MS)]
    path = path_of(nodes, 20 * MS)
    assert shown(told_of(nodes, path)) == [("outside", "b")]
    assert told_of(nodes[1:], path) == []


def scheduled(seed: int, size: int, workers: int, longest_ns: int) -> list[NodeExecution]:
    """A DAG on few workers, with the moments that submitting and handing over take.

    No node ends within microseconds of another's end, start or submission: spans of waits leave two at either end.
    """
    rng = random.Random(seed)
    upstream = [rng.sample(range(each), min(each, rng.randint(0, 3))) for each in range(size)]
    submitted, at_ns = [], 0
    for _ in range(size):
        at_ns += rng.randint(1, 4) * 20 * US + (2 * MS if rng.random() < 0.05 else 0)
        submitted.append(at_ns + 10 * US)
    free = [(0, worker) for worker in range(workers)]
    found: dict[int, NodeExecution] = {}
    waiting = set(range(size))
    while waiting:
        free_ns, worker = heapq.heappop(free)
        ready = {
            each: max([submitted[each], *(found[one].ended_ns for one in upstream[each])])
            for each in waiting
            if all(one in found for one in upstream[each])
        }
        chosen = min(ready, key=lambda each: (max(ready[each], free_ns), each))
        started_ns = (max(ready[chosen], free_ns) // (20 * US) + rng.randint(1, 7)) * 20 * US + 15 * US
        ended_ns = -(-(started_ns + rng.randint(10 * US, longest_ns)) // (20 * US)) * 20 * US
        while any(each.ended_ns == ended_ns for each in found.values()):
            ended_ns += 20 * US
        keys = [str(one) for one in upstream[chosen]]
        found[chosen] = node(str(chosen), submitted[chosen], ready[chosen], started_ns, ended_ns, *keys)
        waiting.remove(chosen)
        heapq.heappush(free, (ended_ns, worker))
    return list(found.values())


def misled_ns(path: Sequence[Stretch[NodeExecution]], nodes: Sequence[NodeExecution], told: Sequence[object]) -> int:
    """How long a walk back by ends alone, strictly before, at microseconds, is on nodes that are not on the path."""
    on_path = {each.key for kind, each, _, _ in path if kind == "node" and each is not None}
    children = [(each.ended_ns, each.started_ns, each.key in on_path) for each in nodes]
    children += [(until - INSET_NS, since + INSET_NS, True) for _, _, since, until in told]  # type: ignore[misc]
    wrong_ns, at_us = 0, max(children)[0] // US + 1
    while earlier := [child for child in children if child[0] // US < at_us]:
        ended_ns, started_ns, is_right = max(earlier)
        wrong_ns += 0 if is_right else ended_ns - started_ns
        at_us = started_ns // US
    return wrong_ns


@given(
    seed=st.integers(0, 10_000),
    size=st.integers(2, 60),
    workers=st.integers(1, 4),
    longest_ns=st.sampled_from([100 * US, 1 * MS, 20 * MS]),
)
@settings(max_examples=150)
def test_a_walk_back_by_ends_stays_on_the_path(seed: int, size: int, workers: int, longest_ns: int) -> None:
    """For all but 2 % of the run, or a fifth of a millisecond of a very short one."""
    nodes = scheduled(seed, size, workers, longest_ns)
    ended_ns = max(each.ended_ns for each in nodes)
    path = path_of(nodes, ended_ns)
    told = told_of(nodes, path)
    assert misled_ns(path, nodes, told) <= max(ended_ns * 0.02, 200 * US)
    certain = sum(kind == "queue" and until - since >= MS for kind, _, since, until in path)
    assert len(told) <= certain + max(MOST_NEEDED, ended_ns // NEEDED_EVERY_NS)


def interleaved(steps: int) -> list[NodeExecution]:
    """A chain of nodes of 80 µs with waits of 20 µs, and within each of the waits another node ends.

    The longer the other one, the later it comes.
    """
    found = []
    for step in range(steps):
        at = step * 100 * US
        found.append(node(f"c{step}", 0, at, at + 20 * US, at + 100 * US, *([f"c{step - 1}"] if step else [])))
        found.append(node(f"x{step}", 0, 0, at + 10 * US - (1 + step % 7) * US, at + 10 * US))
    return found


def test_of_more_waits_than_may_be_told_it_is_those_that_mislead_for_longest() -> None:
    """There are 300, of 30 ms. Every other node is off the path for as long as it takes, the longest for 7 µs."""
    nodes = interleaved(300)
    path = path_of(nodes, 30 * MS)
    told = told_of(nodes, path)
    assert len(told) == 30
    assert {int(key[1:]) % 7 for _, key in shown(told)} == {6}
