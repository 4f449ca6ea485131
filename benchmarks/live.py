"""How near the predicted end is to what comes, and what it costs to look: `python -m benchmarks.live`.

Ends: each shape runs 25 times on one adapter, and all but the first three are judged. While a run goes on it is asked
every 10 ms for its predicted end; of the answers those count that are nearest to a quarter, half and three quarters of
what the run took. An error is the distance between predicted and real end, as a share of what was left, and of the run.

Costs: `live()` on a run of 5,000 nodes, the first time and while something happens in it; and the time of runs with
somebody who calls `live()` 1,000 times a second, against runs without, in turns.

`python -m benchmarks.live ends` and `... costs` measure one of the two.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from hamilton import ad_hoc_utils, driver

from traced_threadpool import FutureAdapter
from traced_threadpool.live.view import MOST_REUSED_SECONDS

RUNS: Final = 25
COLD: Final = 3
MOMENTS: Final = (0.25, 0.5, 0.75)

Node = Callable[..., int]


def _node(name: str, upstream: Sequence[str], work: Callable[[], None]) -> Node:
    """A node with these inputs."""
    scope: dict[str, Any] = {"work": work}
    exec(f"def {name}({', '.join(f'{each}: int' for each in upstream)}) -> int:\n    work()\n    return 1\n", scope)
    made: Node = scope[name]
    return made


def _sleep(some: random.Random, seconds: float, spread: float) -> Callable[[], None]:
    """About so long each time, log-normally spread."""
    return lambda: time.sleep(seconds * some.lognormvariate(0.0, spread))


def _compute(some: random.Random, thousands: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(int(thousands * some.uniform(0.9, 1.1))):
            sum(range(1000))

    return work


def chain(some: random.Random) -> tuple[list[Node], list[Any], int]:
    """Twelve nodes one after the other, of 20 to 200 ms."""
    nodes = [
        _node(f"n{index}", [f"n{index - 1}"] if index else [], _sleep(some, 0.02 + 0.18 * some.random(), 0.15))
        for index in range(12)
    ]
    return nodes, ["n11"], 4


def layers(some: random.Random) -> tuple[list[Node], list[Any], int]:
    """Five layers of 16 nodes, each of which needs two of the layer before; four workers."""
    nodes = []
    for layer in range(5):
        for index in range(16):
            upstream = [f"n{layer - 1}_{(index + shift) % 16}" for shift in (0, 5)] if layer else []
            nodes.append(_node(f"n{layer}_{index}", upstream, _sleep(some, 0.02 + 0.1 * some.random(), 0.3)))
    return nodes, [f"n4_{index}" for index in range(16)], 4


def skewed(some: random.Random) -> tuple[list[Node], list[Any], int]:
    """Forty nodes, a few of which take twenty times as long as the others; three workers."""
    nodes = [_node(f"n{index}", [], _sleep(some, 0.5 if index % 13 == 5 else 0.03, 0.3)) for index in range(40)]
    return [*nodes, _node("last", [f"n{index}" for index in range(40)], lambda: None)], ["last"], 3


def computing(some: random.Random) -> tuple[list[Node], list[Any], int]:
    """Thirty nodes of pure Python that share the GIL; four workers."""
    nodes = [_node(f"n{index}", [], _compute(some, 1_000 + 100 * index)) for index in range(30)]
    return [*nodes, _node("last", [f"n{index}" for index in range(30)], lambda: None)], ["last"], 4


SHAPES: Final = (chain, layers, skewed, computing)


def _driver(adapter: FutureAdapter, nodes: Sequence[Node]) -> driver.Driver:
    module = ad_hoc_utils.create_temporary_module(*nodes)
    return driver.Builder().with_modules(module).with_adapters(adapter).build()


@contextmanager
def _asking(every_seconds: float, ask: Callable[[], None]) -> Iterator[None]:
    """Calls `ask` so often on a thread of its own; one that comes late is not made up for."""
    ended = threading.Event()

    def work() -> None:
        following = time.monotonic()
        while not ended.wait(max(0.0, following - time.monotonic())):
            ask()
            following = max(following + every_seconds, time.monotonic())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def errors_of(
    shape: Callable[[random.Random], tuple[list[Node], list[Any], int]],
) -> dict[float, list[tuple[float, float]]]:
    """For each moment the errors: as a share of what was left, and of the run."""
    nodes, outputs, workers = shape(random.Random(16))
    found: dict[float, list[tuple[float, float]]] = {moment: [] for moment in MOMENTS}
    with FutureAdapter(workers, name=shape.__name__) as adapter:
        dag = _driver(adapter, nodes)
        for number in range(RUNS):
            said: list[tuple[float, float]] = []

            def ask(said: list[tuple[float, float]] = said) -> None:
                now = time.monotonic()
                lefts = [run.predicted_end.seconds for run in adapter.live().runs]
                said.extend((now, left) for left in lefts if left is not None)

            started = time.monotonic()
            with _asking(0.01, ask):
                dag.execute(outputs)
            took = time.monotonic() - started
            if number < COLD:
                continue
            for moment in MOMENTS:
                at, left = min(said, key=lambda one: abs(one[0] - started - moment * took))
                off = abs(at + left - (started + took))
                found[moment].append((off / (started + took - at), off / took))
    return found


def ends() -> list[str]:
    """The table of errors."""
    lines = [
        "| shape | at | off, of what is left (median) | of the run (median) | of the run (worst) |",
        "|---|---:|---:|---:|---:|",
    ]
    for shape in SHAPES:
        for moment, errors in errors_of(shape).items():
            left = statistics.median(one[0] for one in errors)
            run = statistics.median(one[1] for one in errors)
            worst = max(one[1] for one in errors)
            lines.append(f"| {shape.__name__} | {moment:.0%} | {left:.1%} | {run:.1%} | {worst:.1%} |")
    return lines


def large() -> tuple[float, float]:
    """Milliseconds that `live()` takes on a run of 5,000 nodes that has run before: at first, and the median of 20
    while nodes end.
    """
    started = threading.Event()
    steps = threading.Semaphore(0)
    runs: list[int] = []

    def gate() -> None:
        runs.append(1)
        if len(runs) > 1:
            started.set()
            steps.acquire()

    def step() -> None:
        if len(runs) > 1:
            steps.acquire()

    nodes = [_node("gate", [], gate)]
    nodes += [_node(f"step{index}", [f"step{index - 1}" if index else "gate"], step) for index in range(50)]
    nodes += [_node(f"n{index}", ["step49" if index < 50 else f"n{index - 50}"], lambda: None) for index in range(5000)]
    outputs: list[Any] = [f"n{index}" for index in range(4950, 5000)]

    def milliseconds() -> float:
        before = time.perf_counter()
        adapter.live()
        return 1e3 * (time.perf_counter() - before)

    with FutureAdapter(4, name="large") as adapter:
        dag = _driver(adapter, nodes)
        dag.execute(outputs)
        caller = threading.Thread(target=dag.execute, args=(outputs,))
        caller.start()
        started.wait()
        while adapter.snapshot().blocked_nodes < len(nodes) - 1:
            time.sleep(0.05)
        first = milliseconds()
        times = []
        for _ in range(20):
            steps.release()
            time.sleep(MOST_REUSED_SECONDS)  # then it is made anew
            times.append(milliseconds())
        steps.release(len(nodes))
        caller.join()
    return first, statistics.median(times)


def watched() -> tuple[float, int]:
    """By what share runs take longer while `live()` is called 1,000 times a second (median of pairs), and the calls."""
    some = random.Random(16)
    nodes = [_node(f"n{index}", [], _sleep(some, 0.01, 0.0)) for index in range(200)]
    outputs: list[Any] = [f"n{index}" for index in range(200)]
    calls, seconds, ratios = 0, 0.0, []

    def ask() -> None:
        nonlocal calls
        adapter.live()
        calls += 1

    with FutureAdapter(4, name="watched") as adapter:
        dag = _driver(adapter, nodes)

        def run() -> float:
            before = time.perf_counter()
            dag.execute(outputs)
            return time.perf_counter() - before

        for _ in range(3):
            run()
        for number in range(24):
            if number % 2:
                alone = run()
            with _asking(0.001, ask):
                took = run()
            seconds += took
            if not number % 2:
                alone = run()
            ratios.append(took / alone - 1)
    return statistics.median(ratios), round(calls / seconds)


def main(only: str | None = None) -> None:
    """Print the tables of docs/live.md."""
    if only != "costs":
        print("\n".join(ends()))
    if only != "ends":
        first, later = large()
        print(f"\nlive() on 5,000 nodes: {later:.1f} ms, the first time {first:.0f} ms")
        share, calls = watched()
        print(f"{calls:,} live() calls a second: {share:+.1%} of the time of a run")


if __name__ == "__main__":
    main(*sys.argv[1:2])
