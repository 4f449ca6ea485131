"""What programs did, and what follows from it for a query: the truth that a live Prometheus is compared with.

Spans into the counters that they should have made (`counters_of`), a program's own page of metrics into samples
(`read_page`), and samples over time into rates, by the rule of Prometheus' documentation (`Window.rate`).

>>> series = Series(times=(10.0, 11.0, 12.0), first=0.0, last=4.0)
>>> series.increase(start=9.5, end=12.5)  # 4 in the 2 s between the samples; at zero before, at the same pace after
5.0
"""

from __future__ import annotations

import re
import urllib.request
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from tests.dashboards.live_servers import Labels, Prometheus, Vector
from traced_threadpool.telemetry import names

LONGEST = "30d"
"""The longest time that any query looks back."""

Samples = dict[str, Vector]
"""By the name of the sample: `hamilton_node_duration_seconds_bucket` is one."""


def read_page(url: str) -> Samples:
    """What a program shows at its `/metrics`."""
    with urllib.request.urlopen(url, timeout=60) as reply:
        page = reply.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith("hamilton_"):
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanFacts:
    """A span of the adapter's, as its receiver saw it."""

    name: str
    trace_id: str
    span_id: str
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, object]
    links: tuple[tuple[str, str], ...]
    """Of each: the upstream span's id, the parameter."""

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.started_ns

    @property
    def is_run(self) -> bool:
        return names.NODE_NAME not in self.attributes

    @property
    def pool(self) -> str:
        return str(self.attributes[names.POOL_NAME])

    @property
    def outcome(self) -> str:
        return str(self.attributes[names.RUN_OUTCOME if self.is_run else names.NODE_OUTCOME])

    @property
    def ran(self) -> bool:
        """A node that has run, and did not only end."""
        return names.NODE_QUEUE in self.attributes and self.outcome in ("success", "error")


def span_facts(spans: Iterable[Span]) -> list[SpanFacts]:
    """Those that are the adapter's."""
    found = []
    for span in spans:
        attributes = {one.key: _plain(one.value) for one in span.attributes}
        if names.POOL_NAME in attributes:
            found.append(
                SpanFacts(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    started_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    attributes=attributes,
                    links=tuple(
                        (link.span_id.hex(), next((_text(a.value) for a in link.attributes), "")) for link in span.links
                    ),
                )
            )
    return found


def _plain(value: object) -> object:
    kind = value.WhichOneof("value")  # type: ignore[attr-defined]
    return getattr(value, kind) if kind else None


def _text(value: object) -> str:
    return str(_plain(value))


