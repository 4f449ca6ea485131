"""What goes wrong: a sentence on standard error, and an exit status. `docs/command-line.md` lists them."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

import click

PROGRAM: Final = "traced-threadpool"

UNREADABLE: Final = 3
NO_SUCH_RUN: Final = 4
EXTRA_MISSING: Final = 5
INTERRUPTED: Final = 130
READER_GONE: Final = 141


class Failure(click.ClickException):
    """What the user can fix, in one sentence."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def reader_gone() -> NoReturn:
    """End quietly: whoever read the output has closed it."""
    print_no_more()
    raise SystemExit(READER_GONE)


def print_no_more() -> None:
    """Nothing more can be written, also not by the interpreter when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
