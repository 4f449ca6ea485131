"""A test that fails beside others is repeated alone: a fault stays a failure, and an unsteady test is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "confirm_failures.py"

# Plays `make`: a round of tests whose outcome is the next word in a file, and pytest's record of what failed.
ROUND = """
import json, pathlib, sys
state, cache = pathlib.Path("rounds"), pathlib.Path(".pytest_cache/v/cache/lastfailed")
outcome, _, rest = state.read_text().partition(" ")
state.write_text(rest)
with open("called", "a") as called:
    print(json.dumps([sys.argv[1:], json.loads(cache.read_text()) if cache.exists() else None]), file=called)
cache.parent.mkdir(parents=True, exist_ok=True)
cache.write_text(json.dumps({f"test.py::test_{number}": True for number in range(int(outcome))}))
sys.exit(2 if int(outcome) else 0)
"""


def _run(folder: Path, rounds: str) -> tuple[int, str, list[tuple[list[str], dict[str, bool] | None]]]:
    """Exit status, what is said of unsteady tests, and how each round was called, with the failures it was told."""
    (folder / "scripts").mkdir()
    script = folder / "scripts" / SCRIPT.name
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "round.py").write_text(ROUND, encoding="utf-8")
    (folder / "rounds").write_text(rounds, encoding="utf-8")
    unsteady = folder / "unsteady"
    ended = subprocess.run(
        [sys.executable, str(script), sys.executable, "round.py", "ARGS=-q -x"],
        cwd=folder,
        env={**os.environ, "UNSTEADY": str(unsteady)},
        capture_output=True,
        check=False,
    )
    called = [json.loads(line) for line in (folder / "called").read_text().splitlines()]
    said = unsteady.read_text(encoding="utf-8") if unsteady.exists() else ""
    return ended.returncode, said, called


def test_what_passes_is_run_once(tmp_path: Path) -> None:
    assert _run(tmp_path, "0") == (0, "", [[["ARGS=-q -x"], None]])


def test_an_unsteady_test_passes_three_times_alone_and_is_named(tmp_path: Path) -> None:
    status, said, called = _run(tmp_path, "1 0 0 0")

    assert status == 0
    assert said == "UNSTEADY: test.py::test_0 failed once beside others and passed 3 times alone\n"
    alone = ["ARGS=-q -x -n 0 --last-failed --last-failed-no-failures none"]
    assert called[1:] == [[alone, {"test.py::test_0": True}]] * 3


@pytest.mark.parametrize("rounds", ["1 1", "2 0 0 1", "3 0 1", "4"])
def test_a_fault_is_a_failure(tmp_path: Path, rounds: str) -> None:
    """One that shows again, in any of the three, or more of them than noise would break."""
    status, said, called = _run(tmp_path, rounds)

    assert (status, said, len(called)) == (2, "", len(rounds.split()))
