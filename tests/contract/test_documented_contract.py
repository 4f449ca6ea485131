"""What Hamilton documents of its own `FutureAdapter`, on that one and on ours: every test runs on both."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import json
import threading
import typing
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hamilton import base, driver, lifecycle
from hamilton.function_modifiers import config
from hamilton.io.materialization import to
from hamilton.lifecycle.default import FunctionInputOutputTypeChecker, GracefulErrorAdapter

from tests.dags import PATIENCE, Held, Stage, driver_of, eventually, in_thread, submit, wait_for

MakeAdapter = Callable[..., Any]


@pytest.fixture
def make_adapter(adapter_class: type[Any], stage: Stage) -> MakeAdapter:
    """Makes adapters that are closed at the test's end."""
    return lambda *arguments, **keywords: stage.adapter(adapter_class(*arguments, **keywords))


class Line(lifecycle.ResultBuilder):
    """Builds one line of text."""

    def build_result(self, **outputs: Any) -> str:
        return " ".join(f"{name}={value}" for name, value in outputs.items())

    def output_type(self) -> type:
        return str


def identity(x: Any) -> Any:
    return x


def outcome_of(future: Future[Any]) -> BaseException | None:
    """What `result` raises."""
    try:
        future.result(PATIENCE)
    except BaseException as error:
        return error
    return None


# The constructor and its types


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


# do_remote_execute


def test_a_future_comes_at_once(make_adapter: MakeAdapter, stage: Stage) -> None:
    """`do_remote_execute` does not wait for the function."""
    held = Held(stage)
    future = submit(make_adapter(1), held)
    assert isinstance(future, Future)
    wait_for(held.started)
    assert not future.done()
    held.release.set()
    assert future.result(PATIENCE) == "held"


def test_do_remote_execute_takes_keywords_only(make_adapter: MakeAdapter) -> None:
    """As Hamilton calls it."""
    with pytest.raises(TypeError):
        make_adapter(1).do_remote_execute(identity, None, x=1)


def test_arguments_arrive_by_name(make_adapter: MakeAdapter) -> None:
    """Values and futures alike, and no others."""
    adapter = make_adapter(2)
    future = submit(adapter, lambda **arguments: arguments, a=1, b=submit(adapter, identity, x=2), c=None)
    assert future.result(PATIENCE) == {"a": 1, "b": 2, "c": None}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("node", [False, True], ids=["foreign", "of a node"])
def test_futures_of_futures_are_resolved(make_adapter: MakeAdapter, depth: int, *, node: bool) -> None:
    """A future whose value is a future is resolved until a value comes."""
    adapter = make_adapter(2)
    value: Any = "value"
    for _ in range(depth):
        outer = Future[Any]()
        outer.set_result(value)
        value = outer
    argument = submit(adapter, lambda: value) if node else value
    assert submit(adapter, identity, x=argument).result(PATIENCE) == "value"


def test_a_future_of_a_future_that_comes_late(make_adapter: MakeAdapter, stage: Stage) -> None:
    """The inner future is waited for as well, here in three steps."""
    adapter = make_adapter(2)
    outer, middle, inner = Future[Any](), Future[Any](), Future[Any]()
    future = submit(adapter, identity, x=outer)
    outer.set_result(middle)
    middle.set_result(inner)
    assert not future.done()
    inner.set_result("value")
    assert future.result(PATIENCE) == "value"


def test_a_future_of_a_future_that_fails(make_adapter: MakeAdapter) -> None:
    """Its exception is the node's, whose function is not called."""
    adapter = make_adapter(2)
    error, called = ValueError("inner"), list[Any]()
    outer, inner = Future[Any](), Future[Any]()
    future = submit(adapter, called.append, object=outer)
    outer.set_result(inner)
    inner.set_exception(error)
    assert outcome_of(future) is error
    assert not called


