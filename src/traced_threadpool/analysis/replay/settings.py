"""What is asked of a replay, checked: an error says what was found and what to give instead."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from traced_threadpool.engine.priorities import PRIORITIES, PriorityName
from traced_threadpool.model.lane import PROCESSES
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.records import THREADS

SLOWEST: Final = 1e-6
"""The least factor that a node may be made faster by; times far beyond would be no numbers any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """What is asked of a replay, checked."""

    workers: int | None
    faster: Mapping[str, float]
    without: frozenset[str]
    cpus: int | None
    gil: bool
    priority: PriorityName | None
    less_wait_ns: Mapping[str, float] = field(default_factory=dict)
    less_contention_ns: Mapping[str, float] = field(default_factory=dict)
    faster_executions: Mapping[str, float] = field(default_factory=dict)
    alone: bool = False
    locks: bool = True
    run_on: Mapping[str, str] = field(default_factory=dict)
    processes: int | None = None
    moves: Mapping[str, float] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=dict)
    quiet: bool = False

    def factor(self, node: NodeExecution) -> float:
        """What a node's time is multiplied by."""
        return 1 / (self.faster_executions.get(node.key) or self.faster.get(node.name, 1))


def settings_of(
    run: RecordedRun,
    workers: int | None,
    faster: Mapping[str, float],
    without: Collection[str],
    cpus: int | None,
    gil: bool,
    priority: PriorityName | None,
    run_on: Mapping[str, str] | None = None,
    processes: int | None = None,
    moves: Mapping[str, float] | None = None,
    lanes: Mapping[str, int] | None = None,
) -> ReplaySettings:
    """The settings, if they make sense for this run."""
    for what, count in (("workers", workers), ("cpus", cpus), ("processes", processes)):
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError(f"{what} is {count!r}; it must be a whole number from 1 on, or None for what was recorded")
    if priority not in (None, *PRIORITIES):
        raise ValueError(
            f"priority is {priority!r}; it must be {', '.join(map(repr, PRIORITIES))}, or None for what was recorded"
        )
    if isinstance(without, str):
        raise ValueError(f"without is the string {without!r}; give a collection of names, such as ({without!r},)")
    for name, factor in faster.items():
        if type(factor) not in (int, float) or not 0 < factor < math.inf:
            raise ValueError(
                f"faster[{name!r}] is {factor!r}; it must be a number above 0, such as 2 for twice as fast"
            )
        if factor < SLOWEST:
            raise ValueError(f"faster[{name!r}] is {factor!r}; it must be {SLOWEST} at least, a million times slower")
    run_on, moves = run_on or {}, moves or {}
    names = {node.name for node in run.nodes} if faster or without or run_on else set()
    for name in (*faster, *without, *run_on):
        if name not in names:
            raise ValueError(_unknown(name, names))
    return ReplaySettings(
        workers=workers,
        faster=faster,
        without=frozenset(without),
        cpus=cpus or run.cpus,
        gil=gil,
        priority=priority,
        run_on=_checked_places(run, run_on, processes),
        processes=processes,
        moves=_checked_sizes(run_on, moves),
        lanes=_checked_lanes(run, lanes or {}),
    )


def _checked_places(run: RecordedRun, run_on: Mapping[str, str], processes: int | None) -> Mapping[str, str]:
    recorded = {*run.backends, *[node.backend for node in run.nodes if node.backend]}
    known = dict.fromkeys([PROCESSES, THREADS, *sorted(recorded)])
    for name, backend in run_on.items():
        if backend not in known:
            raise ValueError(
                f"run_on[{name!r}] is {backend!r}; it must be {' or '.join(map(repr, known))}: worker processes, this "
                "process's threads, or a backend of the record"
            )
    is_used = PROCESSES in run_on.values() or any(each.kind == PROCESSES for each in run.backends.values())
    if processes is not None and not is_used:
        raise ValueError(
            f"processes is {processes}, and no node runs on processes; say which do, such as run_on={{'parse': "
            f"{PROCESSES!r}}}"
        )
    return run_on


def _checked_sizes(run_on: Mapping[str, str], moves: Mapping[str, float]) -> Mapping[str, float]:
    for name, size in moves.items():
        if type(size) not in (int, float) or not 0 <= size < math.inf:
            raise ValueError(f"moves[{name!r}] is {size!r}; it must be a number of bytes, such as 200e6")
        if name not in run_on:
            raise ValueError(f"moves has {name!r}, and run_on does not; say where it goes, such as {PROCESSES!r}")
    return moves


def _checked_lanes(run: RecordedRun, lanes: Mapping[str, int]) -> Mapping[str, int]:
    """Those that are to be other than recorded."""
    known = {name: lane.max_workers for name, lane in run.backends.items() if lane.kind != PROCESSES}
    for name, most in lanes.items():
        if name not in known and (name in run.backends or name == PROCESSES):
            raise ValueError(
                f"lanes has {name!r}, and worker processes are no lane; say how many there are with processes "
                "(--processes)"
            )
        if name not in known and name == THREADS:
            raise ValueError(f"lanes has {name!r}, and the pool is no lane; use workers (--workers)")
        if name not in known:
            there = ", ".join(repr(each) for each in sorted(known)) or "none"
            raise ValueError(f"no lane {name!r} in the record; its lanes: {there}")
        if type(most) is not int or most < 1:
            raise ValueError(f"lanes[{name!r}] is {most!r}; it must be a whole number from 1 on")
    return {name: most for name, most in lanes.items() if most != known[name]}


def _unknown(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"no node {name!r} in the record; did you mean {' or '.join(repr(each) for each in near)}?"
    shown = sorted(names)[:10]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"no node {name!r} in the record; it has {', '.join(repr(each) for each in shown)}{more}"
