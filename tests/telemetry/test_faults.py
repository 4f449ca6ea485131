"""Telemetry whose other end fails, with real processes: results are right, losses counted, nothing hangs or grows."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from tests.dashboards.live_servers import Rotel
from tests.telemetry.export.programs import environment, needs_extra
from tests.telemetry.telemetry_helpers import Caller, make_adapter, make_driver

PRELUDE = """
import logging, os, resource, signal, sys, threading, time
from hamilton import ad_hoc_utils, driver
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from prometheus_client import REGISTRY
import traced_threadpool
from traced_threadpool import FutureAdapter

logging.disable()
NODES = 50

def a(start: int) -> int: return start + 1
functions = [a]
for number in range(1, NODES):
    before = "a" if number == 1 else f"n{number - 1}"
    scope = {}
    exec(f"def n{number}({before}: int) -> int: return {before} + 1", scope)
    functions.append(scope[f"n{number}"])
module = ad_hoc_utils.create_temporary_module(*functions)

ended = []

class Ended(SpanProcessor):
    def on_end(self, span):
        ended.append(span.name)

def setup_telemetry(**options):
    setup = traced_threadpool.setup_telemetry(**options)
    trace.get_tracer_provider().add_span_processor(Ended())
    return setup

def lost():
    return {
        stage: int(REGISTRY.get_sample_value("hamilton_telemetry_spans_lost_total", {"stage": stage}))
        for stage in ("adapter", "queue", "endpoint", "file")
    }

def runs(adapter, count):
    dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
    for _ in range(count):
        assert dr.execute([f"n{NODES - 1}"], inputs={"start": 0}) == {f"n{NODES - 1}": NODES}
"""
SPANS = 51
"""Of each run, at least: its nodes and its own. On a busy machine there are some of waits besides."""


def program(text: str) -> str:
    return PRELUDE + dedent(text)


def finished(text: str, directory: Path, **variables: str) -> list[str]:
    """What a program printed, run to its end."""
    result = subprocess.run(
        [sys.executable, "-c", program(text)],
        env=environment(**variables),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


class Program:
    """A program that waits for a line before each step, and prints one after it."""

    def __init__(self, text: str, directory: Path, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program(text)],
            env=environment(**variables),
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=150)
        self._process.kill()
        self._process.wait()


# Endpoints


@contextlib.contextmanager
def dead() -> Iterator[str]:
    """Nobody listens, and nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """Accepts connections, and says nothing on them."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """Answers that the request is bad."""
    from tests.telemetry.otlp_receiver import HttpReceiver

    with HttpReceiver() as receiver:
        receiver.refuse_with = 400
        yield receiver.endpoint


@needs_extra
@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("endpoint", [dead, hanging, refusing], ids=lambda each: each.__name__)
def test_an_endpoint_that_takes_nothing(
    tmp_path: Path, endpoint: Callable[[], contextlib.AbstractContextManager[str]], protocol: str
) -> None:
    """Every run is right, every span is counted as lost, and the program's end waits two seconds and a bit for it."""
    with endpoint() as url:
        count, spans, closing_seconds = finished(
            f"""
            setup = setup_telemetry(endpoint={url!r})
            with FutureAdapter(max_workers=4) as adapter:
                runs(adapter, 10)
            assert adapter.telemetry_errors == {{}}
            started = time.monotonic()
            setup.close()
            print(lost())
            print(len(ended))
            print(time.monotonic() - started)
            """,
            tmp_path,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        )
    assert count == str({"adapter": 0, "queue": 0, "endpoint": int(spans), "file": 0})
    assert int(spans) >= 10 * SPANS
    assert float(closing_seconds) < 8


