"""DAGs of nodes that sleep into how many times the lower bound each peer takes."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import dags, peers
from benchmarks.bounds import list_schedule_seconds, lower_bound_seconds
from benchmarks.dags import Dag
from benchmarks.peers import open_peers
from benchmarks.samples import Series, take_turns, timed
from benchmarks.settings import Settings, say

SECTION = "makespan"
MEASURE = "makespan"
ROUNDS = 5
LAYERED_SEEDS = (1, 2, 3)

PEERS = (peers.UNTRACED, peers.TRACED, peers.HAMILTON, peers.DASK, peers.GRAPHLIB)
# Simulated, not run: see `bounds.list_schedule_seconds`.
FIFO = "simulated: first ready first"
FORESIGHT = "simulated: foreseeing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A DAG and the workers that it is run on."""

    dag: Dag
    workers: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dag.name}, seed {self.seed}, on {self.workers}"


def cases(*, smoke: bool) -> list[Case]:
    if smoke:
        return [
            Case(dag=dags.sleeping(dags.chains(4, 3), seed=1), workers=4, seed=1),
            Case(dag=dags.sleeping(dags.fork_joins(2, 4), seed=1), workers=2, seed=1),
        ]
    random_layers = [
        (seed, dags.sleeping(dags.layered(8, 24, 3, seed=seed, vary=True), seed=seed)) for seed in LAYERED_SEEDS
    ]
    chains = dags.sleeping(dags.chains(16, 8), seed=1)
    forks = dags.sleeping(dags.fork_joins(5, 16), seed=1)
    return [
        *(Case(dag=chains, workers=workers, seed=1) for workers in (8, 16)),
        Case(dag=dags.sleeping(dags.chains(100, 5), seed=1), workers=32, seed=1),
        *(Case(dag=dag, workers=workers, seed=seed) for workers in (8, 16) for seed, dag in random_layers),
        *(Case(dag=forks, workers=workers, seed=1) for workers in (8, 16)),
    ]


def measure(settings: Settings) -> list[Series]:
    """Makespans over the lower bound."""
    found: list[Series] = []
    for case in cases(smoke=settings.smoke):
        bound = lower_bound_seconds(case.dag, workers=case.workers)
        say(f"makespan: {case.name}, at least {bound:.3f} s")
        with open_peers(PEERS, case.workers) as opened:
            actions = {name: timed(peer, peer.prepare(case.dag), case.dag.expected) for name, peer in opened.items()}
            taken = take_turns(actions, rounds=settings.rounds(ROUNDS), choice=settings.choice)
        multiples = {name: [value / bound for value in samples["wall"]] for name, samples in taken.items()}
        for name, foreseeing in ((FIFO, False), (FORESIGHT, True)):
            seconds = list_schedule_seconds(case.dag, workers=case.workers, foreseeing=foreseeing)
            multiples[name] = [seconds / bound]
        found += [
            Series(section=SECTION, case=case.name, peer=name, measure=MEASURE, unit="× bound", values=tuple(values))
            for name, values in multiples.items()
        ]
    return found
