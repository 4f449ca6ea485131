"""Write the module map of docs/architecture.md: what each module is for, and what its package may import. `make docs`.

What a module is for is the first sentence of its docstring; what may be imported is the table that tests hold
(tests/house/layers.py).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.house.layers import FILES, MAY_IMPORT, PACKAGE, ROOT, component

DOCUMENT = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- module map: begin (make docs) -->", "<!-- module map: end -->"


def responsibility(file: Path) -> str:
    """The first sentence of a module's docstring, as a cell of a table."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    sentence = re.match(r"(.*?[^.\s])\.(?=\s|$)", first)
    return (sentence[1] if sentence else first).rstrip(":").replace("|", "\\|")


def module_map() -> str:
    """A table for the modules at the top, and one for each package, lowest layer first."""
    parts = []
    for place, may_import in MAY_IMPORT.items():
        files = [file for file in FILES if component(file) == place]
        if not files:
            continue
        package = [file for file in files if file.parent != PACKAGE]
        rule = ", ".join(f"`{each}`" for each in MAY_IMPORT if each in may_import) or "nothing of the package"
        if not package:
            parts.append(f"\n**`{place}.py`** {responsibility(files[0])}. May import: {rule}.\n")
            continue
        parts.append(f"\n**`{place}/`** {responsibility(PACKAGE / place / '__init__.py')}. May import: {rule}.\n")
        parts.append("\n| module | responsibility |\n|---|---|\n")
        parts += [f"| `{file.name}` | {responsibility(file)} |\n" for file in package if file.stem != "__init__"]
    return "".join(parts)


def with_map(text: str) -> str:
    """The document with the map of this tree between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{DOCUMENT.name} has no place for the module map: expected {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{module_map()}\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_map(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
