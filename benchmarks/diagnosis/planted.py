"""Small programs that are slow for one reason each, beyond those of `examples/pathologies`.

`python -m benchmarks.diagnosis.planted straggler --seed 3 --trace run.jsonl` runs one. The seed decides how long nodes
take, and which one it is that is to stand out.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hamilton import ad_hoc_utils, driver
from hamilton.function_modifiers import group, inject, parameterize, source, value
from hamilton.lifecycle import ResultBuilder
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import get_tracer_provider

from benchmarks.diagnosis.work import compute_in_python, compute_without_lock
from examples.pathologies.service import fetch, running_service
from traced_threadpool import FutureAdapter, setup_telemetry

OUTPUT: Final = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A pipeline and how to run it. `cpus` is how many it may use; `stop_after_seconds` when it is closed; so many
    `clients` execute it at once on one adapter.
    """

    module: ModuleType
    workers: int
    inputs: Mapping[str, Any] = field(default_factory=dict)
    cpus: int | None = None
    result_builder: ResultBuilder | None = None
    stop_after_seconds: float | None = None
    sampler: Sampler | None = None
    clients: int = 1


Make = Callable[[random.Random, float], Iterator[Program]]


def straggling_shard(dice: random.Random, scale: float) -> Iterator[Program]:
    """Eight shards, of which one is five to nine times as large as the others."""
    large = dice.randrange(8)
    seconds = {
        f"shard_{index}": scale * (dice.uniform(5, 9) if index == large else dice.uniform(0.8, 1.2)) * 0.12
        for index in range(8)
    }

    def shard(name: str, seconds: dict[str, float]) -> int:
        return compute_without_lock(seconds[name])

    yield Program(module=_wide(shard, list(seconds)), workers=8, inputs={"seconds": seconds})


def straggling_request(dice: random.Random, scale: float) -> Iterator[Program]:
    """Twelve regions of one service, of which one answers late."""
    late = dice.randrange(12)
    seconds = {f"region_{index}": scale * (dice.uniform(1.2, 1.8) if index == late else 0.25) for index in range(12)}

    def region(name: str, url: str) -> int:
        return len(fetch(url, f"/{name}?figures=5"))

    with running_service(seconds, seed=dice.randrange(1000)) as url:
        names = [f"region_{index}" for index in range(12)]
        yield Program(module=_wide(region, names), workers=12, inputs={"url": url})


def long_chain(dice: random.Random, scale: float) -> Iterator[Program]:
    """Five steps in pure Python, one after the other, and small things beside them."""
    seconds = {name: scale * dice.uniform(0.15, 0.35) for name in ("extract", "clean", "join", "score", "rank")}

    def extract(seconds: dict[str, float]) -> int:
        return compute_in_python(seconds["extract"])

    def clean(extract: int, seconds: dict[str, float]) -> int:
        return compute_in_python(seconds["clean"])

    def join(clean: int, seconds: dict[str, float]) -> int:
        return compute_in_python(seconds["join"])

    def score(join: int, seconds: dict[str, float]) -> int:
        return compute_in_python(seconds["score"])

    def rank(score: int, seconds: dict[str, float]) -> int:
        return compute_in_python(seconds["rank"])

    def settings() -> int:
        return compute_in_python(0.01)

    def labels() -> int:
        return compute_in_python(0.02)

    def whole(rank: int, settings: int, labels: int) -> int:
        return rank + settings + labels

    module = ad_hoc_utils.create_temporary_module(extract, clean, join, score, rank, settings, labels, whole)
    yield Program(module=module, workers=6, inputs={"seconds": seconds})


def failing_input(dice: random.Random, scale: float) -> Iterator[Program]:
    """One of ten sources cannot be read, and nothing that needs it runs."""
    bad = f"source_{dice.randrange(10)}"

    def source_of(name: str, bad: str) -> int:
        compute_without_lock(0.05 * scale)
        if name == bad:
            raise LookupError(name)
        return 1

    yield Program(module=_wide(source_of, [f"source_{index}" for index in range(10)]), workers=4, inputs={"bad": bad})


def too_many_threads(dice: random.Random, scale: float) -> Iterator[Program]:
    """Pure Python on thirty-two threads and one CPU: neither more CPUs nor no lock alone would help."""
    names = [f"part_{index}" for index in range(32)]
    seconds = {name: scale * dice.uniform(0.08, 0.12) for name in names}

    def start() -> int:
        time.sleep(0.1)  # until all others are submitted: the caller, too, is slow while they compute
        return 0

    def part(name: str, start: int, seconds: dict[str, float]) -> int:
        return start + compute_in_python(seconds[name])

    yield Program(module=_wide(part, names, start), workers=32, inputs={"seconds": seconds}, cpus=1)


