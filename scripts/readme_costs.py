"""Write the README's table of measured costs from the tables of docs/performance.md. `make docs`."""

from __future__ import annotations

import re
from typing import Final

from tests.house.layers import ROOT

README: Final = ROOT / "README.md"
MEASURED: Final = ROOT / "docs/performance.md"
BEGIN, END = "<!-- costs: begin (make docs) -->", "<!-- costs: end -->"

OURS, DEFAULT, TRACED = "ours, untraced", "ours, default", "ours, traced"
THEIRS, THEIR_TRACER, HASHED = "Hamilton's adapter", "Hamilton's + its tracer", "Hamilton's + its tracer, hashed before"


class Measured:
    """The tables of a section, by row and column: one value for each table."""

    def __init__(self, text: str, section: str) -> None:
        self._tables = [
            [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines() if row.startswith("|")]
            for table in re.findall(rf"<!-- table: {section}.*?<!-- end -->", text, re.DOTALL)
        ]

    def values(self, row: str, column: str) -> list[float]:
        found = []
        for heading, _, *rows in self._tables:
            [cells] = [each for each in rows if each[0] == row]
            found.append(float(cells[heading.index(column)].replace(",", "")))
        return found

    def range(self, row: str, column: str, form: str = ",.0f") -> str:
        """The least and the greatest."""
        found = self.values(row, column)
        low, high = format(min(found), form), format(max(found), form)
        return low if low == high else f"{low}-{high}"


def costs(text: str) -> str:
    """A table: what, Hamilton's adapter, this one."""
    times, memory = Measured(text, "overhead: "), Measured(text, "memory: ")
    wall, ratio, peak = "wall µs/node", "paired", "peak bytes/node"
    rows = [
        (
            "time for a node that does nothing",
            f"{times.range(THEIRS, wall)} µs",
            f"{times.range(OURS, wall)} µs without telemetry ({times.range(OURS, ratio, '.2f')} ×), "
            f"{times.range(DEFAULT, wall)} µs by default ({times.range(DEFAULT, ratio, '.1f')} ×)",
        ),
        (
            "the same, traced",
            f"{times.range(THEIR_TRACER, wall)} µs, or {times.range(HASHED, wall)} µs where it need not hash sources",
            f"{times.range(TRACED, wall)} µs, with metrics",
        ),
        (
            "memory for a node of a run, at its peak",
            f"{memory.range(THEIRS, peak)} bytes",
            f"{memory.range(OURS, peak)} bytes without telemetry, {memory.range(DEFAULT, peak)} by default",
        ),
    ]
    heading = ("", "Hamilton's", "this one")
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, ("---", "---", "---"), *rows))


def with_costs(readme: str, measured: str) -> str:
    """The README with the table of these measurements."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{costs(measured)}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(
        with_costs(README.read_text(encoding="utf-8"), MEASURED.read_text(encoding="utf-8")), encoding="utf-8"
    )
