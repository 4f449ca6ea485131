"""Branches of a `Parallelizable` node into what each costs: in our adapter, and in Hamilton with no adapter at all.

Twice: with Hamilton's own task state, which is quadratic, so that 10,000 branches take longer than anybody waits; and
with one that is linear, which shows what an adapter adds to so many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from time import perf_counter, process_time
from typing import Any

from hamilton import ad_hoc_utils, driver
from hamilton.execution import executors
from hamilton.htypes import Collect, Parallelizable
from prometheus_client import CollectorRegistry

from benchmarks import peers
from benchmarks.linear_tasks import linear_task_state
from benchmarks.samples import Action, Series, take_turns
from benchmarks.settings import Settings, say
from benchmarks.spans import SpanSink
from traced_threadpool import FutureAdapter

SECTION = "branches"
LINEAR_SECTION = "branches, with a linear task state"
WORKERS = 8
ROUNDS = 2
LINEAR_ROUNDS = 5
COUNTS = (250, 1_000, 4_000)
LINEAR_COUNTS = (250, 1_000, 4_000, 10_000)
SMOKE_COUNTS = (3, 5)
BRANCHES_A_SAMPLE = 4_000  # fewer branches several times for one sample: 250 are too short to time
PEERS = (peers.UNTRACED, peers.NO_ADAPTER)
LINEAR_PEERS = (peers.UNTRACED, peers.DEFAULT, peers.TRACED, peers.NO_ADAPTER)


def item(count: int) -> Parallelizable[int]:
    """As many branches as asked for."""
    yield from range(count)


def doubled(item: int) -> int:
    """The first node of a branch."""
    return 2 * item


def shifted(doubled: int) -> int:
    """The second."""
    return doubled + 1


def total(shifted: Collect[int]) -> int:
    """All of them."""
    return sum(shifted)


def measure(settings: Settings) -> list[Series]:
    """The time per branch by the number of branches, as Hamilton is."""
    counts = SMOKE_COUNTS if settings.smoke else COUNTS
    return _measure(settings, SECTION, PEERS, counts, settings.rounds(ROUNDS), times_of=lambda count: 1)


def measure_linear(settings: Settings) -> list[Series]:
    """The same with Hamilton's task state out of the way."""
    counts = SMOKE_COUNTS if settings.smoke else LINEAR_COUNTS
    rounds = settings.rounds(LINEAR_ROUNDS)

    def times_of(count: int) -> int:
        return 1 if settings.smoke else max(1, BRANCHES_A_SAMPLE // count)

    with linear_task_state():
        return _measure(settings, LINEAR_SECTION, LINEAR_PEERS, counts, rounds, times_of=times_of)


def _measure(
    settings: Settings,
    section: str,
    labels: tuple[str, ...],
    counts: tuple[int, ...],
    rounds: int,
    *,
    times_of: Callable[[int], int],
) -> list[Series]:
    """The numbers of branches take turns, as the peers do."""
    with ExitStack() as stack:
        sink = SpanSink()
        stack.callback(sink.close)
        built = {label: _driver(*(stack.enter_context(each) for each in _adapters(label, sink))) for label in labels}
        actions: dict[str, Action] = {}
        origin: dict[str, tuple[str, int]] = {}
        for count in counts:
            for label, each in built.items():
                origin[f"{label}, {count}"] = label, count
                actions[f"{label}, {count}"] = _timed(each, count, times_of(count), sink)
        say(f"{section}: {', '.join(f'{count:,}' for count in counts)}")
        taken = take_turns(actions, rounds=rounds, choice=settings.choice)
    return [
        Series(
            section=section,
            case=f"{origin[key][1]:,} branches",
            peer=origin[key][0],
            measure=measure,
            unit="µs/branch",
            values=tuple(value / origin[key][1] * 1e6 for value in values),
        )
        for key, samples in taken.items()
        for measure, values in samples.items()
    ]


def _adapters(label: str, sink: SpanSink) -> tuple[FutureAdapter, ...]:
    """Ours in one of its settings, or none."""
    settings: dict[str, dict[str, Any]] = {
        peers.UNTRACED: {"tracing": False, "metrics": False},
        peers.DEFAULT: {},
        peers.TRACED: {"tracer_provider": sink.provider},
    }
    return (FutureAdapter(WORKERS, registry=CollectorRegistry(), **settings[label]),) if label in settings else ()


def _driver(*adapters: FutureAdapter) -> driver.Driver:
    module = ad_hoc_utils.create_temporary_module(item, doubled, shifted, total)
    builder = driver.Builder().with_modules(module).enable_dynamic_execution(allow_experimental_mode=True)
    return builder.with_remote_executor(executors.SynchronousLocalTaskExecutor()).with_adapters(*adapters).build()


def _timed(built: driver.Driver, count: int, times: int, sink: SpanSink) -> Action:
    def action() -> Mapping[str, float]:
        wall, cpu_started = 0.0, process_time()
        for _ in range(times):
            started = perf_counter()
            result = built.execute(["total"], inputs={"count": count})
            wall += perf_counter() - started
            if result != {"total": count * count}:
                raise RuntimeError(f"{count} branches made {result!r}")
            sink.expect_no_more()  # waits for what has been handed over
        return {"wall": wall / times, "cpu": (process_time() - cpu_started) / times}

    return action
