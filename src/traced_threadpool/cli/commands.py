"""The command line: words into one of six commands, and what goes wrong into a sentence and an exit status.

Exit statuses, also in `docs/command-line.md`:

====  =======================================================================
0     done
2     the words of the command make no sense
3     a file cannot be read, holds no run, or cannot be written; nor can standard output
4     the file has no such run
5     an extra is not installed
130   interrupted
141   whoever read the output has closed it
====  =======================================================================
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from traced_threadpool._version import __version__
from traced_threadpool.analysis.difference import compare
from traced_threadpool.analysis.trace_file import TraceFileError, read_runs
from traced_threadpool.engine.priorities import PriorityName
from traced_threadpool.model.atomic_write import write_whole
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.as_json import (
    difference_json,
    explanation_json,
    prediction_json,
    run_json,
)
from traced_threadpool.report.explanation import explain as explain_run
from traced_threadpool.report.page import page
from traced_threadpool.report.prediction import Settings, predict
from traced_threadpool.report.text import difference_text, explanation_text, prediction_text
from traced_threadpool.slo import Objective, slo_file
from traced_threadpool.slo.burn_rate import RUNBOOK
from traced_threadpool.telemetry import names

PROGRAM: Final = "traced-threadpool"

UNREADABLE: Final = 3
NO_SUCH_RUN: Final = 4
EXTRA_MISSING: Final = 5
INTERRUPTED: Final = 130
READER_GONE: Final = 141

PIPED_WIDTH: Final = 120
LATENCY_OBJECTIVE: Final = "99"
LARGE_BYTES: Final = 8_000_000
"""From this size on, a file's reading is shown as it goes on, on a terminal."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Failure(click.ClickException):
    """What the user can mend, in one sentence."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        _reader_gone()


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    try:
        if sys.stdout is None:  # closed by who started it: nothing is to be said, and a page may still be written
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the program ends
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter of a node's name
        with _without_collecting():
            status = command.main(words, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:  # what click makes of Ctrl-C; it has ended the line
        return INTERRUPTED
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except Failure as error:
        click.echo(f"{PROGRAM}: {error.format_message()}", err=True)
        return error.status
    except click.ClickException as error:
        click.echo(f"{PROGRAM}: {error.format_message()}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _reader_gone()
    except OSError as error:  # of standard output, since files have a `Failure` of their own
        click.echo(f"{PROGRAM}: standard output cannot be written: {error.strerror or error}", err=True)
        _print_no_more()
        return UNREADABLE


@contextmanager
def _without_collecting() -> Iterator[None]:
    """A record is a million objects and no cycle: to look through them again and again takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _reader_gone() -> NoReturn:
    """Ends quietly."""
    _print_no_more()
    raise SystemExit(READER_GONE)


def _print_no_more() -> None:
    """Nothing more can be written, also not by the interpreter when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
def command() -> None:
    """Why was a run slow, and what would help? And when to be told.

    Reads runs from a trace: the file that setup_telemetry(file=...) writes, JSON downloaded from Jaeger,
    or OTLP JSON from Tempo or a collector; - is standard input. The commands that read a file take the longest
    run in it; --run picks another. The command slo reads nothing: it writes alert rules.

    \b
    Exit status: 0 done, 2 wrong usage, 3 a file or the output cannot be read or written, 4 no such run,
    5 an extra is not installed, 130 interrupted, 141 the reader of the output has gone.
    """


STANDARD_INPUT: Final = Path("-")

_file = click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def _which_run(name: str = "--run", parameter: str = "which", of: str = "FILE") -> Callable[[_Command], _Command]:
    return click.option(
        name,
        parameter,
        metavar="WHICH",
        default="longest",
        help=f"The run in {of}: its number (from 1, by start), its id or the beginning of it, 'last', or 'longest' "
        "(the default).",
    )


@command.command()
@_file
@_which_run()
@_as_json
def explain(file: Path, which: str, as_json: bool) -> None:
    """Say what a run's time went to, and what would help."""
    runs = _read(file)
    number = _pick(runs, which, file)
    explanation = explain_run(runs[number])
    if as_json:
        _print_json({**explanation_json(explanation), **_where(file, runs, number)})
        return
    _print([_which_it_is(file, runs, number, which), *explanation_text(explanation)])


class _WholeNumber(click.IntRange):
    name = "whole number"  # what click calls it in a sentence


def _workers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        numbers = tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of whole numbers; write it as 4,8,16") from None
    if any(number < 1 for number in numbers):
        raise click.BadParameter(f"{value!r} has a number below 1; a pool has at least one worker")
    return numbers


