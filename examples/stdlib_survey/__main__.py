"""`python -m examples.stdlib_survey`: what goes wrong becomes one line and an exit status."""

import logging
import os
import sys
from collections.abc import Sequence

from .options import PROGRAM, parse_options

INTERRUPTED = 130
FAILED = 1
PIPED_WIDTH = 130  # what the widest lines need


def main(words: Sequence[str] | None = None) -> int:
    """Run the demonstration; gives the exit status."""
    try:
        return _demonstrate(words)
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _demonstrate(words: Sequence[str] | None) -> int:
    options = parse_options(words)
    os.environ["HAMILTON_TELEMETRY_ENABLED"] = "false"  # older versions of Hamilton send usage statistics
    logging.getLogger("hamilton").setLevel(logging.CRITICAL)  # it would print what is raised a second time
    try:
        from examples.plain_output import console

        from .demonstration import DemonstrationError, demonstrate
    except ImportError as error:
        return _fail(f"{error}; needed are a complete Python and `pip install 'traced_threadpool[demo]'`")
    try:
        demonstrate(options, console(PIPED_WIDTH))
    except DemonstrationError as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