def counters_of(spans: Iterable[SpanFacts]) -> Samples:
    """The counters and histograms that these spans tell of, exactly."""
    counted: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
    sums_ns: dict[str, dict[Labels, int]] = defaultdict(lambda: defaultdict(int))

    def observe(metric: names.Metric, nanoseconds: int, **labels: str) -> None:
        bounds_ns = [round(bound * 1e9) for bound in metric.buckets]
        first = bisect_left(bounds_ns, nanoseconds)
        for bound in [*(str(float(bound)) for bound in metric.buckets), "+Inf"][first:]:
            counted[f"{metric.prometheus}_bucket"][frozenset({**labels, "le": bound}.items())] += 1
        counted[f"{metric.prometheus}_count"][frozenset(labels.items())] += 1
        sums_ns[f"{metric.prometheus}_sum"][frozenset(labels.items())] += nanoseconds

    for span in spans:
        if span.is_run:
            observe(names.RUN_DURATION, span.duration_ns, pool=span.pool, run=span.name, outcome=span.outcome)
            continue
        labels = {"pool": span.pool, "node": span.name, "outcome": span.outcome}
        counted[names.NODES.prometheus][frozenset(labels.items())] += 1
        if span.ran:
            observe(names.NODE_DURATION, span.duration_ns, **labels)
            queued = span.attributes[names.NODE_QUEUE]
            assert isinstance(queued, float)
            observe(names.QUEUE_WAIT, round(queued * 1e9), pool=span.pool, backend="threads")
            node = frozenset({"pool": span.pool, "node": span.name}.items())
            sums_ns[names.NODE_QUEUE_TIME.prometheus][node] += round(queued * 1e9)
            cpu = span.attributes[names.NODE_CPU]
            assert isinstance(cpu, float)
            state = frozenset({"pool": span.pool, "node": span.name, "state": "cpu"}.items())
            sums_ns[names.NODE_TIME.prometheus][state] += round(cpu * 1e9)
    found: Samples = {name: dict(series) for name, series in counted.items()}
    for name, series in sums_ns.items():
        found[name] = {one: nanoseconds / 1e9 for one, nanoseconds in series.items()}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A counter that was sampled at `times`, and rose from `first` to `last` meanwhile."""

    times: tuple[float, ...]
    first: float
    last: float

    def increase(self, start: float, end: float) -> float | None:
        """As Prometheus tells it: what was seen, carried on to the ends of the window; None from one sample alone.

        It is carried on to an end that is about as near as samples are to each other, else by half of that, and never
        to before the counter would have been zero.
        """
        if len(self.times) < 2:
            return None
        seen = self.last - self.first
        covered = self.times[-1] - self.times[0]
        between = covered / (len(self.times) - 1)
        before, after = self.times[0] - start, end - self.times[-1]
        if seen > 0 and self.first >= 0:
            before = min(before, covered * self.first / seen)
        reach = sum(gap if gap < between * 1.1 else between / 2 for gap in (before, after))
        return seen * (covered + reach) / covered


@dataclass(slots=True)
class Window:
    """The truth as of `at`: `last` is what the programs have counted, by the job that scraped them.

    Prometheus is asked for no value but the first that it has of a counter: what happened before is not in a rate.
    """

    prometheus: Prometheus
    at: float
    last: Mapping[str, Samples]
    unseen: int = 0
    """How many of the newest samples of each counter were not yet there: a scrape takes a while."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Regular expressions for labels: a series that has such a label with another value is not there."""
    _values: dict[str, Vector] = field(init=False, default_factory=dict)
    _samples: dict[str, dict[Labels, list[tuple[float, float]]]] = field(init=False, default_factory=dict)
    _series: dict[tuple[str, float], dict[Labels, Series]] = field(init=False, default_factory=dict)

    def value(self, name: str) -> Vector:
        """Every series of this name, with the labels that a scrape adds."""
        return {labels: value for labels, value in self._all(name).items() if self._is_chosen(labels)}

    def _all(self, name: str) -> Vector:
        known = self._values.get(name)
        if known is None:
            known = self._values[name] = {
                # A label without a value is none, for Prometheus.
                frozenset(one for one in labels if one[1]) | self._target(job): value
                for job, samples in self.last.items()
                for labels, value in samples.get(name, {}).items()
            }
        return known

    def narrowed(self, chosen: Mapping[str, str]) -> Window:
        """The same, of those series alone."""
        narrowed = copy(self)  # what Prometheus was asked is known to both
        narrowed.chosen = chosen
        return narrowed

    def missing_a_scrape(self) -> Window:
        """The same for who asks while a scrape goes on, of which nothing can be seen yet."""
        earlier = copy(self)
        earlier.unseen, earlier._series = 1, {}
        return earlier

    def rate(self, name: str, seconds: float, **where: str | Callable[[str], bool]) -> Vector:
        return {labels: increase / seconds for labels, increase in self.increase(name, seconds, **where).items()}

    def increase(self, name: str, seconds: float, **where: str | Callable[[str], bool]) -> Vector:
        found = {}
        for labels, series in self._counters(name, seconds).items():
            if self._is_chosen(labels) and matches(labels, **where):
                increase = series.increase(self.at - seconds, self.at)
                if increase is not None:
                    found[labels] = increase
        return found

    def _counters(self, name: str, seconds: float) -> dict[Labels, Series]:
        known = self._series.get((name, seconds))
        if known is None:
            known = self._series[name, seconds] = {}
            if name not in self._samples:  # once for all windows
                self._samples[name] = self.prometheus.samples(f"{name}[{LONGEST}]", self.at)
            last = self._all(name)
            for labels, all_samples in self._samples[name].items():
                samples = [sample for sample in all_samples if sample[0] >= self.at - seconds]
                if samples:
                    times = tuple(time for time, _ in samples[: len(samples) - self.unseen])
                    known[labels] = Series(times=times, first=samples[0][1], last=last[labels])
        return known

    def _is_chosen(self, labels: Labels) -> bool:
        if not self.chosen:
            return True
        found = dict(labels)
        return all(name not in found or re.fullmatch(wanted, found[name]) for name, wanted in self.chosen.items())

    def _target(self, job: str) -> Labels:
        return frozenset({("job", job), ("instance", self.prometheus.instances[job])})


def matches(labels: Labels, **where: str | Callable[[str], bool]) -> bool:
    """Whether each label is what it should be: this value, or one that the function is true of."""
    found = dict(labels)
    return all(
        wanted(found.get(name, "")) if callable(wanted) else found.get(name, "") == wanted
        for name, wanted in where.items()
    )


def total(vector: Vector, *by: str) -> Vector:
    """`sum by (...)`."""
    sums: dict[Labels, float] = defaultdict(float)
    for labels, value in vector.items():
        sums[frozenset(one for one in labels if one[0] in by)] += value
    return dict(sums)


def quotient(above: Vector, below: Vector) -> Vector:
    """Where both have the same labels; nothing where nothing happened, as no number comes of it."""
    return {labels: value / below[labels] for labels, value in above.items() if below.get(labels)}


Bounds = dict[Labels, tuple[float, float]]
"""Between which the values of a result must be."""


def quantile(share: float, buckets: Vector, *by: str) -> Bounds:
    """Between which bounds of the histogram a quantile lies: it cannot be known better.

    Where exactly the share is below a bound, rounding decides whether it is the next bucket with anything in it.

    >>> counts = {"1": 2, "2": 2, "4": 4, "+Inf": 4}
    >>> quantile(0.5, {frozenset({("le", bound)}): count for bound, count in counts.items()})
    {frozenset(): (0.0, 2.0)}
    """
    found: Bounds = {}
    for group, series in _grouped(total(buckets, *by, "le"), "le").items():
        in_order = sorted((float(bound), count) for bound, count in series.items())
        if in_order[-1][1] <= 0:
            continue
        wanted = share * in_order[-1][1]
        index = next(i for i, (_, count) in enumerate(in_order) if count >= wanted * (1 - 1e-9))
        low = in_order[index - 1][0] if index else 0.0
        # Above the last bound, Prometheus gives that one.
        high = in_order[index][0] if index < len(in_order) - 1 else low
        beyond = next((i for i, (_, count) in enumerate(in_order) if count > wanted * (1 + 1e-9)), 0)
        if beyond > index:
            high = in_order[beyond - 1][0]
        found[group] = (low, high)
    return found


def _grouped(vector: Vector, label: str) -> dict[Labels, dict[str, float]]:
    found: dict[Labels, dict[str, float]] = defaultdict(dict)
    for labels, value in vector.items():
        rest = frozenset(one for one in labels if one[0] != label)
        found[rest][dict(labels)[label]] = value
    return found
