"""A run ends when its last node has, also where no result is built, and whoever fails to say so."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
from hamilton import driver, lifecycle
from prometheus_client import CollectorRegistry

from tests.contract.shared import module, one, two
from tests.dags import PATIENCE, Held, Stage, driver_of, eventually, in_thread, run_process, start, wait_for
from traced_threadpool import FutureAdapter


def test_a_run_ends_with_its_last_node(stage: Stage) -> None:
    """It is active until then, although its caller has long left; then it is counted."""
    held = Held(stage)

    def first() -> str:
        return held()

    def second(first: str) -> str:
        return first

    registry = CollectorRegistry()

    def counted() -> float | None:
        labels = {"pool": "etl", "run": "nightly", "outcome": "success"}
        return registry.get_sample_value("hamilton_run_duration_seconds_count", labels)

    adapter = stage.adapter(FutureAdapter(2, name="etl", run_name="nightly", registry=registry))
    start(driver_of(adapter, first, second), ["second"])
    wait_for(held.started)
    assert (adapter.snapshot().active_runs, counted()) == (1, 0)
    held.release.set()
    adapter.close()
    assert (adapter.snapshot().active_runs, counted()) == (0, 1)


# Whoever fails to say that a run is over


class Raising(lifecycle.GraphExecutionHook):
    """Another adapter, whose hook raises after the graph: the chat's webhook does not answer."""

    def run_before_graph_execution(self, **more: Any) -> None: ...

    def run_after_graph_execution(self, **more: Any) -> None:
        raise ConnectionError("no answer")


