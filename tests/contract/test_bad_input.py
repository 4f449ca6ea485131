"""What cannot work is refused when the adapter is made, with an error that says what was found and what to write."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.dags import PATIENCE, Stage, driver_of, submit
from traced_threadpool import Attribution, FutureAdapter, Metrics, Tracing


def refusal(error: type[Exception], text: str, **arguments: Any) -> Any:
    """One case: these arguments give this error, whose text this pattern matches."""
    (name, value), *_ = arguments.items()
    return pytest.param(error, text, arguments, id=f"{name}={value!a}"[:60])


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        refusal(ValueError, r"^max_workers must be greater than 0, not 0$", max_workers=0),
        refusal(ValueError, r"^max_workers must be greater than 0, not -1$", max_workers=-1),
        refusal(TypeError, r"^max_workers must be a whole number.*None.*not '4'$", max_workers="4"),
        refusal(TypeError, r"^max_workers must be a whole number.*not 2\.5$", max_workers=2.5),
        refusal(TypeError, r"^max_workers must be a whole number.*not True$", max_workers=True),
        refusal(TypeError, r"^thread_name_prefix must be a string, not 5$", thread_name_prefix=5),
        refusal(TypeError, r"^result_builder must have a method build_result, .*not 'dict'$", result_builder="dict"),
        refusal(TypeError, r"^result_builder must have .* not <class 'dict'>$", result_builder=dict),
        refusal(TypeError, r"^FutureAdapter has no option 'colour'; it has max_workers, .*, progress$", colour="red"),
        refusal(ValueError, r"^name must be .* such as 'etl', not ''", name=""),
        refusal(ValueError, r"^name must be .* such as 'etl', not ' '", name=" "),
        refusal(ValueError, r"^name must be .* such as 'etl', not 'a\\nb'", name="a\nb"),
        refusal(ValueError, r"^name must be .* such as 'etl', not '\\ud800'", name="\ud800"),
        refusal(TypeError, r"^name must be a string, not 7$", name=7),
        refusal(TypeError, r"^name must be a string, not b'etl'$", name=b"etl"),
        refusal(ValueError, r"^run_name must be .* not ''", run_name=""),
        refusal(ValueError, r"^run_name must be .* not 'a\\nb'", run_name="a\nb"),
        refusal(ValueError, r"^run_name must be .* not '\\ud800'", run_name="\ud800"),
        refusal(TypeError, r"^run_name must be a string, not 7$", run_name=7),
        refusal(TypeError, r"^fail_fast must be True or False, not 'yes'$", fail_fast="yes"),
        refusal(TypeError, r"^fail_fast must be True or False, not 1$", fail_fast=1),
        refusal(TypeError, r"^tracing must be True, False or .*\.Tracing\(\.\.\.\), not None$", tracing=None),
        refusal(TypeError, r"^tracing must be .*, not <class .*Tracing'>; write Tracing\(\)$", tracing=Tracing),
        refusal(TypeError, r"^metrics must be True, False or .*\.Metrics\(\.\.\.\), not 'no'$", metrics="no"),
        refusal(TypeError, r"^attribution must be .*, not Tracing\(.*\)$", attribution=Tracing()),
        refusal(TypeError, r"^tracer_provider must be an opentelemetry\..*not 'otlp'$", tracer_provider="otlp"),
        refusal(TypeError, r"^registry must be a prometheus_client\..*, not \{\}; .*metrics=False", registry={}),
    ],
)  # fmt: skip
def test_refused(error: type[Exception], text: str, arguments: dict[str, Any]) -> None:
    """Type of the error, and a text that holds the argument's name, what it must be, and what was found."""
    with pytest.raises(error, match=text):
        FutureAdapter(**arguments)


@pytest.mark.parametrize(
    ("settings", "error", "text", "arguments"),
    [
        (Tracing, TypeError, r"^record_exceptions must be True or False, not 0$", {"record_exceptions": 0}),
        (Tracing, ValueError, r"^large_run must be 0 or more, not -1$", {"large_run": -1}),
        (Metrics, ValueError, r"^max_node_labels must be 0 or more, not -1$", {"max_node_labels": -1}),
        (Metrics, TypeError, r"^max_node_labels must be a whole number, not '9'$", {"max_node_labels": "9"}),
        (Metrics, TypeError, r"^max_node_labels must be a whole number, not True$", {"max_node_labels": True}),
        (Metrics, TypeError, r"\(node_buckets=...\): did you mean node_duration_b", {"node_buckets": [1]}),
        (Attribution, ValueError, r"^budget must be above 0 .* give attribution=False$", {"budget": 0}),
        (Attribution, TypeError, r"^budget must be a share of one CPU, such as 0.01, not '1 %'$", {"budget": "1 %"}),
    ],
    ids=str,
)  # fmt: skip
def test_refused_settings(settings: type[Any], error: type[Exception], text: str, arguments: dict[str, Any]) -> None:
    """As they are made, before any adapter is."""
    with pytest.raises(error, match=text):
        settings(**arguments)


