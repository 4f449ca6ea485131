"""`traced-threadpool runs`."""

from __future__ import annotations

from pathlib import Path

import click

from traced_threadpool.cli.arguments import Integer, as_json, examples, trace_file
from traced_threadpool.cli.input_files import of_name, read
from traced_threadpool.cli.output import print_json, print_parts
from traced_threadpool.report.many_runs import ORDERS, listed_runs
from traced_threadpool.report.many_runs_json import list_json
from traced_threadpool.report.terminal_runs import list_text, more_text

ROWS = 50


@click.command(
    epilog=examples(
        "runs trace.jsonl",
        "runs trace.jsonl --sort duration --reverse --limit 10",
        "runs trace.jsonl --name nightly --json",
    )
)
@trace_file()
@click.option(
    "--sort", type=click.Choice(list(ORDERS)), default="started", show_default=True, help="Sort the runs by this."
)
@click.option("--reverse", is_flag=True, help="Reverse the order: the latest, or the longest, comes first.")
@click.option("--name", metavar="NAME", help="List only the runs of this name.")
@click.option(
    "--limit", type=Integer(min=1), metavar="N", help=f"List at most N runs. The default is {ROWS}, with --json all."
)
@as_json
def runs(file: Path, sort: str, reverse: bool, name: str | None, limit: int | None, as_json: bool) -> None:
    """List the runs of a file.

    Each has its number, which --run of the other commands takes, when it started, how long it took, how it ended, how
    long its critical path was queued, and what takes most of that path.
    """
    found = listed_runs(of_name(read(file), name, file), sort, backwards=reverse)
    chosen = [facts for facts in found if name is None or facts.run.name == name]
    if as_json:
        print_json({**list_json(chosen[:limit]), "file": str(file)})
        return
    shown = chosen[: limit or ROWS]
    print_parts([*list_text(shown), *more_text(len(chosen) - len(shown))])
