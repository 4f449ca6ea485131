"""`traced-threadpool explain`."""

from __future__ import annotations

from pathlib import Path

import click

from traced_threadpool.cli.arguments import as_json, examples, trace_file, which_run
from traced_threadpool.cli.input_files import ChosenRun
from traced_threadpool.cli.output import print_json, print_parts
from traced_threadpool.report.as_json import explanation_json
from traced_threadpool.report.explanation import explain as explain_run
from traced_threadpool.report.terminal import explanation_text


@click.command(
    epilog=examples(
        "explain trace.jsonl",
        "explain trace.jsonl --run last",
        "explain trace.jsonl --json",
        "explain - < trace.jsonl",
    )
)
@trace_file()
@which_run()
@as_json
def explain(file: Path, which: str, as_json: bool) -> None:
    """Explain why a run took as long as it did, and what would make it faster.

    Prints up to three findings with their evidence and advice, the critical path, where the nodes' time went, the
    slowest nodes, and the predicted length of the run by number of workers.
    """
    chosen = ChosenRun(file, which)
    explanation = explain_run(chosen.run)
    if as_json:
        print_json({**explanation_json(explanation), **chosen.json})
        return
    print_parts([chosen.line, *explanation_text(explanation)])
