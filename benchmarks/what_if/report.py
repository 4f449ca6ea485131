"""What was foretold into tables, for the terminal and for `docs/what-if.md`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.table import Table
from benchmarks.what_if.pairs import Foretold

BEGIN: Final = "<!-- tables: written by `python -m benchmarks.what_if --write docs/what-if.md` -->"
END: Final = "<!-- end of tables -->"

SHOWN_RECORD: Final = 4
"""The number of workers of the records whose predictions are shown one by one."""

ALL: Final = "all"


def in_a_line(of_case: Sequence[Foretold]) -> str:
    """What was foretold of one case, and the two worst of it."""
    worst = sorted(of_case, key=lambda each: -abs(each.error))[:2]
    said = ", ".join(f"{each.recorded} to {each.workers} {each.error:+.0%}" for each in worst)
    return f"{of_case[0].kind}, {of_case[0].name}: median {_median(of_case):.1%}; {said}"


def tables(found: Sequence[Foretold]) -> list[Table]:
    """Medians by kind, medians by the record's workers, and each pair from one number of workers."""
    return [_by_kind(found), _by_record(found), _pairs(found)]


def write(page: Path, found: Sequence[Foretold], where: str) -> None:
    """Put the tables between their marks.

    Raises:
        ValueError: The page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{str(page)!r} has no place for the tables; expected the lines {BEGIN!r} and {END!r}")
    parts = [begin, f"Measured on {where}.", *(_markdown(table) for table in tables(found)), end]
    page.write_text(before + "\n\n".join(parts) + after, encoding="utf-8")


def _markdown(table: Table) -> str:
    aligned = [":---" if number in table.text_columns else "---:" for number in range(len(table.columns))]
    lines = [table.columns, aligned, *table.rows]
    return "\n".join(
        [f"**{table.title}**", "", *(f"| {' | '.join(line)} |" for line in lines), "", table.note]
    ).rstrip()


def _by_kind(found: Sequence[Foretold]) -> Table:
    shown = [each for each in found if each.recorded == _shown_record(found)]
    rows = []
    for kind in [*_kinds(found), ALL]:
        of_kind = [each for each in found if kind in (each.kind, ALL)]
        of_shown = [each for each in shown if kind in (each.kind, ALL)]
        rows.append(
            (
                kind,
                str(len(of_shown)),
                f"{_median(of_shown):.1%}",
                f"{_within(of_shown, 0.1):.0%}",
                f"{_worst(of_shown):.0%}",
                str(len(of_kind)),
                f"{_median(of_kind):.1%}",
                f"{_within(of_kind, 0.1):.0%}",
                f"{_worst(of_kind):.0%}",
            )
        )
    record = _shown_record(found)
    return Table(
        title="Error of the predicted makespan",
        columns=(
            "kind",
            f"pairs, recorded on {record}",
            "median",
            "within 10 %",
            "worst",
            "from any record",
            "median",
            "within 10 %",
            "worst",
        ),
        rows=rows,
        note=f"Records are of {record} workers in the left half; of each number of workers for each other one in the "
        "right half.",
    )


def _by_record(found: Sequence[Foretold]) -> Table:
    counts = sorted({each.recorded for each in found})
    rows = []
    for kind in [*_kinds(found), ALL]:
        of_kind = [each for each in found if kind in (each.kind, ALL)]
        rows.append(
            (kind, *(f"{_median([each for each in of_kind if each.recorded == count]):.1%}" for count in counts))
        )
    return Table(
        title="Median error by the number of workers that the record is of",
        columns=("kind", *(str(count) for count in counts)),
        rows=rows,
    )


def _pairs(found: Sequence[Foretold]) -> Table:
    record = _shown_record(found)
    return Table(
        title=f"Each DAG and number of workers, foretold from a record of {record} workers",
        columns=("kind", "DAG", "recorded", "workers", "predicted", "measured", "error", "spread of measured"),
        rows=[
            (
                each.kind,
                each.name,
                f"{each.recorded_seconds:.3f} s",
                str(each.workers),
                f"{each.predicted_seconds:.3f} s",
                f"{each.measured_seconds:.3f} s",
                f"{each.error:+.1%}",
                f"{each.spread:.0%}",
            )
            for each in found
            if each.recorded == record
        ],
        text_columns=frozenset({0, 1}),
    )


def _shown_record(found: Sequence[Foretold]) -> int:
    counts = {each.recorded for each in found}
    return SHOWN_RECORD if SHOWN_RECORD in counts else min(counts)


def _kinds(found: Iterable[Foretold]) -> list[str]:
    return list(dict.fromkeys(each.kind for each in found))


def _median(found: Sequence[Foretold]) -> float:
    return statistics.median(abs(each.error) for each in found)


def _within(found: Sequence[Foretold], error: float) -> float:
    return sum(abs(each.error) <= error for each in found) / len(found)


def _worst(found: Sequence[Foretold]) -> float:
    return max(abs(each.error) for each in found)
