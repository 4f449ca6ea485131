"""`python -m examples.as_a_service`: what goes wrong becomes one line and an exit status."""

import logging
import os
import sys
from collections.abc import Sequence

from .options import PROGRAM, parse_options

INTERRUPTED = 130
FAILED = 1


def main(words: Sequence[str] | None = None) -> int:
    """Run the examples until interrupted; gives the exit status."""
    options = parse_options(words)
    os.environ["HAMILTON_TELEMETRY_ENABLED"] = "false"  # older versions of Hamilton send usage statistics
    logging.getLogger("hamilton").setLevel(logging.CRITICAL)  # it would print what is raised a second time
    try:
        from .rounds import serve
    except ImportError as error:
        return _fail(f"{error}; it takes `pip install 'traced_threadpool[demo]'`")
    try:
        serve(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (OSError, ValueError, RuntimeError) as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
