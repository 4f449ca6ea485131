"""Where nodes run in a replay, and what they ask for there: as recorded, or moved between threads and backends.

A node that moves to a process computes as long as it did, without this process's GIL: each process has its own. It
takes one of this machine's CPUs like any other, waits no more for what is contention, and pays for moving its arguments
and its result. What that takes is the median of its executions there, where the record has any. Else it is `CALL_NS`,
which is what it takes for small values, and for each byte that is told as much as the record's other nodes took, or a
nanosecond, which is what arrays take. A node that moves to threads does not pay any more, and computes with the GIL, as
far as executions of that name on threads did.

How many nodes of a backend run at once is its limit, whichever way they came: the recorded one, or what the setting
says of its lane, or of processes. Processes are taken to have been started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from traced_threadpool.analysis.replay.demand import Demands
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.settings import ReplaySettings
from traced_threadpool.analysis.replay.virtual_pool import Placed, most_at_once
from traced_threadpool.model.lane import PROCESSES
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.records import THREADS

CALL_NS: Final = 400_000
"""What a call to another process takes of the node's time, with arguments and a result of a few kilobytes."""

BYTE_NS: Final = 1.0
"""What each byte takes beyond that, of large arrays."""

MANY_BYTES: Final = 1_000_000
"""Executions that moved fewer tell nothing of what a byte takes."""


def far_backends(run: RecordedRun) -> frozenset[str]:
    """Those whose workers are taken to have other CPUs than this machine's."""
    return frozenset([name for name, (kind, _) in run.backends.items() if kind not in (PROCESSES, THREADS)])


