"""A run in a shared pool into the nodes of other runs that its replay has to find there.

Those of the record that had not ended when the run began, and those of runs that came while it went on, or might come
if it took longer; each with its own inputs and its own run's queue. What had begun before the run is cut: it has a
worker, or waits for one, when the run begins. A run that its caller began right after the one before begins right
after that one in a replay too.

Other runs may not be in the record: not sampled, or lost. That they were there, the run's own waits tell: while one of
its nodes waits, the workers that none of its nodes has are others'. Such workers are taken to stay occupied as long as
that is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun

LOOKS_AHEAD: Final = 3
"""Runs are taken in that came until so many of its own durations after the run's end: a slower one would meet them."""

MAX_NODES: Final = 2_000
"""How many nodes of others are taken in, those that came first."""

AT_ONCE: Final = 0.05
AT_ONCE_NS: Final = 5_000_000
"""A run that begins within this part of the one before, or this time, of its caller's was waiting for that one."""

UNEXPLAINED: Final = 0.1
"""If nodes in the record account for all but this part of the waits behind others, no others are made up."""

TELLING_NS: Final = 300_000
"""Shorter stretches of workers of which nobody knows may be the time that it takes to wake one up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """Nodes, and for each the number of its run, from 1 on; after the end of which of them it is submitted, if after
    any; whether some of their runs are not in the record; and how many are and were too many.
    """

    nodes: tuple[NodeExecution, ...] = ()
    run_of: tuple[int, ...] = ()
    after: tuple[str | None, ...] = ()
    unknown: bool = False
    left_out: int = 0

    @property
    def run_count(self) -> int:
        return max(self.run_of, default=0)


def others_of(run: RecordedRun, nodes: Sequence[NodeExecution], workers: int) -> Others:
    """Who else was in the pool while the nodes of a run were. Most runs are alone."""
    known = _known(run)
    if not run.queue_others_ns:
        return known
    found = [*_unexplained(run, nodes, known.nodes, workers)]
    if not found:
        return known
    number = known.run_count + 1
    return Others(
        nodes=(*known.nodes, *found),
        run_of=(*known.run_of, *[number] * len(found)),
        after=(*known.after, *[None] * len(found)),
        unknown=True,
        left_out=known.left_out,
    )


def _known(run: RecordedRun) -> Others:
    nodes: list[NodeExecution] = []
    run_of: list[int] = []
    after: list[str | None] = []
    last_of: dict[str, tuple[RecordedRun, str]] = {}  # by caller
    number = 0
    left_out = 0
    for other in beside(run):
        part = [node for node in other.outermost if node.ended_ns > run.started_ns]
        if not part:
            continue
        if len(nodes) + len(part) > MAX_NODES:
            left_out += 1
            continue
        number += 1
        part = [_of_run(_cut(node, run.started_ns), number) for node in part]
        before = last_of.get(other.caller) if other.caller else None
        behind = None if before is None or not _follows(other, before[0]) else before[1]
        nodes += part
        run_of += [number] * len(part)
        after += [behind] * len(part)
        last_of[other.caller] = other, max(part, key=lambda node: node.ended_ns).key
    return Others(nodes=tuple(nodes), run_of=tuple(run_of), after=tuple(after), left_out=left_out)


def beside(run: RecordedRun) -> list[RecordedRun]:
    """The runs that a replay takes in, by their start; none where nobody was in the pool while the run went on."""
    if run.pool_runs is None or not run.neighbours:
        return []
    until_ns = run.ended_ns + LOOKS_AHEAD * run.duration_ns
    return [other for other in run.pool_runs.between(run.started_ns, until_ns) if other.id != run.id]


def callers_next(runs: Sequence[RecordedRun]) -> dict[int, int]:
    """Of runs in the order of their start, by its place, the one right after which its caller began it."""
    found: dict[int, int] = {}
    last_of: dict[str, int] = {}
    for number, run in enumerate(runs):
        if not run.caller:
            continue
        before = last_of.get(run.caller)
        if before is not None and _follows(run, runs[before]):
            found[number] = before
        last_of[run.caller] = number
    return found


def _follows(run: RecordedRun, before: RecordedRun) -> bool:
    return 0 <= run.started_ns - before.ended_ns <= max(AT_ONCE_NS, AT_ONCE * before.duration_ns)


def _of_run(node: NodeExecution, number: int) -> NodeExecution:
    """With keys that no other run has."""
    return replace(node, key=f"{number}:{node.key}", upstream=tuple([f"{number}:{key}" for key in node.upstream]))


def _cut(node: NodeExecution, from_ns: int) -> NodeExecution:
    """What of the node lies after that moment. One that has a worker then comes before those that wait for one."""
    if node.submitted_ns >= from_ns:
        return node
    if node.started_ns >= from_ns:
        earlier_ns = max(node.submitted_ns, from_ns - 1)
        return node if node.ready_ns > from_ns else replace(node, submitted_ns=earlier_ns, ready_ns=from_ns - 1)
    left = (node.ended_ns - from_ns) / node.duration_ns
    return replace(
        node,
        submitted_ns=from_ns - 2,
        ready_ns=from_ns - 2,
        started_ns=from_ns - 2,
        states={state: round(part_ns * left) for state, part_ns in node.states.items()},
        upstream=(),
    )


def _unexplained(
    run: RecordedRun, nodes: Sequence[NodeExecution], known: Sequence[NodeExecution], workers: int
) -> Iterator[NodeExecution]:
    """Stands for workers that nodes of nobody in the record had while nodes of the run waited for one."""
    waits = [node for node in nodes if node.queue_others_ns > 0]
    changes = [(node.started_ns, 1, 0) for node in (*nodes, *known)] + [
        (node.ended_ns, -1, 0) for node in (*nodes, *known)
    ]
    changes += [(node.ready_ns, 0, 1) for node in waits] + [(node.started_ns, 0, -1) for node in waits]
    stretches: list[tuple[int, int, int]] = []  # from, to, how many workers nobody accounts for
    busy = waiting = 0
    unknown_ns = 0
    before_ns = run.started_ns
    for at_ns, by, waits_by in sorted(changes):
        missing = workers - busy
        if waiting and missing > 0 and at_ns > before_ns:
            unknown_ns += (at_ns - before_ns) * missing * waiting // workers
            if stretches and stretches[-1][1:] == (before_ns, missing):
                stretches[-1] = stretches[-1][0], at_ns, missing
            else:
                stretches.append((before_ns, at_ns, missing))
        busy += by
        waiting += waits_by
        before_ns = at_ns
    if unknown_ns <= UNEXPLAINED * run.queue_others_ns:
        return
    place = 0
    for worker in range(max((missing for _, _, missing in stretches), default=0)):
        for from_ns, to_ns in _joined([(start, end) for start, end, missing in stretches if missing > worker]):
            if to_ns - from_ns >= TELLING_NS:
                place += 1
                before_ns = from_ns - 1  # it was there when the run's node came
                yield NodeExecution(
                    key=f"_other-{place}",
                    name="_other",
                    submitted_ns=before_ns,
                    ready_ns=before_ns,
                    started_ns=before_ns,
                    ended_ns=to_ns,
                    states={"other": to_ns - from_ns},
                    samples=1,
                )


def _joined(stretches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """
    >>> _joined([(0, 5), (5, 7), (9, 10)])
    [(0, 7), (9, 10)]
    """
    found: list[tuple[int, int]] = []
    for start, end in stretches:
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found
