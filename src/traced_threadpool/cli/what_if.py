"""`traced-threadpool what-if`."""

from __future__ import annotations

from pathlib import Path

import click

from traced_threadpool.cli.arguments import Integer, as_json, examples, trace_file, which_run
from traced_threadpool.cli.input_files import ChosenRun
from traced_threadpool.cli.output import print_json, print_parts
from traced_threadpool.engine.priorities import PRIORITIES, PriorityName
from traced_threadpool.report.as_json import prediction_json
from traced_threadpool.report.prediction import Settings, predict
from traced_threadpool.report.terminal import prediction_text


def _workers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        numbers = tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a comma-separated list of integers, such as 4,8,16") from None
    if any(number < 1 for number in numbers):
        raise click.BadParameter(f"{value!r} contains a number below 1; a pool has at least one worker")
    return numbers


def _faster(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    factors = {}
    for value in values:
        name, equals, factor = value.rpartition("=")
        try:
            number = float(factor.removesuffix("x"))
        except ValueError:
            number = 0.0
        if not (equals and name and 0 < number < float("inf")):
            raise click.BadParameter(f"{value!r} is not NODE=FACTOR with a factor above 0, such as parse=2x")
        if "," in name and "=" in name:
            raise click.BadParameter(f"{value!r} names more than one node; repeat --faster for each")
        if name in factors:
            raise click.BadParameter(f"{name!r} is given twice; give it once, with the factor you mean")
        factors[name] = number
    return factors


@click.command(
    name="what-if",
    epilog=examples(
        "what-if trace.jsonl",
        "what-if trace.jsonl --workers 4,8,16",
        "what-if trace.jsonl --faster parse=2x --without log",
        "what-if trace.jsonl --no-gil --cpus 8",
    ),
)
@trace_file()
@click.option(
    "--workers",
    callback=_workers,
    metavar="N,N,...",
    help="Numbers of workers to compare, such as 4,8,16. Without any option: half, twice and four times as many.",
)
@click.option(
    "--faster",
    callback=_faster,
    multiple=True,
    metavar="NODE=FACTORx",
    help="Make a node this many times faster: parse=2x takes half the time. Can be repeated.",
)
@click.option("--without", multiple=True, metavar="NODE", help="Let a node take no time. Can be repeated.")
@click.option("--no-gil", is_flag=True, help="Let no node wait for the GIL.")
@click.option("--cpus", type=Integer(min=1), metavar="N", help="The machine's number of CPUs.")
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    help="Which ready node starts first; critical_path uses the durations in the record.",
)
@which_run()
@as_json
def what_if(
    file: Path,
    workers: tuple[int, ...],
    faster: dict[str, float],
    without: tuple[str, ...],
    no_gil: bool,
    cpus: int | None,
    priority: PriorityName | None,
    which: str,
    as_json: bool,
) -> None:
    """Predict how long a run would take with other settings.

    Replays the record through the scheduler in virtual time. Options can be combined.
    """
    for name in without:
        if name in faster:
            raise click.UsageError(
                f"{name!r} is given to both --faster and --without; choose one: --without lets it take no time at all"
            )
    chosen = ChosenRun(file, which)
    settings = Settings(workers=workers, faster=faster, without=without, cpus=cpus, gil=not no_gil, priority=priority)
    try:
        prediction = predict(chosen.run, settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        print_json({**prediction_json(prediction), **chosen.json})
        return
    print_parts([chosen.line, *prediction_text(prediction)])
