"""Turns one call into working telemetry, for programs that have no OpenTelemetry set up.

Where spans go is decided by the arguments first, and by OpenTelemetry's standard ``OTEL_*`` variables second:

- to an OTLP endpoint, when ``endpoint`` is given, or a variable names one, or ``OTEL_TRACES_EXPORTER`` names
  ``otlp``, or nothing at all was asked for (then to one on this machine, which is the standard's default);
- to a file, when ``file`` is given.

The protocol is what a variable says, else gRPC for port 4317, else ``http/protobuf``:

>>> _otlp_target("http://collector:4317", or_else=False, variables={})
_OtlpTarget(url='http://collector:4317', protocol='grpc', insecure=True)
>>> _otlp_target("http://collector:4318", or_else=False, variables={})
_OtlpTarget(url='http://collector:4318/v1/traces', protocol='http/protobuf', insecure=True)
>>> _otlp_target(None, or_else=False, variables={"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector"})
_OtlpTarget(url='https://collector/v1/traces', protocol='http/protobuf', insecure=None)
>>> _otlp_target(None, or_else=False, variables={}) is None
True
"""

from __future__ import annotations

import atexit
import errno
import logging
import math
import os
import sys
import threading
import time
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import prometheus_client
from opentelemetry import trace

from traced_threadpool.telemetry.background import flush_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from wsgiref.simple_server import WSGIServer

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_logger = logging.getLogger(__name__)

_METRICS_HOST = "127.0.0.1"
_CLOSE_SECONDS = 10.0
# An export that fails only after so long has been retrying. At the end of a program, one such is proof enough.
_UNREACHABLE_SECONDS = 1.0

# A graph of quick nodes ends its spans in bursts, of which the SDK's queue of 2,048 would drop most. A span
# is some 4 kB, so an endpoint that does not answer costs 130 MB at most. A file does not hang like that.
_ENDPOINT_QUEUE = 32_768
_FILE_QUEUE = 131_072
# A kill -9 takes what waits for export. To a file, exporting often is cheap; an endpoint keeps the SDK's 5 s.
_FILE_DELAY_MILLIS = 250

_GRPC = "grpc"
_HTTP = "http/protobuf"
# The names that OTEL_TRACES_EXPORTER has for OTLP, and the protocol that some of them imply.
_OTLP_EXPORTERS = {"otlp": None, "otlp_proto_grpc": _GRPC, "otlp_proto_http": _HTTP}

_set_here: weakref.WeakSet[trace.TracerProvider] = weakref.WeakSet()


