"""The live recorder: the same record as the trace, in bounded memory, holding on to nothing."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hamilton.htypes import Collect, Parallelizable
from prometheus_client import CollectorRegistry

from tests.dags import Stage, driver_of, dynamic_driver_of, eventually, in_thread, wait_for
from traced_threadpool import FutureAdapter
from traced_threadpool.engine.pool import Pool
from traced_threadpool.engine.work import Run, Work
from traced_threadpool.model.observers import ErrorLog, Observers
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.records import MIN_QUEUE_NS, NodeRecord, PathFacts, RunRecord
from traced_threadpool.recording.critical_path import critical_ns, critical_path
from traced_threadpool.recording.recorder import Recorder, Recording
from traced_threadpool.waits.meter import CpuMeter

Record = Callable[..., Recorder]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Makes a recorder and puts it among the observers of an adapter that has run nothing yet."""

    def recorder_of(adapter: FutureAdapter, **options: Any) -> Recorder:
        recorder = Recorder(pool_name=adapter.name, max_workers=adapter.snapshot().max_workers, **options)
        pool = adapter._pool
        pool._observers = Observers([*pool._observers._observers, recorder], pool._observers.errors)
        pool._observed = True
        return recorder

    return recorder_of


@pytest.fixture
def without_logging() -> Iterator[None]:
    """Hamilton logs a node's exception, and pytest keeps what is logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def load() -> int:
    return 1


def rates() -> int:
    return 2


def join(load: int, rates: int) -> int:
    return load + rates


def test_it_says_what_the_trace_of_the_same_runs_says(stage: Stage, record: Record, tmp_path: Path) -> None:
    """A failure and its consequences, nested runs, branches: node by node, but for the keys, span ids there."""
    pytest.importorskip("opentelemetry.sdk", reason="traces need the extra [otlp]")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from traced_threadpool.analysis.trace_file import read_runs
    from traced_threadpool.telemetry.export.otlp_file import OtlpFileSpanExporter

    file = tmp_path / "trace.jsonl"
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OtlpFileSpanExporter(file)))
    adapter = stage.adapter(FutureAdapter(2, tracer_provider=provider, registry=CollectorRegistry()))
    recorder = record(adapter)
    inner = driver_of(adapter, load, rates, join)
    about_to_fail = stage.event()

    def bad(rates: int) -> int:
        assert eventually(lambda: adapter.snapshot().blocked_nodes == 1)
        about_to_fail.set()
        raise KeyError(rates)

    def slow() -> int:  # still runs when `never` has ended without running
        wait_for(about_to_fail)
        assert eventually(lambda: adapter.snapshot().blocked_nodes == 0)
        return 1

    def never(bad: int, slow: int) -> int:
        raise AssertionError

    def outer(load: int) -> Any:
        return [inner.execute(["join"])["join"] for _ in range(2)]

    def files() -> Parallelizable[int]:
        yield from range(3)

    def parse(files: int, load: int) -> int:
        return files + load

    def merged(parse: Collect[int]) -> int:
        return sum(parse)

    with pytest.raises(KeyError):
        driver_of(adapter, rates, bad, slow, never).execute(["never"])
    assert eventually(lambda: adapter.snapshot().active_runs == 0)  # `slow` goes on when the caller has its answer
    driver_of(adapter, load, outer).execute(["outer"])
    dynamic_driver_of(adapter, load, files, parse, merged).execute(["merged"])
    adapter.close()
    provider.shutdown()

    assert [_comparable(run) for run in recorder.runs] == [_comparable(run) for run in read_runs(file)]
    assert [len(run.nodes) for run in recorder.runs] == [4, 8, 6]
    assert [run.problems for run in recorder.runs] == [(), (), ()]


def _comparable(run: RecordedRun) -> RecordedRun:
    """With times from the run's start, places for keys, and as many digits of holders as a span has."""
    places = {node.key: str(place) for place, node in enumerate(run.nodes)}
    start_ns = run.started_ns
    nodes = tuple(
        replace(
            node,
            key=places[node.key],
            submitted_ns=node.submitted_ns - start_ns,
            ready_ns=node.ready_ns - start_ns,
            started_ns=node.started_ns - start_ns,
            ended_ns=node.ended_ns - start_ns,
            upstream=tuple(sorted(places[key] for key in node.upstream)),
            parent=None if node.parent is None else places[node.parent],
        )
        for node in run.nodes
    )
    holders = {name: int(float(f"{ns:.3g}")) for name, ns in run.gil_holders.items()}
    return replace(run, started_ns=0, ended_ns=run.ended_ns - start_ns, nodes=nodes, gil_holders=holders)


