"""Many runs of one graph into answers: the typical run, each node, what slow runs have in common, the trend.

Slow is what takes more than 1.5 times the median of the runs that succeeded; where hardly any does, the slowest tenth.
What the slow runs have in common is asked of facts that a run either has or has not: a node was on its critical path, a
node took twice its median, a state took twice as much of the path as usual, other runs were in the pool at the same
time. Those are told that half of the slow runs have and at most a third as many of the others do, so few that chance
would give as much less than once in 100 times (Fisher's exact test).

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> def run(number, ms):
...     node = NodeExecution(key="1", name="load", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=ms * 1_000_000)
...     return RecordedRun(id=str(number), name="etl", pool="p", started_ns=0, ended_ns=ms * 1_000_000, nodes=(node,))
>>> found = summarize([run(number, 400 if number % 20 == 0 else 100) for number in range(100)])
>>> found.durations.p50_ns, len(found.slow.runs), found.typical.duration_ns
(100000000, 5, 100000000)
>>> [(trait.kind, trait.name, trait.slow, trait.others) for trait in found.slow.traits]
[('long_node', 'load', 5, 0)]
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from traced_threadpool.analysis.diagnosis.path_states import PathState
from traced_threadpool.analysis.run_sets import (
    FEWEST,
    Durations,
    NodeDurations,
    RunFacts,
    SetDifference,
    by_node,
    compare_sets,
    durations_of,
    facts_of,
    quantile,
)
from traced_threadpool.model.formatting import count, duration, outline
from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.model.recorded_run import RecordedRun

SLOW: Final = 1.5
LONGER: Final = 1.1
"""What takes less than so many times the median is not slow, even if it is among the slowest tenth."""

TWICE: Final = 2.0
LONG_NS: Final = 1_000_000
"""A node that takes less than this is not called long."""

CHANCE: Final = 0.01
RARER: Final = 3
"""A trait is rarer by so many times among the others."""

MOST_TRAITS: Final = 8
MOST_BLOCKS: Final = 8
RUNS_IN_BLOCK: Final = 5
DRIFTS: Final = 0.02
"""A trend is told if the median changes by this part at least."""

_OF_RUN: Final = 0.1
"""A state that takes less of a run than this is not called large, and a node not to be on its path."""

_NOT_TOLD: Final = frozenset({"other", "unknown"})

TraitKind = Literal["long_node", "on_path", "state", "more_executions", "failed_node", "beside", "workers", "cpus"]
_Key = tuple[TraitKind, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """What a run may have, and how many of the slow runs and of the others do. `name`: of which node, state, number."""

    kind: TraitKind
    name: str
    slow: int
    others: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRuns:
    """The runs that take more than `over_ns`, longest first, and what the others have not.

    `change` compares the others with them; None where there are no others or no slow ones.
    """

    over_ns: float
    runs: tuple[RunFacts, ...]
    others: int
    traits: tuple[Trait, ...]
    change: SetDifference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Runs that followed each other: numbers from `first` to `last` in the order of their start."""

    first: int
    last: int
    durations: Durations
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyRuns:
    """What many runs have to say, in the order of their start.

    `durations` and `nodes` are of those that succeeded, or of all where none did.
    `typical` is the run that succeeded whose duration is nearest the median; None where none did. `trend` compares the
    first third with the last, of those that succeeded; None where that is too few.
    """

    name: str
    runs: tuple[RunFacts, ...]
    durations: Durations
    outcomes: Mapping[str, int]
    typical: RunFacts | None
    nodes: Mapping[str, NodeDurations]
    slow: SlowRuns
    failures: Mapping[tuple[str, str], int]
    """By node and type of exception, how often; the most first."""
    blocks: tuple[Block, ...]
    trend: SetDifference | None

    def __repr__(self) -> str:
        ended = [f"{number:,} {outcome}" for outcome, number in self.outcomes.items()]
        median = f"median {duration(self.durations.p50_ns)}"
        return outline(self, self.name, count(len(self.runs), "run"), median, *ended)

    @property
    def drifts(self) -> bool:
        """Whether the last third of the runs is clearly longer or shorter than the first."""
        trend = self.trend
        return (
            trend is not None
            and trend.clear
            and abs(trend.after.p50_ns - trend.before.p50_ns) >= DRIFTS * trend.before.p50_ns
        )


