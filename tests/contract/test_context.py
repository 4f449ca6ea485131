"""The caller's `contextvars` are visible in every node; what a node sets stays in it."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.execution.executors import TaskExecutor
from hamilton.htypes import Collect
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonsAdapter

from tests.contract.shared import numbers
from tests.dags import PATIENCE, Stage, driver_of, dynamic_driver_of, submit
from traced_threadpool import FutureAdapter

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


# Where threads inherit the context of whoever starts them, Hamilton's workers have that of the first caller.
HAMILTONS = "r1" if getattr(sys.flags, "thread_inherit_context", False) else "none"


def seen_by_node() -> str:
    return request_id.get()


def in_request(value: str, function: Callable[[], Any]) -> Any:
    """Calls the function in a context where `request_id` has this value."""

    def run() -> Any:
        request_id.set(value)
        return function()

    return contextvars.copy_context().run(run)


@pytest.mark.parametrize(("adapter_class", "expected"), [(HamiltonsAdapter, HAMILTONS), (FutureAdapter, "r1")])
def test_the_callers_context_is_visible_in_nodes(stage: Stage, adapter_class: type[Any], expected: str) -> None:
    """With ours; with Hamilton's, nodes see the defaults, or what the caller had who came first."""
    runs = driver_of(stage.adapter(adapter_class(1)), seen_by_node)
    assert in_request("r1", lambda: runs.execute(["seen_by_node"])) == {"seen_by_node": expected}


def seen_by_three_callers(adapter: Any) -> list[str]:
    """On one worker, whose thread was started by the first; the last has set nothing."""
    runs = driver_of(adapter, seen_by_node)
    seen = [in_request(each, lambda: runs.execute(["seen_by_node"])["seen_by_node"]) for each in ("r1", "r2")]
    return [*seen, runs.execute(["seen_by_node"])["seen_by_node"]]


def test_each_caller_has_its_own_context(stage: Stage) -> None:
    assert seen_by_three_callers(stage.adapter(FutureAdapter(1))) == ["r1", "r2", "none"]


def test_callers_of_hamiltons_have_one_context(stage: Stage) -> None:
    assert seen_by_three_callers(stage.adapter(HamiltonsAdapter(1))) == [HAMILTONS] * 3


def test_the_context_is_visible_in_hooks(stage: Stage) -> None:
    """Those of other adapters, around the node."""
    seen: list[str] = []

    class Notes(lifecycle.NodeExecutionHook):
        def run_before_node_execution(self, **future_kwargs: Any) -> None:
            seen.append(request_id.get())

        def run_after_node_execution(self, **future_kwargs: Any) -> None:
            seen.append(request_id.get())

    runs = driver_of(stage.adapter(FutureAdapter(1)), seen_by_node, others=[Notes()])
    in_request("r1", lambda: runs.execute(["seen_by_node"]))
    assert seen == ["r1", "r1"]


def test_the_context_is_visible_in_branches(stage: Stage, remote_executor: TaskExecutor) -> None:
    """Also where a thread of Hamilton's executor, which does not have it, submits them."""

    def branch(numbers: int) -> str:
        return request_id.get()

    def collected(branch: Collect[str]) -> list[str]:
        return [*branch, request_id.get()]

    adapter = stage.adapter(FutureAdapter(2))
    runs = dynamic_driver_of(adapter, numbers, branch, collected, remote_executor=remote_executor)
    assert in_request("r1", lambda: runs.execute(["collected"])) == {"collected": ["r1"] * 4}


def test_the_context_is_visible_in_nested_nodes(stage: Stage) -> None:
    """What the outer node set is, in its own nested run."""
    adapter = stage.adapter(FutureAdapter(1))
    inside = driver_of(adapter, seen_by_node)

    def outer() -> str:
        request_id.set("set by outer")
        seen: str = inside.execute(["seen_by_node"])["seen_by_node"]
        return seen

    runs = driver_of(adapter, outer)
    assert in_request("r1", lambda: runs.execute(["outer"])) == {"outer": "set by outer"}


@pytest.mark.parametrize(("adapter_class", "expected"), [(HamiltonsAdapter, "first's own"), (FutureAdapter, "r1")])
def test_what_a_node_sets_stays_in_it(stage: Stage, adapter_class: type[Any], expected: str) -> None:
    """The caller does not see it, and with ours neither does the node below it on the same worker."""

    def first() -> str:
        request_id.set("first's own")
        return request_id.get()

    def second(first: str) -> str:
        return f"{first}, then {request_id.get()}"

    runs = driver_of(stage.adapter(adapter_class(1)), first, second)
    result, after = in_request("r1", lambda: (runs.execute(["second"]), request_id.get()))
    assert (result, after) == ({"second": f"first's own, then {expected}"}, "r1")


def test_the_context_is_that_of_the_caller_not_of_who_resolves_an_input(stage: Stage) -> None:
    """A foreign future is resolved in another context."""
    adapter, foreign = stage.adapter(FutureAdapter(1)), Future[Any]()
    future = in_request("r1", lambda: submit(adapter, lambda x: request_id.get(), x=foreign))
    in_request("r2", lambda: foreign.set_result(1))
    assert future.result(PATIENCE) == "r1"
