"""What several threads do to one adapter, or to what all adapters share, at the very same moment.

With a GIL these pass easily. They are for interpreters without one, where each failed before its fix.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial

from hamilton import ad_hoc_utils, driver
from prometheus_client import CollectorRegistry, generate_latest

from tests.dags import PATIENCE
from traced_threadpool import FutureAdapter
from traced_threadpool.telemetry.background import flush_all

THREADS = 8


def together(*functions: Callable[[], None]) -> None:
    """Calls each on a thread of its own, all at once; raises what the first of them that failed raised."""
    gate = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def call(function: Callable[[], None]) -> None:
        try:
            gate.wait(PATIENCE)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    for error in errors:
        raise error


def start(number: int) -> int:
    return number


def end(start: int) -> int:
    return start * 2


def driver_of(adapter: FutureAdapter) -> driver.Driver:
    module = ad_hoc_utils.create_temporary_module(start, end)
    return driver.Builder().with_modules(module).with_adapters(adapter).build()


def test_runs_that_start_and_end_at_once() -> None:
    """Each caller gets its own result, and what the adapter knows of runs stays whole."""
    with FutureAdapter(4, tracing=False, metrics=False) as adapter:
        built = driver_of(adapter)

        def run() -> None:
            for number in range(150):
                assert built.execute(["end"], inputs={"number": number}) == {"end": number * 2}

        together(*[run] * THREADS)


def test_everybody_hears_of_each_end_once() -> None:
    """A callback that is added, a wait that begins and a look at the state just as the node ends."""
    rounds, heard = 300, Counter[int]()
    hearing = threading.Lock()
    with FutureAdapter(4, tracing=False, metrics=False) as adapter:

        def hear(future: Future[int]) -> None:
            with hearing:
                heard[future.result()] += 1

        def submit(first: int) -> None:
            for number in range(first, first + rounds):
                future = adapter.do_remote_execute(execute_lifecycle_for_node=partial(int, number), node=None)
                future.add_done_callback(hear)
                assert wait([future], PATIENCE).done == {future}
                assert future.done()
                assert future.result() == number

        together(*(partial(submit, rounds * thread) for thread in range(THREADS)))
    assert heard == Counter(range(rounds * THREADS))


def test_nothing_is_counted_twice_or_lost() -> None:
    """All that has run is in the metrics and in what the adapter keeps, whoever ran it."""
    registry, runs = CollectorRegistry(), 40
    with FutureAdapter(4, registry=registry, record=runs * THREADS) as adapter:
        built = driver_of(adapter)

        def run() -> None:
            for number in range(runs):
                built.execute(["end"], inputs={"number": number})

        together(*[run] * THREADS)
        recorded = adapter.recorded_runs
        assert adapter.telemetry_errors == {}
    assert Counter(len(run.nodes) for run in recorded) == {2: runs * THREADS}

    def count(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"pool": "default", **labels})

    for node in ("start", "end"):
        assert count("hamilton_nodes_total", node=node, outcome="success") == runs * THREADS
    assert count("hamilton_run_duration_seconds_count", run="hamilton.run", outcome="success") == runs * THREADS


def test_adapters_come_and_go_while_others_look() -> None:
    """Neither a scrape nor a flush stumbles over an adapter that is made, closed or let go at that moment."""
    registry, makers = CollectorRegistry(), 4
    gone = threading.Barrier(makers, action=(over := threading.Event()).set)

    def make() -> None:
        try:
            for _ in range(15):
                adapter = FutureAdapter(1, registry=registry)
                adapter.do_remote_execute(execute_lifecycle_for_node=int, node=None).result(PATIENCE)
                adapter.close()
        except BaseException:
            over.set()
            raise
        gone.wait(PATIENCE)

    def watch(look: Callable[[], object]) -> None:
        while not over.is_set():
            look()

    looks = (partial(generate_latest, registry), partial(flush_all, PATIENCE))
    together(*[make] * makers, *(partial(watch, look) for look in looks))