@pytest.mark.parametrize("settings", [Tracing(), Metrics(run_duration_buckets=[1, 30]), Attribution()], ids=repr)
def test_settings_are_values(settings: Any) -> None:
    """Frozen, without a dict, equal to others of the same fields, usable in a set, copied and pickled."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, dataclasses.fields(settings)[0].name, 1)
    assert not hasattr(settings, "__dict__")
    assert {settings, pickle.loads(pickle.dumps(settings)), dataclasses.replace(settings)} == {settings}


BAD_BOUNDS: list[tuple[type[Exception], Any, str]] = [
    (ValueError, [], r"must be positive, finite and rising, such as \(0\.1, 1, 10\), not \[\]"),
    (ValueError, [2, 1], r"must be .*rising.*not \[2, 1\]"),
    (ValueError, [1, 1], r"must be .*rising.*not \[1, 1\]"),
    (ValueError, [0, 1], r"must be positive.*not \[0, 1\]"),
    (ValueError, [-1], r"must be positive.*not \[-1\]"),
    (ValueError, [1, float("inf")], r"must be .*finite.*not \[1, inf\]"),
    (ValueError, [float("nan")], r"must be .*not \[nan\]"),
    (TypeError, ["fast"], r"must be numbers of seconds, such as \(0\.1, 1, 10\), not \['fast'\]"),
    (TypeError, [None], r"must be numbers of seconds.*not \[None\]"),
    (TypeError, 5, r"must be numbers of seconds.*not 5"),
    (TypeError, "15", r"must be numbers of seconds.*not '15'"),
    (TypeError, ["1", "5"], r"must be numbers of seconds.*not \['1', '5'\]"),
]


@pytest.mark.parametrize(
    ("argument", "metric"),
    [
        ("node_duration_buckets", "hamilton_node_duration_seconds"),
        ("queue_wait_buckets", "hamilton_threadpool_queue_wait_seconds"),
        ("run_duration_buckets", "hamilton_run_duration_seconds"),
    ],
    ids=["node", "queue", "run"],
)
@pytest.mark.parametrize(("error", "bounds", "text"), BAD_BOUNDS, ids=[ascii(bounds) for _, bounds, _ in BAD_BOUNDS])
def test_refused_bounds(argument: str, metric: str, error: type[Exception], bounds: Any, text: str) -> None:
    """The text names the metric as well."""
    with pytest.raises(error, match=f"^bounds for {metric} {text}"):
        Metrics(**{argument: bounds})


def test_what_is_refused_leaves_nothing_behind() -> None:
    """Neither threads nor metrics: the registry is as it was."""
    registry = CollectorRegistry()
    with pytest.raises(ValueError, match="record must be"):
        FutureAdapter(registry=registry, record=-1)
    assert list(registry.collect()) == []


def test_conflicting_bounds_in_one_registry(stage: Stage) -> None:
    """The second adapter is refused, with both bounds in the text, and a way out."""
    registry = CollectorRegistry()
    stage.adapter(FutureAdapter(registry=registry, metrics=Metrics(run_duration_buckets=[1, 30])))
    with pytest.raises(
        ValueError,
        match=r"hamilton_run_duration_seconds with the bounds \(1\.0, 30\.0\).*\(1\.0, 60\.0\).*a registry of its own",
    ):
        FutureAdapter(registry=registry, metrics=Metrics(run_duration_buckets=[1, 60]))


def test_the_same_bounds_in_one_registry(stage: Stage) -> None:
    """Or none, are no conflict."""
    registry = CollectorRegistry()
    stage.adapter(FutureAdapter(registry=registry, metrics=Metrics(run_duration_buckets=[1, 30])))
    stage.adapter(FutureAdapter(registry=registry, metrics=Metrics(run_duration_buckets=(1.0, 30.0))))
    stage.adapter(FutureAdapter(registry=registry))


def test_use_of_a_closed_adapter() -> None:
    """Says that it is closed and what to do, to whoever executes and to whoever submits."""

    def one() -> int:
        return 1

    adapter = FutureAdapter(1)
    runs = driver_of(adapter, one)
    adapter.close()
    calls: list[Callable[[], Any]] = [lambda: runs.execute(["one"]), lambda: submit(adapter, one)]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"^this FutureAdapter is closed and takes no new work; make a new one$"):
            call()


def test_close_with_a_word_for_yes(stage: Stage) -> None:
    """Is refused, and the adapter stays open."""
    adapter = stage.adapter(FutureAdapter(1))
    with pytest.raises(TypeError, match=r"^cancel_pending must be True or False, not 'yes'$"):
        adapter.close(cancel_pending="yes")  # type: ignore[arg-type]
    assert submit(adapter, lambda: 1).result(PATIENCE) == 1


def test_a_prefix_that_is_no_label(stage: Stage) -> None:
    """The documented API lets any string be one: the pool's name is made of what can be printed of it."""
    assert stage.adapter(FutureAdapter(1, "a\nb")).name == "a_b"
    assert stage.adapter(FutureAdapter(1, "\n")).name == "_"
    assert stage.adapter(FutureAdapter(1)).name == "default"


