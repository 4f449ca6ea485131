"""Hooks, caching, graceful errors and validators beside the adapter. On both adapters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hamilton import driver, lifecycle
from hamilton.lifecycle.default import FunctionInputOutputTypeChecker, GracefulErrorAdapter
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter

from tests.contract.shared import MakeAdapter
from tests.dags import Stage, driver_of, dynamic_driver_of
from traced_threadpool import FutureAdapter


class Recorder(lifecycle.NodeExecutionHook):
    """What a progress bar or a tracker sees: each call, and the thread that it came in."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, threading.Thread]] = []

    def run_before_node_execution(self, *, node_name: str, **future_kwargs: Any) -> None:
        self.calls.append(("before", node_name, threading.current_thread()))

    def run_after_node_execution(self, *, node_name: str, success: bool, **future_kwargs: Any) -> None:
        self.calls.append(("after" if success else "failed", node_name, threading.current_thread()))


def test_hooks_run_in_the_worker_around_the_function(make_adapter: MakeAdapter) -> None:
    """Before and after, all in the thread of the function, which is not the caller's."""
    hook = Recorder()

    def node() -> int:
        hook.calls.append(("call", "node", threading.current_thread()))
        return 1

    driver_of(make_adapter(2), node, others=[hook]).execute(["node"])
    assert [(what, name) for what, name, _ in hook.calls] == [("before", "node"), ("call", "node"), ("after", "node")]
    (thread,) = {thread for *_, thread in hook.calls}
    assert thread is not threading.current_thread()


def test_hooks_of_a_failing_node(make_adapter: MakeAdapter) -> None:
    """They are told of the failure, and nothing of the nodes that never run."""
    hook = Recorder()

    def bad() -> int:
        raise ValueError("bad")

    def below(bad: int) -> int:
        return bad

    with pytest.raises(ValueError, match="bad"):
        driver_of(make_adapter(2), bad, below, others=[hook]).execute(["below"])
    assert [(what, name) for what, name, _ in hook.calls] == [("before", "bad"), ("failed", "bad")]


def test_a_failing_hook_fails_the_node(make_adapter: MakeAdapter) -> None:
    """With the hook's exception, and the function is not called."""
    error = ValueError("hook")

    class Failing(lifecycle.NodeExecutionHook):
        def run_before_node_execution(self, **future_kwargs: Any) -> None:
            raise error

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            pass

    called: list[int] = []

    def node() -> int:
        called.append(1)
        return 1

    with pytest.raises(ValueError, match="hook") as raised:
        driver_of(make_adapter(1), node, others=[Failing()]).execute(["node"])
    assert raised.value is error
    assert not called


def test_graph_hooks_come_before_and_after_the_nodes(make_adapter: MakeAdapter) -> None:
    """When a run's hook is called after the graph, its outputs are there as values."""
    seen: list[Any] = []

    class Hook(lifecycle.GraphExecutionHook):
        def run_before_graph_execution(self, **future_kwargs: Any) -> None:
            seen.append("before")

        def run_after_graph_execution(self, *, results: Any, success: bool, **future_kwargs: Any) -> None:
            seen.append((results, success))

    def node() -> int:
        seen.append("node")
        return 1

    driver_of(make_adapter(1), node, others=[Hook()]).execute(["node"])
    assert seen == ["before", "node", ({"node": 1}, True)]


def test_a_run_goes_on_after_one_whose_graph_hook_raised(make_adapter: MakeAdapter) -> None:
    """Another adapter's hook that raises before the first node costs that run, and no other."""
    error = ValueError("hook")

    class Failing(lifecycle.GraphExecutionHook):
        def run_before_graph_execution(self, **future_kwargs: Any) -> None:
            raise error

        def run_after_graph_execution(self, **future_kwargs: Any) -> None:
            pass

    def node() -> int:
        return 1

    adapter = make_adapter(1)
    with pytest.raises(ValueError, match="hook") as raised:
        driver_of(adapter, node, others=[Failing()]).execute(["node"])
    assert raised.value is error
    assert driver_of(adapter, node).execute(["node"]) == {"node": 1}


