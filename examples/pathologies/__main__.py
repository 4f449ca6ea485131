"""`python -m examples.pathologies`: the list; with a name, that one; with `all`, one after the other."""

import importlib
import subprocess
import sys
from collections.abc import Sequence

from .options import ALL, Options, as_words, parse_choice
from .pathology import NAMES
from .program import INTERRUPTED, fail, run_program

PROGRAM = "pathologies"


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say; gives the exit status."""
    try:
        name, options = parse_choice(PROGRAM, NAMES, words)
        if name is None:
            return _list()
        return _run_all(options) if name == ALL else run_program(name, options)
    except KeyboardInterrupt:
        return fail(PROGRAM, "interrupted", INTERRUPTED)


def _list() -> int:
    for name in NAMES:
        module = importlib.import_module(f"{__package__}.{name}")
        summary = (module.__doc__ or "").partition("\n")[0]
        print(f"{name:13} {summary}")
    print("\nRun one: python -m examples.pathologies.gil_bound. All of them: python -m examples.pathologies all.")
    return 0


def _run_all(options: Options) -> int:
    """Each in a process of its own: what one leaves behind is not in the way of the next. Stops at a failure."""
    for name in NAMES:
        command = [sys.executable, "-m", f"{__package__}.{name}", *as_words(options)]
        with subprocess.Popen(command) as program:
            try:
                status = program.wait()
            except KeyboardInterrupt:
                program.wait()  # Ctrl-C went to it as well: it cleans up
                raise
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
