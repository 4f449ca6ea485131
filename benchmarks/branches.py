"""Branches of a `Parallelizable` node into what each costs: in our adapter, and in Hamilton with no adapter at all.

Whatever both have in common is Hamilton's own task state.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter, process_time

from hamilton import ad_hoc_utils, driver
from hamilton.execution import executors
from hamilton.htypes import Collect, Parallelizable

from benchmarks import peers
from benchmarks.samples import Action, Series, take_turns
from benchmarks.settings import Settings, say
from traced_threadpool import FutureAdapter

SECTION = "branches"
WORKERS = 8
ROUNDS = 2
COUNTS = (250, 1_000, 4_000)
PEERS = (peers.UNTRACED, peers.NO_ADAPTER)


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
    """The time per branch by the number of branches."""
    found: list[Series] = []
    with FutureAdapter(WORKERS, tracing=False, metrics=False) as adapter:
        built = {peers.UNTRACED: _driver(adapter), peers.NO_ADAPTER: _driver()}
        for count in (3, 5) if settings.smoke else COUNTS:
            say(f"branches: {count:,}")
            actions = {name: _timed(each, count) for name, each in built.items()}
            taken = take_turns(actions, rounds=settings.rounds(ROUNDS), choice=settings.choice)
            for name, samples in taken.items():
                for key, values in samples.items():
                    found.append(
                        Series(
                            section=SECTION,
                            case=f"{count:,} branches",
                            peer=name,
                            measure=key,
                            unit="µs/branch",
                            values=tuple(value / count * 1e6 for value in values),
                        )
                    )
    return found


def _driver(*adapters: FutureAdapter) -> driver.Driver:
    module = ad_hoc_utils.create_temporary_module(item, doubled, shifted, total)
    builder = driver.Builder().with_modules(module).enable_dynamic_execution(allow_experimental_mode=True)  # type: ignore[no-untyped-call]
    return builder.with_remote_executor(executors.SynchronousLocalTaskExecutor()).with_adapters(*adapters).build()


def _timed(built: driver.Driver, count: int) -> Action:
    def action() -> Mapping[str, float]:
        started, cpu_started = perf_counter(), process_time()
        result = built.execute(["total"], inputs={"count": count})
        taken = {"wall": perf_counter() - started, "cpu": process_time() - cpu_started}
        if result != {"total": count * count}:
            raise RuntimeError(f"{count} branches made {result!r}")
        return taken

    return action
