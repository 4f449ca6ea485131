"""Points into OpenTelemetry metrics: those of Prometheus, pushed by a meter provider of the application's.

Gauges and counters are observable instruments, read from a metrics store when the provider collects. Histograms have
no such form in OpenTelemetry's API, so each observation is recorded, which costs some microseconds, on a thread of its
own. A sampled span is current meanwhile, so that the SDK can take it as an exemplar.

Needs `opentelemetry-api` alone.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, NoOpMeter, Observation

from traced_threadpool._version import __version__
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.observer import PushedMetrics
from traced_threadpool.telemetry.metrics.once_each import OnceEach
from traced_threadpool.telemetry.metrics.store import DEFAULT_BUCKETS, Buckets, Labels, MetricsStore

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_SHUT_DOWN: Final = "the meter provider has been shut down and exports no metrics; give one that has not"

_logger = logging.getLogger("traced_threadpool")


class Instruments:
    """The inventory as the instruments of one meter provider."""

    def __init__(self, meter_provider: MeterProvider, buckets: Buckets) -> None:
        self.store = MetricsStore({**DEFAULT_BUCKETS, **buckets})
        self.store.on_observation = self.record
        self.store.show = self.check_open
        self._provider = weakref.ref(meter_provider)
        self._histograms: dict[names.Metric, Histogram] = {}
        meter = _meter(meter_provider)
        for metric in names.METRICS:
            if metric.kind == "histogram":
                self._histograms[metric] = _histogram(meter, metric, self.store.buckets[metric.prometheus])
                continue
            create = meter.create_observable_gauge if metric.kind == "gauge" else meter.create_observable_counter
            create(metric.otel, [_observe(self.store, metric)], metric.unit, metric.description)

    def check_open(self) -> None:
        """Raises RuntimeError where the provider has been shut down since."""
        if getattr(self._provider(), "_shutdown", False):
            raise RuntimeError(_SHUT_DOWN)

    def record(self, metric: names.Metric, labels: Labels, value_ns: int, span_context: SpanContext | None) -> None:
        with _Current(span_context):
            self._histograms[metric].record(value_ns / 1e9, dict(zip(metric.labels, labels, strict=True)))


def _meter(meter_provider: MeterProvider) -> Meter:
    """Raises RuntimeError where the provider has been shut down, and drops what it is given."""
    meter = meter_provider.get_meter(names.SCOPE, __version__)
    if isinstance(meter, NoOpMeter) and getattr(meter_provider, "_shutdown", False):
        raise RuntimeError(_SHUT_DOWN)
    return meter


def _observe(store: MetricsStore, metric: names.Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value, dict(zip(metric.labels, labels, strict=True)))
            for labels, value in store.read((metric,))[metric]
        ]

    return observe


def _histogram(meter: Meter, metric: names.Metric, bounds: tuple[float, ...]) -> Histogram:
    try:
        return meter.create_histogram(
            metric.otel, metric.unit, metric.description, explicit_bucket_boundaries_advisory=bounds
        )
    except TypeError:  # OpenTelemetry before 1.30
        _logger.warning(
            "this version of OpenTelemetry cannot be told the bounds of %s: give the meter provider a View with "
            "ExplicitBucketHistogramAggregation(%r)",
            metric.otel,
            bounds,
        )
        return meter.create_histogram(metric.otel, metric.unit, metric.description)


_instruments: Final[OnceEach[MeterProvider, Instruments]] = OnceEach()


def instruments_of(meter_provider: MeterProvider, buckets: Buckets) -> Instruments:
    """The instruments of a meter provider, made at the first call.

    Args:
        meter_provider: The application's.
        buckets: Bounds that were asked for, by metric name; others keep their default, or what the provider has.

    Raises:
        BoundsConflict: The provider has the instruments already, with other bounds.
        Exception: Whatever the provider raises.
    """
    known, is_new = _instruments.of(meter_provider, lambda: Instruments(meter_provider, buckets))
    if not is_new:
        known.store.check_bounds(buckets, "meter provider")
        known.check_open()
    return known


class OtelMetrics(PushedMetrics):
    """The observer that counts for a meter provider."""

    component = "otel_metrics"


class _Current:
    """Makes a sampled span current, for the exemplar. Not by `record(context=)`, which OpenTelemetry has since 1.28."""

    __slots__ = ("_span_context", "_token")

    def __init__(self, span_context: SpanContext | None) -> None:
        self._span_context = span_context
        self._token: Any = None

    def __enter__(self) -> None:
        if self._span_context is not None and self._span_context.trace_flags.sampled:
            span = trace.NonRecordingSpan(self._span_context)
            self._token = otel_context.attach(trace.set_span_in_context(span))

    def __exit__(self, *exc_info: object) -> None:
        if self._token is not None:
            otel_context.detach(self._token)