def setup_telemetry(
    *,
    service_name: str | None = None,
    endpoint: str | None = None,
    file: str | os.PathLike[str] | None = None,
    prometheus_port: int | None = None,
) -> TelemetrySetup:
    """Send spans to an OTLP endpoint or a file, serve metrics, and see both through to the program's end.

    For programs that have no OpenTelemetry set up: call it once, early. It sets the process's tracer
    provider, which ``FutureAdapter`` and every instrumented library then use. A program that has a tracer
    provider needs ``prometheus_port`` at most.

    It is all or nothing: when it raises, no provider is set, no port is open and no file has been created.
    Spans need an extra, ``pip install "traced_threadpool[otlp]"``. ``prometheus_port`` alone does not, and
    leaves providers alone.

    The standard variables are honoured, and arguments win over them: ``OTEL_SDK_DISABLED`` (no spans,
    whatever the arguments say; metrics are served all the same), ``OTEL_SERVICE_NAME``,
    ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_*``, the span limits,
    ``OTEL_TRACES_EXPORTER`` (``otlp`` or ``none``) and ``OTEL_EXPORTER_OTLP_*``. Where a provider is there
    already, and only variables ask for spans next to a ``prometheus_port``, that provider is taken to honour
    them.

    At the end of the program everything is exported, which takes some 10 s where the endpoint cannot be reached.
    A signal that kills takes with it what was not exported yet: up to 0.25 s of spans for a file, 5 s for an
    endpoint, or ``OTEL_BSP_SCHEDULE_DELAY`` milliseconds for both. A forked child exports its own spans, and
    serves no metrics.

    Args:
        service_name: what traces are filed under. Default: ``OTEL_SERVICE_NAME``, else ``service.name`` among
            ``OTEL_RESOURCE_ATTRIBUTES``, else the program's name: ``train`` for ``python train.py`` or a
            command ``train``, ``jobs.train`` for ``python -m jobs.train``; ``traced_threadpool`` where it has
            none, as in an interactive session. Without effect where no spans are exported.
        endpoint: base URL of an OTLP receiver, as ``OTEL_EXPORTER_OTLP_ENDPOINT`` has it:
            ``http://localhost:4317`` (gRPC) or ``http://localhost:4318`` (HTTP; ``/v1/traces`` is appended
            unless it is there). With ``https`` for TLS. ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`` or
            ``OTEL_EXPORTER_OTLP_PROTOCOL`` decides where the port does not tell.
        file: file to append spans to as OTLP/JSON, one line for each batch. Runs add up in it; delete it to
            start afresh.
        prometheus_port: TCP port, 0 for any free one, on which ``http://127.0.0.1:<port>/metrics`` serves
            ``prometheus_client``'s default registry, with exemplars for clients that accept OpenMetrics.

    Returns:
        A handle to flush and to close with, also as a context manager. It need not be kept.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument, or a variable that matters, has a value that cannot work.
        ImportError: spans were asked for and the extra is not installed.
        RuntimeError: a tracer provider is there already, from the application or from an earlier call.
        OSError: the port is in use or may not be used, or the file cannot be written.
    """
    _check_service_name(service_name)
    _check_port(prometheus_port)
    nothing_asked = endpoint is None and file is None and prometheus_port is None
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        file = target = None
    else:
        target = _otlp_target(endpoint, or_else=nothing_asked, variables=os.environ)

    with_spans = target is not None or file is not None
    if with_spans and (found := _existing_provider()) is not None:
        if endpoint is not None or file is not None or nothing_asked:
            raise RuntimeError(_refusal(found))
        with_spans = False

    with ExitStack() as undo:
        spans = _SpanExport(target, file, service_name, undo) if with_spans else None
        server = None
        if prometheus_port is not None:
            server = _MetricsServer(prometheus_port)
            undo.callback(server.close)
        result = TelemetrySetup(spans, server)
        if spans is not None:
            _set_provider(spans.provider)
        undo.pop_all()
    atexit.register(result._at_exit)
    return result


