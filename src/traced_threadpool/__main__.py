"""`python -m traced_threadpool`, and the command `traced-threadpool`."""

from __future__ import annotations

import sys

NEEDED = {"click", "jinja2", "markupsafe", "rich", "yaml"}
EXTRA_MISSING = 5
INTERRUPTED = 130


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        from traced_threadpool.cli import program as cli

        status = cli.main()
    except KeyboardInterrupt:  # while it is imported, which takes a moment
        status = INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in NEEDED:
            raise
        print(
            f"traced-threadpool: {error.name} is not installed; the command line needs the extra "
            "'report': pip install 'traced_threadpool[report]'",
            file=sys.stderr,
        )
        status = EXTRA_MISSING
    sys.exit(status)


if __name__ == "__main__":
    main()