@explains_keywords("summarize")
def summarize(runs: Sequence[RecordedRun], *, name: str | None = None) -> ManyRuns:
    """What the runs of one name have to say: of `name`, or of the name that most of them have.

    Raises:
        ValueError: There is no such run.
    """
    counts = Counter(run.name for run in runs)
    if name is None and counts:
        name = max(counts, key=lambda each: counts[each])
    if name is None or name not in counts:
        raise ValueError(f"there is no run {name!r}; there are {', '.join(map(repr, counts)) or 'none'}")
    chosen = [(number, run) for number, run in enumerate(runs, 1) if run.name == name]
    chosen.sort(key=lambda each: each[1].started_ns)
    facts = tuple(facts_of(run, number) for number, run in chosen)
    good = [each for each in facts if each.run.outcome == "success"]
    durations = durations_of(good or facts)
    thirds = len(good) // 3
    return ManyRuns(
        name=name,
        runs=facts,
        durations=durations,
        outcomes=Counter(each.run.outcome for each in facts),
        typical=min(good, key=lambda each: abs(each.duration_ns - durations.p50_ns), default=None),
        nodes=by_node(good or facts),
        slow=_slow(good, durations, runs),
        failures=_failures(facts),
        blocks=tuple(_blocks(facts)),
        trend=compare_sets(good[:thirds], good[-thirds:]) if thirds >= RUNS_IN_BLOCK else None,
    )


def succeeded(runs: Sequence[RecordedRun], name: str) -> list[RecordedRun]:
    """Of one name: what lengths are compared of."""
    return [run for run in runs if run.name == name and run.outcome == "success"]


def _slow(good: Sequence[RunFacts], durations: Durations, everything: Sequence[RecordedRun]) -> SlowRuns:
    over_ns = SLOW * durations.p50_ns
    lengths = [each.duration_ns for each in good]
    if sum(length > over_ns for length in lengths) < FEWEST:
        over_ns = min(over_ns, max(float(quantile(lengths, 0.9)), LONGER * durations.p50_ns))
    slow = sorted((each for each in good if each.duration_ns > over_ns), key=lambda each: -each.duration_ns)
    others = [each for each in good if each.duration_ns <= over_ns]
    return SlowRuns(
        over_ns=over_ns,
        runs=tuple(slow),
        others=len(others),
        traits=tuple(_in_common(slow, others, everything)) if slow and others else (),
        change=compare_sets(others, slow) if slow and others else None,
    )


def _in_common(slow: Sequence[RunFacts], others: Sequence[RunFacts], everything: Sequence[RecordedRun]) -> list[Trait]:
    """What more than half of the slow runs have and, compared with them, few of the others: the most telling first."""
    usual = _Usual(others, everything)
    having = [Counter(key for facts in some for key in set(usual.traits(facts))) for some in (slow, others)]
    found = [
        Trait(kind=kind, name=name, slow=many, others=having[1][kind, name])
        for (kind, name), many in having[0].items()
        if many * 2 >= len(slow)
        and having[1][kind, name] * RARER * len(slow) <= many * len(others)
        and _chance(many, len(slow), having[1][kind, name], len(others)) <= CHANCE
    ]
    found.sort(key=lambda each: (each.others / len(others) - each.slow / len(slow), each.kind, each.name))
    return found[:MOST_TRAITS]


def _chance(slow_with: int, slow: int, others_with: int, others: int) -> float:
    """How often chance would put so many of those that have a trait among the slow runs.

    >>> _chance(3, 3, 0, 9) == 1 / 220, _chance(5, 10, 5, 10) > 0.5
    (True, True)
    """
    having, everything = slow_with + others_with, slow + others
    ways = sum(
        math.comb(having, with_it) * math.comb(everything - having, slow - with_it)
        for with_it in range(slow_with, min(slow, having) + 1)
    )
    return ways / math.comb(everything, slow)


