"""DAGs of nodes that sleep, on few workers, into how near to the lower bound each order of ready nodes comes.

Run for real, all orders taking turns; and for many more DAGs in virtual time, through the live scheduler. The bound is
that of `strong_bound`, which no schedule beats. `python -m benchmarks.priorities` prints the tables of
`docs/performance.md`.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from benchmarks import dags, schedules
from benchmarks.bounds import lower_bound_seconds
from benchmarks.dags import Dag
from benchmarks.peers import HamiltonPeer
from benchmarks.samples import take_turns, timed
from benchmarks.settings import say
from benchmarks.strong_bound import strong_bound_seconds
from traced_threadpool import FutureAdapter
from traced_threadpool.priorities import Priority, PriorityName

FIFO = "fifo"
COLD = "cold: hops"
WARM = "warm: learned"

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


def table(multiples: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Mean and greatest of each case's DAGs, in Markdown, and of them all."""
    orders = list(next(iter(multiples.values())))
    lines = [f"| | DAGs | {' | '.join(orders)} |", f"|---|---|{'---|' * len(orders)}"]
    lines += [_row(name, by_order) for name, by_order in multiples.items()]
    together = {name: [value for each in multiples.values() for value in each[name]] for name in orders}
    lines.append(_row("**all**", together))
    above = {
        name: [value / fifo for value, fifo in zip(together[name], together[FIFO], strict=True)] for name in orders
    }
    for name in orders:
        over = sum(value > 1.02 for value in above[name])
        lines.append(
            f"{name}: over FIFO on average {statistics.fmean(above[name]):.3f}, at most {max(above[name]):.3f}; "
            f"by more than 2 % in {over} of {len(above[name])}"
        )
    return "\n".join(lines)


def _row(name: str, by_order: Mapping[str, Sequence[float]]) -> str:
    count = len(next(iter(by_order.values())))
    columns = " | ".join(f"{statistics.fmean(values):.3f} ({max(values):.3f})" for values in by_order.values())
    return f"| {name} | {count} | {columns} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.priorities", description=__doc__)
    parser.add_argument("--real-seeds", type=int, default=3, help="DAGs of each shape to run; %(default)s")
    parser.add_argument("--virtual-seeds", type=int, default=30, help="DAGs of each shape to play; %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts; %(default)s")
    asked = parser.parse_args(arguments)
    if asked.virtual_seeds:
        print("In virtual time: mean (greatest) multiple of the lower bound\n")
        print(table(run_virtually(list(cases(SHAPES, range(1, asked.virtual_seeds + 1), (4, 8, 16))))), "\n")
    if asked.real_seeds:
        print("For real: mean (greatest) multiple of the lower bound\n")
        print(table(run_for_real(list(cases(SHAPES, range(1, asked.real_seeds + 1), (4, 8))), asked.rounds)))


if __name__ == "__main__":
    main()
