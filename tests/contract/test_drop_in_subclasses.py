"""Whatever the shape of a subclass, it does on our adapter what it does on Hamilton's. On both."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Generic, TypeVar
from unittest import mock

import pytest
from hamilton import base, lifecycle
from hamilton.lifecycle import base as lifecycle_base
from hamilton.plugins import h_threadpool

import traced_threadpool
import traced_threadpool.backends
from tests.contract.shared import ITEMS, RIGHT, AdapterClass, Sorted, one, run, total, two
from tests.dags import PATIENCE, Stage, driver_of, submit

Value = TypeVar("Value")


class Hook:
    """Notes what graph hooks are told."""

    noted: list[str]

    def run_before_graph_execution(self, **more: Any) -> None:
        self.noted.append("before " + " ".join(sorted(more["execution_path"])))

    def run_after_graph_execution(self, *, success: bool, results: Any, **more: Any) -> None:
        self.noted.append(f"after {success} {results}")


def with_graph_hooks(made: AdapterClass, *, first: bool) -> Any:
    bases = (lifecycle.GraphExecutionHook, made) if first else (made, lifecycle.GraphExecutionHook)
    adapter = type("Told", (Hook, *bases), {"noted": []})(2)
    return run(adapter), adapter.noted


def with_raw_graph_hooks(made: AdapterClass, *, first: bool) -> Any:
    """Hooks of Hamilton's inner interface, which call the next in line."""

    class Starts(lifecycle_base.BasePreGraphExecute):
        def pre_graph_execute(self, **more: Any) -> None:
            super().pre_graph_execute(**more)  # type: ignore[safe-super]
            self.noted.append("starts")  # type: ignore[attr-defined]

    class Ends(lifecycle_base.BasePostGraphExecute):
        def post_graph_execute(self, **more: Any) -> None:
            super().post_graph_execute(**more)  # type: ignore[safe-super]
            self.noted.append("ends")  # type: ignore[attr-defined]

    bases = (Starts, made, Ends) if first else (made, Ends, Starts)
    adapter = type("Told", bases, {"noted": []})(2)
    return run(adapter), adapter.noted


def with_node_hooks(made: AdapterClass, *, first: bool) -> Any:
    bases = (lifecycle.NodeExecutionHook, made) if first else (made, lifecycle.NodeExecutionHook)

    class Notes:
        def run_before_node_execution(self, *, node_name: str, **more: Any) -> None:
            self.noted.append(node_name)  # type: ignore[attr-defined]

        def run_after_node_execution(self, **more: Any) -> None: ...

    adapter = type("Told", (Notes, *bases), {"noted": []})(1)
    return run(adapter), adapter.noted


def with_a_node_method(made: AdapterClass, *, first: bool) -> Any:
    bases = (lifecycle.NodeExecutionMethod, made) if first else (made, lifecycle.NodeExecutionMethod)

    class Doubles:
        def run_to_execute_node(self, *, node_callable: Any, node_kwargs: dict[str, Any], **more: Any) -> Any:
            return 2 * node_callable(**node_kwargs)

    return run(type("Told", (Doubles, *bases), {})(1))


def with_a_validator(made: AdapterClass, *, first: bool, valid: bool) -> Any:
    bases = (lifecycle.StaticValidator, made) if first else (made, lifecycle.StaticValidator)

    class Checks:
        def run_to_validate_graph(self, graph: Any, **more: Any) -> tuple[bool, str | None]:
            return valid, None if valid else "too small"

    adapter = type("Told", (Checks, *bases), {})(1)
    try:
        return run(adapter)
    except lifecycle_base.ValidationException as error:
        return str(error)


def with_edges_checked(made: AdapterClass, *, first: bool) -> Any:
    bases = (lifecycle.EdgeConnectionHook, made) if first else (made, lifecycle.EdgeConnectionHook)

    class Checks:
        def check_edge_types_match(self, type_from: Any, type_to: Any, **more: Any) -> bool:
            return True

        def validate_input(self, node_type: Any, input_value: Any, **more: Any) -> bool:
            return True

    return run(type("Told", (Checks, *bases), {})(1))


