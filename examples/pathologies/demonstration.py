"""Options into one run of a pathology, and the run into what is printed of it."""

import importlib
import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

from hamilton import driver
from rich.console import Console
from rich.markup import escape

from traced_threadpool import FutureAdapter, TelemetrySetup, setup_telemetry
from traced_threadpool.analysis.trace_file import TraceFileError, read_runs
from traced_threadpool.backends import Processes

from .options import Options
from .pathology import Amount, Pathology
from .says import what_the_tool_says
from .service import ServiceError

PROCESSES = 6


class DemonstrationError(Exception):
    """Something that the user can fix. The message is one line."""


class TraceFileRefused(DemonstrationError):
    """The file of `--trace` cannot be written."""


def demonstrate(name: str, options: Options, console: Console) -> None:
    """Run the pathology once; print what is wrong with it, and what was recorded of it.

    Raises:
        DemonstrationError: the options, or this machine, do not allow it.
    """
    module = importlib.import_module(f"{__package__}.{name}")
    pathology: Pathology = module.PATHOLOGY
    console.print(f"[bold]{name}[/bold]: {escape((module.__doc__ or '').strip())}\n", soft_wrap=True)
    with ExitStack() as stack:
        if pathology.cpus is not None:
            _confine_to(pathology.cpus)
        thrown_away = stack.enter_context(tempfile.TemporaryDirectory(prefix="pathologies-"))
        trace = options.trace or Path(thrown_away) / "trace.jsonl"
        telemetry = stack.enter_context(_telemetry(trace))
        workers = options.workers or pathology.workers
        try:
            # First, so that they outlive the nodes: folders, a service.
            inputs = stack.enter_context(pathology.inputs(Amount(scale=options.scale, seed=options.seed)))
            adapter = stack.enter_context(_closing(_adapter(name, workers, pathology)))
            pipeline = build_driver(module, adapter)
            for _ in range(2 if pathology.on_processes else 1):
                pipeline.execute([pathology.output], inputs=dict(inputs))
        except (ServiceError, OSError) as error:
            raise DemonstrationError(f"the run failed: {error}") from error
        telemetry.flush()
        try:
            _print_run(trace, console)
        except TraceFileError as error:
            raise DemonstrationError(str(error)) from error
        if options.trace is not None:
            console.print(f"Trace, as OTLP/JSON lines: {escape(str(options.trace.absolute()))}", soft_wrap=True)


def build_driver(pipeline: ModuleType, adapter: FutureAdapter) -> driver.Driver:
    """A Hamilton driver for the pipeline, on this adapter."""
    return driver.Builder().with_modules(pipeline).with_adapters(adapter).build()


def _adapter(name: str, workers: int, pathology: Pathology) -> FutureAdapter:
    if not pathology.on_processes:
        return FutureAdapter(workers, name, run_name=name)
    return FutureAdapter(
        workers,
        name,
        run_name=name,
        backends={"processes": Processes(PROCESSES)},
        run_on=dict.fromkeys(pathology.on_processes, "processes"),
    )


def _print_run(trace: Path, console: Console) -> None:
    if not trace.exists() or not trace.stat().st_size:
        console.print("No span was recorded: OTEL_SDK_DISABLED or OTEL_TRACES_SAMPLER may have switched them off")
        return
    for said in what_the_tool_says(read_runs(trace)[-1]):
        console.print(said)


def _confine_to(cpus: int) -> None:
    """Let this program, and all threads that it will start, use so many CPUs and no more."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])


@contextmanager
def _closing(adapter: FutureAdapter) -> Generator[FutureAdapter, None, None]:
    """When something went wrong, only those nodes finish that are running."""
    try:
        yield adapter
    except BaseException:
        adapter.close(cancel_pending=True)
        raise
    adapter.close()


@contextmanager
def _telemetry(trace: Path) -> Generator[TelemetrySetup, None, None]:
    try:
        telemetry = setup_telemetry(service_name="pathologies", file=trace)
    except OSError as error:
        raise TraceFileRefused((error.strerror or str(error)).replace("file=", "--trace ")) from error
    except (ValueError, ImportError, RuntimeError) as error:
        raise DemonstrationError(str(error)) from error
    with telemetry:
        yield telemetry
