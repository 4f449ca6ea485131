"""A DAG of known durations and a policy into how long the live scheduler takes in virtual time, with no overhead.

All nodes are submitted, in Hamilton's order, before a worker takes the first: as in a real run of some hundred nodes,
whose workers have to wait for the GIL while Hamilton walks over the graph.

>>> from benchmarks.dags import Dag
>>> inputs = {"a": (), "b": (), "c": (), "end": ("a", "b", "c")}
>>> dag = Dag(name="doc", inputs=inputs, seconds={"a": 1.0, "b": 1.0, "c": 2.0})
>>> schedule_seconds(dag, workers=1), schedule_seconds(dag, workers=2), schedule_seconds(dag, workers=3)
(4.0, 3.0, 2.0)
>>> schedule_seconds(dag, workers=2, policy=known)
2.0
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Mapping

from benchmarks.dags import Dag
from traced_threadpool.engine.priorities import Priority, RunPlan, critical_path, ranks_of
from traced_threadpool.engine.scheduler import RunQueue, Scheduler, Task

known: Priority = critical_path


def hops(plan: RunPlan) -> Mapping[str, float]:
    """The critical path, with nothing learned."""
    return critical_path(RunPlan(upstream=plan.upstream))


def shuffled(seed: int) -> Priority:
    """Any order: what not knowing a thing gives on average."""

    def priorities(plan: RunPlan) -> Mapping[str, float]:
        choice = random.Random(seed)
        return {name: choice.random() for name in plan.upstream}

    return priorities


def schedule_seconds(dag: Dag, *, workers: int, policy: Priority | None = None) -> float:
    """The makespan; without a policy, first ready, first started."""
    upstream = dag.in_order
    ranks = None if policy is None else ranks_of(policy(RunPlan(upstream=upstream, seconds=dag.seconds)))
    scheduler, queue = Scheduler(workers), RunQueue(ranks=ranks)
    tasks = {name: Task(name, queue=queue) for name in upstream}
    running: list[tuple[float, int, Task]] = []
    now, number = 0.0, itertools.count()

    def start() -> None:
        while (task := scheduler.take()) is not None:
            heapq.heappush(running, (now + dag.seconds.get(task.name, 0.0), next(number), task))

    for name, inputs in upstream.items():
        scheduler.add(tasks[name], [tasks[each] for each in inputs], 0)
    start()
    while running:
        now, _, ended = heapq.heappop(running)
        scheduler.end(ended, 0)
        start()
    return now
