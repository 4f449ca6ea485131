"""Runs each case on several numbers of workers, foretells these from a record of another one, and compares.

python -m benchmarks.predictions --write docs/predictions.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import machine
from benchmarks.marked import write_between
from benchmarks.predictions.cases import CASES, Case
from benchmarks.predictions.measure import Measured, measure
from benchmarks.settings import say
from benchmarks.what_if.work import Worker, worker

WORKERS: Final = (1, 2, 4, 8, 16)
RECORDED: Final = 6
NEAR: Final = 0.15
NARROW: Final = 2.0

BEGIN: Final = "<!-- table: written by `python -m benchmarks.predictions --write docs/predictions.md` -->"
END: Final = "<!-- end of table -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A case and a number of workers: what was foretold, and the median of what was measured."""

    case: Case
    workers: int
    low: float
    foretold: float
    high: float
    measured: float

    @property
    def error(self) -> float:
        return self.foretold / self.measured - 1

    @property
    def is_right(self) -> bool:
        """Near enough, or within a range that is narrow enough."""
        return abs(self.error) <= NEAR or (self.low <= self.measured <= self.high <= NARROW * self.low)


def pairs(case: Case, doing: Worker, rounds: int) -> list[Pair]:
    """The record is that of the run of median length; numbers of workers take turns."""
    runs: dict[int, list[Measured]] = {each: [] for each in (*WORKERS, RECORDED)}
    for _ in range(rounds):
        for each, measured in runs.items():
            measured.append(measure(case, doing, each))
    record = sorted(runs[RECORDED], key=lambda each: each.seconds)[rounds // 2]
    found = []
    for each in WORKERS:
        low, best, high = record.foretold(each)
        seconds = median(measured.seconds for measured in runs[each])
        found.append(Pair(case=case, workers=each, low=low, foretold=best, high=high, measured=seconds))
    return found


def markdown(found: Sequence[Pair], where: str) -> str:
    """The table, and how many are right."""
    right = sum(each.is_right for each in found)
    lines = [
        f"{right} of {len(found)} ({right / len(found):.0%}) are right. Measured on {where}.",
        "",
        "| kind | case | workers | predicted | range | measured | error | |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: | :--- |",
    ]
    for each in found:
        between = f"{each.low:.3f} to {each.high:.3f} s" if each.high - each.low > 0.0005 else ""
        lines.append(
            f"| {each.case.kind} | {each.case.name} | {each.workers} | {each.foretold:.3f} s | {between} | "
            f"{each.measured:.3f} s | {each.error:+.1%} | {'' if each.is_right else 'missed'} |"
        )
    return "\n".join(lines)


def write(page: Path, table: str) -> None:
    """Puts the table between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    write_between(page, BEGIN, END, table)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predictions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each is run (default: 3)")
    parser.add_argument("--only", nargs="*", default=(), metavar="WORD", help="the cases that have one of these words")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this page")
    asked = parser.parse_args(arguments)
    found: list[Pair] = []
    with worker() as doing:
        for case in CASES.values():
            if asked.only and not any(word in f"{case.kind}: {case.name}" for word in asked.only):
                continue
            of_case = pairs(case, doing, asked.rounds)
            found += of_case
            errors = ", ".join(f"{each.workers}: {each.error:+.0%}" for each in of_case)
            say(f"predictions: {case.kind}, {case.name}: {errors}")
            if asked.write is not None:  # each as soon as it is there: it takes long
                write(asked.write, markdown(found, _where(asked.rounds)))
    if asked.write is None:
        print(markdown(found, _where(asked.rounds)))


def _where(rounds: int) -> str:
    where = machine.describe()
    described = f"{where['CPUs usable']} × {where['CPU']}, {where['system']}"
    return f"{described}; each number of workers {'once' if rounds == 1 else f'{rounds} times'}"


if __name__ == "__main__":
    main()