def _faster(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    factors = {}
    for value in values:
        name, equals, factor = value.rpartition("=")
        try:
            number = float(factor.removesuffix("x"))
        except ValueError:
            number = 0.0
        if not (equals and name and 0 < number < float("inf")):
            raise click.BadParameter(f"{value!r} is no node and a factor above 0; write it as parse=2x")
        if "," in name and "=" in name:
            raise click.BadParameter(f"{value!r} has more than one node; write --faster before each")
        if name in factors:
            raise click.BadParameter(f"{name!r} is there twice; write it once, with the factor that is meant")
        factors[name] = number
    return factors


@command.command(name="what-if")
@_file
@click.option("--workers", callback=_workers, metavar="N,N,...", help="Numbers of workers, such as 4,8,16.")
@click.option(
    "--faster",
    callback=_faster,
    multiple=True,
    metavar="NODE=FACTORx",
    help="A node that takes a part of its time: parse=2x. May be repeated.",
)
@click.option("--without", multiple=True, metavar="NODE", help="A node that takes no time. May be repeated.")
@click.option("--no-gil", is_flag=True, help="Nothing waits for the GIL.")
@click.option("--cpus", type=_WholeNumber(min=1), metavar="N", help="The machine's number of CPUs.")
@click.option(
    "--priority",
    type=click.Choice(["fifo", "critical_path"]),
    help="Which of the ready nodes goes first; the record's own durations are known.",
)
@_which_run()
@_as_json
def what_if(
    file: Path,
    workers: tuple[int, ...],
    faster: dict[str, float],
    without: tuple[str, ...],
    no_gil: bool,
    cpus: int | None,
    priority: PriorityName | None,
    which: str,
    as_json: bool,
) -> None:
    """Predict how long a run would take with other settings.

    The record is replayed through the scheduler in virtual time. The options combine.
    """
    runs = _read(file)
    number = _pick(runs, which, file)
    settings = Settings(workers=workers, faster=faster, without=without, cpus=cpus, gil=not no_gil, priority=priority)
    try:
        prediction = predict(runs[number], settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        _print_json({**prediction_json(prediction), **_where(file, runs, number)})
        return
    _print([_which_it_is(file, runs, number, which), *prediction_text(prediction)])


@command.command()
@_file
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="The page to write, - for standard output; by default FILE with the ending .html.",
)
@_which_run()
def report(file: Path, output: Path | None, which: str) -> None:
    """Write an HTML page about a run: one file, which needs no network."""
    if output is None:
        if file == STANDARD_INPUT:
            raise click.UsageError("standard input has no name for the page to be called after; give one with -o")
        output = file.with_suffix(".html")
    to_standard_output = str(output) == "-"
    if not to_standard_output and _are_one(file, output):
        raise click.UsageError(f"{str(file)!r} would be overwritten; name another file with -o")
    runs = _read(file)
    number = _pick(runs, which, file)
    written = page(explain_run(runs[number]))
    if to_standard_output:
        _put(written)
        return
    _write(output, written)
    _print([_which_it_is(file, runs, number, which), f"written to {output}"])


@command.command()
@click.argument("before", type=click.Path(allow_dash=True, path_type=Path))
@click.argument("after", type=click.Path(allow_dash=True, path_type=Path))
@_which_run("--run-before", "which_before", "BEFORE")
@_which_run("--run-after", "which_after", "AFTER")
@_as_json
def diff(before: Path, after: Path, which_before: str, which_after: str, as_json: bool) -> None:
    """Compare two runs: which nodes got slower, and whether it matters."""
    runs_before, runs_after = _read(before), _read(after)
    first = _pick(runs_before, which_before, before)
    second = _pick(runs_after, which_after, after)
    difference = compare(runs_before[first], runs_after[second])
    if as_json:
        _print_json(
            {
                **difference_json(difference),
                "before": {**run_json(runs_before[first]), **_where(before, runs_before, first)},
                "after": {**run_json(runs_after[second]), **_where(after, runs_after, second)},
            }
        )
        return
    _print(
        [
            _which_it_is(before, runs_before, first, which_before, "--run-before"),
            _which_it_is(after, runs_after, second, which_after, "--run-after"),
            *difference_text(difference),
        ]
    )


@command.command()
@click.option(
    "-d",
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("traced-threadpool-demo"),
    show_default=True,
    help="Where to write the trace and the page.",
)
@click.option("--workers", type=_WholeNumber(1, 256), default=4, show_default=True, help="Worker threads.")
def demo(directory: Path, workers: int) -> None:
    """Run a small pipeline, and explain it."""
    try:
        from traced_threadpool.demo import run_demo
    except ModuleNotFoundError as error:
        raise Failure(
            f"{error.name} is not installed; the demo needs the extra 'report': pip install "
            "'traced_threadpool[report]'",
            EXTRA_MISSING,
        ) from error
    trace, html = directory / "trace.jsonl", directory / "run.html"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        trace.unlink(missing_ok=True)
        run_demo(trace, workers)
    except OSError as error:
        raise Failure(f"{str(directory)!r} cannot be written to: {error.strerror or error}", UNREADABLE) from error
    runs = _read(trace)
    number = _pick(runs, "longest", trace)
    explanation = explain_run(runs[number])
    _write(html, page(explanation))
    _print(
        [
            *explanation_text(explanation),
            "",
            f"the trace: {trace}",
            f"the page:  {html}",
            f"to go on:  {PROGRAM} what-if {trace} --workers {2 * workers},{4 * workers}",
        ]
    )


def _bounds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...]:
    if value is None:
        return names.RUN_BUCKETS
    try:
        bounds = tuple(float(word) for word in value.split(","))
    except ValueError:
        bounds = ()
    if not bounds or not all(low < high for low, high in zip((0.0, *bounds), (*bounds, float("inf")), strict=True)):
        raise click.BadParameter(f"{value!r} is no list of positive, rising numbers of seconds; write it as 1,10,60")
    return bounds


