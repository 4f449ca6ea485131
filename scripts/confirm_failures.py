"""Run tests, and those that failed three times more, alone: `confirm_failures.py make test ARGS=-q`.

Thousands of tests start processes, servers and browsers beside each other, on machines that others use as well. Which
of them failed is told by pytest's cache. Up to three of them are repeated, one after the other and with nothing else
running: a fault shows again, and so the command has failed. Where each passes three times, the command has passed, and
the tests are named as UNSTEADY, here and in the file `$UNSTEADY`: they are at fault, or what they test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MOST = 3
TIMES = 3
ROOT = Path(__file__).parent.parent
FAILED = ROOT / ".pytest_cache/v/cache/lastfailed"
TESTS_FAILED = 2  # make's exit status, whatever pytest's is


def main(command: list[str]) -> int:
    """The exit status: 0 where all has passed, or what failed has passed three times since."""
    FAILED.unlink(missing_ok=True)
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status == 0:
        return 0
    kept = FAILED.read_text(encoding="utf-8") if FAILED.exists() else "{}"
    names = sorted(json.loads(kept))
    if status != TESTS_FAILED or not 1 <= len(names) <= MOST:
        return status
    for _ in range(TIMES):
        FAILED.write_text(kept, encoding="utf-8")
        print(f"\n=== repeating alone: {', '.join(names)}", flush=True)
        again = subprocess.run(_alone(command), cwd=ROOT, check=False).returncode
        if again != 0:
            return again
    told = "".join(f"UNSTEADY: {name} failed once beside others and passed {TIMES} times alone\n" for name in names)
    print(f"\n=== {told}", end="", flush=True)
    if file := os.environ.get("UNSTEADY"):
        with Path(file).open("a", encoding="utf-8") as unsteady:
            unsteady.write(told)
    return 0


def _alone(command: list[str]) -> list[str]:
    arguments = next((word.partition("=")[2] for word in command if word.startswith("ARGS=")), "")
    others = [word for word in command if not word.startswith("ARGS=")]
    return [*others, f"ARGS={arguments} -n 0 --last-failed --last-failed-no-failures none"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
