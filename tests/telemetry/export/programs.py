"""Programs of their own, for a process has one tracer provider."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import traced_threadpool

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

has_extra = importlib.util.find_spec("opentelemetry.sdk") is not None
needs_extra = pytest.mark.skipif(not has_extra, reason="needs the extra [otlp]")

PACKAGE_ROOT = str(Path(traced_threadpool.__file__).parents[1])

PRELUDE = """
import os, sys
from opentelemetry import trace
from traced_threadpool import setup_telemetry

def spans(count, first=0):
    for number in range(first, first + count):
        with trace.get_tracer("test").start_as_current_span(f"span {number}"):
            pass
"""


def environment(**variables: str) -> dict[str, str]:
    """The environment of a program under test: this one's without its OTEL_ variables, and these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {**inherited, "PYTHONPATH": PACKAGE_ROOT, "HAMILTON_TELEMETRY_ENABLED": "false", **variables}


def file_names(path: Path) -> list[str]:
    """The names of the spans in a file of OTLP/JSON."""
    from tests.telemetry.otlp_receiver import parse_file, spans_in

    return [span.name for span in spans_in(parse_file(path))]


def attributes(of: Any) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in of.attributes}


def sdk_version() -> tuple[int, ...]:
    return tuple(int(part) for part in importlib.metadata.version("opentelemetry-sdk").split(".")[:2])


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def start(program: str, directory: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a program that the test talks to, or ends."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        env=environment(**variables),
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 60) -> None:
    """Return once `condition` holds, of something that another process does and nobody announces."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)
