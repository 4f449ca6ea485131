"""`traced-threadpool what-if`."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import click

from traced_threadpool.cli.arguments import Integer, Moment, as_json, check_all, examples, trace_file, which_run
from traced_threadpool.cli.errors import NO_SUCH_RUN, Failure
from traced_threadpool.cli.input_files import ChosenRun, read, shown
from traced_threadpool.cli.output import print_json, print_parts
from traced_threadpool.engine.priorities import PRIORITIES, PriorityName
from traced_threadpool.model.formatting import count
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.as_json import prediction_json
from traced_threadpool.report.many_runs import scale_pools
from traced_threadpool.report.many_runs_json import pools_json
from traced_threadpool.report.prediction import Settings, predict
from traced_threadpool.report.terminal import prediction_text
from traced_threadpool.report.terminal_runs import pools_text


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


def _run_on(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    places: dict[str, str] = {}
    for value in values:
        name, equals, backend = value.rpartition("=")
        if not (equals and name and backend):
            raise click.BadParameter(f"{value!r} is not NODE=BACKEND, such as parse=processes")
        if name in places:
            raise click.BadParameter(f"{name!r} is given twice; give it once, with the backend you mean")
        places[name] = backend
    return places


def _lanes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    lanes: dict[str, int] = {}
    for value in values:
        name, equals, most = value.rpartition("=")
        try:
            number = int(most)
        except ValueError:
            number = 0
        if not (equals and name and number > 0):
            raise click.BadParameter(f"{value!r} is not LANE=N with a whole number from 1 on, such as db=4")
        if name in lanes:
            raise click.BadParameter(f"{name!r} is given twice; give it once, with the number you mean")
        lanes[name] = number
    return lanes


_UNITS: Final = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "B": 1.0}


def _moves(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for value in values:
        name, equals, size = value.rpartition("=")
        unit = next((unit for unit in _UNITS if size.endswith(unit)), "")
        try:
            number = float(size.removesuffix(unit)) * _UNITS[unit]
        except (KeyError, ValueError):
            number = -1.0
        if not (equals and name and 0 <= number < float("inf")):
            raise click.BadParameter(f"{value!r} is not NODE=SIZE with a unit, such as parse=200MB")
        sizes[name] = number
    return sizes


@click.command(
    name="what-if",
    epilog=examples(
        "what-if trace.jsonl",
        "what-if trace.jsonl --workers 4,8,16",
        "what-if trace.jsonl --faster parse=2x --without log",
        "what-if trace.jsonl --no-gil --cpus 8",
        "what-if trace.jsonl --run-on parse=processes --processes 4",
        "what-if trace.jsonl --lane db=4",
        "what-if trace.jsonl --all --workers 4,8,16",
    ),
)
@trace_file()
@click.option(
    "--workers",
    callback=_workers,
    metavar="N,N,...",
    help="Compare these numbers of workers, such as 4,8,16. The default is half, twice and four times as many.",
)
@click.option(
    "--faster",
    callback=_faster,
    multiple=True,
    metavar="NODE=FACTORx",
    help="Make a node this many times faster: parse=2x takes half the time. Repeat it for more nodes.",
)
@click.option("--without", multiple=True, metavar="NODE", help="Let a node take no time. Repeat it for more nodes.")
@click.option("--no-gil", is_flag=True, help="Let no node wait for the GIL.")
@click.option("--cpus", type=Integer(min=1), metavar="N", help="Let the machine have this many CPUs.")
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    help="Start ready nodes in this order; critical_path uses the durations in the record.",
)
@click.option(
    "--run-on",
    callback=_run_on,
    multiple=True,
    metavar="NODE=BACKEND",
    help="Let a node run on worker processes (parse=processes), on threads (parse=threads), or on a backend of the "
    "record. Repeat it for more nodes.",
)
@click.option(
    "--moves",
    callback=_moves,
    multiple=True,
    metavar="NODE=SIZE",
    help="Let a moved node's arguments and result have this size, where the record does not tell: parse=200MB. Repeat "
    "it for more nodes.",
)
@click.option("--processes", type=Integer(min=1), metavar="N", help="Let there be this many worker processes.")
@click.option(
    "--lane",
    "lanes",
    callback=_lanes,
    multiple=True,
    metavar="LANE=N",
    help="Let this many nodes of a lane, such as Threads(max_workers=2), run at once: db=4. Repeat it for more lanes.",
)
@which_run()
@click.option(
    "--all", "all_runs", is_flag=True, help="Replay all runs of each pool together, with their recorded arrival times."
)
@click.option(
    "--since", type=Moment(), metavar="TIME", help="With --all, take the runs that began then or later, in UTC."
)
@click.option("--until", type=Moment(), metavar="TIME", help="With --all, take the runs that began before, in UTC.")
@as_json
def what_if(
    file: Path,
    workers: tuple[int, ...],
    faster: dict[str, float],
    without: tuple[str, ...],
    no_gil: bool,
    cpus: int | None,
    priority: PriorityName | None,
    run_on: dict[str, str],
    processes: int | None,
    moves: dict[str, float],
    lanes: dict[str, int],
    which: str,
    all_runs: bool,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Predict how long a run would take with other settings.

    It replays the record through the scheduler in virtual time. Options can be combined.

    With --all it predicts how long the runs of a pool would take, and how many would be done in a second, by number of
    workers, with the arrival times that they had.
    """
    check_all(all_runs, None)
    if all_runs:
        if (
            faster
            or without
            or no_gil
            or run_on
            or moves
            or lanes
            or any(each is not None for each in (cpus, priority, processes))
        ):
            raise click.UsageError("--all takes --workers, --since and --until; the other settings are of one run")
        _pools(file, workers, since, until, as_json)
        return
    if since is not None or until is not None:
        raise click.UsageError("--since and --until choose among all runs; give --all as well")
    for name in without:
        if name in faster:
            raise click.UsageError(
                f"{name!r} is given to both --faster and --without; choose one: --without lets it take no time at all"
            )
    chosen = ChosenRun(file, which)
    settings = Settings(
        workers=workers,
        faster=faster,
        without=without,
        cpus=cpus,
        gil=not no_gil,
        priority=priority,
        run_on=run_on,
        processes=processes,
        moves=moves,
        lanes=lanes,
    )
    try:
        prediction = predict(chosen.run, settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        print_json({**prediction_json(prediction), **chosen.json})
        return
    print_parts([chosen.line, *prediction_text(prediction)])


def _pools(file: Path, workers: tuple[int, ...], since: datetime | None, until: datetime | None, as_json: bool) -> None:
    all_runs = read(file)
    chosen = [run for run in all_runs if _is_within(run, since, until)]
    if not chosen:
        raise Failure(f"{shown(file)!r} has {count(len(all_runs), 'run')}, none of which began then", NO_SUCH_RUN)
    try:
        pools = scale_pools(chosen, workers)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        print_json({**pools_json(pools), "file": str(file)})
        return
    print_parts(list(pools_text(pools, f"{shown(file)}: {count(len(chosen), 'run')} of {len(all_runs):,}")))


def _is_within(run: RecordedRun, since: datetime | None, until: datetime | None) -> bool:
    began_ns = run.started_unix_ns or 0
    return (since is None or began_ns >= _unix_ns(since)) and (until is None or began_ns < _unix_ns(until))


def _unix_ns(moment: datetime) -> int:
    return round(moment.replace(tzinfo=timezone.utc).timestamp() * 1e9)