def test_the_path_at_the_end_of_a_run_is_that_of_its_record(stage: Stage, record: Record) -> None:
    """Telemetry takes it without the record being made."""
    ended: list[tuple[str, Recording]] = []
    adapter = stage.adapter(FutureAdapter(2, tracing=False, registry=CollectorRegistry()))
    recorder = record(adapter, keep=0, on_end=lambda run, recording: ended.append((run.id, recording)))
    inner = driver_of(adapter, load, rates, join)

    def outer(join: int) -> Any:
        return inner.execute(["join"])["join"]

    def last(outer: int) -> int:
        return outer

    driver_of(adapter, load, rates, join, outer, last).execute(["last"])
    ((run_id, recording),) = ended
    run = recording.record
    steps = [
        ("_queue" if step.kind == "queue" else step.name, step.duration_ns / 1e9)
        for step in critical_path(run).steps
        if step.kind == "node" or (step.kind == "queue" and step.duration_ns >= MIN_QUEUE_NS)
    ]
    names, durations = zip(*steps, strict=True)
    assert [name for name in names if name != "_queue"][-3:] == ["join", "outer", "last"]
    behind = recording.path.queued_behind
    assert recording.path == PathFacts(
        names=names,
        durations=durations,
        seconds={name: ns / 1e9 for name, ns in critical_ns(run).items()},
        queued_behind=behind,
    )
    assert run.id == run_id
    assert recorder.runs == []


def test_the_last_runs_are_kept(stage: Stage, record: Record) -> None:
    """In the order of their ends; earlier ones are let go of."""
    adapter = stage.adapter(FutureAdapter(2, tracing=False, registry=CollectorRegistry()))
    recorder = record(adapter, keep=2)
    driver = driver_of(adapter, load, rates, join)
    for _ in range(3):
        driver.execute(["join"])
    driver.execute(["load"])
    assert [[node.name for node in run.nodes] for run in recorder.runs] == [["load", "rates", "join"], ["load"]]
    assert recorder._parts == {}


def test_nodes_beyond_the_limit_are_left_out_and_said(stage: Stage, record: Record) -> None:
    """Such a run has no path: a wrong one would be worse."""
    ended: list[Recording] = []
    adapter = stage.adapter(FutureAdapter(1, tracing=False, registry=CollectorRegistry()))
    recorder = record(adapter, max_nodes=2, on_end=lambda _, recording: ended.append(recording))
    driver_of(adapter, load, rates, join).execute(["join"])
    (run,) = recorder.runs
    assert (len(run.nodes), run.expected_nodes) == (2, 3)
    assert run.problems == (
        "1 of 3 nodes left out: the recorder keeps 2 of a run. Their time shows as dependency waits or outside time.",
    )
    assert ended[0].path == PathFacts()


def test_results_arguments_and_exceptions_are_not_kept(stage: Stage, record: Record, without_logging: None) -> None:
    """Names and times are; what nodes made goes when its futures do."""

    class Value:
        pass

    class Failure(Exception):
        pass

    made: list[weakref.ref[Any]] = []

    def value() -> Any:
        result = Value()
        made.append(weakref.ref(result))
        return result

    def failing(value: Any) -> Any:
        error = Failure(value)
        made.append(weakref.ref(error))
        raise error

    adapter = stage.adapter(FutureAdapter(1, tracing=False, registry=CollectorRegistry()))
    recorder = record(adapter)
    with contextlib.suppress(Failure):
        driver_of(adapter, value, failing).execute(["failing"])
    gc.collect()
    assert [reference() for reference in made] == [None, None]
    assert [node.error_type for run in recorder.runs for node in run.nodes] == [
        None,
        f"{__name__}.{Failure.__qualname__}",
    ]


def test_runs_at_once_are_kept_apart(stage: Stage, record: Record) -> None:
    """From several threads, on the same workers: every node in its run, linked within it."""
    adapter = stage.adapter(FutureAdapter(4, tracing=False, registry=CollectorRegistry()))
    recorder = record(adapter, keep=100)
    driver = driver_of(adapter, load, rates, join)

    def many() -> None:
        for _ in range(20):
            driver.execute(["join"])

    for caller in [in_thread(many) for _ in range(4)]:
        caller.result()
    assert len(recorder.runs) == 80
    for run in recorder.runs:
        assert run.problems == ()
        by_name = {node.name: node for node in run.nodes}
        assert set(by_name["join"].upstream) == {by_name["load"].key, by_name["rates"].key}


