"""Options into rounds of runs, each on an adapter that lives as long as the service."""

import importlib
import os
import signal
import sysconfig
import threading
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import prometheus_client

from examples.pathologies import demonstration as pathologies
from examples.pathologies.pathology import Amount, Pathology
from examples.stdlib_survey.catalogue_client import CatalogueError
from examples.stdlib_survey.catalogue_server import serving
from examples.stdlib_survey.chapters import CHAPTERS
from examples.stdlib_survey.survey import build_driver, run_survey
from traced_threadpool import FutureAdapter, setup_telemetry

from .options import Options

LATENCY_SECONDS = 0.03
NOBODY = "http://127.0.0.1:9"  # the port of the discard service, which refuses where nobody runs it


def serve(options: Options) -> None:
    """Run the rounds; returns when asked to stop by SIGTERM.

    Raises:
        OSError: the port is in use or may not be used.
    """
    # A library's source may hold an escape that this Python frowns upon: not what is to be shown here.
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(_on_sigterm(stop))
        # Metrics are served before spans are set up: a port in use is an error before anything else has begun.
        url = stack.enter_context(_metrics(options.listen, options.port))
        stack.enter_context(_spans())
        runs = [stack.enter_context(_program(name, options)) for name in options.only]
        print(f"serving {url}", flush=True)
        number = 0
        while not stop.is_set() and (not options.rounds or number < options.rounds):
            number += 1
            next_round = time.monotonic() + options.every_seconds
            outcomes = [run(number) for run in runs if not stop.is_set()]
            print(f"round {number}: " + ", ".join(outcomes), flush=True)
            if number != options.rounds:
                stop.wait(max(0.0, next_round - time.monotonic()))
        stop.wait()


_Run = Callable[[int], str]
"""Runs one program once, given the number of the round; says how it went."""


@contextmanager
def _program(name: str, options: Options) -> Generator[_Run, None, None]:
    with _survey(options) if name == "survey" else _pathology(name, options) as run:
        yield run


@contextmanager
def _survey(options: Options) -> Generator[_Run, None, None]:
    with (
        serving(CHAPTERS, LATENCY_SECONDS) as catalogue_url,
        FutureAdapter(name="survey", run_name="survey") as adapter,
    ):
        survey_driver = build_driver([adapter])

        def run(number: int) -> str:
            broken = bool(options.break_every) and number % options.break_every == 0
            with TemporaryDirectory(prefix="stdlib-survey-") as work_directory:
                try:
                    run_survey(
                        survey_driver,
                        stdlib_root=Path(sysconfig.get_paths()["stdlib"]),
                        catalogue_url=NOBODY if broken else catalogue_url,
                        work_directory=Path(work_directory),
                        limit=options.limit,
                    )
                except (CatalogueError, OSError) as error:
                    return f"survey failed ({type(error).__name__})"
            return "survey done"

        yield run


@contextmanager
def _pathology(name: str, options: Options) -> Generator[_Run, None, None]:
    module = importlib.import_module(f"examples.pathologies.{name}")
    pathology: Pathology = module.PATHOLOGY
    with FutureAdapter(pathology.workers, name, name=name, run_name=name) as adapter:
        pathology_driver = pathologies.build_driver(module, adapter)

        def run(number: int) -> str:
            with pathology.inputs(Amount(scale=options.scale, seed=number)) as inputs:
                pathology_driver.execute([pathology.output], inputs=dict(inputs))
            return f"{name} done"

        yield run


@contextmanager
def _metrics(listen: str, port: int) -> Generator[str, None, None]:
    # setup_telemetry(prometheus_port=) serves on 127.0.0.1, which is this container's own.
    try:
        server, thread = prometheus_client.start_http_server(port, addr=listen)
    except OSError as error:
        raise OSError(error.errno, f"--listen {listen} --port {port}: {error.strerror or error}") from error
    try:
        yield f"http://{listen}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _spans() -> AbstractContextManager[object]:
    asked = any(os.environ.get(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
    return setup_telemetry() if asked else nullcontext()


@contextmanager
def _on_sigterm(stop: threading.Event) -> Generator[None, None, None]:
    """A container is stopped by SIGTERM; the first process in it ignores what it has no handler for."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
