"""A critical path into what its time went to: the states of its nodes, and the waits between them.

A step of a node is divided as the node's whole duration is. A node that executed a run of its own is divided by the
path through that run. `unknown` is time of nodes of which nobody recorded what they did: no states at all, or `other`
where waits were not looked at.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> node = NodeExecution(
...     key="1", name="load", submitted_ns=0, ready_ns=0, started_ns=20, ended_ns=100, states={"cpu": 20, "network": 60}
... )
>>> path_states(RecordedRun(id="r", name="etl", pool="p", started_ns=0, ended_ns=100, nodes=(node,)))
{'queue': 20, 'cpu': 20.0, 'network': 60.0}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast

from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import State
from traced_threadpool.recording.critical_path import CriticalPath, critical_path

PathState = State | Literal["queue", "dependency", "outside", "unknown"]

BETWEEN_NODES: Final[frozenset[PathState]] = frozenset({"queue", "dependency", "outside"})
"""What is no node's time."""


def path_states(run: RecordedRun, path: CriticalPath | None = None) -> dict[PathState, float]:
    """Nanoseconds by what they went to; they add up to the run's duration."""
    outer = run.by_parent
    sums: dict[PathState, float] = {}
    for step in (path or critical_path(run)).steps:
        if step.kind == "node" and step.key is not None:
            node = run.by_key[step.key]
            parts = states_of(run, node, nests=node.key in outer)
            whole_ns = sum(parts.values())
            for state, part_ns in parts.items() if whole_ns else ():
                sums[state] = sums.get(state, 0) + part_ns * step.duration_ns / whole_ns
        elif step.kind != "node":
            sums[step.kind] = sums.get(step.kind, 0) + step.duration_ns
    return {state: part_ns for state, part_ns in sums.items() if part_ns}


def states_of(run: RecordedRun, node: NodeExecution, *, nests: bool = False) -> Mapping[PathState, float]:
    """What a node's duration went to."""
    if nests:
        inside = path_states(run, critical_path(run, inside=node.key))
        own_ns = inside.pop("outside", 0.0)
        if inside:
            # In whole nanoseconds, so that sums are told alike wherever they are told.
            parts_ns = {**inside, "other": inside.get("other", 0.0) + own_ns}
            return {state: round(part_ns) for state, part_ns in parts_ns.items()}
    if node.states and "other" not in node.states and sum(node.states.values()) == node.duration_ns:
        return cast("Mapping[PathState, float]", node.states)  # as most are
    parts: dict[PathState, float] = {state: part_ns for state, part_ns in node.states.items() if part_ns > 0}
    left_ns = node.duration_ns - sum(parts.values())
    if left_ns > 0:
        parts["unknown"] = left_ns
    if "other" in parts and not node.samples and (run.attribution == "none" or run.attribution_reason is not None):
        parts["unknown"] = parts.get("unknown", 0.0) + parts.pop("other")
    return parts
