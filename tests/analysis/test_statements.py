"""No statement without its table: what sentences say of workers and gains follows from the numbers beside them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.diagnosed_runs import beside_each_other
from tests.analysis.locked_runs import simulated
from tests.analysis.played_runs import dags, played, workers_counts
from tests.analysis.synthetic_runs import layered_run
from traced_threadpool.analysis.diagnosis.advice import MORE_WORKERS_CANNOT_HELP, OVERLAP, expected_gain
from traced_threadpool.analysis.replay.pool_what_if import scale_pool
from traced_threadpool.analysis.replay.virtual_pool import most_at_once
from traced_threadpool.analysis.replay.what_if import HELPS, Plan, Scaling, counts_to_try, replay, scale
from traced_threadpool.model.formatting import duration, percent
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import State
from traced_threadpool.report.explanation import explain

NUMBER = r"([\d,]+)"
TIME = r"((?:[\d.,]+ (?:s|ms|µs|ns|min|h) ?)+)"


@st.composite
def layered(draw: st.DrawFn) -> RecordedRun:
    """Layers of nodes of any states, on as many workers as there were or on a number that the record does not have."""
    run = layered_run(
        draw(st.integers(1, 25)),
        workers=draw(st.integers(1, 12)),
        layers=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 10_000)),
        states=draw(st.booleans()),
        mean_ms=draw(st.sampled_from([1.0, 40.0, 5_000.0])),
    )
    if draw(st.booleans()):
        run = replace(run, max_workers=None)
    state = draw(st.sampled_from([None, "lock", "sleep", "network", "disk", "cpu"]))
    if state is not None:
        run = replace(run, nodes=tuple(_mostly(each, state) for each in run.nodes))
    others = draw(st.sampled_from([0, 0, 1, 2]))  # whether other runs had the workers in no queue wait, all, or half
    nodes = tuple(replace(each, queue_others_ns=each.queue_ns // others if others else 0) for each in run.nodes)
    return replace(run, nodes=nodes, cpus=draw(st.none() | st.integers(1, 8)))


def _mostly(node: NodeExecution, state: str) -> NodeExecution:
    part_ns = node.duration_ns * 9 // 10
    return replace(node, states={state: part_ns, "other": node.duration_ns - part_ns}, samples=9)


@st.composite
def contended(draw: st.DrawFn) -> RecordedRun:
    """Any graph of nodes that compute with and without the GIL, as the virtual machine plays it."""
    return played(
        draw(dags(held=draw(st.booleans()), mixed=True)), workers=draw(workers_counts), cpus=draw(st.integers(1, 4))
    )


@st.composite
def nesting(draw: st.DrawFn) -> RecordedRun:
    """One of its nodes executes a run of its own, within its time."""
    run, inner = draw(layered()), draw(layered())
    outer = draw(st.sampled_from([node for node in run.nodes if node.duration_ns]))
    scale = outer.duration_ns / inner.duration_ns

    def within(ns: int) -> int:
        return min(outer.ended_ns, outer.started_ns + int((ns - inner.started_ns) * scale))

    nested = []
    for node in inner.nodes:
        times = {each: within(getattr(node, each)) for each in ("submitted_ns", "ready_ns", "started_ns", "ended_ns")}
        length_ns = times["ended_ns"] - times["started_ns"]
        states = {state: ns * length_ns // node.duration_ns for state, ns in node.states.items()}
        nested.append(
            replace(
                node,
                key=f"in {node.key}",
                name=f"in_{node.name}",
                upstream=tuple(f"in {key}" for key in node.upstream),
                worker=f"other {node.worker}",
                states=states,
                parent=outer.key,
                run_id="inner",
                **times,
            )
        )
    return replace(run, nodes=(*run.nodes, *nested), expected_nodes=None)


@st.composite
def sharing(draw: st.DrawFn) -> RecordedRun:
    """One of up to three runs in a pool, at any distance from each other, of which some may not be in the record."""
    run = draw(layered())
    at_once = most_at_once([(node.started_ns, node.ended_ns) for node in run.nodes])
    run = replace(run, max_workers=draw(st.integers(max(1, at_once), at_once + 4)))
    others = []
    for number in range(draw(st.integers(1, 2))):
        other = layered_run(draw(st.integers(1, 15)), seed=number, run_id=f"other-{number}", run_name="nightly")
        by_ns = run.started_ns - other.started_ns + draw(st.integers(-1, 1)) * other.duration_ns // 3
        others.append(moved(other, by_ns))
    return beside_each_other(run, *others)


def moved(run: RecordedRun, by_ns: int) -> RecordedRun:
    """The same, later or earlier."""
    fields = ("submitted_ns", "ready_ns", "started_ns", "ended_ns")
    nodes = [replace(node, **{each: getattr(node, each) + by_ns for each in fields}) for node in run.nodes]
    return replace(run, nodes=tuple(nodes), started_ns=run.started_ns + by_ns, ended_ns=run.ended_ns + by_ns)


@st.composite
def locking(draw: st.DrawFn) -> RecordedRun:
    """Nodes that meet at a lock or a semaphore, whose capacity is known or not."""
    return simulated(
        draw(st.integers(1, 8)),
        outside_ms=draw(st.sampled_from([1, 20, 60])),
        held_ms=draw(st.sampled_from([5, 60])),
        capacity=draw(st.integers(1, 3)),
        turns=draw(st.integers(1, 3)),
        nodes=draw(st.integers(2, 10)),
        first=draw(st.booleans()),
        known=draw(st.booleans()),
    )


@st.composite
def starved(draw: st.DrawFn) -> RecordedRun:
    """Other programs have most of the CPUs."""
    run = draw(layered())
    part = draw(st.sampled_from([0.5, 0.8, 0.95]))
    nodes = []
    for node in run.nodes:
        waited_ns = round(node.duration_ns * part)
        states: dict[State, int] = {"runqueue": waited_ns, "cpu": node.duration_ns - waited_ns}
        nodes.append(replace(node, states=states, samples=9))
    return replace(run, nodes=tuple(nodes), cpus=draw(st.integers(1, 4)))


@st.composite
def on_backends(draw: st.DrawFn) -> RecordedRun:
    """Some nodes ran on processes, on a cluster or on a lane of threads; those began later than they could have."""
    kinds = draw(st.sets(st.sampled_from(["processes", "dask", "threads"]), min_size=1))
    lanes = {f"on_{kind}": Lane(kind, draw(st.integers(1, 3))) for kind in sorted(kinds)}
    run = played(
        draw(dags(held=draw(st.booleans()), mixed=True)),
        workers=draw(workers_counts),
        cpus=draw(st.integers(1, 4)),
        backends=["", *lanes],
        lanes=lanes,
    )
    late, moving = draw(st.sampled_from([0, 0.1, 0.6])), draw(st.sampled_from([0, 0.3, 0.9]))
    nodes = tuple(_later(each, number, late, moving) if each.backend else each for number, each in enumerate(run.nodes))
    return replace(run, nodes=nodes)


def _later(node: NodeExecution, number: int, late: float, moving: float) -> NodeExecution:
    by_ns = round(node.duration_ns * late * (number % 3) / 2)
    lasting_ns = node.duration_ns - by_ns
    transfer_ns = round(lasting_ns * moving) if node.is_remote else 0
    own_ns = lasting_ns - transfer_ns
    states = {state: part_ns * own_ns // max(1, node.duration_ns) for state, part_ns in node.states.items()}
    states["transfer" if number % 2 else "remote_queue"] = transfer_ns
    return replace(node, started_ns=node.started_ns + by_ns, states=states, sent_bytes=number % 4 * 200_000)


runs = st.one_of(layered(), contended(), nesting())
runs_in_company = st.one_of(runs, sharing(), locking(), starved(), on_backends())


def workers_of(text: str) -> int:
    return int(text.replace(",", ""))


def check_of_more_than(sentence: str, scaling: Scaling) -> None:
    """`Scaling.of_more_than`, against the rows."""
    if (found := re.search(rf"More than {NUMBER} workers? would not help", sentence)) is not None:
        number = workers_of(found[1])
        rows = {each: ns for each, ns in scaling.makespan_ns.items() if each > number}
        assert rows
        assert min(rows.values()) >= scaling.makespan_ns[number], sentence
    elif (
        found := re.search(rf"More than {NUMBER} workers? would gain {TIME}\(.+ %\) at best, with {NUMBER}", sentence)
    ) is not None:
        number, best = workers_of(found[1]), workers_of(found[3])
        rows = {each: ns for each, ns in scaling.makespan_ns.items() if each > number}
        assert scaling.makespan_ns[best] == min(rows.values())
        assert found[2].strip() == duration(scaling.makespan_ns[number] - scaling.makespan_ns[best])
    elif (found := re.search(rf"[Ss]till scaling at {NUMBER} workers?, the largest count tried", sentence)) is not None:
        assert workers_of(found[1]) == max(scaling.makespan_ns)


@settings(deadline=None, max_examples=60)
@given(runs_in_company)
def test_what_is_said_of_workers_follows_from_the_rows(run: RecordedRun) -> None:
    """In findings and in the curve's summary, which have the same rows."""
    explanation = explain(run)
    curve = explanation.curve
    assert curve is not None
    scaling, now = curve.scaling, curve.now
    rows = {point.workers: point.makespan_ns for point in curve.points}
    assert rows == dict(scaling.makespan_ns)
    best_ns = min((ns for each, ns in rows.items() if each > now), default=rows[now])
    for finding in explanation.findings:
        check_of_more_than(finding.advice, scaling)
        if MORE_WORKERS_CANNOT_HELP in finding.advice:
            assert best_ns > rows[now] * (1 - HELPS)
        if (found := re.search(rf"Set max_workers={NUMBER}\.", finding.advice)) is not None:
            number = workers_of(found[1])
            shown = [each for each in finding.evidence if f"with {number:,} worker" in each]
            assert [duration(rows[number]) in each for each in shown] == [True]
        if "nothing that was replayed makes it 10 % shorter" in finding.advice:
            assert min(rows.values()) > 0.9 * rows[now] * (1 - 1e-9)
    check_of_more_than(curve.summary, scaling)
    if (found := re.search(rf"^{NUMBER} workers? instead of {NUMBER} would take {TIME}\(", curve.summary)) is not None:
        assert found[3].strip() == duration(rows[workers_of(found[1])])


