"""How a run scales with its workers and where that stops; what a replay says no to."""

from __future__ import annotations

from typing import Any

import pytest

from tests.analysis.played_runs import MS, START_NS, node, played, record
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.virtual_pool import HandOvers, VirtualPool, most_at_once
from traced_threadpool.analysis.replay.what_if import replay, scale
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun


def test_a_worker_is_missed_by_a_node_that_takes_no_time_too() -> None:
    """Though never more than one has a node at once: whether more would change anything, their number does not tell."""
    nodes = [node("a", 0, 100), node("b", 0, 0), node("c", 0, 0)]
    pool, hand_overs = VirtualPool(nodes, START_NS, 2), HandOvers([MS] * 3, [0] * 3)
    asked = [Demand(100 * MS), Demand(), Demand()]
    played = [pool.play(asked, hand_overs, workers=number, cpus=None) for number in (2, 3)]
    assert [most_at_once([when for when in each.times if when is not None]) for each in played] == [1, 1]
    assert [each.spares_workers for each in played] == [False, True]


@pytest.mark.parametrize(
    ("run", "enough", "limit", "reason"),
    [
        (
            record([node(name, 0, 100, states={"sleep": 100}) for name in "abcdefgh"], workers=8),
            8,
            "nodes",
            "no more than 8 nodes can run at once",
        ),
        (
            record(
                [node("a", 0, 100, states={"sleep": 100}), node("b", 100, 200, "a", states={"sleep": 100})], workers=8
            ),
            1,
            "critical_path",
            "the critical path alone takes 200 ms",
        ),
        (
            played([(Demand(held_ns=50 * MS), [])] * 8, workers=4, cpus=4),
            1,
            "gil",
            "the GIL is held for 100 % of the run, so that computing is serial",
        ),
        (
            played([(Demand(free_ns=400 * MS), [])] * 8, workers=4, cpus=2),
            2,
            "cpus",
            "nodes use 100 % of the CPUs",
        ),
    ],
    ids=["nodes", "critical path", "gil", "cpus"],
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
    assert scaling.reason == "still scaling at 4 workers, the largest count tried"


@pytest.mark.parametrize(
    ("demand", "cpus", "limit", "reason"),
    [
        (Demand(held_ns=60 * MS, wait_ns=120 * MS), 8, "gil", "the GIL is held for 67 % of the run"),
        (Demand(free_ns=120 * MS, wait_ns=120 * MS), 3, "cpus", "nodes use 57 % of the CPUs"),
    ],
    ids=["gil", "cpus"],
)
def test_what_nodes_get_in_each_others_way_for_without_filling_it(
    demand: Demand, cpus: int, limit: str, reason: str
) -> None:
    """Workers to spare, and yet longer than the longest chain: what is used most is what they queue for."""
    scaling = scale(played([(demand, [])] * 4, workers=4, cpus=cpus))
    assert scaling.limit == limit
    assert scaling.reason.startswith(reason)


def test_scaling_takes_the_other_settings_too() -> None:
    """Without the GIL, eight nodes of plain Python fill four CPUs."""
    run = played([(Demand(held_ns=50 * MS), [])] * 8, workers=4, cpus=4)
    scaling = scale(run, [16, 1, 4, 4], gil=False)
    assert scaling.makespan_ns == {1: 400 * MS, 4: 100 * MS, 16: 100 * MS}
    assert (scaling.enough_workers, scaling.limit, scaling.floor_ns) == (4, "cpus", 50 * MS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"workers": 0}, r"workers is 0; it must be a whole number from 1 on"),
        ({"workers": 2.5}, r"workers is 2\.5; it must be a whole number"),
        ({"workers": True}, r"workers is True; it must be a whole number"),
        ({"cpus": -1}, r"cpus is -1; it must be a whole number from 1 on"),
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
