"""Many runs, or two sets of them, into sentences and tables that every report shows: as text, as a page.

A table's cells are texts; of those columns that are numbers, the place in the row tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from traced_threadpool.analysis.many_runs import ManyRuns, Trait, summarize
from traced_threadpool.analysis.replay.pool_what_if import COLUMNS, PoolScaling, pools_of, scale_pool
from traced_threadpool.analysis.run_sets import RunFacts, SetDifference, facts_of
from traced_threadpool.model.formatting import change, count, duration, listed, percent, shortened, signed
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.states import INFO
from traced_threadpool.recording.critical_path import QUEUE
from traced_threadpool.report.explanation import Explanation, explain, path_name
from traced_threadpool.report.prediction import workers_by_default

NAMES: Final = 15
POOL_NODES: Final = 5_000
"""How many nodes are replayed for the load of a pool: what-if --all replays more."""
SLOWEST: Final = 5
FAILURES: Final = 5
LITTLE: Final = 0.001
"""What a change of the mean is told one by one from, as a part of it."""

TRAITS: Final = {
    "long_node": "{name} took more than twice its median",
    "on_path": "{name} took 10 % of the run or more on the critical path",
    "state": "{name} took twice as much of the critical path as usual, or more",
    "more_executions": "{name} was executed more than twice as often as usual",
    "failed_node": "{name} raised",
    "beside": "more than {name} other runs were in the pool",
    "workers": "the pool had {name} workers",
    "cpus": "the process could use {name} CPUs",
}
"""What a run may have, in words."""

BETWEEN: Final = {
    "queue": "waiting for a worker",
    "dependency": "waiting for inputs that are not in the record",
    "outside": "time outside of nodes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table in words. `texts` are the columns that are no numbers; `note` stands below."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyExplanation:
    """Many runs and what is known about them; the typical one explained as a run is."""

    many: ManyRuns
    typical: Explanation | None
    other_names: tuple[str, ...]
    pool: PoolScaling | None = None
    """The runs' pool with other numbers of workers, and with all its runs of the file."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What comes first: lengths, failures, slow runs, trend."""
        return tuple(_sentences(self.many, self.other_names))

    def tables(self, names: int = NAMES) -> tuple[TextTable, ...]:
        """Those that have rows; of nodes, so many."""
        many = self.many
        found = (
            _traits(many),
            _difference(
                "What the slow runs take more, by node on the critical path", many.slow.change, ("others", "slow")
            ),
            _nodes(many, names),
            None if self.pool is None else pool_table(self.pool),
            _failures(many),
            _blocks(many),
            _trend(many),
            _slowest(many),
        )
        return tuple(table for table in found if table is not None and table.rows)


def explain_many(runs: Sequence[RecordedRun], name: str | None = None) -> ManyExplanation:
    """Everything about the runs of one name.

    Raises:
        ValueError: There is no such run.
    """
    many = summarize(runs, name=name)
    return ManyExplanation(
        many=many,
        typical=None if many.typical is None else explain(many.typical.run),
        other_names=tuple(dict.fromkeys(run.name for run in runs if run.name != many.name)),
        pool=_pool(runs, many.name),
    )


def _pool(runs: Sequence[RecordedRun], name: str) -> PoolScaling | None:
    """That in which most of the runs of this name were; None where nothing of it can be replayed."""
    of_pool = max(pools_of(runs), key=lambda pool: sum(run.name == name for run in pool))
    try:
        return scale_pool(of_pool, _counts(of_pool), most_nodes=POOL_NODES)
    except ValueError:
        return None


def _counts(runs: Sequence[RecordedRun]) -> tuple[int, ...]:
    return workers_by_default(max((run.max_workers or 1 for run in runs), default=1))


def scale_pools(runs: Sequence[RecordedRun], workers: Sequence[int]) -> tuple[PoolScaling, ...]:
    """Each pool of a file, that with the most runs first. No workers: some fewer and some more than recorded.

    Raises:
        ValueError: No pool has a run that can be replayed; what is said is of the first.
    """
    found, errors = [], []
    for of_pool in pools_of(runs):
        try:
            found.append(scale_pool(of_pool, workers or _counts(of_pool)))
        except ValueError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return tuple(found)


