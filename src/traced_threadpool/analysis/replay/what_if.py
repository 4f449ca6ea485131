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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from traced_threadpool.analysis.replay.plan import Plan
from traced_threadpool.analysis.replay.replayed import Replayed, ReplayedNode
from traced_threadpool.analysis.replay.settings import ReplaySettings, settings_of
from traced_threadpool.analysis.replay.virtual_pool import most_at_once
from traced_threadpool.engine.priorities import PriorityName
from traced_threadpool.model.formatting import MAX_NAME, count, duration, one_line, outline, share
from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.model.recorded_run import RecordedRun

__all__ = [
    "HELPS",
    "MOST_WORKERS",
    "Limit",
    "Plan",
    "Replayed",
    "ReplayedNode",
    "Scaling",
    "counts_to_try",
    "replay",
    "scale",
]

HELPS: Final = 0.02
"""More workers help if they take at least this part off the makespan."""

SATURATED: Final = 0.9
"""A resource that is busy for this part of the makespan is what limits it."""

MOST_WORKERS: Final = 64

_FEW_NODES: Final = 300
_MANY_NODES: Final = 2_000
"""Of larger runs not every number of workers is replayed."""

Limit = Literal["gil", "cpus", "backend", "critical_path", "nodes", "none"]
"""Why more workers stop helping: the GIL is always held; all CPUs are busy; a backend, such as a lane of threads, lets
no more of its nodes run; the critical path is reached; no more nodes are ever ready at once; or none: the run still
scales at the largest number tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Makespan by workers, in the order of the workers.

    `enough_workers` is the least number beyond which no number asked about is faster by 2 % or more. `limits` says for
    each number what keeps the run from being shorter: `none` where more workers would make it so. `reason` is that
    of `enough_workers` in a sentence. `floor_ns` is the makespan with as many workers and CPUs as anybody could want
    and no GIL: the critical path, or what the limits of backends make of it.
    """

    makespan_ns: Mapping[int, int]
    recorded_workers: int
    enough_workers: int
    limits: Mapping[int, Limit]
    reason: str
    floor_ns: int
    assumptions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        enough = f"enough: {self.enough_workers:,}, limit: {self.limit}"
        tried = f"{min(self.makespan_ns):,} to {count(max(self.makespan_ns), 'worker')}"
        return outline(self, None, tried, enough)

    @property
    def limit(self) -> Limit:
        return self.limits[self.enough_workers]

    def best_beyond(self, workers: int) -> tuple[int, int] | None:
        """Of the larger numbers that were asked about, the least that is fastest, and its makespan."""
        larger = [(makespan_ns, number) for number, makespan_ns in self.makespan_ns.items() if number > workers]
        if not larger:
            return None
        makespan_ns, number = min(larger)
        return number, makespan_ns

    def of_more_than(self, workers: int) -> str:
        """What is to be expected of more workers than these, as the numbers have it.

        >>> told = {"recorded_workers": 2, "enough_workers": 2, "limits": {2: "gil"}, "reason": "why", "floor_ns": 1}
        >>> Scaling(makespan_ns={2: 1_000_000, 4: 1_000_000}, **told).of_more_than(2)
        'More than 2 workers would not help: why.'
        >>> Scaling(makespan_ns={2: 1_000_000, 4: 990_000}, **told).of_more_than(2)
        'More than 2 workers would gain 10.0 µs (1 %) at best, with 4: why.'
        """
        best, now_ns = self.best_beyond(workers), self.makespan_ns[workers]
        if best is None or best[1] >= now_ns:
            if self.limits[workers] == "none":
                return f"{self.reason[:1].upper()}{self.reason[1:]}."
            return f"More than {count(workers, 'worker')} would not help: {self.reason}."
        gained = f"{duration(now_ns - best[1])} ({share(1 - best[1] / now_ns)}) at best, with {best[0]:,}"
        gain = f"More than {count(workers, 'worker')} would gain {gained}"
        return f"{gain}: {self.reason}." if best[1] > now_ns * (1 - HELPS) else f"{gain}."


