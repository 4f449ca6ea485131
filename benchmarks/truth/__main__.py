"""Runs the scenarios, each in a process of its own under the instrument, and shows how far off what is reported is."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from benchmarks import machine, table
from benchmarks.settings import say
from benchmarks.truth import compare, instrument, report
from benchmarks.truth.compare import STEAL_LIMIT, Measured
from benchmarks.truth.scenarios import SCENARIOS

ROOT: Final = Path(__file__).parents[2]
VERSIONS: Final = ("3.10", "3.11", "3.12", "3.13")
ATTEMPTS: Final = 3
LIMIT_SECONDS: Final = 120.0
OTHERS: Final = "## Nodes on worker processes"
"""How the part of the page begins that another benchmark writes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    asked = _parser().parse_args(arguments)
    if asked.read:
        measured = [compare.from_record(each) for path in asked.read for each in json.loads(path.read_text("utf-8"))]
    else:
        with tempfile.TemporaryDirectory() as directory:
            library = instrument.build(Path(directory))
            measured = [
                measure(library, python, scenario, quick=asked.quick)
                for python in (_pythons() if asked.pythons else [sys.executable])
                for scenario in asked.only
            ]
    table.show(report.tables(measured))
    for line in report.missed(measured):
        print(f"missed: {line}")
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(each) for each in measured]) + "\n", encoding="utf-8")
    if asked.write is not None:
        found = machine.describe()
        written = report.document(measured, f"{found['CPUs usable']} × {found['CPU']}, {found['system']}")
        old = asked.write.read_text(encoding="utf-8") if asked.write.exists() else ""
        _, heading, others = old.partition(OTHERS)  # what `benchmarks.placements` writes
        asked.write.write_text(f"{written.rstrip()}\n\n{heading}{others}" if heading else written, encoding="utf-8")


def measure(library: Path, python: str, scenario: str, *, quick: bool) -> Measured:
    """One scenario in a fresh process; again while a hypervisor took too much away, and then the one with the least.

    Raises:
        subprocess.CalledProcessError: The process failed; it has said why.
    """
    best: Measured | None = None
    for attempt in range(1, ATTEMPTS + 1):
        command = [python, "-m", "benchmarks.truth.measure", scenario, *(["--quick"] if quick else [])]
        done = subprocess.run(
            instrument.command(library, *command),
            cwd=ROOT,
            env={**os.environ, "HAMILTON_TELEMETRY_ENABLED": "false"},
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_SECONDS,
            check=True,
        )
        found = replace(compare.from_record(json.loads(done.stdout.splitlines()[-1])), attempts=attempt)
        say(f"truth: {found.python} {scenario}, {found.method}, steal {found.steal:.1%}")
        if best is None or found.steal < best.steal:
            best = found
        if found.steal <= STEAL_LIMIT:
            break
    assert best is not None
    return best


def _pythons() -> list[str]:
    """An environment for each Python that is installed, as `make test-all` makes them."""
    found = []
    for version in VERSIONS:
        looked = subprocess.run(["scripts/find-python", version], cwd=ROOT, capture_output=True, check=False)
        if looked.returncode != 0:
            say(f"truth: Python {version} is not installed, skipped")
            continue
        venv = f".venv-{version}"
        subprocess.run(["scripts/make-venv", venv, "requirements/dev.txt", "editable", version], cwd=ROOT, check=True)
        found.append(str(ROOT / venv / "bin" / "python"))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a second of each, to see that the method works")
    parser.add_argument(
        "--only",
        type=_scenarios,
        default=list(SCENARIOS),
        metavar="NAME,...",
        help=f"of {', '.join(SCENARIOS)}; all, unless given",
    )
    parser.add_argument("--pythons", action="store_true", help=f"on each of Python {', '.join(VERSIONS)} installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where every execution goes")
    parser.add_argument("--read", type=Path, metavar="FILE", nargs="+", help="show what --json wrote, measure nothing")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a page for the documentation")
    return parser


def _scenarios(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(SCENARIOS)}, separated by commas, not {text!r}")
    return names


if __name__ == "__main__":
    main()
