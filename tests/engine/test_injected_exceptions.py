"""An exception between any two lines of the package: the run ends, the next is right, `close()` and the program end.

A sample of the points. All of them take half an hour; run them after a change of the pool:

    for scenario in plain later unbuilt failing fail_fast nested outside cancel closing; do
        python -m tests.engine.injection bare $scenario; python -m tests.engine.injection full $scenario
    done
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

import traced_threadpool
from tests.dags import PROCESS_PATIENCE
from tests.engine.injection import SCENARIOS

ROOT = Path(__file__).parents[2]
SOURCE = Path(traced_threadpool.__file__).parents[1]
SAMPLES = 25
"""Of how many points each scenario is tried in each mode."""

ENDS = (37, 211, 383, 521)
"""Points after which a program ends as any does."""


def inject(*arguments: str) -> str:
    """What the harness says, in a process that is killed if it does not end."""
    paths = os.pathsep.join([str(SOURCE), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.injection", *arguments],
        env={**os.environ, "PYTHONPATH": paths, "HAMILTON_AUTOLOAD_EXTENSIONS": "0"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PROCESS_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("mode", ["bare", "full"])
def test_nothing_is_wedged(mode: str, scenario: str) -> None:
    """By any kind of exception, on the caller's thread, a worker or another."""
    said = inject(mode, scenario, "--sample", str(SAMPLES), "--first", str(SCENARIOS.index(scenario)))
    print(said)
    assert " 0 wedges" in said


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["later", "fail_fast", "nested", "outside", "closing"])
def test_no_lock_of_the_standard_library_stays_held(scenario: str) -> None:
    """One of an event, a condition or a future, when the exception comes right after it was taken."""
    said = inject("full", scenario, "--library")
    print(said)
    assert " 0 wedges" in said


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_lock_of_the_package_stays_held(scenario: str) -> None:
    """When the exception comes right before it is released, of any kind and on any thread."""
    said = inject("full", scenario, "--releases", "--kinds", "3")
    print(said)
    assert " 0 wedges" in said


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["bare", "full"])
@pytest.mark.parametrize("point", ENDS)
def test_the_program_ends(mode: str, point: int) -> None:
    """Without `os._exit`: with all that Python joins and flushes at exit."""
    assert " 0 wedges" in inject(mode, "failing", "--only", str(point), "--ends")
