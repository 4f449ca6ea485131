"""What nodes on processes cost, beside bare processes in the same minute."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from statistics import median
from typing import Any, Final

from prometheus_client import CollectorRegistry

from benchmarks.placements.survey import surveying
from benchmarks.placements.work import built, python, turns
from examples.stdlib_survey.node_families import parsers
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Processes

PROCESSES: Final = 2
NO_OPS: Final = 100
ARRAY_BYTES: Final = 100_000_000
CHAIN: Final = 4
NO_OP_LIMIT_US: Final = 350.0
CHAIN_LIMIT: Final = 1.5
COMPUTING_LIMIT: Final = 1.15
SURVEY_LIMIT: Final = 1.5


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    return function


def _adapter(**options: Any) -> FutureAdapter:
    return FutureAdapter(8, name="placements", registry=CollectorRegistry(), tracing=False, **options)


def _on(processes: int) -> FutureAdapter:
    return _adapter(backends={"cpu": Processes(processes)}, run_on="cpu")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def no_op(rounds: int) -> str:
    """A hundred nodes side by side that do nothing, on one process: what each takes."""

    def make(name: str) -> Callable[..., Any]:
        def nothing() -> int:
            return 0

        return _named(name, nothing)

    names = [f"nothing_{each}" for each in range(NO_OPS)]
    with _on(1) as adapter:
        dr = built(adapter, *[make(name) for name in names])
        dr.execute([*names])
        each_us = median([_seconds(lambda: dr.execute([*names])) for _ in range(rounds)]) / NO_OPS * 1e6
    return _verdict(f"no-op node: {each_us:.0f} µs, at most {NO_OP_LIMIT_US:.0f}", each_us <= NO_OP_LIMIT_US)


def _python_alone(amount: int) -> int:
    return python(amount)


def computing(rounds: int) -> str:
    """Eight nodes of 0.3 s of plain Python, beside as many calls on bare processes."""
    amount = turns(0.3)

    def make(name: str) -> Callable[..., Any]:
        def compute() -> int:
            return python(amount)

        return _named(name, compute)

    names = [f"compute_{each}" for each in range(8)]
    ours, bare = [], []
    context = multiprocessing.get_context("forkserver")
    with _on(PROCESSES) as adapter, ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        dr = built(adapter, *[make(name) for name in names])
        dr.execute([*names])
        list(pool.map(_python_alone, [amount] * 8))
        for _ in range(rounds):
            ours.append(_seconds(lambda: dr.execute([*names])))
            bare.append(_seconds(lambda: list(pool.map(_python_alone, [amount] * 8))))
    ratio = median(ours) / median(bare)
    said = f"8 nodes of 0.3 s: {median(ours):.2f} s, bare processes {median(bare):.2f} s: {ratio:.2f} x"
    return _verdict(f"{said}, at most {COMPUTING_LIMIT}", ratio <= COMPUTING_LIMIT)


def _one_more(name: str, size: int) -> None:
    """What a node of the chain does, in a bare process, on an array in shared memory."""
    import numpy

    memory = shared_memory.SharedMemory(name)
    there: Any = numpy.ndarray(size // 8, dtype="f8", buffer=memory.buf)
    there += 1
    del there
    memory.close()


def chain(rounds: int) -> str:
    """Four nodes in a row on 100 MB, beside a copy each way through shared memory and the same work, four times."""
    import numpy

    def source() -> Any:
        return numpy.ones(ARRAY_BYTES // 8)

    functions: list[Callable[..., Any]] = [_named("step_0", source)]
    for place in range(1, CHAIN + 1):
        scope: dict[str, Any] = {"Any": Any}
        exec(f"def step_{place}(step_{place - 1}: Any) -> Any:\n    return step_{place - 1} + 1\n", scope)
        functions.append(scope[f"step_{place}"])
    moved = {f"step_{place}": "cpu" for place in range(1, CHAIN + 1)}
    array = numpy.ones(ARRAY_BYTES // 8)

    def bare(pool: ProcessPoolExecutor) -> None:
        value = array
        for _ in range(CHAIN):
            memory = shared_memory.SharedMemory(create=True, size=value.nbytes)
            there: Any = numpy.ndarray(value.shape, dtype=value.dtype, buffer=memory.buf)
            there[:] = value
            pool.submit(_one_more, memory.name, value.nbytes).result()
            value = there.copy()
            del there
            memory.close()
            memory.unlink()

    ours, theirs = [], []
    context = multiprocessing.get_context("forkserver")
    with (
        _adapter(backends={"cpu": Processes(1)}, run_on=moved) as adapter,
        ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        dr = built(adapter, *functions)

        def run() -> None:
            dr.execute([f"step_{CHAIN}"], overrides={"step_0": array})

        run()
        bare(pool)
        for _ in range(rounds):
            ours.append(_seconds(run))
            theirs.append(_seconds(lambda: bare(pool)))
    ratio = median(ours) / median(theirs)
    said = f"chain of {CHAIN} on 100 MB: {median(ours):.2f} s, copies by hand {median(theirs):.2f} s: {ratio:.2f} x"
    return _verdict(f"{said}, at most {CHAIN_LIMIT}", ratio <= CHAIN_LIMIT)


def survey(rounds: int, limit: int) -> str:
    """On threads and with its parsing on processes, in turns."""
    seconds: dict[str, list[float]] = {"threads": [], "processes": []}
    with (
        surveying(limit) as once,
        _adapter() as threads,
        _adapter(backends={"parsers": Processes(PROCESSES)}, run_on=parsers) as processes,
    ):
        for adapter in (threads, processes):
            once(adapter)
        for _ in range(rounds):
            seconds["threads"].append(once(threads))
            seconds["processes"].append(once(processes))
    ratio = median(seconds["threads"]) / median(seconds["processes"])
    return _verdict(f"survey: {ratio:.2f} x faster than on threads, at least {SURVEY_LIMIT}", ratio >= SURVEY_LIMIT)


def _verdict(said: str, met: bool) -> str:
    return f"{'met' if met else 'missed'}: {said}"
