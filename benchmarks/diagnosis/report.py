"""Diagnosed runs into the confusion matrix, for the terminal and for `docs/diagnosis.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.diagnosis.cases import Case
from benchmarks.marked import write_between
from benchmarks.table import Table
from traced_threadpool.analysis.diagnosis.causes import CAUSES, Cause, Diagnosis
from traced_threadpool.model.recorded_run import RecordedRun

BEGIN: Final = "<!-- matrix: written by `python -m benchmarks.diagnosis --write docs/diagnosis.md` -->"
END: Final = "<!-- end of matrix -->"


COMPANY: Final = 0.25
"""If other programs had this part of the CPUs meanwhile, it is right that nodes lacked them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A run, what was planted in it, and what is said of it."""

    case: Case
    seed: int
    run: RecordedRun
    diagnosis: Diagnosis
    company: float = 0.0
    """Which part of the CPUs other programs had."""

    @property
    def is_right(self) -> bool:
        """Whether what was planted comes first, or that other programs took the CPUs while they did."""
        return self.diagnosis.cause in self.case.causes or self.is_company

    @property
    def is_company(self) -> bool:
        """Whether it says so of others in place of what was planted, and others had as much of the CPUs."""
        cause = self.diagnosis.cause
        return cause == "processor_starved" and cause not in self.case.causes and self.company >= COMPANY

    @property
    def in_a_line(self) -> str:
        found = ", ".join(
            each.cause
            if each.gain_seconds is None
            else f"{each.cause} {each.gain_seconds * 1e9 / self.run.duration_ns:.0%}"
            for each in self.diagnosis.findings
        )
        others = f" (others had {self.company:.0%} of the CPUs)" if self.company >= COMPANY else ""
        return f"{'right' if self.is_right else 'WRONG'} {self.case.name} {self.seed}: {found}{others}"


def tables(judged: Sequence[Judged]) -> list[Table]:
    """What was found, by program. The matrix itself is too wide for a terminal."""
    rows = [
        [
            case.name,
            " or ".join(case.causes),
            ", ".join(f"{cause} {number}" for cause, number in counts.most_common()),
            f"{right} of {counts.total()}",
        ]
        for case, counts, right in _rows(judged)
    ]
    return [
        Table(
            title="First finding, by what was planted",
            columns=("program", "planted", "found", "right"),
            rows=rows,
            text_columns=frozenset({0, 1, 2}),
            note=_total(judged),
        )
    ]


def write(page: Path, judged: Sequence[Judged], where: str) -> None:
    """Put the matrix between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    write_between(page, BEGIN, END, _markdown(judged, where))


def _markdown(judged: Sequence[Judged], where: str) -> str:
    used = {each.diagnosis.cause for each in judged} | {cause for each in judged for cause in each.case.causes}
    columns = [cause for cause in CAUSES if cause in used]
    numbers = {cause: str(number) for number, cause in enumerate(columns, 1)}
    lines = [
        f"First findings: {', '.join(f'{numbers[cause]} `{cause}`' for cause in columns)}.",
        "",
        f"| program | planted | {' | '.join(numbers.values())} | right |",
        f"|---|---|{'---:|' * (len(columns) + 1)}",
    ]
    for case, counts, right in _rows(judged):
        planted = " or ".join(f"{numbers[cause]} `{cause}`" for cause in case.causes)
        cells = [str(counts[column]) if counts[column] else "" for column in columns]
        lines.append(f"| {' | '.join([f'`{case.name}`', planted, *cells, f'{right} of {counts.total()}'])} |")
    seeds = sorted({each.seed for each in judged})
    said = [f"- {each.in_a_line}" for each in judged if not each.is_right]
    total = f"{_total(judged)}. Seeds {seeds[0]} to {seeds[-1]}, on {where}."
    return "\n".join([*lines, "", total, *([""] if said else []), *said])


def _rows(judged: Sequence[Judged]) -> list[tuple[Case, Counter[Cause], int]]:
    """Each program, how often each cause came first, and how often that was right."""
    rows = []
    for case in {each.case.name: each.case for each in judged}.values():
        of_case = [each for each in judged if each.case is case]
        counts = Counter(each.diagnosis.cause for each in of_case)
        rows.append((case, counts, sum(each.is_right for each in of_case)))
    return rows


def _total(judged: Sequence[Judged]) -> str:
    right = sum(each.is_right for each in judged)
    total = f"{right} of {len(judged)} first findings are right ({right / max(1, len(judged)):.1%})"
    company = sum(each.is_company for each in judged)
    return f"{total}, of which {company} name other programs, which had the CPUs" if company else total