class TelemetrySetup:
    """What ``setup_telemetry`` has started, and how to flush and stop it.

    Closes at the end of a ``with`` block, on ``close()``, or at the end of the program. OpenTelemetry lets a
    process set its provider once, so what is closed cannot be set up anew: keep it open while there is work
    to trace.

    Attributes:
        tracer_provider: the SDK's provider that was set, for adding processors of your own; None where spans
            are not exported.
    """

    def __init__(self, spans: _SpanExport | None, server: _MetricsServer | None) -> None:
        self.tracer_provider: TracerProvider | None = spans.provider if spans is not None else None
        self._spans = spans
        self._server = server
        self._closed = False
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            own_child = weakref.WeakMethod(self._in_forked_child)

            def in_child() -> None:
                if (own := own_child()) is not None:
                    own()

            os.register_at_fork(after_in_child=in_child)

    @property
    def metrics_port(self) -> int | None:
        """The port metrics are served on; None where they are not, as in a forked child or once closed."""
        return self._server.port if self._server is not None else None

    @property
    def metrics_url(self) -> str | None:
        """The address to scrape; None where metrics are not served."""
        return f"http://{_METRICS_HOST}:{self._server.port}/metrics" if self._server is not None else None

    def flush(self, timeout_seconds: float = 10) -> bool:
        """Export every span that has ended so far, and wait until that is done.

        Args:
            timeout_seconds: how long to wait at most. Exporting goes on in the background after that.

        Returns:
            True when every span that has ended since the setup was accepted by the endpoint and written to
            the file. False when that took too long, or a span was lost: refused, unwritten, or dropped from a
            full queue. A loss makes this and every later call False.
        """
        deadline = time.monotonic() + timeout_seconds
        drained = flush_all(max(0.0, timeout_seconds))
        if self._spans is None:
            return drained
        return self._spans.flush(deadline) and drained

    def close(self) -> None:
        """Export what is left, shut the provider down, stop serving metrics. Calling it again does nothing.

        An endpoint that cannot be reached is given up on once an export has failed for good, which takes the
        exporter's timeout of 10 s; a slow one after 10 s and the export under way. Spans that have not been
        accepted by then are lost, which is logged.
        """
        with self._lock:
            try:
                self._finish_spans()
            finally:
                if self._server is not None:
                    self._server.close()
                    self._server = None
                atexit.unregister(self._at_exit)

    def __enter__(self) -> TelemetrySetup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        parts = [] if self._spans is None else self._spans.description()
        if self._server is not None:
            parts.append(f"metrics_url={self.metrics_url!r}")
        if self._closed:
            parts.append("closed")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _at_exit(self) -> None:
        # Metrics stay for as long as the process lives: a last scrape is welcome while spans are exported,
        # and stopping the server, whose thread is a daemon, would hold up every exit by its polling interval.
        with self._lock:
            self._finish_spans()

    def _finish_spans(self) -> None:
        if self._closed:
            return
        self._closed = True
        flush_all(_CLOSE_SECONDS)
        if self._spans is not None:
            self._spans.close()

    def _in_forked_child(self) -> None:
        self._lock = threading.RLock()
        if self._server is not None:
            self._server.abandon()
            self._server = None
        if self._spans is not None:
            self._spans.count_afresh()


