"""The words of a command line into options, or into one line that says what is wrong with them."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

LARGEST_SCALE = 100.0
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for. `workers` is None for those of the pathology, `trace` for a file that is thrown away."""

    scale: float
    workers: int | None
    seed: int
    trace: Path | None


def parse_options(program: str, words: Sequence[str] | None = None) -> Options:
    """Read the command line of one pathology; a mistake ends the program with status 2."""
    parser = _Parser(prog=program, description="Run a small pipeline that is slow for a known reason, and say why.")
    _add_options(parser)
    return Options(**vars(parser.parse_args(words)))


def parse_choice(program: str, known: Sequence[str], words: Sequence[str] | None = None) -> tuple[str | None, Options]:
    """Read the command line of all of them: which one (None for a list), and its options."""
    parser = _Parser(prog=program, description="Small pipelines, each slow for one reason. Without a word: a list.")
    parser.add_argument("program", nargs="?", choices=[*known, ALL], help="the one to run, or all of them")
    _add_options(parser)
    given = vars(parser.parse_args(words))
    return given.pop("program"), Options(**given)


def as_words(options: Options) -> list[str]:
    """The command line that gives these options."""
    words = ["--scale", repr(options.scale), "--seed", str(options.seed)]
    if options.workers is not None:
        words += ["--workers", str(options.workers)]
    if options.trace is not None:
        words += ["--trace", str(options.trace)]
    return words


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=_scale, default=1.0, help="how much work (default: 1, which takes 2 to 5 s)")
    parser.add_argument("--workers", type=_workers, metavar="N", help="threads (default: as the program is meant)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="deals the work out differently (default: 1)")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="append the trace to this file, as OTLP/JSON lines")


def _scale(word: str) -> float:
    try:
        scale = float(word)
    except ValueError:
        scale = math.nan
    if not 0 < scale <= LARGEST_SCALE:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0 and up to {LARGEST_SCALE:g}")
    return scale


def _workers(word: str) -> int:
    try:
        workers = int(word)
    except ValueError:
        workers = 0
    if workers < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of 1 or more")
    return workers