def test_a_nested_run_whose_nodes_end_first_on_many_threads(stage: Stage) -> None:
    """Whoever comes first finds out what it is nested in; nobody else makes a second recording."""
    for _ in range(20):
        recorder = Recorder(pool_name="p", max_workers=2)
        pool = Pool(1, "", Observers([], ErrorLog()), CpuMeter())
        outer_run, inner_run = RunRecord("outer", "r", started_ns=1), RunRecord("inner", "r", started_ns=2)
        outer = _work(pool, Run(outer_run), "outer", 1)
        inner_queue = Run(inner_run, parent=outer)
        inner = [_work(pool, inner_queue, f"n{number}", 2 + number) for number in range(8)]
        recorder.run_started(outer_run)
        recorder.run_started(inner_run)
        barrier = threading.Barrier(len(inner))

        def end(work: NodeRecord, barrier: threading.Barrier = barrier, recorder: Recorder = recorder) -> None:
            barrier.wait()
            work.ended_ns = 20
            recorder.node_ended(work)

        for caller in [in_thread(end, work) for work in inner]:
            caller.result()
        for run, count in ((inner_run, 8), (outer_run, 1)):
            if run is outer_run:
                outer.ended_ns = 30
                recorder.node_ended(outer)
            run.node_count, run.ended_ns, run.outcome = count, 40, "success"
            recorder.run_ended(run)
        (recorded,) = recorder.runs
        parents = [node.parent for node in recorded.nodes]
        assert (parents, recorded.expected_nodes) == ([None, *["0"] * 8], 9)


def _work(pool: Pool, queue: Run, name: str, at_ns: int) -> Work:
    work = Work(name, load, {}, queue, pool, queue.caller_context)
    work.submitted_ns = work.ready_ns = work.started_ns = at_ns
    work.outcome = "success"
    return work


def test_a_chain_of_20_000_nodes_is_recorded_and_let_go_of() -> None:
    """Each points at the one before: neither making the record nor freeing it recurses."""
    recorder = Recorder(pool_name="p", max_workers=1, keep=1)
    for _ in range(2):
        run = RunRecord("chain", "r", started_ns=1)
        recorder.run_started(run)
        before: NodeRecord | None = None
        for number in range(20_000):
            node = NodeRecord(f"n{number}", run=run, submitted_ns=1 + number)
            node.ready_ns = node.started_ns = 1 + number
            node.ended_ns = 2 + number
            node.thread, node.outcome = threading.current_thread(), "success"
            node.inputs = () if before is None else (before,)
            recorder.node_ended(node)
            before = node
        run.node_count, run.ended_ns, run.outcome = 20_000, 20_001, "success"
        recorder.run_ended(run)
    (recorded,) = recorder.runs
    assert sum(node.duration_ns for node in recorded.nodes) == recorded.duration_ns == 20_000
    assert len(critical_path(recorded).steps) == 20_000


@pytest.mark.parametrize(("call", "times"), [("run_started", 1), ("node_ended", 3), ("run_ended", 1)])
def test_a_recorder_that_fails_costs_a_counted_error_and_no_node(
    call: str, times: int, stage: Stage, monkeypatch: pytest.MonkeyPatch, without_logging: None
) -> None:
    """Wherever it fails: the result is there, and each failure is counted where everybody can see it."""
    registry = CollectorRegistry()

    def out_of_memory(*_: Any) -> None:
        raise MemoryError(call)

    monkeypatch.setattr(Recorder, call, out_of_memory)
    adapter = stage.adapter(FutureAdapter(2, tracing=False, registry=registry, record=True))
    assert driver_of(adapter, load, rates, join).execute(["join"]) == {"join": 3}

    assert registry.get_sample_value("hamilton_telemetry_errors_total", {"component": "recorder"}) == times


def test_whoever_is_told_of_a_run_may_fail(stage: Stage, record: Record, without_logging: None) -> None:
    """A recorder that raises: counted, and the run is kept in memory all the same."""

    def full_disk(run: RunRecord, recording: Recording) -> None:
        raise OSError("no space left on device")

    adapter = stage.adapter(FutureAdapter(2, tracing=False, registry=CollectorRegistry()))
    recorder = record(adapter, on_end=full_disk)
    driver = driver_of(adapter, load, rates, join)
    for _ in range(2):
        assert driver.execute(["join"]) == {"join": 3}

    assert adapter._pool._observers.errors.counts == {"recorder": 2}
    assert [len(run.nodes) for run in recorder.runs] == [3, 3]
    assert recorder._parts == {}
