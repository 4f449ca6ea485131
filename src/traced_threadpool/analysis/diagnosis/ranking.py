"""What the replay says of a change into a finding, if that matters; and the numbers that more than one detector has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from traced_threadpool.analysis.diagnosis.advice import MORE_WORKERS_CANNOT_HELP
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.diagnosis.causes import Cause, Finding, RankedFinding
from traced_threadpool.analysis.replay.replayed import Replayed
from traced_threadpool.analysis.replay.what_if import HELPS, Scaling
from traced_threadpool.model.formatting import duration, shortened

MATTERS: Final = 0.1
"""What would take less than this part off the run is no finding."""

GOVERNS: Final = 0.2
"""A chain governs a run that would be shorter by this part, were the chain twice as fast: it fills 40 % of it alone."""

CONTRIBUTES: Final = 1 / 3
"""Waiting is a finding beside others from this part of the time on."""

UNKNOWN: Final = 0.5
"""If of this part of the run nobody knows what it went to, nothing can be called healthy."""

MOST_SHOWN: Final = 3


def and_more_workers(analyzed: AnalyzedRun, advice: str) -> str:
    """The advice, and that more workers cannot help where that is so."""
    scaling = analyzed.scaling
    best = None if scaling is None else scaling.best_beyond(scaling.recorded_workers)
    if scaling is None or best is None or best[1] <= scaling.makespan_ns[scaling.recorded_workers] * (1 - HELPS):
        return advice
    return f"{advice} {MORE_WORKERS_CANNOT_HELP}"


def by_gain(
    analyzed: AnalyzedRun,
    other: Replayed | Scaling,
    cause: Cause,
    nodes: Sequence[str],
    evidence: Sequence[str],
    advice: str,
    *,
    matters: float = MATTERS,
) -> RankedFinding | None:
    """The finding, if the run would be shorter by the part that matters."""
    gain_ns = analyzed.gain_ns(other)
    if gain_ns < matters * analyzed.duration_ns:
        return None
    finding = Finding(
        cause=cause, nodes=tuple(nodes), evidence=tuple(evidence), advice=advice, gain_seconds=gain_ns / 1e9
    )
    return RankedFinding(finding=finding, weight=gain_ns / analyzed.duration_ns)


def most_of(ns_by_name: Mapping[str, float]) -> str:
    """The first names with their times, and how many more there are."""
    shown = [f"{shortened(name)} {duration(ns)}" for name, ns in list(ns_by_name.items())[:MOST_SHOWN]]
    more = len(ns_by_name) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
