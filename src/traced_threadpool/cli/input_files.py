"""Trace files into recorded runs, and which of them is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from traced_threadpool.analysis.trace_file import TraceFileError, read_runs
from traced_threadpool.cli.errors import NO_SUCH_RUN, UNREADABLE, Failure
from traced_threadpool.model.formatting import listed
from traced_threadpool.model.recorded_run import RecordedRun

STANDARD_INPUT: Final = Path("-")
LARGE_BYTES: Final = 8_000_000
"""From this size on, the reading of a file is shown on a terminal."""


class ChosenRun:
    """A run of a file, and how the output names it."""

    def __init__(self, file: Path, which: str, option: str = "--run") -> None:
        """Read the file and choose the run.

        Raises:
            Failure: The file cannot be read, or has no such run.
        """
        self._file, self._which, self._option = file, which, option
        self._runs = read(file)
        self._number = pick(self._runs, which, file)

    @property
    def run(self) -> RecordedRun:
        return self._runs[self._number]

    @property
    def line(self) -> str:
        """Which run it is, and how to choose another."""
        where = shown(self._file)
        if len(self._runs) == 1:
            return f"{where}: 1 run"
        why = ", the longest" if self._which == "longest" else ""
        return f"{where}: run {self._number + 1:,} of {len(self._runs):,}{why} ({self._option} picks another)"

    @property
    def json(self) -> dict[str, Any]:
        """The same for programs, and the file's other runs."""
        runs = [
            {"number": index, "id": run.id, "name": run.name, "outcome": run.outcome, "duration": run.duration_ns / 1e9}
            for index, run in enumerate(self._runs, 1)
        ]
        return {"file": str(self._file), "run_number": self._number + 1, "runs": runs}


def of_name(runs: Sequence[RecordedRun], name: str | None, file: Path) -> Sequence[RecordedRun]:
    """The runs, if one of them has the name that is asked for.

    Raises:
        Failure: None has.
    """
    known = list(dict.fromkeys(run.name for run in runs))
    if name is not None and name not in known:
        raise Failure(f"{shown(file)!r} has no run of the name {name!r}; it has {listed(known)}", NO_SUCH_RUN)
    return runs


def shown(file: Path) -> str:
    """A file's name in a sentence."""
    return "standard input" if file == STANDARD_INPUT else str(file)


def is_same_file(file: Path, other: Path) -> bool:
    """Whether two names lead to one file."""
    try:
        return file.samefile(other)
    except OSError:  # one of them is not there
        return False


def read(file: Path) -> list[RecordedRun]:
    """All runs of a file.

    Raises:
        Failure: It cannot be read, or holds no run.
    """
    try:
        if file == STANDARD_INPUT:
            with _standard_input() as stream:
                return read_runs(stream)
        with _progress(file) as advance:
            return read_runs(file, progress=advance)
    except TraceFileError as error:
        raise Failure(str(error), UNREADABLE) from error


def _standard_input() -> BufferedReader:
    try:
        return open(0, "rb", closefd=False)
    except OSError as error:
        raise Failure(f"standard input cannot be read: {error.strerror or error}", UNREADABLE) from error


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int], None] | None]:
    """On a terminal, how much of a large file has been read."""
    console = Console(stderr=True)
    try:
        size = file.stat().st_size
    except OSError:
        size = 0
    if size < LARGE_BYTES or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=size)
        yield lambda read_bytes: progress.update(task, completed=read_bytes)


def pick(runs: Sequence[RecordedRun], which: str, file: Path) -> int:
    """The index of the run that is meant.

    Raises:
        Failure: There is no such run, or more than one.
    """
    if which == "longest":
        return max(range(len(runs)), key=lambda index: runs[index].duration_ns)
    if which == "last":
        return len(runs) - 1
    if which.isdecimal() and 1 <= int(which) <= len(runs):
        return int(which) - 1
    found = [index for index, run in enumerate(runs) if run.id == which] or [
        index for index, run in enumerate(runs) if which and run.id.startswith(which)
    ]
    if len(found) == 1:
        return found[0]
    have = "1 run" if len(runs) == 1 else f"{len(runs):,} runs, 1 to {len(runs)}"
    ids = ", ".join(run.id for run in runs[:5]) + (", ..." if len(runs) > 5 else "")
    what = f"{len(found)} runs whose ids begin with" if found else "no run"
    where = "standard input" if file == STANDARD_INPUT else repr(str(file))
    raise Failure(f"{where} has {what} {which!r}; it has {have} (ids: {ids})", NO_SUCH_RUN)
