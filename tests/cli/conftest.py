"""Trace files, and the command line to run on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.synthetic_runs import write_trace
from tests.cli.program import RUN, SHORT, Command


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A file with one run."""
    return write_trace(tmp_path / "trace.jsonl", RUN)


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A file with two runs, of which the first is longer."""
    return write_trace(tmp_path / "both.jsonl", RUN, SHORT)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)