def test_futures_in_containers_are_left_alone(make_adapter: MakeAdapter) -> None:
    """Only arguments that are futures are resolved, not what is inside of a list."""
    adapter = make_adapter(2)
    inside = submit(adapter, identity, x=1)
    (argument,) = submit(adapter, identity, x=[inside]).result(PATIENCE)
    assert argument is inside


def test_a_foreign_future_resolved_later(make_adapter: MakeAdapter) -> None:
    """A future that somebody else made is an input like any other."""
    foreign = Future[Any]()
    future = submit(make_adapter(1), identity, x=foreign)
    assert not future.done()
    foreign.set_result("value")
    assert future.result(PATIENCE) == "value"


def test_a_foreign_future_done_already(make_adapter: MakeAdapter) -> None:
    """Its value is taken."""
    foreign = Future[Any]()
    foreign.set_result("value")
    assert submit(make_adapter(1), identity, x=foreign).result(PATIENCE) == "value"


@pytest.mark.parametrize("already", [False, True], ids=["later", "already"])
def test_a_foreign_future_that_fails(make_adapter: MakeAdapter, *, already: bool) -> None:
    """Its exception, the very object, is the node's."""
    foreign, error = Future[Any](), ValueError("foreign")
    if already:
        foreign.set_exception(error)
    future = submit(make_adapter(1), identity, x=foreign)
    if not already:
        foreign.set_exception(error)
    assert future.exception(PATIENCE) is error


@pytest.mark.parametrize("already", [False, True], ids=["later", "already"])
def test_a_foreign_future_that_is_cancelled(make_adapter: MakeAdapter, *, already: bool) -> None:
    """`result` raises `CancelledError`, and the function is not called."""
    foreign, called = Future[Any](), list[Any]()
    if already:
        foreign.cancel()
    future = submit(make_adapter(1), called.append, object=foreign)
    if not already:
        foreign.cancel()
    assert isinstance(outcome_of(future), CancelledError)
    assert not called


def test_the_future_of_another_adapter(make_adapter: MakeAdapter) -> None:
    """Is an input like any other."""
    first, second = make_adapter(1), make_adapter(1)
    assert submit(second, identity, x=submit(first, identity, x=5)).result(PATIENCE) == 5


def test_one_future_under_two_names(make_adapter: MakeAdapter) -> None:
    """Both arguments get the value."""
    adapter = make_adapter(1)
    both = submit(adapter, identity, x=[1])
    first, second = submit(adapter, lambda a, b: (a, b), a=both, b=both).result(PATIENCE)
    assert first is second


# Results


def test_results_in_the_order_asked_for(make_adapter: MakeAdapter) -> None:
    """Not in that of the graph, nor of completion."""

    def one() -> int:
        return 1

    def two(one: int) -> int:
        return one + 1

    def three(two: int) -> int:
        return two + 1

    result = driver_of(make_adapter(2), one, two, three).execute(["two", "three", "one"])
    assert list(result.items()) == [("two", 2), ("three", 3), ("one", 1)]


def test_build_result_resolves_futures_and_keeps_values(make_adapter: MakeAdapter) -> None:
    """Outputs that are no futures pass through, in their places."""
    adapter = make_adapter(1)
    result = adapter.build_result(b=submit(adapter, identity, x=1), a=2, c=None)
    assert list(result.items()) == [("b", 1), ("a", 2), ("c", None)]


def test_build_result_waits(make_adapter: MakeAdapter, stage: Stage) -> None:
    """It blocks until the last future is resolved."""
    adapter, held = make_adapter(1), Held(stage)
    building = in_thread(lambda: adapter.build_result(x=submit(adapter, held)))
    wait_for(held.started)
    assert not building.done()
    held.release.set()
    assert building.result(PATIENCE) == {"x": "held"}


def test_do_build_result(make_adapter: MakeAdapter) -> None:
    """Takes the outputs as one dict."""
    adapter = make_adapter(1)
    assert adapter.do_build_result({"x": submit(adapter, identity, x=1)}) == {"x": 1}


