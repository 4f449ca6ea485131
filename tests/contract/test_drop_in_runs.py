"""Each way to run something gives what it gives with Hamilton's adapter, in its order on one worker. On both."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hamilton import ad_hoc_utils, async_driver, base, driver
from hamilton.execution.executors import SynchronousLocalTaskExecutor
from hamilton.htypes import Collect, Parallelizable
from hamilton.lifecycle import base as lifecycle_base
from hamilton.plugins import h_threadpool

import traced_threadpool
from tests.contract.shared import RIGHT, AdapterClass, module, one
from tests.dags import PATIENCE, Held, Stage, driver_of, eventually, submit, wait_for


def builder_of(*adapters: Any) -> Any:
    return driver.Builder().with_modules(module()).with_adapters(*adapters)


def async_result(adapter: Any) -> Any:
    async def main() -> Any:
        made = await async_driver.Builder().with_modules(module()).with_adapters(adapter).build()
        return await made.execute(["total", "one"])

    return asyncio.run(main())


def async_driver_result(adapter: Any) -> Any:
    async def main() -> Any:
        made = async_driver.AsyncDriver({}, module(), result_builder=base.DictResult(), adapters=[adapter])
        return await (await made.ainit()).execute(["total", "one"])

    return asyncio.run(main())


def async_builder_result(adapter: Any) -> Any:
    async def main() -> Any:
        made = async_driver.AsyncDriver({}, module(), result_builder=adapter)
        return await made.execute(["total", "one"])

    return asyncio.run(main())


def validated(adapter: Any) -> Any:
    made = builder_of(adapter).build()
    made.validate_execution(["total"])
    try:
        made.validate_execution(["totl"])
    except ValueError as error:
        return str(error)
    return None


def drawn(adapter: Any) -> Any:
    made = builder_of(adapter).build()
    everything = made.display_all_functions()
    some = made.visualize_execution(["total"])
    if everything is None:  # there is no graphviz here
        return everything is some
    return "total" in everything.source and "total" in some.source


def twice_in_a_set(adapter: Any) -> Any:
    return builder_of(adapter, adapter).build().execute(["total", "one"])


def in_a_ready_set(adapter: Any) -> Any:
    adapters = lifecycle_base.LifecycleAdapterSet(adapter)
    pair = [driver.Driver({}, module(), adapter=adapters) for _ in range(2)]
    first, second = [each.execute(["total", "one"]) for each in pair]
    assert first == second
    return first


def two_in_one_driver(adapter: Any) -> Any:
    other = type(adapter)(1)
    try:
        builder_of(adapter, other).build()
    except ValueError as error:
        return str(error)
    finally:
        other.executor.shutdown()
    return None


def from_a_copied_builder(adapter: Any) -> Any:
    builder = builder_of(adapter)
    copied = builder.copy()
    assert copied.build().execute(["total", "one"]) == RIGHT
    return builder.build().execute(["total", "one"])


def dynamic(adapter: Any) -> Any:
    builder = builder_of(adapter).enable_dynamic_execution(allow_experimental_mode=True)
    return builder.with_remote_executor(SynchronousLocalTaskExecutor()).build().execute(["total", "one"])


WAYS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "Builder.with_adapters": (lambda adapter: builder_of(adapter).build().execute(["total", "one"]), RIGHT),
    "Builder.with_adapter": (
        lambda adapter: driver.Builder().with_modules(module()).with_adapter(adapter).build().execute(["total", "one"]),
        RIGHT,
    ),
    "Driver(adapter=)": (
        lambda adapter: driver.Driver({}, module(), adapter=adapter).execute(["total", "one"]),
        RIGHT,
    ),
    "Driver(adapter=[])": (
        lambda adapter: driver.Driver({}, module(), adapter=[adapter]).execute(["total", "one"]),
        RIGHT,
    ),
    "LifecycleAdapterSet, two drivers": (in_a_ready_set, RIGHT),
    "given twice": (twice_in_a_set, RIGHT),
    "two adapters": (
        two_in_one_driver,
        "Multiple adapters cannot (currently) implement the same lifecycle method. "
        "Sync methods: ['do_remote_execute', 'do_build_result']. Async methods: []",
    ),
    "Builder.copy": (from_a_copied_builder, RIGHT),
    "dynamic execution without branches": (dynamic, RIGHT),
    "validate_execution": (
        validated,
        "Unknown nodes [totl] requested. Check for typos?",
    ),
    "pictures": (drawn, True),
    "the async driver": (async_result, RIGHT),
    "AsyncDriver(adapters=)": (async_driver_result, RIGHT),
    "AsyncDriver(result_builder=)": (async_builder_result, RIGHT),
}


@pytest.mark.parametrize(("way", "expected"), WAYS.values(), ids=WAYS)
def test_ways_to_run(adapter_class: AdapterClass, way: Callable[[Any], Any], expected: Any) -> None:
    """Each gives what it gives with Hamilton's adapter, also where that is an error."""
    adapter = adapter_class(2)
    try:
        found = way(adapter)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    finally:
        adapter.executor.shutdown()
    assert found == expected


