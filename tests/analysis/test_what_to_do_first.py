"""Findings in the order in which to act, what is said of a run that failed, and of what looks big and is no finding."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.analysis.diagnosed_runs import EXAMPLES, in_turns, node, run, side_by_side
from tests.analysis.locked_runs import simulated
from tests.analysis.test_statements import runs
from traced_threadpool.analysis import diagnose
from traced_threadpool.analysis.diagnosis.remarks import COVERED_BY
from traced_threadpool.model.formatting import duration, percent
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.explanation import explain
from traced_threadpool.report.notebook import notebook_html


def causes(record: RecordedRun) -> list[str]:
    return [finding.cause for finding in diagnose(record).findings]


def test_a_setting_comes_before_a_change_of_code_that_gains_little_more() -> None:
    """12 nodes that sleep on 2 workers: a larger pool takes 5 s off 6, not sleeping 6; one is an argument."""
    record = run(*in_turns(12, 1_000, 2, {"sleep": 1_000}), end=6_000, max_workers=2)

    assert causes(record) == ["pool_too_small", "sleeping_node"]
    pool, sleeping = diagnose(record).findings
    assert (pool.gain_seconds, sleeping.gain_seconds) == pytest.approx((5.0, 6.0), abs=0.01)


def test_more_workers_of_a_backend_are_a_setting_too() -> None:
    """12 nodes that sleep half of their time on two processes: four take as much off as not sleeping."""
    nodes = [
        replace(each, backend="cpu", is_remote=True) for each in in_turns(12, 1_000, 2, {"sleep": 500, "cpu": 500})
    ]
    record = run(*nodes, end=6_000, max_workers=12, cpus=8, backends={"cpu": Lane("processes", 2)})

    assert causes(record)[:2] == ["remote_queue_bound", "sleeping_node"]
    lane, sleeping = diagnose(record).findings[:2]
    assert (lane.gain_seconds, sleeping.gain_seconds) == pytest.approx((3.0, 3.0), abs=0.01)


def test_fewer_workers_are_advised_where_nothing_else_would_help() -> None:
    """A row of the curve that is shorter by a tenth is no reason to leave everything as it is."""
    spans = [(0, 50), (0, 50), (0, 350), (50, 150), (50, 300), (150, 380)]
    nodes = [
        node(f"n{number}", start, end, {"runqueue": (end - start) * 12 // 25, "cpu": (end - start) * 13 // 25})
        for number, (start, end) in enumerate(spans)
    ]
    found = diagnose(run(*nodes, end=480, max_workers=3)).findings
    assert [(each.cause, each.evidence[-1], each.gain_seconds) for each in found] == [
        ("pool_too_large", "replay: with 2 workers, 428 ms instead of 480 ms", pytest.approx(0.052, abs=0.001))
    ]


@pytest.mark.parametrize("outside_ms", [10, 20, 30])
def test_a_lock_comes_before_what_nodes_do_under_it(outside_ms: float) -> None:
    """Also where the path goes through those that have it: on two workers one asks a service, the other waits."""
    record = simulated(2, outside_ms=outside_ms, held_ms=100)
    asking = [
        replace(each, states={"lock": each.states["lock"], "network": each.states["sleep"]}) for each in record.nodes
    ]

    assert causes(replace(record, nodes=tuple(asking))) == ["lock_contention", "slow_network"]


def test_a_change_of_code_that_gains_far_more_comes_before_a_setting() -> None:
    """4 such nodes on 3 workers: a fourth takes half off, not sleeping all."""
    record = run(*in_turns(4, 1_000, 3, {"sleep": 1_000}), end=2_000, max_workers=3)

    assert causes(record) == ["sleeping_node", "pool_too_small"]


FAILED = run(
    node("load", 0, 5_000, {"network": 5_000}),
    node(
        "parse", 5_000, 6_000, {"sleep": 1_000}, upstream=("load",), outcome="error", error_type="ValueError",
        error_message="line 3\nis no number",
    ),
    node("score", 6_000, 6_000, upstream=("parse",), outcome="upstream_error", failed_upstream="parse"),
    end=6_000,
    outcome="error",
    error_type="ValueError",
)  # fmt: skip


def test_a_run_that_failed_says_where_why_and_what_never_ran_and_nothing_of_speed() -> None:
    """Its chain is slow, and that is not what to see to; how long it would take, nobody knows."""
    [finding] = diagnose(FAILED).findings

    assert (finding.cause, finding.nodes) == ("failing_upstream", ("parse",))
    assert finding.evidence == (
        r"parse raised ValueError after 1.00 s: line 3\nis no number",
        "1 of 3 nodes never ran, since a node upstream of them failed: score",
    )
    assert diagnose(FAILED).remarks == ()
    assert explain(FAILED).curve is None
    # The same run, had it not failed: all of it would have been said.
    succeeded = replace(FAILED, outcome="success", nodes=FAILED.nodes[:1], ended_ns=5 * 10**9)
    assert causes(replace(succeeded, expected_nodes=1)) == ["slow_network"]


def test_a_failure_that_the_run_survived_is_told_beside_what_is_slow() -> None:
    """An adapter may put a value in the failed node's place: then how long the run takes is worth telling."""
    survived = replace(FAILED, outcome="success")
    assert causes(survived)[0] == "failing_upstream"
    assert len(causes(survived)) > 1


