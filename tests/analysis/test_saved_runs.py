"""A record leaves the process: what `save` writes, `read_runs` gives back."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.analysis.diagnosed_runs import EXAMPLES
from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run
from tests.dags import driver_of
from traced_threadpool import FutureAdapter, Tracing
from traced_threadpool.analysis import diagnose, read_runs, save_runs
from traced_threadpool.analysis.replay.what_if import replay
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun


def same_clock(run: RecordedRun) -> RecordedRun:
    """With times since the run's start, nodes numbered, in the order in which a file gives them."""
    numbers = {node.key: f"{number:03}" for number, node in enumerate(run.nodes)}
    start_ns = run.started_ns

    def moved(node: NodeExecution) -> NodeExecution:
        return replace(
            node,
            key=numbers[node.key],
            submitted_ns=node.submitted_ns - start_ns,
            ready_ns=node.ready_ns - start_ns,
            started_ns=node.started_ns - start_ns,
            ended_ns=node.ended_ns - start_ns,
            upstream=tuple(sorted(numbers[key] for key in node.upstream)),
            parent=None if node.parent is None else numbers[node.parent],
        )

    return replace(run, started_ns=0, ended_ns=run.duration_ns, nodes=tuple(map(moved, run.nodes)))


def saved(run: RecordedRun, path: Path) -> RecordedRun:
    run.save(path)
    [found] = read_runs(path)
    return found


def load() -> int:
    return 2


def parse(load: int) -> int:
    return load + 1


def broken(parse: int) -> int:
    raise KeyError("no rate for 'ISK'")


def total(broken: int) -> int:
    return broken


def record(*functions: object, name: str, **options: object) -> RecordedRun:
    with FutureAdapter(max_workers=2, name="shop", record=True, registry=CollectorRegistry(), **options) as adapter:
        with contextlib.suppress(KeyError):
            driver_of(adapter, *functions).execute([name])
        return adapter.recorded_runs[-1]


@pytest.mark.parametrize("name", ["parse", "total"])
def test_a_recorded_run_is_the_same_when_it_was_saved(name: str, tmp_path: Path) -> None:
    """Every field of it and of its nodes, of a run that succeeded and of one that failed."""
    run = record(load, parse, broken, total, name=name)
    assert same_clock(saved(run, tmp_path / "run.jsonl")) == same_clock(run)
    assert [node.error_message for node in run.nodes if node.outcome == "error"] == ["\"no rate for 'ISK'\""] * (
        name == "total"
    )


def test_runs_that_nodes_executed_are_saved_with_them(tmp_path: Path) -> None:
    """A node's own run stays inside of it."""
    with FutureAdapter(max_workers=2, name="shop", record=True, registry=CollectorRegistry()) as adapter:
        inner = driver_of(adapter, load, parse)

        def outer() -> int:
            return int(inner.execute(["parse"])["parse"])

        driver_of(adapter, outer).execute(["outer"])
        run = adapter.recorded_runs[-1]
    found = saved(run, tmp_path / "run.jsonl")
    assert same_clock(found) == same_clock(run)
    assert sorted(node.name for node in found.nodes if node.parent is not None) == ["load", "parse"]


