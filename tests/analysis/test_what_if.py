"""The replay: what holds for every record, small examples worked out by hand, and what it says no to."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hamilton.htypes import Collect, Parallelizable
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.dags import driver_of, dynamic_driver_of
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis.replay.demand import demands
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.virtual_pool import HandOvers, VirtualPool, most_at_once
from traced_threadpool.analysis.replay.what_if import Replayed, ReplayedNode, replay, scale
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.records import State

MS = 1_000_000
START_NS = 5_000 * MS


def node(name: str, started_ms: float = 0, ended_ms: float = 0, *upstream: str, **facts: Any) -> NodeExecution:
    """Submitted with the run's start, ready and started at one moment, unless `facts` say otherwise."""
    started_ns, ended_ns = START_NS + round(started_ms * MS), START_NS + round(ended_ms * MS)
    given = {"submitted_ns": START_NS, "ready_ns": started_ns, **facts}
    states: Mapping[State, float] = given.pop("states", {})
    given["states"] = {state: round(ms * MS) for state, ms in states.items()}
    return NodeExecution(key=name, name=name, started_ns=started_ns, ended_ns=ended_ns, upstream=upstream, **given)


def record(nodes: Sequence[NodeExecution], *, workers: int | None, **facts: Any) -> RecordedRun:
    given = {"ended_ns": max((each.ended_ns for each in nodes), default=START_NS), **facts}
    return RecordedRun(
        id="run", name="etl", pool="pool", started_ns=START_NS, nodes=tuple(nodes), max_workers=workers, **given
    )


def played(
    asked: Sequence[tuple[Demand, Sequence[int]]], *, workers: int, processors: int | None = None
) -> RecordedRun:
    """The record of nodes that ask for this much, after those inputs, on the machine of the model itself."""
    nodes = [node(str(index), 0, 0, *(str(each) for each in inputs)) for index, (_, inputs) in enumerate(asked)]
    wanted = [demand for demand, _ in asked]
    times = VirtualPool(nodes, START_NS, workers).play(
        wanted, HandOvers([0] * len(nodes), [0] * len(nodes)), workers=workers, processors=processors
    )
    found: list[NodeExecution] = []
    for each, demand, when in zip(nodes, wanted, times, strict=True):
        assert when is not None
        started_ns, ended_ns = START_NS + round(when.started_ns), START_NS + round(when.ended_ns)
        computing_ns = round(demand.held_ns + demand.free_ns)
        contended_ns = max(0, ended_ns - started_ns - round(sum(demand)))
        states: dict[State, int] = {
            "cpu": computing_ns,
            "network": round(demand.wait_ns),
            "gil" if demand.held_ns else "runqueue": contended_ns,
        }
        ready_ns = max([START_NS, *(found[int(key)].ended_ns for key in each.upstream)])
        found.append(
            dataclasses.replace(
                each, ready_ns=ready_ns, started_ns=started_ns, ended_ns=ended_ns, states=states, samples=100
            )
        )
    return record(found, workers=workers, processors=processors, attribution="process")


def critical_path_ns(run: RecordedRun) -> int:
    ends: dict[str, int] = {}
    for each in run.nodes:
        ends[each.key] = each.duration_ns + max((ends[key] for key in each.upstream), default=0)
    return max(ends.values())


@st.composite
def dags(draw: st.DrawFn, held: bool = False, mixed: bool = False) -> list[tuple[Demand, list[int]]]:
    """For each node what it asks for, and which earlier nodes are its inputs.

    Milliseconds, and a little that is each node's own: of two ends at the same nanosecond no record tells the order.
    """
    size = draw(st.integers(1, 20))
    found = []
    for number in range(size):
        inputs = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True)) if number else []
        amount_ns = draw(st.integers(1, 50)) * MS + (number + 1) ** 3 * 7_919 % 999_983
        other_ns = draw(st.integers(0, 50)) * MS if mixed else 0
        demand = Demand(held_ns=amount_ns, wait_ns=other_ns) if held else Demand(wait_ns=amount_ns, free_ns=other_ns)
        found.append((demand, inputs))
    return found


workers_counts = st.integers(1, 6)


