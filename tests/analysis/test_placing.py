"""The replay of nodes on backends: what is recorded there is given back, and what moves asks for what it would."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.played_runs import MS, dags, node, played, record, workers_counts
from traced_threadpool.analysis import scale, what_if
from traced_threadpool.analysis.replay.estimate import Estimate
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.placing import CALL_NS
from traced_threadpool.analysis.replay.virtual_pool import most_at_once
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.recorded_run import RecordedRun

CPU = {"cpu": Lane("processes", 2)}
CALL_MS = CALL_NS / MS
ON_PROCESSES = {str(number): "processes" for number in range(8)}


def computing(number: int = 8, *, workers: int = 8, backends: tuple[str, ...] = (), processes: int = 2) -> RecordedRun:
    """So many nodes of 100 ms of plain Python, on threads or on processes, on two CPUs."""
    on_threads = Demand(held_ns=100 * MS)
    demand = Demand(free_ns=100 * MS) if backends else on_threads
    lanes = {"cpu": Lane("processes", processes)} if backends else {}
    return played([(demand, [])] * number, workers=workers, cpus=2, backends=backends, lanes=lanes)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_more_nodes_are_moved_than_there_are_processes(processes: int) -> None:
    """To a backend that the record does not have: it is what limits the run."""
    found = scale(computing(workers=8), run_on=ON_PROCESSES, processes=processes, cpus=8)

    assert (found.limit, found.reason) == (
        "backend",
        f"`processes` lets {processes} node{'s' if processes > 1 else ''} run at once",
    )


@settings(deadline=None)
@given(
    dag=st.one_of(dags(mixed=True), dags(held=True, mixed=True)),
    workers=workers_counts,
    limits=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    order=st.permutations(["", "cpu", "db"]),
)
def test_an_unchanged_record_with_backends_gives_back_the_run(
    dag: list[tuple[Demand, list[int]]], workers: int, limits: tuple[int, int], order: list[str]
) -> None:
    """To the nanosecond, and no more nodes of a backend at once than it has workers, on whatever pool."""
    lanes = {"cpu": Lane("processes", limits[0]), "db": Lane("threads", limits[1])}
    # A process of its own computes without this process's GIL.
    here = [
        (Demand(asked.wait_ns, 0, asked.held_ns + asked.free_ns) if order[index % 3] == "cpu" else asked, inputs)
        for index, (asked, inputs) in enumerate(dag)
    ]
    run = played(here, workers=workers, cpus=2, backends=order, lanes=lanes)
    assert what_if(run).makespan_ns == run.duration_ns
    assert what_if(run, lanes={"db": limits[1]}) == what_if(run)
    for asked, lane in itertools.product((workers, 16), (1, limits[1], 4)):
        replayed = what_if(run, workers=asked, lanes={"db": lane})
        times = {each.key: (each.started_ns, each.ended_ns) for each in replayed.nodes}
        for name, limit in (("cpu", limits[0]), ("db", lane)):
            assert most_at_once([times[each.key] for each in run.nodes if each.backend == name]) <= limit


def test_moved_to_processes_nodes_compute_side_by_side() -> None:
    """As many as there are processes, and as fast as there are CPUs; each pays for its call."""
    run = computing()
    assert run.duration_ns == 800 * MS
    found = {
        (processes, cpus): what_if(run, run_on=ON_PROCESSES, processes=processes, cpus=cpus).makespan_ns / MS
        for processes, cpus in ((1, 2), (2, 2), (4, 2), (4, 4), (None, 2))
    }
    assert found == {
        (1, 2): pytest.approx(800 + 8 * CALL_MS),
        (2, 2): pytest.approx(400 + 4 * CALL_MS),
        (4, 2): pytest.approx(400, abs=4 * CALL_MS),
        (4, 4): pytest.approx(200 + 2 * CALL_MS),
        (None, 2): pytest.approx(400 + 4 * CALL_MS),  # as many as there are CPUs
    }
    half = dict.fromkeys(list(ON_PROCESSES)[:4], "processes")
    assert what_if(run, run_on=half, processes=2, cpus=4).makespan_ns == pytest.approx(400 * MS, abs=2 * MS)
    assert what_if(run, run_on=half, cpus=4).gil_share == pytest.approx(1, abs=0.01)


def test_nodes_on_processes_are_no_load_on_the_gil() -> None:
    """Of eight on two processes, more processes help where there are CPUs, and one takes as long as threads do."""
    run = computing(backends=("cpu",))
    assert run.duration_ns == 400 * MS
    assert what_if(run).gil_share == 0
    assert what_if(run).cpu_share == 1
    found = {(n, cpus): what_if(run, processes=n, cpus=cpus).makespan_ns / MS for n in (1, 4) for cpus in (2, 4)}
    assert found == {(1, 2): 800, (1, 4): 800, (4, 2): 400, (4, 4): 200}


def test_back_on_threads_nodes_take_turns_and_pay_for_no_call() -> None:
    """What they computed is taken to hold the GIL; what took to move them, and to wait for a process, goes."""
    states = {"cpu": 100, "transfer": 40, "remote_queue": 10}
    nodes = [node(str(each), 0, 150, backend="cpu", is_remote=True, states=states) for each in range(2)]
    run = record(nodes, workers=4, cpus=4, attribution="process", backends=CPU)
    found = what_if(run, run_on={"0": "threads", "1": "threads"})
    assert found.makespan_ns == 200 * MS
    assert any("'0', '1' is taken to hold the GIL" in said for said in found.assumptions)
    assert what_if(run, run_on={"0": "threads"}).makespan_ns == 150 * MS


def test_moving_takes_what_it_took_other_executions_of_the_node() -> None:
    """Else what is told of its size takes, by what the record's other bytes took, or by what arrays take."""
    there = {"backend": "cpu", "is_remote": True, "sent_bytes": 10_000_000}
    first = node("parse", 0, 80, states={"cpu": 50, "transfer": 30}, **there)
    second, other = (node(name, 0, 50, states={"cpu": 50}) for name in ("parse", "other"))
    run = record(
        [first, *[replace(each, key=str(number)) for number, each in enumerate((second, other))]],
        workers=4,
        cpus=4,
        attribution="process",
        backends={"cpu": Lane("processes", 3)},
    )
    moved = what_if(run, run_on={"parse": "cpu", "other": "cpu"}, moves={"other": 20e6})
    lasting = {each.key: (each.ended_ns - each.started_ns) / MS for each in moved.nodes}
    assert lasting == {"parse": 80, "0": 80, "1": pytest.approx(50 + CALL_MS + 60)}
    assert not [said for said in moved.assumptions if "would move" in said]
    alone = computing(1)
    sized = what_if(alone, run_on={"0": "processes"}, moves={"0": 100e6})
    assert sized.makespan_ns == 100 * MS + CALL_NS + 100 * MS
    unsized = what_if(alone, run_on={"0": "processes"})
    assert unsized.assumptions[-2].startswith("how much '0' would move is not in the record")