@dataclass(frozen=True)
class Placing:
    """Where the nodes of a record ran. `nodes` are those that are replayed, of whichever run."""

    run: RecordedRun
    nodes: Sequence[NodeExecution]

    @lazy
    def recorded(self) -> Placed:
        """As it was."""
        limits = self.limits(None, {})
        return Placed([node.backend for node in self.nodes], limits, self._elsewhere(limits))

    def limits(self, processes: int | None, lanes: Mapping[str, int]) -> dict[str, int]:
        """How many nodes of each backend run at once; where the record does not say, as many as did."""
        found: dict[str, list[tuple[float, float]]] = {}
        for node in self.nodes:
            if node.backend:
                found.setdefault(node.backend, []).append((node.started_ns, node.ended_ns))
        limits = {name: most_at_once(each) for name, each in found.items()}
        for name, (kind, most) in self.run.backends.items():
            limits[name] = processes if processes is not None and kind == PROCESSES else lanes.get(name, most)
        return limits

    def of(self, settings: ReplaySettings, workers: int) -> Placed:
        """With these settings."""
        if not settings.run_on and not settings.lanes and settings.processes is None:
            return self.recorded
        limits, where = self.limits(settings.processes, settings.lanes), self._where(settings)
        if PROCESSES in where.values() and PROCESSES not in limits:
            limits[PROCESSES] = settings.processes or self.run.cpus or workers
        return Placed([where.get(node.name, node.backend) for node in self.nodes], limits, self._elsewhere(limits))

    def _elsewhere(self, limits: Mapping[str, int]) -> frozenset[str]:
        """Those of these backends whose nodes hold none of the pool's workers; of older records, where they had one."""
        remote = {node.backend for node in self.nodes if node.is_remote}
        known = self.run.backends
        return frozenset(
            name for name in limits if (known[name].kind != THREADS if name in known else name in {PROCESSES, *remote})
        )

    def _where(self, settings: ReplaySettings) -> Mapping[str, str]:
        """The backend of each node that is asked to move, by its name; empty for threads."""
        own = [name for name, (kind, _) in self.run.backends.items() if kind == PROCESSES]
        names = {THREADS: "", PROCESSES: own[0] if own else PROCESSES}
        return {node: names.get(backend, backend) for node, backend in settings.run_on.items()}

    def wanted(self, demands: Demands, settings: ReplaySettings) -> Sequence[Demand]:
        """What each node asks for where it is now."""
        asked = demands.asked(gil=settings.gil, quiet=settings.quiet)
        if not settings.run_on:
            return asked
        where, away = self._where(settings), self._without_gil(demands, settings)
        return [
            demand
            if (backend := where.get(node.name)) is None
            else self._moved(node, demand, elsewhere, backend, demands, settings)
            for node, demand, elsewhere in zip(self.nodes, asked, away, strict=True)
        ]

    def _without_gil(self, demands: Demands, settings: ReplaySettings) -> Sequence[Demand]:
        """The same in a process of its own, on a machine as busy with other programs.

        A thread that waits for the GIL wakes up again and again, and waits for a CPU each time: of its waits for one,
        only those of the time in which it computed go along.
        """
        asked = demands.asked(gil=False, quiet=settings.quiet)
        if settings.quiet or not demands.others:
            return asked
        found = []
        for node, demand, other in zip(self.nodes, asked, demands.others, strict=True):
            gil_ns, cpu_ns = node.states.get("gil", 0), node.states.get("cpu", 0)
            idle_ns = sum(other) * gil_ns / (gil_ns + cpu_ns) if gil_ns > 0 else 0.0
            found.append(demand._replace(wait_ns=max(0.0, demand.wait_ns - idle_ns)))
        return found

    def _moved(
        self,
        node: NodeExecution,
        demand: Demand,
        away: Demand,
        backend: str,
        demands: Demands,
        settings: ReplaySettings,
    ) -> Demand:
        here = not backend or backend in self._lanes
        is_far, was_far = backend in self._far, node.is_remote and node.backend in self._far
        if here is not node.is_remote and is_far is was_far:
            return demand
        wait_ns, held_ns, free_ns = self._back(node, demands) if node.is_remote else demand if here else away
        if here:
            return Demand(wait_ns, held_ns, free_ns)
        wait_ns += self._transfer_ns(node.name, backend, settings)
        return Demand(wait_ns + held_ns + free_ns) if is_far else Demand(wait_ns, 0.0, held_ns + free_ns)

    @lazy
    def _far(self) -> frozenset[str]:
        return far_backends(self.run)

    @lazy
    def _lanes(self) -> frozenset[str]:
        """The backends that are this process's own threads."""
        return frozenset([name for name, (kind, _) in self.run.backends.items() if kind == THREADS])

    def _back(self, node: NodeExecution, demands: Demands) -> Demand:
        cpu_ns = max(0, min(node.duration_ns, node.states.get("cpu", 0)))
        gone_ns = sum([node.states.get(state, 0) for state in ("transfer", "remote_queue", "runqueue")])
        held_ns = cpu_ns * demands.held_share.get(node.name, 1.0)
        return Demand(max(0.0, node.duration_ns - cpu_ns - gone_ns), held_ns, cpu_ns - held_ns)

    def _transfer_ns(self, name: str, backend: str, settings: ReplaySettings) -> float:
        """What moving takes for each execution, about."""
        size = settings.moves.get(name)
        known = self._transfers_ns.get((name, backend))
        if size is None and known is not None:
            return known
        return CALL_NS + (size or 0) * self._byte_ns

    def is_transfer_known(self, name: str, settings: ReplaySettings) -> bool:
        """Whether the record has executions of the node where it goes, or its size is told."""
        return name in settings.moves or (name, self._where(settings)[name]) in self._transfers_ns

    @lazy
    def _byte_ns(self) -> float:
        large = [node for node in self.nodes if node.moved_bytes >= MANY_BYTES]
        moving_ns = sum([node.states.get("transfer", 0) for node in large])
        return moving_ns / sum([node.moved_bytes for node in large]) if moving_ns else BYTE_NS

    @lazy
    def _transfers_ns(self) -> Mapping[tuple[str, str], float]:
        found: dict[tuple[str, str], list[int]] = {}
        for node in self.nodes:
            if node.is_remote:
                found.setdefault((node.name, node.backend), []).append(node.states.get("transfer", 0))
        return {where: median(each) for where, each in found.items()}
