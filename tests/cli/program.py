"""The command line in this process and as one of its own: what its tests share."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from tests.analysis.synthetic_runs import layered_run

RUN = layered_run()
SHORT = layered_run(10, seed=1, run_id="run-2", run_name="small")
PROGRAM = [sys.executable, "-m", "traced_threadpool"]


class Command:
    """Runs the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, status: int = 0) -> str:
        """What it prints, on standard error if it fails; it must end with `status`."""
        from traced_threadpool.cli import program as cli  # what it imports may be missing

        assert cli.main([str(word) for word in words]) == status, self._capsys.readouterr()
        found = self._capsys.readouterr()
        assert (found.err == "") == (status == 0), found.err
        return found.err if status else found.out

    def json(self, *words: object) -> Any:
        return json.loads(self(*words, "--json"))


def environment(**more: str) -> dict[str, str]:
    # As in a shell: what is printed waits in a buffer.
    return {**os.environ, "HAMILTON_TELEMETRY_ENABLED": "false", "PYTHONUNBUFFERED": "", **more}
