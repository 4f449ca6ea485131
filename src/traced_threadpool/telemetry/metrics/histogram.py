"""Observations into bucket counts and a sum: what a scrape shows of a histogram, kept as plain numbers.

All in nanoseconds, so that sums are exact.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

Exemplar = tuple[Any, int, float]
"""A sampled span's context, the value observed in nanoseconds, and the Unix time in seconds."""


class Histogram:
    """The observations of one label set.

    >>> histogram = Histogram((100_000_000, 1_000_000_000))
    >>> for nanoseconds in (50_000_000, 100_000_000, 300_000_000, 7_000_000_000):
    ...     histogram.observe(nanoseconds, None)
    >>> histogram.counts, histogram.sum_ns
    ([2, 1, 1], 7450000000)
    """

    __slots__ = ("bounds_ns", "counts", "exemplars", "sum_ns")

    def __init__(self, bounds_ns: Sequence[int]) -> None:
        self.bounds_ns = bounds_ns
        self.counts = [0] * (len(bounds_ns) + 1)
        self.sum_ns = 0
        self.exemplars: list[Exemplar | None] | None = None

    def observe(self, value_ns: int, span_context: Any) -> None:
        """`span_context`: that of a span, whose trace becomes the bucket's exemplar if it is sampled."""
        bucket = bisect_left(self.bounds_ns, value_ns)
        self.counts[bucket] += 1
        self.sum_ns += value_ns
        if span_context is not None and span_context.trace_flags.sampled:
            if self.exemplars is None:
                self.exemplars = [None] * len(self.counts)
            self.exemplars[bucket] = (span_context, value_ns, time.time())

    def copy(self) -> Histogram:
        copied = Histogram(self.bounds_ns)
        copied.counts = list(self.counts)
        copied.sum_ns = self.sum_ns
        copied.exemplars = None if self.exemplars is None else list(self.exemplars)
        return copied