class _SpanExport:
    """The tracer provider and what is behind it: from an ended span to the file and the endpoint."""

    def __init__(
        self,
        target: _OtlpTarget | None,
        file: str | os.PathLike[str] | None,
        service_name: str | None,
        undo: ExitStack,
    ) -> None:
        try:
            from opentelemetry.sdk.trace import TracerProvider

            from traced_threadpool.telemetry.otlp_file import OtlpFileSpanExporter
        except ImportError as error:
            raise _missing_extra(error) from error
        self._target = target
        self._file: str | None = None
        self._tallies: list[_Tally] = []
        self._flush_lock = threading.Lock()
        processors: list[SpanProcessor] = []
        # The file first: at the end it does not wait for an endpoint that does not answer.
        if file is not None:
            to_file = OtlpFileSpanExporter(file)
            self._file = to_file.path
            if to_file.created:
                undo.callback(_remove_if_empty, Path(to_file.path))
            tally = _Tally(to_file.path)
            processors.append(_tallied_processor(to_file, tally, _FILE_QUEUE, _FILE_DELAY_MILLIS))
            self._tallies.append(tally)
            undo.callback(processors[-1].shutdown)
        if target is not None:
            tally = _Tally(_without_credentials(target.url))
            processors.append(_tallied_processor(_otlp_exporter(target), tally, _ENDPOINT_QUEUE, None))
            self._tallies.append(tally)
            undo.callback(processors[-1].shutdown)
        resource = _resource(service_name)
        self._service_name = resource.attributes["service.name"]
        # The provider's own exit handler would not drain the adapters first; TelemetrySetup's does.
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for processor in processors:
            self.provider.add_span_processor(processor)

    def flush(self, deadline: float) -> bool:
        """Export what has ended by now; True once all of it was accepted, False at the deadline.

        Args:
            deadline: in seconds of ``time.monotonic()``.
        """
        ended = [tally.ended for tally in self._tallies]
        return self._force_flush(deadline) and all(
            tally.accepted >= count for tally, count in zip(self._tallies, ended, strict=True)
        )

    def _force_flush(self, deadline: float) -> bool:
        # The SDK's force_flush takes a timeout and ignores it: let somebody else do the waiting. One at a time,
        # or an endpoint that hangs would gather a thread for every call.
        if not self._flush_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False

        def flush() -> None:
            try:
                self.provider.force_flush()
            finally:
                self._flush_lock.release()

        flushing = threading.Thread(target=flush, name="telemetry-flush", daemon=True)
        try:
            flushing.start()
        except RuntimeError:  # in an exit handler, where some versions of Python start no threads
            flush()
            return True
        flushing.join(max(0.0, deadline - time.monotonic()))
        return not flushing.is_alive()

    def close(self) -> None:
        """Export what is left and shut down. Starts no thread, because it runs at the interpreter's exit."""
        for tally in self._tallies:
            tally.give_up_at = time.monotonic() + _CLOSE_SECONDS
        self.provider.shutdown()
        for tally in self._tallies:
            if (lost := tally.ended - tally.accepted) > 0:
                _logger.warning("%d of %d spans did not get to %s", lost, tally.ended, tally.destination)

    def count_afresh(self) -> None:
        """In a forked child, where the SDK has emptied its queues: those spans are the parent's to export."""
        self._flush_lock = threading.Lock()
        for tally in self._tallies:
            tally.lock = threading.Lock()
            tally.ended = tally.accepted = 0

    def description(self) -> list[str]:
        parts = [f"service_name={self._service_name!r}"]
        if self._target is not None:
            parts.append(f"endpoint={_without_credentials(self._target.url)!r}")
            parts.append(f"protocol={self._target.protocol!r}")
        if self._file is not None:
            parts.append(f"file={self._file!r}")
        return parts


class _Tally:
    """How many spans have ended for a destination, how many it has accepted, and when to stop trying."""

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.lock = threading.Lock()
        self.ended = 0
        self.accepted = 0
        self.give_up_at = math.inf  # in seconds of time.monotonic()


def _tallied_processor(
    exporter: SpanExporter, tally: _Tally, max_queue_size: int, delay_millis: int | None
) -> SpanProcessor:
    """Return a batch processor into `exporter` that keeps `tally`: the SDK's own tells nobody of a loss."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class TalliedExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            started = time.monotonic()
            if started > tally.give_up_at:
                return SpanExportResult.FAILURE
            result = exporter.export(spans)
            if result is SpanExportResult.SUCCESS:
                tally.accepted += len(spans)  # no lock: the processor exports one batch at a time
            elif tally.give_up_at < math.inf and time.monotonic() - started > _UNREACHABLE_SECONDS:
                tally.give_up_at = 0.0
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return exporter.force_flush(timeout_millis)

    class TalliedProcessor(BatchSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            super().on_end(span)
            if span.context and span.context.trace_flags.sampled:
                # Counted once it is in the queue: a flush then finds every span that it waits for.
                with tally.lock:
                    tally.ended += 1

    variables = os.environ
    try:
        return TalliedProcessor(
            TalliedExporter(),
            max_queue_size=None if _variable(variables, "OTEL_BSP_MAX_QUEUE_SIZE") else max_queue_size,
            schedule_delay_millis=None if _variable(variables, "OTEL_BSP_SCHEDULE_DELAY") else delay_millis,
        )
    except ValueError as error:
        exporter.shutdown()
        raise ValueError(f"an OTEL_BSP_* variable has a value that fails: {error}") from error


class _MetricsServer:
    """`prometheus_client`'s server and its thread, with an end to both."""

    def __init__(self, port: int) -> None:
        self._server: WSGIServer
        try:
            self._server, self._thread = prometheus_client.start_http_server(port, addr=_METRICS_HOST)
        except OSError as error:
            raise OSError(error.errno, _why_no_port(port, error)) from error
        self.port = self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def abandon(self) -> None:
        """In a forked child, which has no such thread: let go of the socket, or the port would stay taken."""
        self._server.socket.close()


