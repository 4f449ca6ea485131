"""Waits for CPUs into what nodes did to each other, and what other programs on the machine did to them.

No more nodes than there are CPUs wait for none because of each other: only what more of them want at a time does. Where
nodes wait for longer than that, and longer than they compute, and do not use up the CPUs by themselves, others took
these. That does not change with the number of workers: it makes computing take as much longer as it did.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> times = {"submitted_ns": 0, "ready_ns": 0, "started_ns": 0, "ended_ns": 100}
>>> states = {"cpu": 10, "runqueue": 90}  # a tenth of a CPU for each, of two
>>> nodes = [NodeExecution(key=str(number), name="parse", **times, states=states) for number in range(3)]
>>> others_ns(nodes, cpus=2), others_ns(nodes[:2], cpus=2)
([56.667, 56.667, 56.667], [90.0, 90.0])
>>> others_ns(nodes[:2], cpus=None) == others_ns([], cpus=2) == []
True
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

from traced_threadpool.model.recorded_run import NodeExecution

STARVED: Final = 1.0
"""Others take the CPUs away if nodes wait for one this many times as long as they compute,"""

FULL: Final = 0.7
"""and use less than this part of all of them."""


def others_ns(nodes: Sequence[NodeExecution], cpus: int | None) -> list[float]:
    """For each node, how long it waited for a CPU because of other programs; empty if none did for that reason."""
    waited_ns = [max(0, node.states.get("runqueue", 0)) for node in nodes]
    computed_ns = [max(0, node.states.get("cpu", 0)) for node in nodes]
    total_ns = sum(waited_ns)
    if not cpus or not total_ns or total_ns < STARVED * sum(computed_ns):
        return []
    ran = [(node, waited, computed) for node, waited, computed in zip(nodes, waited_ns, computed_ns, strict=True)]
    span_ns = max(node.ended_ns for node in nodes) - min(node.started_ns for node in nodes)
    if sum(computed_ns) >= FULL * cpus * span_ns:
        return []
    changes: list[tuple[int, float, float]] = []  # when, how many want a CPU, how many of these wait for one
    for node, waited, computed in ran:
        if node.duration_ns > 0 and waited + computed:
            wants, waits = min(1.0, (waited + computed) / node.duration_ns), min(1.0, waited / node.duration_ns)
            changes += [(node.started_ns, wants, waits), (node.ended_ns, -wants, -waits)]
    changes.sort(key=lambda change: change[0])
    moments = [at_ns for at_ns, _, _ in changes]
    wanting = list(accumulate(wants for _, wants, _ in changes))
    waiting = list(accumulate(waits for _, _, waits in changes))
    # Of all waiting at a time, which part is because of nodes; summed up over time.
    own = [
        min(1.0, max(0.0, wants - cpus) / waits) if waits > 1e-9 else 0.0
        for wants, waits in zip(wanting, waiting, strict=True)
    ]
    lasting_ns = [after - before for before, after in pairwise(moments)]
    sums = [0.0, *accumulate(part * ns for part, ns in zip(own, lasting_ns, strict=False))]
    until = dict(zip(moments, sums, strict=True))
    return [
        round(waited * (1 - (until[node.ended_ns] - until[node.started_ns]) / node.duration_ns), 3) if waited else 0.0
        for node, waited, _ in ran
    ]
