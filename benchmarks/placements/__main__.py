"""What nodes gain on worker processes.

`predictions`: what a replay foretells of moving nodes, against what is measured. `auto`: what `run_on="auto"` decides.
`calls`: what nodes on processes cost, beside bare processes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.marked import write_between
from benchmarks.placements import auto, calls, predictions


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.placements", description=__doc__)
    parser.add_argument("what", choices=("predictions", "auto", "calls"))
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each is run (default: 3)")
    parser.add_argument(
        "--only", nargs="*", default=(), metavar="WORD", help="predictions: cases with one of these words"
    )
    parser.add_argument("--limit", type=int, default=0, metavar="FILES", help="of the survey (default: all)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="predictions: put the table into this page")
    asked = parser.parse_args(arguments)
    if asked.what == "predictions":
        where = machine.describe()  # before: other programs' load
        described = (
            f"{where['CPUs usable']} × {where['CPU']}, {where['system']}, {_load(where['load'])}; medians of "
            f"{asked.rounds}, in turns"
        )
        table = predictions.markdown(predictions.measure(asked.only, asked.rounds), described)
        print(table)
        if asked.write is not None:
            write_between(asked.write, predictions.BEGIN, predictions.END, table)
    elif asked.what == "auto":
        print(auto.io_cost(5 * asked.rounds), flush=True)
        print(auto.load_of_others(auto.RUNS), flush=True)
        print(auto.survey_gain(asked.rounds, asked.limit), flush=True)
    else:
        for measured in (calls.no_op, calls.computing, calls.chain):
            print(measured(asked.rounds), flush=True)
        print(calls.survey(asked.rounds, asked.limit), flush=True)


def _load(load: object) -> str:
    """
    >>> _load((21.6, 20.0, 18.0)), _load(None)
    ("other programs' load 21.6", "other programs' load not known")
    """
    known = f"{load[0]:.1f}" if isinstance(load, tuple) else "not known"
    return f"other programs' load {known}"


if __name__ == "__main__":
    main()
