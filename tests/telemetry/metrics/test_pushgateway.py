"""`push_metrics` to a real Pushgateway, and to gateways that fail."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.dags import start
from tests.telemetry.small_nodes import holding
from tests.telemetry.telemetry_helpers import COUNTED_FROM_ZERO, Gate, Labels, make_adapter, make_driver, samples, until
from traced_threadpool import push_metrics
from traced_threadpool.telemetry import names

pytestmark = pytest.mark.slow

PUSHGATEWAY = shutil.which("prometheus-pushgateway")
needs_gateway = pytest.mark.skipif(PUSHGATEWAY is None, reason="needs Debian's prometheus-pushgateway")


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    assert PUSHGATEWAY is not None
    for _ in range(5):  # a port that was free a moment ago may be taken when it gets there
        address = f"127.0.0.1:{free_port()}"
        process = subprocess.Popen([PUSHGATEWAY, f"--web.listen-address={address}", "--log.level=error"])
        try:
            until(lambda: process.poll() is not None or is_ready(address))  # noqa: B023
            if process.poll() is None:
                yield f"http://{address}"
                return
        finally:
            process.kill()
            process.wait()
    pytest.fail("the gateway does not start")


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as answer:
            ready: bool = answer.status == 200
            return ready
    except OSError:
        time.sleep(0.01)
        return False


def pushed(gateway: str, job: str) -> dict[str, dict[Labels, float]]:
    """What the gateway shows of a job: by metric, then by the values of its own labels, in the order of their names."""
    with urllib.request.urlopen(f"{gateway}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            if labels.pop("job", None) == job:
                labels.pop("instance", None)
                if labels.get("le", "+Inf") != "+Inf":
                    labels["le"] = str(float(labels["le"]))  # the gateway writes 1, the client library 1.0
                values = tuple(value for _, value in sorted(labels.items()))
                if sample.value or sample.name not in COUNTED_FROM_ZERO:
                    found.setdefault(sample.name, {})[values] = sample.value
    return found


def load() -> int:
    return 1


def left(load: int) -> int:
    return load + 1


def fails(load: int) -> int:
    raise ValueError("a message")


@needs_gateway
def test_a_job_pushes_what_it_has_counted(gateway: str) -> None:
    """Counters, histograms and the timestamp are those of a scrape; the pool's gauges are not there."""
    registry = CollectorRegistry()
    with make_adapter(registry=registry, name="shop") as adapter:
        for _ in range(3):
            make_driver(adapter, load, left).execute(["left"])
        assert push_metrics(gateway, job="counts", registry=registry)
        found = pushed(gateway, "counts")
        expected = {
            name: samples(registry, name)
            for metric in names.METRICS
            if metric.kind != "gauge" or metric in (names.RUN_LAST_SUCCESS, names.ATTRIBUTION)
            for name in (
                [f"{metric.prometheus}_{part}" for part in ("bucket", "sum", "count")]
                if metric.kind == "histogram"
                else [metric.prometheus]
            )
        }
    for name in ("push_time_seconds", "push_failure_time_seconds"):  # the gateway's own
        found.pop(name)
    # The GIL's probe goes on counting; a process without attribution has no such figure.
    moving = "hamilton_gil_probe_wait_seconds_total"
    assert found.pop(moving, {}).keys() == expected.pop(moving).keys()
    assert found == {name: each for name, each in expected.items() if each}
    assert found["hamilton_nodes_total"] == {("left", "success", "shop"): 3, ("load", "success", "shop"): 3}
    assert found["hamilton_run_last_success_timestamp_seconds"].keys() == {("shop", "hamilton.run")}


@needs_gateway
def test_a_failed_job_leaves_the_time_of_the_last_success(gateway: str) -> None:
    """The next process, whose run fails, pushes its counts and does not touch the timestamp."""
    first, second = CollectorRegistry(), CollectorRegistry()  # as two processes have them
    with make_adapter(registry=first) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert push_metrics(gateway, job="nightly", registry=first)
    before = pushed(gateway, "nightly")["hamilton_run_last_success_timestamp_seconds"]
    with make_adapter(registry=second) as adapter, pytest.raises(ValueError, match="a message"):
        make_driver(adapter, load, fails).execute(["fails"])
    assert push_metrics(gateway, job="nightly", registry=second)
    after = pushed(gateway, "nightly")
    assert after["hamilton_run_last_success_timestamp_seconds"] == before
    runs = {labels: count for labels, count in after["hamilton_run_duration_seconds_count"].items() if count}
    assert runs == {("error", "default", "hamilton.run"): 1}


@needs_gateway
@pytest.mark.parametrize(
    "value", ["a b", "a/b", "a+b%2F", 'quote"\\', "two\nlines", "ünïcödé", "..", "?x=1#y", "==", ""]
)
def test_a_grouping_key_comes_through_as_it_is(gateway: str, value: str) -> None:
    """Whatever is in the job's name and in a label's value, the gateway has the same."""
    registry = CollectorRegistry()
    with make_adapter(registry=registry) as adapter:
        make_driver(adapter, load).execute(["load"])
    job = f"job {value}"
    assert push_metrics(gateway, job=job, grouping={"shard": value, "zone": "eu"}, registry=registry)
    with urllib.request.urlopen(f"{gateway}/api/v1/metrics", timeout=20) as answer:
        groups = [group["labels"] for group in json.load(answer)["data"]]
    expected = {"job": job, "shard": value, "zone": "eu"}
    assert [group for group in groups if group["job"] == job] == [
        {name: each for name, each in expected.items() if each}  # to Prometheus, an empty label is none
    ] or expected in groups