@settings(deadline=None)
@given(dag=st.one_of(dags(), dags(held=True, mixed=True), dags(mixed=True)), workers=workers_counts)
def test_an_unchanged_record_gives_back_the_run(dag: list[tuple[Demand, list[int]]], workers: int) -> None:
    """To the nanosecond, node by node, however much its nodes kept each other waiting."""
    run = played(dag, workers=workers, processors=2)
    replayed = replay(run)
    assert replayed.makespan_ns == run.duration_ns
    assert replayed.nodes == tuple(
        ReplayedNode(key=each.key, name=each.name, started_ns=each.started_ns, ended_ns=each.ended_ns)
        for each in run.nodes
    )
    assert replay(run, faster={each.name: 1 for each in run.nodes}) == replayed
    assert replay(run, workers=workers, processors=2) == replayed


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
    run = played(dag, workers=recorded, processors=2)
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
    expected = played(dag, workers=asked, processors=2)
    found = replay(played(dag, workers=1, processors=2), workers=asked)
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
        processor_share=0,
        assumptions=("of 2 nodes it is not known what they did; they are taken to have waited, freely",),
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
        "1 nodes of nested runs are part of the nodes that ran them",
        "2 nodes are missing in the record, and in the replay",
        "of 2 nodes it is not known what they did; they are taken to have waited, freely",
    )


def test_nodes_that_took_turns_with_the_lock_need_it_alone_too() -> None:
    """Two nodes that each computed for 50 ms and waited 50 ms for the other: 100 ms on one worker as well."""
    states: Mapping[State, float] = {"cpu": 50, "gil": 50}
    run = record(
        [node(name, 0, 100, states=states, samples=5) for name in "ab"], workers=2, processors=2, attribution="process"
    )
    assert demands(run.nodes).held_share == {"a": 1, "b": 1}
    assert replay(run, workers=1).makespan_ns == 100 * MS
    assert replay(run, gil=False).makespan_ns == 50 * MS
    assert replay(run, gil=False, processors=1).makespan_ns == 100 * MS
    assert replay(run).gil_share == 1
    assert not replay(run).assumptions


def test_nodes_that_never_waited_for_the_lock_do_not_hold_it() -> None:
    """Four nodes computed 400 ms each on two processors, and waited for these alone."""
    states: Mapping[State, float] = {"cpu": 400, "runqueue": 400}
    run = record([node(name, 0, 800, states=states) for name in "abcd"], workers=4, processors=2, attribution="process")
    assert demands(run.nodes).held_share == dict.fromkeys("abcd", pytest.approx(0, abs=0.01))
    made = {processors: replay(run, processors=processors).makespan_ns / MS for processors in (1, 2, 4, 8)}
    assert made == pytest.approx({1: 1600, 2: 800, 4: 400, 8: 400}, rel=0.01)
    assert replay(run, workers=1).makespan_ns == pytest.approx(1600 * MS, rel=0.01)
    assert replay(run).processor_share == 1


def test_a_node_that_ran_in_the_middle_of_another_is_part_of_it() -> None:
    """Where every worker waits for a nested run, one helps with any node: two at once on a single worker."""
    run = record([node("outer", 0, 30, worker="w"), node("helped", 5, 15, worker="w")], workers=1)
    assert replay(run).makespan_ns == 30 * MS
    assert [each.name for each in replay(run).nodes] == ["outer"]
    assert "1 nodes ran while another one on their worker waited, and are part of that one" in replay(run).assumptions


def test_however_unfair_the_turns_were_the_lock_stays_serial() -> None:
    """Four nodes that got the lock one after another take no less on two workers, though durations alone would."""
    run = record(
        [
            node(name, 0, 50 + waited, states={"cpu": 50, "gil": waited}, samples=9, worker=name)
            for name, waited in zip("abcd", (0, 50, 100, 150), strict=True)
        ],
        workers=4,
        processors=2,
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
        processors=2,
        attribution="process",
    )
    replayed = replay(run, workers=2)
    assert replayed.makespan_ns == 200 * MS
    assert replayed.assumptions == (
        "'hash', 'parse' met nothing that would tell whether computing holds the interpreter lock; it is taken to hold "
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
        processors=2,
    )
    assert replay(run, workers=1).makespan_ns == 200 * MS