def test_graceful_error_adapter(make_adapter: MakeAdapter) -> None:
    """A failing node and what is below it give the sentinel; the rest gives its values."""

    def bad() -> int:
        raise ValueError("bad")

    def below(bad: int) -> int:
        return bad

    def good() -> int:
        return 1

    graceful = GracefulErrorAdapter(error_to_catch=ValueError, sentinel_value=None)
    result = driver_of(make_adapter(2), bad, below, good, others=[graceful]).execute(["below", "good"])
    assert result == {"below": None, "good": 1}


def test_type_checking_hook_sees_values(make_adapter: MakeAdapter) -> None:
    """Hamilton's own checker of inputs and outputs meets no futures."""

    def one() -> int:
        return 1

    def two(one: int) -> str:
        return 2  # type: ignore[return-value]

    with pytest.raises(TypeError, match="two"):
        driver_of(make_adapter(1), one, two, others=[FunctionInputOutputTypeChecker()]).execute(["two"])


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Hamilton's store leaves its SQLite connection open
def test_caching(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    """Hamilton's cache: a second run calls no function, another input calls what depends on it."""
    calls: list[str] = []

    def doubled(number: int) -> int:
        calls.append("doubled")
        return number * 2

    def report(doubled: int) -> str:
        calls.append("report")
        return f"it is {doubled}"

    def cached_driver() -> driver.Driver:
        module = driver_of(make_adapter(2), doubled, report).graph_modules[0]
        builder = driver.Builder().with_modules(module).with_adapters(make_adapter(2))
        return builder.with_cache(path=tmp_path).build()

    runs = cached_driver()
    assert runs.execute(["report"], inputs={"number": 2}) == {"report": "it is 4"}
    assert runs.execute(["report"], inputs={"number": 2}) == {"report": "it is 4"}
    assert calls == ["doubled", "report"]
    assert runs.execute(["report"], inputs={"number": 3}) == {"report": "it is 6"}
    assert calls == ["doubled", "report"] * 2


class Everything(lifecycle.GraphExecutionHook, lifecycle.NodeExecutionHook, lifecycle.NodeExecutionMethod):
    """Notes all that it is told, but for ids, tags and graphs, and doubles each node's value."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def _note(self, hook: str, more: dict[str, Any]) -> None:
        told = {name: more[name] for name in sorted(more) if isinstance(more[name], (str, int, dict, list))}
        plain = {name: value for name, value in told.items() if not name.endswith(("_id", "_tags"))}
        self.told.append((hook, sorted(more), plain))

    def run_before_graph_execution(self, **more: Any) -> None:
        self._note("before graph", {**more, "execution_path": sorted(more["execution_path"])})

    def run_after_graph_execution(self, *, results: Any, **more: Any) -> None:
        self._note("after graph", {**more, "results": results if more["success"] else None})

    def run_before_node_execution(self, **more: Any) -> None:
        self._note("before node", more)

    def run_after_node_execution(self, **more: Any) -> None:
        self._note("after node", more)

    def run_to_execute_node(self, *, node_callable: Any, node_kwargs: dict[str, Any], **more: Any) -> Any:
        self._note("execute node", more)
        return 2 * node_callable(**node_kwargs)


@pytest.mark.parametrize("make", [driver_of, dynamic_driver_of], ids=["static", "dynamic"])
@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_what_another_adapter_is_told(stage: Stage, make: Callable[..., Any], *, fails: bool) -> None:
    """Each hook, with the same arguments and values, and in the same order on one worker, as by Hamilton's adapter."""

    def told_with(adapter: Any) -> Any:
        def first(number: int) -> int:
            return number

        def second(first: int, number: int) -> int:
            if fails:
                raise ValueError("bad")
            return first + number

        other = Everything()
        with contextlib.suppress(ValueError):
            make(adapter, first, second, others=[other]).execute(["second"], inputs={"number": 5})
        return other.told

    ours, hamiltons = (told_with(stage.adapter(made(1))) for made in (FutureAdapter, HamiltonsAdapter))
    assert ours == hamiltons
    assert len(ours) == 8
