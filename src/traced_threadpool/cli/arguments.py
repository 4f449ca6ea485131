"""The arguments and options that several commands share, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Moment(click.DateTime):
    """A time, whose message shows how one is written."""

    name = "time"

    def __init__(self) -> None:
        super().__init__(["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"])  # the first as `runs` prints them

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not a time, such as 2026-11-29 or '2026-11-29 12:00:00'", param, ctx)


class Integer(click.IntRange):
    """A range whose name reads well in a sentence."""

    name = "integer"


def trace_file(name: str = "file") -> Callable[[Decorated], Decorated]:
    """A trace; `-` is standard input."""
    return click.argument(name, type=click.Path(allow_dash=True, path_type=Path))


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def which_run(name: str = "--run", parameter: str = "which", of: str = "FILE") -> Callable[[Decorated], Decorated]:
    """The run that is meant, of several in a file."""
    return click.option(
        name,
        parameter,
        metavar="WHICH",
        default="longest",
        help=f"Take this run of {of}: its number (from 1, in order of start), its id or the start of its id, 'last', "
        "or 'longest' (the default).",
    )


def all_runs(verb: str) -> Callable[[Decorated], Decorated]:
    """All of them, in place of one."""
    return click.option("--all", "all_runs", is_flag=True, help=f"{verb} all runs of FILE together.")


run_name = click.option(
    "--name",
    metavar="NAME",
    help="With --all, take the runs of this name. The default is the name that most runs have.",
)


def check_all(all_runs: bool, name: str | None) -> None:
    """What goes together with `--all`.

    Raises:
        click.UsageError: --run says which run, or --name is given without --all.
    """
    context = click.get_current_context()
    given = [
        each
        for each in ("which", "which_before", "which_after")
        if context.get_parameter_source(each) is ParameterSource.COMMANDLINE
    ]
    if all_runs and given:
        option = f"--{given[0].replace('which', 'run').replace('_', '-')}"
        raise click.UsageError(f"{option} chooses one run and --all takes all; give one of them")
    if name is not None and not all_runs:
        raise click.UsageError("--name chooses among all runs; give --all as well, or choose one run")


def output_file(text: str, *, allow_dash: bool = False) -> Callable[[Decorated], Decorated]:
    """Where to write."""
    return click.option("-o", "--output", type=click.Path(path_type=Path, allow_dash=allow_dash), help=text)


def examples(*lines: str) -> str:
    """The end of a command's help; the first character keeps click from joining the lines."""
    return "\n".join(["\b", "Examples:", *(f"  traced-threadpool {line}" for line in lines)])
