"""`TelemetrySetup.flush` and `close`."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.telemetry.export.programs import PRELUDE, file_names, free_port, needs_extra, start
from traced_threadpool import setup_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.telemetry.otlp_receiver import HttpReceiver

    Run = Callable[..., subprocess.CompletedProcess[str]]


@needs_extra
def test_flush_tells_what_was_accepted(run: Run, http_receiver: HttpReceiver) -> None:
    """True once the endpoint has every span, False when it refuses some, and then for good."""
    program = f"""
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r})
        spans(600)
        print(setup.flush(), setup.flush())
        """
    assert run(program).stdout == "True True\n"
    assert len(http_receiver.spans) == 600
    http_receiver.refuse_with = 400
    assert run(program).stdout == "False False\n"


@needs_extra
def test_flush_keeps_to_its_time(run: Run, http_receiver: HttpReceiver) -> None:
    """An endpoint that does not answer costs the time given, not the exporter's, and no thread for each call."""
    http_receiver.answering.clear()
    result = run(
        f"""
        import threading, time
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r})
        spans(1)
        start = time.monotonic()
        print(setup.flush(timeout_seconds=0.2), flush=True)
        assert 0.2 <= time.monotonic() - start < 5  # the exporter itself would wait for 10
        threads = threading.active_count()
        assert not any([setup.flush(timeout_seconds=0.01) for _ in range(10)])
        assert threading.active_count() == threads
        os._exit(0)  # the end would wait for the exporter
        """,
        OTEL_EXPORTER_OTLP_TIMEOUT="100",
    )
    assert result.stdout == "False\n"


@needs_extra
def test_closing_gives_up_on_an_endpoint_that_does_not_answer(run: Run, http_receiver: HttpReceiver) -> None:
    """It takes the limit and one export's timeout, not a timeout for each batch; the loss is logged."""
    http_receiver.answering.clear()
    result = run(
        f"""
        import logging, time
        from traced_threadpool.telemetry.export import setup as module
        module._CLOSE_SECONDS = 0.5
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r}, file="trace.jsonl")
        spans(20)
        logging.getLogger("opentelemetry").disabled = True
        start = time.monotonic()
        setup.close()
        assert time.monotonic() - start < 5
        """,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
    )
    assert f"20 of 20 spans did not get to {http_receiver.endpoint}/v1/traces" in result.stderr


@needs_extra
@pytest.mark.slow
def test_closing_gives_up_on_an_endpoint_that_cannot_be_reached(run: Run) -> None:
    """It takes one export that retries in vain, however many are waiting."""
    run(
        f"""
        import logging, time
        setup = setup_telemetry(endpoint="http://127.0.0.1:{free_port()}")
        spans(20)
        logging.disable()
        start = time.monotonic()
        setup.close()
        assert time.monotonic() - start < 8
        """,
        OTEL_EXPORTER_OTLP_TIMEOUT="5",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
    )


@needs_extra
def test_a_burst_of_spans_is_not_lost(http_receiver: HttpReceiver, tmp_path: Path) -> None:
    """An endpoint that is slow for a moment has spans wait, not dropped, by the thousands."""
    http_receiver.answering.clear()
    program = PRELUDE + dedent(
        f"""
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r}, file="trace.jsonl")
        spans(10_000)
        print("done", flush=True)
        sys.stdin.readline()
        print(setup.flush())
        """
    )
    with start(program, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        http_receiver.answering.set()
        output, errors = process.communicate("\n", timeout=150)
    assert (output, errors) == ("True\n", "")
    assert len(http_receiver.spans) == len(file_names(tmp_path / "trace.jsonl")) == 10_000


@needs_extra
def test_a_queue_that_overflows_is_a_loss(http_receiver: HttpReceiver, tmp_path: Path) -> None:
    """flush() is False when spans were dropped, although all that was left has been accepted."""
    http_receiver.answering.clear()
    program = PRELUDE + dedent(
        f"""
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r})
        spans(2)
        sys.stdin.readline()
        spans(20)
        print("full", flush=True)
        sys.stdin.readline()
        print(setup.flush())
        """
    )
    variables = {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
    with start(program, tmp_path, **variables) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        http_receiver.wait_for_request()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "full\n"
        http_receiver.answering.set()
        output, errors = process.communicate("\n", timeout=150)
    assert output == "False\n", errors
    assert len(http_receiver.spans) == 12


def test_a_given_port_is_served_on_loopback() -> None:
    """A port that is given is the one that is served, on 127.0.0.1 only; the repr says where."""
    port = free_port()
    with setup_telemetry(prometheus_port=port) as setup:
        assert setup.metrics_url == f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(setup.metrics_url) as answer:
            assert b"python_info" in answer.read()
        if sys.platform == "linux":  # where all of 127.0.0.0/8 is this machine
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port))
        assert repr(setup) == f"TelemetrySetup(metrics_url='http://127.0.0.1:{port}/metrics')"
