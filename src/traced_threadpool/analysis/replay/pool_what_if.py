"""The runs of a pool and numbers of workers into how long each run would take, and how many would be done in a second.

All runs of a time window are replayed together, each in its own queue as in the live pool, with the arrival times that
they had. A run that its caller began right after the one before begins right after that one again: a client that waits
for its answer brings less work to a slower pool.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> runs = []
>>> for number in range(2):  # one worker: the second waits for the first
...     times = {"submitted_ns": number, "ready_ns": number, "started_ns": 100 * number, "ended_ns": 100 + 100 * number}
...     node = NodeExecution(key="1", name="load", **times)
...     of_run = {"started_ns": number, "ended_ns": times["ended_ns"], "max_workers": 1}
...     runs.append(RecordedRun(id=str(number), name="r", pool="p", nodes=(node,), **of_run))
>>> found = scale_pool(runs, [1, 2])
>>> [(load.workers, load.p50_ns, load.p95_ns) for load in found.loads.values()]
[(1, 100, 199), (2, 100, 100)]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import ceil
from typing import Final

from traced_threadpool.analysis.replay.others import Others, callers_next
from traced_threadpool.analysis.replay.plan import Plan
from traced_threadpool.analysis.replay.settings import settings_of
from traced_threadpool.analysis.replay.virtual_pool import VirtualPool
from traced_threadpool.analysis.replay.what_if import least_enough
from traced_threadpool.model.formatting import count, duration, outline, share
from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun

MOST_NODES: Final = 20_000
"""How many nodes are replayed together, of the runs that came first."""

COLUMNS: Final = ("workers", "p50", "p95", "p99", "runs/s", "busy")
"""Of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoad:
    """What the runs of a window would take on so many workers. `runs_per_second` is over the whole window."""

    workers: int
    p50_ns: int
    p95_ns: int
    p99_ns: int
    mean_ns: int
    runs_per_second: float
    busy_share: float


@dataclass(frozen=True, kw_only=True)
class PoolScaling:
    """By number of workers; the recorded number among them has what was recorded. `runs` is how many were replayed,
    of which the last ended `window_ns` after the first began.
    """

    pool: str
    loads: Mapping[int, PoolLoad]
    recorded_workers: int
    runs: int
    window_ns: int
    assumptions: tuple[str, ...] = ()

    @property
    def enough_workers(self) -> int:
        """The least number with which no larger one has a 95th percentile that is shorter by 2 % or more."""
        return least_enough({number: load.p95_ns for number, load in self.loads.items()})

    @property
    def reason(self) -> str:
        """What the numbers say of more workers."""
        enough, now = self.loads[self.enough_workers], self.loads[self.recorded_workers]
        instead = f"95 % of the runs within {duration(enough.p95_ns)}"
        if duration(enough.p95_ns) != duration(now.p95_ns):
            instead += f" instead of {duration(now.p95_ns)}"
        if enough.workers < now.workers:
            return f"{count(enough.workers, 'worker')} would do as well as {now.workers:,}: {instead}."
        if enough.workers == max(self.loads):
            return f"Still scaling at {count(enough.workers, 'worker')}, the largest count tried: {instead}."
        return f"More than {count(enough.workers, 'worker')} would not help: {instead}."

    def __repr__(self) -> str:
        enough = f"enough: {self.enough_workers:,}"
        tried = f"{min(self.loads):,} to {count(max(self.loads), 'worker')}"
        return outline(self, self.pool, count(self.runs, "run"), tried, enough)

    def __str__(self) -> str:
        rows = [COLUMNS, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, self.reason, *(f"note: {said}" for said in self.assumptions)])

    def _repr_html_(self) -> str:
        """For notebooks."""
        head = "".join(f"<th>{cell}</th>" for cell in COLUMNS)
        rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in self.rows)
        said = "".join(f"<div>{escape(each)}</div>" for each in (self.reason, *self.assumptions))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{said}"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Those of the table, under `COLUMNS`."""
        return [
            (
                f"{load.workers:,}{' (recorded)' if load.workers == self.recorded_workers else ''}",
                duration(load.p50_ns),
                duration(load.p95_ns),
                duration(load.p99_ns),
                f"{load.runs_per_second:.3g}",
                share(load.busy_share),
            )
            for load in self.loads.values()
        ]


