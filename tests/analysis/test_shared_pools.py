"""Runs that share a pool: the replay of one holds the others' nodes, also those that are not in the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.diagnosed_runs import EXAMPLES, MS, beside_each_other, node, run
from tests.analysis.played_runs import dags, workers_counts
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.pool_what_if import pools_of, scale_pool
from traced_threadpool.analysis.replay.virtual_pool import HandOvers, VirtualPool
from traced_threadpool.analysis.replay.what_if import replay, scale
from traced_threadpool.model.recorded_run import NodeExecution, PoolRuns, RecordedRun

Dag = Sequence[tuple[Demand, Sequence[int]]]


def shared(asked: Sequence[Dag], workers: int) -> list[RecordedRun]:
    """The records of runs that begin a millisecond after each other, as the model itself would run them."""
    nodes: list[NodeExecution] = []
    run_of: list[int] = []
    demands: list[Demand] = []
    for number, dag in enumerate(asked):
        for index, (demand, inputs) in enumerate(dag):
            nodes.append(
                replace(
                    node(f"n{number}_{index}", 0, 0, upstream=tuple(f"n{number}_{each}" for each in inputs)),
                    submitted_ns=number * MS + index,
                )
            )
            run_of.append(number)
            demands.append(demand)
    play = VirtualPool(nodes, 0, workers, run_of=[0] * len(nodes))
    play._run_of = run_of  # all to their end, whichever is the run that is asked for
    ends: dict[str, int] = {}
    found: list[NodeExecution] = []
    times = _all_played(play, demands, workers)
    for each, demand, when in zip(nodes, demands, times, strict=True):
        started_ns, ended_ns = round(when[0]), round(when[1])
        ends[each.key] = ended_ns
        ready_ns = max([each.submitted_ns, *[ends[key] for key in each.upstream]])
        waited_ns = round(demand.wait_ns)
        found.append(
            replace(
                each,
                ready_ns=ready_ns,
                started_ns=started_ns,
                ended_ns=ended_ns,
                states={"network": waited_ns},
                samples=9,
            )
        )
    together: list[RecordedRun] = []
    pool_runs = PoolRuns(lambda: together)
    for number in range(len(asked)):
        own = tuple(each for each, of in zip(found, run_of, strict=True) if of == number)
        together.append(
            run(
                *own,
                end=0,
                id=str(number),
                started_ns=number * MS,
                ended_ns=max(each.ended_ns for each in own),
                max_workers=workers,
                pool_runs=pool_runs,
            )
        )
    return together


def _all_played(pool: VirtualPool, demands: Sequence[Demand], workers: int) -> list[tuple[float, float]]:
    none = HandOvers([0] * len(demands), [0] * len(demands))
    runs = set(pool._run_of)
    order = list(pool._run_of)
    found: dict[int, tuple[float, float]] = {}
    for last in runs:  # a pool ends when the run that it is about has: ask it about each
        pool._run_of = [0 if of == last else of + 1 for of in order]
        for index, when in enumerate(pool.play(demands, none, workers=workers, cpus=None).times):
            if when is not None and order[index] == last:
                found[index] = (when.started_ns, when.ended_ns)
    return [found[index] for index in range(len(demands))]


several = st.lists(dags(), min_size=2, max_size=3)


@settings(deadline=None, max_examples=60)
@given(asked=several, workers=workers_counts)
def test_nothing_changed_gives_back_each_run(asked: list[Dag], workers: int) -> None:
    """Node by node."""
    for record in shared(asked, workers):
        replayed = replay(record)
        assert replayed.makespan_ns == record.duration_ns
        assert [(each.started_ns, each.ended_ns) for each in replayed.nodes] == [
            (each.started_ns, each.ended_ns) for each in record.nodes
        ]
        assert replay(record, workers=workers).makespan_ns == record.duration_ns


@settings(deadline=None, max_examples=60)
@given(asked=several, recorded=workers_counts, workers=workers_counts)
def test_other_workers_give_what_all_runs_together_take_on_them(asked: list[Dag], recorded: int, workers: int) -> None:
    """The first to begin meets nothing that the record does not have."""
    first, truth = shared(asked, recorded)[0], shared(asked, workers)[0]
    assert replay(first, workers=workers).makespan_ns == pytest.approx(truth.duration_ns, rel=0.35)


SECONDS: Mapping[int, int] = {1: 900, 2: 500, 4: 300}


def one_of_three(workers: int) -> RecordedRun:
    """A node of 100 ms and then one more, beside two runs of three nodes of 100 ms, all at once."""
    plan = [[(Demand(wait_ns=100 * MS), ()), (Demand(wait_ns=100 * MS), (0,))]]
    plan += [[(Demand(wait_ns=100 * MS), ())] * 3 for _ in range(2)]
    return shared(plan, workers)[0]


@pytest.mark.parametrize("recorded", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_the_curve_is_that_of_the_pool(recorded: int, workers: int) -> None:
    """Not that of a run that is alone in it, whose queue waits would come from nowhere."""
    truth = one_of_three(workers).duration_ns
    assert replay(one_of_three(recorded), workers=workers).makespan_ns == pytest.approx(truth, abs=3 * MS)
    assert scale(one_of_three(recorded), [1, workers, 16]).makespan_ns[16] == pytest.approx(200 * MS, abs=3 * MS)


def test_alone_leaves_the_others_out() -> None:
    assert replay(one_of_three(1), alone=True).makespan_ns == 200 * MS


@pytest.mark.parametrize("workers", [1, 4])
def test_others_that_are_not_in_the_record_are_known_by_the_waits(workers: int) -> None:
    """A sampler took this run and not those beside it: while its node waits, somebody has the workers."""
    behind = node("b", 300, 400, {"network": 100}, ready=0, queue_others=300)
    record = run(behind, end=400, max_workers=workers)
    assert replay(record).makespan_ns == 400 * MS
    assert replay(record, alone=True).makespan_ns == 100 * MS
    assert replay(record, workers=workers + 1).makespan_ns == 100 * MS
    assert any("not in the record" in said for said in replay(record).assumptions)
    assert diagnose(record).cause == "queued_behind_other_runs"


def test_others_that_are_too_many_are_said_to_be_left_out() -> None:
    """The first 2,000 nodes of them are replayed."""
    own = run(node("own", 0, 100, {"network": 100}), end=100, max_workers=2)
    crowd = [
        run(*(node(f"n{number}_{each}", 1, 2) for each in range(700)), end=100, id=f"c{number}") for number in range(4)
    ]
    assert "2 more runs in the pool left out: 2,000 nodes of others are replayed at most" in (
        replay(beside_each_other(own, *crowd)).assumptions
    )


def test_runs_that_a_caller_begins_one_after_the_other_stay_so() -> None:
    """A client that waits for its run before it begins the next brings no more work to a slower pool."""
    others = [
        run(
            node(f"c{number}", start, start + 100, {"network": 100}, submitted=start, worker="etl_0"),
            end=start + 100,
            started_ns=start * MS,
            id=f"c{number}",
            caller="7",
        )
        for number, start in enumerate((0, 101, 202, 303))
    ]
    own = run(node("own", 50, 250, {"network": 200}, ready=50, submitted=50, worker="etl_1"), end=250, max_workers=2)
    record = beside_each_other(replace(own, started_ns=50 * MS), *others)
    # One worker: the rest of the first, then this one; the caller's next comes only after that.
    assert replay(record, workers=1).makespan_ns == pytest.approx(250 * MS, abs=3 * MS)
    strangers = [replace(each, caller="") for each in others]
    assert replay(beside_each_other(replace(own, started_ns=50 * MS), *strangers), workers=1).makespan_ns > 0


def test_a_pool_that_is_too_small_for_all_is_told_once() -> None:
    """More workers are the advice of the one finding, not a second one."""
    found = diagnose(EXAMPLES["queued_behind_other_runs"])
    assert "pool_too_small" not in [each.cause for each in found.findings]
    assert found.findings[0].gain_seconds is not None
    assert "nightly" in " ".join(found.findings[0].evidence)


@pytest.mark.parametrize("recorded", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_a_pool_is_replayed_with_all_its_runs(recorded: int, workers: int) -> None:
    """The percentiles are those of the runs as they are on so many workers."""
    plan = [[(Demand(wait_ns=100 * MS), ())] * 2 for _ in range(4)]
    truth = shared(plan, workers)
    latencies_ns = sorted(each.duration_ns for each in truth)
    load = scale_pool(shared(plan, recorded), [workers]).loads[workers]
    assert load.p50_ns == pytest.approx(latencies_ns[1], abs=5 * MS)
    assert load.p95_ns == load.p99_ns == pytest.approx(latencies_ns[3], abs=5 * MS)
    lasting_ns = max(each.ended_ns for each in truth)
    assert load.runs_per_second == pytest.approx(4 / (lasting_ns / 1e9), rel=0.05)


def test_what_a_pool_says_of_more_workers_follows_from_its_rows() -> None:
    """In text and in a notebook: enough workers, and the 95th percentile of these beside the recorded one."""
    plan = [[(Demand(wait_ns=100 * MS), ())] * 2 for _ in range(4)]
    found = scale_pool(shared(plan, 2), [1, 4, 8, 16])
    assert found.enough_workers == 8
    assert found.reason == "More than 8 workers would not help: 95 % of the runs within 100 ms instead of 398 ms."
    rows = {row[0]: row[2] for row in found.rows}
    assert (rows["8"], rows["2 (recorded)"], rows["16"]) == ("100 ms", "398 ms", "100 ms")
    assert found.reason in str(found)
    assert found.reason in found._repr_html_()
    fewer = scale_pool(shared(plan, 16), [8])
    assert fewer.reason == "8 workers would do as well as 16: 95 % of the runs within 100 ms."
    most = scale_pool(shared(plan, 1), [2])
    assert most.reason.startswith("Still scaling at 2 workers, the largest count tried: 95 % of the runs within ")


def test_runs_that_are_not_replayed_are_counted() -> None:
    """Beyond so many nodes, and those of which no node ran; another number of workers is said too."""
    plan = [[(Demand(wait_ns=100 * MS), ())] * 2 for _ in range(4)]
    runs = shared(plan, 2)
    empty = run(end=1, id="empty")
    wide = replace(runs[1], max_workers=8)
    said = " | ".join(scale_pool([runs[0], wide, *runs[2:], empty], [2], most_nodes=4).assumptions)
    assert "2 runs with arrival times as they were recorded" in said
    assert "the pool had 2 to 8 workers meanwhile; it is taken to have had 8" in said
    assert "1 run left out: without nodes that ran" in said
    assert "2 later runs left out: 4 nodes are replayed together at most" in said


def test_pools_of_a_file_are_told_apart() -> None:
    """By their name, and by the process: two may have adapters of one name. The most runs first."""
    plan = [[(Demand(wait_ns=MS), ())]]
    here, there = shared(plan * 3, 1), shared(plan * 2, 1)
    assert [len(each) for each in pools_of([*there, *here])] == [3, 2]


def test_a_client_that_waits_brings_less_work_to_a_slower_pool() -> None:
    """Two clients with three runs each of one node, one after the other: on one worker each run waits for one other."""
    runs = [
        run(
            node(
                f"n{client}{number}", 100 * number + client, 100 * number + 99 + client, submitted=100 * number + client
            ),
            started_ns=(100 * number + client) * MS,
            end=100 * number + 99 + client,
            id=f"{client}{number}",
            caller=str(client + 1),
            max_workers=2,
        )
        for client in range(2)
        for number in range(3)
        for start in (100 * number + client,)
    ]
    closed = scale_pool(runs, [1, 2])
    assert closed.loads[2].p50_ns == 99 * MS
    assert closed.loads[1].p99_ns == pytest.approx(200 * MS, abs=5 * MS)
    assert any("4 runs that a caller began right after its last one" in said for said in closed.assumptions)
    strangers = scale_pool([replace(each, caller="") for each in runs], [1])
    assert strangers.loads[1].p99_ns > 300 * MS


def test_the_table_of_a_pool_says_which_number_was_recorded() -> None:
    found = scale_pool(shared([[(Demand(wait_ns=100 * MS), ())]] * 2, 2), [1])
    assert [line.split()[0] for line in str(found).splitlines()[:3]] == ["workers", "1", "2"]
    assert "2 (recorded)" in str(found)
    assert found._repr_html_().count("<tr>") == 3


def test_runs_of_several_pools_are_refused() -> None:
    one = run(node("a", 0, 1), end=1)
    with pytest.raises(ValueError, match=r"several pools \('etl', 'other'\)"):
        scale_pool([one, replace(one, id="2", pool="other")])
    with pytest.raises(ValueError, match="none of 0 runs has nodes"):
        scale_pool([])
