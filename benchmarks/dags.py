"""A shape and its sizes into a DAG that every peer can run.

A node's value depends on its own number and on the values of all its inputs, so the value of the last node tells
whether every node has run, once, after its inputs.

>>> dag = chains(2, 3)
>>> list(dag.inputs)
['c0_0', 'c0_1', 'c0_2', 'c1_0', 'c1_1', 'c1_2', 'end']
>>> dag.inputs["end"]
('c0_2', 'c1_2')
>>> dag.expected == dag.module.end(*(dag.values[name] for name in dag.inputs["end"]))
True
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType

from benchmarks.modules import node_value, write_module

SHORTEST_SECONDS = 0.005
LONGEST_SECONDS = 0.040


@dataclass(frozen=True, kw_only=True, eq=False)
class Dag:
    """Nodes in topological order, each with the names of its inputs; the last node depends on all others."""

    name: str
    inputs: dict[str, tuple[str, ...]]
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each node sleeps; one that is missing does not."""

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def end(self) -> str:
        return next(reversed(self.inputs))

    @cached_property
    def in_order(self) -> dict[str, tuple[str, ...]]:
        """The inputs of each node, nodes in the order in which Hamilton submits them: depth first from the last one."""
        found: dict[str, tuple[str, ...]] = {}
        path = [self.end]
        while path:
            node = path[-1]
            following = next((each for each in self.inputs[node] if each not in found), None)
            if following is not None:
                path.append(following)
            else:
                found[path.pop()] = self.inputs[node]
        return found

    @cached_property
    def module(self) -> ModuleType:
        """One real function a node, as a user of Hamilton would write it."""
        return write_module(self.name, self.inputs, self.seconds)

    @cached_property
    def values(self) -> dict[str, int]:
        """The value of every node, worked out without running any."""
        values: dict[str, int] = {}
        for number, (node, upstream) in enumerate(self.inputs.items()):
            values[node] = node_value(number, [values[name] for name in upstream])
        return values

    @property
    def expected(self) -> int:
        return self.values[self.end]


def wide(size: int) -> Dag:
    """Independent nodes and one that takes them all."""
    sources: dict[str, tuple[str, ...]] = {f"w{i}": () for i in range(size - 1)}
    return Dag(name=f"wide {size}", inputs={**sources, "end": tuple(sources)})


def chains(count: int, length: int) -> Dag:
    """Independent chains, joined by one node."""
    inputs: dict[str, tuple[str, ...]] = {}
    for chain in range(count):
        for link in range(length):
            inputs[f"c{chain}_{link}"] = (f"c{chain}_{link - 1}",) if link else ()
    inputs["end"] = tuple(f"c{chain}_{length - 1}" for chain in range(count))
    return Dag(name=f"chains {count}x{length}", inputs=inputs)


def layered(layers: int, width: int, fan_in: int, *, seed: int = 0, vary: bool = False) -> Dag:
    """Layers of nodes that take `fan_in` nodes of the layer before, or with `vary` from one to that many."""
    choice = random.Random(seed)
    inputs: dict[str, tuple[str, ...]] = {}
    before: list[str] = []
    for layer in range(layers):
        names = [f"l{layer}_{i}" for i in range(width)]
        for name in names:
            wanted = choice.randint(1, fan_in) if vary else fan_in
            inputs[name] = tuple(choice.sample(before, min(wanted, len(before))))
        before = names
    used = {name for upstream in inputs.values() for name in upstream}
    inputs["end"] = tuple(name for name in inputs if name not in used)
    return Dag(name=f"layered {layers}x{width} fan-in {fan_in}", inputs=inputs)


def tree(size: int) -> Dag:
    """A binary tree, from its leaves to its root."""
    inputs = {
        f"t{i}": tuple(f"t{child}" for child in (2 * i + 1, 2 * i + 2) if child < size) for i in reversed(range(size))
    }
    return Dag(name=f"binary tree {size}", inputs=inputs)


def out_tree(size: int) -> Dag:
    """A binary tree, from its root to its leaves, which one node joins."""
    inputs: dict[str, tuple[str, ...]] = {f"t{i}": (f"t{(i - 1) // 2}",) if i else () for i in range(size)}
    inputs["end"] = tuple(f"t{i}" for i in range(size) if 2 * i + 1 >= size)
    return Dag(name=f"tree from its root {size}", inputs=inputs)


def irregular(size: int, reach: int, *, seed: int) -> Dag:
    """Each node takes none to three of the `reach` nodes before it."""
    choice = random.Random(seed)
    names = [f"r{i}" for i in range(size)]
    inputs: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(names):
        near = names[max(0, number - reach) : number]
        inputs[name] = tuple(choice.sample(near, min(len(near), choice.choice((0, 1, 1, 2, 2, 3)))))
    used = {name for upstream in inputs.values() for name in upstream}
    inputs["end"] = tuple(name for name in inputs if name not in used)
    return Dag(name=f"irregular {size} within {reach}", inputs=inputs)


def demo() -> Dag:
    """The pipeline of `make demo`, asleep for as long as its nodes take."""
    inputs: dict[str, tuple[str, ...]] = {}
    seconds: dict[str, float] = {}
    regions = range(8)
    for region in regions:
        for name, upstream, taken in (
            ("fetched", "", 0.6 if region == 7 else 0.15),
            ("parsed", "fetched", 0.03),
            ("stored", "parsed", 0.02),
            ("digest", "fetched", 0.06),
        ):
            inputs[f"{name}{region}"] = (f"{upstream}{region}",) if upstream else ()
            seconds[f"{name}{region}"] = taken
    inputs["quota"], seconds["quota"] = (), 0.15
    ends = [f"{name}{region}" for name in ("stored", "digest") for region in regions]
    inputs["ranking"] = (*ends, "quota")
    return Dag(name="the demo", inputs=inputs, seconds=seconds)


def fork_joins(stages: int, width: int) -> Dag:
    """Stages of independent nodes, each stage joined by a node that the next one starts from."""
    inputs: dict[str, tuple[str, ...]] = {}
    join: tuple[str, ...] = ()
    for stage in range(stages):
        forked = tuple(f"f{stage}_{i}" for i in range(width))
        inputs.update((name, join) for name in forked)
        inputs[f"join{stage}"] = forked
        join = (f"join{stage}",)
    return Dag(name=f"fork-join {stages}x{width}", inputs=inputs)


def sleeping(dag: Dag, *, seed: int, shortest: float = SHORTEST_SECONDS, longest: float = LONGEST_SECONDS) -> Dag:
    """The same DAG, each node sleeping for a time drawn evenly between the two."""
    choice = random.Random(seed)
    seconds = {node: round(choice.uniform(shortest, longest), 4) for node in dag.inputs}
    return Dag(name=dag.name, inputs=dag.inputs, seconds=seconds)