def test_contention_that_others_caused_stays() -> None:
    """A node that waited for a processor while nothing else of the run wanted one does so again."""
    run = record(
        [node("a", 0, 100, states={"cpu": 40, "runqueue": 60})], workers=1, processors=1, attribution="process"
    )
    assert replay(run, workers=4).makespan_ns == 100 * MS
    assert replay(run, faster={"a": 2}).makespan_ns == 50 * MS


def test_assumptions_name_what_the_record_does_not_say() -> None:
    """Workers, processors, and waits for locks that may be the other nodes' doing."""
    run = record([node(name, 0, 100, states={"cpu": 50, "lock": 50}, samples=9) for name in "ab"], workers=None)
    assert replay(run).workers == 2
    assert replay(run).assumptions == (
        "the record does not say how many workers there were; at most 2 had a node at once",
        "waiting for the interpreter lock was not measured; computing that overlapped is judged by its duration alone",
        "the record does not say how many processors there were; there are taken to be enough",
        "waiting for locks stays as it was, though it may come of other nodes of the run",
    )


@pytest.mark.parametrize(
    ("run", "enough", "limit", "reason"),
    [
        (
            record([node(name, 0, 100, states={"sleep": 100}) for name in "abcdefgh"], workers=8),
            8,
            "nodes",
            "no more than 8 nodes have something to do at once",
        ),
        (
            record(
                [node("a", 0, 100, states={"sleep": 100}), node("b", 100, 200, "a", states={"sleep": 100})], workers=8
            ),
            1,
            "critical_path",
            "the longest chain of nodes takes 200 ms, however many workers there are",
        ),
        (
            played([(Demand(held_ns=50 * MS), [])] * 8, workers=4, processors=4),
            1,
            "gil",
            "the interpreter lock is held for 100 % of the run: its computing is serial",
        ),
        (
            played([(Demand(free_ns=400 * MS), [])] * 8, workers=4, processors=2),
            2,
            "processors",
            "nodes compute for 100 % of the processors' time",
        ),
    ],
    ids=["nodes", "critical path", "gil", "processors"],
)
def test_where_more_workers_stop_helping_and_why(run: RecordedRun, enough: int, limit: str, reason: str) -> None:
    """One record for each reason."""
    scaling = scale(run)
    assert (scaling.enough_workers, scaling.limit, scaling.reason) == (enough, limit, reason)
    assert list(scaling.makespan_ns) == list(range(1, 65))
    assert scaling.makespan_ns[run.max_workers or 0] == replay(run).makespan_ns


def test_where_all_workers_that_were_tried_are_used_nobody_knows_whether_more_help() -> None:
    """Eight sleepers, four workers at most; and that is said."""
    scaling = scale(record([node(name, 0, 100, states={"sleep": 100}) for name in "abcdefgh"], workers=8), [1, 2, 4])
    assert (scaling.enough_workers, scaling.limit) == (4, "none")
    assert scaling.reason == "4 workers are the most that were tried, and at times all of them have a node"


@pytest.mark.parametrize(
    ("demand", "processors", "limit", "reason"),
    [
        (Demand(held_ns=60 * MS, wait_ns=120 * MS), 8, "gil", "the interpreter lock is held for 67 % of the run"),
        (Demand(free_ns=120 * MS, wait_ns=120 * MS), 3, "processors", "nodes compute for 57 % of the processors' time"),
    ],
    ids=["gil", "processors"],
)
def test_what_nodes_get_in_each_others_way_for_without_filling_it(
    demand: Demand, processors: int, limit: str, reason: str
) -> None:
    """Workers to spare, and yet longer than the longest chain: what is used most is what they queue for."""
    scaling = scale(played([(demand, [])] * 4, workers=4, processors=processors))
    assert scaling.limit == limit
    assert scaling.reason.startswith(reason)


