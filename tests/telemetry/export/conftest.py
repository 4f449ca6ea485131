"""Programs and receivers for the tests of `setup_telemetry`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.telemetry.export.programs import PRELUDE, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.telemetry.otlp_receiver import GrpcReceiver, HttpReceiver

    Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program to its end, in an empty directory, with every warning an error; return what it said."""

    def run(
        program: str, *, expect_exit: int = 0, arguments: tuple[str, ...] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-W", "error", *(arguments or ("-c", PRELUDE + dedent(program)))],
            env=environment(**variables),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert result.returncode == expect_exit, result.stderr
        return result

    return run


@pytest.fixture
def grpc_receiver() -> Iterator[GrpcReceiver]:
    from tests.telemetry.otlp_receiver import GrpcReceiver

    with GrpcReceiver() as receiver:
        yield receiver


@pytest.fixture
def http_receiver() -> Iterator[HttpReceiver]:
    from tests.telemetry.otlp_receiver import HttpReceiver

    with HttpReceiver() as receiver:
        yield receiver
