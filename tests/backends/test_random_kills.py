"""Many runs while worker processes are killed at random: nothing is lost, nothing is left, every future is resolved.

Thirty runs each time; `RANDOM_KILLS=1000` asks for as many, which takes some minutes.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.backends.calls import names_in_shared_memory
from tests.backends.random_kills import marked, under_kills
from tests.dags import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in Linux's /proc")

RUNS = int(os.environ.get("RANDOM_KILLS", "30"))


def _descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except OSError:  # the one that listed them
            continue
    return sorted(found)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_runs_while_workers_are_killed(tmp_path: Path) -> None:
    """Each node has its value or crashed with a worker that was killed, and no function is called twice."""
    marker = f"RANDOM_KILLS_OF_{os.getpid()}"
    under_kills(1, seed=0, directory=_folder(tmp_path, "first"), marker=marker)  # what is opened once for all
    threads, descriptors, shared = set(threading.enumerate()), _descriptors(), names_in_shared_memory()
    account = under_kills(RUNS, seed=15, directory=_folder(tmp_path, "runs"), marker=marker)
    print(account)
    assert account.wrong == []
    assert account.runs == RUNS + 1
    assert min(account.kills, account.within, account.outcomes["value"], account.outcomes["crashed"]) > 0
    assert eventually(lambda: not marked(marker))
    assert eventually(lambda: set(threading.enumerate()) <= threads)
    assert _descriptors() == descriptors
    assert eventually(lambda: names_in_shared_memory() <= shared)  # others use it too, for a while


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder
