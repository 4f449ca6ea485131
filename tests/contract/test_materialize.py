"""`materialize` and `raw_execute`, for which Hamilton builds no result: values, and errors that are raised."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, ClassVar

import pytest
from hamilton import ad_hoc_utils, driver, lifecycle
from hamilton.execution.executors import MultiThreadingExecutor, SynchronousLocalTaskExecutor
from hamilton.io.data_adapters import DataSaver
from hamilton.io.materialization import to
from hamilton.lifecycle.default import GracefulErrorAdapter
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter
from hamilton.registry import register_adapter

from tests.contract.shared import AdapterClass, MakeAdapter, one, posix_only, two, within_patience
from tests.dags import PATIENCE, Held, Stage, driver_of, in_thread, submit, wait_for
from traced_threadpool import FutureAdapter


def saver(path: Path, *dependencies: str, id: str = "saved") -> Any:
    return to.json(id=id, dependencies=list(dependencies), path=str(path))


MATERIALIZE_FAILS: dict[str, Callable[[driver.Driver, Path], object]] = {
    "a dependency that is not there": lambda runs, path: runs.materialize(saver(path, "tabel")),
    "an output that is not there": lambda runs, path: runs.materialize(additional_vars=["tabel"]),
    "nothing asked for": lambda runs, path: runs.materialize(),
    "an input that is missing": lambda runs, path: runs.materialize(saver(path, "asks")),
    "a saver that is not there": lambda runs, path: runs.materialize(to.nonsense(id="x", dependencies=["table"])),
    "a validation": lambda runs, path: runs.validate_materialization(saver(path, "tabel")),
}


@pytest.mark.parametrize("fails", MATERIALIZE_FAILS.values(), ids=MATERIALIZE_FAILS)
def test_materialize_raises_what_it_raises_without_an_adapter(
    make_adapter: MakeAdapter, tmp_path: Path, fails: Callable[[driver.Driver, Path], object]
) -> None:
    """Before there is a graph, Hamilton's hook of the graph's end raises something else in its place."""

    def table() -> dict[str, int]:
        return {}

    def asks(missing: dict[str, int]) -> dict[str, int]:
        return missing

    def error_with(*adapters: Any) -> str:
        dag = ad_hoc_utils.create_temporary_module(table, asks)
        runs = driver.Builder().with_modules(dag).with_adapters(*adapters).build()
        try:
            fails(runs, tmp_path / "x.json")
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "it did not fail"

    assert error_with(make_adapter(1)) == error_with() != "it did not fail"


def test_materialize_that_fails_while_a_run_of_another_thread_is_open(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Of one driver: the hook of that run's end is not called for the one that never began."""
    held = Held(stage)

    def slow() -> str:
        return held()

    runs = driver_of(make_adapter(2), slow)
    other = in_thread(runs.execute, ["slow"])
    wait_for(held.started)
    with pytest.raises(ValueError, match="not in the graph"):
        runs.materialize(saver(Path("unused"), "typo"))
    held.release.set()
    assert other.result(PATIENCE) == {"slow": "held"}


def made_of(*adapters: Any, how: str = "static", functions: Any = (one, two), cache: Path | None = None) -> Any:
    """A driver that executes in this way."""
    dag = ad_hoc_utils.create_temporary_module(*functions)
    builder = driver.Builder().with_modules(dag).with_adapters(*adapters)
    if cache is not None:
        builder = builder.with_cache(path=str(cache))
    if how != "static":
        executor = SynchronousLocalTaskExecutor() if how == "dynamic" else MultiThreadingExecutor(max_tasks=3)
        builder = builder.enable_dynamic_execution(allow_experimental_mode=True).with_remote_executor(executor)
    return builder.build()


every_way = pytest.mark.parametrize("how", ["static", "dynamic", "dynamic, in threads"])


class Told(lifecycle.GraphExecutionHook):
    """Another adapter, which notes what it is told of a run's end."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def run_before_graph_execution(self, **more: Any) -> None: ...

    def run_after_graph_execution(self, *, success: bool, error: Any, results: Any, **more: Any) -> None:
        self.told.append((success, error, results))


# Values


def given(adapter_class: AdapterClass, returned: dict[str, Any]) -> dict[str, Any]:
    """What was returned: values by ours, futures by Hamilton's."""
    if adapter_class is HamiltonsAdapter:
        return {name: future.result(PATIENCE) for name, future in returned.items()}
    return returned


