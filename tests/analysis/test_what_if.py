"""The replay: what holds for every record, and small examples worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.played_runs import MS, START_NS, critical_path_ns, dags, node, played, record, workers_counts
from traced_threadpool.analysis.replay.demand import demands
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.virtual_pool import most_at_once
from traced_threadpool.analysis.replay.what_if import Replayed, ReplayedNode, replay
from traced_threadpool.model.states import State


@settings(deadline=None)
@given(dag=st.one_of(dags(), dags(held=True, mixed=True), dags(mixed=True)), workers=workers_counts)
def test_an_unchanged_record_gives_back_the_run(dag: list[tuple[Demand, list[int]]], workers: int) -> None:
    """To the nanosecond, node by node, however much its nodes kept each other waiting."""
    run = played(dag, workers=workers, cpus=2)
    replayed = replay(run)
    assert replayed.makespan_ns == run.duration_ns
    assert replayed.nodes == tuple(
        ReplayedNode(key=each.key, name=each.name, started_ns=each.started_ns, ended_ns=each.ended_ns)
        for each in run.nodes
    )
    assert replay(run, faster={each.name: 1 for each in run.nodes}) == replayed
    assert replay(run, workers=workers, cpus=2) == replayed


@settings(deadline=None)
@given(dag=dags(), recorded=workers_counts, asked=workers_counts)
def test_waits_alone_are_scheduled_as_well_as_any_list_schedule(
    dag: list[tuple[Demand, list[int]]], recorded: int, asked: int
) -> None:
    """Never shorter than the critical path or the work divided, never longer than Graham's bound."""
    run = played(dag, workers=recorded)
    path_ns, work_ns = critical_path_ns(run), sum(each.duration_ns for each in run.nodes)
    makespan_ns = replay(run, workers=asked).makespan_ns
    assert max(path_ns, work_ns / asked) <= makespan_ns <= work_ns / asked + (1 - 1 / asked) * path_ns


@settings(deadline=None)
@given(dag=dags(held=True, mixed=True), recorded=workers_counts, asked=workers_counts, gil=st.booleans())
def test_no_node_starts_before_its_inputs_and_no_worker_has_two(
    dag: list[tuple[Demand, list[int]]], recorded: int, asked: int, gil: bool
) -> None:
    """The rules of the live scheduler hold in virtual time, whatever is asked for."""
    run = played(dag, workers=recorded, cpus=2)
    replayed = replay(run, workers=asked, gil=gil)
    times = {each.key: each for each in replayed.nodes}
    for each in run.nodes:
        assert all(times[key].ended_ns <= times[each.key].started_ns for key in each.upstream)
    assert most_at_once([(each.started_ns, each.ended_ns) for each in replayed.nodes]) == replayed.most_busy <= asked


@settings(deadline=None)
@given(dag=dags(held=True, mixed=True), asked=workers_counts)
def test_a_record_without_contention_foretells_what_the_model_does(
    dag: list[tuple[Demand, list[int]]], asked: int
) -> None:
    """From one worker, where nothing gets in anything's way, to several: as if played there in the first place."""
    expected = played(dag, workers=asked, cpus=2)
    found = replay(played(dag, workers=1, cpus=2), workers=asked)
    # Durations are rounded to the nanosecond, and a tie that falls differently can change the order of two nodes.
    assert found.makespan_ns == pytest.approx(expected.duration_ns, rel=0.25)


@settings(deadline=None)
@given(dag=dags(), data=st.data())
def test_a_node_off_every_path_can_go(dag: list[tuple[Demand, list[int]]], data: st.DataObject) -> None:
    """With workers for all, taking out a node that nobody needs and that ends before the last changes nothing."""
    needed = {each for _, inputs in dag for each in inputs}
    run = played(dag, workers=len(dag))
    spare = [each.name for each in run.nodes if int(each.name) not in needed and each.ended_ns < run.ended_ns]
    if spare:
        gone = data.draw(st.sampled_from(spare))
        replayed = replay(run, without=[gone])
        assert replayed.makespan_ns == run.duration_ns
        assert [each.name for each in replayed.nodes] == [each.name for each in run.nodes if each.name != gone]