def test_the_async_driver_leaves_it_aside(adapter_class: AdapterClass) -> None:
    """As it does with every adapter that has no hooks: nodes run in the event loop's thread."""

    def thread() -> int:
        return threading.get_ident()

    async def main() -> Any:
        made = await (
            async_driver.Builder()
            .with_modules(ad_hoc_utils.create_temporary_module(thread))
            .with_adapters(adapter_class(2))
            .build()
        )
        return (await made.execute(["thread"]))["thread"]

    assert asyncio.run(main()) == threading.get_ident()


# One worker


def dag_of(log: list[str], **needs: str) -> Any:
    """A module of nodes that note that they run, from what each needs."""
    space: dict[str, Any] = {"log": log, "Parallelizable": Parallelizable, "Collect": Collect}
    for name, inputs in needs.items():
        parameters = ", ".join(f"{each}: int" for each in inputs.split())
        exec(f"def {name}({parameters}) -> int:\n    log.append({name!r})\n    return 1", space)
    return ad_hoc_utils.create_temporary_module(*(space[name] for name in needs))


ORDERS: dict[str, tuple[dict[str, str], list[str]]] = {
    "a long branch and a short": ({"r": "", "p": "r", "q1": "r", "q2": "q1", "z": "p q2", "w": "r"}, ["w", "z"]),
    "a chain before a node on its own": ({"a": "", "b": "a", "c": "b", "d": ""}, ["c", "d"]),
    "a node on its own before a chain": ({"a": "", "b": "a", "c": "b", "d": ""}, ["d", "c"]),
    "a diamond": ({"a": "", "b": "a", "c": "a", "d": "b c"}, ["d"]),
    "a wide level": ({"a": "", **{f"b{i}": "a" for i in range(9)}, "c": "b8 b3"}, ["c", *(f"b{i}" for i in range(9))]),
}


@pytest.mark.parametrize("keywords", [{}, {"priority": "fifo"}, {"fail_fast": True}], ids=str)
@pytest.mark.parametrize(("needs", "outputs"), ORDERS.values(), ids=ORDERS)
def test_one_worker_starts_nodes_in_hamiltons_order(
    adapter_class: AdapterClass, needs: dict[str, str], outputs: list[str], keywords: dict[str, Any]
) -> None:
    """That of a driver without any adapter, the first time and when durations have been learned."""
    if keywords and adapter_class is h_threadpool.FutureAdapter:
        keywords = {}
    log: list[str] = []
    dag = dag_of(log, **needs)
    driver.Builder().with_modules(dag).build().execute(outputs)
    plain = list(log)
    adapter = adapter_class(1, **keywords)
    made = driver.Builder().with_modules(dag).with_adapters(adapter).build()
    for _ in range(3):
        log.clear()
        made.execute(outputs)
        assert log == plain
    adapter.executor.shutdown()


def test_one_worker_takes_what_was_submitted_first(adapter_class: AdapterClass, stage: Stage) -> None:
    """Outside of runs too: a node that waited for its input goes before one that was submitted later."""
    adapter, held, log = stage.adapter(adapter_class(1)), Held(stage), list[str]()
    first = submit(adapter, held)
    wait_for(held.started)
    second = submit(adapter, lambda x: log.append("second"), x=first)
    third = submit(adapter, lambda: log.append("third"))
    held.release.set()
    for future in (second, third):
        future.result(PATIENCE)
    assert log == ["second", "third"]


def test_one_worker_goes_through_branches_one_by_one() -> None:
    """As without an adapter; Hamilton's has no branches."""
    log: list[str] = []

    def part() -> Parallelizable[int]:
        log.append("part")
        yield from range(3)

    def left(part: int) -> int:
        log.append(f"left {part}")
        return part

    def right(left: int) -> int:
        log.append(f"right {left}")
        return left

    def whole(right: Collect[int]) -> int:
        log.append("whole")
        return sum(right)

    def orders(*adapters: Any) -> list[str]:
        log.clear()
        made = (
            driver.Builder()
            .with_modules(ad_hoc_utils.create_temporary_module(part, left, right, whole))
            .with_adapters(*adapters)
            .enable_dynamic_execution(allow_experimental_mode=True)
            .with_remote_executor(SynchronousLocalTaskExecutor())
            .build()
        )
        made.execute(["whole"])
        return list(log)

    plain = orders()
    with traced_threadpool.FutureAdapter(1) as adapter:
        assert orders(adapter) == plain == orders(adapter)


def test_eventually_nothing_is_left(adapter_class: AdapterClass) -> None:
    """A driver that is dropped with its adapter leaves neither."""
    adapter = adapter_class(1)
    seen = weakref.ref(adapter)
    made = driver_of(adapter, one)
    made.execute(["one"])
    adapter.executor.shutdown()
    del adapter, made
    assert eventually(lambda: gc.collect() >= 0 and seen() is None)