@settings(deadline=None, max_examples=60)
@given(runs_in_company, st.data())
def test_the_limit_of_a_number_of_workers_is_the_same_whoever_asks(run: RecordedRun, data: st.DataObject) -> None:
    """A row is limited by the number of workers if, and only if, more workers make the run shorter by 2 %."""
    plan = Plan(run)
    whole = scale(run, counts_to_try(run), plan=plan)
    many = replay(run, workers=len(plan.nodes), plan=plan).makespan_ns
    for number, makespan_ns in whole.makespan_ns.items():
        beyond = min([ns for each, ns in whole.makespan_ns.items() if each > number] + [many])
        assert (whole.limits[number] == "none") == (beyond <= makespan_ns * (1 - HELPS))
    if "backend" in whole.limits.values():  # then it is shorter without the limits
        nodes = len(plan.nodes)
        lanes = {name: nodes for name, lane in run.backends.items() if lane.kind != "processes"}
        processes = nodes if "on_processes" in run.backends else None
        assert replay(run, workers=nodes, lanes=lanes, processes=processes, plan=plan).makespan_ns < many
    number = data.draw(st.sampled_from(sorted(whole.makespan_ns)))
    alone = scale(run, [number], plan=plan)
    assert alone.makespan_ns[number] == whole.makespan_ns[number]
    if many <= min(ns for each, ns in whole.makespan_ns.items() if each >= number):
        assert alone.limits[number] == whole.limits[number]


