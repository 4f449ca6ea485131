"""A very large record and other settings into about the run to expect, in a fraction of the time.

A whole replay (see `what_if`) plays each node on a virtual machine and schedules it, and a diagnosis asks for many. Of
a run of a hundred thousand nodes this does less:

- What nodes wait for the GIL or a CPU is taken as it was recorded, and not played anew. Where a
  setting does away with such waiting, it goes; where more nodes would compute at once, it does not grow. Instead, no
  run is taken to be shorter than its computing with the lock, or than its computing by CPUs.
- With nothing changed, the answer is the record.
- No schedule is shorter than the critical path, or than the nodes' time by the workers; and none that leaves
  no worker idle while a node is ready is longer than both together (R. L. Graham, *Bounds for certain multiprocessing
  anomalies*, 1966). Where even the shortest leaves no noticeable gain, that is the answer; where the two are close,
  the middle between them. The limit of a backend counts like a number of workers, of its nodes. Only else the live
  scheduler schedules the nodes in virtual time, as in a whole replay, and that not more than a few times; from then on
  the longest is the answer, which errs on the side of no gain.

>>> from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
>>> from traced_threadpool.analysis.replay.what_if import replay
>>> nodes = tuple(
...     NodeExecution(key=name, name=name, submitted_ns=0, ready_ns=0, started_ns=start, ended_ns=start + 100)
...     for name, start in (("a", 0), ("b", 0), ("c", 100))
... )
>>> run = RecordedRun(id="1", name="doc", pool="p", started_ns=0, ended_ns=200, nodes=nodes, max_workers=2)
>>> plan = Estimate(run)
>>> replay(run, plan=plan).makespan_ns, replay(run, faster={"c": 2}, plan=plan).makespan_ns, plan.scheduled
(200, 150, 1)
>>> replay(run, faster={"a": 1.1}, workers=1, plan=plan).makespan_ns, plan.scheduled  # three times 100, or a bit less
(291, 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.plan import Plan
from traced_threadpool.analysis.replay.replayed import Replayed, ReplayedNode
from traced_threadpool.analysis.replay.settings import ReplaySettings
from traced_threadpool.analysis.replay.virtual_pool import most_at_once
from traced_threadpool.analysis.replay.what_if import HELPS
from traced_threadpool.model.states import State

WHOLE: Final = 10_000
"""Runs of up to so many nodes are replayed whole."""

NOTICEABLE: Final = 0.1
"""What takes less than this part off a run is not looked at closely; of numbers of workers, less than `HELPS`."""

CLOSE: Final = 0.04
"""Bounds that differ by less than this part of the run tell enough: the middle is within 2 % of it."""

MOST_SCHEDULED: Final = 2
"""How often nodes are scheduled: each time takes about a second for a hundred thousand."""


@dataclass(frozen=True, kw_only=True)
class _Estimated(Replayed):
    """Without nodes, where nothing was scheduled."""

    at_once: int
    """How many workers have a node at once at most."""

    @property
    def most_busy(self) -> int:
        return self.at_once


class Estimate(Plan):
    """See the module's text. `asked` counts what was asked for, `scheduled` for how much of it nodes were scheduled."""

    asked = 0
    scheduled = 0
    is_whole = False

    def _play_record(self) -> None:
        self._by_workers: dict[int | None, Replayed] = {}
        pool = self.pool
        submitted = [pool.submission(each) for each in range(len(self.nodes))]
        least_ns = list(map(min, *pool.hand_overs))
        # What makes a node start: what it was submitted after and how long, since when it had what is not recorded,
        # its inputs, the hand-over.
        self._in_order = [
            (each, *submitted[each], pool.released_ns.get(each, 0), pool.upstream[each], least_ns[each])
            for each in self._inputs_first([split for split, _ in submitted])
        ]
        self._recorded_ns = [node.duration_ns for node in self.nodes]
        self._recorded_at_once = most_at_once([(node.started_ns, node.ended_ns) for node in self.nodes])
        self._hand_overs_ns = sum(self.pool.hand_overs.next_ns)
        self._held_ns = sum([demand.held_ns for demand in self.demands.each])
        self._free_ns = sum([demand.free_ns for demand in self.demands.each])
        cpus = self.run.cpus
        most_ns = max(self._held_ns, (self._held_ns + self._free_ns) / cpus if cpus else 0.0)
        self._pace = min(1.0, self.run.duration_ns / most_ns) if most_ns else 1.0

    def replay(self, settings: ReplaySettings) -> Replayed:
        if settings != replace(self.unchanged, workers=settings.workers):
            return self._estimated(settings, NOTICEABLE)
        found = self._by_workers.get(settings.workers)
        if found is None:
            is_recorded = settings.workers in (None, self.workers)
            found = self._recorded(settings) if is_recorded else self._estimated(settings, HELPS)
            self._by_workers[settings.workers] = found
        return found

    def _recorded(self, settings: ReplaySettings) -> Replayed:
        nodes = tuple(ReplayedNode(node.key, node.name, node.started_ns, node.ended_ns) for node in self.nodes)
        return self._made(
            settings,
            self.run.duration_ns,
            self._recorded_at_once,
            self._recorded_ns,
            self._computed_ns(settings),
            nodes,
        )

    def _estimated(self, settings: ReplaySettings, noticeable: float) -> Replayed:
        self.asked += 1
        run_ns, workers = self.run.duration_ns, settings.workers or self.workers
        lasting_ns, computed_ns = self._lasting_ns(settings), self._computed_ns(settings)
        serial_ns = max(computed_ns[0], computed_ns[1] / settings.cpus if settings.cpus else 0.0)
        chain_ns = self._chain_ns(lasting_ns)
        in_pool_ns, on_backends_ns = self._work_ns(lasting_ns, settings)
        work_ns, between_ns = in_pool_ns / workers, self._hand_overs_ns / workers
        least_ns = max(serial_ns, max(chain_ns, work_ns, *on_backends_ns) + self.tail_ns)
        counted_ns = chain_ns / workers if in_pool_ns == sum(lasting_ns) else 0.0  # what of the chain is in the work
        waiting_ns = work_ns - counted_ns + sum(on_backends_ns)
        most_ns = max(serial_ns, least_ns, waiting_ns + between_ns + chain_ns + self.tail_ns)
        at_once = workers if work_ns >= chain_ns else min(workers, self._recorded_at_once)
        if (workers >= len(self.nodes) and not on_backends_ns) or least_ns > (1 - noticeable) * run_ns:
            makespan_ns = least_ns
        elif most_ns - least_ns < CLOSE * run_ns:
            makespan_ns = (least_ns + most_ns) / 2
        elif self.scheduled < MOST_SCHEDULED:
            last_ns, at_once = self._scheduled(lasting_ns, settings)
            makespan_ns = max(serial_ns, last_ns + self.tail_ns)
        else:
            makespan_ns = most_ns
        return self._made(settings, round(makespan_ns), at_once, lasting_ns, computed_ns)

    def _work_ns(self, lasting_ns: Sequence[int], settings: ReplaySettings) -> tuple[int, list[float]]:
        """What is to be done by the pool's workers; and of each backend that may hold nodes back, how long it takes for
        its own at least.
        """
        placed = self.placing.of(settings, self.workers)
        if not placed.limits:
            return sum(lasting_ns), []
        sums, counts = dict.fromkeys(placed.limits, 0), dict.fromkeys(placed.limits, 0)
        in_pool_ns = 0
        for backend, ns in zip(placed.backends, lasting_ns, strict=True):
            if backend:
                sums[backend] += ns
                counts[backend] += 1
            if backend not in placed.elsewhere:
                in_pool_ns += ns
        return in_pool_ns, [sums[name] / most for name, most in placed.limits.items() if most < counts[name]]

    def _scheduled(self, lasting_ns: Sequence[int], settings: ReplaySettings) -> tuple[float, int]:
        """When the last of the nodes ends, counted from the run's start, and how many had a worker at once at most."""
        self.scheduled += 1
        times, _ = self.pool.play(
            [Demand(ns) for ns in lasting_ns],
            self.pool.hand_overs,
            workers=settings.workers or self.workers,
            cpus=None,
            without=settings.without,
            ranks=self.ranks(settings),
            placed=self.placing.of(settings, self.workers),
        )
        known = [when for when in times if when is not None]
        return max((when.ended_ns for when in known), default=0.0), most_at_once(known)

    def _made(
        self,
        settings: ReplaySettings,
        makespan_ns: int,
        at_once: int,
        lasting_ns: Sequence[int],
        computed_ns: tuple[float, float],
        nodes: tuple[ReplayedNode, ...] = (),
    ) -> Replayed:
        workers = settings.workers or self.workers

        def share(part_ns: float, of: float) -> float:
            return part_ns / of if of > 0 else 0.0

        return _Estimated(
            makespan_ns=makespan_ns,
            workers=workers,
            nodes=nodes,
            busy_share=share(sum(lasting_ns), makespan_ns * workers),
            gil_share=share(computed_ns[0], makespan_ns),
            cpu_share=share(computed_ns[1], makespan_ns * (settings.cpus or 0)),
            assumptions=self.assumptions.of(settings),
            spares_workers=at_once < workers,
            at_once=at_once,
        )

    def _lasting_ns(self, settings: ReplaySettings) -> Sequence[int]:
        """What the nodes' durations become. Most settings are about one thing."""
        nodes, lasting_ns = self.nodes, self._recorded_ns
        for less_ns in filter(None, (settings.less_wait_ns, settings.less_contention_ns)):
            less = less_ns.get
            lasting_ns = [max(0, round(ns - less(node.key, 0.0))) for ns, node in zip(lasting_ns, nodes, strict=True)]
        if settings.quiet and self.demands.others:
            lasting_ns = [
                max(0, round(ns - sum(other))) for ns, other in zip(lasting_ns, self.demands.others, strict=True)
            ]
        gone: list[State] = [] if settings.gil else ["gil"]
        if settings.cpus and self.run.cpus and settings.cpus > self.run.cpus:
            gone.append("runqueue")
        for state in gone:
            lasting_ns = [max(0, ns - node.states.get(state, 0)) for ns, node in zip(lasting_ns, nodes, strict=True)]
        if settings.run_on:
            moved = zip(nodes, self.placing.wanted(self.demands, settings), self.demands.each, lasting_ns, strict=True)
            lasting_ns = [round(ns if demand is before else sum(demand)) for node, demand, before, ns in moved]
        if settings.faster or settings.faster_executions:
            factor = settings.factor
            lasting_ns = [round(ns * factor(node)) for ns, node in zip(lasting_ns, nodes, strict=True)]
        if settings.without:
            without = settings.without
            lasting_ns = [0 if node.name in without else ns for ns, node in zip(lasting_ns, nodes, strict=True)]
        return lasting_ns

    def _computed_ns(self, settings: ReplaySettings) -> tuple[float, float]:
        """What is computed with the GIL, and altogether; of the record, no more than fits into the run."""
        held_ns, free_ns = self._held_ns, self._free_ns
        if settings.faster or settings.faster_executions or settings.without or settings.run_on:
            held_ns = free_ns = 0.0
            for node, demand in zip(self.nodes, self.placing.wanted(self.demands, settings), strict=True):
                if node.name not in settings.without:
                    factor = settings.factor(node)
                    held_ns += demand.held_ns * factor
                    free_ns += demand.free_ns * factor
        held_ns, free_ns = held_ns * self._pace, free_ns * self._pace
        return held_ns if settings.gil else 0.0, held_ns + free_ns

    def _chain_ns(self, lasting_ns: Sequence[int]) -> int:
        """When the last node ends if none waits for a worker, counted from the run's start."""
        ended_ns = [0] * len(lasting_ns)
        for each, split, later_ns, released_ns, upstream, hand_over_ns in self._in_order:
            since_ns = later_ns if split is None else ended_ns[split] + later_ns
            if released_ns > since_ns:
                since_ns = released_ns
            for earlier in upstream:
                if ended_ns[earlier] > since_ns:
                    since_ns = ended_ns[earlier]
            ended_ns[each] = since_ns + hand_over_ns + lasting_ns[each]
        return max(ended_ns)

    def _inputs_first(self, splits: Sequence[int | None]) -> list[int]:
        """The nodes in an order in which each comes after its inputs, and after the split that it was submitted after.

        Raises:
            ValueError: Links form a circle.
        """
        many = len(self.nodes)
        left = [len(upstream) for upstream in self.pool.upstream]
        downstream: list[list[int]] = [[] for _ in range(many)]
        for each, upstream in enumerate(self.pool.upstream):
            for earlier in upstream:
                downstream[earlier].append(each)
            split = splits[each]
            if split is not None:
                left[each] += 1
                downstream[split].append(each)
        order = [each for each in range(many) if not left[each]]
        for each in order:  # grows while it is gone through
            for later in downstream[each]:
                left[later] -= 1
                if not left[later]:
                    order.append(later)
        if len(order) < many:
            raise ValueError(f"{many - len(order)} nodes of the record wait for one another; its links form a circle")
        return order
