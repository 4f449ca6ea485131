"""What `run_on="auto"` decides: the survey's gain beside that of a choice by hand, DAGs of I/O, other programs' load.

The survey under `auto` starts from nothing in each round: the fifth of five runs is compared, so that four decide.
While other programs compute, nodes that hold the GIL while nobody waits for it must stay on threads.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Final

from prometheus_client import CollectorRegistry

from benchmarks.placements.survey import surveying
from benchmarks.placements.work import built, python, turns
from benchmarks.settings import say
from examples.stdlib_survey.node_families import parsers
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Processes

RUNS: Final = 5
GAIN_LIMIT: Final = 0.9
IO_LIMIT: Final = 1.02
PROCESSES: Final = 2
NODES: Final = 24


def adapter(**options: Any) -> FutureAdapter:
    """One with processes, which has nothing learned yet."""
    return FutureAdapter(name="placements", registry=CollectorRegistry(), tracing=False, **options)


def survey_gain(rounds: int, limit: int) -> str:
    """What is gained by `auto`, as a part of what is gained by hand."""
    seconds: dict[str, list[float]] = {"threads": [], "by hand": [], "auto": []}
    with surveying(limit) as survey:
        for _ in range(rounds):
            for name, options in (
                ("threads", {}),
                ("by hand", {"backends": {"parsers": Processes(PROCESSES)}, "run_on": parsers}),
                ("auto", {"backends": {"parsers": Processes(PROCESSES)}, "run_on": "auto"}),
            ):
                with adapter(**options) as made:
                    took = [survey(made) for _ in range(RUNS)]
                    seconds[name].append(took[-1])
                say(f"placements: survey, {name}: {', '.join(f'{each:.2f}' for each in took)} s")
    threads, by_hand, auto = (median(each) for each in seconds.values())
    part = (threads - auto) / (threads - by_hand) if threads > by_hand else float("nan")
    said = f"survey: threads {threads:.2f} s, by hand {by_hand:.2f} s ({threads / by_hand:.2f} x), auto {auto:.2f} s"
    return _verdict(f"{said}; {part:.2f} of the gain by hand, at least {GAIN_LIMIT}", part >= GAIN_LIMIT)


def io_cost(rounds: int) -> str:
    """Nodes that wait, under `auto` and without: medians of interleaved runs."""
    with adapter() as plain, adapter(backends={"cpu": Processes(PROCESSES)}, run_on="auto") as auto:
        drivers = {"threads": built(plain, *_waiting()), "auto": built(auto, *_waiting())}
        names = [f"wait_{each}" for each in range(NODES)]
        seconds: dict[str, list[float]] = {name: [] for name in drivers}
        for number in range(-2, rounds):
            for name, dr in drivers.items():
                began = time.perf_counter()
                dr.execute([*names])
                if number >= 0:  # the first ones warm up
                    seconds[name].append(time.perf_counter() - began)
        moved = [name for name, decision in auto.placement().items() if decision.backend != "threads"]
    ratio = median(seconds["auto"]) / median(seconds["threads"])
    met = ratio <= IO_LIMIT and not moved
    return _verdict(f"I/O under auto: {ratio:.3f} x threads, at most {IO_LIMIT}; moved {moved}", met)


def _waiting() -> list[Callable[..., Any]]:
    def named(name: str) -> Callable[..., Any]:
        def wait() -> int:
            time.sleep(0.05)
            return 0

        wait.__name__ = wait.__qualname__ = name
        return wait

    return [named(f"wait_{each}") for each in range(NODES)]


def load_of_others(runs: int) -> str:
    """A chain of nodes of plain Python beside programs that have the CPUs: nobody waits for the GIL."""
    amount = turns(0.1)

    def first() -> int:
        return python(amount)

    def second(first: int) -> int:
        return python(amount)

    def third(second: int) -> int:
        return python(amount)

    with computing_programs(PROCESSES), adapter(backends={"cpu": Processes(PROCESSES)}, run_on="auto") as auto:
        dr = built(auto, first, second, third)
        for _ in range(runs):
            dr.execute(["third"])
        states = {name: decision.state for name, decision in auto.placement().items()}
    met = set(states.values()) <= {"learning"}
    return _verdict(f"with {PROCESSES} computing programs beside: {states}", met)


@contextmanager
def computing_programs(number: int) -> Iterator[None]:
    """So many other programs, each of which wants a CPU all the time."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _verdict(said: str, met: bool) -> str:
    return f"{'met' if met else 'missed'}: {said}"