def pool_table(found: PoolScaling) -> TextTable:
    """The latency of a pool's runs, and how many are done in a second, by number of workers."""
    return TextTable(
        heading=f"Pool {shortened(found.pool)}, all its {count(found.runs, 'run')} in {duration(found.window_ns)}: "
        "their length by number of workers",
        columns=COLUMNS,
        rows=tuple(found.rows),
        texts=(),
        note=" ".join((found.reason, *(f"Taken for granted: {said}." for said in found.assumptions))),
    )


def _sentences(many: ManyRuns, other_names: Sequence[str]) -> Iterator[str]:
    lengths, runs = many.durations, many.runs
    longest = max(runs, key=lambda facts: facts.duration_ns)
    span_ns = runs[-1].run.started_ns - runs[0].run.started_ns
    within = f" in {duration(span_ns)}" if span_ns > 0 else ""
    yield (
        f"{count(len(runs), 'run')} of {shortened(many.name)}{within}: median {duration(lengths.p50_ns)}, 95 % within "
        f"{duration(lengths.p95_ns)}, the longest {duration(longest.duration_ns)} (run {longest.number:,})."
    )
    if other_names:
        yield f"Left out are runs of {listed(other_names)}; --name chooses one of these."
    failed = many.outcomes.get("error", 0)
    of_good = " The lengths are of those that succeeded." if many.outcomes.get("success") else ""
    if failed:
        yield f"{count(failed, 'run')} failed: {_failed_most(many)}.{of_good}"
    if stopped := many.outcomes.get("cancelled", 0):
        yield f"{count(stopped, 'run')} stopped before the end."
    yield _of_slow(many)
    yield _of_trend(many)


def _failed_most(many: ManyRuns) -> str:
    told = [
        f"{f'{shortened(node)} raised ' if node else ''}{shortened(error)} in {number:,}"
        for (node, error), number in many.failures.items()
    ]
    return listed(told, 3)


def _of_slow(many: ManyRuns) -> str:
    slow = many.slow
    if many.typical is None:
        return "No run succeeded, so none is typical or slow."
    if not slow.runs:
        return "No run is slow: none of those that succeeded takes 10 % more than the median."
    many_slow = (
        f"{count(len(slow.runs), 'run')} of {len(slow.runs) + slow.others:,} {'is' if len(slow.runs) == 1 else 'are'}"
    )
    over = f"{many_slow} slow (over {duration(slow.over_ns)})"
    if not slow.traits:
        return (
            f"{over}. They have nothing in common that the others lack; explain one with --run {slow.runs[0].number}."
        )
    first = slow.traits[0]
    return (
        f"{over}. In {first.slow:,} of them, and in {first.others:,} of the {slow.others:,} others, {in_words(first)}."
    )


def _of_trend(many: ManyRuns) -> str:
    trend = many.trend
    if trend is None:
        return "There are too few runs to tell a trend."
    before_ns, after_ns = trend.before.p50_ns, trend.after.p50_ns
    if not many.drifts:
        return f"There is no trend: median {duration(before_ns)} in the first third, {duration(after_ns)} in the last."
    name, by_ns = next(iter(trend.path_change_ns.items()))
    return (
        f"The runs get {'longer' if after_ns > before_ns else 'shorter'}: median {duration(before_ns)} in the first "
        f"third, {duration(after_ns)} in the last; most of it {path_name(name)} {signed(by_ns)}."
    )


def in_words(trait: Trait) -> str:
    """What a run has, as the end of a sentence.

    >>> in_words(Trait(kind="state", name="network", slow=3, others=0))
    'waiting for a socket took twice as much of the critical path as usual, or more'
    """
    name = shortened(trait.name)
    if trait.kind == "state":
        name = BETWEEN.get(trait.name) or next(info.meaning for state, info in INFO.items() if state == trait.name)
    return TRAITS[trait.kind].format(name=name)


def _traits(many: ManyRuns) -> TextTable:
    slow = many.slow
    return TextTable(
        heading="What the slow runs have in common",
        columns=(f"of {len(slow.runs):,} slow", f"of {slow.others:,} others", "what"),
        rows=tuple((f"{each.slow:,}", f"{each.others:,}", in_words(each)) for each in slow.traits),
        texts=(2,),
    )