def test_a_cluster_has_cpus_of_its_own() -> None:
    """What computes there takes none of this machine's; what moves from there to a process here does."""
    demand = Demand(wait_ns=100 * MS)
    lanes = {"cluster": Lane("dask", 8), **CPU}
    run = played([(demand, [])] * 4, workers=8, cpus=1, backends=("cluster",), lanes=lanes)
    nodes = [replace(each, states={"cpu": 100 * MS}) for each in run.nodes]
    run = record(nodes, workers=8, cpus=1, attribution="process", backends=lanes)
    assert what_if(run).cpu_share == 0
    assert what_if(run).makespan_ns == 100 * MS
    here = what_if(run, run_on={each.name: "processes" for each in run.nodes})
    assert here.makespan_ns == pytest.approx(400 * MS, abs=4 * CALL_NS)


def test_a_lane_of_threads_is_a_limit_that_more_workers_do_not_lift() -> None:
    """Whichever workers there are, two at a time."""
    lanes = {"db": Lane("threads", 2)}
    run = played([(Demand(wait_ns=100 * MS), [])] * 6, workers=4, cpus=2, backends=("db",), lanes=lanes)
    assert run.duration_ns == 300 * MS
    assert [what_if(run, workers=workers).makespan_ns // MS for workers in (1, 2, 64)] == [600, 300, 300]
    free = what_if(run, workers=6, run_on={each.name: "threads" for each in run.nodes})
    assert free.makespan_ns == 100 * MS


@pytest.mark.parametrize("kind", ["threads", "dask"])
def test_a_lane_s_limit_is_a_setting(kind: str) -> None:
    """12 nodes of 100 ms: as many at once as the lane lets through, and on threads no more than there are workers."""
    run = played(
        [(Demand(wait_ns=100 * MS), [])] * 12,
        workers=6,
        cpus=2,
        backends=("db",),
        lanes={"db": Lane(kind, 2)},
    )
    found = [what_if(run, lanes={"db": lane}).makespan_ns // MS for lane in (1, 2, 3, 6, 12)]
    assert found == [1200, 600, 400, 200, 200 if kind == "threads" else 100]
    assert what_if(run, workers=12, lanes={"db": 12}).makespan_ns == 100 * MS
    said = {
        lane: [each for each in what_if(run, lanes={"db": lane}).assumptions if "'db'" in each] for lane in (1, 2, 3)
    }
    taken = "what the nodes of 'db' use is taken to be as fast with 3 at once as it was with 2"
    assert said == {1: [], 2: [], 3: [taken]}


def test_a_lane_that_stops_a_run_is_what_limits_it() -> None:
    """More workers would not help, and the critical path is not why: a wider lane would."""
    lanes = {"db": Lane("threads", 2), "idle": Lane("threads", 1)}
    run = played([(Demand(wait_ns=100 * MS), [])] * 6, workers=4, cpus=2, backends=("db",), lanes=lanes)
    scaling = scale(run)
    assert (scaling.enough_workers, scaling.limit, scaling.reason) == (2, "backend", "`db` lets 2 nodes run at once")
    assert (scale(run, lanes={"db": 6}).enough_workers, scale(run, lanes={"db": 6}).limit) == (6, "nodes")
    one = scale(run, lanes={"db": 1})
    assert (one.enough_workers, one.reason) == (1, "`db` lets 1 node run at once")


def test_of_waits_for_cpus_that_others_had_those_while_computing_go_along() -> None:
    """Half of the time they waited for the GIL: half of the 200 ms in which they had no CPU is no part of it."""
    states = {"cpu": 100, "gil": 100, "runqueue": 200}
    nodes = [node(str(each), 0, 400, states=states) for each in range(2)]
    run = record(nodes, workers=2, cpus=2, attribution="process")
    apart = what_if(run, run_on={"0": "processes", "1": "processes"})
    assert apart.makespan_ns == pytest.approx(200 * MS, abs=2 * CALL_NS)


def test_an_estimate_of_a_large_run_moves_nodes_too() -> None:
    """By bounds: no shorter than the CPUs allow, and without the GIL."""
    run = computing()
    found = what_if(run, run_on=ON_PROCESSES, processes=2, plan=Estimate(run))
    assert found.makespan_ns == pytest.approx(400 * MS, rel=0.02)
    assert what_if(run, run_on={"0": "processes"}, plan=Estimate(run)).gil_share == pytest.approx(7 / 8, abs=0.01)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"run_on": {"o": "processes"}}, "no node 'o' in the record"),
        ({"run_on": {"0": "cpu"}}, r"run_on\['0'\] is 'cpu'; it must be 'processes' or 'threads': worker processes"),
        ({"processes": 4}, "processes is 4, and no node runs on processes; say which do"),
        ({"processes": 0, "run_on": ON_PROCESSES}, "processes is 0; it must be a whole number from 1 on"),
        ({"moves": {"0": 5}}, "moves has '0', and run_on does not"),
        ({"moves": {"0": -5}, "run_on": ON_PROCESSES}, r"moves\['0'\] is -5; it must be a number of bytes"),
    ],
)
def test_places_that_make_no_sense(asked: dict[str, object], message: str) -> None:
    """What was found and what to write instead."""
    with pytest.raises(ValueError, match=message):
        what_if(computing(), **asked)  # type: ignore[arg-type]  # of several types


