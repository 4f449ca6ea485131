"""Is it the shape of the run: one straggler, a chain of nodes, time outside of all nodes?"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Final

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS, WITHOUT_CONTENTION, quoted
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun, faster_by, most_first
from traced_threadpool.analysis.diagnosis.causes import Finding, RankedFinding
from traced_threadpool.analysis.diagnosis.path_states import BETWEEN_NODES
from traced_threadpool.analysis.diagnosis.ranking import GOVERNS, MATTERS, and_more_workers, by_gain, most_of
from traced_threadpool.model.formatting import count, duration, shortened
from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.siblings import stem

STRAGGLES: Final = 2.0
"""A straggler takes this many times the median of its siblings."""

FAMILY: Final = 4
"""Fewer nodes have no median that one of them could be far from."""

OUTSIDE: Final = 0.5
"""If this part of the run passes outside of nodes, that is what it went to."""


def straggler(analyzed: AnalyzedRun) -> RankedFinding | None:
    """The longest of a family takes as long as the median of the others."""
    on_path = {step.key for step in analyzed.path.nodes}
    # Few nodes are so long that the run would be noticeably shorter.
    long = {node.key for node in analyzed.nodes if analyzed.own_ns(node) >= MATTERS * analyzed.duration_ns} & on_path
    found = []
    for family in families(analyzed.nodes) if long else ():
        longest = max(family, key=lambda node: (analyzed.own_ns(node), node.name, node.key))
        if longest.key in long:
            own_ns = analyzed.own_ns(longest)
            median_ns = median(analyzed.own_ns(node) for node in family if node is not longest)
            if own_ns >= STRAGGLES * median_ns:
                found.append(_straggler(analyzed, longest, own_ns, median_ns, len(family) - 1))
    return max((each for each in found if each), key=lambda each: (each.weight, each.finding.nodes), default=None)


def _straggler(
    analyzed: AnalyzedRun, longest: NodeExecution, own_ns: float, median_ns: float, siblings: int
) -> RankedFinding | None:
    other = analyzed.replayed(faster_executions={longest.key: faster_by(own_ns, median_ns)})
    words, name = CAUSES_IN_WORDS["straggler"], shortened(longest.name)
    step_ns = sum(step.duration_ns for step in analyzed.path.nodes if step.key == longest.key)
    state, state_ns = max(analyzed.states[longest.key].items(), key=lambda item: item[1])
    evidence = (
        words.says(
            "times" if median_ns else "takes",
            node=name,
            own=duration(own_ns),
            without="" if duration(own_ns) == duration(longest.duration_ns) else WITHOUT_CONTENTION,
            siblings=f"{siblings:,}",
            median=duration(median_ns),
            times=f"{own_ns / median_ns:.1f}" if median_ns else "",
        ),
        words.says("state", state=state, duration=duration(state_ns)),
        words.says("on_path", of_run=analyzed.of_run(step_ns)),
        words.says("replay", source=analyzed.source, instead=analyzed.instead(other)),
    )
    advice = words.advises("", node=quoted([longest.name]))
    return by_gain(analyzed, other, "straggler", [longest.name], evidence, advice)


def families(nodes: Iterable[NodeExecution]) -> list[list[NodeExecution]]:
    """Nodes that do the same for different things: of one name, or but for its last word or number; or nodes with the
    same upstream and the same downstream nodes.
    """
    nodes = list(nodes)
    downstream: dict[str, list[str]] = {}
    for node in nodes:
        for key in node.upstream:
            downstream.setdefault(key, []).append(node.key)
    groups: dict[object, list[NodeExecution]] = {}
    for node in nodes:
        groups.setdefault(stem(node.name), []).append(node)
        if node.upstream and node.key in downstream:
            between = frozenset(node.upstream), frozenset(downstream[node.key])
            groups.setdefault(between, []).append(node)
    return [group for group in groups.values() if len(group) >= FAMILY]


def critical_chain(analyzed: AnalyzedRun) -> RankedFinding | None:
    """The nodes of the critical path are twice as fast."""
    ns_by_name: dict[str, float] = {}
    steps = [step for step in analyzed.path.nodes if step.duration_ns > 0]
    for step in sorted(steps, key=lambda step: (-step.duration_ns, step.name)):
        ns_by_name[step.name] = ns_by_name.get(step.name, 0) + step.duration_ns
    if not steps:
        return None
    other = analyzed.replayed(faster=dict.fromkeys(ns_by_name, 2.0))
    words, by_name = CAUSES_IN_WORDS["critical_path"], most_first(ns_by_name)
    states = most_first({state: ns for state, ns in analyzed.on_path.items() if state not in BETWEEN_NODES})
    evidence = (
        words.says(
            "chain",
            nodes=count(len(steps), "node"),
            of_run=analyzed.of_run(sum(ns_by_name.values())),
            most=most_of(by_name),
        ),
        words.says("states", most=most_of(states)),
        words.says("at_once", at_once=f"{analyzed.at_once:.1f}"),
        words.says("replay", source=analyzed.source, instead=analyzed.instead(other)),
    )
    names = list(by_name)
    advice = and_more_workers(analyzed, words.advises("", nodes=quoted(names)))
    return by_gain(analyzed, other, "critical_path", names, evidence, advice, matters=GOVERNS)


def outside_nodes(analyzed: AnalyzedRun) -> RankedFinding | None:
    """During most of the run no node runs at all, and none waits to."""
    outside_ns = min(analyzed.on_path.get("outside", 0), analyzed.idle_ns)
    if outside_ns < OUTSIDE * analyzed.duration_ns:
        return None
    words = CAUSES_IN_WORDS["outside_nodes"]
    evidence = (
        words.says("outside", of_run=analyzed.of_run(outside_ns)),
        words.says("inside", of_run=analyzed.of_run(analyzed.duration_ns - outside_ns)),
    )
    finding = Finding(cause="outside_nodes", nodes=(), evidence=evidence, advice=words.advises(""), gain_seconds=None)
    return RankedFinding(finding=finding, weight=outside_ns / analyzed.duration_ns)
