"""What a receiver can answer, byte by byte: whatever it has not confirmed is lost, and told once."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.telemetry.telemetry_helpers import make_adapter, make_driver
from traced_threadpool.telemetry import lost_spans
from traced_threadpool.telemetry.export.otlp import MetricExport, SpanExport
from traced_threadpool.telemetry.export.otlp_target import OtlpTarget

SPANS = 2
HAS_RETRY_AFTER = importlib.util.find_spec("opentelemetry.exporter.otlp.common") is not None
"""Older exporters try again for a minute, whatever the receiver says and however long an export may take."""

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


def rejecting(count: int, message: str = "") -> bytes:
    partial = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=count, error_message=message)
    body: bytes = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    return body


def answer(status: str, body: bytes = b"", kind: str = PROTOBUF, *, length: int | None = None, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n"
    head += (f"Content-Type: {kind}\r\n" if kind else "") + more + "Connection: close\r\n\r\n"
    return head.encode() + body


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)


def chunked(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: {PROTOBUF}\r\nConnection: close\r\n\r\n"
    return head.encode() + f"{len(body):x}\r\n".encode() + body + b"\r\n" + end


LOGIN_PAGE = b"<html><body>Please log in to this network</body></html>"

CONFIRMED = {
    "an empty body": answer("200 OK"),
    "an untyped empty body": answer("200 OK", kind=""),
    "an empty body as text": answer("200 OK", kind="text/html"),
    "201 without a body": answer("201 Created"),
    "202 without a body": answer("202 Accepted"),
    "204": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "an empty object": answer("200 OK", b"{}", JSON),
    "null in JSON": answer("200 OK", b'{"partialSuccess": null}', JSON),
    "nothing rejected": answer("200 OK", rejecting(0, "a hint")),
    "nothing rejected in JSON": answer("200 OK", b'{"partialSuccess":{"errorMessage":"a hint"}}', JSON),
    "chunks": chunked(rejecting(0, "a hint")),
    "no chunk": chunked(b"", b""),
    "gzip": answer("200 OK", gzip.compress(rejecting(0, "a hint")), more="Content-Encoding: gzip\r\n"),
    "100 before it": b"HTTP/1.1 100 Continue\r\n\r\n" + answer("200 OK"),
    "a body of no stated length": f"HTTP/1.1 200 OK\r\nContent-Type: {PROTOBUF}\r\n\r\n".encode() + rejecting(0, "x"),
}

REJECTED = {
    "one span": (answer("200 OK", rejecting(1, "too old")), 1, "rejected by the receiver: 'too old'"),
    "words with a secret and a bell": (
        answer("200 OK", rejecting(1, "no tenant\n\x07 at https://bob:hunter2@host/?key=hunter2 for Bearer hunter2")),
        1,
        r"rejected by the receiver: 'no tenant\n\x07 at https://*** for Bearer ***'",
    ),
    "one span in JSON": (answer("200 OK", b'{"partialSuccess":{"rejectedSpans":"1"}}', JSON), 1, "rejected by"),
    "one span in gzip": (
        answer("200 OK", gzip.compress(rejecting(1)), more="Content-Encoding: gzip\r\n"),
        1,
        "rejected by",
    ),
    "one span in chunks": (chunked(rejecting(1)), 1, "rejected by the receiver"),
    "one span without a type": (answer("200 OK", rejecting(1), ""), 1, "rejected by the receiver"),
    "one span with 202": (answer("202 Accepted", rejecting(1)), 1, "rejected by the receiver"),
    "all spans": (answer("200 OK", rejecting(2)), 2, "rejected by the receiver"),
    "more than there were": (answer("200 OK", rejecting(99)), 2, "rejected by the receiver"),
    "less than none": (answer("200 OK", rejecting(-1)), 2, "a negative number of rejected items"),
}

NOT_CONFIRMED = {
    **{
        f"a redirect, {code}": (
            answer(f"{code} Moved", more="Location: http://127.0.0.1:1/else?key=hunter2\r\n"),
            f"HTTP {code} .* to 'http://127.0.0.1:1/else.*', which is not followed",
        )
        for code in (301, 302, 303, 307, 308)
    },
    "a redirect to nowhere": (answer("308 Moved"), "HTTP 308"),
    "300": (answer("300 Multiple Choices"), "HTTP 300"),
    "304": (b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n", "HTTP 304"),
    "a login page": (answer("200 OK", LOGIN_PAGE, "text/html; charset=utf-8"), "HTTP 200 with text/html"),
    "a login page that says it is protobuf": (answer("200 OK", LOGIN_PAGE), f"HTTP 200 with {PROTOBUF}"),
    "a login page that says it is JSON": (answer("200 OK", LOGIN_PAGE, JSON), f"HTTP 200 with {JSON}"),
    "text": (answer("200 OK", b"ok", "text/plain"), "HTTP 200 with text/plain"),
    "text that parses as fields nobody knows": (answer("200 OK", b"zz" * 100, "text/plain"), "HTTP 200 with"),
    "JSON of somebody else": (answer("200 OK", b'{"error": "log in"}', JSON), f"HTTP 200 with {JSON}"),
    "JSON that is no object": (answer("200 OK", b"[]", JSON), f"HTTP 200 with {JSON}"),
    "JSON with a wrong number": (answer("200 OK", b'{"partialSuccess":{"rejectedSpans":"x"}}', JSON), "HTTP 200 with"),
    "deep JSON": (answer("200 OK", b"[" * 100_000, JSON), f"HTTP 200 with {JSON}"),
    "half a body": (answer("200 OK", rejecting(0, "a hint"), length=1_000), "a body that is not whole"),
    "half an empty body": (answer("200 OK", length=10), "a body that is not whole"),
    "a message cut in the middle": (answer("200 OK", rejecting(0, "a hint")[:-2]), f"HTTP 200 with {PROTOBUF}"),
    "chunks cut": (chunked(rejecting(0, "a hint"), b"5\r\nab"), "a body that is not whole"),
    "no last chunk": (chunked(rejecting(0, "a hint"), b""), "a body that is not whole"),
    "gzip that is none": (answer("200 OK", b"plain", more="Content-Encoding: gzip\r\n"), "not whole"),
    **{
        f"gzip cut to {size}": (
            answer("200 OK", gzip.compress(rejecting(0, "a hint"))[:size], more="Content-Encoding: gzip\r\n"),
            "a body that is not whole",
        )
        for size in (1, 10, 15, -9, -1)
    },
    **{
        f"compressed as {name}": (
            answer("200 OK", b"x", more=f"Content-Encoding: {name}\r\n"),
            f"HTTP 200 with a body compressed as '{name.lower()}', which",
        )
        for name in ("br", "zstd", "bz2", "XZ", "deflate")
    },
    **{
        f"{status} without a body": (answer(status), f"HTTP {status[:3]}.*, which is no answer of OTLP")
        for status in ("203 Non-Authoritative Information", "205 Reset Content", "206 Partial Content", "299 Fine")
    },
    "103 and no more": (b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n", "HTTP 103|RemoteDisconnected|Conn"),
    "400": (answer("400 Bad Request", b"\x0a\x03bad"), "HTTP 400 Bad Request"),
    "401": (answer("401 Unauthorized"), "HTTP 401 Unauthorized"),
    "429 for long": (answer("429 Too Many Requests", more="Retry-After: 3600\r\n"), "HTTP 429 Too Many Requests"),
    "500": (answer("500 Internal Server Error", LOGIN_PAGE, "text/html"), "HTTP 500"),
    "503 for long": (answer("503 Service Unavailable", more="Retry-After: 3600\r\n"), "HTTP 503"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "the export failed|Error|aborted|HTTP"),
    "nothing": (b"", "the export failed|Disconnected|Error|reset"),
}


@contextmanager
def server(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answers each connection's request with the next bytes, the last ones for good, and closes it."""
    requests: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for number in itertools.count():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"\r\n\r\n" not in request and (more := connection.recv(65_536)):
                    request += more
                if not request:
                    return
                head, _, body = request.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                while len(body) < int(length[1] if length else 0) and (more := connection.recv(65_536)):
                    body += more
                requests.append(head.split(b"\r\n")[0])
                connection.sendall(answers[min(number, len(answers) - 1)])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield url, requests
    finally:
        with socket.create_connection(listening.getsockname()):
            pass
        thread.join(10)
        listening.close()