def lost_spans(dice: random.Random, scale: float) -> Iterator[Program]:
    """A sampler that decides for each span by itself, and takes two of three."""
    names = [f"row_{index}" for index in range(60)]
    seconds = {name: scale * dice.uniform(0.01, 0.02) for name in names}

    def row(name: str, seconds: dict[str, float]) -> int:
        return compute_without_lock(seconds[name])

    module = _wide(row, names)
    yield Program(module=module, workers=2, inputs={"seconds": seconds}, sampler=_Forgetful(dice))


class _Forgetful(Sampler):
    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any) -> SamplingResult:
        is_kept = not name.startswith("row_") or self._dice.random() < 2 / 3
        return SamplingResult(Decision.RECORD_AND_SAMPLE if is_kept else Decision.DROP)

    def get_description(self) -> str:
        return "forgetful"


def greedy_thread(dice: random.Random, scale: float) -> Iterator[Program]:
    """Nodes that ask and parse, while a thread outside of the pool computes in pure Python."""
    names = [f"feed_{index}" for index in range(6)]
    stop = threading.Event()

    def reindex() -> None:
        while not stop.is_set():
            compute_in_python(0.05)

    def feed(name: str, seconds: dict[str, float]) -> int:
        return sum(compute_in_python(seconds[name] / 10) + _blink() for _ in range(10))

    thread = threading.Thread(target=reindex, name="reindex", daemon=True)
    thread.start()
    try:
        seconds = {name: scale * dice.uniform(0.1, 0.14) for name in names}
        yield Program(module=_wide(feed, names), workers=6, inputs={"seconds": seconds})
    finally:
        stop.set()
        thread.join()


def polling(dice: random.Random, scale: float) -> Iterator[Program]:
    """A node that looks twice a second whether an export is done, and two others that work meanwhile."""
    done_after = scale * dice.uniform(0.9, 1.4)

    def export(done_after: float) -> int:
        end = time.monotonic() + done_after
        while time.monotonic() < end:
            time.sleep(0.5 * scale)
        return 1

    def prices() -> int:
        return compute_without_lock(0.2 * scale)

    def stock() -> int:
        return compute_without_lock(0.2 * scale)

    def whole(export: int, prices: int, stock: int) -> int:
        return compute_without_lock(0.1 * scale) + export + prices + stock

    module = ad_hoc_utils.create_temporary_module(export, prices, stock, whole)
    yield Program(module=module, workers=4, inputs={"done_after": done_after})


def slow_builder(dice: random.Random, scale: float) -> Iterator[Program]:
    """Quick nodes, and a result builder that takes most of the run."""
    seconds = scale * dice.uniform(0.7, 1.1)

    class Writing(ResultBuilder):
        def build_result(self, **outputs: Any) -> Any:
            time.sleep(seconds)
            return outputs

    def table(name: str) -> int:
        return compute_without_lock(0.03 * scale)

    module = _wide(table, [f"table_{index}" for index in range(6)])
    yield Program(module=module, workers=4, result_builder=Writing())


def stopped(dice: random.Random, scale: float) -> Iterator[Program]:
    """Somebody closes the adapter in the middle."""
    names = [f"step_{index}" for index in range(24)]

    def step(name: str) -> int:
        return compute_without_lock(0.15 * scale)

    yield Program(module=_wide(step, names), workers=2, stop_after_seconds=scale * dice.uniform(0.4, 0.8))


def busy_processors(dice: random.Random, scale: float) -> Iterator[Program]:
    """Nothing is wrong: two workers keep two CPUs busy, without the lock."""
    seconds = {f"tile_{index}": scale * dice.uniform(0.08, 0.12) for index in range(24)}

    def tile(name: str, seconds: dict[str, float]) -> int:
        return compute_without_lock(seconds[name])

    yield Program(module=_wide(tile, list(seconds)), workers=2, inputs={"seconds": seconds}, cpus=2)


def shared_pool(dice: random.Random, scale: float) -> Iterator[Program]:
    """Six clients of one adapter, whose runs queue up behind each other's."""
    names = [f"quote_{index}" for index in range(8)]

    def quote(name: str, url: str) -> int:
        return len(fetch(url, f"/{name}?figures=5"))

    with running_service({name: scale * dice.uniform(0.1, 0.16) for name in names}, seed=dice.randrange(1000)) as url:
        yield Program(module=_wide(quote, names), workers=6, inputs={"url": url}, clients=6)


