"""What would the run take with more workers, or with fewer?"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun, names_of
from traced_threadpool.analysis.diagnosis.causes import Finding, RankedFinding
from traced_threadpool.analysis.diagnosis.ranking import MATTERS, UNKNOWN, by_gain
from traced_threadpool.analysis.replay.company import FULL
from traced_threadpool.analysis.replay.what_if import HELPS, Scaling
from traced_threadpool.model.formatting import count, duration

CROWDED: Final = 2
"""A pool is too large if this many times more nodes ran at once than would do as well,"""

IN_THE_WAY: Final = 0.5
"""and if they spent this part of their time waiting for the GIL or a CPU."""

AS_WELL: Final = 0.02
"""Fewer workers do as well if the run gets no longer than by this part."""


def pool_too_small(analyzed: AnalyzedRun) -> RankedFinding | None:
    """More workers."""
    scaling, words = analyzed.scaling, CAUSES_IN_WORDS["pool_too_small"]
    if scaling is None or scaling.enough_workers <= scaling.recorded_workers:
        return None
    if min(scaling.makespan_ns.values()) > (1 - MATTERS) * scaling.makespan_ns[scaling.recorded_workers]:
        return None
    queued = sorted(
        (node for node in analyzed.nodes if node.queue_ns > 0), key=lambda node: (-node.queue_ns, node.name)
    )
    evidence = [
        words.says(
            "queued",
            nodes=count(len(queued), "node"),
            total=duration(sum(node.queue_ns for node in queued)),
            most=f"{analyzed.most_at_once:,}",
            allowed=", the limit" if analyzed.most_at_once == analyzed.run.max_workers else "",
        )
    ]
    if analyzed.on_path.get("queue"):
        evidence.append(words.says("on_path", of_run=analyzed.of_run(analyzed.on_path["queue"])))
    is_known = analyzed.total_ns("unknown") <= UNKNOWN * analyzed.busy_ns
    evidence.append(
        words.says(
            "replay" if is_known else "replay_unknown",
            source=analyzed.source,
            workers=count(scaling.enough_workers, "worker"),
            instead=analyzed.instead(scaling),
        )
    )
    enough = scaling.enough_workers
    key = "one_at_a_time" if analyzed.most_at_once == 1 else ""
    advice = words.advises(key, workers=enough, of_more=scaling.of_more_than(enough))
    found = by_gain(analyzed, scaling, "pool_too_small", names_of(queued), evidence, advice, matters=MATTERS - HELPS)
    if found is None or is_known:
        return found
    return replace(found, finding=replace(found.finding, gain_seconds=None))


def pool_too_large(analyzed: AnalyzedRun) -> RankedFinding | None:
    """Nodes that compute stand in each other's way, and half as many at once would be done as early."""
    recorded, scaling = analyzed.as_recorded, analyzed.scaling
    in_the_way_ns = analyzed.total_ns("gil", "runqueue")
    if analyzed.is_large:
        return None  # fewer nodes would wait less for each other, of which an estimate knows nothing
    if recorded is None or scaling is None or in_the_way_ns < IN_THE_WAY * analyzed.busy_ns:
        return None
    if max(recorded.gil_share, recorded.cpu_share) < FULL or analyzed.is_held_from_outside:
        return None  # others are in their way, of which fewer nodes would get even less
    enough = _fewest(scaling, recorded.most_busy // CROWDED)
    if enough is None:
        return None
    words = CAUSES_IN_WORDS["pool_too_large"]
    evidence = (
        words.says("at_once", most=f"{recorded.most_busy:,}", at_once=f"{analyzed.at_once:.1f}"),
        words.says("waited", of_nodes=analyzed.of_nodes(in_the_way_ns)),
        words.says(
            "replay",
            source=analyzed.source,
            workers=count(enough, "worker"),
            instead=analyzed.instead_ns(scaling.makespan_ns[enough]),
        ),
    )
    advice = words.advises("", workers=enough)
    finding = Finding(cause="pool_too_large", nodes=(), evidence=evidence, advice=advice, gain_seconds=None)
    return RankedFinding(finding=finding, weight=in_the_way_ns / analyzed.busy_ns)


def fewer_workers(analyzed: AnalyzedRun) -> RankedFinding | None:
    """The run is shorter with fewer of them. Where something else is found, the curve tells this."""
    scaling = analyzed.scaling
    if scaling is None or scaling.enough_workers >= scaling.recorded_workers:
        return None
    if min(scaling.makespan_ns.values()) > (1 - MATTERS) * scaling.makespan_ns[scaling.recorded_workers]:
        return None
    words, enough = CAUSES_IN_WORDS["pool_too_large"], scaling.enough_workers
    evidence = (
        words.says("at_once", most=f"{analyzed.most_at_once:,}", at_once=f"{analyzed.at_once:.1f}"),
        words.says("waited", of_nodes=analyzed.of_nodes(analyzed.total_ns("gil", "runqueue"))),
        words.says(
            "replay", source=analyzed.source, workers=count(enough, "worker"), instead=analyzed.instead(scaling)
        ),
    )
    advice = words.advises("", workers=enough)
    return by_gain(analyzed, scaling, "pool_too_large", (), evidence, advice, matters=MATTERS - HELPS)


def _fewest(scaling: Scaling, most: int) -> int | None:
    """The least number of workers, up to `most`, with which the run is as short as it was."""
    as_well_ns = scaling.makespan_ns[scaling.recorded_workers] * (1 + AS_WELL)
    return next((number for number, ns in scaling.makespan_ns.items() if number <= most and ns <= as_well_ns), None)
