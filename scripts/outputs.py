"""Write what commands print into the documents that show it. `make docs`.

A document marks the place; the command runs in docs/tutorial, where the records are::

    <!-- output: explain slow.jsonl | until Critical path -->
    ```text
    ...
    ```
    <!-- end -->
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.house.layers import ROOT
from traced_threadpool.cli.program import main as command

RECORDS: Final = ROOT / "docs/tutorial"
PLACE: Final = re.compile(
    r"(<!-- output: ([^|\n]+?)(?: \| until ([^\n]+?))? -->\n```text\n)(?:.*?\n)??(```\n<!-- end -->)", re.DOTALL
)


def documents() -> Iterator[Path]:
    """Those that show outputs."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if PLACE.search(path.read_text(encoding="utf-8")):
            yield path


def with_outputs(text: str) -> str:
    """The document with what the commands print now."""
    return PLACE.sub(lambda place: f"{place[1]}{printed(place[2], until=place[3])}\n{place[4]}", text)


def printed(words: str, *, until: str | None) -> str:
    """What a command prints, as into a file; up to a heading, if one is given."""
    before, width, out = Path.cwd(), os.environ.pop("COLUMNS", None), io.StringIO()
    os.chdir(RECORDS)
    try:
        with contextlib.redirect_stdout(out):
            status = command(shlex.split(words))
    finally:
        os.chdir(before)
        if width is not None:
            os.environ["COLUMNS"] = width
    if status:
        raise ValueError(f"`traced-threadpool {words}` ended with status {status}")
    text = out.getvalue()
    return (text.partition(until)[0] if until else text).rstrip()


if __name__ == "__main__":
    for path in documents():
        path.write_text(with_outputs(path.read_text(encoding="utf-8")), encoding="utf-8")
