"""A DAG of known durations into the times that no schedule can beat, and that a good one reaches.

>>> from benchmarks.dags import Dag
>>> dag = Dag(name="doc", inputs={"a": (), "b": (), "c": ("a",)}, seconds={"a": 1.0, "b": 2.0, "c": 2.0})
>>> lower_bound_seconds(dag, workers=2), list_schedule_seconds(dag, workers=2)
(3.0, 3.0)
>>> lower_bound_seconds(dag, workers=1)
5.0
"""

from __future__ import annotations

import heapq
import itertools

from benchmarks.dags import Dag


def remaining_seconds(dag: Dag) -> dict[str, float]:
    """For each node the longest path from its start to the end of the DAG."""
    after: dict[str, float] = dict.fromkeys(dag.inputs, 0.0)
    remaining: dict[str, float] = {}
    for node in reversed(dag.inputs):
        remaining[node] = after[node] + dag.seconds.get(node, 0.0)
        for upstream in dag.inputs[node]:
            after[upstream] = max(after[upstream], remaining[node])
    return remaining


def lower_bound_seconds(dag: Dag, *, workers: int) -> float:
    """The longer of the critical path and the work divided among the workers."""
    critical_path_seconds = max(remaining_seconds(dag).values())
    return max(critical_path_seconds, sum(dag.seconds.values()) / workers)


def list_schedule_seconds(dag: Dag, *, workers: int, foreseeing: bool = False) -> float:
    """How long it takes, with no overhead, when a free worker takes the first of the nodes that are ready.

    The first is the one that has been ready for longest; `foreseeing`, the one with the longest path ahead, which
    only who knows all durations beforehand can tell. So what a peer takes above the bound falls into three: what
    no such schedule avoids, what comes of not knowing, and the peer's own doing.
    """
    remaining = remaining_seconds(dag)
    dependents: dict[str, list[str]] = {node: [] for node in dag.inputs}
    missing = {node: len(upstream) for node, upstream in dag.inputs.items()}
    for node, upstream in dag.inputs.items():
        for each in upstream:
            dependents[each].append(node)
    order = itertools.count()
    ready: list[tuple[float, int, str]] = []
    running: list[tuple[float, str]] = []

    def add(node: str) -> None:
        heapq.heappush(ready, (-remaining[node] if foreseeing else 0.0, next(order), node))

    for node, count in missing.items():
        if not count:
            add(node)
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, _, node = heapq.heappop(ready)
            heapq.heappush(running, (now + dag.seconds.get(node, 0.0), node))
        now, ended = heapq.heappop(running)
        for node in dependents[ended]:
            missing[node] -= 1
            if not missing[node]:
                add(node)
    return now
