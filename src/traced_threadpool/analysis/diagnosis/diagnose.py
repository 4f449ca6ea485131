"""A recorded run into at most three findings: why it took as long as it did, and what would help.

The tree, in the order in which it is gone through:

1. Did the run end as it should? A node raised: `failing_upstream`. It was stopped: `cancelled`.
2. Does the record tell enough? So much is missing that the rest may mislead: `telemetry_loss`.
3. What would the run take if one thing were different? The replay is asked:

   - where nodes wait for a worker mostly because of other runs, if these were not there:
     `queued_behind_other_runs`, which then stands for `pool_too_small` too;
   - if nobody waited for the GIL: `gil_bound`; for a CPU: `processor_starved`; for a lock:
     `lock_contention`; if nobody slept: `sleeping_node`;
   - with more workers: `pool_too_small`;
   - if nodes of a backend ran on threads, or nothing had to be moved: `transfer_bound`, or
     `too_small_for_backend` where little is moved; if nobody waited for a worker of a backend, or a lane let more nodes
     run at once: `remote_queue_bound`;
   - if the longest of nodes that are alike took as long as the others: `straggler`;
   - where most of the critical path's nodes is waiting for the network or the disk, if that took half as long:
     `slow_network`, `slow_disk`;
   - if the nodes of the critical path were twice as fast: `critical_path`, unless one of the above explains the chain.

   What takes less than a tenth off the run is no finding. So what a node does beside the critical path never is one.
   But where nothing of these is found, and nodes wait for the GIL and for other locks alternately, and without
   any of this waiting the run would be shorter by a fifth, the lock that is waited for more is one: to do away with
   either alone would just have them meet at the other.
   Where something is found and waiting for the network or the disk is less than most, but a third, it is told after.
4. What cannot be replayed: most of the run passes outside of nodes (`outside_nodes`); nodes stand in each other's way,
   and half as many at once would be done as early (`pool_too_large`); where it is `gil_bound`, nodes that wait for I/O
   wait for the GIL for a third of their time (`switch_interval`).
5. Nothing of these: with fewer workers it would be shorter by a tenth (`pool_too_large`); `healthy`; or
   `telemetry_loss`, where nobody knows what most of the run went to.

Findings of 1 and 2 come first; of a run that failed, there are no others: how long it takes without the failure, the
record cannot tell. Those of 3 are in the order of their gain; of two with about the same gain, the one that says more
comes first, in the order above. But a setting that gains two thirds of what a change of code does comes before it, and
other runs before what does not gain twice as much: whatever is faster then queues behind them all the same.
Those of 4 follow. What looks biggest in the tables and is no finding has a remark that says why (`remarks`).

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

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from traced_threadpool.analysis.diagnosis import (
    detect_backends as backends,
)
from traced_threadpool.analysis.diagnosis import (
    detect_contention as contention,
)
from traced_threadpool.analysis.diagnosis import (
    detect_held_back as held_back,
)
from traced_threadpool.analysis.diagnosis import (
    detect_nothing as nothing_found,
)
from traced_threadpool.analysis.diagnosis import (
    detect_outcome as outcome,
)
from traced_threadpool.analysis.diagnosis import (
    detect_shape as shape,
)
from traced_threadpool.analysis.diagnosis import (
    detect_sharing as sharing,
)
from traced_threadpool.analysis.diagnosis import (
    detect_waiting as waiting,
)
from traced_threadpool.analysis.diagnosis import (
    detect_workers as workers,
)
from traced_threadpool.analysis.diagnosis.advice import OVERLAP
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.diagnosis.causes import CAUSES, Cause, Diagnosis, Finding, RankedFinding
from traced_threadpool.analysis.diagnosis.path_states import BETWEEN_NODES
from traced_threadpool.analysis.diagnosis.ranking import CONTRIBUTES
from traced_threadpool.analysis.diagnosis.remarks import remarks
from traced_threadpool.model.recorded_run import RecordedRun

__all__ = ["CAUSES", "Cause", "Diagnosis", "Finding", "diagnose"]

MOST_FINDINGS: Final = 3

ALIKE: Final = 0.05
"""Gains that differ by less than this part of the run are about the same."""

SETTINGS: Final[frozenset[Cause]] = frozenset(
    {"pool_too_small", "queued_behind_other_runs", "remote_queue_bound", "transfer_bound", "too_small_for_backend"}
)
"""What a person can do away with by an argument."""

NEAR: Final = 2 / 3
"""A setting comes before a change of code that gains more, if it gains at least this part of it."""

MEETS: Final = 0.5
"""A lock that nodes wait for most of all comes before what they do under it, if it gains at least this part of that."""

BEFORE: Final = 0.5
"""Other runs in the pool come first unless something else gains more than twice as much."""

_EXPLAIN_A_CHAIN: Final[frozenset[Cause]] = frozenset(
    {
        "gil_bound",
        "processor_starved",
        "lock_contention",
        "sleeping_node",
        "straggler",
        "slow_network",
        "slow_disk",
        "transfer_bound",
        "too_small_for_backend",
        "remote_queue_bound",
    }
)


def diagnose(run: RecordedRun, *, analyzed: AnalyzedRun | None = None) -> Diagnosis:
    """Why a run took as long as it did. `analyzed` is for whoever goes on to ask the same record more."""
    analyzed = analyzed or AnalyzedRun(run)
    first = [found for found in (outcome.failing_upstream(analyzed), outcome.cancelled(analyzed)) if found is not None]
    loss = outcome.telemetry_loss(analyzed)
    if loss is not None and loss[1]:
        first.append(loss[0])
    slow: list[Finding] = []
    if run.outcome != "error":
        slow = [ranked.finding for ranked in _by_gain(analyzed)]
        waits_for_gil = any(found.cause == "gil_bound" for found in slow)
        slow += [ranked.finding for ranked in _by_share(analyzed, waits_for_gil=waits_for_gil)]
    findings = [*first, *slow] or [nothing_found.not_known(analyzed) or _at_best(analyzed)]
    if loss is not None and not loss[1]:
        told = [found for found in findings if found.cause != "telemetry_loss"]
        findings = [*told[: MOST_FINDINGS - 1], loss[0]]
    told, after = findings[:MOST_FINDINGS], findings[MOST_FINDINGS:]
    ended = run.outcome == "success"
    return Diagnosis(
        findings=_overlapping(told),
        remarks=tuple(remarks(analyzed, told, after)) if ended else (),
        estimated=analyzed.estimated,
    )


def _at_best(analyzed: AnalyzedRun) -> Finding:
    """Nothing is wrong; but fewer workers may be better."""
    fewer = workers.fewer_workers(analyzed)
    return nothing_found.healthy(analyzed) if fewer is None else fewer.finding


def _overlapping(findings: list[Finding]) -> tuple[Finding, ...]:
    """Each gain is that of one change alone: from the second on, that is said."""
    gaining = [found for found in findings if found.gain_seconds]
    return tuple(
        replace(found, evidence=(*found.evidence, OVERLAP)) if found in gaining[1:] else found for found in findings
    )


def _by_gain(analyzed: AnalyzedRun) -> list[RankedFinding]:
    """What the replay says would make the run shorter, the most first."""
    if analyzed.as_recorded is None:
        return []
    behind_others = sharing.queued_behind_other_runs(analyzed)
    asked = [
        contention.gil_bound(analyzed),
        contention.processor_starved(analyzed),
        contention.lock_contention(analyzed),
        waiting.sleeping_node(analyzed),
        workers.pool_too_small(analyzed) if behind_others is None else None,
        backends.moving_costs(analyzed),
        held_back.remote_queue_bound(analyzed),
        shape.straggler(analyzed),
    ]
    found = [ranked for ranked in asked if ranked is not None]
    if not found and (mixture := contention.gil_and_lock(analyzed)) is not None:
        found.append(mixture)
    is_wrong = bool(found) or behind_others is not None
    beside: list[RankedFinding] = []
    for slow in (waiting.slow_network, waiting.slow_disk):
        if (ranked := slow(analyzed, least=waiting.DOMINATES)) is not None:
            found.append(ranked)
        elif is_wrong and (ranked := slow(analyzed, least=CONTRIBUTES)) is not None:
            beside.append(ranked)
    chain = shape.critical_chain(analyzed)
    explained = max((ranked.weight for ranked in found if ranked.finding.cause in _EXPLAIN_A_CHAIN), default=0.0)
    if chain is not None and explained < chain.weight / 2:
        found.append(chain)
    early: dict[Cause, float] = dict.fromkeys(SETTINGS, NEAR)
    if _meets_at_a_lock(analyzed):
        early["lock_contention"] = MEETS
    ordered = [*_ordered(found, early), *_ordered(beside, early)]
    if behind_others is None:
        return ordered
    first = [ranked for ranked in ordered if ranked.weight * BEFORE > behind_others.weight]
    return [*first, behind_others, *[ranked for ranked in ordered if ranked not in first]]


def _by_share(analyzed: AnalyzedRun, *, waits_for_gil: bool) -> list[RankedFinding]:
    """What cannot be replayed, that which is about most of the run first."""
    if analyzed.duration_ns <= 0 or analyzed.run.left_out:
        return []
    asked = [shape.outside_nodes(analyzed), workers.pool_too_large(analyzed)]
    if waits_for_gil:
        asked.append(backends.switch_interval(analyzed))
    return sorted((ranked for ranked in asked if ranked is not None), key=lambda ranked: -ranked.weight)


def _meets_at_a_lock(analyzed: AnalyzedRun) -> bool:
    """Whether the path's nodes wait for a lock for longer than for anything else they do, or all nodes for much of it.

    Where few workers are, nodes wait for one while others wait for the lock: the path goes through those that have it.
    """
    lock_ns = analyzed.on_path.get("lock", 0)
    if analyzed.total_ns("lock") >= CONTRIBUTES * analyzed.busy_ns > 0:
        return True
    return lock_ns > 0 and lock_ns == max(ns for state, ns in analyzed.on_path.items() if state not in BETWEEN_NODES)


def _ordered(found: list[RankedFinding], early: Mapping[Cause, float]) -> list[RankedFinding]:
    """The most gain first; of those that are alike in that, the one that comes first in the tree.

    An early one whose gain is near that goes before: a setting, since it is the least to do; a lock that nodes wait for
    most of all, since what they do under it, one after the other, is long for that reason.
    """
    left, ordered = list(found), []
    while left:
        most = max(ranked.weight for ranked in left)
        near = [ranked for ranked in left if ranked.weight >= early.get(ranked.finding.cause, math.inf) * most]
        following = (near or [ranked for ranked in left if ranked.weight > most - ALIKE])[0]
        ordered.append(following)
        left.remove(following)
    return ordered
