"""Stretches of time into what overlaps: rows of a timeline, how many at each moment.

Nodes become rows: one for each worker, and more where executions overlap on one.
They do where a node executes a run of its own and its worker helps with it, and where the record names no worker.
Of a node on a worker of a backend its function counts: while it is moved, the worker may run another.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> def node(key: str, worker: str, started_ns: int, ended_ns: int) -> NodeExecution:
...     return NodeExecution(key=key, name=key, submitted_ns=0, ready_ns=0, started_ns=started_ns, ended_ns=ended_ns,
...         worker=worker)
>>> rows = timeline([node("outer", "w1", 0, 9), node("inner", "w1", 2, 4), node("next", "w1", 9, 12),
...     node("b", "w0", 1, 5)])
>>> [(row.worker, row.first, [node.key for node in row.nodes]) for row in rows]
[('w0', True, ['b']), ('w1', True, ['outer', 'next']), ('w1', False, ['inner'])]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from traced_threadpool.model.recorded_run import NodeExecution


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Executions of one worker that do not overlap, by their start. Further rows of a worker are not its `first`."""

    worker: str
    first: bool
    nodes: list[NodeExecution] = field(default_factory=list)


def timeline(nodes: Iterable[NodeExecution]) -> tuple[Row, ...]:
    """The rows, workers in the order of their names, numbers in these counted as numbers. Only nodes that ran."""
    by_worker: dict[str, list[Row]] = {}
    # Of two that start together the longer one is the outer one.
    for node in sorted((node for node in nodes if node.ran), key=_outer_first):
        rows = by_worker.setdefault(node.worker, [])
        for row in rows:
            if row.nodes[-1].function_ns[1] <= node.function_ns[0]:
                break
        else:
            row = Row(worker=node.worker, first=not rows)
            rows.append(row)
        row.nodes.append(node)
    return tuple(row for worker in sorted(by_worker, key=_natural) for row in by_worker[worker])


def _outer_first(node: NodeExecution) -> tuple[int, int]:
    began_ns, ended_ns = node.function_ns
    return began_ns, -ended_ns


def levels(stretches: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Each change: when, and how many overlap from then on.

    >>> list(levels([(0, 5), (5, 9), (3, 4)]))
    [(0, 1), (3, 2), (4, 1), (5, 0), (5, 1), (9, 0)]
    """
    changes = [change for started, ended in stretches if ended > started for change in ((started, 1), (ended, -1))]
    now = 0
    for at, step in sorted(changes):
        now += step
        yield at, now


def _natural(name: str) -> list[tuple[int, str]]:
    """
    >>> sorted(["pool_10", "pool_9", "", "main"], key=_natural)
    ['', 'main', 'pool_9', 'pool_10']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
