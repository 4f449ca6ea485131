"""Nodes on a Dask cluster: where their values are, what can be asked of Dask, what goes wrong."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.htypes import Collect, Parallelizable

pytest.importorskip("distributed", reason="the extra [dask] is not installed")

from tests.backends.calls import prepared, timed
from tests.backends.dask_cluster import Traveller
from tests.dags import PATIENCE, Stage, driver_of, dynamic_driver_of, eventually, in_thread, run_process
from traced_threadpool import FutureAdapter, run_on
from traced_threadpool.backends import Dask, NotPicklable, RemoteError, RemoteTraceback, WorkerSetupError
from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.base import Timing
from traced_threadpool.engine.backends.held import Held

Make = Callable[..., FutureAdapter]


@pytest.fixture
def client(dask_client: Any) -> Any:
    return dask_client


@pytest.fixture
def on_dask(client: Any, stage: Stage) -> Make:
    """Makes adapters with the cluster under the name `far`."""

    def make(max_workers: int = 4, **options: Any) -> FutureAdapter:
        backends = {"far": Dask(client), **options.pop("backends", {})}
        return stage.adapter(FutureAdapter(max_workers, metrics=False, backends=backends, **options))

    return make


@pytest.fixture
def backend(client: Any) -> Iterator[Dask]:
    backend = Dask(client)
    backend.open("tests")
    yield backend
    backend.close()


# Where values are


def made() -> Traveller:
    return Traveller(os.getpid())


def passed_on(made: Traveller) -> Traveller:
    return made


def arrivals_there(passed_on: Traveller) -> int:
    return Traveller.arrivals


def payload_here(passed_on: Traveller, made: Traveller) -> tuple[int, int]:
    return passed_on.payload, os.getpid()


def payload_here_too(passed_on: Traveller) -> int:
    return int(passed_on.payload)


FAR = dict.fromkeys(("made", "passed_on", "arrivals_there"), "far")


def test_values_stay_on_the_cluster(on_dask: Make) -> None:
    """A chain of nodes there brings nothing here but the output that was asked for."""
    before = Traveller.arrivals
    runs = driver_of(on_dask(run_on=FAR), made, passed_on, arrivals_there)
    assert isinstance(runs.execute(["arrivals_there"])["arrivals_there"], int)
    assert Traveller.arrivals == before


def test_thread_nodes_and_outputs_bring_a_value_once(on_dask: Make) -> None:
    """Each of the two values, for two nodes here and as outputs."""
    before = Traveller.arrivals
    runs = driver_of(on_dask(run_on=FAR), made, passed_on, payload_here, payload_here_too)
    found = runs.execute(["made", "passed_on", "payload_here", "payload_here_too"])
    there, here = found["payload_here"]
    assert there != here == os.getpid()
    assert found["payload_here_too"] == found["made"].payload == found["passed_on"].payload == there
    assert Traveller.arrivals == before + 2


def test_hooks_see_the_value_and_it_stays_there(on_dask: Make) -> None:
    """It is brought for the hook; the node below still finds it on the cluster, with no copy sent back."""
    seen: list[Any] = []

    class Hook(lifecycle.NodeExecutionHook):
        def run_before_node_execution(self, *, node_name: str, node_kwargs: dict[str, Any], **future: Any) -> None:
            seen.extend((node_name, type(value)) for value in node_kwargs.values())

        def run_after_node_execution(self, *, node_name: str, result: Any, **future: Any) -> None:
            seen.append((node_name, type(result)))

    sizes: list[int] = []

    def sent(made: Traveller, load: bytes) -> int:
        return len(load)

    def load() -> bytes:
        return bytes(300_000)

    adapter = on_dask(run_on="far", record=True)
    assert driver_of(adapter, made, load, sent, others=[Hook()]).execute(["sent"]) == {"sent": 300_000}
    assert ("made", Traveller) in seen
    assert ("sent", Traveller) in seen
    assert ("sent", bytes) in seen
    assert not sizes


def test_a_value_that_stays_is_not_sent(backend: Dask) -> None:
    """By the bytes that are counted."""
    held, _ = timed(backend, lambda: bytes(300_000))
    assert isinstance(held, Held)
    length, timing = timed(backend, len_of, value=held)
    assert (length.result(), timing.sent_bytes < 10_000) == (300_000, True)
    _, timing = timed(backend, len_of, value=held.result())
    assert timing.sent_bytes > 300_000


def len_of(value: bytes) -> int:
    return len(value)


def test_two_backends_of_one_client_share_values(on_dask: Make, client: Any) -> None:
    """Such as one for nodes that need something of their worker."""
    before = Traveller.arrivals
    adapter = on_dask(
        backends={"slot": Dask(client, resources={"slot": 1})},
        run_on={"made": "far", "passed_on": "slot", "arrivals_there": "far"},
    )
    driver_of(adapter, made, passed_on, arrivals_there).execute(["arrivals_there"])
    assert Traveller.arrivals == before


def test_branches_and_what_collects_them(on_dask: Make) -> None:
    """Each branch's values stay until a node here, or there, takes all of them."""

    def branch() -> Parallelizable[int]:
        yield from range(4)

    def squared(branch: int) -> int:
        return branch * branch

    def total(squared: Collect[int]) -> int:
        return sum(squared)

    for where in ({"squared": "far"}, {"squared": "far", "total": "far"}, {"branch": "far", "total": "far"}):
        found = dynamic_driver_of(on_dask(run_on=where), branch, squared, total).execute(["total"])
        assert found == {"total": 14}