def test_scaling_takes_the_other_settings_too() -> None:
    """Without the interpreter lock, eight nodes of plain Python fill four processors."""
    run = played([(Demand(held_ns=50 * MS), [])] * 8, workers=4, processors=4)
    scaling = scale(run, [16, 1, 4, 4], gil=False)
    assert scaling.makespan_ns == {1: 400 * MS, 4: 100 * MS, 16: 100 * MS}
    assert (scaling.enough_workers, scaling.limit, scaling.floor_ns) == (4, "processors", 50 * MS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"workers": 0}, r"workers is 0; it must be a whole number from 1 on"),
        ({"workers": 2.5}, r"workers is 2\.5; it must be a whole number"),
        ({"workers": True}, r"workers is True; it must be a whole number"),
        ({"processors": -1}, r"processors is -1; it must be a whole number from 1 on"),
        ({"faster": {"load": 0}}, r"faster\['load'\] is 0; it must be a number above 0, such as 2 for twice as fast"),
        ({"faster": {"load": float("nan")}}, r"faster\['load'\] is nan"),
        ({"faster": {"load": float("inf")}}, r"faster\['load'\] is inf"),
        ({"faster": {"load": "2x"}}, r"faster\['load'\] is '2x'"),
        ({"faster": {"load": 1e-9}}, r"faster\['load'\] is 1e-09; it must be 1e-06 at least, a million times slower"),
        ({"faster": {"laod": 2}}, r"no node 'laod' in the record; did you mean 'load'\?"),
        ({"without": ["zzz"]}, r"no node 'zzz' in the record; it has 'clean', 'load'"),
        ({"without": "load"}, r"without is the string 'load'; give a collection of names, such as \('load',\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(asked: dict[str, Any], message: str) -> None:
    """With what was found, what was expected, and the names there are."""
    run = record([node("load", 0, 10), node("clean", 10, 20, "load")], workers=1)
    with pytest.raises(ValueError, match=message):
        replay(run, **asked)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "run 'etl' has no node that ran, of 0; there is nothing to replay"),
        ([node("a", outcome="cancelled")], "run 'etl' has no node that ran, of 1"),
        ([node("a", 0, 10, "b"), node("b", 0, 10, "a")], "2 nodes of the record wait for one another, among them 'a'"),
        ([node("a", 0, 10, "a")], "1 nodes of the record wait for one another, among them 'a'"),
    ],
    ids=["no node", "none ran", "circle", "loop"],
)
def test_records_that_cannot_be_replayed_are_refused(nodes: list[NodeExecution], message: str) -> None:
    """Rather than replayed to a makespan of nothing."""
    with pytest.raises(ValueError, match=message):
        replay(record(nodes, workers=1))
    with pytest.raises(ValueError, match="workers is empty"):
        scale(record([node("a", 0, 10)], workers=1), [])


@pytest.mark.measures
def test_a_real_run_is_given_back() -> None:
    """What the live adapter recorded replays to its own duration, and to half the workers' work on one."""

    def a() -> int:
        time.sleep(0.1)
        return 1

    def b() -> int:
        time.sleep(0.1)
        return 2

    def c(a: int, b: int) -> int:
        time.sleep(0.05)
        return a + b

    with FutureAdapter(2, registry=CollectorRegistry(), record=1) as adapter:
        assert driver_of(adapter, a, b, c).execute(["c"]) == {"c": 3}
        (run,) = adapter.recorded_runs
    assert replay(run).makespan_ns == pytest.approx(run.duration_ns, rel=LATE, abs=LATE_NS)
    nodes_ns = sum(each.duration_ns for each in run.nodes)
    assert replay(run, workers=1).makespan_ns >= nodes_ns


def test_priorities_on_and_off() -> None:
    """A chain of three that is submitted last: first ready, first started, it waits for two short nodes."""
    starts = {"short": 0, "brief": 0, "a": 100, "b": 200, "c": 300}
    upstream = {"b": ("a",), "c": ("b",)}
    nodes = tuple(
        NodeExecution(
            key=name,
            name=name,
            submitted_ns=0,
            ready_ns=start if name in upstream else 0,
            started_ns=start,
            ended_ns=start + 100,
            upstream=upstream.get(name, ()),
        )
        for name, start in starts.items()
    )
    run = RecordedRun(id="1", name="r", pool="p", started_ns=0, ended_ns=400, nodes=nodes, max_workers=2)
    assert replay(run, priority="critical_path").makespan_ns == 300
    assert replay(run, priority="fifo").makespan_ns == replay(run).makespan_ns == 400
    assert replay(dataclasses.replace(run, priority="critical_path")).makespan_ns == 300
    assert scale(run, [2], priority="critical_path").makespan_ns == {2: 300}
    with pytest.raises(ValueError, match="priority is 'lifo'"):
        replay(run, priority="lifo")  # type: ignore[arg-type]


