"""A Dask cluster that loses workers, its scheduler or its mind: started by its own command lines."""

# Hamilton reads annotations when it decorates: they are no strings here.
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hamilton.htypes import Collect, Parallelizable

pytest.importorskip("distributed", reason="the extra [dask] is not installed")

import dask
import distributed

from tests.backends.calls import alive_at, background, held, timed
from tests.backends.dask_cluster import DaskCluster, StallingProxy
from tests.dags import PATIENCE, Stage, driver_of, dynamic_driver_of, eventually, in_thread
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import ClusterLost, Dask, NotPicklable, WorkerCrashed
from traced_threadpool.live.records import LiveNode

NETWORK_GONE_SECONDS = 5.0
ROUNDS = int(os.environ.get("ROUNDS_WITH_KILLS", "3"))
"""Of four runs each: `ROUNDS_WITH_KILLS=250` is the long version."""


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.end()


@pytest.fixture
def cluster(scheduler: DaskCluster) -> Iterator[DaskCluster]:
    """With no worker yet. Those of a test are ended with it."""
    yield scheduler
    scheduler.end_workers()


@pytest.fixture
def backend(cluster: DaskCluster) -> Iterator[Dask]:
    """By the scheduler's address."""
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
        backend = Dask(cluster.address)
        backend.open("tests")
        assert eventually(lambda: not backend._client.ncores())  # those of the test before
        yield backend
        backend.close()


def length_of(value: bytes) -> int:
    return len(value)