def export_spans(target: OtlpTarget, caplog: pytest.LogCaptureFixture) -> tuple[bool, int, list[str]]:
    """Whether a flush after two spans says that all is well, the spans counted as lost, and the log."""
    before = lost_spans.spans_lost()["endpoint"]
    with caplog.at_level(logging.INFO), ExitStack() as undo:
        export = SpanExport(target, None, "test", undo)
        for _ in range(SPANS):
            export.provider.get_tracer("test").start_span("one").end()
        flushed = export.flush(time.monotonic() + 30)
        export.close()
        undo.pop_all()
    log = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    return flushed, lost_spans.spans_lost()["endpoint"] - before, log


def export_metrics(target: OtlpTarget, caplog: pytest.LogCaptureFixture) -> tuple[bool, list[str]]:
    with caplog.at_level(logging.INFO):
        export = MetricExport(target, "test")
        with make_adapter(meter_provider=export.provider) as adapter:
            make_driver(adapter, one).execute(["one"])
        flushed = export.flush(time.monotonic() + 30)
        export.close()
    bounds = "this version of OpenTelemetry cannot be told the bounds"
    return flushed, [text for record in caplog.records if not (text := record.getMessage()).startswith(bounds)]


def one() -> int:
    return 1


def over_http(url: str, signal: str = "traces") -> OtlpTarget:
    return OtlpTarget(f"{url}/v1/{signal}", "http/protobuf", True)


