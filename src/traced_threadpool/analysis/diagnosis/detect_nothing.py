"""Nothing was found: is the run healthy, or does nobody know?"""

from __future__ import annotations

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.diagnosis.causes import Finding
from traced_threadpool.analysis.diagnosis.ranking import MATTERS, UNKNOWN
from traced_threadpool.model.formatting import count, duration, share
from traced_threadpool.model.states import State


def not_known(analyzed: AnalyzedRun) -> Finding | None:
    """Most of the run is time of which nobody knows what it went to."""
    run, words = analyzed.run, CAUSES_IN_WORDS["telemetry_loss"]
    if analyzed.as_recorded is None:
        key = "nothing"
        evidence: tuple[str, ...] = (
            words.says(
                "nothing",
                ran=f"{len(analyzed.nodes):,}",
                nodes=count(len(run.nodes), "node"),
                duration=duration(run.duration_ns),
            ),
        )
    else:
        key = "unknown"
        unknown_ns = analyzed.on_path.get("unknown", 0)
        if unknown_ns < UNKNOWN * analyzed.duration_ns:
            return None
        reason = f" (reason: {run.attribution_reason})" if run.attribution_reason else ""
        evidence = (
            words.says("unknown", of_run=analyzed.of_run(unknown_ns), reason=reason),
            words.says("durations", at_once=f"{analyzed.at_once:.1f}"),
        )
    return Finding(cause="telemetry_loss", nodes=(), evidence=evidence, advice=words.advises(key), gain_seconds=None)


def healthy(analyzed: AnalyzedRun) -> Finding:
    """No setting would make the run noticeably shorter."""
    scaling, words = analyzed.scaling, CAUSES_IN_WORDS["healthy"]
    assert scaling is not None
    states: tuple[State, ...] = ("gil", "runqueue", "lock", "sleep")
    waits = {
        str(state): share(analyzed.total_ns(state) / analyzed.busy_ns if analyzed.busy_ns else 0) for state in states
    }
    best = scaling.best_beyond(scaling.recorded_workers)
    best_ns = scaling.makespan_ns[scaling.recorded_workers] if best is None else best[1]
    evidence = (
        words.says(
            "nodes",
            nodes=count(len(analyzed.nodes), "node"),
            duration=duration(analyzed.duration_ns),
            at_once=f"{analyzed.at_once:.1f}",
        ),
        words.says("waits", **waits),
        words.says(
            "replay",
            source=analyzed.source,
            workers=count(scaling.recorded_workers, "worker"),
            instead=analyzed.instead_ns(best_ns),
        ),
    )
    of_more = scaling.of_more_than(scaling.recorded_workers)
    advice = words.advises("", share=share(MATTERS), of_more=of_more)
    return Finding(cause="healthy", nodes=(), evidence=evidence, advice=advice, gain_seconds=None)