@dataclass(frozen=True, slots=True)
class _OtlpTarget:
    url: str
    protocol: str
    insecure: bool | None  # None: as the exporter's own variables say


def _otlp_target(endpoint: object, *, or_else: bool, variables: Mapping[str, str]) -> _OtlpTarget | None:
    """Decide whether spans go to an OTLP endpoint, to which, and how. The rule opens this module.

    Args:
        endpoint: the argument of ``setup_telemetry``, None where it is not given.
        or_else: whether to export where neither the argument nor a variable asks for it.
        variables: the environment.
    """
    if endpoint is not None:
        protocol = _protocol(variables)
        parts = _checked_url("endpoint", endpoint)
        return _target(parts, protocol, insecure=parts.scheme == "http")

    found = _variable(variables, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if not _variables_ask(variables, or_else, an_endpoint=found is not None):
        return None
    protocol = _protocol(variables)
    if found is None:
        found = ("", "http://localhost:4317" if protocol == _GRPC else "http://localhost:4318")
    name, url = found
    if protocol == _GRPC and "://" not in url:
        return _OtlpTarget(url, _GRPC, insecure=None)  # the standard allows what gRPC does: host:port
    parts = _checked_url(name, url)
    return _target(parts, protocol, insecure=None, is_whole=name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def _variables_ask(variables: Mapping[str, str], or_else: bool, an_endpoint: bool) -> bool:
    names = {name.strip().lower() for name in variables.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    asked = not names.isdisjoint(_OTLP_EXPORTERS) if names else an_endpoint or or_else
    unknown = sorted(names - {*_OTLP_EXPORTERS, "none"})
    if unknown and (asked or or_else):
        raise ValueError(
            f"OTEL_TRACES_EXPORTER names {unknown[0]!r}; setup_telemetry() knows 'otlp' and 'none'. Unset "
            "it, or set up a tracer provider of your own, which FutureAdapter will use."
        )
    return asked


def _protocol(variables: Mapping[str, str]) -> str | None:
    """Return the protocol that a variable decides on, if one does."""
    found = _variable(variables, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if found is None:
        _, exporters = _variable(variables, "OTEL_TRACES_EXPORTER") or ("", "")
        implied = (_OTLP_EXPORTERS.get(name.strip().lower()) for name in exporters.split(","))
        return next((protocol for protocol in implied if protocol is not None), None)
    name, protocol = found
    if protocol.lower() not in (_GRPC, _HTTP):
        raise ValueError(f"{name}={protocol!r} cannot be exported with; expected {_GRPC!r} or {_HTTP!r}")
    return protocol.lower()


def _target(parts: SplitResult, protocol: str | None, *, insecure: bool | None, is_whole: bool = False) -> _OtlpTarget:
    if protocol is None:
        protocol = _GRPC if parts.port == 4317 else _HTTP
    if protocol == _HTTP and not is_whole and not parts.path.endswith("/v1/traces"):
        parts = parts._replace(path=parts.path.rstrip("/") + "/v1/traces")
    return _OtlpTarget(parts.geturl(), protocol, insecure)


def _otlp_exporter(target: _OtlpTarget) -> SpanExporter:
    try:
        if target.protocol == _GRPC:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

            return OverGrpc(endpoint=target.url, insecure=target.insecure)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(endpoint=target.url)
    except ImportError as error:
        raise _missing_extra(error) from error
    except ValueError as error:
        raise ValueError(f"an OTEL_EXPORTER_OTLP_* variable has a value that fails: {error}") from error


def _variable(variables: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """Return the first of the variables that is set, and its value; an empty one counts as not set."""
    return next(((name, value) for name in names if (value := variables.get(name, "").strip())), None)


def _checked_url(source: str, url: object) -> SplitResult:
    expected = "expected a base URL such as 'http://localhost:4318'"
    if not isinstance(url, str):
        raise TypeError(f"{source}={url!r} is of type {type(url).__name__}; {expected}")
    if "://" not in url:
        write = f"; write {'http://' + url.strip()!r}" if url.strip() else ""
        raise ValueError(f"{source}={url!r} has no scheme; {expected}{write}")
    try:
        parts = urlsplit(url)
        can_work = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:  # a port that is none, a bracket that is not closed
        raise ValueError(f"{source}={url!r} is not a URL ({error}); {expected}") from error
    if not can_work or any(character.isspace() for character in url):
        raise ValueError(f"{source}={url!r} is not an http:// or https:// URL with a host; {expected}")
    return parts


def _without_credentials(url: str) -> str:
    credentials, at, _ = urlsplit(url).netloc.rpartition("@")
    return url.replace(credentials + at, "***@", 1) if at else url


def _check_service_name(name: object) -> None:
    expected = "expected what traces are filed under, such as 'training'"
    if name is not None and not isinstance(name, str):
        raise TypeError(f"service_name={name!r} is of type {type(name).__name__}; {expected}")
    if name is not None and not name.strip():
        raise ValueError(f"service_name={name!r} is empty; {expected}, or leave it out")


def _check_port(port: object) -> None:
    expected = "expected an integer from 0 (any free port) to 65535"
    if port is None:
        return
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"prometheus_port={port!r} is of type {type(port).__name__}; {expected}")
    if not 0 <= port <= 65535:
        raise ValueError(f"prometheus_port={port!r} is out of range; {expected}")


def _why_no_port(port: int, error: OSError) -> str:
    address = f"{_METRICS_HOST}:{port}"
    if error.errno == errno.EADDRINUSE:
        found = f"{address} is in use, by another program or an earlier call"
    else:
        found = f"cannot listen on {address} ({error.strerror})"
    return f"prometheus_port={port}: {found}; give another port, or 0 for any free one"


def _resource(service_name: str | None) -> Resource:
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({} if service_name is None else {"service.name": service_name})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):  # the SDK's last resort
        resource = resource.merge(Resource({"service.name": _program_name()}))
    return resource


def _program_name() -> str:
    """Return what a person would call the running program."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name != "__main__":  # python -m package, python -m package.module
        return str(spec.name).removesuffix(".__main__")
    name = Path(sys.argv[0]).stem if getattr(sys, "argv", None) else ""
    return name if name and not name.startswith(("-", "__")) else "traced_threadpool"


def _existing_provider() -> trace.TracerProvider | None:
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


def _set_provider(provider: TracerProvider) -> None:
    trace.set_tracer_provider(provider)
    if (found := trace.get_tracer_provider()) is not provider:  # another thread was quicker
        raise RuntimeError(_refusal(found))
    _set_here.add(provider)


def _refusal(found: trace.TracerProvider) -> str:
    kind = f"{type(found).__module__}.{type(found).__qualname__}"
    origin = " by an earlier setup_telemetry()" if found in _set_here else ""
    return (
        f"a tracer provider is set already{origin}: {kind}. OpenTelemetry allows one for each process, and "
        "FutureAdapter uses it as it is. To send spans elsewhere as well, add a processor to it: "
        "trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=...))). "
        "To keep an adapter's spans apart, give it a provider: FutureAdapter(tracer_provider=...). "
        "To serve metrics only, give setup_telemetry() nothing but prometheus_port."
    )


def _missing_extra(error: ImportError) -> ImportError:
    return ImportError(
        f'exporting spans needs packages that are not there ({error}): pip install "traced_threadpool[otlp]"',
        name=error.name,
    )


def _remove_if_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        path.unlink()