def test_workers_that_die(cluster: DaskCluster, backend: Dask, tmp_path: Path) -> None:
    """The node that ran there fails, and says so; what others hold stays; a worker that comes later is used."""
    cluster.worker()
    started = tmp_path / "started"
    _, future = background(backend, held, started=started, release=tmp_path / "release")
    pid = alive_at(started)
    assert eventually(lambda: any(waiting.starts for waiting in backend._running.values()))  # the worker has said so
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match="ended while it ran node 'node'") as crashed:
        future.result(PATIENCE)
    assert crashed.value.pid == pid
    waits = in_thread(lambda: timed(backend, os.getpid))
    second = cluster.worker()
    value, timing = waits.result(PATIENCE)
    assert (value.result(), timing.worker_pid) == (second.pid, second.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_what_the_live_view_tells_of_the_cluster(
    cluster: DaskCluster, backend: Dask, stage: Stage, tmp_path: Path
) -> None:
    """Worker, state and stack of the node that runs; that the other waits for a worker; that a worker stands still."""
    worker = cluster.worker()
    started, release = tmp_path / "started", tmp_path / "release"

    def first(started: Path, release: Path) -> int:
        return held(started, release)

    def second(started: Path, release: Path) -> int:
        return held(started, release)

    adapter = stage.adapter(FutureAdapter(2, metrics=False, backends={"far": backend}, run_on="far", fail_fast=True))

    def nodes(*, stacks: bool = False) -> dict[bool, LiveNode]:
        """By whether a worker runs it."""
        return {bool(node.worker): node for run in adapter.live(stacks=stacks).runs for node in run.running}

    call = in_thread(
        lambda: driver_of(adapter, first, second).execute(
            ["first", "second"], inputs={"started": started, "release": release}
        )
    )
    assert alive_at(started) == worker.pid
    assert eventually(lambda: nodes().keys() == {True, False} and nodes()[True].state == "sleep")
    found = nodes(stacks=True)
    runs, waits = found[True], found[False]
    assert (runs.backend, runs.worker.startswith("tcp://127.0.0.1:")) == ("far", True)
    assert runs.stack is not None
    assert runs.stack[0].endswith(f" in {runs.name}")
    assert "test_dask_faults.py:" in runs.stack[0]
    assert runs.stack[-1].endswith(" in held")
    assert (waits.state, waits.on, waits.stack) == ("remote_queue", "for a worker of the cluster", None)
    worker.send_signal(signal.SIGSTOP)
    assert eventually(lambda: nodes()[True].on == f"process {worker.pid} is stopped")
    worker.kill()
    with pytest.raises(WorkerCrashed):
        call.result(PATIENCE)


def test_a_value_that_its_worker_took_along(cluster: DaskCluster, backend: Dask) -> None:
    """Dask computes it again, on another worker."""
    first = cluster.worker()
    value, _ = timed(backend, os.getpid)
    first.kill()
    second = cluster.worker()
    assert in_thread(value.result).result(PATIENCE) == second.pid


def test_a_value_that_cannot_be_read_where_it_moved(cluster: DaskCluster, backend: Dask) -> None:
    """The node that takes it says so, and its worker goes on; also where a connection had to read it."""

    def gives() -> object:
        def refuse(self: object, state: object) -> None:
            raise SystemExit("do not touch me")

        value = type("Refuses", (), {"__setstate__": refuse})()
        value.__dict__["state"] = 1
        return value

    cluster.worker()
    value, _ = timed(backend, gives)
    second = cluster.worker("--resources", "second=1")
    there = Dask(backend._client, resources={"second": 1})
    with pytest.raises(NotPicklable, match=r"parameter 'value' of node 'node' .* raised SystemExit: do not touch me"):
        in_thread(lambda: timed(there, lambda value: 1, value=value)).result(PATIENCE)
    assert in_thread(timed, there, os.getpid).result(PATIENCE)[0].result() == second.pid


def test_large_arguments_that_a_worker_took_along(
    cluster: DaskCluster, backend: Dask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sent again."""
    first = cluster.worker()
    scatter = backend._client.scatter
    pids: list[int] = []

    def scatter_and_kill(*arguments: Any, **options: Any) -> Any:
        scattered = scatter(*arguments, **options)
        if not pids:
            first.kill()
            first.wait()
            assert eventually(lambda: not backend._client.ncores())
            pids.append(cluster.worker().pid)
        return scattered

    monkeypatch.setattr(backend._client, "scatter", scatter_and_kill)
    length, _ = in_thread(lambda: timed(backend, length_of, value=bytes(3_000_000))).result(PATIENCE)
    assert length.result() == 3_000_000


def test_a_restarted_cluster(cluster: DaskCluster, backend: Dask, tmp_path: Path) -> None:
    """What was on its way is lost, and what comes after that runs."""
    cluster.worker()
    started = tmp_path / "started"
    _, future = background(backend, held, started=started, release=tmp_path / "release")
    alive_at(started)
    backend._client.restart(wait_for_workers=False)
    with pytest.raises(ClusterLost):
        future.result(PATIENCE)
    (tmp_path / "release").touch()
    cluster.worker()
    assert in_thread(timed, backend, os.getpid).result(PATIENCE)[0].result() > 0


def test_a_worker_whose_clock_is_off(cluster: DaskCluster, backend: Dask) -> None:
    """Its times are moved to where they must have been, which is told."""
    within = ("unshare", "--time", "--fork", "--kill-child", "--monotonic", "100000")
    if subprocess.run([*within, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no time namespaces here")
    cluster.worker(within=within)
    _, timing = in_thread(lambda: timed(backend, os.getpid)).result(PATIENCE)
    assert 0 < timing.started_ns <= timing.ended_ns
    assert time.monotonic_ns() - timing.ended_ns < PATIENCE * 1e9


@pytest.fixture
def proxy(cluster: DaskCluster) -> Iterator[StallingProxy]:
    proxy = StallingProxy(cluster.address)
    yield proxy
    proxy.close()


def test_a_network_that_is_gone_for_a_while(cluster: DaskCluster, proxy: StallingProxy, tmp_path: Path) -> None:
    """Between this program and the scheduler, while a node runs and others are sent: all come when it is back."""
    cluster.worker()
    backend = Dask(proxy.address)
    backend.open("tests")
    started, release = tmp_path / "started", tmp_path / "release"
    _, running = background(backend, held, started=started, release=release)
    pid = alive_at(started)
    proxy.stall()
    release.touch()
    later = [background(backend, os.getpid)[1] for _ in range(3)]
    time.sleep(NETWORK_GONE_SECONDS)
    assert not any(each.done() for each in (running, *later))
    proxy.go_on()
    assert [each.result(PATIENCE).result() for each in (running, *later)] == [pid] * 4
    backend.close()


@pytest.mark.slow
def test_runs_while_workers_are_killed(cluster: DaskCluster, stage: Stage) -> None:
    """One of two in the middle of each four runs. Each has its result, or says that a worker died; nothing is left."""
    workers = [cluster.worker() for _ in range(2)]

    def branch() -> Parallelizable[int]:
        yield from range(4)

    def squared(branch: int) -> int:
        return branch * branch

    def total(squared: Collect[int]) -> int:
        return sum(squared)

    backend = Dask(cluster.address)
    adapter = stage.adapter(
        FutureAdapter(4, metrics=False, backends={"far": backend}, run_on={"squared": "far", "total": "far"})
    )
    runs = dynamic_driver_of(adapter, branch, squared, total)
    random, outcomes = Random(7), Counter[str]()
    for _ in range(ROUNDS):
        assert eventually(lambda: len(backend._client.ncores()) == 2)
        started = [in_thread(runs.execute, ["total"]) for _ in range(4)]
        time.sleep(random.uniform(0, 0.1))
        number = random.randrange(2)
        workers[number].kill()
        for run in started:
            try:
                outcomes[str(run.result(PATIENCE))] += 1
            except (WorkerCrashed, ClusterLost) as error:
                outcomes[type(error).__name__] += 1
        workers[number].wait()
        assert eventually(lambda: len(backend._client.ncores()) == 1)
        workers[number] = cluster.worker()
    assert set(outcomes) <= {"{'total': 14}", "WorkerCrashed", "ClusterLost"}
    assert sum(outcomes.values()) == 4 * ROUNDS
    snapshot = adapter.snapshot()
    assert (snapshot.queue_depth, snapshot.blocked_nodes, snapshot.active_runs) == (0, 0, 0)
    assert all(lane.active_workers == 0 for lane in snapshot.lanes)
    assert not backend._running
    assert not backend._ahead
    adapter.close()


def test_an_adaptive_cluster(stage: Stage) -> None:
    """With no worker at first, and arguments that need one to be sent to."""
    with (
        distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=0, maximum=1, interval="50ms")
        adapter = stage.adapter(FutureAdapter(2, metrics=False, backends={"far": Dask(client)}, run_on="far"))

        def length(value: bytes) -> int:
            return len(value)

        runs = driver_of(adapter, length)
        assert runs.execute(["length"], inputs={"value": bytes(3_000_000)}) == {"length": 3_000_000}
        adapter.close()


# The last: it ends the scheduler


def test_a_scheduler_that_is_gone(cluster: DaskCluster, backend: Dask, tmp_path: Path) -> None:
    """Nodes on their way fail, whose values are gone too; a new adapter says at once that nobody answers."""
    cluster.worker()
    started = tmp_path / "started"
    value, _ = timed(backend, os.getpid)
    _, future = background(backend, held, started=started, release=tmp_path / "release")
    alive_at(started)
    cluster.scheduler.kill()
    with pytest.raises(ClusterLost, match="node 'node' has no result on its cluster"):
        future.result(PATIENCE)
    with pytest.raises(ClusterLost):
        in_thread(value.result).result(PATIENCE)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(ConnectionError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:"),
    ):
        FutureAdapter(2, metrics=False, backends={"far": Dask(cluster.address)})