def runs_counted(registry: CollectorRegistry) -> dict[str, float]:
    """By outcome, those that are not 0."""
    return {
        sample.labels["outcome"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "hamilton_run_duration_seconds_count" and sample.value
    }


@pytest.mark.parametrize("way", ["execute", "raw_execute", "materialize"])
@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
def test_a_hook_that_raises_after_the_graph(stage: Stage, way: str, *, first: bool) -> None:
    """Of another adapter: it ends the call, and the run has ended all the same, before any other begins."""
    registry = CollectorRegistry()
    adapter = stage.adapter(FutureAdapter(1, registry=registry, record=True))
    adapters = [Raising(), adapter] if first else [adapter, Raising()]
    runs = driver.Builder().with_modules(module()).with_adapters(*adapters).build()
    with pytest.raises(ConnectionError):
        getattr(runs, way)(**{"additional_vars" if way == "materialize" else "final_vars": ["two"]})
    assert eventually(lambda: runs_counted(registry) == {"success": 1})
    assert len(adapter.recorded_runs) == 1


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
def test_a_hook_that_raises_before_the_graph(stage: Stage, *, first: bool) -> None:
    """No run has begun, and none is told of."""

    class Refusing(Raising):
        def run_before_graph_execution(self, **more: Any) -> None:
            raise ConnectionError("no answer")

    registry = CollectorRegistry()
    adapter = stage.adapter(FutureAdapter(1, registry=registry, record=True))
    adapters = [Refusing(), adapter] if first else [adapter, Refusing()]
    runs = driver.Builder().with_modules(module()).with_adapters(*adapters).build()
    for _ in range(2):
        with pytest.raises(ConnectionError):
            runs.execute(["two"])
    adapter.close()
    assert (runs_counted(registry), adapter.recorded_runs) == ({}, [])


def begin(adapter: FutureAdapter, *functions: Callable[..., Any]) -> dict[str, Any]:
    """Does what a driver does up to the end of its walk, and no more: nobody says that the run is over."""
    runs = driver_of(adapter, *functions)
    wanted = [function.__name__ for function in functions]
    runs.adapter.call_all_lifecycle_hooks_sync(
        "pre_graph_execute", run_id="r1", graph=runs.graph, final_vars=wanted, inputs=None, overrides=None
    )
    futures: dict[str, Any] = {}
    runs.graph.execute([runs.graph.nodes[name] for name in wanted], futures, {}, {}, run_id="r1")
    return futures


def test_close_ends_an_open_run(stage: Stage) -> None:
    """When its nodes have ended: in metrics and in the record; closing takes no longer than a moment more."""
    registry = CollectorRegistry()
    adapter = stage.adapter(FutureAdapter(1, registry=registry, record=True))
    futures = begin(adapter, one, two)
    assert futures["two"].result(PATIENCE) == 2
    assert runs_counted(registry) == {}
    adapter.close()
    assert runs_counted(registry) == {"success": 1}
    assert [node.name for node in adapter.recorded_runs[-1].nodes] == ["one", "two"]


def test_close_that_cancels_ends_an_open_run(stage: Stage) -> None:
    """As cancelled."""
    registry, held = CollectorRegistry(), Held(stage)

    def slow() -> str:
        return held()

    def below(slow: str) -> str:
        return slow

    adapter = stage.adapter(FutureAdapter(1, registry=registry))
    begin(adapter, slow, below)
    wait_for(held.started)
    closing = in_thread(lambda: adapter.close(cancel_pending=True))
    held.release.set()
    closing.result(PATIENCE)
    assert runs_counted(registry) == {"cancelled": 1}


@pytest.mark.parametrize("pending", [False, True], ids=["idle", "at work"])
def test_an_adapter_that_is_dropped_ends_its_open_run(stage: Stage, *, pending: bool) -> None:
    """Once its last node has ended; nobody closed it."""
    registry, held = CollectorRegistry(), Held(stage)

    def slow() -> str:
        return held()

    adapter = FutureAdapter(1, registry=registry)
    futures = begin(adapter, slow)
    wait_for(held.started)
    if not pending:
        held.release.set()
        assert futures["slow"].result(PATIENCE) == "held"
    del adapter
    gc.collect()
    if pending:
        assert runs_counted(registry) == {}
        held.release.set()
    assert eventually(lambda: gc.collect() >= 0 and runs_counted(registry) == {"success": 1})


def test_a_copy_keeps_its_runs_open(stage: Stage) -> None:
    """When the original is dropped."""
    registry, held = CollectorRegistry(), Held(stage)

    def slow() -> str:
        return held()

    adapter = FutureAdapter(1, registry=registry)
    copied = stage.adapter(copy.copy(adapter))
    begin(copied, slow)
    wait_for(held.started)
    del adapter
    gc.collect()
    held.release.set()
    assert eventually(lambda: copied.snapshot().active_workers == 0)
    assert copied.snapshot().active_runs == 1
    copied.close()
    assert runs_counted(registry) == {"success": 1}


@pytest.mark.parametrize(
    ("nodes", "outcome"),
    [('"one"', "success"), ('"one", "waits"', "cancelled")],
    ids=["idle", "a node waits for what never comes"],
)
def test_the_programs_end_ends_an_open_run(nodes: str, outcome: str) -> None:
    """Its span reaches a provider that is shut down at exit as well, made before the adapter or after."""
    pytest.importorskip("opentelemetry.sdk")
    for provider_first in (True, False):
        make = "adapter = FutureAdapter(1, metrics=False)", "provide()"
        code, said, errors = run_process(
            f"""
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

            class Said(SpanExporter):
                def export(self, spans):
                    for span in spans:
                        say(span.name, span.attributes.get("hamilton.run.outcome"))
                    return SpanExportResult.SUCCESS

            def provide():
                provider = TracerProvider()
                provider.add_span_processor(BatchSpanProcessor(Said()))
                trace.set_tracer_provider(provider)

            def one() -> int:
                return 1

            def waits(one: int, given: object) -> object:
                return given

            {make[1] if provider_first else make[0]}
            {make[0] if provider_first else make[1]}
            runs = driver_of(adapter, one, waits)
            runs.adapter.call_all_lifecycle_hooks_sync(
                "pre_graph_execute", run_id="r1", graph=runs.graph, final_vars=[{nodes}], inputs=None, overrides=None
            )
            wanted, futures = [runs.graph.nodes[name] for name in [{nodes}]], dict()
            runs.graph.execute(wanted, futures, dict(), dict(given=Future()), run_id="r1")
            futures["one"].result(60)
            """
        )
        assert code == 0, errors
        assert f"hamilton.run {outcome}" in said, errors


def test_hooks_of_others_are_called_as_without_ours(stage: Stage) -> None:
    """In their order, once each, also at the end of an execution that has failed before it began."""
    calls: list[str] = []

    class Notes(lifecycle.GraphExecutionHook):
        def __init__(self, name: str) -> None:
            self.name = name

        def run_before_graph_execution(self, **more: Any) -> None:
            calls.append(f"before {self.name}")

        def run_after_graph_execution(self, *, success: bool, **more: Any) -> None:
            calls.append(f"after {self.name} {success}")

    def told(*adapters: Any) -> list[str]:
        calls.clear()
        runs = driver.Builder().with_modules(module()).with_adapters(*adapters).build()
        runs.execute(["total"])
        with pytest.raises(ValueError, match="totl"):
            runs.execute(["totl"])
        return list(calls)

    adapter = stage.adapter(FutureAdapter(2))
    assert told(Notes("a"), adapter, Notes("b")) == told(Notes("a"), Notes("b"))
