"""Real OTLP receivers in the test's own process: what an exporter sends, as the spans of OTLP's protobuf.

    with HttpReceiver() as receiver:
        ...  # something exports to receiver.endpoint
        (span,) = receiver.wait_for(1)

`GrpcReceiver` does the same over gRPC, and takes metrics too (`metric_requests`). While `receiver.answering` is
cleared, requests are not answered. Once `receiver.refuse_with` is set, to an HTTP status or a gRPC status code, that
is the answer. `parse_line` and `parse_file` read OTLP/JSON.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from typing_extensions import Self

Request = trace_service_pb2.ExportTraceServiceRequest
Response = trace_service_pb2.ExportTraceServiceResponse


class _Receiver:
    """Keeps what has come in; a subclass listens."""

    endpoint: str

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.refuse_with: Any = None
        self.answering = threading.Event()
        self.answering.set()
        self._changed = threading.Condition()

    @property
    def spans(self) -> list[Span]:
        """Every span received so far, in the order in which they came."""
        with self._changed:
            return spans_in(self.requests)

    def wait_for(self, count: int, timeout_seconds: float = 60) -> list[Span]:
        """Return the spans once there are `count` of them; an AssertionError when that takes too long."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(spans_in(self.requests)) >= count, timeout_seconds)
            spans = spans_in(self.requests)
        assert enough, f"{len(spans)} of {count} spans came in {timeout_seconds} s: {[s.name for s in spans]}"
        return spans

    def wait_for_request(self, timeout_seconds: float = 60) -> None:
        """Return once something has been received, answered or not."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.headers), timeout_seconds), "nothing was received"

    def _receive(
        self, request: trace_service_pb2.ExportTraceServiceRequest, headers: Iterable[tuple[str, str]]
    ) -> None:
        with self._changed:
            self.headers.append({name.lower(): value for name, value in headers})
            if self.refuse_with is None:
                self.requests.append(request)
            self._changed.notify_all()
        self.answering.wait()


class GrpcReceiver(_Receiver, trace_service_pb2_grpc.TraceServiceServicer):
    """OTLP over gRPC, on a free port; `endpoint` has its address."""

    def Export(self, request: Any, context: Any) -> Any:
        self._receive(request, context.invocation_metadata())
        if self.refuse_with is not None:
            context.abort(self.refuse_with, "refused by the test")
        return Response()

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(4))
        self.metric_requests: list[metrics_service_pb2.ExportMetricsServiceRequest] = []
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self.metric_requests), self._server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.answering.set()
        self._server.stop(grace=None).wait()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, requests: list[metrics_service_pb2.ExportMetricsServiceRequest]) -> None:
        self._requests = requests

    def Export(self, request: Any, context: Any) -> Any:
        self._requests.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


class HttpReceiver(_Receiver):
    """OTLP over HTTP, on a free port; `endpoint` has its base URL, `paths` what was posted to."""

    def __enter__(self) -> Self:
        self.paths: list[str] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.paths.append(self.path)
                receiver._receive(Request.FromString(body), self.headers.items())
                answer = Response().SerializeToString()
                with contextlib.suppress(ConnectionError):  # the client may have given up waiting
                    self.send_response(receiver.refuse_with or 200)
                    self.send_header("Content-Type", "application/x-protobuf")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.answering.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def spans_in(requests: Iterable[trace_service_pb2.ExportTraceServiceRequest]) -> list[Span]:
    """Return the spans of several export requests, in order."""
    return [
        span
        for request in requests
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def parse_line(line: str | bytes) -> trace_service_pb2.ExportTraceServiceRequest:
    """Return what a line of OTLP/JSON says. An unknown field, or an id that is not hex, is an error."""
    is_dated = "flags" not in Span.DESCRIPTOR.fields_by_name  # an opentelemetry-proto before 1.26
    request: trace_service_pb2.ExportTraceServiceRequest = json_format.ParseDict(
        _with_base64_ids(json.loads(line)), Request(), ignore_unknown_fields=is_dated
    )
    return request


def parse_file(path: Path) -> list[trace_service_pb2.ExportTraceServiceRequest]:
    """Return what the lines of a file say, in order."""
    return [parse_line(line) for line in path.read_bytes().splitlines()]


def _with_base64_ids(value: Any, name: str = "") -> Any:
    # Protobuf's JSON has bytes in base64; OTLP's JSON is the same but for these, which are hex.
    if isinstance(value, dict):
        return {key: _with_base64_ids(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_base64_ids(item) for item in value]
    if name in ("traceId", "spanId", "parentSpanId"):
        assert value == value.lower(), f"{name} {value!r} is not in lower case"
        return b64encode(bytes.fromhex(value)).decode("ascii")
    return value