def _difference(heading: str, found: SetDifference | None, sides: tuple[str, str]) -> TextTable | None:
    if found is None:
        return None
    parts = [(path_name(name), *both) for name, both in found.path_ns.items()]
    least_ns = LITTLE * max(found.before.mean_ns, found.after.mean_ns)
    shown = [part for part in parts if abs(part[2] - part[1]) >= least_ns][:NAMES]
    if others := parts[len(shown) :]:
        shown.append((f"({len(others):,} others)", sum(part[1] for part in others), sum(part[2] for part in others)))
    rows = [
        (duration(before_ns), duration(after_ns), signed(after_ns - before_ns), shortened(name))
        for name, before_ns, after_ns in shown
    ]
    means = duration(found.before.mean_ns), duration(found.after.mean_ns), signed(found.change_ns), "the whole run"
    return TextTable(
        heading=heading,
        columns=(*sides, "difference", "node"),
        rows=(*rows, means),
        texts=(3,),
        note="Means over the runs, of what each takes of the critical path.",
    )


def _nodes(many: ManyRuns, names: int) -> TextTable:
    shown = list(many.nodes.items())[:names]
    runs = many.durations.runs
    failed: Counter[str] = Counter()
    for (name, _), number in many.failures.items():
        failed[name] += number
    return TextTable(
        heading=f"Nodes, by their time on the critical path{_of(names, len(many.nodes))}",
        columns=("executions", "p50", "p95", "on the path of", "mean there", "failed", "node"),
        rows=tuple(
            (
                f"{node.executions:,}",
                duration(node.p50_ns),
                duration(node.p95_ns),
                percent(node.path_runs, runs) if node.path_runs else "-",
                duration(node.path_ns) if node.path_runs else "-",
                f"{failed[name]:,}" if failed[name] else "-",
                shortened(name),
            )
            for name, node in shown
        ),
        texts=(6,),
        note=f"Of the {count(runs, 'run')} whose lengths are told above; p50 and p95 are of single executions. "
        "Failures are of all runs.",
    )


def _failures(many: ManyRuns) -> TextTable:
    shown = list(many.failures.items())[:FAILURES]
    return TextTable(
        heading=f"Failures{_of(FAILURES, len(many.failures))}",
        columns=("runs", "exception", "node"),
        rows=tuple((f"{number:,}", shortened(error), shortened(node) or "-") for (node, error), number in shown),
        texts=(1, 2),
    )


def _blocks(many: ManyRuns) -> TextTable:
    return TextTable(
        heading="Over time, in the order of their start",
        columns=("runs", "from", "p50", "p95", "failed"),
        rows=tuple(
            (
                f"{block.durations.runs:,}",
                _moment(many.runs[block.first - 1].run),
                duration(block.durations.p50_ns),
                duration(block.durations.p95_ns),
                f"{block.failed:,}" if block.failed else "-",
            )
            for block in many.blocks
        )
        if len(many.blocks) > 1
        else (),
        texts=(),
        note="All runs, also those that failed.",
    )


def _trend(many: ManyRuns) -> TextTable | None:
    if not many.drifts:
        return None
    return _difference("From the first third to the last, by node on the critical path", many.trend, ("first", "last"))


def _slowest(many: ManyRuns) -> TextTable:
    slowest = many.slow.runs[:SLOWEST]
    return TextTable(
        heading=f"Slow runs{_of(SLOWEST, len(many.slow.runs))}",
        columns=LIST_COLUMNS,
        rows=tuple(map(list_row, slowest)),
        texts=LIST_TEXTS,
        note="--run NUMBER explains one of them.",
    )


ID_LENGTH: Final = 8
"""How much of a run's id is shown: --run takes the beginning of one."""

LIST_COLUMNS: Final = ("run", "started", "took", "nodes", "outcome", "queued", "most of the path", "name", "id")
LIST_TEXTS: Final = (4, 6, 7, 8)