@pytest.mark.parametrize(
    ("lanes", "message"),
    [
        ({"dx": 4}, "^no lane 'dx' in the record; its lanes: 'cluster', 'db'$"),
        ({"db": 0}, r"^lanes\['db'\] is 0; it must be a whole number from 1 on$"),
        ({"db": 1.5}, r"^lanes\['db'\] is 1.5; it must be a whole number"),
        ({"db": True}, r"^lanes\['db'\] is True; it must be a whole number"),
        ({"cpu": 4}, "^lanes has 'cpu', and worker processes are no lane; say .* with processes"),
        ({"processes": 4}, "^lanes has 'processes', and worker processes are no lane; say .* with processes"),
        ({"threads": 4}, "^lanes has 'threads', and the pool is no lane; use workers"),
    ],
)
def test_lanes_that_make_no_sense(lanes: dict[str, int], message: str) -> None:
    """What was found and what to write instead; the lanes there are, where it is none of these."""
    backends = {"db": Lane("threads", 2), "cluster": Lane("dask", 8), **CPU}
    with pytest.raises(ValueError, match=message):
        what_if(record([node("a", 0, 100)], workers=2, backends=backends), lanes=lanes)
    with pytest.raises(ValueError, match=r"^no lane 'db' in the record; its lanes: none$"):
        what_if(computing(), lanes={"db": 4})


def test_the_gil_of_another_process_is_a_wait_of_its_nodes() -> None:
    """Threads of their own hold it: a node waits for it as long wherever and beside whomever it runs."""
    states = {"cpu": 40, "gil": 60}
    nodes = [node(str(each), 0, 100, backend="cpu", is_remote=True, states=states) for each in range(2)]
    run = record(nodes, workers=4, cpus=4, attribution="process", backends=CPU)
    assert what_if(run).makespan_ns == 100 * MS
    assert what_if(run, processes=1).makespan_ns == 200 * MS
    assert what_if(run, run_on={"0": "threads", "1": "threads"}).makespan_ns >= 100 * MS
