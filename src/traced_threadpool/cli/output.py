"""What a command prints and writes: to a terminal in its width and colours, to anything else as plain text."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from rich.console import Console, RenderableType

from traced_threadpool.cli.errors import UNREADABLE, Failure, reader_gone
from traced_threadpool.model.atomic_write import write_whole
from traced_threadpool.report.terminal import PLAIN_WIDTH, plain, render

_IN_ASCII: Final = {"µ": "u", "…": "...", "×": "x", "─": "-", "−": "-"}


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        reader_gone()


def prepare_standard_output() -> None:
    """Make it one that can be written to, whatever it is and whatever alphabet it has."""
    if sys.stdout is None:  # closed by who started it: nothing is to be said, and a page may still be written
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the program ends
    if hasattr(sys.stdout, "reconfigure"):
        codecs.register_error(_in_ascii.__name__, _in_ascii)
        sys.stdout.reconfigure(errors=_in_ascii.__name__)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """A letter that the output's encoding lacks: our own have a stand-in, those of a node's name become `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_IN_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def print_parts(parts: Sequence[RenderableType]) -> None:
    """To a terminal with its colours and width; to anything else as plain text, without blanks at the ends of lines."""
    console = _Console(markup=False, highlight=False, emoji=False)
    known = console.width if sys.stdout.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    console.width = known if known > 0 else PLAIN_WIDTH  # COLUMNS=0, as where nobody knows
    if console.is_terminal:
        render(console, parts)
    else:
        put(plain(parts, console.width))


def print_json(document: dict[str, Any]) -> None:
    """One document, for programs."""
    put(json.dumps(document, indent=2, allow_nan=False) + "\n")


def put(text: str) -> None:
    """Text as it is."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        reader_gone()


def write(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    try:
        write_whole(path, text)
    except OSError as error:
        instead = ""
        if isinstance(error, IsADirectoryError):
            instead = f"; name a file in it, such as {str(path / 'run.html')!r}"
        elif isinstance(error, (FileNotFoundError, NotADirectoryError)):
            instead = f"; {str(path.parent)!r} is not a directory: create it, or write to another one"
        elif isinstance(error, PermissionError):
            instead = "; write to a directory of your own"
        raise Failure(f"{str(path)!r} cannot be written: {error.strerror or error}{instead}", UNREADABLE) from error