class _Usual:
    """What is usual, among runs that are not slow; and what of a run is not."""

    def __init__(self, others: Sequence[RunFacts], everything: Sequence[RecordedRun]) -> None:
        self._node_ns = {name: found.p50_ns for name, found in by_node(others).items()}
        self._executions = _medians([{n: len(found) for n, found in facts.executions.items()} for facts in others])
        self._states = _medians([{state: round(ns) for state, ns in facts.states_ns.items()} for facts in others])
        self._beside = _overlaps(everything)
        self._usually_beside = quantile([self._beside[id(facts.run)] for facts in others], 0.5)

    def traits(self, facts: RunFacts) -> Iterator[_Key]:
        """Each once or more."""
        run = facts.run
        for name, executions in facts.executions.items():
            longest_ns = max(node.duration_ns for node in executions)
            if name in self._node_ns and longest_ns > max(LONG_NS, TWICE * self._node_ns[name]):
                yield "long_node", name
            if name in self._executions and len(executions) > TWICE * self._executions[name]:
                yield "more_executions", name
            if any(node.outcome == "error" for node in executions):
                yield "failed_node", name
        for name, path_ns in facts.path_ns.items():
            if path_ns >= _OF_RUN * run.duration_ns and not name.startswith("_"):
                yield "on_path", name
        for state, state_ns in facts.states_ns.items():
            if state not in _NOT_TOLD and state_ns > max(TWICE * self._states.get(state, 0), _OF_RUN * run.duration_ns):
                yield "state", state
        if self._beside[id(facts.run)] > TWICE * self._usually_beside:
            yield "beside", str(int(TWICE * self._usually_beside))
        if run.max_workers is not None:
            yield "workers", str(run.max_workers)
        if run.cpus is not None:
            yield "cpus", str(run.cpus)


def _medians(counts: Sequence[Mapping[PathState, int] | Mapping[str, int]]) -> dict[str, int]:
    """By name; what a run lacks is 0."""
    found: dict[str, list[int]] = {}
    for each in counts:
        for name, number in each.items():
            found.setdefault(name, []).append(number)
    return {name: quantile([*numbers, *[0] * (len(counts) - len(numbers))], 0.5) for name, numbers in found.items()}


def _overlaps(runs: Sequence[RecordedRun]) -> dict[int, int]:
    """By identity, how many other runs of the same pool were in progress at some moment of a run, of any name."""
    starts: dict[str, list[int]] = {}
    ends: dict[str, list[int]] = {}
    for run in runs:
        starts.setdefault(run.pool, []).append(run.started_ns)
        ends.setdefault(run.pool, []).append(run.ended_ns)
    for times in (*starts.values(), *ends.values()):
        times.sort()
    return {
        id(run): bisect_left(starts[run.pool], run.ended_ns) - bisect_right(ends[run.pool], run.started_ns) - 1
        for run in runs
    }


def _failures(runs: Sequence[RunFacts]) -> dict[tuple[str, str], int]:
    counts: Counter[tuple[str, str]] = Counter()
    for run in (facts.run for facts in runs):
        raised = {(node.name, node.error_type or "an exception") for node in run.nodes if node.outcome == "error"}
        if not raised and run.outcome == "error":
            raised = {("", run.error_type or "an error")}
        counts.update(raised)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _blocks(runs: Sequence[RunFacts]) -> Iterator[Block]:
    """The runs in the order of their start, in parts of equal size."""
    parts = max(1, min(MOST_BLOCKS, len(runs) // RUNS_IN_BLOCK))
    for part in range(parts):
        first, last = len(runs) * part // parts, len(runs) * (part + 1) // parts
        block = runs[first:last]
        yield Block(
            first=first + 1,
            last=last,
            durations=durations_of(block),
            failed=sum(facts.run.outcome == "error" for facts in block),
        )