@needs_gateway
def test_nothing_of_others_is_pushed(gateway: str) -> None:
    """A registry has metrics of the interpreter and the application too: those are not ours to push."""
    from prometheus_client import REGISTRY

    with make_adapter(registry=REGISTRY) as adapter:
        make_driver(adapter, load).execute(["load"])
    assert push_metrics(gateway, job="ours")
    others = {name for name in pushed(gateway, "ours") if not name.startswith(("hamilton_", "push_"))}
    assert others == set()


@pytest.fixture
def registry() -> CollectorRegistry:
    """One in which a run has been counted."""
    registry = CollectorRegistry()
    with make_adapter(registry=registry) as adapter:
        make_driver(adapter, load).execute(["load"])
    return registry


def errors(registry: CollectorRegistry) -> dict[Labels, float]:
    return samples(registry, "hamilton_telemetry_errors_total")


def test_a_gateway_that_is_not_there_fails_nothing(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, without the password in the address, and counted."""
    port = free_port()
    with caplog.at_level(logging.WARNING, "traced_threadpool"):
        assert not push_metrics(f"http://me:secret@127.0.0.1:{port}", job="nightly", registry=registry)
    (record,) = caplog.records
    assert (
        f"the metrics were not pushed to http://127.0.0.1:{port}/metrics/job/nightly: Connection refused"
        in record.getMessage()
    )
    assert errors(registry) == {("push",): 1}


def test_a_failure_is_an_error_where_asked(registry: CollectorRegistry) -> None:
    """For a job whose freshness alert is worth failing for."""
    with pytest.raises(OSError, match="the metrics were not pushed to http://127"):
        push_metrics(f"http://127.0.0.1:{free_port()}", job="nightly", registry=registry, raise_on_failure=True)
    assert errors(registry) == {("push",): 1}


def test_a_gateway_that_drips_costs_no_more_than_the_limit(registry: CollectorRegistry) -> None:
    """One that sends a byte now and then never runs into a socket's own time limit."""
    done = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not done.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        started = time.monotonic()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert not push_metrics(url, job="nightly", registry=registry, timeout_seconds=0.5)
        assert 0.5 <= time.monotonic() - started < 10
        done.set()
        thread.join()
    assert errors(registry) == {("push",): 1}
    until(lambda: not any(each.name == "telemetry-push" for each in threading.enumerate()))


def test_a_handler_can_authenticate(registry: CollectorRegistry) -> None:
    """It is `prometheus_client`'s kind of handler, and gets the whole request."""
    seen: list[dict[str, Any]] = []

    def handler(**request: Any) -> Any:
        seen.append(request)
        return lambda: None

    assert push_metrics("http://gateway:9091/", job="nightly", registry=registry, handler=handler)
    (request,) = seen
    assert (request["url"], request["method"]) == ("http://gateway:9091/metrics/job/nightly", "POST")
    assert b"hamilton_nodes_total{" in request["data"]


def test_a_push_amid_a_run_is_of_what_has_ended(registry: CollectorRegistry) -> None:
    """Nothing is waited for."""
    gate = Gate()

    held = holding(gate)

    seen: list[bytes] = []
    with make_adapter(registry=registry) as adapter:
        outputs = start(make_driver(adapter, held), ["held"])
        gate.wait_for()
        push_metrics("http://g", job="j", registry=registry, handler=lambda **r: lambda: seen.append(r["data"]))
        gate.open()
        outputs["held"].result()
    assert b'node="load"' in seen[0]
    assert b'node="held"' not in seen[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gateway": "localhost:9091"}, ValueError, "gateway='localhost:9091' has no scheme"),
        ({"gateway": "http://h:port"}, ValueError, "is not a URL"),
        ({"gateway": 9091}, TypeError, "gateway=9091 is of type int; expected a base URL"),
        ({"job": ""}, ValueError, "job must be a name"),
        ({"job": None}, TypeError, "job must be a string"),
        ({"grouping": ["a"]}, TypeError, "grouping must map labels to values"),
        ({"grouping": {"a": 1}}, TypeError, "values that are strings, not 'a' to 1"),
        ({"grouping": {"a-b": "c"}}, ValueError, "'a-b', which cannot be a label's name"),
        ({"grouping": {"job": "c"}}, ValueError, "'job', which cannot be"),
        ({"grouping": {"pool": "c"}}, ValueError, "'pool', which is a label of the metrics themselves"),
        ({"timeout_seconds": 0}, ValueError, "timeout_seconds must be above 0"),
        ({"timeout_seconds": "5"}, TypeError, "timeout_seconds must be a number"),
        ({"registry": {}}, TypeError, "registry must be a prometheus_client.CollectorRegistry"),
        ({"registry": CollectorRegistry()}, ValueError, "no adapter has metrics in this registry"),
    ],
)
def test_a_wrong_argument_is_an_error(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """At once, and not a push that fails: it will not work tomorrow either."""
    with pytest.raises(error, match=message):
        push_metrics(**{"gateway": "http://localhost:9091", "job": "nightly", **arguments})
