"""Spans into nothing, by the way that real ones go: a batch processor and an exporter, which drops them.

The exporter counts, so that a measurement can wait until the last span of a run has gone, and none is lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from traced_threadpool.telemetry import names

QUEUE_SIZE = 1 << 17  # more than any run has: with the SDK's 2,048, some peers would export less than others
DRAIN_SECONDS = 120.0
_WAITS = {names.QUEUE_NODE, names.GAP_NODE, names.PATH_NODE_COUNT}


class SpanSink:
    """A tracer provider of the SDK's, and how many spans have come out at its far end."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = _DroppingExporter()
        self._due = 0
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(self._exporter, max_queue_size=QUEUE_SIZE))

    def expect(self, count: int) -> None:
        self._due += count

    def expect_no_more(self) -> None:
        """What has been exported by now is what was due: for a run that made as many spans as it saw fit."""
        self.provider.force_flush()
        self._due = self._exporter.count

    def drain(self) -> None:
        """Waits until as many spans as expected have been exported.

        Raises:
            RuntimeError: They did not come, or more did.
        """
        deadline = time.monotonic() + DRAIN_SECONDS
        self.provider.force_flush()
        while self._exporter.count < self._due and time.monotonic() < deadline:
            time.sleep(0.001)  # they are still on their way to the processor
            self.provider.force_flush()
        if self._exporter.count != self._due:
            raise RuntimeError(f"{self._due} spans should have been exported by now, and {self._exporter.count} were")

    def close(self) -> None:
        self.provider.shutdown()


class _DroppingExporter(SpanExporter):
    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        # How many spans of waits there are depends on how long nodes waited.
        self.count += sum(not _WAITS & (span.attributes or {}).keys() for span in spans)
        return SpanExportResult.SUCCESS
