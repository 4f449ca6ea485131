"""Raises one exception at one point of the package's code, for every point that a run passes, and looks what works.

    python -m tests.engine.injection bare plain            # every point, kinds in turn
    python -m tests.engine.injection full nested --only 17 --ends

A point is a line or a function's entry on the caller's thread, a worker or another one; the second event of a line in
one call is a point of its own, since that is where `with lock:` is about to release. After each: the run ends, the next
one on the same adapter is right, and `close()` returns. In a process of its own, for what hangs cannot be ended.

Points too are the ends of what the package calls of the standard library's events, conditions, futures and executors on
the caller's thread, where signal handlers run: there one of their locks has just been taken. Not those within
`Thread.start`, which an exception can leave without a thread whatever its caller does.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import linecache
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any, Final

from hamilton import ad_hoc_utils, driver
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

import traced_threadpool
from tests.dags import start
from traced_threadpool import FutureAdapter

PACKAGE: Final = str(Path(traced_threadpool.__file__).parent) + os.sep
LIBRARY: Final = (threading.__file__, *(str(each) for each in Path(concurrent.futures.__file__).parent.glob("*.py")))
RUN_SECONDS: Final = 8.0
CLOSE_SECONDS: Final = 5.0
MOST_WEDGES: Final = 10
"""After so many a scenario is given up: each takes seconds."""


class Own(BaseException):
    """Nobody's but ours."""


KINDS: Final[tuple[type[BaseException], ...]] = (Own, KeyboardInterrupt, MemoryError)

Point = tuple[str, str, int, str, int]
"""Thread, file, line, event, and how many times that came in this call of the function: once, or more often."""


