"""Nodes on a Dask cluster: what every cluster promises, what can be asked of Dask, what goes wrong."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hamilton.htypes import Collect, Parallelizable

pytest.importorskip("distributed", reason="the extra [dask] is not installed")

from tests.backends.calls import prepared, timed

# The suite of all clusters, here with this file's fixtures.
from tests.backends.cluster_cases import (  # noqa: F401  # pytest finds them by name
    Make,
    counted,
    made,
    passed_on,
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
from tests.dags import PATIENCE, Stage, driver_of, dynamic_driver_of, eventually, in_thread, run_process
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Dask
from traced_threadpool.engine.backends.base import Timing


@pytest.fixture
def client(dask_client: Any) -> Any:
    return dask_client


@pytest.fixture
def new(client: Any) -> Callable[..., Dask]:
    return partial(Dask, client)


@pytest.fixture
def worker_address() -> str:
    return "tcp://127.0.0.1:"


@pytest.fixture
def backend(client: Any) -> Iterator[Dask]:
    backend = Dask(client)
    backend.open("tests")
    yield backend
    backend.close()


# Where values are


def test_several_adapters_on_one_client(adapter: Make) -> None:
    """At once, and one goes on when another is closed."""
    adapters = [adapter() for _ in range(3)]
    runs = [driver_of(one, made, passed_on, counted) for one in adapters]
    for each in [in_thread(one.execute, ["counted"]) for one in runs]:
        each.result(PATIENCE)
    adapters[0].close()
    assert runs[1].execute(["counted"]) == {"counted": 1}


def test_large_arguments(adapter: Make) -> None:
    """They go to a worker beside the call; what arrives can be written to."""
    numpy = pytest.importorskip("numpy")

    def big() -> Any:
        return numpy.ones(1_000_000)

    def doubled(big: Any) -> float:
        big *= 2
        return float(big.sum())

    assert driver_of(adapter(run_on={"doubled": "far"}), big, doubled).execute(["doubled"]) == {"doubled": 2e6}


# What can be asked of Dask


def test_retries(client: Any, tmp_path: Path) -> None:
    """A node that fails at first; the span tells how often it ran."""

    def flaky(marker: Path) -> str:
        if not marker.exists():
            marker.touch()
            raise OSError("not yet")
        return "done"

    backend = Dask(client, retries=2)
    backend.open("tests")
    held, timing = timed(backend, flaky, marker=tmp_path / "marker")
    assert (held.result(), timing.attempts) == ("done", 2)
    backend.close()


def test_resources_are_waited_for(client: Any) -> None:
    """What no worker has; cancelling ends the wait."""
    backend = Dask(client, resources={"unobtainable": 1})
    backend.open("tests")
    call, timing = prepared(os.getpid), Timing()
    waits = in_thread(backend.call, call, timing)
    assert eventually(lambda: call in backend._running and backend._running[call].sent_ns > 0)
    assert not waits.done()
    backend.cancel(call)
    with pytest.raises(CancelledError, match="node 'node' was cancelled"):
        waits.result(PATIENCE)
    backend.close()


def test_as_many_are_on_their_way_as_the_backend_takes(client: Any, stage: Stage) -> None:
    """However few threads the adapter has for its own nodes; and none is left when they are cancelled."""
    backend = Dask(client, resources={"unobtainable": 1}, max_workers=100)

    def branch() -> Parallelizable[int]:
        yield from range(120)

    def there(branch: int) -> int:
        return branch

    def total(there: Collect[int]) -> int:
        return sum(there)

    adapter = stage.adapter(FutureAdapter(1, metrics=False, backends={"far": backend}, run_on={"there": "far"}))
    runs = in_thread(dynamic_driver_of(adapter, branch, there, total).execute, ["total"])
    assert eventually(lambda: len(backend._running) + len(backend._ahead) == 100)

    def far() -> tuple[int, int]:
        [lane] = [lane for lane in adapter.snapshot().lanes if lane.backend == "far"]
        return lane.active_workers, lane.queue_depth

    assert eventually(lambda: far() == (100, 20))
    in_thread(partial(adapter.close, cancel_pending=True)).result(PATIENCE)
    with pytest.raises(CancelledError):
        runs.result(PATIENCE)
    assert not backend._running


@pytest.mark.parametrize(
    ("given", "options", "kind", "message"),
    [
        (
            8786,
            {},
            TypeError,
            "a distributed.Client or the address of a scheduler, such as 'tcp://10.0.0.1:8786', not 8",
        ),
        ("tcp://x:1", {"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ("tcp://x:1", {"resources": ["GPU"]}, TypeError, r"resources must map names to numbers, such as \{'GPU': 1\}"),
        ("tcp://x:1", {"priority": "high"}, TypeError, "priority must be an integer, not 'high'"),
        ("tcp://x:1", {"retries": -1}, ValueError, "retries must be 0 or more, not -1"),
    ],
)
def test_bad_arguments(given: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Dask(given, **options)


# What goes wrong


def test_a_module_that_a_worker_cannot_import(backend: Dask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails the node, and the worker stays."""
    (tmp_path / "only_here.py").write_text("def there() -> int:\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    with pytest.raises(ModuleNotFoundError, match="only_here"):
        timed(backend, only_here.there)
    assert timed(backend, os.getpid)[0].result() > 0


def test_fail_fast_does_not_wait(adapter: Make, tmp_path: Path) -> None:
    """For a node that runs there; its function goes on, which Dask cannot end."""
    started, release = tmp_path / "started", tmp_path / "release"

    def hangs() -> str:
        import time

        started.touch()
        while not release.exists():
            time.sleep(0.005)
        return "late"

    def fails() -> int:
        import time

        while not started.exists():
            time.sleep(0.005)
        raise ValueError("no")

    runs = driver_of(adapter(fail_fast=True), hangs, fails)
    with pytest.raises(ValueError, match="no"):
        in_thread(runs.execute, ["hangs", "fails"]).result(PATIENCE)
    release.touch()


def test_a_forked_child_says_why_it_cannot(client: Any) -> None:
    """A client of the parent's hangs in a child."""
    code, said, errors = run_process(
        f"""
from distributed import Client
from traced_threadpool.backends import Dask

def there() -> int:
    return os.getpid()

client = Client({client.scheduler.address!r}, set_as_default=False)
adapter = FutureAdapter(2, backends={{"far": Dask(client)}}, run_on="far")
runs = driver_of(adapter, there)
say(runs.execute(["there"])["there"] != os.getpid())
pid = os.fork()
if pid == 0:
    try:
        runs.execute(["there"])
    except RuntimeError as error:
        say(error)
    os._exit(0)
os.waitpid(pid, 0)
adapter.close()
client.close()
"""
    )
    assert (code, said[0]) == (0, "True"), errors
    assert said[1].startswith("this Dask backend was made with a Client of the parent process")


# What is told


def test_ctrl_c_ends_the_wait_for_a_value_that_is_never_read(client: Any) -> None:
    """Its unpickling hangs in this process, on a thread that nothing waits for any more."""
    code, said, errors = run_process(
        f"""
import time
from traced_threadpool.backends import Dask

class Stuck:
    def __reduce__(self):
        return read, ()

def read():
    if os.getpid() == here:
        os.kill(here, signal.SIGINT)
        time.sleep(1000)
    return Stuck()

def gives() -> object:
    return Stuck()

here = os.getpid()
adapter = FutureAdapter(2, backends={{"far": Dask({client.scheduler.address!r})}}, run_on="far")
try:
    driver_of(adapter, gives).execute(["gives"])
except KeyboardInterrupt:
    say("interrupted")
adapter.close()
say("closed")
"""
    )
    assert (code, said) == (0, ["interrupted", "closed"]), errors