@settings(deadline=None, max_examples=60)
@given(runs_in_company)
def test_gains_and_shares_follow_from_the_times_beside_them(run: RecordedRun) -> None:
    """The gain is the difference of the two lengths in the evidence, its share is of the run, and overlaps are told."""
    findings = explain(run).findings
    gaining = [finding for finding in findings if finding.gain_seconds]
    for finding in gaining:
        gain_ns = round(finding.gain_seconds * 1e9)
        replayed = [each for each in finding.evidence if re.match(r"(replay|estimate): ", each)]
        gained = f"{duration(run.duration_ns - gain_ns)} instead of {duration(run.duration_ns)}"
        assert gained in replayed[0]  # a second may be of a backend for the same nodes
        told = expected_gain(finding, run)
        assert told == f"Expected gain: {duration(gain_ns)}, {percent(gain_ns, run.duration_ns)} of the run."
        assert (finding.evidence[-1] == OVERLAP) == (finding is not gaining[0])


@settings(deadline=None, max_examples=30)
@given(runs_in_company)
def test_a_replay_with_nothing_changed_is_the_run(run: RecordedRun) -> None:
    """To the nanosecond, whichever node was first on a backend or of several runs: gains are counted from it."""
    lanes = {name: lane.max_workers for name, lane in run.backends.items() if lane.kind != "processes"}
    assert replay(run).makespan_ns == run.duration_ns
    assert replay(run, lanes=lanes) == replay(run)


