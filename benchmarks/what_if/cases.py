"""Shapes and kinds of work into DAGs to run on several numbers of workers."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from benchmarks import dags
from benchmarks.dags import Dag
from benchmarks.what_if.work import Worker

WORKERS = (1, 2, 4, 8, 16, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A DAG, what each node does and for how many seconds."""

    kind: str
    name: str
    dag: Dag
    work: Mapping[str, tuple[str, float]]

    def module(self, worker: Worker) -> ModuleType:
        """The nodes' functions, with their work in them."""
        module = self.dag.module
        for node, (what, seconds) in self.work.items():
            function = functools.partial(getattr(worker, what), seconds)
            setattr(module, node, _after(function, getattr(module, node)))
        return module


def _after(work: Callable[[], object], function: Callable[..., int]) -> Callable[..., int]:
    """The same node, once the work is done."""

    @functools.wraps(function)
    def node(**inputs: Any) -> int:
        work()
        return function(**inputs)

    return node


def _case(kind: str, dag: Dag, what: Sequence[str], total_seconds: float, *, seed: int) -> Case:
    """Kinds of work are dealt out in turn, in an order drawn at random; durations vary threefold."""
    choice = random.Random(seed)
    nodes = [node for node in dag.inputs if node != "end"]
    kinds = [what[index % len(what)] for index in range(len(nodes))]
    choice.shuffle(kinds)
    sizes = [choice.uniform(0.5, 1.5) for _ in nodes]
    unit = total_seconds / sum(sizes)
    work = {node: (each, size * unit) for node, each, size in zip(nodes, kinds, sizes, strict=True)}
    return Case(kind=kind, name=f"{dag.name}: {', '.join(what)}", dag=dag, work=work)


def cases(scale: float = 1.0) -> list[Case]:
    """All of them, in the order of their kinds."""
    layered = functools.partial(dags.layered, 8, 8, 3, vary=True)
    kinds: Sequence[tuple[str, Sequence[tuple[Dag, Sequence[str], float]]]] = [
        (
            "I/O",
            [
                (layered(seed=1), ["sleep"], 2.6),
                (layered(seed=2), ["fetch"], 2.6),
                (dags.fork_joins(4, 12), ["sleep", "fetch"], 2.6),
                (dags.tree(63), ["fetch"], 2.6),
                (dags.chains(10, 6), ["sleep", "fetch"], 2.6),
                (dags.wide(101), ["sleep"], 4.0),
            ],
        ),
        (
            "GIL",
            [
                (layered(seed=3), ["python"], 1.2),
                (dags.fork_joins(3, 10), ["python"], 1.2),
                (dags.chains(8, 5), ["python"], 1.2),
                (dags.tree(31), ["python"], 1.2),
            ],
        ),
        ("CPU without GIL", [(dags.tree(31), ["hash"], 2.4), (dags.chains(8, 5), ["hash"], 2.4)]),
        (
            "mixed",
            [
                (layered(seed=4), ["fetch", "python"], 2.4),
                (dags.chains(8, 6), ["fetch_and_parse"], 2.4),
                (layered(seed=5), ["fetch_and_parse"], 2.4),
                (dags.fork_joins(3, 12), ["fetch_and_parse_pages"], 2.4),
                (dags.tree(63), ["fetch_and_parse_pages", "fetch"], 2.4),
                (layered(seed=6), ["python", "hash", "fetch"], 2.4),
                (dags.chains(10, 4), ["hash_and_python"], 2.0),
                (dags.fork_joins(4, 8), ["fetch_and_hash", "fetch"], 2.4),
                (layered(seed=7), ["fetch_and_parse", "hash", "sleep"], 2.4),
                (dags.fork_joins(2, 48), ["fetch_and_hash", "fetch"], 3.0),
            ],
        ),
    ]
    of_all = [(kind, *each) for kind, of_kind in kinds for each in of_kind]
    return [
        _case(kind, dag, what, seconds * scale, seed=seed)
        for seed, (kind, dag, what, seconds) in enumerate(of_all, start=1)
    ]
