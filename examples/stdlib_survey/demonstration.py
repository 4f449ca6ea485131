"""Options into a run of the survey, and the run into everything that is printed about it."""

import shlex
import sqlite3
import sys
import sysconfig
import time
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hamilton.lifecycle import LifecycleAdapter
from hamilton.plugins.h_rich import RichProgressBar
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonFutureAdapter
from rich.console import Console

from traced_threadpool import FutureAdapter, TelemetrySetup, setup_telemetry
from traced_threadpool.backends import Processes

from .catalogue_client import CatalogueError
from .catalogue_server import serving
from .chapters import CHAPTERS
from .comparison import Comparison, compare, comparison_table
from .node_families import parsers
from .options import Options
from .records import SurveyReport
from .report import report_tables
from .run_summary import summarize, summary_tables, trace_tree
from .survey import build_driver, run_survey
from .trace_lines import RunSpan, read_runs

LATENCY_SECONDS = 0.03
ROUNDS = 3
RUN_NAME = "stdlib_survey"


class DemonstrationError(Exception):
    """Something that the user can fix. The message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surroundings:
    """What every run of the pipeline is given."""

    options: Options
    console: Console
    stdlib_root: Path
    catalogue_url: str
    work_directory: Path


def demonstrate(options: Options, console: Console) -> None:
    """Run the survey and print its results, then what telemetry recorded of it.

    Raises:
        DemonstrationError: the options, or this machine, do not allow it.
    """
    # A library's source may hold an escape that this Python frowns upon: not what is to be shown here.
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    with ExitStack() as stack:
        telemetry = stack.enter_context(_telemetry(options))
        surroundings = _Surroundings(
            options=options,
            console=console,
            stdlib_root=_stdlib_root(),
            catalogue_url=stack.enter_context(serving(CHAPTERS, LATENCY_SECONDS)),
            work_directory=Path(stack.enter_context(TemporaryDirectory(prefix="stdlib-survey-"))),
        )
        written_before = _size(options.trace_file)
        adapter = stack.enter_context(_closing(_new_adapter(options)))
        try:
            report, comparison = _run(surroundings, adapter)
        except (CatalogueError, OSError, sqlite3.OperationalError) as error:
            raise DemonstrationError(f"the survey failed: {error}") from error
        telemetry.flush()
        _print_run(_last_run(options.trace_file, written_before), console)
        for table in report_tables(report, all_of_them=options.results):
            console.print(table)
        if comparison is not None:
            console.print(comparison_table(comparison))
        _print_whereabouts(options, console, telemetry, written_before)
        if options.serve:
            _wait_for_interrupt()


def _run(surroundings: _Surroundings, adapter: FutureAdapter) -> tuple[SurveyReport, Comparison | None]:
    if not surroundings.options.upstream:
        return _survey_on(surroundings, adapter), None
    workers = surroundings.options.workers
    hamilton_adapter = HamiltonFutureAdapter() if workers is None else HamiltonFutureAdapter(workers)
    try:
        comparison = compare(
            lambda: _survey_on(surroundings, hamilton_adapter),
            lambda: _survey_on(surroundings, adapter),
            rounds=ROUNDS,
        )
    finally:
        hamilton_adapter.executor.shutdown(cancel_futures=True)
    return comparison.report, comparison


def _survey_on(surroundings: _Surroundings, adapter: LifecycleAdapter) -> SurveyReport:
    """Run the pipeline once and show, on a terminal, that it is getting on."""
    console = surroundings.console
    parallelizable = surroundings.options.parallelizable
    adapters = [adapter]
    if not parallelizable:
        bar = RichProgressBar("Surveying", console=console, transient=True, disable=not console.is_terminal)
        adapters.append(bar)
    # In dynamic execution Hamilton's bar counts tasks handed out: with futures, all of them at once.
    with console.status("Surveying") if parallelizable and console.is_terminal else nullcontext():
        return run_survey(
            build_driver(adapters, parallelizable=parallelizable),
            stdlib_root=surroundings.stdlib_root,
            catalogue_url=surroundings.catalogue_url,
            work_directory=surroundings.work_directory,
            limit=surroundings.options.limit,
        )


def _new_adapter(options: Options) -> FutureAdapter:
    if not options.processes:
        return FutureAdapter(options.workers, RUN_NAME, run_name=RUN_NAME)
    return FutureAdapter(
        options.workers,
        RUN_NAME,
        run_name=RUN_NAME,
        backends={"parsers": Processes(options.processes)},
        run_on=parsers,
    )


@contextmanager
def _closing(adapter: FutureAdapter) -> Generator[FutureAdapter, None, None]:
    """Let pending nodes finish; when something went wrong, only those that are running."""
    try:
        yield adapter
    except BaseException:
        adapter.close(cancel_pending=True)
        raise
    adapter.close()


@contextmanager
def _telemetry(options: Options) -> Generator[TelemetrySetup, None, None]:
    try:
        telemetry = setup_telemetry(service_name="stdlib-survey", file=options.trace_file, prometheus_port=options.port)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        # It speaks of its arguments; what the user gave are options.
        found = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        message = found.replace("prometheus_port=", "--port ").replace("file=", "--trace-file ")
        raise DemonstrationError(message) from error
    with telemetry:
        yield telemetry


def _stdlib_root() -> Path:
    root = Path(sysconfig.get_paths()["stdlib"])
    if not root.is_dir():
        raise DemonstrationError(f"this Python has no sources of its library to survey: {root} is no directory")
    return root


def _last_run(trace_file: Path, written_before: int) -> RunSpan | None:
    if not trace_file.exists():
        return None
    with trace_file.open("rb") as trace:
        trace.seek(written_before)
        runs = read_runs(trace.read().decode().splitlines())
    return runs[-1] if runs else None


def _print_run(run: RunSpan | None, console: Console) -> None:
    if run is None:
        console.print("No span was recorded: OTEL_SDK_DISABLED or OTEL_TRACES_SAMPLER may have switched them off")
        return
    for table in summary_tables(summarize(run)):
        console.print(table)
    console.print("The trace: a span for each node, in the order of their starts; <- leads to upstream spans")
    console.print(trace_tree(run))


def _print_whereabouts(options: Options, console: Console, telemetry: TelemetrySetup, written_before: int) -> None:
    how_long = "until interrupted" if options.serve else "while the program runs; --serve keeps it up"
    size = _size(options.trace_file)
    console.print(f"Metrics: {telemetry.metrics_url} ({how_long})", highlight=False)
    console.print(
        f"Trace, as OTLP/JSON lines: {options.trace_file.absolute()} "
        f"({size / 1e3:,.1f} kB, {(size - written_before) / 1e3:,.1f} kB of them now)",
        highlight=False,
        soft_wrap=True,
    )
    file = shlex.quote(str(options.trace_file))
    command = shlex.join([sys.executable, "-m", "traced_threadpool"])
    console.print("Try next:", highlight=False)
    for words in (
        f"explain {file} --run last",
        f"what-if {file} --run last",
        f"explain {file} --all",
        f"report {file} --run last",
    ):
        console.print(f"  {command} {words}", highlight=False, soft_wrap=True)


def _wait_for_interrupt() -> None:
    while True:
        time.sleep(3600)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