@command.command()
@click.option(
    "--run", "run_name", metavar="NAME", help="The run's name, as in run_name=. Without it: every run by itself."
)
@click.option("--pool", metavar="NAME", help="The pool's name, as in name=. Without it: every pool by itself.")
@click.option("--objective", required=True, metavar="PERCENT", help="How many runs do not fail: 99.9, say.")
@click.option("--latency", metavar="DURATION", help="How long a run may take: 30s, say. A bound of the histogram.")
@click.option(
    "--latency-objective", metavar="PERCENT", help=f"How many runs keep to it; {LATENCY_OBJECTIVE} if you do not say."
)
@click.option("--fresh-within", metavar="DURATION", help="How old the last success may be: 26h, say.")
@click.option(
    "--buckets", callback=_bounds, metavar="S,S,...", help="Your Metrics(run_duration_buckets=), if you have set them."
)
@click.option("--runbook", default=RUNBOOK, show_default=True, metavar="URL", help="Where your docs/runbook.md is.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write, in place of standard output.",
)
def slo(
    run_name: str | None,
    pool: str | None,
    objective: str,
    latency: str | None,
    latency_objective: str | None,
    fresh_within: str | None,
    buckets: tuple[float, ...],
    runbook: str,
    output: Path | None,
) -> None:
    """Write Prometheus rules for an objective: what to record, and when to wake somebody.

    By Google's method of several windows and burn rates (docs/slo.md).
    """
    if latency_objective is not None and latency is None:
        raise click.UsageError("--latency-objective says how many runs keep to --latency, which is not given")
    try:
        promised = Objective.parse(
            run=run_name,
            pool=pool,
            availability=objective,
            latency=latency,
            latency_objective=latency_objective or LATENCY_OBJECTIVE,
            fresh_within=fresh_within,
            bounds=buckets,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    written = slo_file(promised, runbook=runbook)
    if output is None:
        _put(written)
        return
    _write(output, written)
    _print([f"written to {output}; have Prometheus load it under rule_files:"])


# Files and runs


def _standard_input() -> BufferedReader:
    try:
        return open(0, "rb", closefd=False)
    except OSError as error:
        raise Failure(f"there is no standard input to read: {error.strerror or error}", UNREADABLE) from error


def _are_one(file: Path, other: Path) -> bool:
    """Whether two names are of one file, by whatever way they lead there."""
    try:
        return file.samefile(other)
    except OSError:  # one of them is not there
        return False


def _read(file: Path) -> list[RecordedRun]:
    try:
        if file == STANDARD_INPUT:
            with _standard_input() as stream:
                return read_runs(stream)
        with _progress(file) as advance:
            return read_runs(file, progress=advance)
    except TraceFileError as error:
        raise Failure(str(error), UNREADABLE) from error


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
        yield lambda read: progress.update(task, completed=read)


def _pick(runs: Sequence[RecordedRun], which: str, file: Path) -> int:
    """The index of the run that is meant."""
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


def _which_it_is(file: Path, runs: Sequence[RecordedRun], number: int, which: str, option: str = "--run") -> str:
    where = "standard input" if file == STANDARD_INPUT else file
    if len(runs) == 1:
        return f"{where}: 1 run"
    why = ", the longest" if which == "longest" else ""
    return f"{where}: run {number + 1:,} of {len(runs):,}{why} ({option} picks another)"


def _where(file: Path, runs: Sequence[RecordedRun], number: int) -> dict[str, Any]:
    return {
        "file": str(file),
        "run_number": number + 1,
        "runs": [
            {"number": index, "id": run.id, "name": run.name, "outcome": run.outcome, "duration": run.duration_ns / 1e9}
            for index, run in enumerate(runs, 1)
        ],
    }


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        instead = ""
        if isinstance(error, IsADirectoryError):
            instead = f"; name a file in it, such as {str(path / 'run.html')!r}"
        elif isinstance(error, (FileNotFoundError, NotADirectoryError)):
            instead = f"; {str(path.parent)!r} is no directory: make it, or name a file elsewhere"
        elif isinstance(error, PermissionError):
            instead = "; name a file elsewhere"
        raise Failure(f"{str(path)!r} cannot be written: {error.strerror or error}{instead}", UNREADABLE) from error


# Printing


def _print(parts: Sequence[RenderableType]) -> None:
    """To a terminal with its colours and width; to anything else as plain text."""
    piped_width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    console = _Console(width=piped_width, markup=False, highlight=False, emoji=False)
    if console.width < 1:  # COLUMNS=0, as where nobody knows
        console.width = PIPED_WIDTH
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def _print_json(document: dict[str, Any]) -> None:
    _put(json.dumps(document, indent=2, allow_nan=False) + "\n")


def _put(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_gone()
