"""Advice about backends: given only where the replay, with what moving takes, gains; and not where others compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.analysis.diagnosed_runs import EXAMPLES, MS, beside_each_other, in_turns, node, run, side_by_side
from traced_threadpool.analysis.diagnosis.causes import Cause, Finding
from traced_threadpool.analysis.diagnosis.detect_held_back import held_ns
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import State

HELD = {"parse_0": 1500 * MS, "parse_1": 1500 * MS}


def finding(run: RecordedRun, cause: Cause) -> Finding | None:
    return next((found for found in diagnose(run).findings if found.cause == cause), None)


def advises_processes(run: RecordedRun) -> bool:
    """Whether nodes that held the GIL are to run on worker processes."""
    found = finding(run, "gil_bound")
    return found is not None and "on worker processes" in found.advice


def parsing(states: Mapping[State, int] | None = None, **facts: object) -> RecordedRun:
    nodes = side_by_side(states or {"cpu": 250, "gil": 750})
    return run(*nodes, end=1000, **{"gil_holders": HELD, **facts})


def test_nodes_that_hold_the_gil_are_advised_to_run_on_processes() -> None:
    """By name, with what the run would take, also if moving took a while; on as many as the record has, or CPUs."""
    found = finding(parsing(), "gil_bound")
    assert found is not None
    assert found.evidence[-1] == (
        "replay: with `parse_0` and `parse_1` on 2 worker processes, 625 ms instead of 1.00 s; even if moving "
        "arguments and results took 188 ms for each execution, 625 ms instead of 1.00 s"
    )
    assert found.advice.startswith("Run `parse_0` and `parse_1` on worker processes: backends={'cpu': Processes(2)}")
    assert advises_processes(parsing(backends={"cpu": Lane("processes", 4)}))


def test_processes_are_not_advised_where_they_do_not_gain() -> None:
    """One CPU; none that is free; a thread outside of the pool that holds the GIL; a run within the nodes."""
    assert not advises_processes(parsing(cpus=1))
    short_of_cpus = finding(parsing({"cpu": 250, "gil": 650, "runqueue": 100}), "gil_bound")
    assert short_of_cpus is not None
    assert "Nodes wait for a CPU too, and worker processes add none: what-if --run-on tells" in short_of_cpus.advice
    assert not advises_processes(parsing(gil_holders={"thread:reindex": 4000 * MS, **HELD}))
    inner = [node(f"inner_{each}", 10, 20, {"cpu": 10}, parent=f"parse_{each}", run_id=f"{each}") for each in range(4)]
    nested = parsing()
    assert not advises_processes(replace(nested, nodes=(*nested.nodes, *inner), expected_nodes=8))


def test_processes_are_not_advised_for_nodes_that_are_as_short_as_a_call() -> None:
    """A thousand of a millisecond gain on paper, and nothing once their arguments are worth a word."""
    short = [
        node(f"parse_{each}", each // 2 * 2, each // 2 * 2 + 2, {"cpu": 1, "gil": 1}, ready=0, worker=f"etl_{each % 2}")
        for each in range(1000)
    ]
    tiny = run(*short, end=1000, gil_holders={each.name: MS for each in short})
    assert finding(tiny, "gil_bound") is not None
    assert not advises_processes(tiny)


def remote(name: str, start: int, end: int, states: Mapping[State, int], **facts: object) -> NodeExecution:
    given = {"ready": 0, "backend": "cpu", "is_remote": True, "sent_bytes": 5_000, **facts}
    return node(name, start, end, states, **given)


@pytest.mark.parametrize(
    ("states", "moved", "cause"),
    [
        ({"cpu": 100, "transfer": 400}, 200_000_000, "transfer_bound"),
        ({"cpu": 100, "transfer": 400}, 5_000, "too_small_for_backend"),
        ({"cpu": 400, "transfer": 100}, 200_000_000, None),
        ({"cpu": 499, "transfer": 1}, 5_000, None),
    ],
)
def test_what_moving_costs_is_told_where_it_is_much(
    states: Mapping[State, int], moved: int, cause: Cause | None
) -> None:
    """By what is moved: the values, or the call."""
    nodes = [remote(f"tile_{each}", 0, 500, states, sent_bytes=moved) for each in range(2)]
    asked = run(*nodes, end=500, backends={"cpu": Lane("processes", 2)})
    found = [each for each in diagnose(asked).findings if each.cause in ("transfer_bound", "too_small_for_backend")]
    assert [each.cause for each in found] == ([] if cause is None else [cause])
    assert all("on threads" in each.advice for each in found)


def test_nodes_that_would_hold_the_gil_on_threads_are_to_move_less() -> None:
    """Eight of 100 ms on eight CPUs: in turns on threads they take longer than with what moving takes."""
    nodes = [remote(f"tile_{each}", 0, 180, {"cpu": 100, "transfer": 80}, sent_bytes=10**8) for each in range(8)]
    found = finding(
        run(*nodes, end=180, cpus=8, max_workers=8, backends={"cpu": Lane("processes", 8)}), "transfer_bound"
    )
    assert found is not None
    assert found.evidence[-1] == "replay: if nothing had to be moved, 100 ms instead of 180 ms"
    assert found.advice.startswith("Let `tile_0`,")


def test_more_processes_are_not_advised_where_there_are_no_cpus_for_them() -> None:
    """Held back by two processes on two CPUs, or on eight."""
    nodes = [remote(f"fit_{each}", each // 2 * 200, each // 2 * 200 + 200, {"cpu": 200}) for each in range(8)]
    lanes = {"cpu": Lane("processes", 2)}
    enough = finding(run(*nodes, end=800, cpus=8, max_workers=8, backends=lanes), "remote_queue_bound")
    assert enough is not None
    assert enough.advice == "Set Processes(max_workers=4)."
    assert finding(run(*nodes, end=800, cpus=2, max_workers=8, backends=lanes), "remote_queue_bound") is None


def test_more_processes_are_not_advised_where_these_are_starting() -> None:
    """As in the first run of a program: the pool hands over no more nodes than there are processes."""
    nodes = [remote(f"fit_{each}", 0, 800, {"cpu": 300, "remote_queue": 500}) for each in range(2)]
    for kind, advised in (
        ("processes", "Judge a later run: "),
        ("dask", "Add workers to the backend of `fit_0` and `fit_1`, "),
    ):
        found = finding(run(*nodes, end=800, cpus=8, backends={"cpu": Lane(kind, 2)}), "remote_queue_bound")
        assert found is not None
        assert found.gain_seconds == 0.5
        assert found.advice.startswith(advised)


def in_lane(count: int, limit: int, workers: int, kind: str = "threads") -> RecordedRun:
    """So many requests of 200 ms, all ready at once, in a lane that lets `limit` of them run."""
    nodes = [replace(each, backend="db") for each in in_turns(count, 200, limit, {"network": 200})]
    remote = [replace(each, is_remote=kind != "threads") for each in nodes]
    length = -(-count // limit) * 200
    return run(*remote, end=length, max_workers=workers, backends={"db": Lane(kind, limit)})


def test_a_lane_that_holds_nodes_back_is_a_setting() -> None:
    """With what a wider one would gain and what twice as wide a one, and with why it may be there."""
    found = finding(in_lane(12, 2, 6), "remote_queue_bound")
    assert found == Finding(
        cause="remote_queue_bound",
        nodes=tuple(f"fetch_{number}" for number in (10, 11, 8, 9, 6, 7, 4, 5, 2, 3)),
        evidence=(
            "lane `db` lets 2 nodes run at once: 10 nodes of it were ready and held back, 6.00 s in total",
            "on the critical path: 1.00 s, 83 % of the run",
            "replay: if lane `db` let 6 nodes run at once, 400 ms instead of 1.20 s; with 4, 600 ms",
        ),
        advice="Set Threads(max_workers=6) for lane `db`, if what its nodes use bears so many at once: the limit may "
        "be there for a database's connections, a service's rate limit, or memory, and the replay takes that to be as "
        "fast as before.",
        gain_seconds=0.8,
    )
    diagnosis = diagnose(in_lane(12, 2, 6))
    assert (diagnosis.cause, [each for each in diagnosis.remarks if "a worker" in each]) == ("remote_queue_bound", [])
    on_cluster = finding(in_lane(12, 2, 6, "dask"), "remote_queue_bound")
    assert on_cluster is not None
    assert on_cluster.advice.startswith("Set Dask(max_workers=12) for lane `db`, if ")
    once = finding(in_lane(4, 2, 4), "remote_queue_bound")
    assert once is not None
    assert once.evidence[-1] == "replay: if lane `db` let 4 nodes run at once, 200 ms instead of 400 ms"


def test_a_lane_is_not_named_where_the_pool_holds_nodes_back() -> None:
    """As many workers as the lane lets through; a lane that is never full; a lane beside the critical path."""
    assert finding(in_lane(12, 2, 2), "remote_queue_bound") is None
    pool = replace(in_lane(12, 2, 2), backends={"db": Lane("threads", 6)})
    assert finding(pool, "remote_queue_bound") is None
    assert finding(pool, "pool_too_small") is not None
    long = node("train", 0, 1_500, {"network": 1_500}, worker="etl_9")
    beside = in_lane(12, 2, 6)
    beside = replace(beside, nodes=(long, *beside.nodes), ended_ns=1_500 * MS, expected_nodes=13)
    assert finding(beside, "remote_queue_bound") is None


def test_a_lane_that_nodes_of_other_runs_fill_is_named_too() -> None:
    """A run of one request, which waits for those of another run in its lane of one."""
    lanes = {"db": Lane("threads", 1)}
    own = replace(node("fetch", 300, 600, {"network": 300}, ready=0, worker="etl_1"), backend="db")
    first = replace(node("load", 0, 300, {"network": 300}, worker="etl_0"), backend="db")
    second = replace(node("rank", 0, 300, {"network": 300}, worker="etl_2"), backend="db")
    other = run(first, end=300, id="2", backends=lanes)
    asked = beside_each_other(
        run(own, replace(second, started_ns=600 * MS, ended_ns=900 * MS), end=900, backends=lanes), other
    )
    assert held_ns(asked.nodes, [*asked.nodes, first], 1) == {"fetch": 300 * MS, "rank": 600 * MS}
    found = finding(asked, "remote_queue_bound")
    assert found is not None
    assert "900 ms in total" in found.evidence[0]


def test_nodes_that_wait_for_the_gil_of_their_worker_process() -> None:
    """They are there already, so that to move them is no advice; nothing that computes here is to blame."""
    nodes = [
        replace(each, backend="cpu", is_remote=True) for each in side_by_side({"cpu": 400, "gil": 600}, 2, "parse")
    ]
    found = finding(run(*nodes, end=1000, cpus=4, backends={"cpu": Lane("processes", 2)}), "gil_bound")
    assert found is not None
    assert found.advice.startswith("In `parse_0` and `parse_1`, on worker processes, let one thread compute")
    assert "400 ms instead of 1.00 s" in found.evidence[-1]


def test_the_switch_interval_is_told_where_io_suffers_and_only_there() -> None:
    """Not for nodes that compute or are elsewhere, nor where I/O hardly waits, nor where the GIL is no finding."""
    told = EXAMPLES["switch_interval"]
    assert finding(told, "switch_interval") is not None
    computing = side_by_side({"network": 100, "gil": 190, "cpu": 110}, 2, "fetch")
    assert finding(replace(told, nodes=(*told.nodes[:2], *computing)), "switch_interval") is None
    hardly = side_by_side({"network": 350, "gil": 40, "cpu": 10}, 2, "fetch")
    assert finding(replace(told, nodes=(*told.nodes[:2], *hardly)), "switch_interval") is None
    elsewhere = [replace(each, backend="cpu", is_remote=True) for each in told.nodes[2:]]  # it is another GIL
    assert finding(replace(told, nodes=(*told.nodes[:2], *elsewhere)), "switch_interval") is None
    alone = run(
        node("parse_0", 0, 1000, {"cpu": 1000}),
        *side_by_side({"network": 60, "gil": 40}, 2, "fetch"),
        end=1000,
        gil_holders={"parse_0": 80 * MS},
    )
    assert finding(alone, "switch_interval") is None
