"""Two recorded runs into what changed between them, and whether it mattered.

A node that got slower need not have made the run longer. What did is exact: the critical path fills a run from start
to end, so the two makespans differ by the sum, over all names, of what each takes of the later path less what it took
of the earlier one; the waits count under `_queue`, `_dependency` and `_outside`. A node that got slower beside the path
has a share of 0 in that; a node that took over the path from another has its whole duration, and the other the
reverse. This tells what the time went to, not what would have been had one node alone not changed: for that, replay
the later run with the node as fast as it was (`what_if`).

>>> from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
>>> def run(load_ns, parse_ns):
...     times = {"submitted_ns": 0, "ready_ns": 0, "started_ns": 0}
...     load = NodeExecution(key="1", name="load", ended_ns=load_ns, **times)
...     parse = NodeExecution(key="2", name="parse", ended_ns=parse_ns, **times)
...     end = max(load_ns, parse_ns)
...     return RecordedRun(id="r", name="etl", pool="p", started_ns=0, ended_ns=end, nodes=(load, parse))
>>> found = compare(run(60_000_000, 10_000_000), run(90_000_000, 40_000_000))
>>> found.change_ns, dict(found.path_change_ns)
(30000000, {'load': 30000000})
>>> [(node.name, node.kind, node.path_change_ns) for node in found.nodes]
[('load', 'slower', 30000000), ('parse', 'slower', 0)]

`slower` and `faster` are about the mean duration of an execution, from 10 % and 1 ms on. Two runs are two samples: how
much a node varies from run to run, they do not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from traced_threadpool.model.formatting import duration, listed, outline
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import State
from traced_threadpool.recording.critical_path import critical_ns

WORTH_TELLING_SHARE: Final = 0.1
WORTH_TELLING_NS: Final = 1_000_000
MATTERS_SHARE: Final = 0.01
"""Of the longer makespan: what a change on the path has to make up, to matter."""

Kind = Literal["slower", "faster", "same", "new", "gone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """All executions of one name in one run. `path_ns` is what they take of the critical path."""

    count: int = 0
    duration_ns: int = 0
    states: Mapping[State, int] = field(default_factory=dict)
    path_ns: int = 0

    @property
    def mean_ns(self) -> float:
        return self.duration_ns / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDifference:
    """One name in both runs. `inside` is the name of the node that executed it, for nodes of nested runs."""

    name: str
    inside: str | None
    kind: Kind
    before: Total
    after: Total

    @property
    def change_ns(self) -> int:
        """Of the time in all executions."""
        return self.after.duration_ns - self.before.duration_ns

    @property
    def path_change_ns(self) -> int:
        """Its part in the change of the makespan."""
        return self.after.path_ns - self.before.path_ns

    @property
    def state_change_ns(self) -> dict[State, int]:
        before, after = self.before.states, self.after.states
        changes = {state: after.get(state, 0) - before.get(state, 0) for state in {**before, **after}}
        return {state: change for state, change in changes.items() if change}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What changed. `nodes` and `path_change_ns` begin with what changed the makespan most.

    `notes` say in which other ways the two runs are not alike.
    """

    before_ns: int
    after_ns: int
    nodes: tuple[NodeDifference, ...]
    path_change_ns: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lengths = f"{duration(self.before_ns)} to {duration(self.after_ns)}"
        return outline(self, None, lengths, listed([node.name for node in self.mattering]))

    @property
    def change_ns(self) -> int:
        """Of the makespan: the sum of `path_change_ns`."""
        return self.after_ns - self.before_ns

    @property
    def mattering(self) -> tuple[NodeDifference, ...]:
        """The nodes whose part in the change of the makespan matters."""
        least_ns = MATTERS_SHARE * max(self.before_ns, self.after_ns)
        return tuple(node for node in self.nodes if node.path_change_ns and abs(node.path_change_ns) >= least_ns)


def compare(before: RecordedRun, after: RecordedRun) -> Difference:
    """What changed from one run to the other; meant for two runs of one graph."""
    path_before, path_after = critical_ns(before), critical_ns(after)
    totals_before, totals_after = _totals(before, path_before), _totals(after, path_after)
    nodes = [
        _node_difference(name, inside, totals_before.get((name, inside)), totals_after.get((name, inside)))
        for name, inside in {**totals_before, **totals_after}
    ]
    path_change = {name: path_after.get(name, 0) - path_before.get(name, 0) for name in {**path_before, **path_after}}
    return Difference(
        before_ns=before.duration_ns,
        after_ns=after.duration_ns,
        nodes=tuple(sorted(nodes, key=lambda node: (-abs(node.path_change_ns), -abs(node.change_ns)))),
        path_change_ns={
            name: change for name, change in sorted(path_change.items(), key=lambda item: -abs(item[1])) if change
        },
        notes=_notes(before, after),
    )


def _totals(run: RecordedRun, path_ns: Mapping[str, int]) -> dict[tuple[str, str | None], Total]:
    executions: dict[tuple[str, str | None], list[NodeExecution]] = {}
    for node in run.nodes:
        if node.ran:
            inside = None if node.parent is None else run.by_key[node.parent].name
            executions.setdefault((node.name, inside), []).append(node)
    return {
        (name, inside): Total(
            count=len(found),
            duration_ns=sum(node.duration_ns for node in found),
            states=_states(found),
            path_ns=path_ns.get(name, 0) if inside is None else 0,
        )
        for (name, inside), found in executions.items()
    }


def _states(nodes: list[NodeExecution]) -> dict[State, int]:
    states: dict[State, int] = {}
    for node in nodes:
        for state, part_ns in node.states.items():
            states[state] = states.get(state, 0) + part_ns
    return states


def _node_difference(name: str, inside: str | None, before: Total | None, after: Total | None) -> NodeDifference:
    kind: Kind
    if before is None or after is None:
        kind = "new" if before is None else "gone"
    else:
        change_ns = after.mean_ns - before.mean_ns
        if abs(change_ns) < max(WORTH_TELLING_NS, WORTH_TELLING_SHARE * before.mean_ns):
            kind = "same"
        else:
            kind = "slower" if change_ns > 0 else "faster"
    return NodeDifference(name=name, inside=inside, kind=kind, before=before or Total(), after=after or Total())


def _notes(before: RecordedRun, after: RecordedRun) -> tuple[str, ...]:
    pairs = (
        ("The runs' names differ", before.name, after.name),
        ("The limits of workers differ", before.max_workers, after.max_workers),
        ("The numbers of CPUs differ", before.cpus, after.cpus),
        ("The outcomes differ", before.outcome, after.outcome),
        ("How states were found out differs", before.attribution, after.attribution),
    )
    notes = [f"{what}: {earlier!r} and {later!r}." for what, earlier, later in pairs if earlier != later]
    named = ("earlier", before), ("later", after)
    notes += [f"In the {which} run: {problem}" for which, run in named for problem in run.problems]
    return tuple(notes)