@needs_extra
@pytest.mark.slow
def test_a_slow_endpoint_gets_everything(tmp_path: Path) -> None:
    """One that takes a tenth of a second for each batch, and accepts it, is waited for at the end."""
    from tests.telemetry.otlp_receiver import HttpReceiver

    class Slow(HttpReceiver):
        def _receive(self, request: Any, headers: Any) -> None:
            time.sleep(0.1)
            super()._receive(request, headers)

    with Slow() as receiver:
        lines = finished(
            f"""
            setup_telemetry(endpoint={receiver.endpoint!r})
            with FutureAdapter(max_workers=4) as adapter:
                runs(adapter, 20)
            print(lost())
            print(len(ended))
            """,
            tmp_path,
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="64",
        )
        assert len(receiver.spans) == int(lines[1]) >= 20 * SPANS
    assert lines[0] == str({"adapter": 0, "queue": 0, "endpoint": 0, "file": 0})


@needs_extra
@pytest.mark.slow
def test_a_collector_that_restarts(tmp_path: Path) -> None:
    """Runs go on while it is away, and are right; once it is back, so are the spans. Of a collector as a process."""
    from tests.telemetry.otlp_receiver import GrpcReceiver

    text = """
        setup = setup_telemetry(endpoint=os.environ["COLLECTOR"])
        adapter = FutureAdapter(max_workers=4)
        for step in sys.stdin:
            runs(adapter, 2)
            print(len(ended), flush=True)
        adapter.close()
        setup.close()
    """
    with GrpcReceiver() as receiver:
        rotel = Rotel(tmp_path, receiver.endpoint)
        with rotel:
            variables = {"COLLECTOR": rotel.http, "OTEL_BSP_SCHEDULE_DELAY": "50"}
            running = Program(text, tmp_path, **variables)
            with contextlib.ExitStack() as stack:
                stack.enter_context(running)
                receiver.wait_for(int(running.step()))
                rotel.kill()
                running.step()
                rotel.__enter__()
                ended = int(running.step())
                stack.close()  # the program ends, and exports what it has
            receiver.wait_for(ended)
    assert len({span.span_id for span in receiver.spans}) == ended >= 6 * SPANS


@needs_extra
def test_an_endpoint_that_comes_back_after_failures(tmp_path: Path) -> None:
    """What it refused is lost, and counted; what comes later gets there."""
    from tests.telemetry.otlp_receiver import HttpReceiver

    with HttpReceiver() as receiver:
        receiver.refuse_with = 400
        text = f"""
            setup = setup_telemetry(endpoint={receiver.endpoint!r})
            adapter = FutureAdapter(max_workers=4)
            for step in sys.stdin:
                runs(adapter, 1)
                setup.flush()
                print(lost()["endpoint"], len(ended), flush=True)
        """
        with Program(text, tmp_path) as running:
            refused, ended = map(int, running.step().split())
            assert refused == ended >= SPANS
            receiver.refuse_with = None
            lost, ended = map(int, running.step().split())
            assert lost == refused
        assert len(receiver.spans) == ended - refused >= SPANS


@needs_extra
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read as Linux tells it")
def test_a_hanging_endpoint_makes_nothing_grow(tmp_path: Path) -> None:
    """Once its queue is full, thousands of runs more take no memory and no thread; each span beyond is counted."""
    with hanging() as url:
        counted, spans, grown, threads = finished(
            f"""
            def resident():
                with open("/proc/self/statm") as file:
                    return int(file.read().split()[1]) * resource.getpagesize()
            setup = setup_telemetry(endpoint={url!r})
            adapter = FutureAdapter(max_workers=4)
            runs(adapter, 60)
            before, threads = resident(), threading.active_count()
            runs(adapter, 240)
            grown = resident() - before
            adapter.close()
            print(sum(lost().values()))
            print(len(ended))
            print(grown)
            print(threading.active_count() <= threads)
            setup.close()
            assert sum(lost().values()) == len(ended) >= 300 * {SPANS}, lost()
            """,
            tmp_path,
            OTEL_BSP_MAX_QUEUE_SIZE="1000",
            OTEL_EXPORTER_OTLP_TIMEOUT="30",
        )
    assert int(spans) - 1000 - 512 <= int(counted) <= int(spans) - 1000
    assert int(grown) < 16_000_000  # kept, these spans would take three times that
    assert threads == "True"