@pytest.mark.parametrize("kind", CONFIRMED)
def test_what_a_receiver_confirms_is_not_lost(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every form in which receivers in use say yes; the log stays empty."""
    with server(CONFIRMED[kind]) as (url, _):
        assert export_spans(over_http(url), caplog) == (True, 0, [])


@pytest.mark.parametrize("kind", REJECTED)
def test_what_a_receiver_rejects_is_lost(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """As many as it says, with its reason in the one log line."""
    sent, count, why = REJECTED[kind]
    with server(sent) as (url, requests):
        flushed, lost, log = export_spans(over_http(url), caplog)
    assert (flushed, lost, len(requests)) == (False, count, 1)
    (line,) = log
    assert line.startswith(f"{count} spans did not get to {url}/v1/traces: {why}")


@pytest.mark.parametrize("kind", NOT_CONFIRMED)
def test_what_a_receiver_does_not_confirm_is_lost(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """All spans of the batch; one log line says why; no redirect is followed; a query's value is not shown."""
    sent, why = NOT_CONFIRMED[kind]
    if not HAS_RETRY_AFTER and kind in ("500", "503 for long"):
        pytest.skip("takes a minute")
    with server(sent) as (url, requests):
        flushed, lost, log = export_spans(over_http(url), caplog)
    assert (flushed, lost) == (False, SPANS)
    assert {request.split()[0] for request in requests} == {b"POST"}
    (line,) = log
    assert line.startswith(f"2 spans did not get to {url}/v1/traces: ")
    assert re.search(why, line)
    assert "hunter2" not in line


@pytest.mark.skipif(not HAS_RETRY_AFTER, reason="Retry-After is not heeded")
def test_an_answer_that_says_later_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """429 and 503 with Retry-After, then 200: delivered, and not a word."""
    later = answer("503 Service Unavailable", more="Retry-After: 0\r\n")
    with server(later.replace(b"503 Service Unavailable", b"429 Too Many Requests"), later, answer("200 OK")) as (
        url,
        requests,
    ):
        assert export_spans(over_http(url), caplog) == (True, 0, [])
    assert len(requests) == 3


@pytest.mark.parametrize("kind", ["a redirect, 308", "a login page", "half a body", "401", "JSON of somebody else"])
def test_metrics_that_are_not_confirmed_are_told(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """flush() is False, and there is one log line, though a minute later it is tried again."""
    sent, why = NOT_CONFIRMED[kind]
    with server(sent) as (url, _):
        flushed, (line,) = export_metrics(over_http(url, "metrics"), caplog)
    assert not flushed
    assert line.startswith(f"metrics did not get to {url}/v1/metrics: ")
    assert re.search(why, line)


def test_metrics_that_are_rejected_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """By the number of data points, which their response has in place of spans."""
    partial = metrics_service_pb2.ExportMetricsPartialSuccess(rejected_data_points=1, error_message="stale")
    body = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    with server(answer("200 OK", body)) as (url, _):
        flushed, (line,) = export_metrics(over_http(url, "metrics"), caplog)
    assert (flushed, "rejected by the receiver: 'stale'" in line) == (False, True)


@pytest.mark.parametrize("kind", ["an empty body", "204", "an empty object", "gzip"])
def test_metrics_that_are_confirmed(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """And nothing is said."""
    with server(CONFIRMED[kind]) as (url, _):
        assert export_metrics(over_http(url, "metrics"), caplog) == (True, [])


@contextmanager
def grpc_server(respond: Callable[[grpc.ServicerContext], bytes], service: str) -> Iterator[OtlpTarget]:
    """One that answers an export with these bytes."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: respond(context))
    running = grpc.server(ThreadPoolExecutor(2))
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        yield OtlpTarget(f"http://127.0.0.1:{port}", "grpc", True)
    finally:
        running.stop(grace=None).wait()


TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
METRICS = "opentelemetry.proto.collector.metrics.v1.MetricsService"


def abort(context: Any) -> bytes:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "hunter2")
    return b""


@pytest.mark.parametrize(
    ("respond", "lost", "why"),
    [
        (lambda context: b"", 0, ""),
        (lambda context: rejecting(0, "a hint"), 0, ""),
        (lambda context: rejecting(1, "too old"), 1, "rejected by the receiver: 'too old'"),
        (lambda context: rejecting(-5), 2, "a negative number"),
        (lambda context: b"<html>", 2, "gRPC status "),
        (abort, 2, "gRPC status PERMISSION_DENIED"),
    ],
    ids=["accepted", "a hint", "rejected", "negative", "no message", "denied"],
)
def test_over_grpc(respond: Callable[[Any], bytes], lost: int, why: str, caplog: pytest.LogCaptureFixture) -> None:
    """A status of OK confirms what its response does not reject."""
    with grpc_server(respond, TRACES) as target:
        flushed, counted, log = export_spans(target, caplog)
    assert (flushed, counted, len(log)) == (not lost, lost, bool(lost))
    assert not log or log[0].startswith(f"{lost} spans did not get to {target.url}: {why}")
    assert "hunter2" not in str(log)


def test_metrics_over_grpc(caplog: pytest.LogCaptureFixture) -> None:
    """Likewise."""
    partial = metrics_service_pb2.ExportMetricsPartialSuccess(rejected_data_points=1)
    body = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    with grpc_server(lambda context: body, METRICS) as target:
        flushed, (line,) = export_metrics(target, caplog)
    assert (flushed, "rejected by the receiver" in line) == (False, True)


def test_grpc_to_a_server_of_http(caplog: pytest.LogCaptureFixture) -> None:
    """The wrong port: nothing is delivered, and it is said once."""
    with server(answer("400 Bad Request")) as (url, _):
        pass
    flushed, lost, log = export_spans(OtlpTarget(url, "grpc", True), caplog)
    assert (flushed, lost, len(log)) == (False, SPANS, 1)