def list_row(facts: RunFacts) -> tuple[str, ...]:
    """A run in a line."""
    run = facts.run
    name, ns = most_of_path(facts)
    outcome = run.outcome if run.error_type is None else f"{run.outcome}: {run.error_type}"
    return (
        f"{facts.number:,}",
        _moment(run),
        duration(run.duration_ns),
        f"{len(run.nodes):,}",
        shortened(outcome),
        duration(facts.path_ns.get(QUEUE, 0)),
        f"{shortened(path_name(name))} {percent(ns, run.duration_ns)}" if ns else "-",
        shortened(run.name),
        run.id[:ID_LENGTH],
    )


def most_of_path(facts: RunFacts) -> tuple[str, int]:
    """The name that takes most of a run's critical path, and its time."""
    return max(facts.path_ns.items(), key=lambda item: item[1], default=("", 0))


def listed_runs(runs: Iterable[RecordedRun], key: str, *, backwards: bool) -> list[RunFacts]:
    """Each with its number in the file, in the order of a column."""
    facts = [facts_of(run, number) for number, run in enumerate(runs, 1)]
    return sorted(facts, key=ORDERS[key], reverse=backwards)


ORDERS: Final = {
    "started": lambda facts: facts.run.started_ns,
    "duration": lambda facts: facts.duration_ns,
    "nodes": lambda facts: len(facts.run.nodes),
    "outcome": lambda facts: (facts.run.outcome, facts.number),
    "queued": lambda facts: facts.path_ns.get(QUEUE, 0),
    "name": lambda facts: (facts.run.name, facts.number),
}
"""What a list of runs is sorted by."""


def difference_tables(found: SetDifference) -> tuple[TextTable, ...]:
    """Two sets: what the paths went to, and each node's durations."""
    changed = _difference("The change of the mean, by node on the critical path", found, ("before", "after"))
    nodes = [node for node in found.nodes if node.before.p50_ns != node.after.p50_ns]
    nodes.sort(key=lambda node: (-abs(node.path_change_ns), -abs(node.after.p50_ns - node.before.p50_ns)))
    return tuple(
        table
        for table in (
            changed,
            TextTable(
                heading=f"Executions of nodes{_of(NAMES, len(nodes))}",
                columns=("p50 before", "after", "change", "p95 before", "after", "node"),
                rows=tuple(
                    (
                        duration(node.before.p50_ns) if node.before.executions else "-",
                        duration(node.after.p50_ns) if node.after.executions else "-",
                        _changed(node.before.executions, node.after.executions, node.before.p50_ns, node.after.p50_ns),
                        duration(node.before.p95_ns) if node.before.executions else "-",
                        duration(node.after.p95_ns) if node.after.executions else "-",
                        shortened(node.name),
                    )
                    for node in nodes[:NAMES]
                ),
                texts=(5,),
            ),
        )
        if table is not None and table.rows
    )


def _changed(before: int, after: int, before_ns: int, after_ns: int) -> str:
    if not before or not after:
        return "gone" if before else "new"
    return change(before_ns=before_ns, after_ns=after_ns)


def difference_sentences(found: SetDifference) -> tuple[str, ...]:
    """Whether the sets differ, and by what."""
    before, after = found.before, found.after
    medians = change(before_ns=before.p50_ns, after_ns=after.p50_ns).replace("none", "no change")
    clear = (
        "More than chance would give."
        if found.clear
        else "No more than runs differ by chance: take the tables as they are, two samples."
    )
    return (
        f"{count(before.runs, 'run')} before, {count(after.runs, 'run')} after: median {duration(before.p50_ns)} and "
        f"{duration(after.p50_ns)}, {medians}; 95 % within {duration(before.p95_ns)} and {duration(after.p95_ns)}.",
        clear,
    )


def _of(shown: int, there_are: int) -> str:
    return f" (the first {shown} of {there_are:,})" if there_are > shown else ""


def _moment(run: RecordedRun) -> str:
    if run.started_unix_ns is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(run.started_unix_ns // 1_000_000_000, tz=timezone.utc)
    except (OverflowError, OSError, ValueError):
        return "-"
    return f"{moment:%Y-%m-%d %H:%M:%S}"
