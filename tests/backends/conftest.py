"""Fixtures for tests of backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("cloudpickle", reason="the extra [processes] is not installed")

from traced_threadpool.backends import Processes
from traced_threadpool.engine.backends import processes as processes_module


@pytest.fixture(autouse=True)
def _nothing_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of tests are there at once: importing Hamilton and pandas takes a second each time."""
    monkeypatch.setattr(processes_module, "PRELOADED", ())


@pytest.fixture
def processes() -> Iterator[Callable[..., Processes]]:
    """Makes `Processes`, all of which are ended at the end of the test."""
    made: list[Processes] = []

    def make(*arguments: Any, **options: Any) -> Processes:
        made.append(Processes(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    """Two worker processes for all tests of a file that do them no harm."""
    backend = Processes(2)
    yield backend
    backend.close()
