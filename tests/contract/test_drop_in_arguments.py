"""What Hamilton's `FutureAdapter` accepts, ours does: arguments, attributes, copies. On both."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import threading
import types
import typing
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hamilton import base
from hamilton.io.materialization import to

import traced_threadpool
from tests.contract.shared import (
    ITEMS,
    RIGHT,
    AdapterClass,
    Sorted,
    error_of,
    identity,
    one,
    outcome_of,
    run,
    total,
    two,
)
from tests.dags import PATIENCE, Held, Stage, driver_of, submit, wait_for

# Arguments


class Static(base.ResultMixin):
    """As Hamilton's older builders are."""

    @staticmethod
    def build_result(**outputs: Any) -> list[str]:
        return list(outputs)

    @classmethod
    def output_type(cls) -> type:
        return list


class Empty(Sorted):
    """A builder that counts as false, and so as none."""

    def __len__(self) -> int:
        return 0


class AsDict(base.DictResult):
    """Says that it builds a dict, in a way that Hamilton finds a saver for."""

    def output_type(self) -> type:
        return dict


class LikeEverything:
    """Stands for another object, as proxies and mocks do."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


@dataclass(frozen=True)
class Form:
    """A form of the constructor's arguments: what the DAG gives with it, and the adapter's `output_type()`."""

    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    result: Any = None
    output_type: Any = Any


def module_that_builds() -> types.ModuleType:
    made = types.ModuleType("module_that_builds")
    made.build_result = Sorted().build_result  # type: ignore[attr-defined]
    return made


DICT = base.DictResult().output_type()
FORMS = {
    "nothing": Form(),
    "a count": Form((3,)),
    "a whole float": Form((3.0,)),
    "a numpy integer": Form((np.int64(3),)),
    "a numpy float": Form((np.float32(3),)),
    "None for the count": Form((None, "x")),
    "None for the prefix": Form((2, None)),
    "None for the builder": Form((2, "", None)),
    "a builder": Form((2, "", base.DictResult()), result=RIGHT, output_type=DICT),
    "a builder's class": Form((2, "", base.DictResult), result=RIGHT, output_type=None),
    "a class with static methods": Form((2, "", Static), result=["total", "one"], output_type=list),
    "any object with build_result": Form((2, "", Sorted()), result=ITEMS, output_type=None),
    "a namespace": Form(
        (2, "", types.SimpleNamespace(build_result=lambda **outputs: sorted(outputs.items()))),
        result=ITEMS,
        output_type=None,
    ),
    "a module": Form((2, "", module_that_builds()), result=ITEMS, output_type=None),
    "a proxy of a builder": Form((2, "", LikeEverything(base.DictResult())), result=RIGHT, output_type=DICT),
    "a builder that counts as false": Form((2, "", Empty()), result=RIGHT),
    "False for the builder": Form((2, "", False), result=RIGHT),
    "keywords": Form(
        keywords=(("result_builder", Sorted()), ("max_workers", 2), ("thread_name_prefix", "x")),
        result=ITEMS,
        output_type=None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_arguments(adapter_class: AdapterClass, form: Form) -> None:
    """The result is the builder's; where a builder tells no type, Hamilton's adapter fails and ours says any."""
    adapter = adapter_class(*form.arguments, **dict(form.keywords))
    assert run(adapter) == (RIGHT if form.result is None else form.result)
    if form.output_type is not None:
        assert adapter.output_type() == form.output_type
    elif adapter_class is traced_threadpool.FutureAdapter:
        assert adapter.output_type() is Any


def test_a_whole_float_is_that_many_workers(adapter_class: AdapterClass) -> None:
    """Three nodes meet at a barrier, on 3.0 workers."""
    adapter, barrier = adapter_class(3.0), threading.Barrier(3)
    futures = [submit(adapter, lambda: barrier.wait(PATIENCE)) for _ in range(3)]
    assert sorted(future.result(PATIENCE) for future in futures) == [0, 1, 2]
    assert adapter.executor._max_workers == 3
    adapter.executor.shutdown()


def test_a_builder_as_the_combiner_of_a_saver(adapter_class: AdapterClass, tmp_path: Any) -> None:
    """The adapter is a result builder, and can be used as one without running anything."""
    adapter = adapter_class(2)
    saver = to.json(
        id="saved", dependencies=["one", "two"], combine=adapter_class(1, "", AsDict()), path=str(tmp_path / "x.json")
    )
    driver_of(adapter, one, two).materialize(saver)
    adapter.executor.shutdown()
    assert (tmp_path / "x.json").read_text() == '{"one": 1, "two": 2}'


# Attributes


def assigns_a_builder(made: AdapterClass) -> Any:
    adapter = made(2)
    adapter.result_builder = Sorted()
    return run(adapter)


def takes_a_builder_away(made: AdapterClass) -> Any:
    adapter = made(2, "", Sorted())
    adapter.result_builder = None
    return run(adapter)


def assigns_an_executor(made: AdapterClass) -> Any:
    adapter = made(1, "old")
    adapter.executor = ThreadPoolExecutor(2, "new")
    barrier = threading.Barrier(2)

    def name() -> str:
        barrier.wait(PATIENCE)
        return threading.current_thread().name

    futures = [submit(adapter, name) for _ in range(2)]
    return sorted(future.result(PATIENCE) for future in futures), run(adapter)


def assigns_an_executor_after_a_run(made: AdapterClass) -> Any:
    adapter = made(2, "old")
    first = driver_of(adapter, one, two, total).execute(["total"])
    old, adapter.executor = adapter.executor, ThreadPoolExecutor(1, "new")
    old.shutdown()
    return first, submit(adapter, lambda: threading.current_thread().name).result(PATIENCE), run(adapter)


def assigns_an_executor_while_nodes_are_stuck(made: AdapterClass) -> Any:
    """All of the new one's workers are there for new nodes, and those that were stuck go on."""
    adapter, stage = made(2, "old"), Stage()
    old, barrier = adapter.executor, threading.Barrier(2)
    stuck = [Held(stage), Held(stage)]
    futures = [submit(adapter, each) for each in stuck]
    for each in stuck:
        wait_for(each.started)
    adapter.executor = ThreadPoolExecutor(2, "new")
    adapter.executor, other = ThreadPoolExecutor(2, "newer"), adapter.executor

    def name() -> str:
        barrier.wait(PATIENCE)
        return threading.current_thread().name

    names = sorted(future.result(PATIENCE) for future in [submit(adapter, name) for _ in range(2)])
    values = driver_of(adapter, one, two, total).execute(["total"])
    stage.end()
    held = [future.result(PATIENCE) for future in futures]
    for executor in (old, other):
        executor.shutdown()
    return names, values, held, run(adapter)


