"""Many runs, or two sets of them, into JSON for programs, as `as_json` does for one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from traced_threadpool.analysis.replay.pool_what_if import PoolScaling
from traced_threadpool.analysis.run_sets import Durations, NodeDurations, RunFacts, SetDifference
from traced_threadpool.recording.critical_path import QUEUE
from traced_threadpool.report.as_json import explanation_json, header, run_json, seconds
from traced_threadpool.report.many_runs import ManyExplanation, difference_sentences, in_words, most_of_path


def list_json(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """What `runs --json` prints."""
    return {**header("runs"), "runs": [_listed(facts) for facts in runs]}


def _listed(facts: RunFacts) -> dict[str, Any]:
    name, path_ns = most_of_path(facts)
    return {
        "number": facts.number,
        **run_json(facts.run),
        "queued": seconds(facts.path_ns.get(QUEUE, 0)),
        "longest_on_path": {"name": name, "duration": seconds(path_ns)},
    }


def many_json(explanation: ManyExplanation) -> dict[str, Any]:
    """What `explain --all --json` prints."""
    many, typical = explanation.many, explanation.typical
    found = None
    if typical is not None and many.typical is not None:
        found = {"number": many.typical.number, **explanation_json(typical)}
    return {
        **header("explain"),
        "name": many.name,
        "runs": len(many.runs),
        "outcomes": dict(many.outcomes),
        "sentences": list(explanation.sentences),
        "durations": _durations(many.durations),
        "typical": found,
        "slow": {
            "over": seconds(many.slow.over_ns),
            "numbers": [facts.number for facts in many.slow.runs],
            "others": many.slow.others,
            "traits": [
                {
                    "kind": trait.kind,
                    "name": trait.name,
                    "slow": trait.slow,
                    "others": trait.others,
                    "sentence": in_words(trait),
                }
                for trait in many.slow.traits
            ],
            "change": None if many.slow.change is None else _set_difference(many.slow.change),
        },
        "nodes": [{"name": name, **_node(node)} for name, node in many.nodes.items()],
        "pool": None if explanation.pool is None else _pool(explanation.pool),
        "failures": [
            {"name": name, "error_type": error, "runs": number} for (name, error), number in many.failures.items()
        ],
        "blocks": [
            {"first": block.first, "last": block.last, "failed": block.failed, **_durations(block.durations)}
            for block in many.blocks
        ],
        "drifts": many.drifts,
        "trend": None if many.trend is None else _set_difference(many.trend),
    }


def pools_json(pools: Sequence[PoolScaling]) -> dict[str, Any]:
    """What `what-if --all --json` prints."""
    return {**header("what-if"), "pools": [_pool(found) for found in pools]}


def _pool(found: PoolScaling) -> dict[str, Any]:
    return {
        "pool": found.pool,
        "runs": found.runs,
        "window": seconds(found.window_ns),
        "recorded": found.recorded_workers,
        "enough": found.enough_workers,
        "reason": found.reason,
        "predictions": [
            {
                "workers": load.workers,
                "p50": seconds(load.p50_ns),
                "p95": seconds(load.p95_ns),
                "p99": seconds(load.p99_ns),
                "mean": seconds(load.mean_ns),
                "runs_per_second": load.runs_per_second,
                "busy": load.busy_share,
            }
            for load in found.loads.values()
        ],
        "assumptions": list(found.assumptions),
    }


def set_difference_json(found: SetDifference) -> dict[str, Any]:
    """What `diff --all --json` prints."""
    return {**header("diff"), "sentences": list(difference_sentences(found)), **_set_difference(found)}


def _set_difference(found: SetDifference) -> dict[str, Any]:
    return {
        "before": _durations(found.before),
        "after": _durations(found.after),
        "clear": found.clear,
        "change": seconds(found.change_ns),
        "path_changes": {name: seconds(ns) for name, ns in found.path_change_ns.items()},
        "nodes": [
            {"name": node.name, "before": _node(node.before), "after": _node(node.after)} for node in found.nodes
        ],
    }


def _durations(found: Durations) -> dict[str, Any]:
    return {
        "runs": found.runs,
        "mean": seconds(found.mean_ns),
        "p50": seconds(found.p50_ns),
        "p95": seconds(found.p95_ns),
    }


def _node(found: NodeDurations) -> dict[str, Any]:
    return {
        "runs": found.runs,
        "executions": found.executions,
        "p50": seconds(found.p50_ns),
        "p95": seconds(found.p95_ns),
        "path_runs": found.path_runs,
        "critical": seconds(found.path_ns),
    }