@pytest.mark.parametrize("priority", ["critical_path", "hops", "custom"])
def test_a_record_with_priorities_unchanged_is_the_run(priority: str) -> None:
    """Whatever the order was, the replay has the same."""
    lengths = {"short": 100, "a": 50, "b": 50, "c": 100}
    starts = {"a": 0, "b": 50, "short": 100, "c": 200}
    upstream = {"b": ("a",), "c": ("b",)}
    nodes = tuple(
        NodeExecution(
            key=name,
            name=name,
            submitted_ns=0,
            ready_ns=max([starts[each] + lengths[each] for each in upstream.get(name, ())], default=0),
            started_ns=starts[name],
            ended_ns=starts[name] + length,
            upstream=upstream.get(name, ()),
        )
        for name, length in lengths.items()
    )
    run = RecordedRun(
        id="1", name="r", pool="p", started_ns=0, ended_ns=300, nodes=nodes, max_workers=1, priority=priority
    )
    assert {node.name: node.started_ns for node in replay(run).nodes} == starts


LATE = 0.1
LATE_NS = 20 * MS
"""By how much the replay of a real run may differ: on a busy machine a node may start so long after its worker took it
that another, which should have gone first, was submitted meanwhile. A record does not say when a worker took a node."""


def named(name: str, work: Callable[[], None], inputs: Sequence[str] = ()) -> Callable[..., int]:
    """A node that works and returns 1."""

    def function(**inputs: int) -> int:
        work()
        return 1

    function.__name__ = function.__qualname__ = name
    parameters = [inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, annotation=int) for each in inputs]
    function.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    function.__annotations__ = {**dict.fromkeys(inputs, int), "return": int}
    return function


def recorded(functions: Sequence[Callable[..., int]], workers: int) -> RecordedRun:
    with FutureAdapter(workers, registry=CollectorRegistry(), record=1, tracing=False) as adapter:
        driver_of(adapter, *functions).execute([each.__name__ for each in functions])
    (run,) = adapter.recorded_runs
    return run


def compute() -> None:
    sum(number * number % 7 for number in range(150_000))


def fail() -> None:
    raise ArithmeticError


@pytest.mark.measures
@settings(max_examples=25)
@given(data=st.data(), fail_fast=st.booleans())
def test_any_real_run_is_given_back(data: st.DataObject, fail_fast: bool) -> None:
    """Of nodes that sleep, compute, fail or run a driver of their own on the same adapter, with what never ran.

    On one worker: of two, on a busy machine, either may be so late that the other takes its node.
    """
    with FutureAdapter(1, registry=CollectorRegistry(), record=1, tracing=False, fail_fast=fail_fast) as adapter:

        def nest() -> None:
            inner = [named("inner_0", compute), named("inner_1", lambda: time.sleep(0.002), ["inner_0"])]
            driver_of(adapter, *inner).execute(["inner_1"])

        works = [lambda: time.sleep(0.003), compute, nest, fail]
        functions: list[Callable[..., int]] = []
        for number in range(data.draw(st.integers(1, 8), label="nodes")):
            earlier = st.lists(st.sampled_from([each.__name__ for each in functions]), max_size=3, unique=True)
            inputs = data.draw(earlier) if functions else []
            functions.append(named(f"n{number}", data.draw(st.sampled_from(works)), inputs))
        with contextlib.suppress(ArithmeticError):
            driver_of(adapter, *functions).execute([each.__name__ for each in functions])
    (run,) = adapter.recorded_runs
    if any(each.ran and each.parent is None for each in run.nodes):
        assert replay(run).makespan_ns == pytest.approx(run.duration_ns, rel=LATE, abs=LATE_NS)


