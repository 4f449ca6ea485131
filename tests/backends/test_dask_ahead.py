"""Nodes that are sent to a Dask cluster before their inputs are there, and together."""

# Hamilton reads annotations when it decorates: they are no strings here.
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hamilton import driver
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytest.importorskip("distributed", reason="the extra [dask] is not installed")

from tests.backends import nodes_ahead
from tests.backends.calls import alive_at, background, timed
from tests.backends.cluster_cases import Make
from tests.dags import PATIENCE, Stage, driver_of, eventually, in_thread
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import ClusterLost, Dask, WorkerCrashed
from traced_threadpool.engine.backends import mailbox


@pytest.fixture
def client(dask_client: Any) -> Any:
    return dask_client


@pytest.fixture
def new(client: Any) -> Callable[..., Dask]:
    return partial(Dask, client)


@pytest.fixture
def backend(client: Any) -> Iterator[Dask]:
    backend = Dask(client)
    backend.open("tests")
    yield backend
    backend.close()


def names_there(client: Any) -> set[str]:
    """Of the nodes whose tasks the scheduler knows."""
    keys: list[str] = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
    return {key.partition("-")[0] for key in keys}


def module_driver(adapter: FutureAdapter, module: ModuleType) -> driver.Driver:
    return driver.Builder().with_modules(module).with_adapters(adapter).build()


@pytest.fixture
def kept() -> list[FutureAdapter]:
    """The adapters of `begun`."""
    return []


