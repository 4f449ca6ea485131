"""`traced-threadpool diff`."""

from __future__ import annotations

from pathlib import Path

import click

from traced_threadpool.analysis.difference import compare
from traced_threadpool.cli.arguments import as_json, examples, trace_file, which_run
from traced_threadpool.cli.input_files import ChosenRun
from traced_threadpool.cli.output import print_json, print_parts
from traced_threadpool.report.as_json import difference_json, run_json
from traced_threadpool.report.terminal import difference_text


@click.command(
    epilog=examples("diff yesterday.jsonl today.jsonl", "diff trace.jsonl trace.jsonl --run-before 1 --run-after last")
)
@trace_file("before")
@trace_file("after")
@which_run("--run-before", "which_before", "BEFORE")
@which_run("--run-after", "which_after", "AFTER")
@as_json
def diff(before: Path, after: Path, which_before: str, which_after: str, as_json: bool) -> None:
    """Compare two runs: which nodes became slower, and whether that matters.

    A change matters if it is on the critical path and so changes the length of the run.
    """
    first = ChosenRun(before, which_before, "--run-before")
    second = ChosenRun(after, which_after, "--run-after")
    difference = compare(first.run, second.run)
    if as_json:
        sides = {
            side: {**run_json(chosen.run), **chosen.json} for side, chosen in (("before", first), ("after", second))
        }
        print_json({**difference_json(difference), **sides})
        return
    print_parts([first.line, second.line, *difference_text(difference)])
