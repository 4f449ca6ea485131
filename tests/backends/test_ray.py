"""Nodes on a Ray cluster of this machine: what every backend promises, and what is Ray's own.

One file, and so one cluster, which takes some seconds to start.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra [ray] is not installed")

import ray

from tests.backends.calls import background, held, is_alive, prepared, timed

# The suites of all clusters and of all backends, here with this file's fixtures.
from tests.backends.cluster_cases import (  # noqa: F401  # pytest finds them by name
    Make,
    test_a_value_that_stays_is_not_sent,
    test_a_worker_of_another_version,
    test_an_exception_is_the_functions_own,
    test_branches_here_and_there,
    test_hooks_see_the_value_and_it_stays_there,
    test_the_span_says_where_it_ran,
    test_thread_nodes_and_outputs_bring_a_value_once,
    test_values_stay_on_the_cluster,
    test_what_cannot_be_sent_is_named,
)
from tests.backends.test_every_backend import (  # noqa: F401  # pytest finds them by name
    TENANT,
    test_a_node_executes_a_driver,
    test_an_exception_and_what_is_below_it,
    test_branches,
    test_caching,
    test_close_waits_for_what_runs,
    test_context_variables,
    test_decorated_nodes,
    test_graceful_errors,
    test_hooks_are_called_here_in_order,
    test_progress_bars,
    test_results,
    test_several_runs_at_once,
)
from tests.dags import PATIENCE, driver_of, eventually, in_thread, run_process, start
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import ClusterLost, Ray, WorkerCrashed
from traced_threadpool.engine.backends.base import Timing

pytestmark = pytest.mark.slow

QUIET = {
    "PYTHONPATH": str(Path(__file__).parent.parent.parent),  # where workers find this file
    "RAY_AUTH_MODE": "disabled",  # else it writes a token into the home directory
    "RAY_USAGE_STATS_ENABLED": "0",
}


STARTS = 3
"""How often a cluster is started: Ray gives it 30 s, which a busy machine may not keep to."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two CPUs of a cluster of this machine, and what else a node can ask for."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="ray", dir="/tmp") as directory:
        for name, value in {**QUIET, "RAY_TMPDIR": directory}.items():
            patch.setenv(name, value)
        for start_number in range(STARTS):
            try:
                ray.init(num_cpus=2, resources={"slot": 1}, include_dashboard=False, log_to_driver=False)
                break
            except Exception:
                if start_number + 1 == STARTS:
                    raise
        yield
        with all_gone():
            ray.shutdown()


@contextmanager
def all_gone() -> Iterator[None]:
    """Waits for the processes of the cluster that is ended within: Ray itself does not."""
    node = ray._private.worker._global_node
    started = [] if node is None else [each.process for kind in node.all_processes.values() for each in kind]
    yield
    for process in started:
        process.wait(PATIENCE)


@pytest.fixture
def new() -> Callable[..., Ray]:
    return Ray


@pytest.fixture
def worker_address() -> str:
    return ""


@pytest.fixture
def backend() -> Iterator[Ray]:
    backend = Ray(max_retries=0, cancel_grace_seconds=0.1)
    backend.open("tests")
    yield backend
    backend.close()


# Where values are


def test_large_arrays(adapter: Make) -> None:
    """Out of band, both ways. They are in shared memory, which nobody writes to."""
    numpy = pytest.importorskip("numpy")

    def big() -> Any:
        return numpy.ones(1_000_000)

    def doubled(big: Any) -> Any:
        assert not big.flags.writeable
        return big * 2

    def total(doubled: Any) -> float:
        return float(doubled.sum())

    found = driver_of(adapter(run_on={"doubled": "far"}), big, doubled, total).execute(["total"])
    assert found == {"total": 2e6}


# What can be asked of Ray


def test_resources_are_waited_for() -> None:
    """What the cluster does not have; cancelling ends the wait."""
    backend = Ray(resources={"unobtainable": 1})
    backend.open("tests")
    call = prepared(os.getpid)
    waits = in_thread(backend.call, call, Timing())
    assert eventually(lambda: call in backend._running and backend._running[call]._told is not None)
    assert not waits.done()
    backend.cancel(call)
    with pytest.raises(CancelledError, match="node 'node' was cancelled"):
        waits.result(PATIENCE)
    backend.close()


