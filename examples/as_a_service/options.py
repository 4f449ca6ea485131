"""The words of a command line into options, or into one line that says what is wrong with them."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

PROGRAM = "as_a_service"
DEFAULT_PORT = 9464  # where OpenTelemetry's exporters for Prometheus listen, by custom
LARGEST_PORT = 65_535

# Those that need neither a disk of their own nor fewer CPUs than there are: they may share a process.
PATHOLOGIES = ("gil_bound", "slow_network", "lock_convoy", "pool_starved", "hidden_sleep", "healthy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for. `rounds` and `break_every` are 0 for without end and never, `limit` for all files."""

    listen: str
    port: int
    every_seconds: float
    rounds: int
    break_every: int
    scale: float
    limit: int
    only: tuple[str, ...]


def parse_options(words: Sequence[str] | None = None) -> Options:
    """Read the command line; a mistake ends the program with status 2."""
    parser = _Parser(
        prog=PROGRAM,
        description="Run the survey and the pathologies in turns until interrupted, and serve their metrics. "
        "Spans go where OTEL_EXPORTER_OTLP_ENDPOINT says.",
    )
    parser.add_argument("--listen", metavar="ADDRESS", default="127.0.0.1", help="serve here (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=_number(0, LARGEST_PORT),
        default=DEFAULT_PORT,
        help="serve /metrics here; 0 for any free port (default: %(default)s)",
    )
    parser.add_argument(
        "--every",
        dest="every_seconds",
        type=_seconds,
        metavar="SECONDS",
        default=20.0,
        help="from the start of a round to that of the next, if it is over by then (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=_number(1),
        metavar="N",
        default=0,
        help="after so many only serve what was counted (default: no end)",
    )
    parser.add_argument(
        "--break-every",
        type=_number(1),
        metavar="N",
        default=0,
        help="in every Nth round the survey's catalogue is down, and its run fails (default: never)",
    )
    parser.add_argument("--scale", type=_seconds, default=0.5, help="how much work the pathologies do (default: 0.5)")
    parser.add_argument("--limit", type=_number(1), metavar="FILES", default=0, help="files to survey (default: all)")
    parser.add_argument(
        "--only",
        choices=("survey", *PATHOLOGIES),
        action="append",
        default=[],
        metavar="NAME",
        help=f"one of survey, {', '.join(PATHOLOGIES)}; may be given again (default: all)",
    )
    given: dict[str, Any] = vars(parser.parse_args(words))
    given["only"] = tuple(given["only"]) or ("survey", *PATHOLOGIES)
    return Options(**given)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _number(smallest: int, largest: int | None = None) -> Callable[[str], int]:
    wanted = f"of {smallest} or more" if largest is None else f"from {smallest} to {largest}"

    def convert(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = smallest - 1
        if number < smallest or (largest is not None and number > largest):
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number {wanted}")
        return number

    return convert


def _seconds(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0")
    return number
