"""What the detectors of the diagnosis ask of a record more than once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Final

from traced_threadpool.analysis.diagnosis.advice import ESTIMATED
from traced_threadpool.analysis.diagnosis.path_states import BETWEEN_NODES, PathState, path_states, states_of
from traced_threadpool.analysis.replay.estimate import WHOLE, Estimate
from traced_threadpool.analysis.replay.plan import Plan
from traced_threadpool.analysis.replay.replayed import Replayed
from traced_threadpool.analysis.replay.what_if import MOST_WORKERS, Scaling, counts_to_try, replay, scale
from traced_threadpool.model.formatting import count, duration, share
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import State
from traced_threadpool.recording.critical_path import CriticalPath, critical_path

CONTENTION: Final[frozenset[PathState]] = frozenset({"gil", "runqueue", "lock"})
"""What a node's time goes to because of others."""

WORTH_SCALING: Final = 0.1
"""If the most workers take less than this off a very large run, no number in between is asked about."""

_BOUNDLESS: Final = 1e6
"""How many times faster a node becomes that did nothing but what it does no more."""


class AnalyzedRun:
    """A record, with what follows from it at hand."""

    def __init__(self, run: RecordedRun) -> None:
        self.run = run
        self.duration_ns = run.duration_ns
        outer = run.by_parent
        self.nodes = run.outermost
        self.states = {node.key: states_of(run, node, nests=node.key in outer) for node in self.nodes}
        self.busy_ns = sum([node.duration_ns for node in self.nodes])
        self._without: dict[tuple[State, float], Replayed] = {}
        self._by_name: dict[tuple[PathState, ...], dict[str, float]] = {}

    @lazy
    def path(self) -> CriticalPath:
        return critical_path(self.run)

    @lazy
    def on_path(self) -> Mapping[PathState, float]:
        """What the critical path's time went to, in whole nanoseconds, so that it is told alike wherever it is told."""
        return {state: round(part_ns) for state, part_ns in path_states(self.run, self.path).items()}

    @lazy
    def own_on_path_ns(self) -> float:
        """How much of the critical path is what its nodes do by themselves."""
        others = BETWEEN_NODES | CONTENTION
        return sum(part_ns for state, part_ns in self.on_path.items() if state not in others)

    @lazy
    def plan(self) -> Plan:
        """What all replays have in common: worked out once. Of a very large run, what estimates have.

        Raises:
            ValueError: Nothing can be replayed.
        """
        return Estimate(self.run) if self.is_large else Plan(self.run)

    @property
    def is_large(self) -> bool:
        """Whether it is too large for whole replays, of which a diagnosis needs many."""
        return len(self.nodes) > WHOLE

    @property
    def estimated(self) -> str | None:
        """How what `replayed` gave was come by, if that was not a whole replay."""
        if not self.is_large or self.as_recorded is None:
            return None
        assert isinstance(self.plan, Estimate)
        return ESTIMATED.format(
            nodes=count(len(self.nodes), "node"),
            asked=count(self.plan.asked, "answer"),
            scheduled=count(self.plan.scheduled, "simpler replay"),
        )

    @property
    def source(self) -> str:
        """What gains rest on."""
        return "estimate" if self.is_large else "replay"

    def replayed(self, **settings: Any) -> Replayed:
        """`replay` of this run, with these settings of its."""
        return replay(self.run, plan=self.plan, **settings)

    @lazy
    def as_recorded(self) -> Replayed | None:
        """The replay with nothing changed; None where nothing can be replayed."""
        if self.duration_ns <= 0:
            return None
        try:
            return self.replayed()
        except ValueError:
            return None

    @lazy
    def without_gil(self) -> Replayed:
        """The run where nobody waits for the GIL.

        The replay knows of nodes alone. What others in the process did to them, or in a worker process threads of the
        node's own, is taken off as it was recorded.
        """
        as_recorded = self.is_held_from_outside or self.is_gil_of_workers
        return self.without("gil") if as_recorded else self.replayed(gil=False)

    @property
    def is_gil_of_workers(self) -> bool:
        """Whether nodes waited mostly on worker processes for the GIL, of which each has its own."""
        return sum(self._of_workers("gil").values()) > self.total_ns("gil") / 2

    def _of_workers(self, state: State) -> dict[str, float]:
        """Of nodes on worker processes, by key."""
        return {node.key: self.states[node.key].get(state, 0) for node in self.nodes if node.is_remote}

    @lazy
    def scaling(self) -> Scaling | None:
        """How the run scales with its workers. Findings and curves have the same numbers from here."""
        if self.as_recorded is None:
            return None
        if not self.is_large:
            return scale(
                self.run, {self.as_recorded.workers, *counts_to_try(self.run, len(self.plan.nodes))}, plan=self.plan
            )
        now = self.as_recorded.workers
        most = max(MOST_WORKERS, 2 * now)
        if self.gain_ns(self.replayed(workers=most)) < WORTH_SCALING * self.duration_ns:
            return scale(self.run, {now, most}, plan=self.plan)
        return scale(self.run, {now, 2 * now, 4 * now, most}, plan=self.plan)

    @lazy
    def most_at_once(self) -> int:
        return 0 if self.as_recorded is None else self.as_recorded.most_busy

    @property
    def at_once(self) -> float:
        """How many nodes ran at once, on average."""
        return self.busy_ns / self.duration_ns

    @lazy
    def idle_ns(self) -> int:
        """How long no node ran."""
        idle_ns, until_ns = 0, self.run.started_ns
        for node in sorted(self.nodes, key=lambda node: node.started_ns):
            idle_ns += max(0, node.started_ns - until_ns)
            until_ns = max(until_ns, node.ended_ns)
        return idle_ns + max(0, self.run.ended_ns - until_ns)

    @property
    def cpus_used(self) -> float | None:
        """Which part of all CPUs' time the nodes computed."""
        cpus = self.run.cpus
        return min(1.0, self.total_ns("cpu") / (self.duration_ns * cpus)) if cpus else None

    @property
    def is_held_from_outside(self) -> bool:
        """Whether it is mostly not nodes that held the GIL while nodes waited for it."""
        outside_ns = sum(ns for name, ns in self.run.gil_holders.items() if name.startswith(OUTSIDE_OF_NODES))
        return outside_ns > sum(self.run.gil_holders.values()) / 2

    def total_ns(self, *states: PathState) -> float:
        """Over all nodes."""
        return sum(sum(self._sums.get(state, {}).values()) for state in states)

    def by_name(self, *states: PathState) -> dict[str, float]:
        """The same by the nodes' names, the most first."""
        if states not in self._by_name:
            sums: dict[str, float] = {}
            for state in states:
                for name, part_ns in self._sums.get(state, {}).items():
                    sums[name] = sums.get(name, 0) + part_ns
            self._by_name[states] = most_first(sums)
        return self._by_name[states]

    @lazy
    def _sums(self) -> dict[PathState, dict[str, float]]:
        """By state, over all nodes of each name."""
        sums: dict[PathState, dict[str, float]] = {}
        for node in self.nodes:
            for state, part_ns in self.states[node.key].items():
                of_state = sums.setdefault(state, {})
                of_state[node.name] = of_state.get(node.name, 0) + part_ns
        return sums

    def own_ns(self, node: NodeExecution) -> float:
        """What a node takes by itself. Contention lengthens it, and whom it meets is chance."""
        parts = self.states[node.key]
        return node.duration_ns - parts.get("gil", 0) - parts.get("runqueue", 0) - parts.get("lock", 0)

    def gain_ns(self, other: Replayed | Scaling) -> float:
        """How much shorter the run would be."""
        if self.as_recorded is None:
            return 0.0
        return min(max(0, self.as_recorded.makespan_ns - _makespan_ns(other)), self.duration_ns)

    def without(self, state: State, part: float = 1.0) -> Replayed:
        """The run with this part of all waits of one kind taken off; of contention, what did not come from nodes."""
        known = self._without.get((state, part))
        if known is None:
            less_ns = {key: part * parts[state] for key, parts in self.states.items() if state in parts}
            if state == "lock":
                known = self._without[state, part] = self.replayed(locks=False, less_wait_ns=self.unshared(less_ns))
                return known
            if state == "runqueue" and self.plan.demands.others:
                for node, other in zip(self.plan.nodes, self.plan.demands.others, strict=True):
                    if node.key in less_ns:
                        less_ns[node.key] -= part * sum(other)
                known = self._without[state, part] = self.replayed(quiet=True, less_contention_ns=less_ns)
                return known
            less: dict[str, Mapping[str, float]] = {"less_wait_ns": less_ns}
            if state in ("gil", "runqueue"):
                far = self._of_workers(state) if state == "gil" else {}  # the GIL there is a wait to the replay
                less["less_contention_ns"] = {key: ns for key, ns in less_ns.items() if key not in far}
                less["less_wait_ns"] = {key: ns for key, ns in less_ns.items() if key in far}
            known = self._without[state, part] = self.replayed(**less)
        return known

    def unshared(self, locks_ns: Mapping[str, float]) -> Mapping[str, float]:
        """Of waits for locks by key, those of which nobody knows who shares the lock: a replay has these as waits."""
        nodes = self.plan.nodes
        known = {nodes[index].key for index in self.plan.locking}
        return {key: part_ns for key, part_ns in locks_ns.items() if key not in known}

    def of_run(self, part_ns: float) -> str:
        """A length of time, and which part of the run that is."""
        return f"{duration(part_ns)}, {share(part_ns / self.duration_ns)} of the run"

    def of_nodes(self, part_ns: float) -> str:
        """The same of all nodes' time."""
        return f"{duration(part_ns)}, {share(part_ns / self.busy_ns)} of the nodes' time"

    def instead(self, other: Replayed | Scaling) -> str:
        """What the run would take and what it did."""
        return self.instead_ns(_makespan_ns(other))

    def instead_ns(self, makespan_ns: int) -> str:
        """The same, of a length of time."""
        return f"{duration(makespan_ns)} instead of {duration(self.duration_ns)}"


OUTSIDE_OF_NODES: Final = "thread:"
"""How those begin who hold the GIL and are no nodes."""


def faster_by(before_ns: float, after_ns: float) -> float:
    """As many times, within what a replay can be asked."""
    return min(_BOUNDLESS, before_ns / max(before_ns / _BOUNDLESS, after_ns)) if before_ns > 0 else 1.0


def most_first(ns_by_name: Mapping[str, float]) -> dict[str, float]:
    """Those with the same time by their name, so that the order does not hang on the record's."""
    by_name = sorted(ns_by_name.items())
    by_name.sort(key=itemgetter(1), reverse=True)  # which leaves the order of those that are alike
    return dict(by_name)


def names_of(nodes: Iterable[NodeExecution]) -> tuple[str, ...]:
    """Each once."""
    return tuple(dict.fromkeys(node.name for node in nodes))


def _makespan_ns(found: Replayed | Scaling) -> int:
    return found.makespan_ns if isinstance(found, Replayed) else found.makespan_ns[found.enough_workers]