def test_times_worked_out_by_hand() -> None:
    """`a` and `b` at once, then `c`, which needs `a`, and `d`, which needs both."""
    run = record(
        [
            node("a", 0, 30),
            node("b", 0, 50),
            node("c", 30, 70, "a"),
            node("d", 50, 60, "a", "b"),
        ],
        workers=2,
    )
    made = {workers: replay(run, workers=workers).makespan_ns / MS for workers in (1, 2, 3)}
    assert made == {1: 130, 2: 70, 3: 70}
    assert replay(run, faster={"a": 3}).makespan_ns == 60 * MS  # b, then d; c ends at 50
    assert replay(run, faster={"c": 0.5}).makespan_ns == 110 * MS
    assert replay(run, without=["a"]).makespan_ns == 60 * MS
    assert replay(run, without=["a"]).nodes == (
        ReplayedNode(key="b", name="b", started_ns=START_NS, ended_ns=START_NS + 50 * MS),
        ReplayedNode(key="c", name="c", started_ns=START_NS, ended_ns=START_NS + 40 * MS),
        ReplayedNode(key="d", name="d", started_ns=START_NS + 50 * MS, ended_ns=START_NS + 60 * MS),
    )
    assert replay(run, without=["a", "b"], workers=1).makespan_ns == 50 * MS
    assert replay(run).busy_share == pytest.approx(130 / 140)


def test_what_lies_between_nodes_stays() -> None:
    """Hamilton's walk, the hand-over to a worker, and the time after the last node."""
    run = record(
        [
            node("a", 6, 20, submitted_ns=START_NS + 5 * MS, ready_ns=START_NS + 5 * MS, worker="w"),
            node("b", 22, 42, submitted_ns=START_NS + 7 * MS, ready_ns=START_NS + 7 * MS, worker="w"),
        ],
        workers=1,
        ended_ns=START_NS + 45 * MS,
    )
    assert replay(run) == Replayed(
        makespan_ns=45 * MS,
        workers=1,
        nodes=(
            ReplayedNode(key="a", name="a", started_ns=START_NS + 6 * MS, ended_ns=START_NS + 20 * MS),
            ReplayedNode(key="b", name="b", started_ns=START_NS + 22 * MS, ended_ns=START_NS + 42 * MS),
        ),
        busy_share=34 / 45,
        gil_share=0,
        cpu_share=0,
        assumptions=("no states recorded of 2 nodes: taken as waiting, which overlaps freely",),
    )
    # A second worker is woken up for it, and that took 1 ms for `a`; 2 ms is what a worker took from one to the next.
    assert replay(run, workers=2).nodes[1].started_ns == START_NS + 8 * MS


def test_what_the_record_does_not_know_of_lets_a_node_go_when_it_did() -> None:
    """A lost span, or somebody else's future: `b` was ready at 40 ms, long after its known input."""
    run = record([node("a", 0, 10), node("b", 40, 50, "a", "lost")], workers=2)
    assert replay(run, faster={"a": 10}).nodes[1].started_ns == START_NS + 40 * MS
    assert replay(run, faster={"a": 0.1}).nodes[1].started_ns == START_NS + 100 * MS


def test_branches_are_submitted_after_the_node_that_is_split() -> None:
    """Hamilton's walk stands still for a `Parallelizable`, so what makes it faster brings its branches forward."""
    run = record(
        [
            node("list", 0, 20),
            node("files", 20, 50, "list", task_id="expand-files"),
            node("parse", 53, 60, "files", task_id="expand-files.0.x", submitted_ns=START_NS + 53 * MS),
        ],
        workers=1,
    )
    assert replay(run).makespan_ns == 60 * MS
    assert replay(run, faster={"files": 3}).makespan_ns == 40 * MS
    assert replay(run, without=["files"]).makespan_ns == 30 * MS


def test_only_what_ran_is_replayed() -> None:
    """Nodes downstream of a failure have no duration to replay; nodes of a nested run are part of their parent."""
    run = record(
        [
            node("a", 0, 10, outcome="error", error_type="KeyError"),
            node("b", 10, 10, "a", outcome="upstream_error", failed_upstream="a"),
            node("outer", 0, 30),
            node("inner", 5, 15, parent="outer"),
        ],
        workers=2,
        outcome="error",
        expected_nodes=6,
    )
    replayed = replay(run, workers=1)
    assert [each.name for each in replayed.nodes] == ["a", "outer"]
    assert replayed.makespan_ns == 40 * MS
    assert replayed.assumptions == (
        "1 node of nested runs counted as part of the nodes that ran them",
        "2 nodes missing in the record, and in the replay",
        "no states recorded of 2 nodes: taken as waiting, which overlaps freely",
    )


def test_nodes_that_took_turns_with_the_lock_need_it_alone_too() -> None:
    """Two nodes that each computed for 50 ms and waited 50 ms for the other: 100 ms on one worker as well."""
    states: Mapping[State, float] = {"cpu": 50, "gil": 50}
    run = record(
        [node(name, 0, 100, states=states, samples=5) for name in "ab"], workers=2, cpus=2, attribution="process"
    )
    assert demands(run.nodes).held_share == {"a": 1, "b": 1}
    assert replay(run, workers=1).makespan_ns == 100 * MS
    assert replay(run, gil=False).makespan_ns == 50 * MS
    assert replay(run, gil=False, cpus=1).makespan_ns == 100 * MS
    assert replay(run).gil_share == 1
    assert not replay(run).assumptions