@pytest.fixture
def begun(adapter: Make, kept: list[FutureAdapter], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Begins a run whose node `first` is held, and waits until that is so; the future of its result."""
    release = tmp_path / "release"

    def begin(*, outputs: list[str], **options: Any) -> Any:
        inputs = {"started": tmp_path / "started", "release": release, **options.pop("inputs", {})}
        kept.append(adapter(**options))
        run = in_thread(partial(module_driver(kept[-1], nodes_ahead).execute, outputs, inputs=inputs))
        alive_at(tmp_path / "started")
        return run

    yield begin
    release.touch()


def test_a_chain_is_there_before_its_first_node_has_ended(
    begun: Callable[..., Any], client: Any, tmp_path: Path
) -> None:
    run = begun(outputs=["third"])
    assert eventually(lambda: {"first", "second", "third"} <= names_there(client))
    (tmp_path / "release").touch()
    assert run.result(PATIENCE) == {"third": 2}
    assert eventually(lambda: not {"first", "second", "third"} & names_there(client))


def test_the_node_starts_here_when_its_inputs_have_ended(
    begun: Callable[..., Any], kept: list[FutureAdapter], client: Any, tmp_path: Path
) -> None:
    """Though it has been sent: by the gauges, and by the run's record, in which no time is counted twice."""
    run = begun(outputs=["third"], record=True)
    assert eventually(lambda: "third" in names_there(client))
    [far] = [lane for lane in kept[0].snapshot().lanes if lane.backend == "far"]
    assert (far.active_workers, far.queue_depth, kept[0].snapshot().blocked_nodes) == (1, 0, 2)
    (tmp_path / "release").touch()
    run.result(PATIENCE)
    [recorded] = kept[0].recorded_runs
    nodes = {node.name: node for node in recorded.nodes}
    for upstream, below in (("first", "second"), ("second", "third")):
        assert nodes[upstream].ended_ns <= nodes[below].ready_ns <= nodes[below].started_ns <= nodes[below].ended_ns
        node = nodes[below]
        assert node.started_ns <= node.function_started_ns <= node.function_ended_ns <= node.ended_ns
        states = nodes[below].states
        assert states is not None
        assert sum(states.values()) == nodes[below].ended_ns - nodes[below].started_ns


def test_a_node_without_a_thread_has_started_when_it_was_sent(adapter: Make, client: Any, tmp_path: Path) -> None:
    """Its span and its record say so, and the live view shows it running, with its worker."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    started, release = tmp_path / "started", tmp_path / "release"
    made = adapter(tracer_provider=provider, record=True)
    run = in_thread(
        partial(
            module_driver(made, nodes_ahead).execute,
            ["by_names"],
            inputs={"started_name": str(started), "release_name": str(release)},
        )
    )
    alive_at(started)
    assert not [thread.name for thread in threading.enumerate() if "on-backends" in thread.name]

    def shown() -> bool:
        [node] = made.live().runs[0].running
        return (node.name, node.backend) == ("by_names", "far") and node.worker.startswith("tcp://")

    found = eventually(shown)
    then = time.time_ns()
    release.touch()
    assert found
    run.result(PATIENCE)
    [span] = [each for each in exporter.get_finished_spans() if each.name == "by_names"]
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time < then < span.end_time
    [node] = made.recorded_runs[0].nodes
    assert abs(node.ended_ns - node.started_ns - (span.end_time - span.start_time)) < 1_000


def test_what_may_change_meanwhile_is_not_sent_ahead(begun: Callable[..., Any], client: Any, tmp_path: Path) -> None:
    """A node with an argument that others could still write to."""
    rows, table = [1], {"a": 1}
    run = begun(outputs=["changed", "widened", "second"], inputs={"rows": rows, "table": table})
    assert eventually(lambda: "second" in names_there(client))
    assert not {"changed", "widened"} & names_there(client)
    rows.append(2)
    table["b"] = 2
    (tmp_path / "release").touch()
    assert run.result(PATIENCE) == {"changed": 2, "widened": 2, "second": 1}


def test_values_of_ended_nodes_go_along(begun: Callable[..., Any], client: Any, tmp_path: Path) -> None:
    """Those of nodes here, and those that are on the cluster."""
    run = begun(outputs=["added"], run_on={"first": "far", "there": "far", "added": "far"})
    (tmp_path / "release").touch()
    assert run.result(PATIENCE) == {"added": 110}


def test_a_failure_is_that_of_the_node_upstream(begun: Callable[..., Any], client: Any, tmp_path: Path) -> None:
    """What was sent ahead is not left on the cluster."""
    run = begun(outputs=["below"])
    assert eventually(lambda: "below" in names_there(client))
    (tmp_path / "release").touch()
    with pytest.raises(KeyError, match="missing"):
        run.result(PATIENCE)
    assert eventually(lambda: "below" not in names_there(client))


def test_what_was_sent_ahead_and_cancelled_does_not_run(
    begun: Callable[..., Any], kept: list[FutureAdapter], client: Any, tmp_path: Path
) -> None:
    """`close(cancel_pending=True)` while its input is still computed."""
    marker = str(tmp_path / "marker")
    run = begun(outputs=["touches"], inputs={"marker": marker})
    assert eventually(lambda: "touches" in names_there(client))
    closing = in_thread(partial(kept[0].close, cancel_pending=True))
    assert eventually(lambda: "touches" not in names_there(client))
    (tmp_path / "release").touch()
    closing.result(PATIENCE)
    with pytest.raises(CancelledError):
        run.result(PATIENCE)
    assert timed(Dask(client), lambda: 1)  # a worker has had the time to run it
    assert not Path(marker).exists()


def test_spans_made_on_the_worker_are_children_of_the_nodes_span(
    begun: Callable[..., Any], client: Any, tmp_path: Path
) -> None:
    """Also of a node that was sent before its span was started, which is linked to that of its input."""

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    run = begun(outputs=["last"], tracer_provider=provider)
    assert eventually(lambda: "last" in names_there(client))
    (tmp_path / "release").touch()
    found = run.result(PATIENCE)["last"]
    assert eventually(lambda: {"first", "ahead", "last"} <= {span.name for span in exporter.get_finished_spans()})
    spans = {span.name: span for span in exporter.get_finished_spans()}
    contexts = [spans[name].context for name in ("ahead", "last")]
    assert [(each.trace_id, each.span_id) for each in contexts] == [*found]
    for upstream, below in (("first", "ahead"), ("ahead", "last")):
        assert [link.context.span_id for link in spans[below].links] == [spans[upstream].context.span_id]
        assert spans[upstream].end_time <= spans[below].start_time
    assert len({span.context.span_id for span in exporter.get_finished_spans()}) == len(exporter.get_finished_spans())


class TracerWithoutIds(trace.Tracer):
    """Of another SDK, whose ids nobody can choose."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start_span(self, *arguments: Any, **options: Any) -> trace.Span:
        return self._tracer.start_span(*arguments, **options)

    def start_as_current_span(self, *arguments: Any, **options: Any) -> Any:
        return self._tracer.start_as_current_span(*arguments, **options)


class ProviderWithoutIds(trace.TracerProvider):
    def __init__(self, provider: trace.TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *arguments: Any, **options: Any) -> trace.Tracer:
        return TracerWithoutIds(self._provider.get_tracer(*arguments, **options))


def test_where_ids_cannot_be_chosen_spans_made_there_are_children_of_the_runs(
    begun: Callable[..., Any], client: Any, tmp_path: Path
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    run = begun(outputs=["ahead"], tracer_provider=ProviderWithoutIds(provider))
    assert eventually(lambda: "ahead" in names_there(client))
    (tmp_path / "release").touch()
    found = run.result(PATIENCE)["ahead"]
    [run_span] = [span for span in exporter.get_finished_spans() if span.parent is None]
    assert found == (run_span.context.trace_id, run_span.context.span_id)


def test_nodes_go_together_and_no_thread_waits_for_them(
    new: Callable[..., Dask], client: Any, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 nodes that no worker can take: they are sent in few graphs, and none has a thread here."""
    names = [f"node_{number}" for number in range(100)]
    (tmp_path / "hundred_nodes.py").write_text("\n".join(f"def {name}() -> int:\n    return 1" for name in names))
    monkeypatch.syspath_prepend(tmp_path)
    adapter = stage.adapter(
        FutureAdapter(2, metrics=False, backends={"far": new(resources={"unobtainable": 1})}, run_on="far")
    )
    before = len(graphs(client))
    run = in_thread(module_driver(adapter, importlib.import_module("hundred_nodes")).execute, names)
    assert eventually(lambda: set(names) <= names_there(client))
    assert len(graphs(client)) - before <= 50
    assert not [thread.name for thread in threading.enumerate() if "on-backends" in thread.name]
    in_thread(partial(adapter.close, cancel_pending=True)).result(PATIENCE)
    with pytest.raises(CancelledError):
        run.result(PATIENCE)


def graphs(client: Any) -> list[Any]:
    """Those that the scheduler has been sent."""
    return [event for _, event in client.get_events("scheduler") if event.get("action") == "update-graph"]


def test_a_lost_value_costs_no_other_node(backend: Dask, client: Any) -> None:
    """Dask takes no task of a graph in which one lacks a value: the others are sent again."""
    value, _ = timed(backend, lambda: 1)
    value.remote.cancel()
    assert eventually(lambda: value.remote.key not in client.futures)
    calls = [background(backend, lambda x: x, x=value if number == 5 else number) for number in range(10)]
    found = []
    for _, future in calls:
        try:
            found.append(future.result(PATIENCE).result())
        except ClusterLost:
            found.append(None)
    assert found == [0, 1, 2, 3, 4, None, 6, 7, 8, 9]


def test_a_function_that_cannot_be_pickled_costs_its_own_node(adapter: Make, client: Any, stage: Stage) -> None:
    """Whose pickling hangs: no other node waits for that."""
    entered, release = stage.event(), stage.event()

    class Hangs:
        def __reduce__(self) -> Any:
            entered.set()
            release.wait(PATIENCE)
            return int, ()

    hangs = Hangs()

    def captures() -> str:
        return str(hangs)

    def free() -> int:
        return 1

    made = adapter()
    stuck = in_thread(driver_of(made, captures).execute, ["captures"])
    assert entered.wait(PATIENCE)
    assert in_thread(driver_of(made, free).execute, ["free"]).result(PATIENCE) == {"free": 1}
    assert in_thread(module_driver(made, nodes_ahead).execute, ["here"]).result(PATIENCE) == {"here": 10}
    release.set()
    assert stuck.result(PATIENCE) == {"captures": "0"}


def test_a_worker_that_dies_long_after_anything_was_sent(
    begun: Callable[..., Any], client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that was sent ahead hears of its end by itself, also when the threads that send have ended meanwhile."""
    monkeypatch.setattr(mailbox, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(mailbox, "IDLE_TICKS", 1)
    run = begun(outputs=["ends_its_worker"])
    assert eventually(lambda: "ends_its_worker" in names_there(client))
    assert eventually(lambda: not [each for each in threading.enumerate() if "-to-dask" in each.name])
    (tmp_path / "release").touch()
    with pytest.raises(WorkerCrashed):
        run.result(PATIENCE)
