"""The constructor and the types of results, as Hamilton documents them. On both adapters."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hamilton import base, lifecycle
from prometheus_client import CollectorRegistry

from tests.contract.shared import MakeAdapter, one
from tests.dags import PATIENCE, Stage, driver_of, submit
from traced_threadpool import FutureAdapter, Metrics


class Line(lifecycle.ResultBuilder):
    """Builds one line of text."""

    def build_result(self, **outputs: Any) -> str:
        return " ".join(f"{name}={value}" for name, value in outputs.items())

    def output_type(self) -> type:
        return str


def test_signature_of_the_constructor(adapter_class: type[Any]) -> None:
    """The three documented arguments come first, in order, by position or keyword, with their defaults."""
    parameters = list(inspect.signature(adapter_class).parameters.values())
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert [(each.name, each.kind, each.default) for each in parameters[:3]] == [
        ("max_workers", either, None),
        ("thread_name_prefix", either, ""),
        ("result_builder", either, None),
    ]
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters[3:])


@pytest.mark.parametrize("by_keyword", [False, True], ids=["by position", "by keyword"])
def test_constructor(make_adapter: MakeAdapter, *, by_keyword: bool) -> None:
    """Workers, thread names and result builder arrive, either way."""
    builder = base.DictResult()
    if by_keyword:
        adapter = make_adapter(result_builder=builder, thread_name_prefix="crunch", max_workers=3)
    else:
        adapter = make_adapter(3, "crunch", builder)
    thread_name = submit(adapter, lambda: threading.current_thread().name).result(PATIENCE)
    assert adapter.result_builder is builder
    assert adapter.executor._max_workers == 3
    assert thread_name.startswith("crunch")


def test_a_fourth_positional_argument_is_refused(adapter_class: type[Any]) -> None:
    """There is no fourth."""
    with pytest.raises(TypeError):
        adapter_class(3, "crunch", None, "more")


def test_defaults(make_adapter: MakeAdapter) -> None:
    """Without arguments: no builder, and as many workers as `ThreadPoolExecutor` has by default."""
    adapter = make_adapter()
    assert adapter.result_builder is None
    assert isinstance(adapter.executor, ThreadPoolExecutor)
    assert adapter.executor._max_workers == ThreadPoolExecutor()._max_workers


def test_it_is_a_result_builder_and_executes_remotely_and_nothing_more(make_adapter: MakeAdapter) -> None:
    """It leaves `do_node_execute` to others, so that caching and graceful errors combine with it."""
    adapter = make_adapter()
    assert isinstance(adapter, lifecycle.ResultBuilder)
    assert isinstance(adapter, lifecycle.base.BaseDoRemoteExecute)
    assert not isinstance(adapter, lifecycle.base.BaseDoNodeExecute)


@pytest.mark.parametrize("builder", [None, Line()], ids=["none", "wrapped"])
def test_input_types(make_adapter: MakeAdapter, builder: lifecycle.ResultBuilder | None) -> None:
    """Any type, whether or not a builder is wrapped."""
    assert make_adapter(result_builder=builder).input_types() == [Any]


@pytest.mark.parametrize(("builder", "expected"), [(None, Any), (Line(), str)], ids=["none", "wrapped"])
def test_output_type(make_adapter: MakeAdapter, builder: lifecycle.ResultBuilder | None, expected: Any) -> None:
    """The wrapped builder's, else any."""
    assert make_adapter(result_builder=builder).output_type() is expected


def test_signature() -> None:
    """The documented three, then what is ours, by keyword; what few need is in settings objects."""
    ours = {
        "name": None,
        "run_name": None,
        "fail_fast": False,
        "tracing": True,
        "metrics": True,
        "attribution": True,
        "tracer_provider": None,
        "meter_provider": None,
        "registry": None,
        "record": False,
        "priority": "critical_path",
        "durations": None,
        "backends": None,
        "run_on": None,
        "stall_after": None,
        "live": True,
        "progress": False,
    }
    parameters = list(inspect.signature(FutureAdapter).parameters.values())
    assert {each.name: each.default for each in parameters[3:]} == ours


@pytest.mark.parametrize(
    ("keywords", "names"),
    [
        ({"name": "etl"}, ("etl", "etl_0")),
        ({"name": "etl", "thread_name_prefix": "crunch"}, ("etl", "crunch_0")),
        ({"thread_name_prefix": "crunch"}, ("crunch", "crunch_0")),
    ],
    ids=str,
)
def test_names_of_pool_and_threads(stage: Stage, keywords: dict[str, str], names: tuple[str, str]) -> None:
    """Each stands in for the other, so that thread names, log lines and lanes of a report speak."""
    adapter = stage.adapter(FutureAdapter(1, **keywords))
    assert (adapter.name, submit(adapter, lambda: threading.current_thread().name).result(PATIENCE)) == names


def test_settings_arrive(stage: Stage) -> None:
    """Those of a settings object are used; False switches the part off."""
    registry = CollectorRegistry()
    adapter = stage.adapter(FutureAdapter(1, registry=registry, metrics=Metrics(run_duration_buckets=[7])))
    driver_of(adapter, one).execute(["one"])
    adapter.close()
    labels = {"pool": "default", "run": "hamilton.run", "outcome": "success", "le": "7.0"}
    assert registry.get_sample_value("hamilton_run_duration_seconds_bucket", labels) == 1
    nothing = CollectorRegistry()
    stage.adapter(FutureAdapter(1, registry=nothing, metrics=False))
    assert list(nothing.collect()) == []
