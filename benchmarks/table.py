"""Rows into a table on the terminal: rich's where it is installed, else plain text.

>>> table = Table(title="Fruit", columns=("kind", "weight"), rows=[("pear", "7"), ("apple", "12")])
>>> print(plain(table))
Fruit
kind   weight
pear        7
apple      12
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text in columns: the first to the left, numbers to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: frozenset[int] = field(default=frozenset({0}))
    note: str = ""


def show(tables: Sequence[Table]) -> None:
    """Prints them."""
    try:
        from rich.console import Console
        from rich.table import Table as RichTable
    except ImportError:
        print("\n\n".join(plain(table) for table in tables))
        return
    # In a file or a CI log nothing is known of a width: long lines are better there than names cut short.
    console = Console(width=None if sys.stdout.isatty() else 200)
    for table in tables:
        drawn = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="left" if number in table.text_columns else "right")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn, markup=False)
        console.print()


def plain(table: Table) -> str:
    lines = [table.columns, *table.rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(table.columns))]
    text = [
        "  ".join(
            cell.ljust(width) if number in table.text_columns else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, *text, *([table.note] if table.note else [])])
