"""Points into OpenTelemetry metrics: those of Prometheus, pushed by a meter provider of the application's.

Gauges and counters are observable instruments, read from a ledger when the provider collects. Histograms have no such
form in OpenTelemetry's API, so each observation is recorded. That costs some microseconds, and it is done, as all of
this counting, on a thread of its own: a node pays for the hand-over alone. A sampled span is current meanwhile, so
that the SDK can take it as an exemplar.

Needs `opentelemetry-api` alone.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, NoOpMeter, Observation

from traced_threadpool._version import __version__
from traced_threadpool.model.observers import ErrorLog, Observer
from traced_threadpool.model.records import NodeRecord, RunRecord
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.background import Background, call
from traced_threadpool.telemetry.metrics.store import (
    DEFAULT_BUCKETS,
    Buckets,
    Counting,
    Labels,
    Ledger,
    span_context_of,
)

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_SHUT_DOWN: Final = "the meter provider has been shut down and exports no metrics; give one that has not"

_logger = logging.getLogger("traced_threadpool")

FLUSH_SECONDS: Final = 1.0
"""How long `execute` waits for the run's figures to be recorded, once its result is there."""


class Instruments:
    """The inventory as the instruments of one meter provider."""

    def __init__(self, meter_provider: MeterProvider, buckets: Buckets) -> None:
        self.ledger = Ledger({**DEFAULT_BUCKETS, **buckets})
        self._provider = weakref.ref(meter_provider)
        self._histograms: dict[names.Metric, Histogram] = {}
        meter = _meter(meter_provider)
        for metric in names.METRICS:
            if metric.kind == "histogram":
                self._histograms[metric] = _histogram(meter, metric, self.ledger.buckets[metric.prometheus])
                continue
            create = meter.create_observable_gauge if metric.kind == "gauge" else meter.create_observable_counter
            create(metric.otel, [_observe(self.ledger, metric)], metric.unit, metric.description)

    def check_open(self) -> None:
        """Raises RuntimeError where the provider has been shut down since."""
        if getattr(self._provider(), "_shutdown", False):
            raise RuntimeError(_SHUT_DOWN)

    def record(self, metric: names.Metric, labels: Labels, value_ns: int) -> None:
        self._histograms[metric].record(value_ns / 1e9, dict(zip(metric.labels, labels, strict=True)))


def _meter(meter_provider: MeterProvider) -> Meter:
    """Raises RuntimeError where the provider has been shut down, and drops what it is given."""
    meter = meter_provider.get_meter(names.SCOPE, __version__)
    if isinstance(meter, NoOpMeter) and getattr(meter_provider, "_shutdown", False):
        raise RuntimeError(_SHUT_DOWN)
    return meter


def _observe(ledger: Ledger, metric: names.Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value, dict(zip(metric.labels, labels, strict=True)))
            for labels, value in ledger.read((metric,))[metric]
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


_instruments: weakref.WeakKeyDictionary[MeterProvider, Instruments] = weakref.WeakKeyDictionary()
_instruments_lock = threading.Lock()


def instruments_of(meter_provider: MeterProvider, buckets: Buckets) -> Instruments:
    """The instruments of a meter provider, made at the first call.

    Args:
        meter_provider: The application's.
        buckets: Bounds that were asked for, by metric name; others keep their default, or what the provider has.

    Raises:
        BoundsConflict: The provider has the instruments already, with other bounds.
        Exception: Whatever the provider raises.
    """
    with _instruments_lock:
        known = _instruments.get(meter_provider)
        if known is None:
            known = _instruments[meter_provider] = Instruments(meter_provider, buckets)
            return known
    known.ledger.check_bounds(buckets, "meter provider")
    known.check_open()
    return known


class OtelMetrics(Observer):
    """The observer that counts for a meter provider, on a thread of its own.

    Args:
        instruments: Those of the provider.
        pool_name: Attribute `pool`.
        run_name: Attribute `run`.
        max_node_labels: How many nodes get a value of their own in the attribute `node`.
        errors: Where failures are counted.
    """

    component = "otel_metrics"

    def __init__(
        self, instruments: Instruments, *, pool_name: str, run_name: str, max_node_labels: int, errors: ErrorLog
    ) -> None:
        self.ledger = instruments.ledger
        self._instruments = instruments
        self._pool_name = pool_name
        self._run_name = run_name
        self._counting = Counting(
            instruments.ledger, pool_name=pool_name, run_name=run_name, max_node_labels=max_node_labels
        )
        self._background = Background(call, errors, self.component)

    def flush(self, timeout_seconds: float = FLUSH_SECONDS) -> bool:
        """Waits until all nodes and runs that have ended are counted."""
        return self._background.flush(timeout_seconds)

    def run_started(self, run: RunRecord) -> None:
        self._instruments.check_open()

    # What is let go of meanwhile is looked at here: the run's span by tracing, the node's thread by the pool.
    def run_ended(self, run: RunRecord) -> None:
        self._background.put((self._count_run, run, span_context_of(run)))

    def node_ended(self, node: NodeRecord) -> None:
        self._background.put((self._count_node, node, node.thread is not None))

    def _count_node(self, node: NodeRecord, ran: bool) -> None:
        labels = (self._pool_name, *self._counting.count_node(node, ran=ran).labels)
        if not ran:
            return
        with _Current(node.span_context):
            self._instruments.record(names.NODE_DURATION, labels, node.duration_ns)
            self._instruments.record(names.QUEUE_WAIT, (self._pool_name,), node.queue_ns)

    def _count_run(self, run: RunRecord, span_context: SpanContext | None) -> None:
        self._counting.count_run(run, span_context)
        labels = (self._pool_name, self._run_name, run.outcome or "success")
        with _Current(span_context):
            self._instruments.record(names.RUN_DURATION, labels, run.duration_ns)


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