def calls_back_and_waits_for_another_node(made: AdapterClass) -> Any:
    """A done-callback runs on the worker, and holds up no other one's node."""
    adapter, stage = made(2), Stage()
    held, found = Held(stage), Future[Any]()
    first = submit(adapter, held)
    second = submit(adapter, lambda x: x, x=first)
    first.add_done_callback(lambda _: found.set_result(second.result(PATIENCE)))
    wait_for(held.started)
    held.release.set()
    return found.result(PATIENCE), run(adapter)


def calls_back_of_a_node_that_never_ran(made: AdapterClass) -> Any:
    """The same where the callback waits for what the worker would run next."""
    adapter, stage = made(2), Stage()
    failing, busy, found = Held(stage), Held(stage), Future[Any]()
    first, second = submit(adapter, lambda: failing() + 1), submit(adapter, busy)  # type: ignore[operator]
    queued = submit(adapter, one)
    below = submit(adapter, identity, x=first)

    def waits(_: Future[Any]) -> None:
        busy.release.set()
        found.set_result(queued.result(PATIENCE))

    below.add_done_callback(waits)
    wait_for(failing.started)
    wait_for(busy.started)
    failing.release.set()
    return found.result(PATIENCE), type(error_of(below)).__name__, second.result(PATIENCE), run(adapter)


