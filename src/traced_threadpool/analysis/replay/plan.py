"""What of a record stays the same in all its replays, worked out once; and one replay."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from traced_threadpool.analysis.replay.assumptions import Assumptions
from traced_threadpool.analysis.replay.demand import demands
from traced_threadpool.analysis.replay.locks import Locking, find_locks
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.others import Others, others_of
from traced_threadpool.analysis.replay.placing import Placing, far_backends
from traced_threadpool.analysis.replay.replayed import Replayed, ReplayedNode
from traced_threadpool.analysis.replay.settings import ReplaySettings, settings_of
from traced_threadpool.analysis.replay.virtual_pool import Placed, VirtualPool, most_at_once
from traced_threadpool.engine.priorities import CRITICAL_PATH, CUSTOM, HOPS, RunPlan, critical_path, ranks_of
from traced_threadpool.engine.scheduler import AS_ADDED
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun


class Plan:
    """What of a record stays the same in all its replays."""

    is_whole = True
    """Whether nodes are played one by one: those of other runs in the pool too, and their waits for locks."""

    is_one_run = True
    """Whether it is the length of the whole that a replay has to give back."""

    def __init__(self, run: RecordedRun) -> None:
        if run.left_out:
            raise ValueError(
                f"run {run.name!r} has no spans for {run.left_out:,} of its nodes, since it is large, and nothing can "
                "be replayed without them; record it with tracing=Tracing(large_run=None), or replay it in "
                "the process, with record=True"
            )
        helped = _helped(run.outermost)
        own = tuple(node for node in run.outermost if node.key not in helped)
        self.helped = len(helped)
        if not own:
            raise ValueError(f"run {run.name!r} has no node that ran, of {len(run.nodes)}; there is nothing to replay")
        self.run = run
        self.own_count = len(own)
        self.workers = run.max_workers or max(1, most_at_once([(node.started_ns, node.ended_ns) for node in own]))
        others = others_of(run, own, self.workers) if self.is_whole else Others()
        self.nodes = (*own, *others.nodes)
        """Its own first, then those of other runs that were in the pool."""
        self.pool = self._pool_of(others)
        self.locks = find_locks(self.nodes) if self.is_whole else []
        self.locking = {index: each for lock in self.locks for index, each in lock.members.items()}
        self.placing = Placing(run, self.nodes)
        locks_ns = {index: ns for lock in self.locks for index, ns in lock.waits_ns.items()}
        self.demands = demands(self.nodes, locks_ns, far_backends(run), run.cpus)
        self.assumptions = Assumptions(
            run,
            own,
            workers=self.workers,
            helped=self.helped,
            unknown=self.demands.unknown,
            others=others,
            locks=self.locks,
            placing=self.placing,
        )
        self.quiet = self.pool.hand_overs.at_most_usual()
        self.tail_ns = max(0, run.ended_ns - max(node.ended_ns for node in own))
        self.unchanged = settings_of(run, None, {}, (), None, True, None)
        self._play_record()

    def _pool_of(self, others: Others) -> VirtualPool:
        index = {node.key: self.own_count + each for each, node in enumerate(others.nodes)}
        after = {run: index[key] for run, key in zip(others.run_of, others.after, strict=True) if key is not None}
        run_of = [0] * self.own_count + list(others.run_of) if others.nodes else ()
        return VirtualPool(self.nodes, self.run.started_ns, self.workers, run_of=run_of, after=after)

    def _play_record(self) -> None:
        """What the virtual machine makes of the record, for what it makes of other settings to be compared with."""
        self.contention_ns, self.machine_ns, _ = self._contention(
            self.demands.each,
            (),
            self.workers,
            self.run.cpus,
            self.ranks(self.unchanged),
            self.placing.recorded,
            locking=self.locking,
        )
        # What it does not account for of each node's duration.
        self.missed_ns = [
            node.duration_ns - sum(demand) - contended_ns
            for node, demand, contended_ns in zip(self.nodes, self.demands.each, self.contention_ns, strict=True)
        ]
        # Which node was first, of several runs or on a backend, is not always told right: what that is off by stays in
        # proportion.
        self._off = 1.0
        self._given_back: Replayed | None = None
        if self.is_one_run:
            replayed, length_ns = self._replay(self.unchanged), self.run.duration_ns
            replayed_ns = replayed.makespan_ns - self.tail_ns
            if replayed_ns > 0 and length_ns > self.tail_ns:
                self._off = (length_ns - self.tail_ns) / replayed_ns
                share = replayed.makespan_ns / length_ns
                self._given_back = replace(
                    replayed,
                    makespan_ns=length_ns,
                    nodes=self._as_recorded(),
                    gil_share=replayed.gil_share * share,
                    cpu_share=replayed.cpu_share * share,
                )

    def replay(self, settings: ReplaySettings) -> Replayed:
        """The run to expect."""
        recorded, workers = self._given_back, settings.workers or self.workers
        if recorded is None or replace(settings, workers=None) != self.unchanged:
            return self._replay(settings)
        if workers == self.workers:
            return recorded
        if workers > self.workers and recorded.spares_workers:
            return replace(recorded, workers=workers, busy_share=recorded.busy_share * self.workers / workers)
        return self._replay(settings)

    def range_of(self, settings: ReplaySettings) -> tuple[int, int] | None:
        """Between which lengths it lies, if it is not known well enough how long nodes held a lock."""
        if not settings.locks or all(lock.is_sure for lock in self.locks):
            return None
        lengths_ns = sorted([plan.replay(settings).makespan_ns for plan in (self, *self._variants)])
        return lengths_ns[0], lengths_ns[-1]

    @lazy
    def _variants(self) -> Sequence[Plan]:
        """This one, with the least and with the most that can have been under the locks."""
        found = []
        for shares in ([lock.least for lock in self.locks], [lock.most for lock in self.locks]):
            variant = copy.copy(self)
            variant.locking = {
                index: each
                for lock, share in zip(self.locks, shares, strict=True)
                for index, each in lock.with_share(share).items()
            }
            variant._play_record()
            found.append(variant)
        return found

    def _replay(self, settings: ReplaySettings) -> Replayed:
        workers = settings.workers or self.workers
        placed = self.placing.of(settings, self.workers)
        wanted = self.placing.wanted(self.demands, settings)
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
        contention_ns, machine_ns, spares_workers = self._contention(
            wanted,
            settings.without,
            workers,
            settings.cpus,
            ranks,
            placed,
            alone=settings.alone,
            locking=self.locking if settings.locks else None,
        )
        # What the virtual machine misses of the recorded contention goes with all of it. Where it sees none in the
        # record, that came from outside of the run, and stays.
        own = self.own_count
        before_ns = sum(self.contention_ns[:own])
        kept = min(1.0, sum(contention_ns[:own]) / before_ns) if before_ns else 1.0
        lasting: list[Demand] = []
        missed_by_nodes_ns = left_of_it_ns = 0.0
        less_contention_ns = settings.less_contention_ns
        for node, demand, factor, contended_ns, recorded_ns in zip(
            self.nodes, wanted, factors, contention_ns, self.missed_ns, strict=True
        ):
            missed_ns = recorded_ns
            if missed_ns > 0 and len(lasting) < own:
                missed_by_nodes_ns += missed_ns
                if less_contention_ns:
                    missed_ns = max(0.0, missed_ns - less_contention_ns.get(node.key, 0.0))
                left_of_it_ns += missed_ns
            waits_ns = max(0.0, contended_ns + missed_ns * kept * min(1.0, factor))
            lasting.append(Demand(round(sum(demand) + waits_ns)))
        # So does what a hand-over takes beyond the usual: a worker just woken up must get the lock first.
        hand_overs = self.pool.hand_overs.between(self.quiet, kept)
        times, spares_them_too = self.pool.play(
            lasting,
            hand_overs,
            workers=workers,
            cpus=None,
            without=settings.without,
            ranks=ranks,
            alone=settings.alone,
            placed=placed,
        )
        started_ns, stretch = self.run.started_ns, 1.0
        if before_ns:
            last_ns = max((when.ended_ns for when in times[:own] if when is not None), default=0.0)
            missed_ns = self.run.duration_ns - self.tail_ns - self.machine_ns
            if missed_ns > 0 and missed_by_nodes_ns:
                missed_ns *= left_of_it_ns / missed_by_nodes_ns
            length_ns = max(0.0, machine_ns + missed_ns * kept)
            if last_ns and abs(length_ns - last_ns) > 1:
                stretch = length_ns / last_ns
        stretch *= self._off
        nodes = tuple(
            ReplayedNode(
                node.key,
                node.name,
                started_ns + round(when.started_ns * stretch),
                started_ns + round(when.ended_ns * stretch),
            )
            for node, when in zip(self.nodes[:own], times, strict=False)
            if when is not None
        )
        makespan_ns = max((node.ended_ns for node in nodes), default=started_ns) - started_ns + self.tail_ns
        served = [demand for demand, when in zip(wanted, times, strict=True) if when is not None]
        held_ns = sum(demand.held_ns for demand in served)
        no_cpu_ns = min(held_ns, self.demands.others_held_ns) if settings.gil and not settings.quiet else 0.0
        return Replayed(
            makespan_ns=makespan_ns,
            workers=workers,
            nodes=nodes,
            busy_share=_share(
                sum([when.ended_ns - when.started_ns for when in times if when is not None]) * stretch,
                makespan_ns * workers,
            ),
            gil_share=_share(held_ns, makespan_ns),
            cpu_share=_share(
                held_ns - no_cpu_ns + sum(demand.free_ns for demand in served), makespan_ns * (settings.cpus or 0)
            ),
            assumptions=self.assumptions.of(settings),
            spares_workers=spares_workers and spares_them_too,
        )

    def _as_recorded(self) -> tuple[ReplayedNode, ...]:
        return tuple(
            ReplayedNode(node.key, node.name, node.started_ns, node.ended_ns) for node in self.nodes[: self.own_count]
        )

    def ranks(self, settings: ReplaySettings) -> Mapping[str, float] | None:
        """What the scheduler goes by, by keys of nodes. Executions of one name count as their mean, as in a pool."""
        priority, nodes, without = settings.priority or self.run.priority, self.nodes, settings.without
        if priority == CUSTOM:  # nobody knows the policy, but in what order nodes started
            return {node.key: node.started_ns for node in nodes}
        if settings.workers == 1 and self.workers > 1:
            return AS_ADDED
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
        cpus: int | None,
        ranks: Mapping[str, float] | None,
        placed: Placed,
        *,
        alone: bool = False,
        locking: Mapping[int, Locking] | None = None,
    ) -> tuple[list[float], float, bool]:
        """For each node, how long others keep it from computing on the virtual machine; when the run ends; and whether
        it spares workers.

        Where nothing is computed there is nothing to play, and the end is 0.
        """
        if not self.locks and not any(demand.held_ns or demand.free_ns for demand in wanted):
            return [0.0] * len(wanted), 0.0, True
        times, spares_workers = self.pool.play(
            wanted,
            self.quiet,
            workers=workers,
            cpus=cpus,
            without=without,
            ranks=ranks,
            alone=alone,
            locking=locking,
            locks=[lock.capacity for lock in self.locks],
            placed=placed,
        )
        waits_ns = [
            0.0 if when is None else max(0.0, when.ended_ns - when.started_ns - sum(demand))
            for when, demand in zip(times, wanted, strict=True)
        ]
        own = times[: self.own_count]
        return waits_ns, max((when.ended_ns for when in own if when is not None), default=0.0), spares_workers


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