def test_several_adapters_on_one_client(on_dask: Make) -> None:
    """At once, and one goes on when another is closed."""
    adapters = [on_dask(run_on="far") for _ in range(3)]
    runs = [driver_of(adapter, made, passed_on, arrivals_there) for adapter in adapters]
    for each in [in_thread(one.execute, ["arrivals_there"]) for one in runs]:
        each.result(PATIENCE)
    adapters[0].close()
    assert runs[1].execute(["arrivals_there"])["arrivals_there"] >= 0


def test_large_arguments(on_dask: Make) -> None:
    """They go to a worker beside the call; what arrives can be written to."""
    numpy = pytest.importorskip("numpy")

    def big() -> Any:
        return numpy.ones(1_000_000)

    def doubled(big: Any) -> float:
        big *= 2
        return float(big.sum())

    assert driver_of(on_dask(run_on={"doubled": "far"}), big, doubled).execute(["doubled"]) == {"doubled": 2e6}


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
    assert eventually(lambda: len([each for each in backend._running.values() if each.sent_ns]) == 100)

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


def test_an_exception_is_the_functions_own(on_dask: Make) -> None:
    """Type, message and attributes; the traceback there is its cause."""

    def fails() -> int:
        error = OSError(7, "no such luck")
        error.extra = "kept"  # type: ignore[attr-defined]
        raise error

    with pytest.raises(OSError, match="no such luck") as raised:
        driver_of(on_dask(run_on="far"), fails).execute(["fails"])
    assert (raised.value.errno, raised.value.extra) == (7, "kept")  # type: ignore[attr-defined]
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    assert 'error = OSError(7, "no such luck")' not in str(raised.value.__cause__)
    assert "raise error" in str(raised.value.__cause__)


def test_what_cannot_be_sent_is_named(on_dask: Make) -> None:
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

    runs = driver_of(on_dask(run_on=dict.fromkeys(("uses", "gives", "raises"), "far")), guard, uses, gives, raises)
    with pytest.raises(NotPicklable, match=r"parameter 'guard' \(a _thread.lock\) of node 'uses'"):
        runs.execute(["uses"])
    with pytest.raises(NotPicklable, match=r"the result \(a _thread.lock\) of node 'gives'"):
        runs.execute(["gives"])
    with pytest.raises(RemoteError, match="Odd: odd"):
        runs.execute(["raises"])


def test_a_module_that_a_worker_cannot_import(backend: Dask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails the node, and the worker stays."""
    (tmp_path / "only_here.py").write_text("def there() -> int:\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    with pytest.raises(ModuleNotFoundError, match="only_here"):
        timed(backend, only_here.there)
    assert timed(backend, os.getpid)[0].result() > 0


def test_a_worker_of_another_version(backend: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_call, "VERSIONS", {"Python": "2.7", "traced_threadpool": "0.1"})
    with pytest.raises(WorkerSetupError, match=r"this worker has Python 3.*, and the program Python 2\.7"):
        timed(backend, os.getpid)


def test_fail_fast_does_not_wait(on_dask: Make, tmp_path: Path) -> None:
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

    runs = driver_of(on_dask(run_on="far", fail_fast=True), hangs, fails)
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


def test_the_span_says_where_it_ran(on_dask: Make) -> None:
    """And what it took to get there; the span is the current one of the node's function."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    @run_on("far")
    def there() -> tuple[str, int]:
        from opentelemetry import trace

        return f"{trace.get_current_span().get_span_context().span_id:x}", os.getpid()

    def here(there: tuple[str, int]) -> tuple[str, int]:
        return there

    adapter = on_dask(tracer_provider=provider)
    seen, pid = driver_of(adapter, there, here).execute(["here"])["here"]
    adapter.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    attributes = spans["there"].attributes
    assert seen == f"{spans['there'].context.span_id:x}"
    assert attributes["hamilton.node.backend"] == "far"
    assert attributes["hamilton.node.worker.pid"] == pid
    assert attributes["hamilton.node.worker.address"].startswith("tcp://127.0.0.1:")
    assert attributes["hamilton.node.attempts"] == 1
    assert attributes["hamilton.node.sent.size"] > 100
    assert "hamilton.node.received.size" not in attributes  # it stayed there
    assert attributes["hamilton.node.wait.remote_queue.duration"] > 0
    assert attributes["hamilton.node.wait.transfer.duration"] > 0
    assert spans["here"].attributes["hamilton.node.received.size"] > 10
    assert [link.context.span_id for link in spans["here"].links] == [spans["there"].context.span_id]


def test_context_variables_and_baggage(on_dask: Make) -> None:
    from opentelemetry import baggage, context

    def there() -> Any:
        from opentelemetry import baggage

        return baggage.get_baggage("customer")

    token = context.attach(baggage.set_baggage("customer", "acme"))
    try:
        assert driver_of(on_dask(run_on="far"), there).execute(["there"]) == {"there": "acme"}
    finally:
        context.detach(token)
