"""`traced-threadpool explain`."""

from __future__ import annotations

from pathlib import Path

import click

from traced_threadpool.cli.arguments import all_runs, as_json, check_all, examples, run_name, trace_file, which_run
from traced_threadpool.cli.input_files import ChosenRun, of_name, read, shown
from traced_threadpool.cli.output import print_json, print_parts
from traced_threadpool.report.as_json import explanation_json
from traced_threadpool.report.explanation import explain as explain_run
from traced_threadpool.report.many_runs import explain_many
from traced_threadpool.report.many_runs_json import many_json
from traced_threadpool.report.terminal import explanation_text
from traced_threadpool.report.terminal_runs import many_text


@click.command(
    epilog=examples(
        "explain trace.jsonl",
        "explain trace.jsonl --run last",
        "explain trace.jsonl --all",
        "explain trace.jsonl --json",
        "explain - < trace.jsonl",
    ),
    short_help="Explain why a run was slow, and what would make it faster.",
)
@trace_file()
@which_run()
@all_runs("Explain")
@run_name
@as_json
def explain(file: Path, which: str, all_runs: bool, name: str | None, as_json: bool) -> None:
    """Explain why a run took as long as it did, and what would make it faster.

    It prints up to three findings with their evidence and advice, the critical path, where the nodes' time went, the
    slowest nodes, and the predicted length of the run by number of workers.

    With --all it prints the typical run, the median and the 95th percentile of the runs and of each node, what the
    slow runs have in common that the others lack, and the trend.
    """
    check_all(all_runs, name)
    if all_runs:
        many = explain_many(of_name(read(file), name, file), name)
        if as_json:
            print_json({**many_json(many), "file": str(file)})
        else:
            print_parts(list(many_text(many, shown(file))))
        return
    chosen = ChosenRun(file, which)
    explanation = explain_run(chosen.run)
    if as_json:
        print_json({**explanation_json(explanation), **chosen.json})
        return
    print_parts([chosen.line, *explanation_text(explanation)])