def test_raw_execute(adapter_class: AdapterClass, make_adapter: MakeAdapter) -> None:
    """Gives values, in the order of the outputs; an input of the user's comes back as it was."""

    def three(given: Any) -> Any:
        return given

    adapter = make_adapter(1)
    foreign = submit(adapter, lambda: 3)
    runs = driver_of(adapter, one, two, three)
    returned = runs.raw_execute(["two", "given", "three"], inputs={"given": foreign})
    assert returned.pop("given") is foreign
    assert list(given(adapter_class, returned).items()) == [("two", 2), ("three", 3)]


def test_materialize(adapter_class: AdapterClass, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    """Gives the savers' metadata and values."""

    def report() -> dict[str, int]:
        return {"a": 1}

    path = tmp_path / "report.json"
    returned = driver_of(make_adapter(1), report).materialize(saver(path, "report"), additional_vars=["report"])
    metadata, extra = (given(adapter_class, each) for each in returned)
    assert metadata["saved"]["file_metadata"]["path"] == str(path)
    assert extra == {"report": {"a": 1}} == {"report": json.loads(path.read_text())}


@every_way
@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("last", [False, True], ids=["ours first", "ours last"])
def test_values_of_every_saver(stage: Stage, tmp_path: Path, how: str, *, cached: bool, last: bool) -> None:
    """They run at once, and are done when `materialize` returns; other hooks see values too."""
    barrier = threading.Barrier(2)

    def left() -> dict[str, int]:
        return {"left": barrier.wait(PATIENCE) * 0}

    def right() -> dict[str, int]:
        return {"right": barrier.wait(PATIENCE) * 0}

    hook, adapter = Told(), stage.adapter(FutureAdapter(2))
    adapters = [hook, adapter] if last else [adapter, hook]
    runs = made_of(*adapters, how=how, functions=(left, right), cache=tmp_path / "cache" if cached else None)
    paths = tmp_path / "left.json", tmp_path / "right.json"
    metadata, extra = runs.materialize(
        saver(paths[0], "left", id="l"), saver(paths[1], "right", id="r"), additional_vars=["right"]
    )
    assert [path.read_text() for path in paths] == ['{"left": 0}', '{"right": 0}']
    assert [metadata[name]["file_metadata"]["path"] for name in ("l", "r")] == [str(path) for path in paths]
    assert extra == {"right": {"right": 0}}
    assert runs.raw_execute(["left"], overrides={"left": 5}) == {"left": 5}
    assert [told[0] for told in hook.told] == [True, True]
    assert [told[2] for told in hook.told] == [extra, {"left": 5}]


@dataclass
class Says(DataSaver):
    """Saves nothing, and says something."""

    said: ClassVar[Callable[[Any], Any]] = staticmethod(lambda data: {"saved": data})

    @classmethod
    def applicable_types(cls) -> list[type]:
        return [int, dict]

    @classmethod
    def name(cls) -> str:
        return "says"

    def save_data(self, data: Any) -> Any:
        return Says.said(data)


register_adapter(Says)


@every_way
@pytest.mark.parametrize("said", [lambda data: None, lambda data: [data], lambda data: 0], ids=["None", "a list", "0"])
def test_what_a_saver_says_is_given_as_it_is(
    stage: Stage, how: str, said: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is no dict."""
    monkeypatch.setattr(Says, "said", staticmethod(said))
    savers = [to.says(id=name, dependencies=[of]) for name, of in [("first", "one"), ("last", "two")]]
    metadata, extra = made_of(stage.adapter(FutureAdapter(2)), how=how).materialize(*savers)
    assert (metadata, extra) == ({"first": said(1), "last": said(2)}, {})


@every_way
def test_a_saver_that_is_an_additional_variable_too(stage: Stage, how: str) -> None:
    """Its metadata is given in both places."""
    runs = made_of(stage.adapter(FutureAdapter(2)), how=how)
    metadata, extra = runs.materialize(to.says(id="first", dependencies=["one"]), additional_vars=["first"])
    assert metadata == extra == {"first": {"saved": 1}}


def test_inside_of_a_node(stage: Stage) -> None:
    """With one worker, which the waiting node has."""
    adapter = stage.adapter(FutureAdapter(1))

    def outer() -> Any:
        inner = driver_of(adapter, one, two)
        return inner.raw_execute(["two"]), inner.materialize(to.says(id="saved", dependencies=["two"]))

    found = within_patience(lambda: driver_of(adapter, outer).raw_execute(["outer"]))
    assert found == {"outer": ({"two": 2}, ({"saved": {"saved": 2}}, {}))}


def test_results_that_are_built_are_left_as_they_are(adapter_class: AdapterClass, stage: Stage) -> None:
    """`execute` gives what the builder made, be it of futures."""

    class Lazy(adapter_class):  # type: ignore[misc]
        def do_build_result(self, *, outputs: Any) -> Any:
            return outputs

    hook = Told()
    built = driver_of(stage.adapter(Lazy(1)), one, two, others=[hook]).execute(["two"])
    assert hook.told == [(True, None, built)]
    assert isinstance(built["two"], Future)
    assert built["two"].result(PATIENCE) == 2


# Failures


@every_way
@pytest.mark.parametrize("which", ["first", "last", "upstream"])
def test_a_saver_that_fails_raises(stage: Stage, tmp_path: Path, which: str, how: str) -> None:
    """The saver's own exception, or that of a node upstream; other hooks hear of it, and the run is an error."""

    def table() -> dict[str, int]:
        if which == "upstream":
            raise FileNotFoundError("no source")
        return {}

    fine = saver(tmp_path / "x.json", "table", id="fine")
    broken = saver(tmp_path / "no" / "x.json", "table", id="broken")
    savers = [fine, broken] if which == "last" else [broken, fine]
    adapter, hook = stage.adapter(FutureAdapter(1, record=True)), Told()
    with pytest.raises(FileNotFoundError) as raised:
        made_of(adapter, hook, how=how, functions=[table]).materialize(*savers)
    adapter.close()
    assert hook.told == [(False, raised.value, None)]
    assert adapter.recorded_runs[-1].outcome == "error"


WITHOUT_A_RESULT: dict[str, Callable[[driver.Driver, list[str]], Any]] = {
    "raw_execute": lambda runs, names: runs.raw_execute(names),
    "materialize": lambda runs, names: runs.materialize(additional_vars=[*names]),
}
both_calls = pytest.mark.parametrize("call", WITHOUT_A_RESULT.values(), ids=WITHOUT_A_RESULT)


@every_way
@both_calls
def test_an_output_that_fails_raises(stage: Stage, how: str, call: Callable[..., Any]) -> None:
    """The very exception of the first output that failed, in their order; the other nodes have run."""
    error, ran = ValueError("bad"), list[str]()

    def bad() -> int:
        raise error

    def below(bad: int) -> int:
        return bad

    def fine() -> int:
        ran.append("fine")
        return 1

    def worse() -> int:
        raise LookupError("worse")

    adapter, hook = stage.adapter(FutureAdapter(1, record=True)), Told()
    with pytest.raises(ValueError, match="bad") as raised:
        call(made_of(hook, adapter, how=how, functions=[bad, below, fine, worse]), ["fine", "below", "worse"])
    adapter.close()
    assert raised.value is error
    assert (hook.told, ran) == ([(False, error, None)], ["fine"])
    assert [run.outcome for run in adapter.recorded_runs] == ["error"]


@both_calls
def test_an_error_that_another_adapter_keeps_is_none(stage: Stage, call: Callable[..., Any]) -> None:
    """`GracefulErrorAdapter` gives a value of its own in place of what failed."""

    def bad() -> int:
        raise ValueError("bad")

    def below(bad: int) -> int:
        return bad

    graceful = GracefulErrorAdapter(error_to_catch=ValueError, sentinel_value="none")
    returned = call(made_of(graceful, stage.adapter(FutureAdapter(1)), functions=[bad, below]), ["bad", "below"])
    values = returned if isinstance(returned, dict) else returned[1]
    assert values == {"bad": "none", "below": "none"}


@both_calls
def test_fail_fast(stage: Stage, call: Callable[..., Any]) -> None:
    """The failure is raised at once, while an output that comes first is still on its way."""
    held = Held(stage)

    def slow() -> str:
        return held()

    def bad() -> int:
        wait_for(held.started)
        raise ValueError("bad")

    runs = driver_of(stage.adapter(FutureAdapter(2, fail_fast=True)), slow, bad)
    with pytest.raises(ValueError, match="bad"):
        call(runs, ["slow", "bad"])
    assert not held.release.is_set()


@posix_only
@both_calls
def test_an_interrupt(stage: Stage, press_ctrl_c: Callable[[], None], call: Callable[..., Any]) -> None:
    """Ctrl-C while the values are waited for: what has not started never does, and the run is cancelled."""
    ran, held = list[str](), Held(stage)

    def first() -> str:
        ran.append("first")
        wait_for(submitted)
        press_ctrl_c()
        return held()

    def queued() -> None:
        ran.append("queued")

    submitted = stage.event()

    class Submits(FutureAdapter):
        def do_remote_execute(self, *, node: Any, **more: Any) -> Any:
            future = super().do_remote_execute(node=node, **more)
            if node.name == "queued":
                submitted.set()
            return future

    adapter, hook = stage.adapter(Submits(1, record=True)), Told()
    with pytest.raises(KeyboardInterrupt):
        call(driver_of(adapter, first, queued, others=[hook]), ["first", "queued"])
    held.release.set()
    adapter.close()
    assert ran == ["first"]
    assert [run.outcome for run in adapter.recorded_runs] == ["cancelled"]
    assert len(hook.told) == 1


# Should Hamilton rename its variables


@pytest.mark.parametrize("fails", [False, True], ids=["saves", "fails"])
def test_a_saver_is_waited_for_wherever_its_metadata_is(stage: Stage, *, fails: bool) -> None:
    """Where that is not found, it stays a future, which is done; and a saver that fails raises all the same."""
    source = indent(dedent(inspect.getsource(driver.Driver.materialize)), "    ").replace("outputs", "returned")
    space = {**vars(driver), "Given": driver.Driver}
    exec(f"class Driver(Given):\n{source}", space)
    held = Held(stage)

    def table(two: int) -> dict[str, int]:
        held()
        if fails:
            raise FileNotFoundError("no source")
        return {}

    dag = ad_hoc_utils.create_temporary_module(one, two, table)
    runs = space["Driver"]({}, dag, adapter=stage.adapter(FutureAdapter(2)))
    call = in_thread(lambda: runs.materialize(to.says(id="saved", dependencies=["table"]), additional_vars=["one"]))
    wait_for(held.started)
    assert not call.done()
    held.release.set()
    if fails:
        assert type(call.exception(PATIENCE)) is FileNotFoundError
    else:
        metadata, extra = call.result(PATIENCE)
        assert (metadata["saved"].result(0), extra) == ({"saved": {}}, {"one": 1})


def test_a_saver_that_has_failed_wherever_its_metadata_would_be(stage: Stage) -> None:
    """Before Hamilton has left the graph: raised as well."""

    class Waits(FutureAdapter):
        def do_remote_execute(self, **arguments: Any) -> Any:
            future = super().do_remote_execute(**arguments)
            future.exception(PATIENCE)
            return future

    def table() -> dict[str, int]:
        raise FileNotFoundError("no source")

    source = indent(dedent(inspect.getsource(driver.Driver.materialize)), "    ").replace("outputs", "returned")
    space = {**vars(driver), "Given": driver.Driver}
    exec(f"class Driver(Given):\n{source}", space)
    runs = space["Driver"]({}, ad_hoc_utils.create_temporary_module(table), adapter=stage.adapter(Waits(1)))
    with pytest.raises(FileNotFoundError):
        runs.materialize(to.says(id="saved", dependencies=["table"]))