def test_a_wrapped_builder_builds(make_adapter: MakeAdapter) -> None:
    """From values, not from futures, in the order asked for."""

    def a() -> int:
        return 1

    def b(a: int) -> int:
        return a * 10

    assert driver_of(make_adapter(2, result_builder=Line()), a, b).execute(["b", "a"]) == "b=10 a=1"


def test_a_failing_builder(make_adapter: MakeAdapter) -> None:
    """Its exception reaches the caller, and the adapter works on."""
    error = ValueError("builder")

    class Failing(lifecycle.ResultBuilder):
        def build_result(self, **outputs: Any) -> Any:
            assert outputs == {"one": 1}
            raise error

    def one() -> int:
        return 1

    adapter = make_adapter(1, result_builder=Failing())
    with pytest.raises(ValueError, match="builder") as raised:
        driver_of(adapter, one).execute(["one"])
    assert raised.value is error
    assert submit(adapter, identity, x=1).result(PATIENCE) == 1


# Failures


class OddError(Exception):
    """With an initializer that takes nothing that `args` has."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code


class Unusual(BaseException):
    """No `Exception`, and none of Python's own."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        OddError(code=3),
        StopIteration(4),
        SystemExit(5),
        KeyboardInterrupt(),
        GeneratorExit(),
        Unusual(),
        CancelledError("a node's own"),
        concurrent.futures.TimeoutError("a node's own"),
    ],
    ids=lambda error: type(error).__name__,
)
class TestAnyException:
    """Whatever a node raises."""

    def test_it_reaches_the_caller_as_the_very_object(self, make_adapter: MakeAdapter, error: BaseException) -> None:
        """Through the driver; and the adapter works on."""

        def bad() -> int:
            raise error

        def good() -> int:
            return 1

        adapter = make_adapter(1)
        with pytest.raises(type(error)) as raised:
            driver_of(adapter, bad).execute(["bad"])
        assert raised.value is error
        assert driver_of(adapter, good).execute(["good"]) == {"good": 1}

    def test_downstream_carries_it(self, make_adapter: MakeAdapter, error: BaseException) -> None:
        """A node downstream, also an indirect one, never runs, and its future carries the same object."""
        called: list[str] = []

        def bad() -> Any:
            raise error

        adapter = make_adapter(2)
        failed = submit(adapter, bad)
        child = submit(adapter, lambda x: called.append("child"), x=failed)
        grandchild = submit(adapter, lambda x: called.append("grandchild"), x=child)
        late = submit(adapter, lambda x: called.append("late"), x=child)
        assert [future.exception(PATIENCE) for future in (failed, child, grandchild, late)] == [error] * 4
        assert [future.cancelled() for future in (failed, child, grandchild, late)] == [False] * 4
        assert not called


