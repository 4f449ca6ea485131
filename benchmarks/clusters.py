"""Nodes on Dask and Ray beside Hamilton's adapters for the same engine, and arrays beside the same written by hand.

    python -m benchmarks.clusters --rounds 5 --engines dask ray

Each engine has one cluster of two worker processes on this machine. All take turns in each round. What is printed is
the median of each, and the median of the rounds' own ratios, which stands still when the machine's speed does not.
Every node of ours has a span, which is exported and dropped. Needs dask with pyarrow, and ray: neither is in the usual
environment.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hamilton import base, driver
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Dask, Ray

WIDE, CHAIN, ARRAYS = "200 no-op nodes, wide", "100 no-op nodes, a chain", "4 nodes on 100 MB, a chain"
LIMITS = {WIDE: 1.25, CHAIN: 1.25, ARRAYS: 1.2}
MODULES = {WIDE: "nodes_wide", CHAIN: "nodes_in_a_chain", ARRAYS: "nodes_on_arrays"}
OURS = "ours"
ELEMENTS = 100_000_000 // 8

Run = Callable[[], object]


class Dropping(SpanExporter):
    """Takes spans, and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def step(x: Any) -> Any:
    return x + 1


def made() -> Any:
    return np.ones(ELEMENTS)


def total(x: Any) -> float:
    return float(x[0])


def source(count: int, *, wide: bool) -> str:
    """A module of so many nodes that do nothing, and one that takes the last of them, or all."""
    lines = ["def n0() -> int:\n    return 1"]
    for number in range(1, count):
        upstream = "" if wide else f"n{number - 1}: int"
        lines.append(f"def n{number}({upstream}) -> int:\n    return 1")
    inputs = [f"n{number}" for number in range(count)] if wide else [f"n{count - 1}"]
    lines.append(f"def end({', '.join(f'{each}: int' for each in inputs)}) -> int:\n    return 1")
    return "\n".join(lines)


ARRAY_SOURCE = """
import numpy as np
def a() -> object:
    return np.ones(100_000_000 // 8)
def b(a: object) -> object:
    return a + 1
def c(b: object) -> object:
    return b + 1
def end(c: object) -> float:
    return float(c[0])
"""

SOURCES = {WIDE: source(200, wide=True), CHAIN: source(100, wide=False), ARRAYS: ARRAY_SOURCE}


@contextmanager
def importable() -> Iterator[None]:
    """The modules of all cases where workers find them too: Hamilton's adapters send functions by name."""
    with TemporaryDirectory() as directory:
        for case, text in SOURCES.items():
            (Path(directory) / f"{MODULES[case]}.py").write_text(text)
        sys.path.insert(0, directory)
        os.environ["PYTHONPATH"] = os.pathsep.join([directory, os.environ.get("PYTHONPATH", "")])
        yield


def runs_of(case: str, adapter: Any) -> Run:
    module = import_module(MODULES[case])
    built = driver.Builder().with_modules(module).with_adapters(adapter).build()
    return lambda: built.execute(["end"])


@contextmanager
def ours(backend: Any) -> Iterator[FutureAdapter]:
    """An adapter all of whose nodes run there, with spans and metrics."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Dropping()))
    with FutureAdapter(
        4, backends={"far": backend}, run_on="far", tracer_provider=provider, registry=CollectorRegistry()
    ) as adapter:
        yield adapter
    provider.shutdown()


@contextmanager
def on_dask() -> Iterator[Mapping[str, Mapping[str, Run]]]:
    """By case, what takes part: ours, and what it is compared with."""
    import distributed
    from hamilton.plugins.h_dask import DaskGraphAdapter

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
        ours(Dask(client)) as adapter,
    ):
        theirs = DaskGraphAdapter(client, base.DictResult())

        def by_hand() -> object:
            value = client.submit(made, pure=False)
            for _ in range(2):
                value = client.submit(step, value, pure=False)
            return client.submit(total, value, pure=False).result()

        yield {
            WIDE: {OURS: runs_of(WIDE, adapter), "DaskGraphAdapter": runs_of(WIDE, theirs)},
            CHAIN: {OURS: runs_of(CHAIN, adapter), "DaskGraphAdapter": runs_of(CHAIN, theirs)},
            ARRAYS: {OURS: runs_of(ARRAYS, adapter), "client.submit": by_hand},
        }


@contextmanager
def on_ray() -> Iterator[Mapping[str, Mapping[str, Run]]]:
    """Likewise."""
    import ray
    from hamilton.plugins.h_ray import RayGraphAdapter

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with ours(Ray()) as adapter:
            theirs = RayGraphAdapter(base.DictResult())
            first, following, last = (ray.remote(each) for each in (made, step, total))

            def by_hand() -> object:
                value = first.remote()
                for _ in range(2):
                    value = following.remote(value)
                return ray.get(last.remote(value))

            yield {
                WIDE: {OURS: runs_of(WIDE, adapter), "RayGraphAdapter": runs_of(WIDE, theirs)},
                CHAIN: {OURS: runs_of(CHAIN, adapter), "RayGraphAdapter": runs_of(CHAIN, theirs)},
                ARRAYS: {OURS: runs_of(ARRAYS, adapter), "ray.remote": by_hand},
            }
    finally:
        ray.shutdown()


ENGINES = {"dask": on_dask, "ray": on_ray}


def measure(runs: Mapping[str, Run], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of ours and of the other, in turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    mine, theirs = seconds.values()
    return mine, theirs


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    given = parser.parse_args()
    for engine in given.engines:
        with importable(), ENGINES[engine]() as cases:
            for case, runs in cases.items():
                mine, theirs = measure(runs, given.rounds)
                ratio = statistics.median(one / other for one, other in zip(mine, theirs, strict=True))
                _, other = runs
                print(
                    f"{engine:5} {case:28} {OURS} {statistics.median(mine):.3f} s, {other} "
                    f"{statistics.median(theirs):.3f} s: {ratio:.2f} x, "
                    f"{'met' if ratio <= LIMITS[case] else 'missed'} (at most {LIMITS[case]})"
                )


if __name__ == "__main__":
    main()