def shared_lock(dice: random.Random, scale: float) -> Iterator[Program]:
    """Nodes that wait half of their time for the network, and the other half do so under one lock."""
    yield from _meeting(dice, scale, threading.Lock(), beside=0.06)


def shared_semaphore(dice: random.Random, scale: float) -> Iterator[Program]:
    """Nodes that share two connections."""
    yield from _meeting(dice, scale, threading.Semaphore(2), beside=0.02)


def _meeting(
    dice: random.Random, scale: float, lock: AbstractContextManager[object], *, beside: float
) -> Iterator[Program]:
    names = [f"upload_{index}" for index in range(16)]

    def upload(name: str, url: str) -> int:
        sent = len(fetch(url, "/beside?figures=5"))
        with lock:
            return sent + len(fetch(url, f"/{name}?figures=5"))

    seconds = {name: scale * dice.uniform(0.09, 0.12) for name in names}
    with running_service({**seconds, "beside": beside * scale}, seed=dice.randrange(1000)) as url:
        yield Program(module=_wide(upload, names), workers=8, inputs={"url": url})


def even_stages(dice: random.Random, scale: float) -> Iterator[Program]:
    """Nothing is wrong: two nodes that ask as long as they compute, and never want more than two CPUs."""
    names = [f"line_{index}" for index in range(2)]

    def line(name: str, url: str) -> int:
        fetched = 0
        for number in range(6):
            fetched += len(fetch(url, f"/line/{name}/{number}?figures=5"))
            compute_without_lock(0.1 * scale)
        return fetched

    with running_service({"line": 0.1 * scale}, seed=dice.randrange(1000)) as url:
        yield Program(module=_wide(line, names), workers=2, inputs={"url": url})


PLANTED: Final[Mapping[str, Make]] = {
    make.__name__: make
    for make in (
        straggling_shard,
        straggling_request,
        long_chain,
        failing_input,
        too_many_threads,
        lost_spans,
        greedy_thread,
        polling,
        slow_builder,
        stopped,
        busy_processors,
        even_stages,
        shared_pool,
        shared_lock,
        shared_semaphore,
    )
}


def _wide(function: Callable[..., int], names: list[str], *others: Callable[..., int]) -> ModuleType:
    """A node of this function for each name, one that takes them all, and others."""
    nodes: Any = {name: {"name": value(name)} for name in names}
    each = parameterize(**nodes)(function)

    def whole(parts: list[int]) -> int:
        return sum(parts)

    together = inject(parts=group(*(source(name) for name in names)))(whole)
    return ad_hoc_utils.create_temporary_module(each, together, *others)


def _blink() -> int:
    """Lets go of the GIL, and wants it back."""
    time.sleep(0)
    return 0


def run(name: str, *, seed: int, scale: float, trace: Path) -> None:
    """Run one of `PLANTED` once, and append its trace to the file."""
    with contextmanager(PLANTED[name])(random.Random(seed), scale) as program:
        if program.cpus is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: program.cpus])
        with setup_telemetry(service_name="planted", file=trace):
            if program.sampler is not None:
                provider = get_tracer_provider()
                assert isinstance(provider, TracerProvider)
                provider.sampler = program.sampler
            adapter = FutureAdapter(program.workers, name, program.result_builder, run_name=name)
            stopping = None
            if program.stop_after_seconds is not None:
                stopping = threading.Timer(program.stop_after_seconds, adapter.close, kwargs={"cancel_pending": True})
                stopping.start()
            builder = driver.Builder()
            built = builder.with_modules(program.module).with_adapters(adapter).build()

            def execute() -> None:
                with suppress(Exception):  # what it ended with is in the trace
                    built.execute([OUTPUT], inputs=dict(program.inputs))

            others = [threading.Thread(target=execute) for _ in range(program.clients - 1)]
            for other in others:
                other.start()
            execute()
            for other in others:
                other.join()
            if stopping is not None:
                stopping.join()
            adapter.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis.planted", description=__doc__)
    parser.add_argument("name", choices=PLANTED)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--trace", type=Path, required=True)
    asked = parser.parse_args()
    logging.getLogger("hamilton").setLevel(logging.CRITICAL)  # it would print what is raised on purpose
    run(asked.name, seed=asked.seed, scale=asked.scale, trace=asked.trace)


if __name__ == "__main__":
    main()
