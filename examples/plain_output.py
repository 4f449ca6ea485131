"""Standard output for what is no terminal: without the blanks that tables and their titles are filled up with.

>>> printed = io.StringIO()
>>> console = Console(file=WithoutTrailingBlanks(printed), width=20)
>>> console.print("title     ")
>>> printed.getvalue()
'title\\n'
"""

import io
import os
import sys
from typing import Any, TextIO

from rich.console import Console


class WithoutTrailingBlanks(io.TextIOBase):
    """Hands on whole lines, each without the blanks at its end."""

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # of what it hands on to
        return getattr(self._to, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        self._to.write("".join(f"{line.rstrip()}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        if not self.closed:
            self._to.flush()


def console(piped_width: int) -> Console:
    """A terminal in its own width; anything else as plain text, so wide unless COLUMNS says otherwise."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    width = None if "COLUMNS" in os.environ else piped_width
    plain: Any = WithoutTrailingBlanks(sys.stdout)  # has what rich asks of a file, and no more
    return Console(file=plain, width=width, highlight=False)