def assigns_an_executor_that_runs_at_once(made: AdapterClass) -> Any:
    class Inline(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = Future[Any]()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            return future

    adapter = made(2)
    adapter.executor = Inline(1)
    return submit(adapter, threading.current_thread).result(0) is threading.current_thread(), run(adapter)


def shuts_an_assigned_executor_down(made: AdapterClass) -> Any:
    adapter = made(2)
    adapter.executor = ThreadPoolExecutor(1)
    adapter.executor.shutdown()
    try:
        submit(adapter, one)
    except RuntimeError as error:
        return str(error)
    return "accepted"


def cancels_on_an_assigned_executor(made: AdapterClass) -> Any:
    adapter, stage = made(2), Stage()
    held = Held(stage)
    adapter.executor = executor = ThreadPoolExecutor(1)
    executor.submit(held)
    wait_for(held.started)
    queued = submit(adapter, one)
    below = submit(adapter, lambda x: x, x=queued)
    executor.shutdown(wait=False, cancel_futures=True)
    held.release.set()
    return [outcome_of(future) for future in (queued, below)]


def keeps_attributes(made: AdapterClass) -> Any:
    adapter = made(2)
    adapter.mine, adapter._private = "mine", "private"
    result = run(adapter)
    return adapter.mine, adapter._private, result


def is_hashed_compared_and_referenced(made: AdapterClass) -> Any:
    adapter, other = made(1), made(1)
    return adapter == adapter, adapter != other, len({adapter, other, adapter}), weakref.ref(adapter)() is adapter


def is_copied(made: AdapterClass) -> Any:
    adapter = made(2, "x", Sorted())
    adapter.mine = []
    copied = copy.copy(adapter)
    assert type(copied) is made
    same = [getattr(copied, name) is getattr(adapter, name) for name in ("executor", "result_builder", "mine")]
    del adapter
    return same, run(copied)


def is_copied_and_goes_its_own_way(made: AdapterClass) -> Any:
    adapter = made(2)
    copied = copy.copy(adapter)
    copied.result_builder = Sorted()
    return driver_of(copied, one, two, total).execute(["total", "one"]), run(adapter)


def refuses(take: Callable[[Any], Any], made: AdapterClass) -> Any:
    try:
        take(made(1))
    except TypeError:
        return "TypeError"
    return "done"


def is_pickled_by_a_subclass_that_can(made: AdapterClass) -> Any:
    class Picklable(made):  # type: ignore[misc]
        def __init__(self, workers: int) -> None:
            super().__init__(workers)
            self.workers = workers

        def __getstate__(self) -> dict[str, Any]:
            return {"workers": self.workers}

        def __setstate__(self, state: dict[str, Any]) -> None:
            self.__init__(state["workers"])  # type: ignore[misc]

    original = Picklable(3)
    found = copy.deepcopy(original)
    again = copy.copy(original)
    assert len({original.executor, found.executor, again.executor}) == 3
    return found.workers, run(found), run(again)


def has_its_executor_patched(made: AdapterClass) -> Any:
    adapter = made(1, "own")

    def name() -> Any:
        return submit(adapter, lambda: threading.current_thread().name).result(PATIENCE)

    with mock.patch.object(adapter, "executor", ThreadPoolExecutor(1, "patched")):
        names = [name()]
    return [*names, name()], run(adapter)


def gets_its_executor_back(made: AdapterClass) -> Any:
    adapter = made(1, "own")
    own, adapter.executor = adapter.executor, ThreadPoolExecutor(1)
    submit(adapter, one).result(PATIENCE)
    adapter.executor = own
    name = submit(adapter, lambda: threading.current_thread().name).result(PATIENCE)
    return name, adapter.executor is own, run(adapter)


def is_looked_over(made: AdapterClass) -> Any:
    adapter = made(1)
    members = {name for name, _ in inspect.getmembers(adapter)}
    for stand_in in (mock.create_autospec(made), mock.Mock(spec=made), mock.Mock(spec=adapter)):
        stand_in.do_remote_execute.return_value = 5
        assert stand_in.do_remote_execute(execute_lifecycle_for_node=one, node=None) == 5
        assert not hasattr(stand_in, "submit")
    return members >= {"executor", "result_builder", "build_result", "do_build_result", "do_remote_execute"}


def tells_its_types(made: AdapterClass) -> Any:
    hints = typing.get_type_hints(made.__init__)
    return {"max_workers", "thread_name_prefix", "result_builder"} <= hints.keys(), [
        name for name in ("do_remote_execute", "build_result") if not typing.get_type_hints(getattr(made, name))
    ]


def takes_any_object_for_a_node(made: AdapterClass) -> Any:
    adapter = made(1)
    futures = [
        adapter.do_remote_execute(execute_lifecycle_for_node=one, node=node)
        for node in ("name", object(), types.SimpleNamespace(name="x"), partial(one))
    ]
    return [future.result(PATIENCE) for future in futures], run(adapter)


def uses_names_of_ours(made: AdapterClass) -> Any:
    arguments = dict.fromkeys(["name", "function", "work", "pool", "run", "queue", "context", "args", "kwargs"], 1)
    future = made(1).do_remote_execute(execute_lifecycle_for_node=lambda **given: given, node=None, **arguments)
    return future.result(PATIENCE) == arguments


def lends_its_executor_to_asyncio(made: AdapterClass) -> Any:
    adapter = made(1, "lent")

    async def main() -> Any:
        asyncio.get_running_loop().set_default_executor(adapter.executor)
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    return asyncio.run(main())


def gives_futures_with_attributes(made: AdapterClass) -> Any:
    future = submit(made(1), one)
    future.tag = "mine"  # type: ignore[attr-defined]
    return future.tag, weakref.ref(future)() is future, {future: 1}[future]  # type: ignore[attr-defined]


ATTRIBUTES = {
    "result_builder assigned": (assigns_a_builder, ITEMS),
    "result_builder taken away": (takes_a_builder_away, RIGHT),
    "executor assigned": (assigns_an_executor, (["new_0", "new_1"], RIGHT)),
    "executor assigned after a run": (assigns_an_executor_after_a_run, ({"total": 3}, "new_0", RIGHT)),
    "executor assigned while nodes are stuck": (
        assigns_an_executor_while_nodes_are_stuck,
        (["newer_0", "newer_1"], {"total": 3}, ["held", "held"], RIGHT),
    ),
    "done-callback that waits": (calls_back_and_waits_for_another_node, ("held", RIGHT)),
    "done-callback of a node that never ran": (calls_back_of_a_node_that_never_ran, (1, "TypeError", "held", RIGHT)),
    "executor assigned that runs at once": (assigns_an_executor_that_runs_at_once, (True, RIGHT)),
    "executor patched": (has_its_executor_patched, (["patched_0", "own_0"], RIGHT)),
    "executor put back": (gets_its_executor_back, ("own_0", True, RIGHT)),
    "executor lent to asyncio": (lends_its_executor_to_asyncio, "lent_0"),
    "getmembers and mocks": (is_looked_over, True),
    "type hints": (tells_its_types, (True, [])),
    "any object for a node": (takes_any_object_for_a_node, ([1, 1, 1, 1], RIGHT)),
    "parameters of any name": (uses_names_of_ours, True),
    "attributes of a future": (gives_futures_with_attributes, ("mine", True, 1)),
    "assigned executor shut down": (shuts_an_assigned_executor_down, "cannot schedule new futures after shutdown"),
    "assigned executor cancels": (cancels_on_an_assigned_executor, ["cancelled"] * 2),
    "attributes of one's own": (keeps_attributes, ("mine", "private", RIGHT)),
    "hash, equality, weak reference": (is_hashed_compared_and_referenced, (True, True, 2, True)),
    "copy": (is_copied, ([True, True, True], ITEMS)),
    "a copy's own attributes": (is_copied_and_goes_its_own_way, (ITEMS, RIGHT)),
    "deepcopy": (partial(refuses, copy.deepcopy), "TypeError"),
    "pickle": (partial(refuses, pickle.dumps), "TypeError"),
    "pickle, by a subclass that can": (is_pickled_by_a_subclass_that_can, (3, RIGHT, RIGHT)),
}


@pytest.mark.parametrize(("use", "expected"), ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_attributes(adapter_class: AdapterClass, use: Callable[[AdapterClass], Any], expected: Any) -> None:
    """What is done with one and then seen of it is the same."""
    assert use(adapter_class) == expected


def test_an_executor_of_another_process() -> None:
    """Cannot run what is in this one; ours says so as it is assigned."""
    adapter = traced_threadpool.FutureAdapter(1)
    with ProcessPoolExecutor(1) as processes:
        for executor in (processes, None, 3):
            with pytest.raises(TypeError, match=r"^executor must run .* in threads of this process, .*, not "):
                adapter.executor = executor  # type: ignore[assignment]
    adapter.close()


def test_an_assigned_executor_is_the_programs_own(stage: Stage) -> None:
    """Our `close` waits for the nodes and leaves it up; the telemetry tells its workers."""
    adapter = traced_threadpool.FutureAdapter(1, record=True)
    with ThreadPoolExecutor(3) as executor:
        adapter.executor = executor
        driver_of(adapter, one, two).execute(["two"])
        adapter.close()
        assert executor.submit(one).result(PATIENCE) == 1
    assert (adapter.snapshot().max_workers, adapter.recorded_runs[-1].max_workers) == (3, 3)


def test_a_nested_run_on_an_executor_that_was_replaced(stage: Stage) -> None:
    """Its nodes run on the worker that waits for them, whatever keeps the new ones busy."""
    adapter = stage.adapter(traced_threadpool.FutureAdapter(1))
    outer, busy = Held(stage), Held(stage)
    executing = submit(adapter, lambda: (outer(), driver_of(adapter, one, two, total).execute(["total"])))
    wait_for(outer.started)
    with ThreadPoolExecutor(1) as adapter.executor:
        submit(adapter, busy)
        wait_for(busy.started)
        outer.release.set()
        assert executing.result(PATIENCE) == ("held", {"total": 3})
        busy.release.set()


def test_its_own_executor_put_back_is_its_own(stage: Stage) -> None:
    """`close` waits for what is pending and ends its threads, and nothing is taken after it."""
    adapter, held = stage.adapter(traced_threadpool.FutureAdapter(1, "own")), Held(stage)
    own, adapter.executor = adapter.executor, ThreadPoolExecutor(1)
    adapter.executor = own
    below = submit(adapter, lambda x: x, x=submit(adapter, held))
    held.release.set()
    adapter.close()
    assert below.result(0) == "held"
    with pytest.raises(RuntimeError, match="closed"):
        submit(adapter, one)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("own_")]


def test_the_executor_of_another_adapter(stage: Stage) -> None:
    """Is the other's: that works on when this one is closed, or gets another executor."""
    lender, borrower, third = (stage.adapter(traced_threadpool.FutureAdapter(1, name)) for name in ("a", "b", "c"))
    borrower.executor = third.executor = lender.executor
    name = submit(borrower, lambda: threading.current_thread().name).result(PATIENCE)
    borrower.close()
    third.executor = ThreadPoolExecutor(1)
    assert (name, submit(lender, one).result(PATIENCE)) == ("a_0", 1)
    lender.executor.shutdown()
    with pytest.raises(RuntimeError, match="closed"):
        submit(lender, one)
