"""The words of a command line into options, or into one line that says what is wrong with them."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PROGRAM = "stdlib_survey"
DEFAULT_PORT = 0  # any that is free: a demonstration must not fail because another one runs
LARGEST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for. `workers` is None for the adapter's default, `limit` 0 for all files."""

    workers: int | None
    processes: int
    limit: int
    parallelizable: bool
    upstream: bool
    results: bool
    serve: bool
    trace_file: Path
    port: int


def parse_options(words: Sequence[str] | None = None) -> Options:
    """Read the command line; a mistake ends the program with status 2."""
    parser = _Parser(
        prog=PROGRAM,
        description="Survey Python's standard library with a Hamilton pipeline on traced threads.",
    )
    parser.add_argument("--workers", type=_number(1), metavar="N", help="threads (default: that of ThreadPoolExecutor)")
    parser.add_argument(
        "--processes", type=_number(1), metavar="N", default=0, help="parse on this many worker processes"
    )
    parser.add_argument(
        "--limit", type=_number(1), metavar="FILES", default=0, help="survey this many files (default: all)"
    )
    parser.add_argument("--parallelizable", action="store_true", help="run the variant with Parallelizable and Collect")
    parser.add_argument(
        "--upstream", action="store_true", help="compare with Hamilton's own adapter, three runs of each"
    )
    parser.add_argument("--results", action="store_true", help="print all of the survey's tables, not two of them")
    parser.add_argument("--serve", action="store_true", help="at the end, keep serving /metrics until interrupted")
    parser.add_argument(
        "--trace-file",
        type=Path,
        metavar="PATH",
        default=Path("demo-trace.jsonl"),
        help="append the trace to this file (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_number(0, LARGEST_PORT),
        default=DEFAULT_PORT,
        help="serve /metrics here (default: any free port)",
    )
    options = Options(**vars(parser.parse_args(words)))
    if options.upstream and options.parallelizable:
        parser.error("--upstream cannot go with --parallelizable: Hamilton's own adapter refuses such pipelines")
    return options


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
