"""Run the tests that measure (`-m measures`), and repeat those that fail until it is decided: `make test-measures`.

On a machine that others use as well, one measurement proves little. A test that passes at once has passed. One that
fails is repeated, in a process of its own each time, until it has passed or failed in most of five runs.
How many runs it took is printed for each, and all arguments are handed on to pytest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

RUNS = 5
MOST = RUNS // 2 + 1
ROOT = Path(__file__).parent.parent


class Outcomes:
    """The pytest plugin of one round: which tests passed and which failed."""

    def __init__(self, file: str) -> None:
        """`file` is where the outcomes are written, as JSON."""
        self._file = file
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._outcomes[report.nodeid] = "failed"
        elif report.when == "call" or report.skipped:
            self._outcomes.setdefault(report.nodeid, report.outcome)

    def pytest_sessionfinish(self) -> None:
        Path(self._file).write_text(json.dumps(self._outcomes))


def run_round(arguments: list[str]) -> dict[str, str]:
    """The outcome of each test of one pytest process; one that ended before it could tell ends this program too."""
    with tempfile.TemporaryDirectory() as directory:
        outcomes = Path(directory) / "outcomes.json"
        command = [sys.executable, __file__, "--round", str(outcomes), "-m", "measures", *arguments]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not outcomes.exists():
            sys.exit(status or 1)
        found: dict[str, str] = json.loads(outcomes.read_text())
        return found


def main(arguments: list[str]) -> int:
    """0 where every test has passed at once or in most runs, else 1."""
    first = run_round(arguments)
    runs = {name: [outcome] for name, outcome in first.items()}
    while undecided := [
        name for name, outcomes in runs.items() if outcomes[0] == "failed" and max(Counter(outcomes).values()) < MOST
    ]:
        print(f"\n=== repeating {len(undecided)} measuring tests that are not decided yet", flush=True)
        for name in undecided:
            # A test that does not even run any more has not passed.
            runs[name].append(run_round([name]).get(name, "failed"))
    failed = [name for name, outcomes in runs.items() if outcomes.count("failed") >= MOST]
    print(f"\n=== {len(runs)} measuring tests, {sum(map(len, runs.values()))} runs, {len(failed)} failed")
    for name, outcomes in runs.items():
        if len(outcomes) > 1:
            verdict = "FAILED" if name in failed else "passed"
            print(f"{verdict} after {len(outcomes)} runs ({outcomes.count('passed')} passed): {name}")
    return bool(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--round"]:
        sys.path.insert(0, str(ROOT))
        sys.exit(pytest.main(sys.argv[3:], plugins=[Outcomes(sys.argv[2])]))
    sys.exit(main(sys.argv[1:]))
