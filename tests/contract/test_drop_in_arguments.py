"""What Hamilton's `FutureAdapter` accepts, ours does: arguments, attributes, copies. On both."""

from __future__ import annotations

import copy
import pickle
import threading
import types
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hamilton import base
from hamilton.io.materialization import to

import traced_threadpool
from tests.contract.shared import ITEMS, RIGHT, AdapterClass, Sorted, one, outcome_of, run, total, two
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


ATTRIBUTES = {
    "result_builder assigned": (assigns_a_builder, ITEMS),
    "result_builder taken away": (takes_a_builder_away, RIGHT),
    "executor assigned": (assigns_an_executor, (["new_0", "new_1"], RIGHT)),
    "executor assigned after a run": (assigns_an_executor_after_a_run, ({"total": 3}, "new_0", RIGHT)),
    "executor assigned that runs at once": (assigns_an_executor_that_runs_at_once, (True, RIGHT)),
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
