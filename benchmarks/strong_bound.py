"""A DAG of known durations into a time that no schedule can beat; `bounds.lower_bound_seconds` is often out of reach.

So it is where a join waits for sixteen nodes of different lengths on eight workers, or a tree starts or ends narrow.
Three arguments, each of which holds for every schedule without preemption:

1. *A set of nodes.* If none of them can start before `head`, and `tail` is still to come after each ends, the run
   takes at least `head + packed + tail`, where `packed` is the time that the set alone needs: its work over the
   workers, its longest node, or, of its `k*m + 1` longest nodes, the `k + 1` shortest, since some worker gets `k + 1`.
2. *Heads and tails from the same argument*: a node starts when all its ancestors have ended, and these are a set. So
   heads are worked out from the first node on, and tails from the last one back.
3. *An interval* (Fernandez and Bussell, 1973): if the run ended at the bound, each node would have a window, from its
   head to the bound less its tail. What must be done of all nodes within an interval, wherever they are in their
   windows, and is more than the workers' time there, comes on top of the bound.

>>> from benchmarks.bounds import lower_bound_seconds
>>> from benchmarks.dags import Dag
>>> dag = Dag(name="doc", inputs={"a": (), "b": (), "c": (), "end": ("a", "b", "c")}, seconds=dict.fromkeys("abc", 2.0))
>>> lower_bound_seconds(dag, workers=2), strong_bound_seconds(dag, workers=2)
(3.0, 4.0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.dags import Dag

MOST_PACKED: Final = 200
"""Of sets up to this size the nodes are packed; of larger ones the work alone counts."""

NEGLIGIBLE_SECONDS: Final = 1e-9
MOST_ROUNDS: Final = 30


def strong_bound_seconds(dag: Dag, *, workers: int) -> float:
    """The highest of the three arguments' bounds."""
    numbers = {name: number for number, name in enumerate(dag.inputs)}
    upstream = [[numbers[each] for each in inputs] for inputs in dag.inputs.values()]
    seconds = [dag.seconds.get(name, 0.0) for name in dag.inputs]
    last = len(seconds) - 1
    downstream: list[list[int]] = [[] for _ in seconds]
    for number, inputs in enumerate(upstream):
        for each in inputs:
            downstream[each].append(number)
    mirrored = [[last - each for each in downstream[last - number]] for number in range(last + 1)]
    heads = _heads(upstream, seconds, workers)
    tails = _heads(mirrored, seconds[::-1], workers)[::-1]
    bound = max(head + own + tail for head, own, tail in zip(heads, seconds, tails, strict=True))
    return _by_intervals(np.array(heads), np.array(seconds), np.array(tails), workers, bound)


def _heads(upstream: Sequence[Sequence[int]], seconds: Sequence[float], workers: int) -> list[float]:
    """For each node, before when it cannot start."""
    heads: list[float] = []
    ancestors: list[int] = []  # as bits: sets of hundreds of nodes are many and alike
    for number, inputs in enumerate(upstream):
        found, head = 0, 0.0
        for each in inputs:
            found |= ancestors[each] | 1 << each
            head = max(head, heads[each] + seconds[each])
        ancestors.append(found)
        if found.bit_count() > workers:
            before = [each for each in range(number) if found >> each & 1]
            to_come = dict.fromkeys(before, 0.0)  # the longest path between their end and the node
            for each in reversed(before):
                for further in upstream[each]:
                    to_come[further] = max(to_come[further], to_come[each] + seconds[each])
            head = max(
                head,
                _of_sets(before, heads.__getitem__, to_come.__getitem__, seconds, workers),
                _of_sets(before, to_come.__getitem__, heads.__getitem__, seconds, workers),
            )
        heads.append(head)
    return heads


def _of_sets(
    nodes: Sequence[int],
    first: Callable[[int], float],
    second: Callable[[int], float],
    seconds: Sequence[float],
    workers: int,
) -> float:
    """The first argument for the sets of those nodes of which `first` is high, for every meaning of high."""
    ordered = sorted(nodes, key=first, reverse=True)
    durations: list[float] = []
    work, least, bound = 0.0, float("inf"), 0.0
    for position, node in enumerate(ordered):
        work += seconds[node]
        durations.append(seconds[node])
        least = min(least, second(node))
        following = ordered[position + 1] if position + 1 < len(ordered) else None
        if following is not None and first(following) == first(node):
            continue
        packed = _packed(sorted(durations, reverse=True), workers) if position < MOST_PACKED else 0.0
        bound = max(bound, first(node) + max(work / workers, packed) + least)
    return bound


def _packed(longest_first: Sequence[float], workers: int) -> float:
    """What independent nodes need on that many workers, whatever their work."""
    bound = longest_first[0]
    for share in range(1, (len(longest_first) - 1) // workers + 1):
        bound = max(bound, sum(longest_first[share * workers - share : share * workers + 1]))
    return bound


def _by_intervals(heads: Any, seconds: Any, tails: Any, workers: int, bound: float) -> float:
    for _ in range(MOST_ROUNDS):
        latest_ends = bound - tails
        earliest_ends, latest_starts = heads + seconds, latest_ends - seconds
        starts = np.unique(np.concatenate([heads, latest_starts]))
        ends = np.unique(np.concatenate([latest_ends, earliest_ends]))
        excess = 0.0
        for start in starts:
            later = ends[ends > start][:, None]
            if not len(later):
                continue
            if_early = np.minimum(seconds, np.maximum(0.0, earliest_ends - start))[None, :]
            if_late = np.maximum(0.0, later - latest_starts[None, :])
            within = np.minimum(np.minimum(if_early, if_late), later - start).sum(axis=1)
            excess = max(excess, float((within - workers * (later[:, 0] - start)).max()))
        if excess < NEGLIGIBLE_SECONDS:
            break
        bound += excess / workers
    return bound