def test_a_message_is_kept_only_where_spans_may_have_it(tmp_path: Path) -> None:
    """`record_exceptions=False` is about private data, wherever it would be."""
    run = record(load, parse, broken, total, name="total", tracing=Tracing(record_exceptions=False))
    run.save(tmp_path / "run.jsonl")
    assert "ISK" not in (tmp_path / "run.jsonl").read_text()
    assert [node.error_type for node in run.nodes if node.outcome == "error"] == ["KeyError"]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_record_comes_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of any names, with what it lacks; and again, when the file that was read is saved."""
    run = layered_run(
        data.draw(st.integers(0, 30)),
        seed=data.draw(st.integers(0, 1_000)),
        states=data.draw(st.booleans()),
        node_names=NASTY_NAMES if data.draw(st.booleans()) else (),
        failing=data.draw(st.sampled_from([None, NASTY_NAMES[0]])),
    )
    run = replace(
        run,
        problems=data.draw(st.sampled_from([(), ("The last line is not whole.",)])),
        max_workers=data.draw(st.none() | st.integers(1, 9)),
        cpus=data.draw(st.none() | st.integers(1, 9)),
        priority=data.draw(st.sampled_from(["fifo", "critical_path"])),
    )
    path = tmp_path_factory.mktemp("saved") / "run.jsonl"
    found = saved(run, path)
    assert same_clock(found) == same_clock(in_order(run))
    assert saved(found, path) == found


def in_order(run: RecordedRun) -> RecordedRun:
    order = sorted(run.nodes, key=lambda node: (node.submitted_ns, node.started_ns, node.key))
    return replace(run, nodes=tuple(order))


def test_many_runs_are_one_file_and_a_run_saved_twice_is_one(tmp_path: Path) -> None:
    """Files of saved runs can be put together."""
    first, second = layered_run(5, run_id="a"), layered_run(7, run_id="b")
    path = tmp_path / "runs.jsonl"
    save_runs(path, [first, second])
    assert sorted(len(run.nodes) for run in read_runs(path)) == [5, 7]
    first.save(tmp_path / "one.jsonl")
    path.write_text(path.read_text() + (tmp_path / "one.jsonl").read_text())
    assert sorted(len(run.nodes) for run in read_runs(path)) == [5, 7]


def test_other_runs_of_the_pool_are_saved_with_a_run(tmp_path: Path) -> None:
    """Not as runs of the file: what is found and replayed is the same, also of a part of them and of all."""
    run = EXAMPLES["queued_behind_other_runs"]
    found = saved(run, tmp_path / "run.jsonl")
    assert [other.id for other in found.neighbours] == [other.id for other in run.neighbours] != []
    assert diagnose(found) == diagnose(run)
    assert replay(found, workers=8).makespan_ns == replay(run, workers=8).makespan_ns
    assert [other.id for other in saved(found, tmp_path / "again.jsonl").neighbours] == [
        other.id for other in run.neighbours
    ]
    together = [run, *run.neighbours]
    save_runs(tmp_path / "all.jsonl", together)
    assert {each.id for each in read_runs(tmp_path / "all.jsonl")} == {each.id for each in together}
    both = (tmp_path / "run.jsonl").read_text() + (tmp_path / "all.jsonl").read_text()
    (tmp_path / "both.jsonl").write_text(both)
    assert {each.id for each in read_runs(tmp_path / "both.jsonl")} == {each.id for each in together}


def test_a_run_is_saved_with_those_that_were_recorded_beside_it(tmp_path: Path) -> None:
    """Of a live pool: two runs, of which one waits for the other."""
    begun, go_on = threading.Event(), threading.Event()

    def load() -> int:
        begun.set()
        go_on.wait(60)
        return 1

    def quick() -> int:
        return 2

    with FutureAdapter(max_workers=2, name="shop", record=True, registry=CollectorRegistry()) as adapter:
        other = threading.Thread(target=lambda: driver_of(adapter, load).execute(["load"]))
        other.start()
        assert begun.wait(60)
        driver_of(adapter, quick).execute(["quick"])
        go_on.set()
        other.join(60)
        [run] = [each for each in adapter.recorded_runs if each.nodes[0].name == "quick"]
    found = saved(run, tmp_path / "run.jsonl")
    (beside,) = found.neighbours
    assert [node.name for node in beside.nodes] == ["load"]
    assert beside.started_ns <= found.started_ns < found.ended_ns <= beside.ended_ns


def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path: Path) -> None:
    """A directory that is not there, and one in the file's place."""
    with pytest.raises(FileNotFoundError):
        layered_run(3).save(tmp_path / "nowhere" / "run.jsonl")
    with pytest.raises(IsADirectoryError):
        layered_run(3).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_field_of_a_record_is_saved(tmp_path: Path) -> None:
    """Of this one none has its default: a field that is added has to be written and read, and to be given here."""
    load = NodeExecution(
        key="0000000000000001", name="load", submitted_ns=1_000, ready_ns=2_000, started_ns=3_000, ended_ns=9_000
    )
    parse = NodeExecution(
        key="0000000000000002",
        name="parse",
        submitted_ns=2_000,
        ready_ns=9_000,
        started_ns=12_000,
        ended_ns=20_000,
        outcome="error",
        upstream=("0000000000000001",),
        worker="processes 41",
        backend="processes",
        is_remote=True,
        sent_bytes=3_000,
        received_bytes=1_000,
        function_started_ns=13_000,
        function_ended_ns=19_000,
        clock_correction_ns=2_000,
        task_id="expand-parse.0",
        states={"cpu": 5_000, "lock": 3_000},
        samples=7,
        error_type="ValueError",
        error_message="n/a",
        failed_upstream="load",
        parent="0000000000000001",
        run_id="inner",
        queue_others_ns=1_000,
        lock=LockWait(name="l", line="app.py:41", capacity=2, waits=3, first_ns=100, last_ns=2_000),
    )
    run = RecordedRun(
        id="r",
        name="etl",
        pool="p",
        started_ns=1_000,
        ended_ns=30_000,
        nodes=(load, parse),
        outcome="error",
        error_type="ValueError",
        max_workers=3,
        priority="critical_path",
        cpus=2,
        attribution="process",
        attribution_reason="warming_up",
        gil_holders={"load": 1_234_567_891},
        backends={"processes": Lane("processes", 4), "the cluster": Lane("dask", 1_000)},
        expected_nodes=5,
        left_out=3,
        started_unix_ns=1_000,
        caller="77",
        problems=("The last line is not whole.",),
    )
    made_elsewhere = {"pool_runs"}  # of all runs in a file
    for record in (parse, run):
        left = {
            field.name
            for field in fields(record)
            if field.default is not MISSING and getattr(record, field.name) == field.default
        }
        assert left - made_elsewhere == set()
    found = saved(run, tmp_path / "run.jsonl")
    assert set(run.problems) < set(found.problems)  # and what the numbers of nodes say
    assert replace(found, problems=run.problems) == run
