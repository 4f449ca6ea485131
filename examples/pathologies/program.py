"""`python -m examples.pathologies.gil_bound`: what goes wrong becomes one line and an exit status."""

import logging
import os
import sys
from collections.abc import Sequence

from .options import Options, parse_options

WRONG_OPTIONS = 2
INTERRUPTED = 130
FAILED = 1
PIPED_WIDTH = 130  # what the widest tables need


def main(name: str, words: Sequence[str] | None = None) -> int:
    """Run the pathology of this name and print what the tool says of it; gives the exit status."""
    try:
        return run_program(name, parse_options(name, words))
    except KeyboardInterrupt:
        return fail(name, "interrupted", INTERRUPTED)


def run_program(name: str, options: Options) -> int:
    """The same, with options that were read already; an interruption is the caller's."""
    os.environ["HAMILTON_TELEMETRY_ENABLED"] = "false"  # older versions of Hamilton send usage statistics
    logging.getLogger("hamilton").setLevel(logging.CRITICAL)  # it would print what is raised a second time
    try:
        from examples.plain_output import console

        from .demonstration import DemonstrationError, TraceFileRefused, demonstrate
    except ImportError as error:
        return fail(name, f"{error}; it takes `pip install 'traced_threadpool[demo]'`", FAILED)
    try:
        demonstrate(name, options, console(PIPED_WIDTH))
    except TraceFileRefused as error:
        return fail(name, str(error), WRONG_OPTIONS)
    except DemonstrationError as error:
        return fail(name, str(error), FAILED)
    return 0


def fail(name: str, message: str, status: int) -> int:
    """Say it in one line; gives the status."""
    print(f"{name}: {message}", file=sys.stderr)
    return status
