"""Turns one call into working telemetry, for programs that have no OpenTelemetry set up.

Where spans go is decided by the arguments first, and by OpenTelemetry's standard ``OTEL_*`` variables second:

- to an OTLP endpoint, when ``endpoint`` is given, or a variable names one, or ``OTEL_TRACES_EXPORTER`` names
  ``otlp``, or nothing at all was asked for (then to one on this machine, which is the standard's default);
- to a file, when ``file`` is given.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING

from opentelemetry import trace

from traced_threadpool.model import forks
from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.telemetry.background import flush_all
from traced_threadpool.telemetry.export.otlp import MetricExport, SpanExport
from traced_threadpool.telemetry.export.otlp_target import metrics_target, otlp_target
from traced_threadpool.telemetry.metrics.http_server import MetricsServer

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

_ADAPTERS_SECONDS = 10.0

_set_here: weakref.WeakSet[trace.TracerProvider] = weakref.WeakSet()


@explains_keywords("setup_telemetry")
def setup_telemetry(
    *,
    service_name: str | None = None,
    endpoint: str | None = None,
    file: str | os.PathLike[str] | None = None,
    prometheus_port: int | None = None,
    metrics_endpoint: str | None = None,
) -> TelemetrySetup:
    """Send spans to an OTLP endpoint or a file, serve or push metrics, and see all through to the program's end.

    For programs that have no OpenTelemetry set up: call it once, early. It sets the process's tracer
    provider, which ``FutureAdapter`` and every instrumented library then use. A program that has a tracer
    provider needs ``prometheus_port`` or ``metrics_endpoint`` at most.

    It is all or nothing: when it raises, no provider is set, no port is open and no file has been created.
    Spans and pushed metrics need an extra, ``pip install "traced_threadpool[otlp]"``. ``prometheus_port`` alone
    does not, and leaves providers alone.

    The standard variables are honoured, and arguments win over them: ``OTEL_SDK_DISABLED`` (nothing is exported,
    whatever the arguments say; metrics are served all the same), ``OTEL_SERVICE_NAME``,
    ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_*``, the span limits,
    ``OTEL_TRACES_EXPORTER`` (``otlp`` or ``none``), ``OTEL_EXPORTER_OTLP_*`` and ``OTEL_METRIC_EXPORT_INTERVAL``.
    Where a provider is there already, and only variables ask for spans next to a ``prometheus_port`` or a
    ``metrics_endpoint``, that provider is taken to honour them.

    At the end of the program everything is exported. Spans for an endpoint that has not accepted any lately are given
    up after 2 s; for one that has, after 10 s. What is lost is counted, by
    ``hamilton_telemetry_spans_lost_total``, and logged. A signal that kills takes with it what was not exported yet:
    up to 0.25 s of spans for a file, 5 s for an endpoint, or ``OTEL_BSP_SCHEDULE_DELAY`` milliseconds for both. A
    forked child exports its own spans, and neither serves nor pushes metrics.

    Args:
        service_name: what traces are filed under. Default: ``OTEL_SERVICE_NAME``, else ``service.name`` among
            ``OTEL_RESOURCE_ATTRIBUTES``, else the program's name: ``train`` for ``python train.py`` or a
            command ``train``, ``jobs.train`` for ``python -m jobs.train``; ``traced_threadpool`` where it has
            none, as in an interactive session. Without effect where nothing is exported.
        endpoint: base URL of an OTLP receiver of spans, as ``OTEL_EXPORTER_OTLP_ENDPOINT`` has it:
            ``http://localhost:4317`` (gRPC) or ``http://localhost:4318`` (HTTP; ``/v1/traces`` is appended
            unless it is there). With ``https`` for TLS. ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`` or
            ``OTEL_EXPORTER_OTLP_PROTOCOL`` decides where the port does not tell.
        file: file to append spans to as OTLP/JSON, one line for each batch. Runs add up in it; delete it to
            start afresh.
        prometheus_port: TCP port, 0 for any free one, on which ``http://127.0.0.1:<port>/metrics`` serves
            ``prometheus_client``'s default registry, with exemplars for clients that accept OpenMetrics.
        metrics_endpoint: base URL of an OTLP receiver of metrics (``/v1/metrics`` is appended to that of HTTP), to
            which the handle's ``meter_provider`` sends every minute and at the end. Adapters push to it once they are
            given it: ``FutureAdapter(meter_provider=setup.meter_provider)``. It is not made the process's own.

    Returns:
        A handle to flush and to close with, also as a context manager. It need not be kept.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument, or a variable that matters, has a value that cannot work.
        ImportError: an export was asked for and the extra is not installed.
        RuntimeError: a tracer provider is there already, from the application or from an earlier call.
        OSError: the port is in use or may not be used, or the file cannot be written.
    """
    _check_service_name(service_name)
    _check_port(prometheus_port)
    to_metrics = None if metrics_endpoint is None else metrics_target(metrics_endpoint, variables=os.environ)
    nothing_asked = endpoint is None and file is None and prometheus_port is None and to_metrics is None
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        file = target = to_metrics = None
    else:
        target = otlp_target(endpoint, or_else=nothing_asked, variables=os.environ)

    with_spans = target is not None or file is not None
    if with_spans and (found := _existing_provider()) is not None:
        if endpoint is not None or file is not None or nothing_asked:
            raise RuntimeError(_refusal(found))
        with_spans = False

    with ExitStack() as undo:
        spans = SpanExport(target, file, service_name, undo) if with_spans else None
        metrics = None
        if to_metrics is not None:
            metrics = MetricExport(to_metrics, service_name)
            undo.callback(metrics.close)
        server = None
        if prometheus_port is not None:
            server = MetricsServer(prometheus_port)
            undo.callback(server.close)
        result = TelemetrySetup(spans, metrics, server)
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
        meter_provider: the SDK's provider for ``FutureAdapter(meter_provider=)``; None where metrics are not
            exported.
    """

    def __init__(self, spans: SpanExport | None, metrics: MetricExport | None, server: MetricsServer | None) -> None:
        self.tracer_provider: TracerProvider | None = spans.provider if spans is not None else None
        self.meter_provider: MeterProvider | None = metrics.provider if metrics is not None else None
        self._spans = spans
        self._metrics = metrics
        self._server = server
        self._closed = False
        self._lock = threading.RLock()
        forks.register(self._in_forked_child)

    @property
    def metrics_port(self) -> int | None:
        """The port metrics are served on; None where they are not, as in a forked child or once closed."""
        return self._server.port if self._server is not None else None

    @property
    def metrics_url(self) -> str | None:
        """The address to scrape; None where metrics are not served."""
        return self._server.url if self._server is not None else None

    def flush(self, timeout_seconds: float = 10) -> bool:
        """Export every span that has ended so far, and the metrics, and wait until that is done.

        Args:
            timeout_seconds: how long to wait at most. Exporting spans goes on in the background after that; metrics
                take 2 s at most.

        Returns:
            True when every span that has ended since the setup was accepted by the endpoint and written to
            the file, and the metrics were accepted. False when that took too long, or a span was lost: refused,
            unwritten, or dropped from a full queue. A lost span makes this and every later call False.
        """
        deadline = time.monotonic() + timeout_seconds
        done = flush_all(max(0.0, timeout_seconds))
        if self._spans is not None:
            done = self._spans.flush(deadline) and done
        if self._metrics is not None:
            done = self._metrics.flush(deadline) and done
        return done

    def close(self) -> None:
        """Export what is left, shut the providers down, stop serving metrics. Calling it again does nothing.

        Spans for an endpoint that has not accepted any lately are given up after 2 s, for a slow one after 10 s, and
        metrics after 2 s. Spans that have not been accepted by then are lost, which is counted and logged.
        """
        with self._lock:
            try:
                self._finish()
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
        if self._metrics is not None:
            parts += self._metrics.description()
        if self._server is not None:
            parts.append(f"metrics_url={self.metrics_url!r}")
        if self._closed:
            parts.append("closed")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _at_exit(self) -> None:
        # Metrics stay for as long as the process lives: a last scrape is welcome while spans are exported,
        # and stopping the server, whose thread is a daemon, would hold up every exit by its polling interval.
        with self._lock:
            self._finish()

    def _finish(self) -> None:
        if self._closed:
            return
        self._closed = True
        flush_all(_ADAPTERS_SECONDS)
        try:
            if self._spans is not None:
                self._spans.close()
        finally:
            if self._metrics is not None:  # last: they tell of spans lost
                self._metrics.close()

    def _in_forked_child(self) -> None:
        self._lock = threading.RLock()
        if self._server is not None:
            self._server.abandon()
            self._server = None


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
        "To serve or push metrics only, give setup_telemetry() nothing but prometheus_port or metrics_endpoint."
    )