@explains_keywords("what_if")
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
    alone: bool = False,
    locks: bool = True,
    run_on: Mapping[str, str] | None = None,
    processes: int | None = None,
    moves: Mapping[str, float] | None = None,
    lanes: Mapping[str, int] | None = None,
    quiet: bool = False,
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
        alone: Without nodes of other runs in the pool, where the record has any.
        locks: False: nobody waits for a lock of which it is known who shares it.
        run_on: By name of a node, where it runs instead: "processes", "threads", or a backend of the record.
        processes: How many worker processes there are. None: as recorded; where there were none, one for each CPU.
        moves: By name of a node of `run_on`, the bytes of its arguments and result where the record does not tell.
        lanes: By name of a lane of the record, such as `Threads(max_workers=2)`, how many of its nodes run at once.
        quiet: True: no other program takes the CPUs from the nodes.
        plan: What was worked out of this run before, for whoever replays it several times.

    Raises:
        ValueError: The record has no node that ran, or links that form a circle; or a setting makes no sense.
    """
    settings = replace(
        settings_of(run, workers, faster or {}, without, cpus, gil, priority, run_on, processes, moves, lanes),
        less_wait_ns=less_wait_ns or {},
        less_contention_ns=less_contention_ns or {},
        faster_executions=faster_executions or {},
        alone=alone,
        locks=locks,
        quiet=quiet,
    )
    plan = plan or Plan(run)
    found = plan.replay(settings)
    between_ns = plan.range_of(settings)
    return found if between_ns is None else replace(found, range_ns=between_ns)


@explains_keywords("scale")
def scale(
    run: RecordedRun,
    workers: Iterable[int] = range(1, MOST_WORKERS + 1),
    *,
    faster: Mapping[str, float] | None = None,
    without: Collection[str] = (),
    cpus: int | None = None,
    gil: bool = True,
    priority: PriorityName | None = None,
    run_on: Mapping[str, str] | None = None,
    processes: int | None = None,
    moves: Mapping[str, float] | None = None,
    lanes: Mapping[str, int] | None = None,
    plan: Plan | None = None,
    beside: Iterable[int] = (),
) -> Scaling:
    """How the makespan goes with the number of workers. Arguments and errors are those of `replay`.

    `beside` are numbers that are not asked about, and tell what limits those that are: whether more would help.
    """
    asked = sorted(set(workers))
    if not asked:
        raise ValueError("workers is empty; give the numbers of workers to try, for example range(1, 17)")
    counts = sorted({*asked, *beside})
    plan = plan or Plan(run)
    found: dict[int, Replayed] = {}
    for number in counts:
        settings = settings_of(run, number, faster or {}, without, cpus, gil, priority, run_on, processes, moves, lanes)
        last = next(reversed(found.values()), None)
        # With workers to spare, more of them change nothing.
        found[number] = last if last is not None and last.spares_workers else plan.replay(settings)
    makespan_ns = {number: found[number].makespan_ns for number in asked}
    enough = least_enough(makespan_ns)
    most = found[counts[-1]]
    free = replace(settings, workers=len(plan.nodes))
    unbounded = most if most.spares_workers else plan.replay(free)
    floor_ns = plan.replay(replace(free, cpus=None, gil=False)).makespan_ns
    full = _full_backends(plan, free, unbounded)
    limits: dict[int, Limit] = {}
    beyond_ns = unbounded.makespan_ns
    for number in reversed(counts):
        limits[number] = _limit(found[number], beyond_ns, floor_ns, plan.own_count, bool(full))
        beyond_ns = min(beyond_ns, found[number].makespan_ns)
    return Scaling(
        makespan_ns=makespan_ns,
        recorded_workers=plan.workers,
        enough_workers=enough,
        limits={number: limits[number] for number in asked},
        reason=_reason(limits[enough], found[enough], most, floor_ns, full),
        floor_ns=floor_ns,
        assumptions=found[enough].assumptions,
    )


def counts_to_try(run: RecordedRun, nodes: int | None = None) -> Sequence[int]:
    """Numbers of workers that tell how a run scales: 1 to 64, of a larger run fewer, and always the recorded number.

    `nodes` is how many are replayed, where others than the run's own are.

    >>> counts_to_try(RecordedRun(id="1", name="r", pool="p", started_ns=0, ended_ns=1, nodes=(), max_workers=80))[-4:]
    [63, 64, 80, 160]
    """
    now, nodes = run.max_workers or 1, len(run.nodes) if nodes is None else nodes
    if nodes <= _FEW_NODES:
        tried = set(range(1, MOST_WORKERS + 1))
    elif nodes <= _MANY_NODES:
        tried = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, *range(now, MOST_WORKERS + 1)}
    else:
        tried = {1, 4, 16, MOST_WORKERS, 4 * now}
    return sorted(tried | {now, 2 * now})


def least_enough(makespan_ns: Mapping[int, int]) -> int:
    """The least number of workers that nothing beyond beats by `HELPS`.

    >>> least_enough({1: 400, 2: 200, 4: 199, 8: 100, 16: 99})
    8
    """
    best_ns = math.inf
    enough = max(makespan_ns)
    for number in sorted(makespan_ns, reverse=True):
        best_ns = min(best_ns, makespan_ns[number])
        if makespan_ns[number] * (1 - HELPS) < best_ns or makespan_ns[number] == best_ns:
            enough = number
    return enough


def _limit(replayed: Replayed, beyond_ns: int, floor_ns: int, nodes: int, is_backend_full: bool) -> Limit:
    """What keeps a run from being shorter, the shortest with more workers being `beyond_ns`."""
    if beyond_ns <= replayed.makespan_ns * (1 - HELPS):
        return "none"
    if replayed.gil_share >= SATURATED:
        return "gil"
    if replayed.cpu_share >= SATURATED:
        return "cpus"
    if is_backend_full:
        return "backend"
    if replayed.makespan_ns * (1 - HELPS) <= floor_ns:
        return "nodes" if replayed.most_busy >= nodes else "critical_path"
    if max(replayed.gil_share, replayed.cpu_share) < SATURATED / 2:
        return "critical_path"
    # More workers would not help, and yet nodes get in each other's way.
    return "gil" if replayed.gil_share >= replayed.cpu_share else "cpus"


def _full_backends(plan: Plan, free: ReplaySettings, unbounded: Replayed) -> Mapping[str, int]:
    """Backends that hold nodes back although there are workers for all, if the run is shorter without their limits."""
    placed = plan.placing.of(free, plan.workers)
    times: dict[str, list[tuple[float, float]]] = {}
    if placed.limits:
        where = {node.key: backend for node, backend in zip(plan.nodes, placed.backends, strict=True) if backend}
        for node in unbounded.nodes:
            if node.key in where:
                times.setdefault(where[node.key], []).append((node.started_ns, node.ended_ns))
    full = {
        name: placed.limits[name]
        for name, each in sorted(times.items())
        if most_at_once(each) >= placed.limits[name] < len(each)
    }
    if not full:
        return {}
    many = len(plan.nodes)
    lifted = plan.replay(replace(free, processes=many, lanes=dict.fromkeys(full, many)))
    return full if lifted.makespan_ns <= unbounded.makespan_ns * (1 - HELPS) else {}


def _reason(limit: Limit, enough: Replayed, most: Replayed, floor_ns: int, full: Mapping[str, int]) -> str:
    if limit == "gil":
        return f"the GIL is held for {share(enough.gil_share)} of the run, so that computing is serial"
    if limit == "cpus":
        return f"nodes use {share(enough.cpu_share)} of the CPUs"
    if limit == "backend":
        return " and ".join(
            [f"`{one_line(name, MAX_NAME)}` lets {count(many, 'node')} run at once" for name, many in full.items()]
        )
    if limit == "critical_path":
        if enough.makespan_ns * (1 - HELPS) <= floor_ns:
            return f"the critical path alone takes {duration(floor_ns)}"
        return f"the critical path takes {duration(enough.makespan_ns)}, with its waits for the GIL and CPUs"
    if limit == "nodes":
        return f"no more than {count(most.most_busy, 'node')} can run at once"
    return f"still scaling at {count(enough.workers, 'worker')}, the largest count tried"