class Injector:
    """Traces the package's code while it is armed: finds its points, and raises at one of them, once."""

    def __init__(self, target: Point | None = None, kind: type[BaseException] = Own) -> None:
        self.points: Counter[Point] = Counter()
        self.raised = False
        self._target = target
        self._kind = kind
        self._armed = False
        self._caller = 0

    def armed(self, function: Callable[[], Any]) -> Any:
        self._caller = threading.get_ident()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        self._armed = True
        try:
            return function()
        finally:
            self._armed = False
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]  # the stub does not know that it takes None

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not self._armed:
            return None
        if frame.f_code.co_filename in LIBRARY and threading.get_ident() == self._caller:
            return self._at_end
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        seen: Counter[int] = Counter()

        def each(frame: FrameType, event: str, argument: object) -> Any:
            if self._armed and event in ("call", "line"):
                seen[frame.f_lineno] += 1
                self._pass(
                    (self._role(), frame.f_code.co_filename, frame.f_lineno, event, min(seen[frame.f_lineno], 2))
                )
            return each

        self._pass((self._role(), frame.f_code.co_filename, frame.f_lineno, event, 1))
        return each

    def _at_end(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "return" and self._armed:
            outside: FrameType | None = frame.f_back
            while outside is not None and outside.f_code.co_filename in LIBRARY:
                if outside.f_code is threading.Thread.start.__code__:
                    return None
                outside = outside.f_back
            if outside is not None and outside.f_code.co_filename.startswith(PACKAGE):
                end = f"end of {frame.f_code.co_name}"
                self._pass(("caller", outside.f_code.co_filename, outside.f_lineno, end, 1))
        return self._at_end

    def _role(self) -> str:
        if threading.get_ident() == self._caller:
            return "caller"
        return "worker" if "ThreadPool" in threading.current_thread().name else "other"

    def _pass(self, point: Point) -> None:
        if self._target is None:
            self.points[point] += 1
        elif point == self._target:
            self._armed = False
            self.raised = True
            raise self._kind("injected")


def one() -> int:
    return 1


def two(one: int) -> int:
    return one + 1


def three(one: int, two: int) -> int:
    return one + two


def boom(one: int) -> int:
    raise ValueError("boom")


def after(boom: int, two: int) -> int:
    return boom


def wide_1(one: int) -> int:
    return one


def wide_2(one: int) -> int:
    return one


def with_given(given: int, one: int) -> int:
    return given + one


class World:
    """One adapter, and what is done with it."""

    def __init__(self, mode: str, scenario: str) -> None:
        workers = 1 if scenario in ("nested", "cancel") else 2
        fail_fast = scenario == "fail_fast"
        if mode == "bare":
            self.adapter = FutureAdapter(workers, tracing=False, metrics=False, attribution=False, fail_fast=fail_fast)
        else:
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
            self.adapter = FutureAdapter(
                workers, registry=CollectorRegistry(), tracer_provider=provider, record=True, fail_fast=fail_fast
            )
        self._inside = self._driver(one, two, three)
        self._scenario: Callable[[], Any] = getattr(self, scenario)

    def _driver(self, *functions: Callable[..., Any]) -> driver.Driver:
        module = ad_hoc_utils.create_temporary_module(*functions)
        return driver.Builder().with_modules(module).with_adapters(self.adapter).build()

    def prepare(self) -> Callable[[], Any]:
        return self._scenario()  # type: ignore[no-any-return]

    def next_run(self) -> Any:
        return self._inside.execute(["three"])

    # Each prepares what is then done while points are watched.

    def plain(self) -> Callable[[], Any]:
        return self.next_run

    def later(self) -> Callable[[], Any]:
        """When it is known how long nodes take."""
        self.next_run()
        return self.next_run

    def unbuilt(self) -> Callable[[], Any]:
        return lambda: self._inside.raw_execute(["three"])

    def failing(self) -> Callable[[], Any]:
        runs = self._driver(one, two, boom, after)
        return lambda: runs.execute(["after"])

    def fail_fast(self) -> Callable[[], Any]:
        runs = self._driver(one, two, boom, after, wide_1, wide_2)
        return lambda: runs.execute(["wide_1", "after", "wide_2"])

    def nested(self) -> Callable[[], Any]:
        inside = self._inside

        def outer() -> int:
            return inside.execute(["three"])["three"]  # type: ignore[no-any-return]

        def beyond(outer: int) -> int:
            return outer

        runs = self._driver(outer, beyond)
        return lambda: runs.execute(["beyond"])

    def outside(self) -> Callable[[], Any]:
        runs = self._driver(one, with_given)

        def run() -> Any:
            given: Future[int] = Future()
            timer = threading.Timer(0.005, given.set_result, [1])
            timer.start()
            return runs.execute(["with_given"], inputs={"given": given})

        return run

    def cancel(self) -> Callable[[], Any]:
        started, release = threading.Event(), threading.Event()

        def held() -> int:
            started.set()
            release.wait(RUN_SECONDS)
            return 1

        def queued() -> int:
            return 2

        def below(queued: int) -> int:
            return queued

        runs = self._driver(held, queued, below)

        def run() -> Any:
            try:
                futures = start(runs, ["held", "queued", "below"])
                futures["queued"].cancel()
            finally:
                release.set()
            return futures["held"].result(), futures["below"].cancelled()

        return run

    def closing(self) -> Callable[[], Any]:
        def run() -> Any:
            found = self.next_run()
            self.adapter.close(cancel_pending=True)
            return found

        return run


SCENARIOS: Final = ("plain", "later", "unbuilt", "failing", "fail_fast", "nested", "outside", "cancel", "closing")


def within(seconds: float, function: Callable[[], Any]) -> tuple[str, Any]:
    """What came of a call on a thread of its own: `value`, `error`, or `hangs`."""
    found: list[tuple[str, Any]] = []

    def call() -> None:
        try:
            found.append(("value", function()))
        except BaseException as error:
            found.append(("error", error))

    thread = threading.Thread(target=call, name="caller", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else ("hangs", None)


def attempt(mode: str, scenario: str, target: Point | None, kind: type[BaseException]) -> tuple[Injector, list[str]]:
    """One experiment: what is wrong after it."""
    world = World(mode, scenario)
    injector = Injector(target, kind)
    prepared = world.prepare()
    wrong = []
    if within(RUN_SECONDS, lambda: injector.armed(prepared))[0] == "hangs":
        wrong.append("the run hangs")
    if scenario != "closing":
        kind_of_end, found = within(RUN_SECONDS, world.next_run)
        if kind_of_end == "hangs" or found != {"three": 3}:
            wrong.append(f"the next run: {kind_of_end} {found!r}")
    kind_of_end, found = within(CLOSE_SECONDS, world.adapter.close)
    if kind_of_end != "value":
        wrong.append(f"close(): {kind_of_end} {found!r}")
    return injector, wrong


def points_of(mode: str, scenario: str) -> list[Point]:
    """All that a few runs pass: which thread comes where differs between runs."""
    points: set[Point] = set()
    for _ in range(5):
        injector, wrong = attempt(mode, scenario, None, Own)
        assert not wrong, wrong
        points |= injector.points.keys()
    return sorted(points)


def _releases(point: Point) -> bool:
    _, file, line, _, times = point
    return times == 2 and linecache.getline(file, line).lstrip().startswith("with ")


def show(point: Point) -> str:
    thread, file, line, event, times = point
    return f"{file.removeprefix(PACKAGE)}:{line} {event}{'' if times == 1 else ' again'} ({thread})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["bare", "full"])
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--sample", type=int, help="only about so many points, spread evenly")
    parser.add_argument("--first", type=int, default=0, help="from this one on")
    parser.add_argument("--kinds", type=int, default=1, help="how many kinds of exceptions at each point; in turn")
    parser.add_argument("--only", type=int, help="this point alone")
    parser.add_argument("--library", action="store_true", help="only the points in the standard library")
    parser.add_argument(
        "--releases", action="store_true", help="only the points at which a lock is about to be released"
    )
    parser.add_argument("--ends", action="store_true", help="end as any program does")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None
    points = points_of(asked.mode, asked.scenario)
    if asked.library:
        points = [point for point in points if point[3].startswith("end of")]
    if asked.releases:
        points = [point for point in points if _releases(point)]
    every = 1 if asked.sample is None else max(1, len(points) // asked.sample)
    chosen = range(asked.first, len(points), every) if asked.only is None else [asked.only % len(points)]
    tried = wedges = missed = 0
    begun = time.monotonic()
    for number in chosen:
        for turn in range(asked.kinds):
            kind = KINDS[(number + turn) % len(KINDS)]
            injector, wrong = attempt(asked.mode, asked.scenario, points[number], kind)
            tried += 1
            missed += not injector.raised
            if wrong:
                wedges += 1
                print(f"wedge: point {number}, {show(points[number])}, {kind.__name__}: {wrong}", flush=True)
        if wedges >= MOST_WEDGES:
            break
    print(
        f"{asked.mode} {asked.scenario}: {len(points)} points, {tried} exceptions, {tried - missed} raised, "
        f"{wedges} wedges, {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    if not asked.ends:
        os._exit(wedges > 0)


if __name__ == "__main__":
    main()
