"""Points into Prometheus metrics: one collector serves all adapters of a registry, when it is scraped."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric

from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.histogram import Histogram
from traced_threadpool.telemetry.metrics.once_each import OnceEach
from traced_threadpool.telemetry.metrics.store import DEFAULT_BUCKETS, Buckets, MetricsStore

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_FAMILIES: Final[dict[names.Kind, type[Any]]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Collector:
    """What `prometheus_client` asks for the metrics of a store: all of them, or those `wanted`."""

    def __init__(self, store: MetricsStore, wanted: Collection[names.Metric] = names.METRICS) -> None:
        self.store = store
        self._wanted = wanted

    def show_in(self, registry: CollectorRegistry) -> None:
        """Registers this collector, also anew: test suites empty a registry between tests.

        Raises:
            ValueError: The registry has other metrics of these names.
        """
        if self in getattr(registry, "_collector_to_names", ()):
            return
        registry.register(self)
        own, to = weakref.ref(self), weakref.ref(registry)

        def show_again() -> None:
            collector, registry = own(), to()
            if collector is not None and registry is not None:
                collector.show_in(registry)

        self.store.show = show_again

    def describe(self) -> Iterable[Metric]:
        """The names, so that the registry refuses a second collector of the same."""
        return [_family(metric) for metric in self._wanted]

    def collect(self) -> Iterator[Metric]:
        for metric, points in self.store.read(self._wanted).items():
            family = _family(metric)
            for labels, value in points:
                if isinstance(value, Histogram):
                    _add_histogram(family, labels, value)
                else:
                    family.add_metric(labels, value)
            yield family


def _family(metric: names.Metric) -> Any:
    return _FAMILIES[metric.kind](metric.prometheus_base, metric.description, labels=metric.labels)


def _add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    bounds = [*(str(bound_ns / 1e9) for bound_ns in histogram.bounds_ns), "+Inf"]
    buckets: list[tuple[str, float, Exemplar | None]] = []
    cumulative = 0
    for bound, count, exemplar in zip(
        bounds, histogram.counts, histogram.exemplars or [None] * len(bounds), strict=True
    ):
        cumulative += count
        buckets.append((bound, cumulative, None if exemplar is None else _exemplar(*exemplar)))
    family.add_metric(labels, buckets, histogram.sum_ns / 1e9)  # type: ignore[arg-type]  # the stub is stricter than its text


def _exemplar(span_context: Any, value_ns: int, timestamp: float) -> Exemplar:
    labels = {"trace_id": f"{span_context.trace_id:032x}", "span_id": f"{span_context.span_id:016x}"}
    return Exemplar(labels, value_ns / 1e9, timestamp)


_collectors: Final[OnceEach[CollectorRegistry, Collector]] = OnceEach()


def store_of(registry: CollectorRegistry, buckets: Buckets) -> MetricsStore:
    """The store of a registry, made at the first call and shown by a collector that is registered then.

    Args:
        registry: A Prometheus registry.
        buckets: Bounds that were asked for, by metric name; others keep their default, or what the registry has.

    Raises:
        BoundsConflict: The registry has the metrics already, with other bounds.
        Exception: Whatever the registry raises; a `ValueError` where it has metrics of these names already.
    """

    def new() -> Collector:
        collector = Collector(MetricsStore({**DEFAULT_BUCKETS, **buckets}))
        collector.show_in(registry)
        return collector

    collector, is_new = _collectors.of(registry, new)
    if not is_new:
        collector.store.check_bounds(buckets, "registry")
        collector.show_in(registry)
    return collector.store


def known_store(registry: CollectorRegistry) -> MetricsStore | None:
    """The store of a registry in which an adapter has metrics."""
    collector = _collectors.known(registry)
    return None if collector is None else collector.store
