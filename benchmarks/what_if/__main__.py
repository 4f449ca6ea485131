"""Measures DAGs on several numbers of workers, replays each record for all the others, and compares.

Every sample goes to a file, and all that the file has to a document, so that cases can be measured one at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.settings import say
from benchmarks.what_if import document
from benchmarks.what_if.cases import WORKERS, Case, cases
from benchmarks.what_if.run import Measured, measure, run
from benchmarks.what_if.work import Worker, worker
from traced_threadpool.analysis.what_if import replay

ROUNDS = 3
RESULTS = Path(__file__).parent / "results.json"
DOCUMENT = Path(__file__).parents[2] / "docs" / "what-if.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.what_if", description=__doc__)
    parser.add_argument("--only", type=int, nargs="*", metavar="CASE", help="the cases to measure, by number from 0 on")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="how often each is run (default 3)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="where samples are kept")
    parser.add_argument("--document", type=Path, default=DOCUMENT, metavar="FILE", help="where the table goes")
    asked = parser.parse_args(arguments)
    results = json.loads(asked.results.read_text(encoding="utf-8")) if asked.results.exists() else {"cases": {}}
    chosen = range(len(cases())) if asked.only is None else asked.only
    with worker() as doing:
        for number in chosen:
            case = cases()[number]
            results["cases"][str(number)] = _measured(case, doing, asked.rounds)
            results.update({"machine": machine.describe(), "versions": machine.versions()})
            asked.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    text = document.text(results)
    asked.document.write_text(text, encoding="utf-8")
    print(document.summary(results))


def _measured(case: Case, doing: Worker, rounds: int) -> dict[str, object]:
    """The samples of one case, by the workers: the makespans, and what the replay of each record foretells."""
    module, end = case.module(doing), case.dag.end
    started = time.monotonic()
    warm_up_ends = started + 0.5
    while time.monotonic() < warm_up_ends:  # until the sampler of waits has started too
        run(module, end, max(WORKERS))
    samples: dict[int, list[Measured]] = {workers: [] for workers in WORKERS}
    for _ in range(rounds):
        for workers, measured in samples.items():
            measured.append(measure(module, end, workers))
    seconds = {workers: statistics.median(each.seconds for each in measured) for workers, measured in samples.items()}
    say(f"{case.name}: {', '.join(f'{each:.2f} s on {workers}' for workers, each in seconds.items())}")
    return {
        "kind": case.kind,
        "name": case.name,
        "seconds": {str(workers): [each.seconds for each in measured] for workers, measured in samples.items()},
        "others": {str(workers): [each.others for each in measured] for workers, measured in samples.items()},
        "foretold": {
            str(workers): {
                str(other): [replay(each.record, workers=other).makespan_seconds for each in measured]
                for other in WORKERS
            }
            for workers, measured in samples.items()
        },
    }


if __name__ == "__main__":
    main()
