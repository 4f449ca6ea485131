"""Spans, in any order, into recorded runs: one for each run that is not nested in another.

A trace is never quite whole. What is missing, and what had to be repaired, is said in each record's `problems`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from traced_threadpool.analysis.trace_forms.executions import (
    ROUNDING,
    disagreeing,
    executions,
    nanoseconds,
    without_cycles,
)
from traced_threadpool.analysis.trace_forms.grouping import Gathered, Group, grouped
from traced_threadpool.analysis.trace_forms.limits import one_of, problems_of
from traced_threadpool.analysis.trace_forms.span import Attributes, number_of, text_of, texts, whole
from traced_threadpool.model.formatting import count
from traced_threadpool.model.lane import lane_of
from traced_threadpool.model.recorded_run import NodeExecution, PoolRuns, RecordedRun
from traced_threadpool.model.records import RUN_OUTCOMES, Outcome, RunOutcome
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.attribute_values import gil_holder_of


def runs_from(gathered: Gathered, problems: Sequence[str] = ()) -> list[RecordedRun]:
    """All runs, by their start. `problems` are those of the file, which each run may suffer from.

    Runs that were saved for the sake of others are in the pool with these, and not among the file's own.
    """
    groups = grouped(gathered)
    members: dict[str, list[Group]] = {}
    for name, group in groups.items():
        members.setdefault(group.root, []).append(groups[name])
    shared = list(problems)
    if gathered.unreadable:
        shared.append(f"{count(gathered.unreadable, 'span')} without usable ids or times: left out.")
    if gathered.duplicates:
        shared.append(f"{count(gathered.duplicates, 'span')} more than once in the file: counted once.")
    of_pool: dict[tuple[str, str], list[RecordedRun]] = {}
    pools: dict[tuple[str, str], PoolRuns] = {}
    runs = []
    saved = {groups[name].run_id for name in members if not _is_beside(groups[name])}
    beside: set[str] = set()
    for name, of_root in members.items():
        root = groups[name]
        if _is_beside(root):
            if root.run_id in saved or root.run_id in beside:
                continue  # it has been saved by itself, or for two runs
            beside.add(root.run_id)
        pool = root.process, root.pool
        together = of_pool.setdefault(pool, [])
        pool_runs = pools.setdefault(pool, PoolRuns(partial(list, together)))
        together.append(_record(root, of_root, gathered, shared, pool_runs))
        if not _is_beside(root):
            runs.append(together[-1])
    return sorted(runs, key=lambda run: run.started_ns)


def _is_beside(root: Group) -> bool:
    return root.span is not None and root.span.attributes.get(names.RECORD_BESIDE) is True


def _record(
    root: Group, members: Sequence[Group], gathered: Gathered, shared: Sequence[str], pool_runs: PoolRuns
) -> RecordedRun:
    repairs: Counter[str] = Counter()
    left_out = _left_out(members)
    nodes = without_cycles(executions(members, root, gathered, repairs, thinned=left_out > 0), repairs)
    nodes.sort(key=lambda node: (node.submitted_ns, node.started_ns, node.key))
    repairs["disagree"] = disagreeing(nodes, _tolerance(members))

    span, attributes = root.span, root.span.attributes if root.span is not None else {}
    problems = list(shared)
    first_ns = min((node.submitted_ns for node in nodes), default=0)
    last_ns = max((node.ended_ns for node in nodes), default=0)
    if span is None:
        started_ns, ended_ns = first_ns, last_ns
        problems.append(
            "The run's own span is missing: it had not ended when the file was written, or its span was lost. Its "
            "start and end are taken from its nodes; workers and settings are unknown."
            if root.run_id
            else "These nodes were submitted outside of any run; start and end are taken from them."
        )
    else:
        started_ns, ended_ns = span.started_ns, max(span.started_ns, span.ended_ns)
        if span.ended_ns < span.started_ns:
            problems.append("The run's span ends before it starts; its end is taken from its nodes.")
        tolerance = _tolerance(members)
        if nodes and (first_ns < started_ns - tolerance or last_ns > ended_ns + tolerance):
            problems.append("Some nodes lie outside of their run's span; the run is taken to reach over them.")
        if nodes:
            started_ns, ended_ns = min(started_ns, first_ns), max(ended_ns, last_ns)

    expected = _expected(members)
    if left_out:
        problems.append(
            f"{count(left_out, 'node')} of {expected or left_out + len(nodes):,} have no span, since the run is "
            "large: the critical path is in the record, and those that raised, the slowest and a sample of the others."
        )
    lost = 0 if expected is None else expected - left_out - len(nodes)
    if lost > 0:
        problems.append(
            f"{count(lost, 'span')} of {expected} nodes missing (lost, not sampled, or not written yet): their time "
            "shows as dependency waits or outside time."
        )
    elif expected is not None and expected < len(nodes):
        problems.append(f"The run says that it had {count(expected, 'node')}, the file has {len(nodes)}.")
    problems += [told for told in texts(attributes.get(names.RECORD_PROBLEMS)) if told not in problems]
    problems += problems_of(members)
    problems += [_REPAIRS[kind].format(count(many, "node")) for kind, many in repairs.items() if many]

    outcome: RunOutcome | None = one_of(RUN_OUTCOMES, attributes.get(names.RUN_OUTCOME))
    return RecordedRun(
        id=root.run_id,
        name=span.name if span is not None else names.DEFAULT_RUN_NAME,
        pool=root.pool,
        started_ns=started_ns,
        ended_ns=ended_ns,
        nodes=tuple(nodes),
        outcome=outcome or _outcome_of(nodes),
        error_type=text_of(attributes, names.ERROR_TYPE),
        max_workers=_positive(attributes, names.POOL_LIMIT),
        priority=text_of(attributes, names.RUN_PRIORITY) or "fifo",
        cpus=_positive(attributes, names.CPUS_LIMIT),
        attribution=text_of(attributes, names.ATTRIBUTION_METHOD) or "none",
        attribution_reason=text_of(attributes, names.ATTRIBUTION_REASON),
        gil_holders=_gil_holders(attributes),
        backends=dict(filter(None, map(lane_of, texts(attributes.get(names.POOL_BACKENDS))))),
        expected_nodes=expected,
        left_out=left_out,
        started_unix_ns=started_ns,
        problems=tuple(problems),
        caller=text_of(attributes, names.THREAD_ID) or "",
        pool_runs=pool_runs,
    )


_REPAIRS: Final[Mapping[str, str]] = {
    "links": "{}: links cut off; upstream resolved by name.",
    "upstream": "{}: the span of an upstream node is missing, so what it waited for is not known.",
    "cycle": "{}: links form a cycle; those that point back in time are left out.",
    "disagree": "{}: started before an upstream node's end; clocks disagree. Steps are cut where the later one begins.",
    "duration": "{}: ended before the start; the duration is taken as 0.",
    "waits": "{}: a wait that is negative, no number, or reaches back before the run; it is cut.",
    "states": "{}: states of time that add up to more than the duration, or are no numbers; scaled to fit.",
}


def _gil_holders(attributes: Attributes) -> dict[str, int]:
    told = (gil_holder_of(text) for text in texts(attributes.get(names.RUN_GIL_HOLDERS)))
    return {name: held_ns for name, seconds in filter(None, told) if (held_ns := nanoseconds(seconds))}


def _expected(members: Sequence[Group]) -> int | None:
    counts = [whole(group.span.attributes.get(names.RUN_NODE_COUNT)) for group in members if group.span is not None]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(members) else None


def _left_out(members: Sequence[Group]) -> int:
    spans = [group.span for group in members if group.span is not None]
    return sum(max(0, whole(span.attributes.get(names.RUN_SPANS_LEFT_OUT)) or 0) for span in spans)


def _outcome_of(nodes: Iterable[NodeExecution]) -> RunOutcome:
    outcomes: set[Outcome] = {node.outcome for node in nodes if node.parent is None}
    return "error" if "error" in outcomes else "cancelled" if "cancelled" in outcomes else "success"


def _tolerance(members: Sequence[Group]) -> int:
    return ROUNDING * max((node.resolution_ns for group in members for node in group.nodes), default=1)


def _positive(attributes: Attributes, name: str) -> int | None:
    number = number_of(attributes.get(name))
    return None if number is None or number < 1 else int(number)
