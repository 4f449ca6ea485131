"""Nodes on a Ray cluster of this machine: what every backend promises, and what is Ray's own.

One file, and so one cluster, which takes some seconds to start.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.htypes import Collect, Parallelizable

pytest.importorskip("ray", reason="the extra [ray] is not installed")

import ray

from tests.backends.calls import background, held, is_alive, prepared, timed
from tests.backends.dask_cluster import Traveller

# The suite of all backends, here with the fixture `adapter` of this file.
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
from tests.dags import PATIENCE, Stage, driver_of, dynamic_driver_of, eventually, in_thread, run_process, start
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import (
    ClusterLost,
    NotPicklable,
    Ray,
    RemoteError,
    RemoteTraceback,
    WorkerCrashed,
    WorkerSetupError,
)
from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.base import Timing
from traced_threadpool.engine.backends.held import Held

pytestmark = pytest.mark.slow

Make = Callable[..., FutureAdapter]

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
def adapter(stage: Stage) -> Make:
    """Makes adapters all of whose nodes run there."""

    def make(max_workers: int = 4, **options: Any) -> FutureAdapter:
        options = {"run_on": "far", **options, "backends": {"far": Ray(), **options.get("backends", {})}}
        return stage.adapter(FutureAdapter(max_workers, metrics=False, **options))

    return make


@pytest.fixture
def backend() -> Iterator[Ray]:
    backend = Ray(max_retries=0, cancel_grace_seconds=0.1)
    backend.open("tests")
    yield backend
    backend.close()


# Where values are


def made() -> Traveller:
    return Traveller(os.getpid())


def passed_on(made: Traveller) -> Traveller:
    return made


def counted(passed_on: Traveller) -> int:
    return 1


def payload_here(passed_on: Traveller, made: Traveller) -> tuple[int, int]:
    return passed_on.payload, os.getpid()


def payload_here_too(passed_on: Traveller) -> int:
    return int(passed_on.payload)


FAR = dict.fromkeys(("made", "passed_on", "counted"), "far")


def test_values_stay_on_the_cluster(adapter: Make) -> None:
    """A chain of nodes there, by way of two backends, brings nothing here but the output that was asked for."""
    before = Traveller.arrivals
    runs = driver_of(
        adapter(backends={"slot": Ray(resources={"slot": 1})}, run_on={**FAR, "passed_on": "slot"}),
        made,
        passed_on,
        counted,
    )
    assert runs.execute(["counted"]) == {"counted": 1}
    assert Traveller.arrivals == before


def test_thread_nodes_and_outputs_bring_a_value_once(adapter: Make) -> None:
    """Each of the two values, for two nodes here and as outputs."""
    before = Traveller.arrivals
    runs = driver_of(adapter(run_on=FAR), made, passed_on, payload_here, payload_here_too)
    found = runs.execute(["made", "passed_on", "payload_here", "payload_here_too"])
    there, here = found["payload_here"]
    assert there != here == os.getpid()
    assert found["payload_here_too"] == found["made"].payload == found["passed_on"].payload == there
    assert Traveller.arrivals == before + 2


def len_of(value: bytes) -> int:
    return len(value)


def test_a_value_that_stays_is_not_sent(backend: Ray) -> None:
    """By the bytes that are counted."""
    value, _ = timed(backend, lambda: bytes(300_000))
    assert isinstance(value, Held)
    length, timing = timed(backend, len_of, value=value)
    assert (length.result(), timing.sent_bytes < 10_000) == (300_000, True)
    _, timing = timed(backend, len_of, value=value.result())
    assert timing.sent_bytes > 300_000


def test_hooks_see_the_value_and_it_stays_there(adapter: Make) -> None:
    """It is brought for the hook, once, and the node below still finds it on the cluster."""
    before = Traveller.arrivals
    seen: list[Any] = []

    class Hook(lifecycle.NodeExecutionHook):
        def run_before_node_execution(self, *, node_name: str, node_kwargs: dict[str, Any], **future: Any) -> None:
            seen.extend((node_name, type(value)) for value in node_kwargs.values())

        def run_after_node_execution(self, *, node_name: str, result: Any, **future: Any) -> None:
            seen.append((node_name, type(result)))

    driver_of(adapter(), made, passed_on, others=[Hook()]).execute(["passed_on"])
    assert seen == [("made", Traveller), ("passed_on", Traveller), ("passed_on", Traveller)]
    assert Traveller.arrivals == before + 2


def test_branches_here_and_there(adapter: Make) -> None:
    def branch() -> Parallelizable[int]:
        yield from range(4)

    def squared(branch: int) -> int:
        return branch * branch

    def total(squared: Collect[int]) -> int:
        return sum(squared)

    for where in ({"squared": "far"}, {"squared": "far", "total": "far"}, {"branch": "far", "total": "far"}):
        found = dynamic_driver_of(adapter(run_on=where), branch, squared, total).execute(["total"])
        assert found == {"total": 14}


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


def test_an_exception_is_the_functions_own(adapter: Make) -> None:
    """Type, message and attributes; the traceback there is its cause."""

    def fails() -> int:
        error = OSError(7, "no such luck")
        error.extra = "kept"  # type: ignore[attr-defined]
        raise error

    with pytest.raises(OSError, match="no such luck") as raised:
        driver_of(adapter(), fails).execute(["fails"])
    assert (raised.value.errno, raised.value.extra) == (7, "kept")  # type: ignore[attr-defined]
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    assert "raise error" in str(raised.value.__cause__)


def test_what_cannot_be_sent_is_named(adapter: Make) -> None:
    """The parameter, the result; an exception comes as what stands for it."""

    def guard() -> object:
        return threading.Lock()

    def uses(guard: object) -> int:
        return 1

    def gives() -> object:
        return threading.Lock()

    def raises() -> object:
        class Odd(Exception):
            pass

        error = Odd("odd")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    runs = driver_of(adapter(run_on=dict.fromkeys(("uses", "gives", "raises"), "far")), guard, uses, gives, raises)
    with pytest.raises(NotPicklable, match=r"parameter 'guard' \(a _thread.lock\) of node 'uses'"):
        runs.execute(["uses"])
    with pytest.raises(NotPicklable, match=r"the result \(a _thread.lock\) of node 'gives'"):
        runs.execute(["gives"])
    with pytest.raises(RemoteError, match="Odd: odd"):
        runs.execute(["raises"])


def test_a_worker_of_another_version(backend: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_call, "VERSIONS", {"Python": "2.7", "traced_threadpool": "0.1"})
    with pytest.raises(WorkerSetupError, match=r"this worker has Python 3.*, and the program Python 2\.7"):
        timed(backend, os.getpid)


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


def test_the_span_says_where_it_ran(adapter: Make) -> None:
    """And what it took to get there; the span is the current one of the node's function, and baggage is there."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry import baggage, context
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def there() -> Any:
        from opentelemetry import baggage, trace

        span = trace.get_current_span().get_span_context().span_id
        return f"{span:x}", os.getpid(), baggage.get_baggage("customer")

    def here(there: Any) -> Any:
        return there

    one = adapter(tracer_provider=provider, run_on={"there": "far"})
    token = context.attach(baggage.set_baggage("customer", "acme"))
    try:
        seen, pid, customer = driver_of(one, there, here).execute(["here"])["here"]
    finally:
        context.detach(token)
    one.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    attributes = spans["there"].attributes
    assert (seen, customer) == (f"{spans['there'].context.span_id:x}", "acme")
    assert attributes["hamilton.node.backend"] == "far"
    assert attributes["hamilton.node.worker.pid"] == pid
    assert attributes["hamilton.node.attempts"] == 1
    assert attributes["hamilton.node.sent.size"] > 100
    assert "hamilton.node.received.size" not in attributes  # it stayed there
    assert attributes["hamilton.node.wait.remote_queue.duration"] > 0
    assert attributes["hamilton.node.wait.transfer.duration"] > 0
    assert spans["here"].attributes["hamilton.node.received.size"] > 10
    assert [link.context.span_id for link in spans["here"].links] == [spans["there"].context.span_id]


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
