"""Did the run end as it should, and does its record tell enough?"""

from __future__ import annotations

from typing import Final

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS, quoted
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun, most_first, names_of
from traced_threadpool.analysis.diagnosis.causes import Cause, Finding
from traced_threadpool.analysis.diagnosis.ranking import MATTERS, MOST_SHOWN, most_of
from traced_threadpool.model.formatting import count, duration, listed, one_line, share, shortened
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.records import cause_by_outcome

MAX_MESSAGE: Final = 200
"""How many characters of an exception's message are shown."""

LOST: Final = 0.05
"""From this part of the nodes missing on, the record may mislead."""


def failing_upstream(analyzed: AnalyzedRun) -> Finding | None:
    """A node raised."""
    run, words = analyzed.run, CAUSES_IN_WORDS["failing_upstream"]
    if _cause(run) != "failing_upstream":
        return None
    raised = sorted((node for node in run.nodes if node.outcome == "error"), key=lambda node: (node.ended_ns, node.key))
    evidence = [
        words.says(
            "raised_saying" if node.error_message else "raised",
            node=shortened(node.name),
            error=node.error_type or "an exception",
            duration=duration(node.duration_ns),
            message=one_line(node.error_message or "", MAX_MESSAGE),
        )
        for node in raised[:MOST_SHOWN]
    ]
    if len(raised) > MOST_SHOWN:
        evidence.append(words.says("many", many=f"{len(raised):,}"))
    if not raised:
        evidence.append(words.says("run", error=run.error_type or "an error", duration=duration(run.duration_ns)))
    stopped = [node for node in run.nodes if node.outcome == "upstream_error"]
    never_started = [node for node in run.nodes if node.outcome == "cancelled"]
    if stopped:
        nodes, named = count(len(run.nodes), "node"), listed(names_of(stopped))
        evidence.append(words.says("never_ran", stopped=f"{len(stopped):,}", nodes=nodes, names=named))
    if never_started:
        named = listed(names_of(never_started))
        evidence.append(words.says("cancelled", cancelled=f"{len(never_started):,}", names=named))
    if raised and not stopped and not never_started:
        evidence.append(words.says("all_ran"))
    names = names_of(raised)
    return Finding(
        cause="failing_upstream",
        nodes=names,
        evidence=tuple(evidence),
        advice=words.advises("nodes", nodes=quoted(names)) if raised else words.advises("elsewhere"),
        gain_seconds=None,
    )


def cancelled(analyzed: AnalyzedRun) -> Finding | None:
    """It was stopped, and no node had raised."""
    run, words = analyzed.run, CAUSES_IN_WORDS["cancelled"]
    if _cause(run) != "cancelled":
        return None
    never_ran = sum(node.outcome == "cancelled" for node in run.nodes)
    stopped = words.says(
        "stopped", duration=duration(run.duration_ns), never_ran=f"{never_ran:,}", nodes=count(len(run.nodes), "node")
    )
    return Finding(cause="cancelled", nodes=(), evidence=(stopped,), advice=words.advises(""), gain_seconds=None)


def _cause(run: RecordedRun) -> Cause | None:
    return cause_by_outcome(run.outcome, (node.outcome for node in run.nodes))


def telemetry_loss(analyzed: AnalyzedRun) -> tuple[Finding, bool] | None:
    """Nodes or other things are missing in the record; and whether that is so much that the rest may mislead."""
    run, words = analyzed.run, CAUSES_IN_WORDS["telemetry_loss"]
    expected = max(run.expected_nodes or 0, len(run.nodes))
    missing = max(0, expected - len(run.nodes) - run.left_out)
    evidence = []
    if missing:
        evidence.append(
            words.says(
                "missing", missing=f"{missing:,}", nodes=count(expected, "node"), share=share(missing / expected)
            )
        )
    waited = analyzed.on_path.get("dependency", 0) / analyzed.duration_ns if analyzed.duration_ns > 0 else 0.0
    if missing and waited:
        evidence.append(words.says("waited", share=share(waited)))
    evidence += run.problems[:MOST_SHOWN]
    if len(run.problems) > MOST_SHOWN:
        evidence.append(words.says("many", many=f"{len(run.problems):,}"))
    if not evidence:
        return None
    if run.left_out:
        evidence.append(words.says("path", most=most_of(most_first(analyzed.path.ns_by_name))))
    advice = words.advises("left_out" if run.left_out and not missing else "missing" if missing else "problems")
    found = Finding(cause="telemetry_loss", nodes=(), evidence=tuple(evidence), advice=advice, gain_seconds=None)
    return found, bool(run.left_out) or (missing > 0 and (missing >= LOST * expected or waited >= MATTERS))