@explains_keywords("scale_pool")
def scale_pool(
    runs: Iterable[RecordedRun],
    workers: Iterable[int] = (1, 2, 4, 8, 16, 32, 64),
    *,
    most_nodes: int = MOST_NODES,
) -> PoolScaling:
    """How the latency of a pool's runs, and their throughput, go with the number of workers.

    Args:
        runs: Of one pool, in any order: those of a file, or `adapter.recorded_runs`.
        workers: The numbers to ask about; the recorded one is added.
        most_nodes: How many nodes to replay together, of the runs that came first.

    Raises:
        ValueError: No run, or none that ran a node; runs of several pools; or a number that is none.
    """
    found = sorted(runs, key=lambda run: run.started_ns)
    pools = {run.pool for run in found}
    if len(pools) > 1:
        names = ", ".join(repr(name) for name in sorted(pools)[:4])
        raise ValueError(f"the runs are of several pools ({names}); give those of one")
    plan = _PoolPlan(found, most_nodes)
    counts = sorted({*workers, plan.workers})
    return PoolScaling(
        pool=plan.run.pool,
        loads={number: plan.load(number) for number in counts},
        recorded_workers=plan.workers,
        runs=len(plan.runs),
        window_ns=plan.run.duration_ns,
        assumptions=plan.said(found),
    )


def pools_of(runs: Iterable[RecordedRun]) -> list[list[RecordedRun]]:
    """The runs of a file by the pool that they were in, the most runs first. A pool is one of one process."""
    found: dict[tuple[str, int], list[RecordedRun]] = {}
    for run in runs:
        found.setdefault((run.pool, id(run.pool_runs)), []).append(run)
    return sorted(found.values(), key=len, reverse=True)


