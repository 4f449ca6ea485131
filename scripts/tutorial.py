"""Record the runs of docs/tutorial.md anew: `python -m scripts.tutorial`, or some of them by their names.

Each program of the page runs as a reader would run it, and the record that it saves goes to docs/tutorial/. A record
is kept only if its first finding is the one that the page speaks of. `make docs` then writes the outputs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.house.layers import ROOT
from traced_threadpool.analysis import diagnose, read_runs

PAGE: Final = ROOT / "docs/tutorial.md"
RECORDS: Final = ROOT / "docs/tutorial"
FINDINGS: Final = {"slow.jsonl": "lock_contention", "unlocked.jsonl": "pool_too_small", "wide.jsonl": "straggler"}
"""The cause of each record's first finding."""
TRIES: Final = 10


def programs(text: str) -> dict[str, str]:
    """The programs of the page, by the record that each saves."""
    return dict(re.findall(r"^<!-- saves: (\S+) -->\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def run(program: str, directory: Path) -> str:
    """What a program of the page prints; its record is in the directory then."""
    script = directory / "program.py"
    script.write_text(program, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    ).stdout


def main() -> int:
    """Records the runs that are asked for; 1 if a finding is not the one that the page speaks of."""
    for name, program in programs(PAGE.read_text(encoding="utf-8")).items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        for _ in range(TRIES):
            with tempfile.TemporaryDirectory() as directory:
                run(program, Path(directory))
                record = (Path(directory) / name).read_text(encoding="utf-8")
                [recorded] = read_runs(Path(directory) / name)
            cause = diagnose(recorded).findings[0].cause
            print(f"{name}: {recorded.duration_ns / 1e9:.2f} s, {cause}")
            if cause == FINDINGS[name]:
                (RECORDS / name).write_text(record, encoding="utf-8")
                break
        else:
            print(f"{name}: the first finding was never {FINDINGS[name]}: is the machine busy?", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
