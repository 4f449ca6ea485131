"""A recorded run into at most three findings: why it took as long as it did, and what would help.

The tree, in the order in which it is gone through:

1. Did the run end as it should? A node raised: `failing_upstream`. It was stopped: `cancelled`.
2. Does the record tell enough? So much is missing that the rest may mislead: `telemetry_loss`.
3. What would the run take if one thing were different? The replay is asked:

   - if nobody waited for the interpreter lock: `gil_bound`; for a processor: `processor_starved`; for a lock:
     `lock_contention`; if nobody slept: `sleeping_node`;
   - with more workers: `pool_too_small`;
   - if the longest of nodes that are alike took as long as the others: `straggler`;
   - where most of the critical path's nodes is waiting for the network or the disk, if that took half as long:
     `slow_network`, `slow_disk`;
   - if the nodes of the critical path were twice as fast: `critical_path`, unless one of the above explains the chain.

   What takes less than a tenth off the run is no finding. So what a node does beside the critical path never is one.
   But where nothing of these is found, and nodes wait for the interpreter lock and for others alternately, and without
   any of this waiting the run would be shorter by a fifth, the lock that is waited for more is one: to do away with
   either alone would just have them meet at the other.
   Where something is found and waiting for the network or the disk is less than most, but a third, it is told after.
4. What cannot be replayed: most of the run passes outside of nodes (`outside_nodes`); nodes stand in each other's way,
   and half as many at once would be done as early (`pool_too_large`).
5. Nothing of these: `healthy`; or `telemetry_loss`, where nobody knows what most of the run went to.

Findings of 1 and 2 come first. Those of 3 are in the order of their gain; of two with about the same gain, the one that
says more comes first, in the order above. Those of 4 follow.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> times = {"submitted_ns": 0, "ready_ns": 0, "started_ns": 0, "ended_ns": 3_000_000_000}
>>> states = {"sleep": 2_800_000_000, "cpu": 200_000_000}
>>> poll = NodeExecution(key="1", name="poll", **times, states=states, samples=99)
>>> run = RecordedRun(id="r", name="etl", pool="p", started_ns=0, ended_ns=3_000_000_000, nodes=(poll,))
>>> [found] = diagnose(run).findings
>>> found.cause, found.nodes, found.gain_seconds
('sleeping_node', ('poll',), 2.8)
>>> found.evidence[0]
"sleeping: 2.80 s, 93 % of the nodes' time; most of it poll 2.80 s"
"""

from __future__ import annotations

from typing import Final

from traced_threadpool.analysis.diagnosis import detectors as leaves
from traced_threadpool.analysis.diagnosis.analyzed_run import Look
from traced_threadpool.analysis.diagnosis.causes import CAUSES, Cause, Diagnosis, Finding
from traced_threadpool.analysis.diagnosis.detectors import Leaf
from traced_threadpool.model.recorded_run import RecordedRun

__all__ = ["CAUSES", "Cause", "Diagnosis", "Finding", "diagnose"]

MOST_FINDINGS: Final = 3

ALIKE: Final = 0.05
"""Gains that differ by less than this part of the run are about the same."""

_EXPLAIN_A_CHAIN: Final[frozenset[Cause]] = frozenset(
    {
        "gil_bound",
        "processor_starved",
        "lock_contention",
        "sleeping_node",
        "straggler",
        "slow_network",
        "slow_disk",
    }
)


def diagnose(run: RecordedRun, *, look: Look | None = None) -> Diagnosis:
    """Why a run took as long as it did. `look` is for whoever goes on to ask the same record more."""
    look = look or Look(run)
    first = [found for found in (leaves.failing_upstream(look), leaves.cancelled(look)) if found is not None]
    loss = leaves.telemetry_loss(look)
    if loss is not None and loss[1]:
        first.append(loss[0])
    slow = [leaf.finding for leaf in (*_by_gain(look), *_by_share(look))]
    findings = [*first, *slow] or [leaves.not_known(look) or leaves.healthy(look)]
    if loss is not None and not loss[1]:
        told = [found for found in findings if found.cause != "telemetry_loss"]
        findings = [*told[: MOST_FINDINGS - 1], loss[0]]
    return Diagnosis(findings=tuple(findings[:MOST_FINDINGS]), estimated=look.estimated)


def _by_gain(look: Look) -> list[Leaf]:
    """What the replay says would make the run shorter, the most first."""
    if look.as_recorded is None:
        return []
    asked = [
        leaves.gil_bound(look),
        leaves.processor_starved(look),
        leaves.lock_contention(look),
        leaves.sleeping_node(look),
        leaves.pool_too_small(look),
        leaves.straggler(look),
    ]
    found = [leaf for leaf in asked if leaf is not None]
    if not found and (mixture := leaves.contention(look)) is not None:
        found.append(mixture)
    slow = [leaves.slow_network(look, least=leaves.DOMINATES), leaves.slow_disk(look, least=leaves.DOMINATES)]
    beside: list[Leaf | None] = []
    if found:
        beside = [leaves.slow_network(look, least=leaves.CONTRIBUTES), leaves.slow_disk(look, least=leaves.CONTRIBUTES)]
        beside = [None if one is not None else other for one, other in zip(slow, beside, strict=True)]
    found += [leaf for leaf in slow if leaf is not None]
    chain = leaves.governing_chain(look)
    explained = max((leaf.weight for leaf in found if leaf.finding.cause in _EXPLAIN_A_CHAIN), default=0.0)
    if chain is not None and explained < chain.weight / 2:
        found.append(chain)
    return [*_ordered(found), *_ordered([leaf for leaf in beside if leaf is not None])]


def _by_share(look: Look) -> list[Leaf]:
    """What cannot be replayed, that which is about most of the run first."""
    if look.duration_ns <= 0 or look.run.left_out:
        return []
    asked = (leaves.outside_nodes(look), leaves.pool_too_large(look))
    return sorted((leaf for leaf in asked if leaf is not None), key=lambda leaf: -leaf.weight)


def _ordered(found: list[Leaf]) -> list[Leaf]:
    """The most gain first; of those that are alike in that, the one that comes first in the tree."""
    left, ordered = list(found), []
    while left:
        most = max(leaf.weight for leaf in left)
        following = next(leaf for leaf in left if leaf.weight > most - ALIKE)
        ordered.append(following)
        left.remove(following)
    return ordered
