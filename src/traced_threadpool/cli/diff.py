"""`traced-threadpool diff`."""

from __future__ import annotations

from pathlib import Path

import click

from traced_threadpool.analysis.difference import compare
from traced_threadpool.analysis.many_runs import succeeded, summarize
from traced_threadpool.analysis.run_sets import compare_sets
from traced_threadpool.cli.arguments import as_json, check_all, examples, output_file, run_name, trace_file, which_run
from traced_threadpool.cli.errors import NO_SUCH_RUN, Failure
from traced_threadpool.cli.input_files import ChosenRun, is_same_file, of_name, read, shown
from traced_threadpool.cli.output import print_json, print_parts, write
from traced_threadpool.report.as_json import difference_json, run_json
from traced_threadpool.report.many_runs_json import set_difference_json
from traced_threadpool.report.terminal import difference_text
from traced_threadpool.report.terminal_runs import set_difference_text


@click.command(
    epilog=examples(
        "diff yesterday.jsonl today.jsonl",
        "diff trace.jsonl trace.jsonl --run-before 1 --run-after last",
        "diff yesterday.jsonl today.jsonl --all",
        "diff yesterday.jsonl today.jsonl --all -o difference.html",
    ),
    short_help="Compare two runs, or two sets of runs.",
)
@trace_file("before")
@trace_file("after")
@which_run("--run-before", "which_before", "BEFORE")
@which_run("--run-after", "which_after", "AFTER")
@click.option("--all", "all_runs", is_flag=True, help="Compare all runs of BEFORE with all of AFTER.")
@run_name
@output_file("With --all, write an HTML page to PATH.")
@as_json
def diff(
    before: Path,
    after: Path,
    which_before: str,
    which_after: str,
    all_runs: bool,
    name: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare two runs, or two sets of runs: which nodes became slower, and whether that matters.

    A change matters if it is on the critical path and so changes the length of the run.
    """
    check_all(all_runs, name)
    if all_runs:
        _sets(before, after, name, output, as_json)
        return
    if output is not None:
        raise click.UsageError("-o writes a page about two sets of runs; give --all as well")
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


def _sets(before: Path, after: Path, name: str | None, output: Path | None, as_json: bool) -> None:
    """Those that succeeded, of the name that most runs of BEFORE have, unless one is given."""
    earlier = of_name(read(before), name, before)
    chosen = summarize(earlier, name=name).name
    sides = [succeeded(runs, chosen) for runs in (earlier, of_name(read(after), chosen, after))]
    for side, file in zip(sides, (before, after), strict=True):
        if not side:
            raise Failure(f"{shown(file)!r} has no run of the name {chosen!r} that succeeded", NO_SUCH_RUN)
    for file in (before, after):
        if output is not None and is_same_file(file, output):
            raise click.UsageError(f"the trace {str(file)!r} would be overwritten; write to another file with -o")
    found = compare_sets(*sides)
    if output is not None:
        from traced_threadpool.report.runs_page import sets_page  # only a page needs its template engine

        write(output, sets_page(found, chosen, *sides))
    if as_json:
        print_json({**set_difference_json(found), "name": chosen})
        return
    parts = list(set_difference_text(found, f"{shown(before)}, {shown(after)}: runs of {chosen} that succeeded"))
    print_parts(parts if output is None else [*parts, f"written to {output}"])
