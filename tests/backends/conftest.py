"""Fixtures for tests of backends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("cloudpickle", reason="the extra [processes] is not installed")

from tests.dags import PATIENCE, Stage
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Processes
from traced_threadpool.engine.backends import processes as processes_module
from traced_threadpool.engine.backends.base import Backend


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


@pytest.fixture
def adapter(new: Callable[..., Backend], stage: Stage) -> Callable[..., FutureAdapter]:
    """Makes adapters with the cluster under the name `far`, all of whose nodes run there."""

    def make(max_workers: int = 4, **options: Any) -> FutureAdapter:
        options = {"run_on": "far", **options, "backends": {"far": new(), **options.get("backends", {})}}
        return stage.adapter(FutureAdapter(max_workers, metrics=False, **options))

    return make


@pytest.fixture(scope="module")
def dask_client() -> Iterator[Any]:
    """A client of a Dask cluster of two worker processes, for all tests of a file that do it no harm."""
    distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", resources={"slot": 1}
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        called = threading.Event()
        client.submit(int).add_done_callback(lambda _: called.set())  # its thread stays, whose test it may be
        assert called.wait(PATIENCE)
        yield client


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    """Two worker processes for all tests of a file that do them no harm."""
    backend = Processes(2)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    """Two for the adapters of all tests of a file, with a short time for what is cancelled."""
    backend = Processes(2, cancel_grace_seconds=0.1)
    backend.open("tests")
    yield backend
    backend.close()
