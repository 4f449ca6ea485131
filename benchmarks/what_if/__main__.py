"""Runs DAGs on several numbers of workers, foretells each number from the record of another, and compares.

`--keep DIR` leaves the runs there, and those that are there already are not made again, so that a long measurement can
be made in parts, and a changed model tried on runs that have been measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine, table
from benchmarks.settings import say
from benchmarks.what_if import report
from benchmarks.what_if.cases import WORKERS, Case, cases
from benchmarks.what_if.kept import read_runs, write_runs
from benchmarks.what_if.pairs import Foretold, foretold
from benchmarks.what_if.run import Measured, measure, run
from benchmarks.what_if.work import Worker, worker

WARM_UP_SECONDS = 0.7
"""Until the sampler of waits looks at this process."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    asked = _parser().parse_args(arguments)
    began = time.monotonic()
    found: list[Foretold] = []
    with ExitStack() as stack:
        keep = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keep.mkdir(parents=True, exist_ok=True)
        doing = stack.enter_context(worker())
        for case in cases(asked.scale):
            if asked.only and not any(word in case.name for word in asked.only):
                continue
            file = keep / f"{case.name.replace(' ', '-').replace(',', '').replace(':', '')}.json"
            if not file.exists():
                if asked.stop_after is not None and time.monotonic() - began > asked.stop_after:
                    say("what-if: time is up; the same command goes on where this one stopped")
                    return
                write_runs(file, _runs(case, doing, asked.workers, asked.rounds))
            of_case = foretold(case, read_runs(file))
            found += of_case
            say(f"what-if: {report.in_a_line(of_case)}")
    table.show(report.tables(found))
    if asked.write is not None:
        where = machine.describe()
        report.write(asked.write, found, f"{where['CPUs usable']} × {where['CPU']}, {where['system']}")


def _runs(case: Case, doing: Worker, workers: Sequence[int], rounds: int) -> dict[int, list[Measured]]:
    """By workers, `rounds` runs of a case. The numbers of workers take turns."""
    module, end = case.module(doing), case.dag.end
    warm_up_ends = time.monotonic() + WARM_UP_SECONDS
    while time.monotonic() < warm_up_ends:
        run(module, end, max(workers))
    runs: dict[int, list[Measured]] = {each: [] for each in workers}
    for _ in range(rounds):
        for each, measured in runs.items():
            measured.append(measure(module, end, each))
    return runs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.what_if", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each is run (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much work (default: 1, 2 to 4 s on one worker)")
    parser.add_argument("--workers", type=_numbers, default=WORKERS, metavar="N,...", help=f"default: {WORKERS}")
    parser.add_argument("--only", nargs="*", default=(), metavar="WORD", help="the cases that have one of these words")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where runs go, and are looked for first")
    parser.add_argument("--stop-after", type=float, metavar="SECONDS", help="with --keep: end early, to go on later")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this page")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        numbers = ()
    if len(numbers) < 2 or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"expected two numbers or more from 1 on, such as 1,4,16, not {text!r}")
    return numbers


if __name__ == "__main__":
    main()
