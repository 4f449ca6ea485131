"""`traced-threadpool slo`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from traced_threadpool.cli.arguments import examples, output_file
from traced_threadpool.cli.output import print_parts, put, write
from traced_threadpool.slo import Objective, slo_file
from traced_threadpool.slo.burn_rate import RUNBOOK
from traced_threadpool.telemetry import names

LATENCY_OBJECTIVE: Final = "99"


def _bounds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...]:
    if value is None:
        return names.RUN_BUCKETS
    try:
        bounds = tuple(float(word) for word in value.split(","))
    except ValueError:
        bounds = ()
    if not bounds or not all(low < high for low, high in zip((0.0, *bounds), (*bounds, float("inf")), strict=True)):
        raise click.BadParameter(
            f"{value!r} is not a comma-separated list of positive, increasing seconds, such as 1,10,60"
        )
    return bounds


@click.command(
    epilog=examples(
        "slo --run etl --objective 99.9",
        "slo --run etl --objective 99.9 --latency 30s --latency-objective 99 -o etl-slo.yaml",
        "slo --run nightly --objective 99 --fresh-within 26h",
    ),
    short_help="Write Prometheus alert rules for an objective.",
)
@click.option(
    "--run",
    "run_name",
    metavar="NAME",
    help="Cover this run, as named by run_name=. The default is each run by itself.",
)
@click.option("--pool", metavar="NAME", help="Cover this pool, as named by name=. The default is each pool by itself.")
@click.option(
    "--objective",
    required=True,
    metavar="PERCENT",
    help="Require that this percentage of runs does not fail, such as 99.9.",
)
@click.option(
    "--latency",
    metavar="DURATION",
    help="Let a run take this long at most, such as 30s. It must be a bucket bound of the run duration histogram.",
)
@click.option(
    "--latency-objective",
    metavar="PERCENT",
    help=f"Require that this percentage of runs keeps to --latency. The default is {LATENCY_OBJECTIVE}.",
)
@click.option("--fresh-within", metavar="DURATION", help="Let the last success be this old at most, such as 26h.")
@click.option(
    "--buckets",
    callback=_bounds,
    metavar="S,S,...",
    help="Repeat your Metrics(run_duration_buckets=...), in seconds, if you have set it.",
)
@click.option(
    "--runbook", default=RUNBOOK, show_default=True, metavar="URL", help="Link alerts to this copy of docs/runbook.md."
)
@output_file("Write to PATH. The default is standard output.")
def slo(
    run_name: str | None,
    pool: str | None,
    objective: str,
    latency: str | None,
    latency_objective: str | None,
    fresh_within: str | None,
    buckets: tuple[float, ...],
    runbook: str,
    output: Path | None,
) -> None:
    """Write Prometheus recording and alert rules for a service level objective.

    The alerts use several windows and burn rates, as Google's SRE workbook describes. See docs/slo.md.
    """
    if latency_objective is not None and latency is None:
        raise click.UsageError("--latency-objective needs --latency: the duration that runs must keep to")
    try:
        promised = Objective.parse(
            run=run_name,
            pool=pool,
            availability=objective,
            latency=latency,
            latency_objective=latency_objective or LATENCY_OBJECTIVE,
            fresh_within=fresh_within,
            bounds=buckets,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    written = slo_file(promised, runbook=runbook)
    if output is None:
        put(written)
        return
    write(output, written)
    print_parts([f"written to {output}; add it to rule_files: in Prometheus's configuration"])
