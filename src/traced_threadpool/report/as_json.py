"""An explanation into JSON for programs. `docs/command-line.md` describes it; `SCHEMA` grows when a meaning changes.

All times are seconds, those that say when are counted from the start of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from traced_threadpool._version import __version__
from traced_threadpool.analysis.diagnosis.advice import title
from traced_threadpool.analysis.difference import Difference, Total
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.curve import Curve
from traced_threadpool.report.explanation import Explanation
from traced_threadpool.report.prediction import Prediction

SCHEMA: Final = 1


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """What `explain --json` prints."""
    run = explanation.run
    return {
        **header("explain"),
        "run": run_json(run),
        "findings": [
            {
                "cause": finding.cause,
                "title": title(finding),
                "nodes": list(finding.nodes),
                "evidence": list(finding.evidence),
                "advice": finding.advice,
                "gain": finding.gain_seconds,
            }
            for finding in explanation.findings
        ],
        "remarks": list(explanation.remarks),
        "estimated": explanation.estimated,
        "critical_path": [
            {
                "kind": step.kind,
                "name": step.name,
                "key": step.key,
                "start": seconds(step.started_ns - run.started_ns),
                "duration": seconds(step.duration_ns),
                "behind": step.behind,
            }
            for step in explanation.path.steps
        ],
        "critical_seconds": {name: seconds(ns) for name, ns in explanation.critical_ns.items()},
        "states": _states(explanation.states_ns),
        "critical_states": {state: seconds(ns) for state, ns in explanation.path_states_ns.items()},
        "critical_behind_others": seconds(explanation.behind_others_ns),
        "gil_holders": {name: seconds(ns) for name, ns in run.gil_holders.items()},
        "concurrency": {
            "mean_running": round(explanation.mean_running, 6),
            "peak_running": explanation.peak_running,
            "peak_queue": explanation.peak_queue,
        },
        "nodes": [
            {
                "name": each.name,
                "executions": each.executions,
                "duration": seconds(each.duration_ns),
                "longest": seconds(each.longest_ns),
                "queue_wait": seconds(each.queue_ns),
                "critical": seconds(each.critical_ns),
                "states": _states(each.states_ns),
            }
            for each in explanation.by_name
        ],
        "workers": curve_json(explanation.curve),
    }


def prediction_json(prediction: Prediction) -> dict[str, Any]:
    """What `what-if --json` prints."""
    run, settings, scaling = prediction.run, prediction.settings, prediction.scaling
    return {
        **header("what-if"),
        "run": run_json(run),
        "settings": {
            "faster": dict(settings.faster),
            "without": list(settings.without),
            "cpus": settings.cpus,
            "gil": settings.gil,
            "priority": settings.priority,
            "run_on": dict(settings.run_on),
            "processes": settings.processes,
            "moves": dict(settings.moves),
            "lanes": dict(settings.lanes),
        },
        "predictions": [
            {
                "workers": point.workers,
                "makespan": seconds(point.makespan_ns),
                "change": seconds(point.makespan_ns - run.duration_ns),
                "limited_by": point.limit,
            }
            for point in prediction.points
        ],
        "enough": scaling.enough_workers,
        "limit": scaling.limit,
        "reason": scaling.reason,
        "longest_chain": seconds(scaling.floor_ns),
        "assumptions": list(scaling.assumptions),
    }


def difference_json(difference: Difference) -> dict[str, Any]:
    """What `diff --json` prints. The nodes that changed the run's length most come first."""
    mattering = {(node.name, node.inside) for node in difference.mattering}
    return {
        **header("diff"),
        "change": seconds(difference.change_ns),
        "path_changes": {name: seconds(ns) for name, ns in difference.path_change_ns.items()},
        "nodes": [
            {
                "name": node.name,
                "inside": node.inside,
                "kind": node.kind,
                "matters": (node.name, node.inside) in mattering,
                "change": seconds(node.change_ns),
                "path_change": seconds(node.path_change_ns),
                "before": _total(node.before),
                "after": _total(node.after),
            }
            for node in difference.nodes
        ],
        "notes": list(difference.notes),
    }


def _total(total: Total) -> dict[str, Any]:
    return {
        "executions": total.count,
        "duration": seconds(total.duration_ns),
        "critical": seconds(total.path_ns),
        "states": _states(total.states),
    }


def header(command: str) -> dict[str, Any]:
    """What every JSON answer begins with."""
    return {"schema": SCHEMA, "version": __version__, "command": command}


def run_json(run: RecordedRun) -> dict[str, Any]:
    """A run's own facts."""
    return {
        "id": run.id,
        "name": run.name,
        "pool": run.pool,
        "outcome": run.outcome,
        "error_type": run.error_type,
        "started_unix": None if run.started_unix_ns is None else run.started_unix_ns / 1e9,
        "duration": seconds(run.duration_ns),
        "nodes": len(run.nodes),
        "expected_nodes": run.expected_nodes,
        "left_out": run.left_out,
        "max_workers": run.max_workers,
        "priority": run.priority,
        "cpus": run.cpus,
        "attribution": run.attribution,
        "attribution_reason": run.attribution_reason,
        "problems": list(run.problems),
    }


def curve_json(curve: Curve | None) -> dict[str, Any] | None:
    """The run's length by number of workers; None where nothing could be replayed."""
    if curve is None:
        return None
    return {
        "recorded": curve.now,
        "enough": curve.scaling.enough_workers,
        "limit": curve.scaling.limit,
        "reason": curve.scaling.reason,
        "longest_chain": seconds(curve.scaling.floor_ns),
        "makespan": [
            {"workers": point.workers, "seconds": seconds(point.makespan_ns), "limited_by": point.limit}
            for point in curve.points
        ],
    }


def seconds(ns: float) -> float:
    """Nanoseconds as seconds, exact to the nanosecond."""
    return round(ns / 1e9, 9)


def _states(states_ns: Mapping[Any, int]) -> dict[str, float]:
    return {state: seconds(ns) for state, ns in states_ns.items()}
