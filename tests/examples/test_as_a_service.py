"""`python -m examples.as_a_service` as a container runs it; what it counts is the live proof's business."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="rich is not installed (it is in the extra demo)")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "examples.as_a_service")
SMALL = ("--port", "0", "--scale", "0.02", "--limit", "5", "--every", "0.1")


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_runs_rounds_serves_metrics_and_stops_when_asked_to() -> None:
    """A broken round is told of and survived; after the last it goes on serving; SIGTERM ends it with 0."""
    with started(*SMALL, "--rounds", "2", "--break-every", "2", "--only", "survey", "--only", "healthy") as process:
        assert process.stdout is not None
        serving, first, second = (process.stdout.readline().strip() for _ in range(3))
        found = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+/metrics)", serving)
        assert found is not None
        assert first == "round 1: survey done, healthy done"
        assert second == "round 2: survey failed (ConnectionRefusedError), healthy done"
        with urllib.request.urlopen(found[1], timeout=20) as reply:
            page = reply.read().decode()
        for outcome in ("success", "error"):
            count = f'hamilton_run_duration_seconds_count{{outcome="{outcome}",pool="survey",run="survey"}} 1.0'
            assert count in page
        process.send_signal(signal.SIGTERM)
        assert process.wait(150) == 0


def test_a_port_in_use_is_an_error_in_one_line() -> None:
    """It names the options, and nothing has been run."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [*COMMAND, "--port", port], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(rf"as_a_service: .*--listen 127\.0\.0\.1 --port {port}: Address already in use\n", ended.stderr)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--port", "70000"), "'70000' is not a whole number from 0 to 65535"),
        (("--every", "0"), "'0' is not a number above 0"),
        (("--rounds", "none"), "'none' is not a whole number of 1 or more"),
        (("--only", "dinner"), "invalid choice: 'dinner'"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words: tuple[str, str], complaint: str) -> None:
    """With status 2."""
    ended = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert ended.stderr.count("\n") == 1
