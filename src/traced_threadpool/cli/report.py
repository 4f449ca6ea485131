"""`traced-threadpool report`."""

from __future__ import annotations

from pathlib import Path

import click

from traced_threadpool.cli.arguments import examples, output_file, trace_file, which_run
from traced_threadpool.cli.input_files import STANDARD_INPUT, ChosenRun, is_same_file
from traced_threadpool.cli.output import print_parts, put, write
from traced_threadpool.report.explanation import explain as explain_run
from traced_threadpool.report.page import page


@click.command(epilog=examples("report trace.jsonl", "report trace.jsonl --run 3 -o run.html"))
@trace_file()
@output_file("The page to write; - for standard output. The default is FILE with the ending .html.", allow_dash=True)
@which_run()
def report(file: Path, output: Path | None, which: str) -> None:
    """Write an HTML page about a run.

    It is one file that opens offline: the findings, a timeline, the critical path, a table of all nodes.
    """
    if output is None:
        if file == STANDARD_INPUT:
            raise click.UsageError("a page from standard input needs a file name; give one with -o")
        output = file.with_suffix(".html")
    to_standard_output = str(output) == "-"
    if not to_standard_output and is_same_file(file, output):
        raise click.UsageError(f"the trace {str(file)!r} would be overwritten; write to another file with -o")
    chosen = ChosenRun(file, which)
    written = page(explain_run(chosen.run))
    if to_standard_output:
        put(written)
        return
    write(output, written)
    print_parts([chosen.line, f"written to {output}"])