def with_construction_hooks(made: AdapterClass, *, first: bool) -> Any:
    bases = (lifecycle.GraphConstructionHook, made) if first else (made, lifecycle.GraphConstructionHook)

    class Notes:
        def run_after_graph_construction(self, *, graph: Any, **more: Any) -> None:
            self.noted.append(len(graph.nodes))  # type: ignore[attr-defined]

    adapter = type("Told", (Notes, *bases), {"noted": []})(1)
    return run(adapter), adapter.noted


def own_initializer(made: AdapterClass, *, calls_ours: bool) -> Any:
    class Own(made):  # type: ignore[misc]
        def __init__(self, workers: int, /) -> None:
            if calls_ours:
                super().__init__(max_workers=workers, result_builder=Sorted())
            else:
                self.executor = ThreadPoolExecutor(workers, "own")
                self.result_builder = Sorted()

    return run(Own(2))


def own_submission(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        def do_remote_execute(self, *, execute_lifecycle_for_node: Any, node: Any, **kwargs: Any) -> Any:
            kwargs = {name: value.result() if isinstance(value, Future) else value for name, value in kwargs.items()}
            return self.executor.submit(execute_lifecycle_for_node, **kwargs)

    return run(Own(2))


def own_submission_around_ours(made: AdapterClass) -> Any:
    names = []

    class Own(made):  # type: ignore[misc]
        def do_remote_execute(self, **arguments: Any) -> Any:
            names.append(arguments["node"].name)
            return super().do_remote_execute(**arguments)

    return run(Own(2)), names


def runs_here(made: AdapterClass) -> Any:
    class Here(made):  # type: ignore[misc]
        def do_remote_execute(self, *, execute_lifecycle_for_node: Any, node: Any, **kwargs: Any) -> Any:
            return execute_lifecycle_for_node(**kwargs)

    return run(Here(2))


def own_result(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        def build_result(self, **outputs: Any) -> Any:
            return {name: value.result() for name, value in outputs.items()}

    return run(Own(2))


def own_types(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        def input_types(self) -> list[Any]:
            return [int]

        def output_type(self) -> Any:
            return float

    return Own(1).input_types(), Own(1).output_type()


def a_dataclass(made: AdapterClass) -> Any:
    @dataclass(eq=False)
    class Own(made):  # type: ignore[misc]
        workers: int = 2

        def __post_init__(self) -> None:
            super().__init__(self.workers)

    return run(Own())


def of_two_bases(made: AdapterClass) -> Any:
    class Named:
        def __init__(self, *arguments: Any, label: str = "", **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.label = label

    class Both(Named, made):  # type: ignore[misc]
        pass

    adapter = Both(2, "x", label="both")
    return adapter.label, run(adapter)


def initialized_twice(made: AdapterClass) -> Any:
    adapter = made(1)
    adapter.__init__(2, "twice")
    return submit(adapter, lambda: threading.current_thread().name).result(PATIENCE), run(adapter)


# An executor of its own


def thread_of(adapter: Any) -> str:
    """The start of the name of the thread that runs a node."""
    name: str = submit(adapter, lambda: threading.current_thread().name).result(PATIENCE)
    return name.rpartition("_")[0]


def executor_of_the_class(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        executor = ThreadPoolExecutor(2, "own")

        def __init__(self) -> None:
            self.result_builder = None

    adapter = Own()
    return thread_of(adapter), adapter.executor is Own.executor, run(adapter)


def executor_of_a_mixin(made: AdapterClass) -> Any:
    class Mixin:
        executor = ThreadPoolExecutor(2, "own")

    class Own(Mixin, made):  # type: ignore[misc]
        def __init__(self) -> None:
            self.result_builder = None

    return thread_of(adapter := Own()), run(adapter)


def executor_of_the_class_replaced_by_ours(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        executor: Any = None

    adapter = Own(2, "ours")
    return thread_of(adapter), adapter.executor._max_workers, run(adapter)


def executor_set_later(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        executor: Any = None

        def __init__(self) -> None:
            self.result_builder = None

    adapter = Own()
    adapter.executor = ThreadPoolExecutor(1, "first")
    first = thread_of(adapter)
    adapter.executor = ThreadPoolExecutor(1, "second")
    return first, thread_of(adapter), run(adapter)


def executor_property(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        result_builder = None

        def __init__(self) -> None:
            self._made: list[ThreadPoolExecutor] = []

        @property
        def executor(self) -> ThreadPoolExecutor:
            if not self._made:
                self._made.append(ThreadPoolExecutor(2, "own"))
            return self._made[0]

    return thread_of(adapter := Own()), run(adapter), len(adapter._made)


def executor_cached_property(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        def __init__(self) -> None:
            self.result_builder = None

        @cached_property
        def executor(self) -> ThreadPoolExecutor:
            return ThreadPoolExecutor(2, "own")

    return thread_of(adapter := Own()), run(adapter)


def executor_property_with_a_setter(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        @property
        def executor(self) -> Any:
            return self._kept

        @executor.setter
        def executor(self, executor: Any) -> None:
            self._kept = executor

    return thread_of(adapter := Own(2, "ours")), run(adapter)


# What it is made of


def function_around_the_node(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        def do_remote_execute(self, *, execute_lifecycle_for_node: Any, node: Any, **kwargs: Any) -> Any:
            def doubled(**arguments: Any) -> Any:
                return 2 * execute_lifecycle_for_node(**arguments)

            return super().do_remote_execute(execute_lifecycle_for_node=doubled, node=node, **kwargs)

    return run(Own(2))


def future_of_its_own(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        def do_remote_execute(self, **arguments: Any) -> Any:
            doubled = Future[Any]()
            future = super().do_remote_execute(**arguments)
            future.add_done_callback(lambda future: doubled.set_result(2 * future.result()))
            return doubled

    return run(Own(2))


def some_nodes_in_the_callers_thread(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        def do_remote_execute(self, *, execute_lifecycle_for_node: Any, node: Any, **kwargs: Any) -> Any:
            if node.name == "two":
                return execute_lifecycle_for_node(**{name: future.result() for name, future in kwargs.items()})
            return super().do_remote_execute(execute_lifecycle_for_node=execute_lifecycle_for_node, node=node, **kwargs)

    return run(Own(2))


def results_in_every_way(made: AdapterClass) -> Any:
    class Whole(made):  # type: ignore[misc]
        def do_build_result(self, *, outputs: Any) -> Any:
            return "whole", super().do_build_result(outputs=outputs)

    class Static(made):  # type: ignore[misc]
        @staticmethod
        def build_result(**outputs: Any) -> Any:
            return sorted(outputs)

    class OfTheClass(made):  # type: ignore[misc]
        @classmethod
        def build_result(cls, **outputs: Any) -> Any:
            return cls.__name__, sorted(outputs)

    assigned = made(2)
    assigned.build_result = lambda **outputs: len(outputs)
    patched = made(2)
    patched.do_build_result = lambda outputs: [*outputs]
    return [run(adapter) for adapter in (Whole(2), Static(2), OfTheClass(2), assigned, patched)]


def generic(made: AdapterClass) -> Any:
    class Own(made, Generic[Value]):  # type: ignore[misc]
        pass

    return run(Own[int](2))


def abstract(made: AdapterClass) -> Any:
    class Abstract(made, abc.ABC):  # type: ignore[misc]
        @abc.abstractmethod
        def label(self) -> str: ...

    class Own(Abstract):
        def label(self) -> str:
            return "own"

    with pytest.raises(TypeError, match="abstract"):
        Abstract(2)
    return (adapter := Own(2)).label(), run(adapter)


def only_one(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        _one: Any = None

        def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
            cls._one = cls._one or super().__new__(cls)
            return cls._one

    return Own(1) is (adapter := Own(2)), run(adapter)


def of_a_metaclass(made: AdapterClass) -> Any:
    class Meta(type(made)):  # type: ignore[misc]
        def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
            adapter = super().__call__(*arguments, **keywords)
            adapter.label = "made"
            return adapter

    class Own(made, metaclass=Meta):  # type: ignore[misc]
        pass

    return (adapter := Own(2)).label, run(adapter)


def with_class_keywords(made: AdapterClass) -> Any:
    class Labelled:
        label = ""

        def __init_subclass__(cls, label: str = "", **keywords: Any) -> None:
            super().__init_subclass__(**keywords)
            cls.label = label

    class First(Labelled, made, label="first"):  # type: ignore[misc]
        pass

    class Last(made, Labelled, label="last"):  # type: ignore[misc]
        pass

    return [(adapter.label, run(adapter)) for adapter in (First(2), Last(2))]


def with_slots_and_any_attribute(made: AdapterClass) -> Any:
    class Own(made):  # type: ignore[misc]
        __slots__ = ("label",)

        def __getattr__(self, name: str) -> str:
            if name.startswith("_"):
                raise AttributeError(name)
            return f"no {name}"

    adapter = Own(2)
    adapter.label = "own"
    return adapter.label, adapter.thing, run(adapter)


def class_patched(made: AdapterClass) -> Any:
    names = []
    before = made.do_remote_execute

    def noting(self: Any, **arguments: Any) -> Any:
        names.append(arguments["node"].name)
        return before(self, **arguments)

    with mock.patch.object(made, "do_remote_execute", noting):
        return run(made(2)), names


FIRST_AND_LAST = {"before": {"first": True}, "after": {"first": False}}
SUBCLASSES: dict[str, tuple[Callable[[AdapterClass], Any], Any]] = {
    **{
        f"{name} mixed in {place}": (partial(shape, **where), expected)
        for name, shape, expected in [
            ("graph hooks", with_graph_hooks, (RIGHT, ["before one total two", f"after True {RIGHT}"])),
            ("raw graph hooks", with_raw_graph_hooks, (RIGHT, ["starts", "ends"])),
            ("node hooks", with_node_hooks, (RIGHT, ["one", "two", "total"])),
            ("a node method", with_a_node_method, {"total": 16, "one": 2}),
            ("a validator", partial(with_a_validator, valid=True), RIGHT),
            (
                "a strict validator",
                partial(with_a_validator, valid=False),
                "Graph validation failed! 1 errors encountered:\ttoo small",
            ),
            ("edges checked", with_edges_checked, RIGHT),
            ("construction hooks", with_construction_hooks, (RIGHT, [3])),
        ]
        for place, where in FIRST_AND_LAST.items()
    },
    "an initializer that calls ours": (partial(own_initializer, calls_ours=True), ITEMS),
    "an initializer that does not": (partial(own_initializer, calls_ours=False), ITEMS),
    "a submission of its own": (own_submission, RIGHT),
    "a submission around ours": (own_submission_around_ours, (RIGHT, ["one", "two", "total"])),
    "nodes in the caller's thread": (runs_here, RIGHT),
    "a result of its own": (own_result, RIGHT),
    "types of its own": (own_types, ([int], float)),
    "a dataclass": (a_dataclass, RIGHT),
    "two bases": (of_two_bases, ("both", RIGHT)),
    "an executor of the class": (executor_of_the_class, ("own", True, RIGHT)),
    "an executor of a mixin": (executor_of_a_mixin, ("own", RIGHT)),
    "an executor of the class, replaced": (executor_of_the_class_replaced_by_ours, ("ours", 2, RIGHT)),
    "an executor of the class, set later": (executor_set_later, ("first", "second", RIGHT)),
    "an executor as a property": (executor_property, ("own", RIGHT, 1)),
    "an executor as a cached property": (executor_cached_property, ("own", RIGHT)),
    "an executor as a property with a setter": (executor_property_with_a_setter, ("ours", RIGHT)),
    "a function around each node": (function_around_the_node, {"total": 16, "one": 2}),
    "futures of its own": (future_of_its_own, {"total": 16, "one": 2}),
    "some nodes in the caller's thread": (some_nodes_in_the_callers_thread, RIGHT),
    "results in every way": (
        results_in_every_way,
        [("whole", RIGHT), ["one", "total"], ("OfTheClass", ["one", "total"]), 2, ["total", "one"]],
    ),
    "generic": (generic, RIGHT),
    "abstract": (abstract, ("own", RIGHT)),
    "only one": (only_one, (True, RIGHT)),
    "a metaclass": (of_a_metaclass, ("made", RIGHT)),
    "class keywords": (with_class_keywords, [("first", RIGHT), ("last", RIGHT)]),
    "slots and __getattr__": (with_slots_and_any_attribute, ("own", "no thing", RIGHT)),
    "the class patched": (class_patched, (RIGHT, ["one", "two", "total"])),
    "initialized twice": (initialized_twice, ("twice_0", RIGHT)),
}


@pytest.mark.parametrize(("shape", "expected"), SUBCLASSES.values(), ids=SUBCLASSES)
def test_subclasses(adapter_class: AdapterClass, shape: Callable[[AdapterClass], Any], expected: Any) -> None:
    """Whatever its shape, a subclass does the same."""
    assert shape(adapter_class) == expected


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    "mixin", [lifecycle.GraphExecutionHook, lifecycle.StaticValidator, lifecycle_base.BasePostGraphExecute]
)
def test_a_subclass_is_observed(stage: Stage, mixin: type[Any], *, first: bool) -> None:
    """Ours hears of a subclass's runs, whatever hooks that has of its own."""

    class Own:
        def run_before_graph_execution(self, **more: Any) -> None: ...

        def run_after_graph_execution(self, **more: Any) -> None: ...

        def post_graph_execute(self, **more: Any) -> None: ...

    bases = (mixin, traced_threadpool.FutureAdapter) if first else (traced_threadpool.FutureAdapter, mixin)
    if mixin is lifecycle_base.BasePostGraphExecute:
        bases = (Own, *bases)
    else:
        members = {name: value for name, value in vars(Own).items() if name.startswith("run_")}
        bases = (type("Members", (), members), *bases)
    adapter = type("Observed", bases, {})(2, record=True)
    run(adapter)
    adapter.close()
    [record] = adapter.recorded_runs
    assert sorted(node.name for node in record.nodes) == ["one", "total", "two"]


@pytest.mark.parametrize(
    "of",
    [
        lifecycle.ResultBuilder,
        base.ResultMixin,
        base.HamiltonGraphAdapter,
        lifecycle_base.BaseDoBuildResult,
        lifecycle_base.BaseDoRemoteExecute,
        lifecycle_base.BaseDoNodeExecute,
        lifecycle_base.BasePreGraphExecute,
        lifecycle_base.BasePostGraphExecute,
        lifecycle_base.BasePreNodeExecute,
    ],
)
def test_kinds(of: type[Any]) -> None:
    """`isinstance` says of ours what it says of Hamilton's, for what Hamilton asks it about."""
    ours, hamiltons = traced_threadpool.FutureAdapter(1), h_threadpool.FutureAdapter(1)
    assert isinstance(ours, of) == isinstance(hamiltons, of)


def test_a_function_around_each_node_is_observed(stage: Stage) -> None:
    """Its nodes are of the run, and `raw_execute` gives their values."""

    class Own(traced_threadpool.FutureAdapter):
        def do_remote_execute(self, *, execute_lifecycle_for_node: Any, node: Any, **kwargs: Any) -> Any:
            around = partial(lambda function, **arguments: function(**arguments), execute_lifecycle_for_node)
            return super().do_remote_execute(execute_lifecycle_for_node=around, node=node, **kwargs)

    adapter = stage.adapter(Own(2, record=True))
    assert driver_of(adapter, one, two, total).raw_execute(["total"]) == {"total": 3}
    adapter.close()
    [record] = adapter.recorded_runs
    assert sorted((node.name, len(node.upstream)) for node in record.nodes) == [("one", 0), ("total", 2), ("two", 1)]


def test_a_function_around_a_node_that_is_to_run_elsewhere(stage: Stage) -> None:
    """Cannot be sent there without it, which the error says."""
    pytest.importorskip("cloudpickle")

    class Own(traced_threadpool.FutureAdapter):
        def do_remote_execute(self, *, execute_lifecycle_for_node: Any, **more: Any) -> Any:
            return super().do_remote_execute(execute_lifecycle_for_node=lambda **given: 1, **more)

    backends = {"cpu": traced_threadpool.backends.Processes(1)}
    adapter = stage.adapter(Own(1, backends=backends, run_on="cpu"))
    with pytest.raises(TypeError, match=r"^node 'one' is to run on the backend 'cpu', which needs .* as it is$"):
        driver_of(adapter, one).execute(["one"])