@pytest.mark.parametrize("workers", [2, 6, 8])
def test_unchanged_settings_give_back_the_run(workers: int) -> None:
    """The row of the recorded number is the run itself."""
    run = layered_run(40, workers=workers, layers=5, seed=3)
    curve = explain(run).curve
    assert curve is not None
    assert {point.workers: point.makespan_ns for point in curve.points}[workers] == run.duration_ns


@settings(deadline=None, max_examples=20)
@given(runs_in_company, st.data())
def test_of_a_run_that_failed_nothing_is_said_of_speed(run: RecordedRun, data: st.DataObject) -> None:
    """Whatever it waited for: no gain, no number of workers, no curve."""
    failed = data.draw(st.sampled_from([node.key for node in run.outermost]))
    nodes = tuple(
        replace(node, outcome="error", error_type="ValueError") if node.key == failed else node for node in run.nodes
    )
    explanation = explain(replace(run, nodes=nodes, outcome="error", error_type="ValueError"))
    assert explanation.findings[0].cause == "failing_upstream"
    assert [finding.gain_seconds for finding in explanation.findings if finding.gain_seconds] == []
    assert not re.search(
        r"max_workers|workers? would|instead of", " ".join(each.advice for each in explanation.findings)
    )
    assert explanation.curve is None
    assert explanation.remarks == ()


@settings(deadline=None, max_examples=20)
@given(sharing(), st.sets(st.sampled_from([1, 2, 4, 8, 16]), min_size=1))
def test_what_is_said_of_a_pool_follows_from_its_rows(run: RecordedRun, asked: set[int]) -> None:
    """The recorded row is the record's; no larger number than is enough is faster by 2 % for 95 % of the runs."""
    assert run.pool_runs is not None
    together = run.pool_runs.runs
    found = scale_pool(together, asked)
    lengths_ns = sorted(each.duration_ns for each in together)
    now, enough = found.loads[found.recorded_workers], found.loads[found.enough_workers]
    assert (now.p50_ns, now.p99_ns) == (lengths_ns[(len(lengths_ns) - 1) // 2], lengths_ns[-1])
    beyond = [load.p95_ns for number, load in found.loads.items() if number > enough.workers]
    assert min(beyond, default=enough.p95_ns) >= enough.p95_ns * (1 - HELPS)
    told = re.search(rf"{NUMBER} workers?.* 95 % of the runs within {TIME}", found.reason)
    assert told is not None
    assert workers_of(told[1]) == enough.workers
    assert told[2].strip() == duration(enough.p95_ns)
    if " instead of " in found.reason:
        assert found.reason.endswith(f" instead of {duration(now.p95_ns)}.")
