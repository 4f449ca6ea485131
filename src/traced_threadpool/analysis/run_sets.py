"""Two sets of runs into what changed between them: durations, what the critical paths went to, each node.

A run's critical path fills it, so the mean durations of two sets differ by the sum, over all names, of what each takes
of the later paths on average less what it took of the earlier ones. Whether the sets differ at all, the ranks of their
durations tell (the test of Mann and Whitney): `clear` is True where chance would give as much once in 400 times.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> def run(ms):
...     load = NodeExecution(key="1", name="load", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=ms * 1_000_000)
...     return RecordedRun(id=str(ms), name="etl", pool="p", started_ns=0, ended_ns=ms * 1_000_000, nodes=(load,))
>>> found = compare_sets([run(ms) for ms in range(10, 20)], [run(ms) for ms in range(30, 40)])
>>> found.change_ns, dict(found.path_change_ns), found.clear
(20000000.0, {'load': 20000000.0}, True)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from traced_threadpool.analysis.diagnosis.path_states import PathState, path_states
from traced_threadpool.model.formatting import count, duration, outline
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.recording.critical_path import critical_path

CLEAR_DEVIATIONS: Final = 3.0
FEWEST: Final = 4
"""Of fewer runs in either set nothing is clear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is asked of each of many runs. `path_ns` and `states_ns` fill it; `number` is its own in the file."""

    run: RecordedRun
    number: int
    path_ns: Mapping[str, int]
    states_ns: Mapping[PathState, float]
    executions: Mapping[str, Sequence[NodeExecution]]
    """Those that ran, by name."""

    @property
    def duration_ns(self) -> int:
        return self.run.duration_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDurations:
    """All executions of one name in a set. `path_ns` is what a run's path has of it, on average over all runs."""

    runs: int = 0
    executions: int = 0
    p50_ns: int = 0
    p95_ns: int = 0
    path_runs: int = 0
    path_ns: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long the runs of a set take."""

    runs: int
    mean_ns: float
    p50_ns: int
    p95_ns: int

    def __repr__(self) -> str:
        median = f"median {duration(self.p50_ns)}"
        return outline(self, None, count(self.runs, "run"), median, f"95th percentile {duration(self.p95_ns)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """One name in both sets."""

    name: str
    before: NodeDurations
    after: NodeDurations

    @property
    def path_change_ns(self) -> float:
        """Its part in the change of the mean duration."""
        return self.after.path_ns - self.before.path_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDifference:
    """`path_ns` is what a run's path has of each name on average, before and after; it fills both mean durations.

    It and `nodes` begin with what changed the mean duration most.
    """

    before: Durations
    after: Durations
    clear: bool
    path_ns: Mapping[str, tuple[float, float]]
    nodes: tuple[NodeChange, ...]

    def __repr__(self) -> str:
        medians = f"median {duration(self.before.p50_ns)} to {duration(self.after.p50_ns)}"
        return outline(self, None, medians, "more than chance" if self.clear else "within chance")

    @property
    def path_change_ns(self) -> dict[str, float]:
        """What changed of it; the sum is `change_ns`."""
        return {name: after - before for name, (before, after) in self.path_ns.items() if after != before}

    @property
    def change_ns(self) -> float:
        """Of the mean duration."""
        return self.after.mean_ns - self.before.mean_ns


def facts_of(run: RecordedRun, number: int = 0) -> RunFacts:
    """What is asked of one of many runs."""
    path = critical_path(run)
    executions: dict[str, list[NodeExecution]] = {}
    for node in run.nodes:
        if node.ran:
            executions.setdefault(node.name, []).append(node)
    return RunFacts(
        run=run, number=number, path_ns=path.ns_by_name, states_ns=path_states(run, path), executions=executions
    )


def compare_sets(before: Iterable[RecordedRun | RunFacts], after: Iterable[RecordedRun | RunFacts]) -> SetDifference:
    """What changed from one set of runs to the other.

    Raises:
        ValueError: A set is empty.
    """
    earlier, later = _known(before), _known(after)
    if not earlier or not later:
        raise ValueError("a set of runs is empty; give at least one run on either side")
    path_before, path_after = mean_path_ns(earlier), mean_path_ns(later)
    path_ns = {name: (path_before.get(name, 0.0), path_after.get(name, 0.0)) for name in {**path_before, **path_after}}
    nodes_before, nodes_after = by_node(earlier), by_node(later)
    nodes = [
        NodeChange(
            name=name, before=nodes_before.get(name, NodeDurations()), after=nodes_after.get(name, NodeDurations())
        )
        for name in {**nodes_before, **nodes_after}
    ]
    return SetDifference(
        before=durations_of(earlier),
        after=durations_of(later),
        clear=_clear([facts.duration_ns for facts in earlier], [facts.duration_ns for facts in later]),
        path_ns=dict(sorted(path_ns.items(), key=lambda item: (-abs(item[1][1] - item[1][0]), item[0]))),
        nodes=tuple(
            sorted(
                nodes,
                key=lambda node: (-abs(node.path_change_ns), -abs(node.after.p50_ns - node.before.p50_ns), node.name),
            )
        ),
    )


def durations_of(runs: Sequence[RunFacts]) -> Durations:
    """Of at least one run."""
    lengths = [facts.duration_ns for facts in runs]
    return Durations(
        runs=len(lengths),
        mean_ns=sum(lengths) / len(lengths),
        p50_ns=quantile(lengths, 0.5),
        p95_ns=quantile(lengths, 0.95),
    )


def mean_path_ns(runs: Sequence[RunFacts]) -> dict[str, float]:
    """What a run's critical path went to, on average; it adds up to the mean duration."""
    sums: Counter[str] = Counter()
    for facts in runs:
        sums.update(facts.path_ns)
    return {name: total_ns / len(runs) for name, total_ns in sums.items()}


