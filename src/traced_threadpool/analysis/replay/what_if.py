"""A record and other settings into the run to expect, through the live scheduler in virtual time.

The same `Scheduler` that ran the record is told of the same nodes at the same moments, and asked for the next one
whenever a worker is free. What a node does meanwhile is played twice on a virtual machine (see `machine`), with
the recorded settings and with those asked for: what differs is how long it waits there for the interpreter lock or
a processor. The recorded waits for these are changed by that, and nodes of the durations that follow are
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

import difflib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Final, Literal, NamedTuple

from traced_threadpool.analysis.diagnosis.words import seconds, share
from traced_threadpool.analysis.replay.demand import demands
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.virtual_pool import VirtualPool, most_at_once
from traced_threadpool.engine.priorities import (
    CRITICAL_PATH,
    CUSTOM,
    FIFO,
    HOPS,
    PriorityName,
    RunPlan,
    critical_path,
    ranks_of,
)
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun

HELPS: Final = 0.02
"""More workers help if they take at least this part off the makespan."""

SATURATED: Final = 0.9
"""A resource that is busy for this part of the makespan is what limits it."""

TELLING_LOCK_SHARE: Final = 0.05
"""Waiting for locks is worth a word from this part of the nodes' time on."""

SLOWEST: Final = 1e-6
"""The least factor that a node may be made faster by; times far beyond would be no numbers any more."""

MOST_WORKERS: Final = 64

Limit = Literal["gil", "processors", "critical_path", "nodes", "none"]
"""Why more workers stop helping: the interpreter lock is always held; all processors are busy; the longest chain of
nodes is reached; no more nodes are ever ready at once; it is not known, since all
workers that were tried are used."""