def test_what_looks_biggest_and_is_no_finding_has_a_sentence() -> None:
    """Three nodes wait for the network beside one that computes: most of their time, and none of the path."""
    beside = side_by_side({"network": 600, "cpu": 10}, count=3, prefix="fetch")
    record = run(node("train", 0, 1_000, {"cpu": 1_000}, worker="etl_9"), *beside, end=1_000)

    assert causes(record) == ["critical_path"]
    assert diagnose(record).remarks == (
        "The largest part of the nodes' time is waiting for a socket (1.80 s, 64 %). It is no finding: replay: if it "
        "took half as long, 1.00 s instead of 1.00 s.",
    )
    assert "waiting for a socket (1.80 s, 64 %)" in notebook_html(record)


def test_waiting_for_a_worker_that_more_workers_would_not_shorten_is_explained() -> None:
    """Nodes that hold the GIL all the time, on one worker: they are queued for most of the path."""
    record = run(*in_turns(6, 100, 1, {"cpu": 100}), end=600, max_workers=1, cpus=1)

    assert "pool_too_small" not in causes(record)
    [queued] = [each for each in diagnose(record).remarks if "waiting for a worker" in each]
    assert queued.startswith(
        "The largest part of the critical path is waiting for a worker (500 ms, 83 %). It is no find"
    )
    assert "more than 1 worker would not help" in queued


@settings(deadline=None, max_examples=60)
@given(runs)
def test_what_is_biggest_is_never_passed_over(record: RecordedRun) -> None:
    """Of any record: a finding is about it, or a sentence names it with the numbers of the table."""
    explanation = explain(record)
    rows = [row for row in explanation.state_rows if row.name not in ("other", "inputs")]
    if not rows:
        return
    said = " ".join(explanation.remarks)
    told = {finding.cause for finding in explanation.findings}
    about_nodes = told & {"critical_path", "straggler", "telemetry_loss"}
    total = explanation.nodes_ns  # nodes of nested runs are a part of those that ran them
    by_nodes = max(rows, key=lambda row: row.nodes_ns or 0)
    by_path = max(rows, key=lambda row: row.path_ns)
    for row, ns, whole in ((by_nodes, by_nodes.nodes_ns or 0, total), (by_path, by_path.path_ns, record.duration_ns)):
        state = "queue" if row.state is None and row.name == "queue wait" else row.state or "outside"
        if ns > 0.34 * whole and not told & set(COVERED_BY[state]) and not about_nodes:
            assert re.search(rf"{re.escape(duration(ns))}, {re.escape(percent(ns, whole))}\)", said), (row, told, said)


def test_examples_of_a_cause_need_no_remark_about_it() -> None:
    """What a finding is about is not explained away."""
    for cause in ("gil_bound", "lock_contention", "sleeping_node", "slow_network", "slow_disk", "critical_path"):
        assert explain(EXAMPLES[cause]).remarks == (), cause
