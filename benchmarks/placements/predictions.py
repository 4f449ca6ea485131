"""Runs each case on threads and on several numbers of processes, and foretells each from a record of each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from hamilton import driver
from prometheus_client import CollectorRegistry

from benchmarks.placements.cases import CASES, Case
from benchmarks.settings import say
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis.replay.what_if import replay
from traced_threadpool.backends import Processes
from traced_threadpool.model.recorded_run import RecordedRun

THREADS: Final = 0
PLACES: Final = (THREADS, 1, 2, 3)
"""How many processes; none: on threads."""

WORKERS: Final = 16
WARM_UP_SECONDS: Final = 1.5
MEDIAN_LIMIT: Final = 0.15
WORST_LIMIT: Final = 0.30

BEGIN: Final = "<!-- placements: written by `python -m benchmarks.placements predictions --write docs/accuracy.md` -->"
END: Final = "<!-- end of placements -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A case, where it was recorded and what it is foretold for; the prediction, and the median that was measured."""

    case: Case
    recorded: int
    asked: int
    foretold: float
    measured: float

    @property
    def error(self) -> float:
        return self.foretold / self.measured - 1

    @property
    def kind(self) -> str:
        """What changes between the two."""
        if self.recorded == THREADS:
            return "threads to processes"
        return "back to threads" if self.asked == THREADS else "number of processes"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    seconds: float
    record: RecordedRun


def pairs(case: Case, rounds: int) -> list[Pair]:
    """The places take turns; the record is that of the run of median length."""
    with ExitStack() as stack:
        adapters = {place: stack.enter_context(_adapter(case, place)) for place in PLACES}
        drivers = {place: _driver(case, adapter) for place, adapter in adapters.items()}
        for dr in drivers.values():
            until = time.monotonic() + WARM_UP_SECONDS
            while time.monotonic() < until:
                dr.execute(["whole"])
        runs: dict[int, list[_Run]] = {place: [] for place in PLACES}
        for _ in range(rounds):
            for place, adapter in adapters.items():
                began = time.perf_counter()
                drivers[place].execute(["whole"])
                seconds = time.perf_counter() - began
                runs[place].append(_Run(seconds=seconds, record=adapter.recorded_runs[-1]))
    found: list[Pair] = []
    for recorded in PLACES:
        record = sorted(runs[recorded], key=lambda each: each.seconds)[rounds // 2].record
        found += [
            Pair(
                case=case,
                recorded=recorded,
                asked=asked,
                foretold=_foretold(case, record, recorded, asked),
                measured=median([each.seconds for each in runs[asked]]),
            )
            for asked in PLACES
            if asked != recorded
        ]
    return found


def _foretold(case: Case, record: RecordedRun, recorded: int, asked: int) -> float:
    settings: dict[str, Any] = {}
    if asked == THREADS:
        settings["run_on"] = dict.fromkeys(case.moved, "threads")
    elif recorded == THREADS:
        settings["run_on"] = dict.fromkeys(case.moved, "processes")
        settings["moves"] = dict.fromkeys(case.moved, case.moved_bytes)
        settings["processes"] = asked
    else:
        settings["processes"] = asked
    return replay(record, **settings).makespan_seconds


def _adapter(case: Case, place: int) -> FutureAdapter:
    options: dict[str, Any] = {"name": "placements", "registry": CollectorRegistry(), "record": 2, "tracing": False}
    if place != THREADS:
        options |= {"backends": {"cpu": Processes(place)}, "run_on": dict.fromkeys(case.moved, "cpu")}
    return FutureAdapter(WORKERS, **options)


def _driver(case: Case, adapter: FutureAdapter) -> driver.Driver:
    return driver.Builder().with_modules(case.module()).with_adapters(adapter).build()


def measure(only: Sequence[str], rounds: int) -> list[Pair]:
    """Of all cases, or of those that have one of these words."""
    found: list[Pair] = []
    for case in CASES.values():
        if only and not any(word in case.name for word in only):
            continue
        of_case = pairs(case, rounds)
        found += of_case
        said = ", ".join(f"{_place(each.recorded)} to {_place(each.asked)} {each.error:+.0%}" for each in of_case)
        say(f"placements: {case.name}: {said}")
    return found


def _place(processes: int) -> str:
    return "threads" if processes == THREADS else f"{processes} processes" if processes > 1 else "1 process"


def markdown(found: Sequence[Pair], where: str) -> str:
    """The medians by kind, and each pair."""
    errors = [abs(each.error) for each in found]
    is_met = median(errors) <= MEDIAN_LIMIT and max(errors) <= WORST_LIMIT
    lines = [
        f"{len(found)} pairs: median error {median(errors):.1%}, worst {max(errors):.0%}; to be reached were "
        f"{MEDIAN_LIMIT:.0%} and {WORST_LIMIT:.0%}: {'met' if is_met else 'missed'}. Measured on {where}.",
        "",
        "| what changes | pairs | median | worst |",
        "| :--- | ---: | ---: | ---: |",
    ]
    for kind in dict.fromkeys([each.kind for each in found]):
        of_kind = [abs(each.error) for each in found if each.kind == kind]
        lines.append(f"| {kind} | {len(of_kind)} | {median(of_kind):.1%} | {max(of_kind):.0%} |")
    lines += [
        "",
        "| case | recorded on | foretold for | predicted | measured | error |",
        "| :--- | :--- | :--- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each.case.name} | {_place(each.recorded)} | {_place(each.asked)} | {each.foretold:.3f} s | "
        f"{each.measured:.3f} s | {each.error:+.0%} |"
        for each in found
    ]
    return "\n".join(lines)