def test_a_node_whose_worker_dies_is_run_again(tmp_path: Path) -> None:
    """As often as was asked for, which the attempts tell."""

    def dies_once(marker: Path) -> str:
        import os

        if not marker.exists():
            marker.touch()
            os._exit(1)
        return "done"

    backend = Ray(max_retries=1)
    backend.open("tests")
    value, timing = timed(backend, dies_once, marker=tmp_path / "marker")
    assert (value.result(), timing.attempts) == ("done", 2)
    backend.close()


@pytest.mark.parametrize(
    ("given", "options", "kind", "message"),
    [
        (6379, {}, TypeError, "such as 'auto' or '10.0.0.1:6379', or None, not 6379"),
        (None, {"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        (None, {"num_cpus": "all"}, TypeError, "num_cpus must be a number, not 'all'"),
        (None, {"num_gpus": -1}, ValueError, "num_gpus must be 0 or more, not -1"),
        (None, {"resources": ["GPU"]}, TypeError, "resources must map names to numbers"),
        (None, {"max_retries": -2}, ValueError, "max_retries must be -1 or more, not -2"),
        (None, {"cancel_grace_seconds": -1}, ValueError, "cancel_grace_seconds must be 0 or more seconds"),
    ],
)
def test_bad_arguments(given: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Ray(given, **options)


# What goes wrong


def test_a_worker_that_is_killed(backend: Ray, tmp_path: Path) -> None:
    """Its node fails and says so; others run on."""
    started = tmp_path / "started"
    _, future = background(backend, held, started=started, release=tmp_path / "release")
    assert eventually(lambda: started.exists() and bool(started.read_text()))
    os.kill(int(started.read_text()), signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match="the worker process ended while it ran node 'node'"):
        future.result(PATIENCE)
    assert timed(backend, os.getpid)[0].result() > 0


def test_a_cancelled_node_is_killed_after_the_grace(backend: Ray, tmp_path: Path) -> None:
    """Also one that Ray's own interrupt does not reach; nobody waits for that."""

    def deaf(started: Path) -> None:
        import os
        import time

        while True:
            try:
                started.write_text(str(os.getpid()))
                time.sleep(60)
            except BaseException:
                continue

    started = tmp_path / "started"
    call, future = background(backend, deaf, started=started)
    assert eventually(lambda: started.exists() and bool(started.read_text()))
    pid = int(started.read_text())
    backend.cancel(call)
    with pytest.raises(CancelledError):
        future.result(PATIENCE)
    assert eventually(lambda: not is_alive(pid))


def test_a_forked_child_says_why_it_cannot() -> None:
    """A connection of the parent's hangs in a child."""
    code, said, errors = run_process(
        """
from traced_threadpool.backends import Ray

backend = Ray()
pid = os.fork()
if pid == 0:
    try:
        backend.open("far")
    except RuntimeError as error:
        say(error)
    os._exit(0)
os.waitpid(pid, 0)
"""
    )
    assert code == 0, errors
    assert said[0].startswith("this Ray backend was made in the parent process"), said


# What is told


# The last: it ends the cluster


def test_a_cluster_that_is_shut_down(adapter: Make, tmp_path: Path) -> None:
    """Nodes on their way and values are lost; without a connection no adapter is made; with an address it makes one."""
    started = tmp_path / "started"

    def there() -> int:
        return os.getpid()

    def hangs() -> int:
        import time

        started.touch()
        time.sleep(1000)
        return 0

    one = adapter()
    runs = driver_of(one, there, hangs)
    futures = start(runs, ["there", "hangs"])
    assert futures["there"].exception() is None
    assert eventually(started.exists)
    with all_gone():
        ray.shutdown()
    for future in futures.values():
        with pytest.raises(ClusterLost, match="has no result on its cluster: Ray was shut down"):
            in_thread(future.result).result(PATIENCE)
    with pytest.raises(ClusterLost):
        in_thread(runs.execute, ["there"]).result(PATIENCE)
    with pytest.raises(ConnectionError, match=r"call ray.init\(\) before, or give an address"):
        FutureAdapter(2, metrics=False, backends={"far": Ray()})
    own = Ray("local", num_cpus=1)
    own.open("one")
    own.open("two")
    own.close()
    assert in_thread(timed, own, os.getpid).result(PATIENCE)[0].result() > 0
    with all_gone():
        own.close()
    assert not ray.is_initialized()
