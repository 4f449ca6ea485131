"""Runs that are slow for a planted reason, several times each with other amounts, and what the diagnosis says of them.

`--keep DIR` leaves the traces there; `--read DIR` diagnoses such traces again and runs nothing. With both, what is
there already is not run again, so that a long measurement can be made in parts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine, table
from benchmarks.diagnosis import cases, report
from benchmarks.diagnosis.report import Judged
from benchmarks.settings import say
from traced_threadpool.analysis.diagnosis.diagnose import diagnose


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    asked = _parser().parse_args(arguments)
    began = time.monotonic()
    judged = []
    with ExitStack() as stack:
        keep = asked.keep or asked.read or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keep.mkdir(parents=True, exist_ok=True)
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            for name in asked.only:
                trace = keep / f"{name}-{seed}.jsonl"
                if not trace.exists():
                    if asked.read and not asked.keep:
                        continue
                    if asked.stop_after is not None and time.monotonic() - began > asked.stop_after:
                        say("diagnosis: time is up; the same command goes on where this one stopped")
                        return
                    cases.record(cases.CASES[name], seed=seed, scale=asked.scale, trace=trace)
                run = cases.read(trace)
                found = Judged(
                    case=cases.CASES[name], seed=seed, run=run, diagnosis=diagnose(run), company=cases.company(trace)
                )
                judged.append(found)
                say(f"diagnosis: {found.in_a_line}")
    table.show(report.tables(judged))
    if asked.write is not None:
        where = machine.describe()
        report.write(asked.write, judged, f"{where['CPUs usable']} × {where['CPU']}, {where['system']}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each program (default: 5)")
    parser.add_argument("--first-seed", type=int, default=1, metavar="N", help="the others follow (default: 1)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much work (default: 1, which is 1 to 5 s a run)")
    parser.add_argument(
        "--only", type=_names, default=list(cases.CASES), metavar="NAME,...", help=f"of {', '.join(cases.CASES)}"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where traces go, and are looked for first")
    parser.add_argument("--read", type=Path, metavar="DIR", help="diagnose the traces that --keep left, run nothing")
    parser.add_argument("--stop-after", type=float, metavar="SECONDS", help="with --keep: end early, to go on later")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the matrix into this page")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in cases.CASES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(cases.CASES)}, separated by commas, not {text!r}"
        )
    return names


if __name__ == "__main__":
    main()
