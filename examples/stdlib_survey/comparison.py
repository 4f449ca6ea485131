"""Two ways to run the same pipeline into how long each one takes.

Rule: the two take turns, and the one that goes first changes from round to round, so that neither gets the
colder caches or the busier minute. What counts is the median. Both must come to the same report.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from .records import SurveyReport

Way = Callable[[], SurveyReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Seconds of every run, in the order of the rounds, and the report that all of them came to."""

    hamilton_seconds: tuple[float, ...]
    ours_seconds: tuple[float, ...]
    report: SurveyReport

    @property
    def ratio(self) -> float:
        """How many times as long Hamilton's own adapter takes."""
        return median(self.hamilton_seconds) / median(self.ours_seconds)


def compare(hamilton: Way, ours: Way, *, rounds: int, clock: Callable[[], float] = time.perf_counter) -> Comparison:
    """Run both in turn; ours goes first in the first round.

    Raises:
        RuntimeError: the reports differ.
    """
    hamilton_seconds: list[float] = []
    ours_seconds: list[float] = []
    reports = []
    for number in range(rounds):
        turns = [(ours, ours_seconds), (hamilton, hamilton_seconds)]
        for way, seconds in turns if number % 2 == 0 else reversed(turns):
            started = clock()
            reports.append(way())
            seconds.append(clock() - started)
    if any(report != reports[0] for report in reports):
        raise RuntimeError("the two adapters came to different reports; expected the same from every run")
    return Comparison(hamilton_seconds=tuple(hamilton_seconds), ours_seconds=tuple(ours_seconds), report=reports[0])


def comparison_table(comparison: Comparison) -> Table:
    """Side by side, with the ratio of the medians."""
    table = Table(title="The same pipeline on both adapters", title_justify="left")
    for heading in ("", "Hamilton's own", "traced_threadpool"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = zip(comparison.hamilton_seconds, comparison.ours_seconds, strict=True)
    for number, (hamilton, ours) in enumerate(rows, 1):
        table.add_row(f"round {number}", f"{hamilton:.2f} s", f"{ours:.2f} s")
    table.add_section()
    table.add_row("median", f"{median(comparison.hamilton_seconds):.2f} s", f"{median(comparison.ours_seconds):.2f} s")
    table.add_row("ratio", f"{comparison.ratio:.2f}", "1")
    return table
