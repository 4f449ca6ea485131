"""DAGs of nodes that sleep, on few workers, into how near to the lower bound each order of ready nodes comes.

Run for real, all orders taking turns; and for many more DAGs in virtual time, through the live scheduler. The bound is
that of `strong_bound`, which no schedule beats.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from benchmarks import dags, schedules
from benchmarks.bounds import lower_bound_seconds
from benchmarks.dags import Dag
from benchmarks.peers import HamiltonPeer
from benchmarks.samples import Results, Series, take_turns, timed
from benchmarks.settings import Settings, say
from benchmarks.strong_bound import strong_bound_seconds
from traced_threadpool import FutureAdapter
from traced_threadpool.engine.priorities import Priority, PriorityName

VIRTUAL_SECTION = "priorities, in virtual time"
REAL_SECTION = "priorities, for real"
MEASURE = "makespan"
VIRTUAL_SEEDS = 20
ROUNDS = 5

FIFO = "fifo"
COLD = "cold: hops"
WARM = "warm: learned"
ORDERS = (FIFO, COLD, WARM)

REAL: Mapping[str, PriorityName | Priority] = {FIFO: "fifo", COLD: schedules.hops, WARM: "critical_path"}
VIRTUAL: Mapping[str, Priority | None] = {FIFO: None, COLD: schedules.hops, WARM: schedules.known}

SCARCE = 0.8
"""Workers are scarce where the work divided among them is at least this part of the longest chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A DAG, the workers that it is run on, and what it cannot be faster than."""

    dag: Dag
    workers: int
    bound_seconds: float

    @property
    def name(self) -> str:
        return f"{self.dag.name} on {self.workers}"


def cases(shapes: Sequence[Callable[[int], Dag]], seeds: Sequence[int], workers: Sequence[int]) -> Iterator[Case]:
    """Every shape with every seed's durations on that many workers, where these are scarce."""
    for shape in shapes:
        for seed in seeds:
            dag = shape(seed)
            if not dag.seconds:
                dag = dags.sleeping(dag, seed=seed)
            elif seed != seeds[0]:
                continue  # it has durations of its own, whatever the seed
            for count in workers:
                work_seconds, longest_seconds = sum(dag.seconds.values()) / count, _longest_seconds(dag)
                if work_seconds >= SCARCE * longest_seconds:
                    yield Case(dag=dag, workers=count, bound_seconds=strong_bound_seconds(dag, workers=count))


def _longest_seconds(dag: Dag) -> float:
    return lower_bound_seconds(dag, workers=len(dag))


SHAPES: Sequence[Callable[[int], Dag]] = (
    lambda seed: dags.layered(8, 24, 3, seed=seed, vary=True),
    lambda seed: dags.fork_joins(5, 16),
    lambda seed: dags.tree(127),
    lambda seed: dags.out_tree(127),
    lambda seed: dags.chains(16, 8),
    lambda seed: dags.irregular(200, 30, seed=seed),
    lambda seed: dags.irregular(200, 200, seed=seed),
    lambda seed: dags.demo(),
)
SMOKE_SHAPES: Sequence[Callable[[int], Dag]] = (lambda seed: dags.chains(4, 3),)


def run_for_real(found: Sequence[Case], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Makespans over the bound, medians of the rounds, by case and order."""
    multiples: dict[str, dict[str, list[float]]] = {}
    for case in found:
        say(f"{case.name}, at least {case.bound_seconds:.3f} s")
        adapters = {
            name: FutureAdapter(case.workers, tracing=False, registry=CollectorRegistry(), priority=priority)
            for name, priority in REAL.items()
        }
        peers = {name: HamiltonPeer(adapter, close=adapter.close) for name, adapter in adapters.items()}
        try:
            actions = {name: timed(peer, peer.prepare(case.dag), case.dag.expected) for name, peer in peers.items()}
            taken = take_turns(actions, rounds=rounds, choice=random.Random(1))
        finally:
            for peer in peers.values():
                peer.close()
        for name, samples in taken.items():
            median = statistics.median(samples["wall"]) / case.bound_seconds
            multiples.setdefault(case.name, {}).setdefault(name, []).append(median)
    return multiples


def run_virtually(found: Sequence[Case]) -> dict[str, dict[str, list[float]]]:
    """The same in virtual time."""
    multiples: dict[str, dict[str, list[float]]] = {}
    for case in found:
        for name, policy in VIRTUAL.items():
            seconds = schedules.schedule_seconds(case.dag, workers=case.workers, policy=policy)
            multiples.setdefault(case.name, {}).setdefault(name, []).append(seconds / case.bound_seconds)
    return multiples


def measure(settings: Settings) -> list[Series]:
    """The multiples of each case's DAGs, in virtual time and for real."""
    shapes = SMOKE_SHAPES if settings.smoke else SHAPES
    seeds = range(1, 2 if settings.smoke else VIRTUAL_SEEDS + 1)
    few = (2,) if settings.smoke else (4, 8)
    found = _series(VIRTUAL_SECTION, run_virtually(list(cases(shapes, seeds, few if settings.smoke else (4, 8, 16)))))
    return found + _series(REAL_SECTION, run_for_real(list(cases(shapes, (1,), few)), settings.rounds(ROUNDS)))


def all_of(results: Results, section: str, order: str) -> list[float]:
    """The multiples of all cases."""
    found = (results.get(section, case, order, MEASURE) for case in results.cases(section))
    return [value for series in found if series is not None for value in series.values]


def _series(section: str, multiples: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Series]:
    return [
        Series(section=section, case=case, peer=order, measure=MEASURE, unit="× lower bound", values=tuple(values))
        for case, by_order in multiples.items()
        for order, values in by_order.items()
    ]
