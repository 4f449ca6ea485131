"""Measures, shows the tables, says which targets are met, and writes every sample to a file."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from benchmarks import (
    attribution,
    branches,
    holds,
    machine,
    makespan,
    memory,
    orchestrators,
    overhead,
    page,
    priorities,
    report,
    table,
    targets,
    telemetry_parts,
)
from benchmarks.samples import Results, Series
from benchmarks.settings import Settings, say
from benchmarks.targets import Check

SECTIONS: Mapping[str, Callable[[Settings], list[Series]]] = {
    "overhead": overhead.measure_shapes,
    "sizes": overhead.measure_sizes,
    "branches": branches.measure,
    "linear-branches": branches.measure_linear,
    "telemetry": telemetry_parts.measure,
    "first-run": telemetry_parts.measure_first_run,
    "attribution": attribution.measure,
    "orchestrators": orchestrators.measure,
    "makespan": makespan.measure,
    "priorities": priorities.measure,
    "lock": holds.measure,
    "memory": memory.measure,
}
RESULTS = Path(__file__).parent / "results.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    asked = _parser().parse_args(arguments)
    settings = Settings(smoke=asked.smoke, repeat=asked.repeat, choice=random.Random(asked.seed))
    started_at, started = datetime.now(timezone.utc), time.monotonic()
    before = machine.describe()
    series: list[Series] = []
    for section in asked.only:
        series += SECTIONS[section](settings)
    results = Results(series)
    checks = targets.check(results)
    part = "" if asked.only == list(SECTIONS) else ", ".join(asked.only)  # must not take the place of all verdicts
    table.show(report.tables(results, [] if asked.smoke else checks, part=part))  # one cold round decides nothing
    seconds = time.monotonic() - started
    cpus = f"{before['CPUs usable']} × {before['CPU']}"
    print(f"{cpus}, {machine.versions()['python']}, {seconds:.0f} s")
    if asked.smoke:
        print("A smoke: every peer ran every DAG and gave the same result. The numbers mean nothing.")
    if asked.write is not None:
        page.write(asked.write, report.tables(results, checks, part=part), machine.describe(), machine.versions())
    path = asked.json or (None if asked.smoke else RESULTS)
    if path is not None:
        record = {
            "started": started_at.isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "settings": {"smoke": asked.smoke, "repeat": asked.repeat, "seed": asked.seed, "only": asked.only},
            "machine": {"before": before, "after": machine.describe()},
            "versions": machine.versions(),
            "series": [_series_record(each) for each in series],
            "checks": [_check_record(each) for each in checks],
        }
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        say(f"every sample is in {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="everything once and small, to see that it works")
    parser.add_argument(
        "--only",
        type=_sections,
        default=list(SECTIONS),
        metavar="SECTION,...",
        help=f"of {', '.join(SECTIONS)}; all, unless given",
    )
    parser.add_argument("--repeat", type=_positive, metavar="N", help="rounds of each section")
    parser.add_argument("--seed", type=int, default=1, help="of the order of turns; %(default)s, unless given")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="a Markdown page, whose tables of these sections are replaced"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"where samples go; {RESULTS.name} beside this file, unless given (with --smoke: nowhere)",
    )
    return parser


def _sections(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(SECTIONS)}, separated by commas, not {text!r}")
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number of rounds of 1 or more, not {text!r}")
    return int(text)


def _series_record(series: Series) -> dict[str, object]:
    low, high = series.quartiles
    return {**asdict(series), "median": series.median, "q1": low, "q3": high, "iqr": high - low}


def _check_record(check: Check) -> dict[str, object]:
    return {**asdict(check), "met": check.met}


if __name__ == "__main__":
    main()