class ReplayedNode(NamedTuple):
    """When an execution starts and ends, on the record's clock."""

    key: str
    name: str
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The run to expect.

    `nodes` are those that ran, in the order of the record, without those taken out. The shares are of the makespan:
    of all workers' time, how much they have a node; how long the interpreter lock is held; of all processors' time,
    how much nodes compute (0 when nobody knows how many there are). `assumptions` are sentences for people.
    """

    makespan_ns: int
    workers: int
    nodes: tuple[ReplayedNode, ...]
    busy_share: float
    gil_share: float
    processor_share: float
    assumptions: tuple[str, ...] = ()

    @property
    def makespan_seconds(self) -> float:
        return self.makespan_ns / 1e9

    @cached_property
    def most_busy(self) -> int:
        """The most workers that have a node at once."""
        return most_at_once([(node.started_ns, node.ended_ns) for node in self.nodes])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Makespan by workers, in the order of the workers.

    `enough_workers` is the least number beyond which no number asked about is faster by 2 % or more, and `limit`
    says why; `reason` is that in a sentence. `floor_ns` is the makespan with as many workers and processors as
    anybody could want and no interpreter lock: the longest chain of nodes.
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
    processors: int | None = None,
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
        processors: How many the machine has.
        gil: False: nothing ever waits for the interpreter lock, as in a free-threaded Python.
        priority: Which of the ready nodes goes first: "fifo", or "critical_path" with the record's own durations known.
        less_wait_ns: By key of an execution, how much less it waits for what is no node: a socket, a disk, a lock.
        less_contention_ns: By key, how much less it waits for the interpreter lock or a processor because of others
            than nodes. What nodes do to each other stays.
        faster_executions: By key of an execution, how many times faster that one becomes, in place of `faster`.
        plan: What was worked out of this run before, for whoever replays it several times.

    Raises:
        ValueError: The record has no node that ran, or links that form a circle; or a setting makes no sense.
    """
    settings = replace(
        _settings(run, workers, faster or {}, without, processors, gil, priority),
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
    processors: int | None = None,
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
    for count in counts:
        settings = _settings(run, count, faster or {}, without, processors, gil, priority)
        last = next(reversed(found.values()), None)
        # With workers to spare, more of them change nothing.
        found[count] = last if last is not None and last.most_busy < last.workers else plan.replay(settings)
    makespan_ns = {count: replayed.makespan_ns for count, replayed in found.items()}
    enough = _enough(makespan_ns)
    free = replace(settings, workers=len(plan.nodes), processors=None, gil=False)
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
    for count in sorted(makespan_ns, reverse=True):
        best_ns = min(best_ns, makespan_ns[count])
        if makespan_ns[count] * (1 - HELPS) < best_ns or makespan_ns[count] == best_ns:
            enough = count
    return enough


def _limit(enough: Replayed, most: Replayed, floor_ns: int, nodes: int) -> Limit:
    """Why nothing beyond `enough` helps, `most` being the replay with the most workers."""
    if enough.gil_share >= SATURATED:
        return "gil"
    if enough.processor_share >= SATURATED:
        return "processors"
    if most.makespan_ns * (1 - HELPS) <= floor_ns:
        return "nodes" if enough.workers >= nodes else "critical_path"
    if most.most_busy >= most.workers:
        return "none"
    # Nodes never wait for a worker, and yet get in each other's way.
    if max(enough.gil_share, enough.processor_share) < SATURATED / 2:
        return "critical_path"
    return "gil" if enough.gil_share >= enough.processor_share else "processors"


def _reason(limit: Limit, enough: Replayed, most: Replayed, floor_ns: int) -> str:
    if limit == "gil":
        return f"the interpreter lock is held for {share(enough.gil_share)} of the run: its computing is serial"
    if limit == "processors":
        return f"nodes compute for {share(enough.processor_share)} of the processors' time"
    if limit == "critical_path":
        return f"the longest chain of nodes takes {seconds(floor_ns)}, however many workers there are"
    if limit == "nodes":
        return f"no more than {most.most_busy} nodes have something to do at once"
    return f"{most.workers} workers are the most that were tried, and at times all of them have a node"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """What is asked of a replay, checked."""

    workers: int | None
    faster: Mapping[str, float]
    without: frozenset[str]
    processors: int | None
    gil: bool
    priority: PriorityName | None
    less_wait_ns: Mapping[str, float] = field(default_factory=dict)
    less_contention_ns: Mapping[str, float] = field(default_factory=dict)
    faster_executions: Mapping[str, float] = field(default_factory=dict)

    def factor(self, node: NodeExecution) -> float:
        """What a node's time is multiplied by."""
        return 1 / (self.faster_executions.get(node.key) or self.faster.get(node.name, 1))


def _settings(
    run: RecordedRun,
    workers: int | None,
    faster: Mapping[str, float],
    without: Collection[str],
    processors: int | None,
    gil: bool,
    priority: PriorityName | None,
) -> ReplaySettings:
    """The settings, if they make sense for this run."""
    for what, count in (("workers", workers), ("processors", processors)):
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError(f"{what} is {count!r}; it must be a whole number from 1 on, or None for what was recorded")
    if priority not in (None, FIFO, CRITICAL_PATH):
        raise ValueError(f"priority is {priority!r}; it must be 'fifo', 'critical_path', or None for what was recorded")
    if isinstance(without, str):
        raise ValueError(f"without is the string {without!r}; give a collection of names, such as ({without!r},)")
    for name, factor in faster.items():
        if type(factor) not in (int, float) or not 0 < factor < math.inf:
            raise ValueError(
                f"faster[{name!r}] is {factor!r}; it must be a number above 0, such as 2 for twice as fast"
            )
        if factor < SLOWEST:
            raise ValueError(f"faster[{name!r}] is {factor!r}; it must be {SLOWEST} at least, a million times slower")
    names = {node.name for node in run.nodes} if faster or without else set()
    for name in (*faster, *without):
        if name not in names:
            raise ValueError(_unknown(name, names))
    return ReplaySettings(
        workers=workers,
        faster=faster,
        without=frozenset(without),
        processors=processors or run.processors,
        gil=gil,
        priority=priority,
    )


def _unknown(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"no node {name!r} in the record; did you mean {' or '.join(repr(each) for each in near)}?"
    shown = sorted(names)[:10]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"no node {name!r} in the record; it has {', '.join(repr(each) for each in shown)}{more}"


class Plan:
    """What of a record stays the same in all its replays."""

    def __init__(self, run: RecordedRun) -> None:
        if run.left_out:
            raise ValueError(
                f"run {run.name!r} has no spans for {run.left_out:,} of its nodes, since it is large, and nothing can "
                "be replayed without them; record it with FutureAdapter(large_run=None), or replay it in the process, "
                "with record=True"
            )
        helped = _helped(run.outermost)
        self.nodes = tuple(node for node in run.outermost if node.key not in helped)
        self.helped = len(helped)
        if not self.nodes:
            raise ValueError(f"run {run.name!r} has no node that ran, of {len(run.nodes)}; there is nothing to replay")
        self.run = run
        self.workers = run.max_workers or max(
            1, most_at_once([(node.started_ns, node.ended_ns) for node in self.nodes])
        )
        self.pool = VirtualPool(self.nodes, run.started_ns, self.workers)
        self.demands = demands(self.nodes)
        self.quiet = self.pool.hand_overs.at_most_usual()
        self.tail_ns = max(0, run.ended_ns - max(node.ended_ns for node in self.nodes))
        self.unchanged = _settings(run, None, {}, (), None, True, None)
        self._play_record()

    def _play_record(self) -> None:
        """What the virtual machine makes of the record, for what it makes of other settings to be compared with."""
        self.contention_ns, self.machine_ns = self._contention(
            self.demands.each, (), self.workers, self.run.processors, self.ranks(self.unchanged)
        )
        # What it does not account for of each node's duration.
        self.missed_ns = [
            node.duration_ns - sum(demand) - contended_ns
            for node, demand, contended_ns in zip(self.nodes, self.demands.each, self.contention_ns, strict=True)
        ]

    def replay(self, settings: ReplaySettings) -> Replayed:
        workers = settings.workers or self.workers
        wanted: Sequence[Demand] = self.demands.each
        if settings.less_wait_ns:
            less_ns = settings.less_wait_ns.get
            wanted = [
                demand._replace(wait_ns=max(0.0, demand.wait_ns - less)) if (less := less_ns(node.key)) else demand
                for demand, node in zip(wanted, self.nodes, strict=True)
            ]
        factors = [1.0] * len(self.nodes)
        if settings.faster or settings.faster_executions:
            factors = [settings.factor(node) for node in self.nodes]
            wanted = [demand.times(factor) for demand, factor in zip(wanted, factors, strict=True)]
        if not settings.gil:
            wanted = [demand.without_lock() for demand in wanted]
        ranks = self.ranks(settings)
        contention_ns, machine_ns = self._contention(wanted, settings.without, workers, settings.processors, ranks)
        # What the virtual machine misses of the recorded contention goes with all of it. Where it sees none in the
        # record, that came from outside of the run, and stays.
        before_ns = sum(self.contention_ns)
        kept = min(1.0, sum(contention_ns) / before_ns) if before_ns else 1.0
        lasting = []
        missed_by_nodes_ns = left_of_it_ns = 0.0
        less_contention_ns = settings.less_contention_ns
        for node, demand, factor, contended_ns, recorded_ns in zip(
            self.nodes, wanted, factors, contention_ns, self.missed_ns, strict=True
        ):
            missed_ns = recorded_ns
            if missed_ns > 0:
                missed_by_nodes_ns += missed_ns
                if less_contention_ns:
                    missed_ns = max(0.0, missed_ns - less_contention_ns.get(node.key, 0.0))
                left_of_it_ns += missed_ns
            waits_ns = max(0.0, contended_ns + missed_ns * kept * min(1.0, factor))
            lasting.append(Demand(round(sum(demand) + waits_ns)))
        # So does what a hand-over takes beyond the usual: a worker just woken up must get the lock first.
        hand_overs = self.pool.hand_overs.between(self.quiet, kept)
        times = self.pool.play(
            lasting, hand_overs, workers=workers, processors=None, without=settings.without, ranks=ranks
        )
        started_ns, stretch = self.run.started_ns, 1.0
        if before_ns:
            last_ns = max((when.ended_ns for when in times if when is not None), default=0.0)
            missed_ns = self.run.duration_ns - self.tail_ns - self.machine_ns
            if missed_ns > 0 and missed_by_nodes_ns:
                missed_ns *= left_of_it_ns / missed_by_nodes_ns
            length_ns = max(0.0, machine_ns + missed_ns * kept)
            if last_ns and abs(length_ns - last_ns) > 1:
                stretch = length_ns / last_ns
        nodes = tuple(
            ReplayedNode(
                node.key,
                node.name,
                started_ns + round(when.started_ns * stretch),
                started_ns + round(when.ended_ns * stretch),
            )
            for node, when in zip(self.nodes, times, strict=True)
            if when is not None
        )
        makespan_ns = max((node.ended_ns for node in nodes), default=started_ns) - started_ns + self.tail_ns
        served = [demand for demand, when in zip(wanted, times, strict=True) if when is not None]
        held_ns = sum(demand.held_ns for demand in served)
        return Replayed(
            makespan_ns=makespan_ns,
            workers=workers,
            nodes=nodes,
            busy_share=_share(sum(node.ended_ns - node.started_ns for node in nodes), makespan_ns * workers),
            gil_share=_share(held_ns, makespan_ns),
            processor_share=_share(
                held_ns + sum(demand.free_ns for demand in served), makespan_ns * (settings.processors or 0)
            ),
            assumptions=self.assumptions(settings),
        )

    def ranks(self, settings: ReplaySettings) -> Mapping[str, float] | None:
        """What the scheduler goes by, by keys of nodes. Executions of one name count as their mean, as in a pool."""
        priority, nodes, without = settings.priority or self.run.priority, self.nodes, settings.without
        if priority == CUSTOM:  # nobody knows the policy, but in what order nodes started
            return {node.key: node.started_ns for node in nodes}
        if priority not in (CRITICAL_PATH, HOPS):
            return None
        of_name: dict[str, list[int]] = defaultdict(list)
        for node in nodes:
            of_name[node.name].append(node.duration_ns)
        cost = {
            name: 0.0 if name in without else 1.0 if priority == HOPS else fmean(each) / settings.faster.get(name, 1)
            for name, each in of_name.items()
        }
        plan = RunPlan(
            upstream={node.key: node.upstream for node in nodes},
            seconds={node.key: cost[node.name] for node in nodes},
        )
        return ranks_of(critical_path(plan))

    def _contention(
        self,
        wanted: Sequence[Demand],
        without: Collection[str],
        workers: int,
        processors: int | None,
        ranks: Mapping[str, float] | None,
    ) -> tuple[list[float], float]:
        """For each node, how long others keep it from computing on the virtual machine; and when the last one ends.

        Where nothing is computed there is nothing to play, and the end is 0.
        """
        if not any(demand.held_ns or demand.free_ns for demand in wanted):
            return [0.0] * len(wanted), 0.0
        times = self.pool.play(wanted, self.quiet, workers=workers, processors=processors, without=without, ranks=ranks)
        waits_ns = [
            0.0 if when is None else max(0.0, when.ended_ns - when.started_ns - sum(demand))
            for when, demand in zip(times, wanted, strict=True)
        ]
        return waits_ns, max((when.ended_ns for when in times if when is not None), default=0.0)

    def assumptions(self, settings: ReplaySettings) -> tuple[str, ...]:
        """What is taken for granted and may be wrong, for this record and these settings."""
        run, said = self.run, list(self._assumed)
        if self._computes:
            if run.attribution == "none":
                said.append(
                    "waiting for the interpreter lock was not measured; computing that overlapped is judged by its "
                    "duration alone"
                )
            elif settings.gil and self.demands.unknown:
                said.append(
                    f"{_names(self.demands.unknown)} met nothing that would tell whether computing holds the "
                    "interpreter lock; it is taken to hold it, as plain Python does"
                )
            if settings.processors is None:
                said.append("the record does not say how many processors there were; there are taken to be enough")
        if self._waits_for_locks:
            said.append("waiting for locks stays as it was, though it may come of other nodes of the run")
        return tuple(said)

    @cached_property
    def _computes(self) -> bool:
        return any(node.states.get("cpu") for node in self.nodes)

    @cached_property
    def _waits_for_locks(self) -> bool:
        lock_ns = sum([node.states.get("lock", 0) for node in self.nodes])
        return lock_ns > TELLING_LOCK_SHARE * sum([node.duration_ns for node in self.nodes])

    @cached_property
    def _assumed(self) -> tuple[str, ...]:
        """What holds for all settings."""
        run, nodes = self.run, self.nodes
        said = []
        if run.max_workers is None:
            said.append(
                f"the record does not say how many workers there were; at most {self.workers} had a node at once"
            )
        nested = sum(node.ran for node in run.nodes) - len(nodes) - self.helped
        if nested:
            said.append(f"{nested} nodes of nested runs are part of the nodes that ran them")
        if self.helped:
            said.append(f"{self.helped} nodes ran while another one on their worker waited, and are part of that one")
        missing = (run.expected_nodes or 0) - len(run.nodes)
        if missing > 0:
            said.append(f"{missing} nodes are missing in the record, and in the replay")
        unknown = sum(not node.states for node in nodes)
        if unknown:
            said.append(f"of {unknown} nodes it is not known what they did; they are taken to have waited, freely")
        return tuple(said)


def _helped(nodes: Sequence[NodeExecution]) -> set[str]:
    """Keys of nodes that a worker ran in the middle of another one, which waited for its nested run."""
    found = set()
    until_ns: dict[str, int] = {}  # by worker, the end of what it began with
    for node in sorted(nodes, key=lambda node: (node.started_ns, -node.ended_ns)):
        if node.worker and node.ended_ns <= until_ns.get(node.worker, node.started_ns) and node.duration_ns:
            found.add(node.key)
        else:
            until_ns[node.worker] = node.ended_ns
    return found


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