@needs_extra
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the platform has no /dev/full")
def test_a_full_disk_is_counted(tmp_path: Path) -> None:
    """Runs are right; what could not be written is in the metric, and what the endpoint got is not."""
    from tests.telemetry.otlp_receiver import HttpReceiver

    with HttpReceiver() as receiver:
        lines = finished(
            f"""
            setup = setup_telemetry(file="/dev/full", endpoint={receiver.endpoint!r})
            with FutureAdapter(max_workers=4) as adapter:
                runs(adapter, 3)
            setup.close()
            print(lost())
            print(len(ended))
            """,
            tmp_path,
        )
    count, spans = lines[0], int(lines[1])
    assert len(receiver.spans) == spans >= 3 * SPANS
    assert count == str({"adapter": 0, "queue": 0, "endpoint": 0, "file": spans})


@needs_extra
def test_kill_9_amid_runs_leaves_a_readable_file(tmp_path: Path) -> None:
    """Whole lines, of whole spans: those of a run that ended well before are all there."""
    from tests.telemetry.otlp_receiver import parse_line, spans_in

    text = """
        setup_telemetry(file="trace.jsonl")
        adapter = FutureAdapter(max_workers=4)
        runs(adapter, 1)
        time.sleep(1)
        sys.stdin.readline()
        print("done", flush=True)
        while True:
            runs(adapter, 1)
            if os.path.getsize("trace.jsonl") > 3_000_000:  # a span takes 1 to 3 kB
                os.kill(os.getpid(), signal.SIGKILL)
    """
    with Program(text, tmp_path) as running:
        assert running.step() == "done"
        running._process.wait(timeout=150)
    written = (tmp_path / "trace.jsonl").read_bytes()
    lines = written[: written.rindex(b"\n")].split(b"\n")
    spans = [span for line in lines for span in spans_in([parse_line(line)])]
    assert len({(span.trace_id, span.span_id) for span in spans}) == len(spans) > 10 * SPANS
    first = [span for span in spans if span.trace_id == spans[0].trace_id]
    assert len(first) >= SPANS


# Scrapes


def scraped(url: str) -> float:
    """How many nodes a scrape counts."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "hamilton_nodes_total"
    )


@pytest.mark.slow
def test_scrapes_during_a_thousand_runs() -> None:
    """Each scrape is whole and never counts less than the one before; in the end the totals are exact."""

    def load() -> int:
        return 1

    def left(load: int) -> int:
        return load + 1

    registry = CollectorRegistry()
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    url, done = f"http://127.0.0.1:{server.server_port}/metrics", threading.Event()

    def scrape_on() -> list[float]:
        seen = [scraped(url)]
        while not done.is_set():
            seen.append(scraped(url))
        return seen

    def some_runs() -> None:
        """Half of them on adapters that come and go."""
        with make_adapter(registry=registry, max_workers=4, tracing=False) as kept:
            dr = make_driver(kept, load, left)
            for _ in range(250):
                dr.execute(["left"])
        for _ in range(25):
            with make_adapter(registry=registry, max_workers=2, tracing=False) as passing:
                dr = make_driver(passing, load, left)
                for _ in range(10):
                    dr.execute(["left"])

    try:
        scrapers = [Caller(scrape_on) for _ in range(2)]
        callers = [Caller(some_runs) for _ in range(2)]
        assert [caller.outcome() for caller in callers] == [None, None]
        done.set()
        for scraper in scrapers:
            seen = scraper.outcome()
            assert isinstance(seen, list), seen
            assert seen == sorted(seen)
            assert len(seen) > 5
        assert scraped(url) == 2000
    finally:
        done.set()
        server.shutdown()
        server.server_close()
        thread.join()
