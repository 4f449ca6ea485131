"""A target and a file into the SDK's providers, with what is behind them, and with an end to it.

`SpanExport` is a tracer provider: from an ended span to the file and the endpoint. `MetricExport` is a meter provider
that sends its figures every minute (`OTEL_METRIC_EXPORT_INTERVAL`).
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from traced_threadpool.telemetry.export.otlp_target import OtlpTarget, metric_exporter, missing_extra, span_exporter

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from traced_threadpool.telemetry.export.span_batches import SpanBatches

_logger = logging.getLogger(__name__)

# A graph of quick nodes ends its spans in bursts, of which the SDK's queue of 2,048 would drop most. A span
# is some 4 kB, so an endpoint that does not answer costs 130 MB at most. A file does not hang like that.
_ENDPOINT_QUEUE: Final = 32_768
_FILE_QUEUE: Final = 131_072
# A kill -9 takes what waits for export. To a file, exporting often is cheap; an endpoint has the standard's 5 s.
_ENDPOINT_DELAY_SECONDS: Final = 5.0
_FILE_DELAY_SECONDS: Final = 0.25
# At the end of a program, an endpoint that has accepted nothing so far may be one that is not there.
_SILENT_ENDPOINT_SECONDS: Final = 2.0
_SILENT_FILE_SECONDS: Final = 10.0
_METRICS_CLOSE_SECONDS: Final = 3.0


class SpanExport:
    """The tracer provider and what is behind it."""

    def __init__(
        self,
        target: OtlpTarget | None,
        file: str | os.PathLike[str] | None,
        service_name: str | None,
        undo: ExitStack,
    ) -> None:
        try:
            from opentelemetry.sdk.trace import TracerProvider

            from traced_threadpool.telemetry.export.delivery import Delivery
            from traced_threadpool.telemetry.export.otlp_file import OtlpFileSpanExporter
            from traced_threadpool.telemetry.export.span_batches import Limits, SpanBatches
        except ImportError as error:
            raise missing_extra(error) from error
        self._target = target
        self._file: str | None = None
        self._batches: list[SpanBatches] = []
        # The file first: at the end it does not wait for an endpoint that does not answer.
        if file is not None:
            to_file = OtlpFileSpanExporter(file)
            undo.callback(to_file.shutdown)
            self._file = to_file.path
            if to_file.created:
                undo.callback(_remove_if_empty, Path(to_file.path))
            limits = Limits.from_variables(os.environ, max_waiting=_FILE_QUEUE, delay_seconds=_FILE_DELAY_SECONDS)
            self._batches.append(
                SpanBatches(
                    Delivery(to_file),
                    stage="file",
                    destination=to_file.path,
                    limits=limits,
                    silent_seconds=_SILENT_FILE_SECONDS,
                )
            )
        if target is not None:
            to_endpoint, answers = span_exporter(target, os.environ)
            undo.callback(to_endpoint.shutdown)
            limits = Limits.from_variables(
                os.environ, max_waiting=_ENDPOINT_QUEUE, delay_seconds=_ENDPOINT_DELAY_SECONDS
            )
            self._batches.append(
                SpanBatches(
                    Delivery(to_endpoint, answers),
                    stage="endpoint",
                    destination=target.url,
                    limits=limits,
                    silent_seconds=_SILENT_ENDPOINT_SECONDS,
                )
            )
        resource = _resource(service_name)
        self._service_name = resource.attributes["service.name"]
        # The provider's own exit handler would not drain the adapters first; TelemetrySetup's does.
        self.provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for batches in self._batches:
            self.provider.add_span_processor(batches)

    def flush(self, deadline: float) -> bool:
        """Export what has ended by now; True once all of it was accepted, False at the deadline.

        Args:
            deadline: in seconds of ``time.monotonic()``.
        """
        flushed = [batches.flush(deadline) for batches in self._batches]  # all of them
        return all(flushed)

    def close(self) -> None:
        """Export what is left and shut down."""
        self.provider.shutdown()

    def description(self) -> list[str]:
        parts = [f"service_name={self._service_name!r}"]
        if self._target is not None:
            parts.append(f"endpoint={self._target.url!r}")
            parts.append(f"protocol={self._target.protocol!r}")
        if self._file is not None:
            parts.append(f"file={self._file!r}")
        return parts


class MetricExport:
    """The meter provider and what is behind it."""

    def __init__(self, target: OtlpTarget, service_name: str | None) -> None:
        try:
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader

            from traced_threadpool.telemetry.export.delivery import Delivery
        except ImportError as error:
            raise missing_extra(error) from error
        self._target = target
        self._accepted = True  # whether the last export was
        own_process = os.getpid()
        exporter, answers = metric_exporter(target, os.environ)
        delivery = Delivery(exporter, answers)

        def telling(*args: Any, **kwargs: Any) -> MetricExportResult:
            if os.getpid() != own_process:  # a forked child's would look like the parent's
                return MetricExportResult.SUCCESS
            was_accepted, self._accepted = self._accepted, False
            lost, why = delivery.deliver(*args, count=sys.maxsize, **kwargs)
            if lost and was_accepted:
                _logger.warning("metrics did not get to %s: %s; the next failure in a row is not told", target.url, why)
            self._accepted = not lost
            return MetricExportResult.FAILURE if lost else MetricExportResult.SUCCESS

        exporter.export = telling  # type: ignore[method-assign]  # the reader tells nobody of a failure
        self.provider: MeterProvider = MeterProvider(
            [PeriodicExportingMetricReader(exporter)], resource=_resource(service_name), shutdown_on_exit=False
        )

    def flush(self, deadline: float) -> bool:
        """Export the figures as they are now; whether they were accepted."""
        millis = max(1.0, (deadline - time.monotonic()) * 1e3)
        return bool(self.provider.force_flush(millis)) and self._accepted

    def close(self) -> None:
        """Export the last figures and shut down."""
        self.provider.shutdown(_METRICS_CLOSE_SECONDS * 1e3)

    def description(self) -> list[str]:
        return [f"metrics_endpoint={self._target.url!r}"]


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


def _remove_if_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        path.unlink()