def test_nodes_that_never_waited_for_the_lock_do_not_hold_it() -> None:
    """Four nodes computed 400 ms each on two CPUs, and waited for these alone."""
    states: Mapping[State, float] = {"cpu": 400, "runqueue": 400}
    run = record([node(name, 0, 800, states=states) for name in "abcd"], workers=4, cpus=2, attribution="process")
    assert demands(run.nodes).held_share == dict.fromkeys("abcd", pytest.approx(0, abs=0.01))
    made = {cpus: replay(run, cpus=cpus).makespan_ns / MS for cpus in (1, 2, 4, 8)}
    assert made == pytest.approx({1: 1600, 2: 800, 4: 400, 8: 400}, rel=0.01)
    assert replay(run, workers=1).makespan_ns == pytest.approx(1600 * MS, rel=0.01)
    assert replay(run).cpu_share == 1


def test_a_node_that_ran_in_the_middle_of_another_is_part_of_it() -> None:
    """Where every worker waits for a nested run, one helps with any node: two at once on a single worker."""
    run = record([node("outer", 0, 30, worker="w"), node("helped", 5, 15, worker="w")], workers=1)
    assert replay(run).makespan_ns == 30 * MS
    assert [each.name for each in replay(run).nodes] == ["outer"]
    assert "1 node ran on a worker whose own node waited, and counted as part of that node" in replay(run).assumptions


def test_however_unfair_the_turns_were_the_lock_stays_serial() -> None:
    """Four nodes that got the lock one after another take no less on two workers, though durations alone would."""
    run = record(
        [
            node(name, 0, 50 + waited, states={"cpu": 50, "gil": waited}, samples=9, worker=name)
            for name, waited in zip("abcd", (0, 50, 100, 150), strict=True)
        ],
        workers=4,
        cpus=2,
        attribution="process",
    )
    made = {workers: replay(run, workers=workers).makespan_ns / MS for workers in (1, 2, 3, 4, 8)}
    # Who never waited is taken to hold the lock a little less than the others.
    assert all(175 <= ms <= 204 for ms in made.values()), made


def test_a_node_that_met_nobody_is_taken_for_plain_python_and_that_is_said() -> None:
    """On one worker nothing tells whether `hash` held the lock."""
    run = record(
        [
            node(name, start, start + 100, states={"cpu": 100}, ready_ns=START_NS, samples=1)
            for name, start in (("hash", 0), ("parse", 100))
        ],
        workers=1,
        cpus=2,
        attribution="process",
    )
    replayed = replay(run, workers=2)
    assert replayed.makespan_ns == 200 * MS
    assert replayed.assumptions == (
        "'hash', 'parse' met nothing that would tell whether computing holds the GIL; it is taken to hold "
        "it, as plain Python does",
    )


def test_waits_that_nobody_looked_at_are_contention_where_it_was_to_be_expected() -> None:
    """Without a sampler what waited is in `other`: of nodes that computed at once, not of one that slept."""
    run = record(
        [
            node("a", 0, 100, states={"cpu": 50, "other": 50}),
            node("b", 0, 100, states={"cpu": 50, "other": 50}),
            node("sleep", 100, 200, "a", "b", states={"cpu": 1, "other": 99}),
        ],
        workers=2,
        cpus=2,
    )
    assert replay(run, workers=1).makespan_ns == 200 * MS


def test_contention_that_others_caused_stays() -> None:
    """A node that waited for a CPU while nothing else of the run wanted one does so again."""
    run = record([node("a", 0, 100, states={"cpu": 40, "runqueue": 60})], workers=1, cpus=1, attribution="process")
    assert replay(run, workers=4).makespan_ns == 100 * MS
    assert replay(run, faster={"a": 2}).makespan_ns == 50 * MS


def test_assumptions_name_what_the_record_does_not_say() -> None:
    """Workers, CPUs, and waits for locks that may be the other nodes' doing."""
    run = record([node(name, 0, 100, states={"cpu": 50, "lock": 50}, samples=9) for name in "ab"], workers=None)
    assert replay(run).workers == 2
    assert replay(run).assumptions == (
        "the record does not say how many workers there were; at most 2 had a node at once",
        "waiting for the GIL was not measured; computing that overlapped is judged by its duration alone",
        "the record does not say how many CPUs there were; there are taken to be enough",
        "waiting for locks stays as it was, though it may come of other nodes of the run",
    )
