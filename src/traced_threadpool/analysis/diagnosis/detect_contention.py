"""What would the run take if nodes did not wait for each other, or for others in the process and on the machine?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from traced_threadpool.analysis.diagnosis.advice import BOTH_LOCKS, CAUSES_IN_WORDS, NEITHER_LOCK, quoted
from traced_threadpool.analysis.diagnosis.analyzed_run import OUTSIDE_OF_NODES, AnalyzedRun, most_first
from traced_threadpool.analysis.diagnosis.causes import RankedFinding
from traced_threadpool.analysis.diagnosis.detect_backends import is_short_of_cpus, on_processes
from traced_threadpool.analysis.diagnosis.detect_waiting import waiting
from traced_threadpool.analysis.diagnosis.ranking import (
    CONTRIBUTES,
    GOVERNS,
    MATTERS,
    MOST_SHOWN,
    and_more_workers,
    by_gain,
    most_of,
)
from traced_threadpool.analysis.replay.company import FULL, STARVED
from traced_threadpool.model.formatting import count, duration, share

CULPRITS: Final = 0.5
"""Those are named who held the GIL during this part of the waiting, beginning with the one who held it most."""


def gil_bound(analyzed: AnalyzedRun, *, matters: float = MATTERS) -> RankedFinding | None:
    """Nobody waits for the GIL."""
    waited_ns = analyzed.total_ns("gil")
    if waited_ns < MATTERS * analyzed.busy_ns or not waited_ns:
        return None
    other = analyzed.without_gil
    words, victims, holders = (
        CAUSES_IN_WORDS["gil_bound"],
        analyzed.by_name("gil"),
        most_first(analyzed.run.gil_holders),
    )
    evidence = [words.says("waited", of_nodes=analyzed.of_nodes(waited_ns), most=most_of(victims))]
    if holders:
        evidence.append(words.says("holders", most=most_of(holders)))
    evidence.append(words.says("replay", source=analyzed.source, instead=analyzed.instead(other)))
    culprits = _culprits(holders)
    nodes = [name for name in culprits if not name.startswith(OUTSIDE_OF_NODES)]
    threads = [name.removeprefix(OUTSIDE_OF_NODES) for name in culprits if name.startswith(OUTSIDE_OF_NODES)]
    advice = [words.advises("threads", threads=quoted(threads))] if threads else []
    better = None
    if not analyzed.is_held_from_outside and not analyzed.is_gil_of_workers:
        better = on_processes(analyzed, nodes, list(holders or victims))
    if better is not None:
        named = quoted(better.nodes)
        evidence.append(
            words.says(
                "processes",
                source=analyzed.source,
                nodes=named,
                processes=f"{better.processes:,}",
                instead=analyzed.instead(better.other),
                moving=duration(better.moving_ns),
                moved=analyzed.instead(better.moved),
            )
        )
        advice.append(words.advises("processes", nodes=named, processes=better.processes))
    elif analyzed.is_gil_of_workers:
        advice.append(words.advises("nodes_on_workers", nodes=quoted(list(victims))))
    elif nodes or not threads:
        key = "nodes_short_of_cpus" if is_short_of_cpus(analyzed) else "nodes"
        advice.append(words.advises(key, nodes=quoted(nodes or list(victims))))
    said = and_more_workers(analyzed, " ".join(advice))
    return by_gain(analyzed, other, "gil_bound", nodes or list(victims), evidence, said, matters=matters)


def _culprits(holders: Mapping[str, float]) -> list[str]:
    """
    >>> _culprits({"parse": 40, "thread:MainThread": 20, "load": 15, "join": 10})
    ['parse', 'thread:MainThread']
    """
    found: list[str] = []
    left_ns = CULPRITS * sum(holders.values())
    for name, held_ns in holders.items():
        if left_ns <= 0:
            break
        found.append(name)
        left_ns -= held_ns
    return found


def processor_starved(analyzed: AnalyzedRun) -> RankedFinding | None:
    """Twice the CPUs; where the nodes do not use those that there are, nobody waits for one."""
    waited_ns = analyzed.total_ns("runqueue")
    if not waited_ns:
        return None
    words, victims = CAUSES_IN_WORDS["processor_starved"], analyzed.by_name("runqueue")
    cpus, used = analyzed.run.cpus, analyzed.cpus_used
    evidence = [words.says("waited", of_nodes=analyzed.of_nodes(waited_ns), most=most_of(victims))]
    if cpus is not None and used is not None:
        evidence.append(words.says("used", share=share(used), cpus=count(cpus, "CPU")))
    if cpus is not None and used is not None and used >= FULL:
        other = analyzed.replayed(cpus=2 * cpus)
        more = words.says("replay", source=analyzed.source, cpus=f"{2 * cpus:,}", instead=analyzed.instead(other))
        advice = and_more_workers(analyzed, words.advises("more", nodes=quoted(list(analyzed.by_name("cpu")))))
    elif waited_ns < STARVED * analyzed.total_ns("cpu"):
        return None
    else:
        other = analyzed.without("runqueue")
        more = words.says("replay_others", source=analyzed.source, instead=analyzed.instead(other))
        advice = words.advises("others")
    return by_gain(analyzed, other, "processor_starved", list(victims), [*evidence, more], advice)


def lock_contention(analyzed: AnalyzedRun, *, matters: float = MATTERS) -> RankedFinding | None:
    """Nobody waits for a lock. Which one, and who meets there, is said where it is known."""
    found = waiting(analyzed, "lock_contention", "lock", matters=matters)
    if found is None or not (locks := sorted(analyzed.plan.locks, key=lambda lock: -lock.waited_ns)):
        return found
    words, nodes = CAUSES_IN_WORDS["lock_contention"], analyzed.plan.nodes
    meet = []
    for lock in locks[:MOST_SHOWN]:
        names = list(dict.fromkeys(nodes[index].name for index in lock.members))
        part = share(lock.share) if lock.is_sure else f"{share(lock.least)} to {share(lock.most)}"
        meet.append(
            words.says(
                "meet" if lock.capacity == 1 else "meet_more",
                nodes=quoted(names),
                lock=f"{lock.name} ({lock.line})" if lock.line else lock.name,
                capacity=f"{lock.capacity:,}",
                share=part,
            )
        )
    advice, lines = found.finding.advice, [lock.line for lock in locks if lock.line]
    if lines:
        capacity = locks[0].capacity
        advice = words.advises("found" if capacity == 1 else "more", lines=quoted(lines), capacity=f"{capacity:,}")
    evidence = (found.finding.evidence[0], *meet, *found.finding.evidence[1:])
    return replace(found, finding=replace(found.finding, evidence=evidence, advice=advice))


def gil_and_lock(analyzed: AnalyzedRun) -> RankedFinding | None:
    """Nobody waits for the GIL or for another lock.

    Where it is a mixture of the two, what either takes off by itself may be little: the nodes then meet at the other.
    The one that is waited for more is the cause; the gain is that of both.
    """
    waited_ns = {state: analyzed.total_ns(state) for state in ("gil", "lock")}
    if min(waited_ns.values()) < MATTERS * analyzed.busy_ns or sum(waited_ns.values()) < CONTRIBUTES * analyzed.busy_ns:
        return None
    locks_ns = {node.key: analyzed.states[node.key].get("lock", 0) for node in analyzed.nodes}
    other = analyzed.replayed(gil=False, locks=False, less_wait_ns=analyzed.unshared(locks_ns))
    each = [found.finding for found in (gil_bound(analyzed, matters=0), lock_contention(analyzed, matters=0)) if found]
    if analyzed.gain_ns(other) < GOVERNS * analyzed.duration_ns or len(each) < 2:
        return None
    first, second = each if waited_ns["gil"] >= waited_ns["lock"] else reversed(each)
    neither = NEITHER_LOCK.format(source=analyzed.source, instead=analyzed.instead(other))
    evidence = (first.evidence[0], second.evidence[0], neither, *first.evidence[1:])
    advice = BOTH_LOCKS.format(first=first.advice, second=second.advice)
    return by_gain(analyzed, other, first.cause, first.nodes, evidence, advice)
