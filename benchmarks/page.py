"""Tables into a Markdown page: each between its own two marks, so that what others wrote on the page stays.

>>> from benchmarks.table import Table
>>> fruit = Table(title="Fruit: sweet", columns=("kind", "weight"), rows=[("pear", "7")])
>>> print(replaced("# Page", [fruit], "One machine."))
# Page
<BLANKLINE>
<!-- table: Fruit: sweet -->
### Fruit: sweet
<BLANKLINE>
| kind | weight |
|---|---:|
| pear | 7 |
<BLANKLINE>
One machine.
<!-- end -->
>>> replaced(replaced("# Page", [fruit], "One machine."), [fruit], "Two.").count("pear")
1
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.table import Table


def write(path: Path, tables: Sequence[Table], machine: Mapping[str, object], versions: Mapping[str, str]) -> None:
    """Puts the tables on the page, with where they come from."""
    origin = f"{machine['CPUs usable']} × {machine['CPU']}; " + ", ".join(
        f"{name} {version}" for name, version in versions.items()
    )
    before = path.read_text(encoding="utf-8") if path.exists() else "# Performance"
    path.write_text(replaced(before, tables, origin).rstrip() + "\n", encoding="utf-8")


def replaced(text: str, tables: Sequence[Table], origin: str) -> str:
    """The page with these tables in the places of those of the same title; new ones at its end."""
    for table in tables:
        block = f"<!-- table: {table.title} -->\n{_markdown(table)}\n\n{origin}\n<!-- end -->"
        pattern = re.compile(rf"<!-- table: {re.escape(table.title)} -->\n.*?<!-- end -->", re.DOTALL)
        text, found = pattern.subn(lambda _, block=block: block, text, count=1)  # type: ignore[misc]  # a default
        if not found:
            text = f"{text.rstrip()}\n\n{block}"
    return text


def _markdown(table: Table) -> str:
    rule = ["---" if number in table.text_columns else "---:" for number in range(len(table.columns))]
    lines = [_row(table.columns), f"|{'|'.join(rule)}|", *map(_row, table.rows)]
    return "\n".join([f"### {table.title}", "", *lines, *(["", table.note] if table.note else [])])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
