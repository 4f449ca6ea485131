"""A recorded run into the answers that every report shows: as text, as JSON, as a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.diagnosis.detect_sharing import path_behind_others_ns
from traced_threadpool.analysis.diagnosis.diagnose import Finding, diagnose
from traced_threadpool.analysis.diagnosis.path_states import PathState
from traced_threadpool.analysis.replay.virtual_pool import most_at_once
from traced_threadpool.model.formatting import duration, percent
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import INFO, STATES, State
from traced_threadpool.recording.critical_path import DEPENDENCY, OUTSIDE, QUEUE, CriticalPath
from traced_threadpool.report.curve import Curve, curve

BETWEEN: Final[Mapping[PathState, tuple[str, str]]] = {
    "queue": ("queue wait", "ready, and no worker free"),
    "dependency": ("inputs", "waiting for inputs that are not in the record"),
    "outside": ("outside", "outside of nodes: Hamilton and the caller"),
}
"""What the critical path has between its nodes."""

BEHIND_OTHERS: Final = ("behind others", "of the queue wait: other runs had the workers")


def path_name(name: str) -> str:
    """Where the critical path's time is: a node's name, or what a wait is called.

    >>> path_name("load"), path_name("_queue")
    ('load', 'queue wait')
    """
    return {
        QUEUE: "queue wait",
        DEPENDENCY: "inputs that are not in the record",
        OUTSIDE: "outside of nodes",
    }.get(name, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameTotals:
    """All executions of the nodes of one name. `states_ns` has the states that were recorded."""

    name: str
    executions: int
    duration_ns: int
    longest_ns: int
    queue_ns: int
    states_ns: Mapping[State, int]
    critical_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRow:
    """What time went to: of all nodes, and of the critical path. `nodes_ns` is None for what is no node's time."""

    name: str
    meaning: str
    state: State | None
    nodes_ns: int | None
    path_ns: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A run and what is known about it.

    `critical_ns` is the path's time by node name, of waits under `_queue` etc.; `path_states_ns` the same by state.
    """

    run: RecordedRun
    findings: tuple[Finding, ...]
    path: CriticalPath
    critical_ns: Mapping[str, int]
    path_states_ns: Mapping[PathState, float]
    behind_others_ns: int
    """How much of the path is queue waits in which other runs had the workers."""
    nesting_ns: Mapping[str, Mapping[State, int]]
    """By key of a node that executed a run: its states."""
    curve: Curve | None
    remarks: tuple[str, ...] = ()
    """What looks biggest and is no finding, and why."""
    estimated: str | None = None
    """How gains were come by, of a run that is too large for whole replays."""

    @cached_property
    def ran(self) -> tuple[NodeExecution, ...]:
        return tuple(node for node in self.run.nodes if node.ran)

    @cached_property
    def states_ns(self) -> dict[State, int]:
        """Time by state over all nodes, in the order of `STATES`; empty where no node has states.

        A node that executed a run of its own is divided as the path through that run is: it is not counted twice.
        """
        return _summed(self.nesting_ns.get(node.key, node.states) for node in self.run.outermost)

    @property
    def nodes_ns(self) -> int:
        """All nodes' time, of which `states_ns` are shares."""
        return sum(node.duration_ns for node in self.run.outermost)

    @property
    def state_rows(self) -> tuple[StateRow, ...]:
        """The table of states, of which every finding's times and shares are; empty where no node has states."""
        on_path = dict(self.path_states_ns)
        # Nobody knows what it was: nodes may lack states, or waits were not looked at.
        on_path["other"] = on_path.get("other", 0.0) + on_path.pop("unknown", 0.0)
        rows = [
            StateRow(name=state, meaning=INFO[state].meaning, state=state, nodes_ns=nodes_ns, path_ns=path_ns)
            for state in STATES
            if (nodes_ns := self.states_ns.get(state, 0)) + (path_ns := on_path.get(state, 0.0))
        ]
        rows += [
            StateRow(name=name, meaning=meaning, state=None, nodes_ns=None, path_ns=on_path[wait])
            for wait, (name, meaning) in BETWEEN.items()
            if on_path.get(wait)
        ]
        if self.behind_others_ns:
            name, meaning = BEHIND_OTHERS
            rows.append(StateRow(name=name, meaning=meaning, state=None, nodes_ns=None, path_ns=self.behind_others_ns))
        return tuple(rows) if self.states_ns else ()

    def state_cells(self, row: StateRow) -> tuple[str, str, str, str]:
        """Time and share of all nodes, time and share of the critical path."""
        of_nodes, of_path = ("-", "-"), ("-", "-")
        if row.nodes_ns is not None:
            of_nodes = duration(row.nodes_ns), percent(row.nodes_ns, self.nodes_ns)
        if row.path_ns:
            of_path = duration(row.path_ns), percent(row.path_ns, self.run.duration_ns)
        return (*of_nodes, *of_path)

    @cached_property
    def by_name(self) -> tuple[NameTotals, ...]:
        """The longest in sum first."""
        return tuple(self._totals(name) for name in self._names)

    def slowest(self, most: int) -> tuple[NameTotals, ...]:
        """The first of `by_name`, which may be a hundred thousand."""
        return tuple(self._totals(name) for name in self._names[:most])

    @property
    def names(self) -> int:
        """How many different ones there are."""
        return len(self._names)

    @cached_property
    def _executions(self) -> dict[str, list[NodeExecution]]:
        found: dict[str, list[NodeExecution]] = {}
        for node in self.ran:
            found.setdefault(node.name, []).append(node)
        return found

    @cached_property
    def _names(self) -> list[str]:
        """Those whose executions took longest in sum first."""
        took_ns = {name: sum([node.duration_ns for node in nodes]) for name, nodes in self._executions.items()}
        return sorted(took_ns, key=lambda name: (-took_ns[name], name))

    def _totals(self, name: str) -> NameTotals:
        nodes = self._executions[name]
        return NameTotals(
            name=name,
            executions=len(nodes),
            duration_ns=sum(node.duration_ns for node in nodes),
            longest_ns=max(node.duration_ns for node in nodes),
            queue_ns=sum(node.queue_ns for node in nodes),
            states_ns=_summed(node.states for node in nodes),
            critical_ns=self.critical_ns.get(name, 0),
        )

    @cached_property
    def critical_keys(self) -> frozenset[str]:
        return frozenset(step.key for step in self.path.nodes if step.key is not None)

    @cached_property
    def mean_running(self) -> float:
        """How many nodes ran at once on average; those of a run that a node executed are part of that node."""
        return self.nodes_ns / self.run.duration_ns if self.run.duration_ns > 0 else 0.0

    @cached_property
    def peak_running(self) -> int:
        return most_at_once([(node.started_ns, node.ended_ns) for node in self.run.outermost])

    @cached_property
    def peak_queue(self) -> int:
        return most_at_once([(node.ready_ns, node.started_ns) for node in self.ran])

    @property
    def has_nested_runs(self) -> bool:
        return any(node.parent is not None for node in self.run.nodes)


