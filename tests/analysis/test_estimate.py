"""Estimates for very large runs: never far from a whole replay, and said to be what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.diagnosed_runs import EXAMPLES
from tests.analysis.played_runs import MS, dags, played
from tests.analysis.synthetic_runs import layered_run
from traced_threadpool.analysis.diagnosis import analyzed_run as looking
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.analysis.replay.estimate import CLOSE, MOST_SCHEDULED, NOTICEABLE, Estimate
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.what_if import HELPS, replay
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.as_json import explanation_json
from traced_threadpool.report.explanation import explain

counts = st.integers(1, 6)


@pytest.fixture
def every_run_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "WHOLE", 0)


@settings(deadline=None)
@given(dag=dags(), recorded=counts, asked=counts, twice_as_fast=st.booleans())
def test_an_estimate_of_waits_is_a_replay_within_its_margin(
    dag: list[tuple[Demand, list[int]]], recorded: int, asked: int, twice_as_fast: bool
) -> None:
    """Where nodes wait and do not compute. What is not looked at closely is what would hardly be noticed."""
    run = played(dag, workers=recorded)
    faster = {run.nodes[0].name: 2.0} if twice_as_fast else {}
    whole = replay(run, workers=asked, faster=faster).makespan_ns
    estimated = replay(run, workers=asked, faster=faster, plan=Estimate(run)).makespan_ns
    margin = max(HELPS, CLOSE / 2) if not faster else 0.1
    assert abs(estimated - whole) <= margin * run.duration_ns or min(estimated, whole) > (1 - margin) * run.duration_ns


@settings(deadline=None)
@given(
    dag=dags(),
    recorded=counts,
    limit=st.integers(1, 3),
    asked=st.integers(1, 6),
    order=st.permutations(["", "db"]),
    kind=st.sampled_from(["threads", "dask"]),
)
def test_an_estimate_knows_the_limits_of_lanes(
    dag: list[tuple[Demand, list[int]]], recorded: int, limit: int, asked: int, order: list[str], kind: str
) -> None:
    """A wider lane gains as much as a replay says, and a narrower one costs, within what would be noticed."""
    run = played(dag, workers=recorded, backends=order, lanes={"db": Lane(kind, limit)})
    whole = replay(run, lanes={"db": asked}).makespan_ns
    estimated = replay(run, lanes={"db": asked}, plan=Estimate(run)).makespan_ns
    assert abs(estimated - whole) <= NOTICEABLE * run.duration_ns or min(estimated, whole) > (1 - NOTICEABLE) * (
        run.duration_ns
    )


def test_where_no_schedule_is_asked_for_the_bounds_know_of_lanes() -> None:
    """A narrower lane needs none; and when there are enough, no gain is said that a replay does not say."""
    db = {"db": Lane("threads", 2)}
    run = played([(Demand(wait_ns=100 * MS), [])] * 12, workers=8, backends=("db",), lanes=db)
    plan = Estimate(run)
    assert replay(run, lanes={"db": 1}, plan=plan).makespan_ns == 1200 * MS
    assert plan.scheduled == 0
    plan.scheduled = MOST_SCHEDULED
    assert replay(run, lanes={"db": 3}, plan=plan).makespan_ns >= 400 * MS
    # A worker for each does not mean that each starts when its inputs are there.
    dag = [(Demand(wait_ns=100 * MS), [number - 3] if number > 2 else []) for number in range(6)]
    run = played(dag, workers=6, backends=("db", "db", "db", "", "", ""), lanes={"db": Lane("threads", 1)})
    assert run.duration_ns == 400 * MS
    plan = Estimate(run)
    assert replay(run, lanes={"db": 2}, plan=plan).makespan_ns == 300 * MS
    plan.scheduled = MOST_SCHEDULED
    assert replay(run, workers=5, lanes={"db": 2}, plan=plan).makespan_ns >= 300 * MS


@pytest.mark.parametrize("asked", [1, 2, 3, 4, 8])
def test_many_nodes_side_by_side_need_no_schedule(asked: int) -> None:
    """Their time by the workers is the answer, whatever their order, to within the longest of them."""
    run = played([(Demand(wait_ns=(5 + number % 7) * 1_000_000), []) for number in range(400)], workers=2)
    plan = Estimate(run)
    faster = {each.name: 2.0 for each in run.nodes}
    found = replay(run, workers=asked, faster=faster, plan=plan).makespan_ns
    assert found == pytest.approx(replay(run, workers=asked, faster=faster).makespan_ns, rel=0.01)
    assert plan.scheduled == 0


@settings(deadline=None)
@given(dag=dags(held=True, mixed=True), recorded=counts)
def test_with_nothing_changed_the_answer_is_the_record(dag: list[tuple[Demand, list[int]]], recorded: int) -> None:
    """However much nodes kept each other waiting, and nothing is scheduled for that."""
    run = played(dag, workers=recorded, cpus=2)
    plan = Estimate(run)
    found = replay(run, plan=plan)
    assert [found.makespan_ns, plan.scheduled] == [run.duration_ns, 0]
    assert [(each.started_ns, each.ended_ns) for each in found.nodes] == [
        (each.started_ns, each.ended_ns) for each in run.nodes
    ]


@settings(deadline=None)
@given(dag=dags(held=True, mixed=True), recorded=counts, asked=counts)
def test_computing_stays_serial(dag: list[tuple[Demand, list[int]]], recorded: int, asked: int) -> None:
    """No number of workers brings a run below the time that it computes with the GIL."""
    run = played(dag, workers=recorded, cpus=2)
    plan = Estimate(run)
    held_ns = sum(demand.held_ns for demand in plan.demands.each)
    assert replay(run, workers=asked, plan=plan).makespan_ns >= 0.999 * min(held_ns, run.duration_ns)


def test_nodes_are_scheduled_a_few_times_at_most() -> None:
    """After that the longest that any schedule can take is the answer."""
    run = layered_run(200, workers=8, layers=50, states=False)
    plan = Estimate(run)
    whole = {workers: replay(run, workers=workers) for workers in range(9, 20)}
    found = {workers: replay(run, workers=workers, plan=plan) for workers in whole}
    assert plan.scheduled <= MOST_SCHEDULED
    assert all(found[workers].makespan_ns >= 0.97 * whole[workers].makespan_ns for workers in whole)


def test_links_that_form_a_circle_are_told() -> None:
    """As by a replay."""
    first, second = layered_run(2, layers=1).nodes
    run = replace(
        layered_run(2), nodes=(replace(first, upstream=(second.key,)), replace(second, upstream=(first.key,)))
    )
    with pytest.raises(ValueError, match="2 nodes of the record wait for one another; its links form a circle"):
        Estimate(run)


@pytest.mark.usefixtures("every_run_is_large")
@pytest.mark.parametrize("cause", [cause for cause in EXAMPLES if cause != "pool_too_large"])
def test_every_leaf_but_one_is_found_by_estimates_too(cause: Any) -> None:
    """Whether fewer workers would do as well they do not ask. `switch_interval` comes beside what holds the GIL."""
    assert cause in [finding.cause for finding in diagnose(EXAMPLES[cause]).findings]
    assert diagnose(EXAMPLES[cause]).cause == {"switch_interval": "gil_bound"}.get(cause, cause)


def _text_of(run: RecordedRun) -> str:
    console = pytest.importorskip("rich.console", reason="needs the extra [report]").Console(width=400)
    from traced_threadpool.report.terminal import explanation_text

    with console.capture() as captured:
        for part in explanation_text(explain(run)):
            console.print(part)
    return captured.get()


def _page_of(run: RecordedRun) -> str:
    pytest.importorskip("jinja2", reason="needs the extra [report]")
    from traced_threadpool.report.page import page

    return page(explain(run))


@pytest.mark.usefixtures("every_run_is_large")
@pytest.mark.parametrize(
    "shown",
    [
        _text_of,
        lambda run: json.dumps(explanation_json(explain(run))["estimated"]),
        _page_of,
    ],
    ids=["text", "json", "page"],
)
def test_an_estimate_is_said_to_be_one(shown: Callable[[RecordedRun], str]) -> None:
    """In every output; and a finding's evidence is an estimate, no replay."""
    run = EXAMPLES["sleeping_node"]
    assert "A run of 2 nodes is not replayed whole" in shown(run)
    assert any(each.startswith("estimate: if nobody slept") for each in diagnose(run).findings[0].evidence)


def test_a_smaller_run_is_replayed_whole() -> None:
    """And nothing is said of estimates."""
    explanation = explain(EXAMPLES["sleeping_node"])
    assert explanation.estimated is None
    assert explanation_json(explanation)["estimated"] is None
    assert "not replayed whole" not in _text_of(EXAMPLES["sleeping_node"])
