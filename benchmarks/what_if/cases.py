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

WORKERS = (1, 2, 4, 8, 16)


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


def cases() -> list[Case]:
    layered = functools.partial(dags.layered, 8, 8, 3, vary=True)
    return [
        _case("I/O", layered(seed=1), ["sleep"], 3.0, seed=1),
        _case("I/O", layered(seed=2), ["fetch"], 3.0, seed=2),
        _case("I/O", dags.fork_joins(4, 12), ["sleep", "fetch"], 3.0, seed=3),
        _case("I/O", dags.tree(63), ["fetch"], 3.0, seed=4),
        _case("I/O", dags.chains(10, 6), ["sleep", "fetch"], 3.0, seed=5),
        _case("GIL", layered(seed=3), ["python"], 1.2, seed=6),
        _case("GIL", dags.fork_joins(3, 10), ["python"], 1.2, seed=7),
        _case("GIL", dags.chains(8, 5), ["python"], 1.2, seed=8),
        _case("CPU without GIL", dags.tree(31), ["hash"], 2.4, seed=9),
        _case("CPU without GIL", dags.chains(8, 5), ["hash"], 2.4, seed=10),
        _case("mixed", layered(seed=4), ["fetch", "python"], 2.4, seed=11),
        _case("mixed", dags.chains(8, 6), ["fetch_and_parse"], 2.4, seed=12),
        _case("mixed", layered(seed=5), ["fetch_and_parse"], 2.4, seed=13),
        _case("mixed", dags.fork_joins(3, 12), ["fetch_and_parse_pages"], 2.4, seed=14),
        _case("mixed", dags.tree(63), ["fetch_and_parse_pages", "fetch"], 2.4, seed=15),
        _case("mixed", layered(seed=6), ["python", "hash", "fetch"], 2.4, seed=16),
        _case("mixed", dags.chains(10, 4), ["hash_and_python"], 2.0, seed=17),
        _case("mixed", dags.fork_joins(4, 8), ["fetch_and_hash", "fetch"], 2.4, seed=18),
        _case("mixed", layered(seed=7), ["fetch_and_parse", "hash", "sleep"], 2.4, seed=19),
    ]
