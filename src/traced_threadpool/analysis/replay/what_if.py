"""A record and other settings into the run to expect, through the live scheduler in virtual time.

The same `Scheduler` that ran the record is told of the same nodes at the same moments, and asked for the next one
whenever a worker is free. What a node does meanwhile is played twice on a virtual machine (see `machine`), with
the recorded settings and with those asked for: what differs is how long it waits there for the GIL or
a CPU. The recorded waits for these are changed by that, and nodes of the durations that follow are
scheduled. Durations alone would let nodes have the lock at the same time, so where there was contention the whole is
then stretched to the length that the virtual machine gives it, plus what that missed of the record. So a replay with
nothing changed gives back the record, whatever the model misses.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> nodes = tuple(
...     NodeExecution(key=name, name=name, submitted_ns=0, ready_ns=0, started_ns=start, ended_ns=start + 100)
...     for name, start in (("a", 0), ("b", 0), ("c", 100))
... )
>>> run = RecordedRun(id="1", name="doc", pool="p", started_ns=0, ended_ns=200, nodes=nodes, max_workers=2)
>>> replay(run).makespan_ns, replay(run, workers=3).makespan_ns, replay(run, faster={"a": 2, "c": 2}).makespan_ns
(200, 100, 100)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from traced_threadpool.analysis.replay.plan import Plan
from traced_threadpool.analysis.replay.replayed import Replayed, ReplayedNode
from traced_threadpool.analysis.replay.settings import settings_of
from traced_threadpool.engine.priorities import PriorityName
from traced_threadpool.model.formatting import count, duration, share
from traced_threadpool.model.recorded_run import RecordedRun

__all__ = [
    "HELPS",
    "MOST_WORKERS",
    "Limit",
    "Plan",
    "Replayed",
    "ReplayedNode",
    "Scaling",
    "replay",
    "scale",
]

HELPS: Final = 0.02
"""More workers help if they take at least this part off the makespan."""

SATURATED: Final = 0.9
"""A resource that is busy for this part of the makespan is what limits it."""

MOST_WORKERS: Final = 64

Limit = Literal["gil", "cpus", "critical_path", "nodes", "none"]
"""Why more workers stop helping: the GIL is always held; all CPUs are busy; the critical path is reached; no more nodes
are ever ready at once; or none: the run still scales at the largest number tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Makespan by workers, in the order of the workers.

    `enough_workers` is the least number beyond which no number asked about is faster by 2 % or more, and `limit`
    says why; `reason` is that in a sentence. `floor_ns` is the makespan with as many workers and CPUs as
    anybody could want and no GIL: the critical path.
    """

    makespan_ns: Mapping[int, int]
    recorded_workers: int
    enough_workers: int
    limit: Limit
    reason: str
    floor_ns: int
    assumptions: tuple[str, ...] = ()


def replay(
    run: RecordedRun,
    *,
    workers: int | None = None,
    faster: Mapping[str, float] | None = None,
    without: Collection[str] = (),
    cpus: int | None = None,
    gil: bool = True,
    priority: PriorityName | None = None,
    less_wait_ns: Mapping[str, float] | None = None,
    less_contention_ns: Mapping[str, float] | None = None,
    faster_executions: Mapping[str, float] | None = None,
    plan: Plan | None = None,
) -> Replayed:
    """The run to expect with other settings; what is not given stays as recorded.

    Args:
        run: The record. Only nodes that ran are replayed.
        workers: How many nodes run at once.
        faster: By name of a node, how many times faster each of its executions becomes, waits included.
        without: Names of nodes that take no time and no worker any more.
        cpus: How many the machine has.
        gil: False: nothing ever waits for the GIL, as in a free-threaded Python.
        priority: Which of the ready nodes goes first: "fifo", or "critical_path" with the record's own durations known.
        less_wait_ns: By key of an execution, how much less it waits for what is no node: a socket, a disk, a lock.
        less_contention_ns: By key, how much less it waits for the GIL or a CPU because of others
            than nodes. What nodes do to each other stays.
        faster_executions: By key of an execution, how many times faster that one becomes, in place of `faster`.
        plan: What was worked out of this run before, for whoever replays it several times.

    Raises:
        ValueError: The record has no node that ran, or links that form a circle; or a setting makes no sense.
    """
    settings = replace(
        settings_of(run, workers, faster or {}, without, cpus, gil, priority),
        less_wait_ns=less_wait_ns or {},
        less_contention_ns=less_contention_ns or {},
        faster_executions=faster_executions or {},
    )
    return (plan or Plan(run)).replay(settings)


def scale(
    run: RecordedRun,
    workers: Iterable[int] = range(1, MOST_WORKERS + 1),
    *,
    faster: Mapping[str, float] | None = None,
    without: Collection[str] = (),
    cpus: int | None = None,
    gil: bool = True,
    priority: PriorityName | None = None,
    plan: Plan | None = None,
) -> Scaling:
    """How the makespan goes with the number of workers. Arguments and errors are those of `replay`."""
    counts = sorted(set(workers))
    if not counts:
        raise ValueError("workers is empty; give the numbers of workers to try, for example range(1, 17)")
    plan = plan or Plan(run)
    found: dict[int, Replayed] = {}
    for number in counts:
        settings = settings_of(run, number, faster or {}, without, cpus, gil, priority)
        last = next(reversed(found.values()), None)
        # With workers to spare, more of them change nothing.
        found[number] = last if last is not None and last.most_busy < last.workers else plan.replay(settings)
    makespan_ns = {number: replayed.makespan_ns for number, replayed in found.items()}
    enough = _enough(makespan_ns)
    free = replace(settings, workers=len(plan.nodes), cpus=None, gil=False)
    floor_ns = plan.replay(free).makespan_ns
    most = found[counts[-1]]
    limit = _limit(found[enough], most, floor_ns, len(plan.nodes))
    return Scaling(
        makespan_ns=makespan_ns,
        recorded_workers=plan.workers,
        enough_workers=enough,
        limit=limit,
        reason=_reason(limit, found[enough], most, floor_ns),
        floor_ns=floor_ns,
        assumptions=found[enough].assumptions,
    )


def _enough(makespan_ns: Mapping[int, int]) -> int:
    """The least number of workers that nothing beyond beats by `HELPS`.

    >>> _enough({1: 400, 2: 200, 4: 199, 8: 100, 16: 99})
    8
    """
    best_ns = math.inf
    enough = max(makespan_ns)
    for number in sorted(makespan_ns, reverse=True):
        best_ns = min(best_ns, makespan_ns[number])
        if makespan_ns[number] * (1 - HELPS) < best_ns or makespan_ns[number] == best_ns:
            enough = number
    return enough


def _limit(enough: Replayed, most: Replayed, floor_ns: int, nodes: int) -> Limit:
    """Why nothing beyond `enough` helps, `most` being the replay with the most workers."""
    if enough.gil_share >= SATURATED:
        return "gil"
    if enough.cpu_share >= SATURATED:
        return "cpus"
    if most.makespan_ns * (1 - HELPS) <= floor_ns:
        return "nodes" if enough.workers >= nodes else "critical_path"
    if most.most_busy >= most.workers:
        return "none"
    # Nodes never wait for a worker, and yet get in each other's way.
    if max(enough.gil_share, enough.cpu_share) < SATURATED / 2:
        return "critical_path"
    return "gil" if enough.gil_share >= enough.cpu_share else "cpus"


def _reason(limit: Limit, enough: Replayed, most: Replayed, floor_ns: int) -> str:
    if limit == "gil":
        return f"the GIL is held for {share(enough.gil_share)} of the run, so that computing is serial"
    if limit == "cpus":
        return f"nodes use {share(enough.cpu_share)} of the CPUs"
    if limit == "critical_path":
        return f"the critical path takes {duration(floor_ns)}, however many workers there are"
    if limit == "nodes":
        return f"no more than {count(most.most_busy, 'node')} can run at once"
    return f"still scaling at {count(most.workers, 'worker')}, the largest count tried"
