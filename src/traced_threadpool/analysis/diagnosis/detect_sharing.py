"""What would the run take if it had the pool for itself?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun, most_first, names_of
from traced_threadpool.analysis.diagnosis.causes import Finding, RankedFinding
from traced_threadpool.analysis.diagnosis.ranking import MATTERS, MOST_SHOWN, most_of
from traced_threadpool.model.formatting import count, duration, listed, one_line, share
from traced_threadpool.model.recorded_run import RecordedRun

MOSTLY: Final = 0.5
"""From this part of its queue waits on, it is others that a run waits for, and the pool is not too small for itself."""

LONGEST_NAME: Final = 40


def is_mostly_behind_others(analyzed: AnalyzedRun) -> bool:
    """Whether it is mostly because of other runs that nodes wait for a worker."""
    queued_ns = sum([node.queue_ns for node in analyzed.nodes])
    return analyzed.run.queue_others_ns > MOSTLY * queued_ns > 0


def queued_behind_other_runs(analyzed: AnalyzedRun) -> RankedFinding | None:
    """No other run has nodes in the pool; and the number of workers with which it would be as good, if any is."""
    run, duration_ns = analyzed.run, analyzed.duration_ns
    if not is_mostly_behind_others(analyzed):
        return None
    on_path_ns = path_behind_others_ns(analyzed)
    # An estimate knows nothing of others: it takes what of the critical path is waiting for them.
    alone_ns = duration_ns - round(on_path_ns) if analyzed.is_large else analyzed.replayed(alone=True).makespan_ns
    gain_ns = duration_ns - alone_ns
    if gain_ns < MATTERS * duration_ns:
        return None
    words = CAUSES_IN_WORDS["queued_behind_other_runs"]
    waiting = sorted(
        (node for node in analyzed.nodes if node.queue_others_ns), key=lambda node: (-node.queue_others_ns, node.name)
    )
    queued_ns = sum([node.queue_ns for node in analyzed.nodes])
    evidence = [
        words.says(
            "queued",
            nodes=count(len(waiting), "node"),
            total=duration(run.queue_others_ns),
            share=share(run.queue_others_ns / queued_ns),
            queued=duration(queued_ns),
        )
    ]
    if on_path_ns:
        evidence.append(words.says("on_path", of_run=analyzed.of_run(on_path_ns)))
    who = who_else(run)
    if who:
        runs = [f"{count(many, 'run')} of `{one_line(name, LONGEST_NAME)}`" for name, many in _counts(run).items()]
        evidence.append(words.says("who", runs=listed(runs, MOST_SHOWN), most=most_of(who)))
    else:
        evidence.append(words.says("unknown"))
    advice, scaling = words.advises("apart"), None if analyzed.is_large else analyzed.scaling
    if scaling is not None and analyzed.gain_ns(scaling) >= MATTERS * duration_ns:
        gain_ns = round(analyzed.gain_ns(scaling))
        workers, instead = count(scaling.enough_workers, "worker"), analyzed.instead(scaling)
        evidence.append(words.says("alone_too", alone=duration(alone_ns)))
        evidence.append(words.says("workers", source=analyzed.source, workers=workers, instead=instead))
        advice = words.advises("workers", workers=f"{scaling.enough_workers:,}")
    else:
        evidence.append(words.says("alone", source=analyzed.source, instead=analyzed.instead_ns(alone_ns)))
    finding = Finding(
        cause="queued_behind_other_runs",
        nodes=names_of(waiting),
        evidence=tuple(evidence),
        advice=advice,
        gain_seconds=gain_ns / 1e9,
    )
    return RankedFinding(finding=finding, weight=gain_ns / duration_ns)


def who_else(run: RecordedRun) -> dict[str, float]:
    """Nodes of other runs by name, and how long they had a worker while nodes of this one waited; the most first."""
    waits: list[tuple[int, int]] = []  # when any node of the run waited for a worker
    for ready_ns, started_ns in sorted((node.ready_ns, node.started_ns) for node in run.nodes if node.queue_others_ns):
        if waits and ready_ns <= waits[-1][1]:
            waits[-1] = waits[-1][0], max(waits[-1][1], started_ns)
        else:
            waits.append((ready_ns, started_ns))
    sums: dict[str, float] = {}
    for other in run.neighbours:
        for node in other.outermost:
            meanwhile_ns = sum(
                [max(0, min(until, node.ended_ns) - max(since, node.started_ns)) for since, until in waits]
            )
            if meanwhile_ns:
                sums[node.name] = sums.get(node.name, 0) + meanwhile_ns
    return most_first(sums)


def _counts(run: RecordedRun) -> Mapping[str, int]:
    counts: dict[str, float] = {}
    for other in run.neighbours:
        counts[other.name] = counts.get(other.name, 0) + 1
    return {name: int(many) for name, many in most_first(counts).items()}


def path_behind_others_ns(analyzed: AnalyzedRun) -> int:
    """How much of the critical path is waiting behind other runs."""
    by_key = analyzed.run.by_key
    total_ns = 0.0
    for step in analyzed.path.steps:
        if step.kind == "queue" and step.key is not None:
            node = by_key[step.key]
            total_ns += step.duration_ns * node.queue_others_ns / node.queue_ns if node.queue_ns else 0.0
    return round(total_ns)
