"""`traced-threadpool report`."""

from __future__ import annotations

from pathlib import Path

import click

from traced_threadpool.cli.arguments import all_runs, check_all, examples, output_file, run_name, trace_file, which_run
from traced_threadpool.cli.input_files import STANDARD_INPUT, ChosenRun, is_same_file, of_name, read, shown
from traced_threadpool.cli.output import print_parts, put, write
from traced_threadpool.model.formatting import count
from traced_threadpool.report.explanation import explain as explain_run
from traced_threadpool.report.many_runs import explain_many
from traced_threadpool.report.page import page
from traced_threadpool.report.runs_page import runs_page


@click.command(
    epilog=examples(
        "report trace.jsonl", "report trace.jsonl --run 3 -o run.html", "report trace.jsonl --all -o runs.html"
    )
)
@trace_file()
@output_file(
    "Write the page to PATH; - is standard output. The default is FILE with the ending .html.", allow_dash=True
)
@which_run()
@all_runs("Report on")
@run_name
def report(file: Path, output: Path | None, which: str, all_runs: bool, name: str | None) -> None:
    """Write an HTML page about a run, or about all runs.

    It is one file that opens offline: the findings, a timeline, the critical path, a table of all nodes. With --all
    it has each run by its start, the typical run, what the slow ones have in common, each node, and a list of the runs.
    """
    check_all(all_runs, name)
    if output is None:
        if file == STANDARD_INPUT:
            raise click.UsageError("a page from standard input needs a file name; give one with -o")
        output = file.with_suffix(".html")
    to_standard_output = str(output) == "-"
    if not to_standard_output and is_same_file(file, output):
        raise click.UsageError(f"the trace {str(file)!r} would be overwritten; write to another file with -o")
    if all_runs:
        runs = of_name(read(file), name, file)
        written, line = runs_page(explain_many(runs, name)), f"{shown(file)}: {count(len(runs), 'run')}"
    else:
        chosen = ChosenRun(file, which)
        written, line = page(explain_run(chosen.run)), chosen.line
    if to_standard_output:
        put(written)
        return
    write(output, written)
    print_parts([line, f"written to {output}"])