@pytest.mark.measures
def test_a_real_run_with_branches_is_given_back() -> None:
    """Dynamic execution: Hamilton's walk stands still for the node that is split, here and in the replay."""

    def item() -> Parallelizable[int]:
        time.sleep(0.02)
        yield from range(6)

    def work(item: int) -> int:
        time.sleep(0.01)
        return item

    def total(work: Collect[int]) -> int:
        return sum(work)

    with FutureAdapter(3, registry=CollectorRegistry(), record=1, tracing=False) as adapter:
        assert dynamic_driver_of(adapter, item, work, total).execute(["total"]) == {"total": 15}
    (run,) = adapter.recorded_runs
    assert replay(run).makespan_ns == pytest.approx(run.duration_ns, rel=LATE, abs=LATE_NS)
    assert replay(run, workers=1).makespan_ns >= 80 * MS


@pytest.mark.measures
def test_plain_python_computing_is_serial() -> None:
    """More workers do not help nodes of plain Python, and the reason is the interpreter lock."""
    run = recorded([named(f"n{number}", lambda: [compute() for _ in range(5)]) for number in range(8)], 2)
    scaling = scale(run)
    assert scaling.makespan_ns[64] >= 0.8 * scaling.makespan_ns[1]
    assert scaling.limit == "gil"
    assert "its computing is serial" in scaling.reason
    assert replay(run, gil=False, processors=8, workers=8).makespan_ns < 0.75 * run.duration_ns


@pytest.mark.measures
def test_of_a_hundred_sleepers_as_many_workers_help_as_are_tried() -> None:
    """Up to 64 workers they take two rounds, from 100 on one: beyond, there is nothing for a worker to do."""
    # Long beside what a busy machine adds to each.
    run = recorded([named(f"n{number}", lambda: time.sleep(0.5)) for number in range(100)], 16)
    scaling = scale(run)
    assert scaling.makespan_ns[64] < 0.75 * scaling.makespan_ns[32]
    assert 45 <= scaling.enough_workers <= 64
    assert (scaling.limit, "the most that were tried" in scaling.reason) == ("none", True)
    beyond = scale(run, (50, 100, 128))
    assert beyond.makespan_ns[100] < 0.75 * beyond.makespan_ns[50]
    assert beyond.enough_workers == 100
    assert beyond.limit in ("nodes", "critical_path")


@pytest.mark.parametrize("priority", ["fifo", "hops"])
def test_a_worker_that_wakes_up_late(priority: str) -> None:
    """Another that ends its node meanwhile takes the one that it was woken up for, and the replay has it there."""
    nodes = [
        node("a", 0, 30, worker="1"),
        node("b", 30, 45, ready_ns=START_NS + 5 * MS, submitted_ns=START_NS + 5 * MS, worker="1"),
        node("c", 41, 50, ready_ns=START_NS + 10 * MS, submitted_ns=START_NS + 10 * MS, worker="2"),
    ]
    run = record(nodes, workers=2, priority=priority)
    assert [(each.started_ns, each.ended_ns) for each in replay(run).nodes] == [
        (each.started_ns, each.ended_ns) for each in nodes
    ]
    assert replay(run, workers=1).makespan_ns == 54 * MS


@pytest.mark.parametrize("priority", ["fifo", "critical_path", "hops", "custom"])
def test_each_worker_wakes_up_by_itself(priority: str) -> None:
    """One that is awake takes one node, and not those that wait for workers who wake up later."""
    nodes = tuple(
        NodeExecution(
            key=name,
            name=name,
            submitted_ns=submitted,
            ready_ns=ready,
            started_ns=start,
            ended_ns=start + 100,
            worker=worker,
            upstream=("a", "b") if name == "c" else (),
        )
        for name, submitted, ready, start, worker in (
            ("a", 0, 0, 5, "1"),
            ("b", 1, 1, 30, "2"),
            ("c", 10, 130, 130, "2"),
        )
    )
    run = RecordedRun(
        id="1", name="r", pool="p", started_ns=0, ended_ns=230, nodes=nodes, max_workers=2, priority=priority
    )
    assert [node.started_ns for node in replay(run).nodes] == [5, 30, 130]
