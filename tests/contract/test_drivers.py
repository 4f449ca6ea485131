"""The driver's inputs, overrides, and ways to run. On both adapters."""

from __future__ import annotations

import gc
import json
import threading
import typing
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hamilton import ad_hoc_utils, driver, lifecycle
from hamilton.function_modifiers import config
from hamilton.io.materialization import to

from tests.contract.shared import (
    MakeAdapter,
    identity,
)
from tests.dags import PATIENCE, Held, Stage, driver_of, dynamic_driver_of, eventually, in_thread, submit, wait_for
from traced_threadpool import FutureAdapter


def test_inputs_overrides_and_config(make_adapter: MakeAdapter) -> None:
    """Together: a value given, a node replaced, a node chosen."""

    def given(number: int) -> int:
        return number

    def replaced(given: int) -> int:
        raise AssertionError

    @config.when(mode="short")
    def text__short(replaced: int, given: int) -> str:
        return f"{given}{replaced}"

    @config.when(mode="long")
    def text__long(replaced: int) -> str:
        raise AssertionError

    runs = driver_of(make_adapter(1), given, replaced, text__short, text__long, config={"mode": "short"})
    result = runs.execute(["text", "replaced", "number"], inputs={"number": 1}, overrides={"replaced": 7})
    assert result == {"text": "17", "replaced": 7, "number": 1}


def test_optional_inputs(make_adapter: MakeAdapter) -> None:
    """A parameter's default is used where nothing is given."""

    def node(number: int = 3) -> int:
        return number

    runs = driver_of(make_adapter(1), node)
    assert [runs.execute(["node"]), runs.execute(["node"], inputs={"number": 4})] == [{"node": 3}, {"node": 4}]


def test_a_future_as_an_input_of_the_user(make_adapter: MakeAdapter) -> None:
    """Nodes get its value, and so does the caller who asks for it back."""

    def node(given: Any) -> Any:
        return given

    foreign = Future[Any]()
    runs = in_thread(lambda: driver_of(make_adapter(1), node).execute(["node", "given"], inputs={"given": foreign}))
    foreign.set_result(5)
    assert runs.result(PATIENCE) == {"node": 5, "given": 5}


def test_raw_execute_gives_futures(make_adapter: MakeAdapter) -> None:
    """No result is built: values are futures, resolved later."""

    def one() -> int:
        return 1

    def two(one: int) -> int:
        return one + 1

    result = driver_of(make_adapter(1), one, two).raw_execute(["two", "one"])
    assert [(name, future.result(PATIENCE)) for name, future in result.items()] == [("two", 2), ("one", 1)]


def test_materialize(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    """The savers are nodes too; what comes back are their futures."""

    def report() -> dict[str, int]:
        return {"a": 1}

    saver = to.json(id="saved", dependencies=["report"], path=str(tmp_path / "report.json"))
    metadata, extra = driver_of(make_adapter(1), report).materialize(saver, additional_vars=["report"])
    assert metadata["saved"].result(PATIENCE)["file_metadata"]["path"] == str(tmp_path / "report.json")
    assert extra["report"].result(PATIENCE) == {"a": 1}
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 1}


def test_a_missing_input(make_adapter: MakeAdapter) -> None:
    """Hamilton's own error, before any node runs; the adapter works on."""
    called: list[int] = []

    def first() -> int:
        called.append(1)
        return 1

    def node(first: int, missing: int) -> int:
        return missing

    adapter = make_adapter(1)
    with pytest.raises(ValueError, match="missing"):
        driver_of(adapter, first, node).execute(["node"])
    assert not called
    assert driver_of(adapter, first).execute(["first"]) == {"first": 1}


def test_a_legacy_driver(make_adapter: MakeAdapter) -> None:
    """`driver.Driver(config, module, adapter=...)`, without the builder."""

    def one() -> int:
        return 1

    module = driver_of(make_adapter(1), one).graph_modules[0]
    assert driver.Driver({}, module, adapter=make_adapter(1)).execute(["one"]) == {"one": 1}


def test_a_node_that_returns_none(make_adapter: MakeAdapter) -> None:
    """Is a result like any other."""

    def nothing() -> typing.Any:
        return None

    def after(nothing: typing.Any) -> bool:
        return nothing is None

    assert driver_of(make_adapter(1), nothing, after).execute(["nothing", "after"]) == {"nothing": None, "after": True}


def test_results_are_let_go(make_adapter: MakeAdapter) -> None:
    """The adapter, idle again, keeps no node's value alive."""
    import weakref

    class Value:
        pass

    made: list[weakref.ref[Value]] = []

    def first() -> Any:
        value = Value()
        made.append(weakref.ref(value))
        return value

    def second(first: Any) -> int:
        return 1

    driver_of(make_adapter(1), first, second).execute(["second"])

    def gone() -> bool:
        gc.collect()
        return made[0]() is None

    assert eventually(gone)


def test_a_deep_chain(make_adapter: MakeAdapter) -> None:
    """300 nodes in a row, on one worker."""
    adapter = make_adapter(1)
    future = submit(adapter, identity, x=0)
    for _ in range(300):
        future = submit(adapter, lambda x: x + 1, x=future)
    assert future.result(PATIENCE) == 300


# materialize


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
        runs = driver.Builder().with_modules(dag).with_adapters(*adapters).build()  # type: ignore[no-untyped-call]
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


def test_savers_are_waited_for(stage: Stage, tmp_path: Path) -> None:
    """All of them, so that they are done, or have failed, when `materialize` returns; they run at once."""
    barrier = threading.Barrier(2)

    def left() -> dict[str, int]:
        return {"left": barrier.wait(PATIENCE) * 0}

    def right() -> dict[str, int]:
        return {"right": barrier.wait(PATIENCE) * 0}

    paths = tmp_path / "left.json", tmp_path / "right.json"
    runs = driver_of(stage.adapter(FutureAdapter(2)), left, right)
    metadata, _ = runs.materialize(saver(paths[0], "left", id="l"), saver(paths[1], "right", id="r"))
    assert [path.read_text() for path in paths] == ['{"left": 0}', '{"right": 0}']
    assert [future.result(0)["file_metadata"]["path"] for future in metadata.values()] == [str(path) for path in paths]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("which", ["first", "last", "upstream"])
def test_a_saver_that_fails_raises(stage: Stage, tmp_path: Path, which: str, *, dynamic: bool) -> None:
    """The saver's own exception, or that of a node upstream; other hooks hear of it, and the run is an error."""
    told: list[tuple[bool, str]] = []

    class Hook(lifecycle.GraphExecutionHook):
        def run_before_graph_execution(self, **more: Any) -> None: ...

        def run_after_graph_execution(self, *, success: bool, error: Any, **more: Any) -> None:
            told.append((success, type(error).__name__))

    def table() -> dict[str, int]:
        if which == "upstream":
            raise FileNotFoundError("no source")
        return {}

    fine, broken = (
        saver(tmp_path / "x.json", "table", id="fine"),
        saver(tmp_path / "no" / "x.json", "table", id="broken"),
    )
    savers = [fine, broken] if which == "last" else [broken, fine]
    adapter = stage.adapter(FutureAdapter(1, record=True))
    make = dynamic_driver_of if dynamic else driver_of
    with pytest.raises(FileNotFoundError):
        make(adapter, table, others=[Hook()]).materialize(*savers)
    adapter.close()
    assert told == [(False, "FileNotFoundError")]
    assert adapter.recorded_runs[-1].outcome == "error"
