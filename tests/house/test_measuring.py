"""`make test-measures` decides by as many runs as it takes, and says how many these were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.house.layers import ROOT

TESTS = '''
import pytest
from pathlib import Path

RUNS = Path(__file__).parent / "runs"

def run() -> int:
    """Which run this is, from 1."""
    RUNS.write_text((RUNS.read_text() if RUNS.exists() else "") + "x")
    return len(RUNS.read_text())

@pytest.mark.measures
def test_right(): pass

@pytest.mark.measures
def test_seldom_wrong(): assert run() not in (1, 3)

@pytest.mark.measures
def test_wrong(): assert False

def test_measures_nothing(): assert False
'''


def test_what_fails_is_repeated_until_most_runs_agree(tmp_path: Path) -> None:
    """One that passes at once runs once; one that fails decides by three of five; others are left out."""
    (tmp_path / "test_them.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = measures\n")
    words = [sys.executable, str(ROOT / "scripts/measure.py"), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "=== 3 measuring tests, 9 runs, 1 failed",
        "passed after 5 runs (3 passed): test_them.py::test_seldom_wrong",
        "FAILED after 3 runs (0 passed): test_them.py::test_wrong",
    ]