def explain(run: RecordedRun, *, with_curve: bool = True) -> Explanation:
    """Everything about one run. Without the curve of makespan by workers it takes less time."""
    analyzed = AnalyzedRun(run)
    diagnosis = diagnose(run, analyzed=analyzed)
    return Explanation(
        run=run,
        findings=diagnosis.findings,
        path=analyzed.path,
        critical_ns=analyzed.path.ns_by_name,
        path_states_ns=analyzed.on_path,
        behind_others_ns=path_behind_others_ns(analyzed),
        nesting_ns=_nesting(analyzed),
        # How long a run that failed takes without the failure, its record cannot tell.
        curve=curve(analyzed) if with_curve and run.outcome != "error" else None,
        remarks=diagnosis.remarks,
        estimated=diagnosis.estimated,
    )


def _nesting(analyzed: AnalyzedRun) -> dict[str, dict[State, int]]:
    """The states of the nodes that executed runs; those that nobody knows, as `other`."""
    found: dict[str, dict[State, int]] = {}
    for node in analyzed.nodes:
        if node.key in analyzed.run.by_parent:
            parts: dict[State, int] = {}
            for state, ns in analyzed.states[node.key].items():
                known: State = state if state in INFO else "other"  # type: ignore[assignment]  # it is one
                parts[known] = parts.get(known, 0) + round(ns)
            found[node.key] = parts
    return found


def _summed(divisions: Iterable[Mapping[State, int]]) -> dict[State, int]:
    sums: dict[State, int] = {}
    for states in divisions:
        for state, ns in states.items():
            sums[state] = sums.get(state, 0) + ns
    return {state: sums[state] for state in STATES if state in sums}
