"""`traced-threadpool demo`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from traced_threadpool.cli.arguments import Integer, examples
from traced_threadpool.cli.errors import EXTRA_MISSING, PROGRAM, UNREADABLE, Failure
from traced_threadpool.cli.input_files import ChosenRun
from traced_threadpool.cli.output import print_parts, write
from traced_threadpool.report.explanation import explain as explain_run
from traced_threadpool.report.page import page
from traced_threadpool.report.terminal import explanation_text


@click.command(epilog=examples("demo", "demo --workers 8"))
@click.option(
    "-d",
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("traced-threadpool-demo"),
    show_default=True,
    help="Write the trace and the page there.",
)
@click.option("--workers", type=Integer(1, 256), default=4, show_default=True, help="Run this many worker threads.")
def demo(directory: Path, workers: int) -> None:
    """Run a small pipeline, record it and explain it.

    It takes about a second, writes its trace and its page, and says what to try next.
    """
    try:
        from traced_threadpool.demo import run_demo
    except ModuleNotFoundError as error:
        raise Failure(
            f"{error.name} is not installed; the demo needs the extra 'report': pip install "
            "'traced_threadpool[report]'",
            EXTRA_MISSING,
        ) from error
    trace, html = directory / "trace.jsonl", directory / "run.html"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        trace.unlink(missing_ok=True)
        run_demo(trace, workers)
    except OSError as error:
        raise Failure(f"{str(directory)!r} cannot be written to: {error.strerror or error}", UNREADABLE) from error
    explanation = explain_run(ChosenRun(trace, "longest").run)
    write(html, page(explanation))
    slowest = explanation.slowest(1)[0].name
    file = shlex.quote(str(trace))
    print_parts(
        [
            *explanation_text(explanation),
            "",
            f"Trace: {trace}",
            f"Page:  {html} (open it in a browser)",
            "",
            "Try next:",
            f"  {PROGRAM} what-if {file} --workers {2 * workers},{4 * workers}",
            f"  {PROGRAM} what-if {file} --faster {slowest}=2x",
            f"  {PROGRAM} explain {file} --json",
        ]
    )