def by_node(runs: Sequence[RunFacts]) -> dict[str, NodeDurations]:
    """Every name that ran, those that take most of the critical paths first."""
    executions: dict[str, list[NodeExecution]] = {}
    in_runs: Counter[str] = Counter()
    on_path: Counter[str] = Counter()
    for facts in runs:
        for name, nodes in facts.executions.items():
            executions.setdefault(name, []).extend(nodes)
        in_runs.update(facts.executions.keys())
        on_path.update(name for name, path_ns in facts.path_ns.items() if path_ns)
    path_ns = mean_path_ns(runs)
    found = {
        name: NodeDurations(
            runs=in_runs[name],
            executions=len(nodes),
            p50_ns=quantile(lengths := [node.duration_ns for node in nodes], 0.5),
            p95_ns=quantile(lengths, 0.95),
            path_runs=on_path[name],
            path_ns=path_ns.get(name, 0.0),
        )
        for name, nodes in executions.items()
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1].path_ns, -item[1].p50_ns, item[0])))


def quantile(values: Iterable[int], part: float) -> int:
    """The least value that so large a part of all does not exceed; 0 of none.

    >>> quantile([4, 1, 3, 2], 0.5), quantile(range(1, 101), 0.95), quantile([], 0.5)
    (2, 95, 0)
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else 0


def _known(runs: Iterable[RecordedRun | RunFacts]) -> list[RunFacts]:
    return [run if isinstance(run, RunFacts) else facts_of(run) for run in runs]


def _clear(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether the ranks of two samples differ by more than chance would give, ties counted half.

    >>> _clear([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]), _clear(range(20), range(30, 50)), _clear([1], [100])
    (False, True, False)
    """
    many, others = len(before), len(after)
    if min(many, others) < FEWEST:
        return False
    ranks = _ranks([*before, *after])
    above = sum(ranks[many:]) - others * (others + 1) / 2
    deviation = math.sqrt(many * others * (many + others + 1) / 12)
    return abs(above - many * others / 2) >= CLEAR_DEVIATIONS * deviation


def _ranks(values: Sequence[int]) -> list[float]:
    """
    >>> _ranks([30, 10, 20, 20])
    [4.0, 1.0, 2.5, 2.5]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in order[first : last + 1]:
            ranks[place] = (first + last) / 2 + 1
        first = last + 1
    return ranks
