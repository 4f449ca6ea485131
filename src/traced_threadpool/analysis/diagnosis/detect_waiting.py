"""What would the run take if nodes waited less for what is no node: sleep, the network, the disk, a lock?"""

from __future__ import annotations

from typing import Final

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS, quoted
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.diagnosis.causes import Cause, RankedFinding
from traced_threadpool.analysis.diagnosis.ranking import MATTERS, and_more_workers, by_gain, most_of
from traced_threadpool.model.states import State

DOMINATES: Final = 2 / 3
"""Waiting for network or disk, which nodes may be there for, is a finding from this part of the path's own time on."""


def sleeping_node(analyzed: AnalyzedRun) -> RankedFinding | None:
    """Nobody sleeps."""
    return waiting(analyzed, "sleeping_node", "sleep")


def slow_network(analyzed: AnalyzedRun, *, least: float) -> RankedFinding | None:
    """The waiting for the network is halved, if it is this part of the own time of the path's nodes."""
    if analyzed.on_path.get("network", 0) < least * analyzed.own_on_path_ns:
        return None
    return waiting(analyzed, "slow_network", "network", part=0.5)


def slow_disk(analyzed: AnalyzedRun, *, least: float) -> RankedFinding | None:
    """The waiting for the disk is halved, if it is this part of the own time of the path's nodes."""
    if analyzed.on_path.get("disk", 0) < least * analyzed.own_on_path_ns:
        return None
    return waiting(analyzed, "slow_disk", "disk", part=0.5)


def waiting(
    analyzed: AnalyzedRun, cause: Cause, state: State, *, part: float = 1.0, matters: float = MATTERS
) -> RankedFinding | None:
    """This part of all waits of one kind is taken off."""
    if not analyzed.total_ns(state):
        return None
    other = analyzed.without(state, part)
    if analyzed.gain_ns(other) < matters * analyzed.duration_ns:
        return None
    words, by_name = CAUSES_IN_WORDS[cause], analyzed.by_name(state)
    evidence = [words.says("waited", of_nodes=analyzed.of_nodes(analyzed.total_ns(state)), most=most_of(by_name))]
    if analyzed.on_path.get(state):
        evidence.append(words.says("on_path", of_run=analyzed.of_run(analyzed.on_path[state])))
    evidence.append(words.says("replay", source=analyzed.source, instead=analyzed.instead(other)))
    names = list(by_name)
    advice = words.advises("", nodes=quoted(names))
    if state in ("network", "disk"):
        advice = and_more_workers(analyzed, advice)
    return by_gain(analyzed, other, cause, names, evidence, advice, matters=matters)