def test_a_name_that_is_unusual_but_can_be_printed(stage: Stage) -> None:
    """Quotes, backslashes and any script: a label value can hold them."""
    registry = CollectorRegistry()
    name = 'etl "ж\\ж" №1'
    stage.adapter(FutureAdapter(3, name=name, registry=registry))
    assert registry.get_sample_value("hamilton_threadpool_max_workers", {"pool": name, "backend": "threads"}) == 3


class Refusing(CollectorRegistry):
    """A registry that takes no collector."""

    def register(self, collector: Any) -> None:
        raise ValueError("no more metrics")


def test_a_registry_that_refuses(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Costs the metrics and not the work: counted, and logged once, with its reason."""

    def one() -> int:
        return 1

    with caplog.at_level(logging.WARNING, logger="traced_threadpool"):
        adapter = stage.adapter(FutureAdapter(1, registry=Refusing()))
        runs = driver_of(adapter, one)
        assert [runs.execute(["one"]) for _ in range(3)] == [{"one": 1}] * 3
    (record,) = [record for record in caplog.records if record.name.startswith("traced_threadpool")]
    assert adapter.telemetry_errors == {"metrics": 1}
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no more metrics"


def test_a_registry_that_has_such_names(stage: Stage) -> None:
    """From somebody else's metrics: the same."""
    from prometheus_client import Gauge

    registry = CollectorRegistry()
    Gauge("hamilton_threadpool_workers", "somebody else's", registry=registry)
    adapter = stage.adapter(FutureAdapter(1, registry=registry))
    assert submit(adapter, lambda: 1).result(PATIENCE) == 1
    assert adapter.telemetry_errors == {"metrics": 1}


def test_two_adapters_of_one_name_in_one_registry(stage: Stage) -> None:
    """Add up: gauges, counters and histograms."""

    def one() -> int:
        return 1

    registry = CollectorRegistry()
    pair = [stage.adapter(FutureAdapter(workers, name="etl", registry=registry)) for workers in (2, 3)]
    for adapter in pair:
        driver_of(adapter, one).execute(["one"])
    assert registry.get_sample_value("hamilton_threadpool_max_workers", {"pool": "etl", "backend": "threads"}) == 5
    for adapter in pair:
        adapter.close()  # what a caller has got may not be counted yet
    node = {"pool": "etl", "node": "one", "outcome": "success"}
    run = {"pool": "etl", "run": "hamilton.run", "outcome": "success"}
    assert [
        registry.get_sample_value("hamilton_nodes_total", node),
        registry.get_sample_value("hamilton_node_duration_seconds_count", node),
        registry.get_sample_value("hamilton_run_duration_seconds_count", run),
        registry.get_sample_value(
            "hamilton_threadpool_queue_wait_seconds_count", {"pool": "etl", "backend": "threads"}
        ),
    ] == [2, 2, 2, 2]
    assert registry.get_sample_value("hamilton_threadpool_max_workers", {"pool": "etl", "backend": "threads"}) is None


@pytest.mark.parametrize(
    ("what", "take"),
    [
        pytest.param("adapter", pickle.dumps, id="adapter, pickle"),
        pytest.param("adapter", copy.deepcopy, id="adapter, deepcopy"),
        pytest.param("future", pickle.dumps, id="future, pickle"),
        pytest.param("future", copy.copy, id="future, copy"),
        pytest.param("future", copy.deepcopy, id="future, deepcopy"),
    ],
)
def test_pickling_and_copying(stage: Stage, what: str, take: Callable[[Any], Any]) -> None:
    """Neither goes to another process: the text says what to use for `Parallelizable`."""
    adapter = stage.adapter(FutureAdapter(1))
    thing = adapter if what == "adapter" else submit(adapter, lambda: 1)
    with pytest.raises(TypeError, match=r"pickles.*with_remote_executor\(SynchronousLocalTaskExecutor\(\)\)"):
        take(thing)