class _PoolPlan(Plan):
    """All runs as if they were one, whose nodes are of several queues."""

    is_one_run = False

    def __init__(self, runs: Sequence[RecordedRun], most_nodes: int) -> None:
        self._most_nodes = most_nodes
        ran = [run for run in runs if run.outermost and not run.left_out]
        self.runs: list[RecordedRun] = []
        nodes: list[NodeExecution] = []
        for run in ran:
            part = [_of_run(node, len(self.runs)) for node in run.outermost]
            if nodes and len(nodes) + len(part) > most_nodes:
                break
            nodes += part
            self.runs.append(run)
        if not self.runs:
            raise ValueError(f"none of {count(len(runs), 'run')} has nodes that ran; there is nothing to replay")
        self._behind = callers_next(self.runs)
        first = self.runs[0]
        whole = replace(
            first,
            ended_ns=max(run.ended_ns for run in self.runs),
            nodes=tuple(nodes),
            max_workers=max((run.max_workers or 0 for run in self.runs), default=0) or None,
            pool_runs=None,
            expected_nodes=None,
        )
        super().__init__(whole)
        recorded = [run.duration_ns for run in self.runs]
        replayed = self._latencies_ns(self.workers)[0]
        self._off_by = sum(recorded) / sum(replayed) if sum(replayed) else 1.0

    def _pool_of(self, others: Others) -> VirtualPool:
        last_of: dict[int, int] = {}
        self._run_of = [_number(node) for node in self.nodes]
        for index, node in enumerate(self.nodes):
            number = self._run_of[index]
            if number not in last_of or node.ended_ns > self.nodes[last_of[number]].ended_ns:
                last_of[number] = index
        self._anchors = {number: last_of[before] for number, before in self._behind.items() if before in last_of}
        return VirtualPool(
            self.nodes,
            self.run.started_ns,
            self.workers,
            run_of=[number + 1 for number in self._run_of],
            after={number + 1: anchor for number, anchor in self._anchors.items()},
        )

    def load(self, workers: int) -> PoolLoad:
        latencies_ns, lasting_ns, busy_share = self._latencies_ns(workers)
        if workers == self.workers:
            latencies_ns, lasting_ns = [run.duration_ns for run in self.runs], self.run.duration_ns
        else:
            latencies_ns = [round(latency_ns * self._off_by) for latency_ns in latencies_ns]
        ordered = sorted(latencies_ns)
        return PoolLoad(
            workers=workers,
            p50_ns=_percentile(ordered, 0.5),
            p95_ns=_percentile(ordered, 0.95),
            p99_ns=_percentile(ordered, 0.99),
            mean_ns=round(sum(ordered) / len(ordered)),
            runs_per_second=len(ordered) / (lasting_ns / 1e9) if lasting_ns else 0.0,
            busy_share=min(1.0, busy_share),
        )

    def _latencies_ns(self, workers: int) -> tuple[list[int], int, float]:
        """Of each run, and of all; and how busy the workers are."""
        replayed = self.replay(settings_of(self.run, workers, {}, (), None, True, None))
        ends: dict[int, int] = {}
        times = {node.key: node.ended_ns for node in replayed.nodes}
        for node in replayed.nodes:
            number = int(node.key.partition(":")[0])
            ends[number] = max(ends.get(number, 0), node.ended_ns)
        latencies_ns = []
        for number, run in enumerate(self.runs):
            began_ns, anchor = run.started_ns, self._anchors.get(number)
            if anchor is not None:
                before = self.nodes[anchor]
                began_ns = times[before.key] + max(0, run.started_ns - before.ended_ns)
            tail_ns = max(0, run.ended_ns - max(node.ended_ns for node in run.outermost))
            latencies_ns.append(max(0, ends.get(number, began_ns) - began_ns) + tail_ns)
        return latencies_ns, max(ends.values()) - self.run.started_ns, replayed.busy_share

    def said(self, asked: Sequence[RecordedRun]) -> tuple[str, ...]:
        """What is taken for granted."""
        said = list(self.assumptions.of(self.unchanged))
        chained = len(self._anchors)
        arrivals = "as they were recorded"
        if chained:
            arrivals += f", but {count(chained, 'run')} that a caller began right after its last one"
        said.append(f"{count(len(self.runs), 'run')} with arrival times {arrivals}")
        limits = {run.max_workers for run in self.runs if run.max_workers}
        if len(limits) > 1:
            said.append(
                f"the pool had {min(limits):,} to {max(limits):,} workers meanwhile; it is taken to have had "
                f"{self.workers:,}, and the row of these has what was recorded"
            )
        idle = sum(not run.outermost or run.left_out > 0 for run in asked)
        if idle:
            said.append(f"{count(idle, 'run')} left out: without nodes that ran, or too large to have all their spans")
        if later := len(asked) - idle - len(self.runs):
            said.append(
                f"{count(later, 'later run')} left out: {self._most_nodes:,} nodes are replayed together at most"
            )
        return tuple(said)


def _number(node: NodeExecution) -> int:
    return int(node.key.partition(":")[0])


def _of_run(node: NodeExecution, number: int) -> NodeExecution:
    return replace(
        node,
        key=f"{number}:{node.key}",
        upstream=tuple([f"{number}:{key}" for key in node.upstream]),
        queue_others_ns=0,
        parent=None,
        run_id=None,
    )


def _percentile(ordered: Sequence[int], share: float) -> int:
    """The least that this share does not exceed.

    >>> _percentile([1, 2, 3, 4], 0.5), _percentile([1, 2, 3, 4], 0.95)
    (2, 4)
    """
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
