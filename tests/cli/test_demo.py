"""`demo`: a run, its explanation, its files, and what to try next."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from traced_threadpool.analysis.trace_file import read_runs

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")


from tests.cli.program import Command, environment


def test_demo(command: Command, tmp_path: Path) -> None:
    """Runs, explains itself, and leaves a trace and a page; a second time it begins anew."""
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra [report]")
    for _ in range(2):
        text = command("demo", "-d", tmp_path / "demo", "--workers", "3")
    assert text.startswith("demo: ")
    (run,) = read_runs(tmp_path / "demo" / "trace.jsonl")
    assert (run.outcome, len(run.nodes), run.max_workers) == ("success", 34, 3)
    assert (tmp_path / "demo" / "run.html").stat().st_size > 1_000_000
    (tmp_path / "file").touch()
    assert "cannot be written to" in command("demo", "-d", tmp_path / "file" / "demo", status=3)


def test_the_demo_without_the_sdk(tmp_path: Path) -> None:
    """It writes a trace, so it says what to install; the status is that of a missing extra."""
    hidden = "import sys; sys.modules['opentelemetry.sdk'] = None; from traced_threadpool.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "demo", "-d", tmp_path],
        capture_output=True,
        env=environment(),
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, b"")
    assert re.match(rb"traced-threadpool: opentelemetry\.sdk\S* is not installed; the demo needs the", done.stderr)
    assert b"pip install 'traced_threadpool[report]'" in done.stderr
