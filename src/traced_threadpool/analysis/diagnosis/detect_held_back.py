"""Would a run be shorter if its nodes did not wait for their backend: for a worker there, or for its limit?"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS, quoted
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun, most_first, names_of
from traced_threadpool.analysis.diagnosis.causes import RankedFinding
from traced_threadpool.analysis.diagnosis.ranking import MATTERS, by_gain, most_of
from traced_threadpool.analysis.replay.what_if import least_enough
from traced_threadpool.model.formatting import count, duration
from traced_threadpool.model.lane import PROCESSES, Lane
from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.records import THREADS

MOST_DOUBLED: Final = 10
"""How often the limit of a lane is doubled, on the way to as many as can run at once."""

_CLASSES: Final[Mapping[str, str]] = {THREADS: "Threads", "dask": "Dask", "ray": "Ray"}


def remote_queue_bound(analyzed: AnalyzedRun) -> RankedFinding | None:
    """Nobody waits for a worker of a backend; there are twice as many processes; or a lane lets more nodes run."""
    found = [_no_wait_there(analyzed), _more_processes(analyzed)]
    found += [_wider(analyzed, name, lane) for name, lane in analyzed.run.backends.items() if lane.kind != PROCESSES]
    return max((each for each in found if each is not None), key=lambda each: each.weight, default=None)


def _no_wait_there(analyzed: AnalyzedRun) -> RankedFinding | None:
    words, waits_ns = CAUSES_IN_WORDS["remote_queue_bound"], analyzed.by_name("remote_queue")
    if not waits_ns:
        return None
    other = analyzed.without("remote_queue")
    evidence = [
        words.says("waited", of_nodes=analyzed.of_nodes(sum(waits_ns.values())), most=most_of(waits_ns)),
        words.says("replay", source=analyzed.source, instead=analyzed.instead(other)),
    ]
    names = list(waits_ns)
    lanes = {analyzed.run.backends.get(node.backend) for node in analyzed.nodes if node.states.get("remote_queue")}
    # The pool hands over no more nodes than there are processes, so nobody waits for one that runs another node of it.
    starting = all(lane is not None and lane.kind == PROCESSES for lane in lanes)
    advice = words.advises("starting") if starting else words.advises("", nodes=quoted(names))
    return by_gain(analyzed, other, "remote_queue_bound", names, evidence, advice)


def _more_processes(analyzed: AnalyzedRun) -> RankedFinding | None:
    words = CAUSES_IN_WORDS["remote_queue_bound"]
    lanes = {name: most for name, (kind, most) in analyzed.run.backends.items() if kind == PROCESSES}
    held = [node for node in analyzed.nodes if node.is_remote and node.backend in lanes and node.queue_ns]
    if not held:
        return None
    processes = 2 * max(lanes[node.backend] for node in held)
    other = analyzed.replayed(processes=processes)
    evidence = [
        words.says(
            "held",
            nodes=count(len(held), "node"),
            backends=quoted(sorted({node.backend for node in held})),
            total=duration(sum([node.queue_ns for node in held])),
        ),
        words.says("processes", source=analyzed.source, processes=processes, instead=analyzed.instead(other)),
    ]
    advice = words.advises("processes", processes=processes)
    return by_gain(analyzed, other, "remote_queue_bound", names_of(held), evidence, advice)


def _wider(analyzed: AnalyzedRun, name: str, lane: Lane) -> RankedFinding | None:
    """The lane has the least limit beyond which no larger one gains noticeably more; no more than can run at once."""
    own = [node for node in analyzed.nodes if node.backend == name]
    waits_ns = held_ns(own, [node for node in analyzed.plan.nodes if node.backend == name], lane.max_workers)
    most = min(len(own), analyzed.plan.workers) if lane.kind == THREADS else len(own)
    if not waits_ns or most <= lane.max_workers:
        return None
    found = {most: analyzed.replayed(lanes={name: most})}
    if analyzed.gain_ns(found[most]) < MATTERS * analyzed.duration_ns:
        return None
    for fewer in _doubled(lane.max_workers, most, steps=1 if analyzed.is_large else MOST_DOUBLED):
        found[fewer] = analyzed.replayed(lanes={name: fewer})
    more = least_enough({number: other.makespan_ns for number, other in found.items()})
    words = CAUSES_IN_WORDS["remote_queue_bound"]
    evidence = [
        words.says(
            "lane",
            lane=quoted([name]),
            most=count(lane.max_workers, "node"),
            held=count(len(waits_ns), "node"),
            total=duration(sum(waits_ns.values())),
        )
    ]
    on_path_ns = sum(
        min(step.duration_ns, waits_ns.get(step.key or "", 0)) for step in analyzed.path.steps if step.kind == "queue"
    )
    if on_path_ns:
        evidence.append(words.says("on_path", of_run=analyzed.of_run(on_path_ns)))
    twice = found.get(2 * lane.max_workers)
    evidence.append(
        words.says(
            "wider" if twice is None or more == 2 * lane.max_workers else "wider_or_twice",
            source=analyzed.source,
            lane=quoted([name]),
            more=count(more, "node"),
            instead=analyzed.instead(found[more]),
            twice=f"{2 * lane.max_workers:,}",
            then="" if twice is None else duration(twice.makespan_ns),
        )
    )
    by_name: dict[str, float] = {}
    for node in own:
        if node.key in waits_ns:
            by_name[node.name] = by_name.get(node.name, 0) + waits_ns[node.key]
    advice = words.advises("lane", kind=_CLASSES.get(lane.kind, lane.kind), more=more, lane=quoted([name]))
    return by_gain(analyzed, found[more], "remote_queue_bound", list(most_first(by_name)), evidence, advice)


def _doubled(limit: int, most: int, steps: int) -> list[int]:
    """
    >>> _doubled(2, 20, steps=9), _doubled(2, 20, steps=1), _doubled(3, 6, steps=9)
    ([4, 8, 16], [4], [])
    """
    return [number for number in (limit << step for step in range(1, steps + 1)) if number < most]


def held_ns(nodes: Sequence[NodeExecution], all_nodes: Sequence[NodeExecution], limit: int) -> dict[str, int]:
    """Of nodes of a lane, by key, how long they were ready while as many as its limit ran; those that waited for that.

    `all_nodes` of the lane may be of other runs too.

    >>> times = {"submitted_ns": 0, "ready_ns": 0}
    >>> first, second, third = (
    ...     NodeExecution(key=key, name=key, **times, started_ns=start, ended_ns=start + 50)
    ...     for key, start in (("a", 0), ("b", 50), ("c", 70))
    ... )
    >>> held_ns([second, third], [first, second, third], limit=1), held_ns([third], [first, second, third], limit=2)
    ({'b': 50, 'c': 70}, {})
    """
    changes = sorted([(node.started_ns, 1) for node in all_nodes] + [(node.ended_ns, -1) for node in all_nodes])
    moments_ns, full_ns, was_full = [0], [0], [False]  # changes, and for how long it had been full by then
    running = 0
    for at_ns, change in changes:
        full_ns.append(full_ns[-1] + (at_ns - moments_ns[-1] if running >= limit else 0))
        moments_ns.append(at_ns)
        running += change
        was_full.append(running >= limit)

    def until(at_ns: int) -> int:
        place = bisect_right(moments_ns, at_ns) - 1
        return full_ns[place] + (at_ns - moments_ns[place] if was_full[place] else 0)

    held = {node.key: until(node.started_ns) - until(node.ready_ns) for node in nodes if node.queue_ns > 0}
    return {key: ns for key, ns in held.items() if ns > 0}