def test_of_two_failed_upstreams_the_first_argument_counts(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Whichever failed first in time: here the second argument."""
    adapter = make_adapter(3)
    first_error, second_error, go = ValueError("first"), ValueError("second"), stage.event()

    def fail_late() -> Any:
        wait_for(go)
        raise first_error

    def fail_at_once() -> Any:
        raise second_error

    first, second = submit(adapter, fail_late), submit(adapter, fail_at_once)
    joined = submit(adapter, lambda a, b: None, a=first, b=second)
    assert second.exception(PATIENCE) is second_error
    go.set()
    assert joined.exception(PATIENCE) is first_error


def test_a_second_argument_fails_and_the_first_is_well(make_adapter: MakeAdapter, stage: Stage) -> None:
    """The node fails with the second's exception, once the first has ended."""
    adapter, held, error = make_adapter(3), Held(stage), ValueError("second")

    def bad() -> Any:
        raise error

    first, second = submit(adapter, held), submit(adapter, bad)
    joined = submit(adapter, lambda a, b: None, a=first, b=second)
    assert second.exception(PATIENCE) is error
    assert not joined.done()
    held.release.set()
    assert joined.exception(PATIENCE) is error


def test_of_two_failed_outputs_the_first_asked_for_is_raised(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Whichever failed first in time."""
    go, first_error, second_error = stage.event(), ValueError("first"), ValueError("second")

    def first() -> int:
        wait_for(go)
        raise first_error

    def second() -> int:
        go.set()
        raise second_error

    with pytest.raises(ValueError, match=r"first|second") as raised:
        driver_of(make_adapter(2), first, second).execute(["first", "second"])
    assert raised.value is first_error


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt("a node's own")], ids=["error", "interrupt"])
def test_nodes_that_do_not_depend_on_a_failure_run(make_adapter: MakeAdapter, error: BaseException) -> None:
    """A failure stops what is downstream of it, and nothing else."""
    ran: list[str] = []

    def bad() -> int:
        raise error

    def below(bad: int) -> int:
        ran.append("below")
        return 1

    def other() -> int:
        ran.append("other")
        return 1

    adapter = make_adapter(1)
    with pytest.raises(type(error)):
        driver_of(adapter, bad, below, other).execute(["below", "other"])
    adapter.executor.shutdown(wait=True)
    assert ran == ["other"]


def test_the_traceback_names_the_line_that_raised(make_adapter: MakeAdapter) -> None:
    """It ends in the node's function."""

    def bad() -> int:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad") as raised:
        driver_of(make_adapter(1), bad).execute(["bad"])
    assert raised.traceback[-1].name == "bad"


# Other adapters


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
        builder = driver.Builder().with_modules(module).with_adapters(make_adapter(2))  # type: ignore[no-untyped-call]
        return builder.with_cache(path=tmp_path).build()

    runs = cached_driver()
    assert runs.execute(["report"], inputs={"number": 2}) == {"report": "it is 4"}
    assert runs.execute(["report"], inputs={"number": 2}) == {"report": "it is 4"}
    assert calls == ["doubled", "report"]
    assert runs.execute(["report"], inputs={"number": 3}) == {"report": "it is 6"}
    assert calls == ["doubled", "report"] * 2


# Workers


def test_as_many_nodes_as_workers_run_at_once(make_adapter: MakeAdapter) -> None:
    """Three workers: nodes meet at a barrier by threes."""
    adapter, barrier = make_adapter(3), threading.Barrier(3)
    futures = [submit(adapter, lambda: barrier.wait(PATIENCE)) for _ in range(6)]
    assert sorted(future.result(PATIENCE) for future in futures) == [0, 0, 1, 1, 2, 2]


def test_nodes_below_one_node_run_at_once(make_adapter: MakeAdapter) -> None:
    """Three that become ready together meet at a barrier, on three workers."""
    adapter, barrier = make_adapter(3), threading.Barrier(3)
    above = submit(adapter, identity, x=1)
    futures = [submit(adapter, lambda x: barrier.wait(PATIENCE), x=above) for _ in range(3)]
    assert sorted(future.result(PATIENCE) for future in futures) == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_never_more_nodes_than_workers(make_adapter: MakeAdapter, workers: int) -> None:
    """The most that ever ran at once, in a DAG that is wide and deep, is the number of workers."""
    adapter, lock, running, most = make_adapter(workers), threading.Lock(), 0, 0

    def busy(**upstream: Any) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)  # long enough for one too many to start
        with lock:
            running -= 1
        return 1

    futures: list[Future[Any]] = []
    for row in range(4):
        above = futures[-6:]
        futures += [submit(adapter, busy, **({"x": above[i], "y": above[i - 1]} if row else {})) for i in range(6)]
    assert [future.result(PATIENCE) for future in futures] == [1] * 24
    assert most <= workers


def test_thread_names(make_adapter: MakeAdapter) -> None:
    """`thread_name_prefix` and a number, as `ThreadPoolExecutor` makes them."""
    adapter, barrier = make_adapter(2, thread_name_prefix="crunch"), threading.Barrier(2)

    def name() -> str:
        barrier.wait(PATIENCE)
        return threading.current_thread().name

    futures = [submit(adapter, name) for _ in range(2)]
    assert {future.result(PATIENCE) for future in futures} == {"crunch_0", "crunch_1"}


def test_drivers_and_threads_share_an_adapter(make_adapter: MakeAdapter) -> None:
    """Eight callers with drivers of their own: each gets the results of its own inputs."""
    adapter, together = make_adapter(3), threading.Barrier(8)

    def left(number: int) -> int:
        return number + 1

    def right(number: int) -> int:
        return number * 2

    def joined(left: int, right: int) -> int:
        return left * right

    def call(number: int) -> list[int]:
        runs = driver_of(adapter, left, right, joined)
        together.wait(PATIENCE)
        return [runs.execute(["joined"], inputs={"number": number + step})["joined"] for step in range(5)]

    callers = [in_thread(call, number) for number in range(8)]
    assert [caller.result(PATIENCE) for caller in callers] == [
        [(number + step + 1) * (number + step) * 2 for step in range(5)] for number in range(8)
    ]


def test_own_work_on_the_executor(make_adapter: MakeAdapter, stage: Stage) -> None:
    """What the program submits to `adapter.executor` itself runs on the workers, beside the nodes."""
    adapter = make_adapter(1, thread_name_prefix="crunch")
    own = [adapter.executor.submit(lambda: threading.current_thread().name) for _ in range(2)]
    node = submit(adapter, lambda: threading.current_thread().name)
    assert [future.result(PATIENCE) for future in (*own, node)] == ["crunch_0"] * 3


def test_nodes_behind_own_work_on_the_executor(make_adapter: MakeAdapter, stage: Stage) -> None:
    """With the only worker taken by such work, nodes wait and then run."""
    adapter, held = make_adapter(1), Held(stage)
    adapter.executor.submit(held)
    wait_for(held.started)
    futures = [submit(adapter, identity, x=number) for number in range(3)]
    assert not any(future.done() for future in futures)
    held.release.set()
    assert [future.result(PATIENCE) for future in futures] == [0, 1, 2]


def test_use_after_the_executor_was_shut_down(make_adapter: MakeAdapter) -> None:
    """A `RuntimeError`, to whoever submits and to whoever executes."""

    def node() -> int:
        return 1

    adapter = make_adapter(1)
    runs = driver_of(adapter, node)
    runs.execute(["node"])
    adapter.executor.shutdown()
    with pytest.raises(RuntimeError):
        submit(adapter, identity, x=1)
    with pytest.raises(RuntimeError):
        runs.execute(["node"])


def test_shutdown_lets_what_was_submitted_end(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Also what waits for inputs or for a worker."""
    adapter, held = make_adapter(1), Held(stage)
    first = submit(adapter, held)
    wait_for(held.started)
    futures = [submit(adapter, lambda x=number: x) for number in range(2)]
    below = submit(adapter, identity, x=futures[1])
    adapter.executor.shutdown(wait=False)
    held.release.set()
    assert [future.result(PATIENCE) for future in (first, *futures, below)] == ["held", 0, 1, 1]


def test_shutdown_lets_what_waits_for_a_foreign_future_end(make_adapter: MakeAdapter) -> None:
    """That was submitted as well."""
    adapter, foreign = make_adapter(1), Future[Any]()
    future = submit(adapter, identity, x=foreign)
    adapter.executor.shutdown(wait=False)
    foreign.set_result("value")
    assert future.result(PATIENCE) == "value"


def test_shutdown_that_cancels(make_adapter: MakeAdapter, stage: Stage) -> None:
    """`executor.shutdown(cancel_futures=True)` cancels the nodes that have not started."""
    adapter, held = make_adapter(1), Held(stage)
    first = submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, identity, x=1)
    below = submit(adapter, identity, x=queued)
    adapter.executor.shutdown(wait=False, cancel_futures=True)
    held.release.set()
    assert first.result(PATIENCE) == "held"
    assert [type(outcome_of(future)) for future in (queued, below)] == [CancelledError] * 2


def test_shutdown_that_cancels_behind_own_work(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Nodes that wait behind the program's own work on the executor are cancelled, and nobody hangs."""
    adapter, held = make_adapter(1), Held(stage)
    adapter.executor.submit(held)
    wait_for(held.started)
    queued = submit(adapter, identity, x=1)
    adapter.executor.shutdown(wait=False, cancel_futures=True)
    held.release.set()
    assert isinstance(outcome_of(queued), CancelledError)


# The futures


def test_states_of_a_future(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Queued, running, done: (`running()`, `done()`, `cancelled()`)."""
    adapter, held = make_adapter(1), Held(stage)
    first = submit(adapter, held)
    wait_for(held.started)
    second = submit(adapter, identity, x=1)

    def states() -> list[tuple[bool, bool, bool]]:
        return [(future.running(), future.done(), future.cancelled()) for future in (first, second)]

    assert states() == [(True, False, False), (False, False, False)]
    held.release.set()
    second.result(PATIENCE)
    assert states() == [(False, True, False), (False, True, False)]


def test_result_and_exception_time_out(make_adapter: MakeAdapter, stage: Stage) -> None:
    """With `concurrent.futures.TimeoutError`; the node goes on."""
    adapter, held = make_adapter(1), Held(stage)
    future = submit(adapter, held)
    for wait in (future.result, future.exception):
        for timeout in (0, 0.01):
            with pytest.raises(concurrent.futures.TimeoutError):
                wait(timeout=timeout)
    held.release.set()
    assert future.result(timeout=PATIENCE) == "held"


def test_exception_of_a_node_that_went_well(make_adapter: MakeAdapter) -> None:
    """Is None."""
    assert submit(make_adapter(1), identity, x=1).exception(PATIENCE) is None


def test_cancel_a_queued_node(make_adapter: MakeAdapter, stage: Stage) -> None:
    """It never runs, nor does what is below it; others do."""
    adapter, held, called = make_adapter(1), Held(stage), list[str]()
    first = submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, lambda: called.append("queued"))
    below = submit(adapter, lambda x: called.append("below"), x=queued)
    other = submit(adapter, lambda: called.append("other"))
    assert queued.cancel()
    assert (queued.cancelled(), queued.done(), queued.running()) == (True, True, False)
    held.release.set()
    assert [outcome_of(future) for future in (first, other)] == [None, None]
    assert [type(outcome_of(future)) for future in (queued, below)] == [CancelledError] * 2
    assert called == ["other"]


def test_cancel_what_runs_or_is_done(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Is refused, and changes nothing."""
    adapter, held = make_adapter(1), Held(stage)
    future = submit(adapter, held)
    wait_for(held.started)
    assert not future.cancel()
    held.release.set()
    assert future.result(PATIENCE) == "held"
    assert not future.cancel()
    assert not future.cancelled()


def test_cancel_twice(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Says yes both times, and calls back once."""
    adapter, held, calls = make_adapter(1), Held(stage), list[Future[Any]]()
    submit(adapter, held)
    queued = submit(adapter, identity, x=1)
    queued.add_done_callback(calls.append)
    assert [queued.cancel(), queued.cancel()] == [True, True]
    held.release.set()
    adapter.executor.shutdown()
    assert calls == [queued]


def test_wait_for_the_first(make_adapter: MakeAdapter, stage: Stage) -> None:
    """`concurrent.futures.wait(..., FIRST_COMPLETED)` returns with one done and one running."""
    adapter, held = make_adapter(2), Held(stage)
    slow, quick = submit(adapter, held), submit(adapter, identity, x=1)
    result = concurrent.futures.wait([slow, quick], PATIENCE, return_when=concurrent.futures.FIRST_COMPLETED)
    assert result == ({quick}, {slow})


def test_wait_for_an_exception(make_adapter: MakeAdapter, stage: Stage) -> None:
    """`FIRST_EXCEPTION` returns while another node runs; the nodes below have failed as well."""
    adapter, held, go = make_adapter(2), Held(stage), stage.event()

    def bad() -> Any:
        wait_for(go)
        raise ValueError("bad")

    slow, failing = submit(adapter, held), submit(adapter, bad)
    waiting = in_thread(lambda: concurrent.futures.wait([slow, failing], PATIENCE, concurrent.futures.FIRST_EXCEPTION))
    go.set()
    assert waiting.result(PATIENCE) == ({failing}, {slow})


def test_wait_for_all(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Cancelled, failed and good ones alike."""
    adapter, held = make_adapter(1), Held(stage)
    slow = submit(adapter, held)
    wait_for(held.started)
    cancelled = submit(adapter, identity, x=1)
    failing = submit(adapter, identity, wrong=1)
    waiting = in_thread(lambda: concurrent.futures.wait([slow, cancelled, failing], PATIENCE))
    cancelled.cancel()
    held.release.set()
    assert waiting.result(PATIENCE) == ({slow, cancelled, failing}, set())


def test_as_completed(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Yields in the order of completion."""
    adapter, held = make_adapter(2), Held(stage)
    slow, quick = submit(adapter, held), submit(adapter, identity, x=1)
    order = []
    for future in concurrent.futures.as_completed([slow, quick], PATIENCE):
        order.append(future)
        held.release.set()
    assert order == [quick, slow]


def test_done_callbacks(make_adapter: MakeAdapter, stage: Stage) -> None:
    """In the order given, with the very future, in the worker; one that raises stops neither others nor the worker."""
    adapter, held, calls = make_adapter(1, thread_name_prefix="crunch"), Held(stage), list[tuple[str, Any, str]]()

    def note(name: str) -> Callable[[Future[Any]], None]:
        return lambda future: calls.append((name, future, threading.current_thread().name))

    def fail(future: Future[Any]) -> None:
        raise ValueError("callback")

    future = submit(adapter, held)
    future.add_done_callback(note("first"))
    future.add_done_callback(fail)
    future.add_done_callback(note("second"))
    held.release.set()
    assert submit(adapter, identity, x=1).result(PATIENCE) == 1
    future.add_done_callback(note("late"))
    here = threading.current_thread().name
    assert calls == [("first", future, "crunch_0"), ("second", future, "crunch_0"), ("late", future, here)]


def test_a_callback_may_submit(make_adapter: MakeAdapter) -> None:
    """No lock is held while it runs."""
    adapter, chained = make_adapter(1), Future[Any]()
    first = submit(adapter, identity, x=1)
    first.add_done_callback(lambda done: chained.set_result(submit(adapter, identity, x=done)))
    assert chained.result(PATIENCE).result(PATIENCE) == 1


def test_awaiting_a_node(make_adapter: MakeAdapter) -> None:
    """`asyncio.wrap_future` gives values and exceptions."""
    adapter, error = make_adapter(2), ValueError("bad")

    def bad() -> Any:
        raise error

    async def main() -> list[Any]:
        futures = [asyncio.wrap_future(submit(adapter, identity, x=1)), asyncio.wrap_future(submit(adapter, bad))]
        return await asyncio.gather(*futures, return_exceptions=True)

    assert asyncio.run(main()) == [1, error]


def test_cancelling_from_asyncio(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Cancelling the wrapper cancels the node."""
    adapter, held = make_adapter(1), Held(stage)
    submit(adapter, held)
    wait_for(held.started)
    queued = submit(adapter, identity, x=1)

    async def main() -> None:
        wrapped = asyncio.wrap_future(queued)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    asyncio.run(main())
    assert queued.cancelled()


def test_waiting_threads_all_wake(make_adapter: MakeAdapter, stage: Stage) -> None:
    """Several threads may wait for one future."""
    adapter, held = make_adapter(1), Held(stage)
    future = submit(adapter, held)
    waiting = [in_thread(future.result, PATIENCE) for _ in range(4)]
    wait_for(held.started)
    held.release.set()
    assert [each.result(PATIENCE) for each in waiting] == ["held"] * 4


# The driver's ways


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
    import gc
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
