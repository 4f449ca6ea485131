"""What every cluster promises: Dask's and Ray's tests are these, with fixtures of their own, and what only one has.

Their fixtures: `new` makes a backend of the cluster, `backend` is one that is open, `worker_address` is how the
addresses of its workers begin; `adapter` is in `conftest.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.htypes import Collect, Parallelizable

from tests.backends.calls import timed
from tests.backends.dask_cluster import Traveller
from tests.dags import driver_of, dynamic_driver_of
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import NotPicklable, RemoteError, RemoteTraceback, WorkerSetupError
from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.base import Backend
from traced_threadpool.engine.backends.held import Held

Make = Callable[..., FutureAdapter]


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


def test_values_stay_on_the_cluster(adapter: Make, new: Callable[..., Backend]) -> None:
    """A chain of nodes there, by way of two backends, brings nothing here but the output that was asked for."""
    before = Traveller.arrivals
    runs = driver_of(
        adapter(backends={"slot": new(resources={"slot": 1})}, run_on={**FAR, "passed_on": "slot"}),
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


def test_a_value_that_stays_is_not_sent(backend: Backend) -> None:
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
    """Each branch's values stay until a node here, or there, takes all of them."""

    def branch() -> Parallelizable[int]:
        yield from range(4)

    def squared(branch: int) -> int:
        return branch * branch

    def total(squared: Collect[int]) -> int:
        return sum(squared)

    for where in ({"squared": "far"}, {"squared": "far", "total": "far"}, {"branch": "far", "total": "far"}):
        found = dynamic_driver_of(adapter(run_on=where), branch, squared, total).execute(["total"])
        assert found == {"total": 14}


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
    assert 'error = OSError(7, "no such luck")' not in str(raised.value.__cause__)
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


def test_a_worker_of_another_version(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_call, "VERSIONS", {"Python": "2.7", "traced_threadpool": "0.1"})
    with pytest.raises(WorkerSetupError, match=r"this worker has Python 3.*, and the program Python 2\.7"):
        timed(backend, os.getpid)


# What is told


def test_the_span_says_where_it_ran(adapter: Make, worker_address: str) -> None:
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
    assert attributes.get("hamilton.node.worker.address", "").startswith(worker_address)
    assert attributes["hamilton.node.attempts"] == 1
    assert attributes["hamilton.node.sent.size"] > 100
    assert "hamilton.node.received.size" not in attributes  # it stayed there
    assert attributes["hamilton.node.wait.remote_queue.duration"] > 0
    assert attributes["hamilton.node.wait.transfer.duration"] > 0
    began, ended = (attributes[f"hamilton.node.function.{moment}"] for moment in ("start", "end"))
    assert 0 < began < ended < (spans["there"].end_time - spans["there"].start_time) / 1e9
    assert spans["here"].attributes["hamilton.node.received.size"] > 10
    assert [link.context.span_id for link in spans["here"].links] == [spans["there"].context.span_id]
