"""Diagnosed runs into the confusion matrix, for the terminal and for `docs/diagnosis.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.diagnosis.cases import Case
from benchmarks.table import Table
from traced_threadpool.analysis.causes import CAUSES, Cause, Diagnosis
from traced_threadpool.analysis.record import RecordedRun

BEGIN: Final = "<!-- matrix: written by `python -m benchmarks.diagnosis --write docs/diagnosis.md` -->"
END: Final = "<!-- end of matrix -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A run, what was planted in it, and what is said of it."""

    case: Case
    seed: int
    run: RecordedRun
    diagnosis: Diagnosis

    @property
    def is_right(self) -> bool:
        return self.diagnosis.cause in self.case.causes

    @property
    def in_a_line(self) -> str:
        found = ", ".join(
            each.cause
            if each.gain_seconds is None
            else f"{each.cause} {each.gain_seconds / self.run.duration_ns:.0%}"
            if not self.run.duration_ns
            else f"{each.cause} {each.gain_seconds * 1e9 / self.run.duration_ns:.0%}"
            for each in self.diagnosis.findings
        )
        return f"{'right' if self.is_right else 'WRONG'} {self.case.name} {self.seed}: {found}"


def tables(judged: Sequence[Judged]) -> list[Table]:
    """The matrix, and the runs that were misjudged."""
    columns = _columns(judged)
    rows = [[name, planted, *cells, right] for name, planted, cells, right in _rows(judged, columns)]
    return [
        Table(
            title="First finding, by what was planted",
            columns=("program", "planted", *columns, "right"),
            rows=rows,
            text_columns=frozenset({0, 1}),
            note=_total(judged),
        )
    ]


def write(page: Path, judged: Sequence[Judged], where: str) -> None:
    """Put the matrix between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{str(page)!r} has no place for the matrix; expected the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{begin}\n\n{_markdown(judged, where)}\n{end}{after}", encoding="utf-8")


def _markdown(judged: Sequence[Judged], where: str) -> str:
    columns = _columns(judged)
    head = ["program", "planted", *(f"`{column}`" for column in columns), "right"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [
        f"| {' | '.join([name, f'`{planted}`', *cells, right])} |"
        for name, planted, cells, right in _rows(judged, columns)
    ]
    wrong = [each for each in judged if not each.is_right]
    said = [f"- {each.in_a_line}" for each in wrong]
    return "\n".join([*lines, "", f"{_total(judged)}. Measured on {where}.", *([""] if said else []), *said, ""])


def _columns(judged: Sequence[Judged]) -> list[Cause]:
    used = {each.diagnosis.cause for each in judged} | {each.case.causes[0] for each in judged}
    return [cause for cause in CAUSES if cause in used]


def _rows(judged: Sequence[Judged], columns: Sequence[Cause]) -> list[tuple[str, str, list[str], str]]:
    rows = []
    for case in {each.case.name: each.case for each in judged}.values():
        of_case = [each for each in judged if each.case is case]
        counts = Counter(each.diagnosis.cause for each in of_case)
        right = sum(each.is_right for each in of_case)
        cells = [str(counts[column]) if counts[column] else "" for column in columns]
        rows.append((case.name, " or ".join(case.causes), cells, f"{right} of {len(of_case)}"))
    return rows


def _total(judged: Sequence[Judged]) -> str:
    right = sum(each.is_right for each in judged)
    return f"{right} of {len(judged)} first findings are right ({right / max(1, len(judged)):.1%})"
