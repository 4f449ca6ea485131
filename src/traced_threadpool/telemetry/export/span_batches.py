"""Ended spans into batches for an exporter, on a thread of their own, with an account of what is lost.

The SDK's `BatchSpanProcessor` drops what is too much for its queue without a word, and with an exporter that hangs its
`force_flush(200)` took two minutes and said True (1.45, 52 spans, of which 12 arrived), its `shutdown` 30 s. Here:

- a span is accepted by the exporter, or counted as lost, and nothing else;
- the queue is bounded: what comes while it is full is lost, at once, and holds up nobody;
- `close` gives up on an exporter that has not accepted anything lately after `silent_seconds`, and on one that goes
  on accepting after ten.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanProcessor

from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import Condition, ObserverLock
from traced_threadpool.telemetry.lost_spans import lose_spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from traced_threadpool.telemetry.export.delivery import Delivery

_logger = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 10.0
STOP_SECONDS: Final = 0.5
_BATCH_SIZE: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many spans may wait, how many are exported at once, and how long a batch is waited for."""

    max_waiting: int
    delay_seconds: float
    batch_size: int

    @classmethod
    def from_variables(cls, variables: Mapping[str, str], *, max_waiting: int, delay_seconds: float) -> Limits:
        """The limits that the standard's `OTEL_BSP_*` variables set, else these.

        Raises:
            ValueError: A variable has a value that cannot work.
        """
        size = _positive(variables, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or _BATCH_SIZE
        waiting = _positive(variables, "OTEL_BSP_MAX_QUEUE_SIZE") or max_waiting
        delay_millis = _positive(variables, "OTEL_BSP_SCHEDULE_DELAY")
        return cls(
            max_waiting=waiting,
            delay_seconds=delay_seconds if delay_millis is None else delay_millis / 1e3,
            batch_size=min(size, waiting),
        )


def _positive(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(
            f"an OTEL_BSP_* variable has a value that fails: {name}={text!r}; expected a whole number above 0"
        )
    return int(text)


class SpanBatches(SpanProcessor):
    """Hands ended spans to an exporter in batches.

    Args:
        delivery: Where to. One batch at a time.
        stage: What a failed export is counted as, in `losses`.
        destination: What a message calls the exporter's end.
        limits: See there.
        silent_seconds: How long `close` waits for an exporter whose last export has failed, or that has had none.
    """

    def __init__(
        self, delivery: Delivery, *, stage: str, destination: str, limits: Limits, silent_seconds: float
    ) -> None:
        self._delivery = delivery
        self._stage = stage
        self._destination = destination
        self._limits = limits
        self._silent_seconds = silent_seconds
        self._closed = False
        self._reset()
        forks.register(self._reset)

    def _reset(self) -> None:
        """Also in a forked child, which has no such thread; the spans that wait are the parent's to export."""
        self._changed = Condition(ObserverLock())
        self._waiting: deque[ReadableSpan] = deque()
        self._thread: threading.Thread | None = None
        self._exporting = 0  # spans in the batch under way
        self._queued = self._exported = 0  # spans put into the queue, and of these done with
        self._ended = self._lost = 0
        self._hurry_to = 0  # a flush waits for that many to be exported
        self._answers = False  # whether the last export was accepted
        self._told = False  # that the queue is full
        self._told_of = 0  # spans that a message has said are lost

    # Called by the SDK, on the threads that end spans

    def on_end(self, span: ReadableSpan) -> None:
        """Queues a sampled span."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        new_thread = None
        with self._changed:
            self._ended += 1
            waiting = len(self._waiting)
            if self._closed or waiting >= self._limits.max_waiting:
                self._drop()
                return
            self._waiting.append(span)
            self._queued += 1
            if waiting == 0 or waiting + 1 == self._limits.batch_size:
                self._changed.notify_all()
            if self._thread is None:
                new_thread = self._thread = threading.Thread(target=self._work, name="telemetry-export", daemon=True)
        if new_thread is not None:
            try:
                new_thread.start()
            except RuntimeError:  # the interpreter is at its exit: `close` exports
                self._thread = None

    def _drop(self) -> None:
        if self._closed:
            self._lose(self._stage, 1)
            return
        self._lose("queue", 1)
        if not self._told:
            self._told = True
            _logger.warning(
                "%d spans wait for %s: further ones are dropped, and counted in hamilton_telemetry_spans_lost_total",
                len(self._waiting),
                self._destination,
            )

    def _lose(self, stage: str, count: int) -> None:
        self._lost += count
        lose_spans(stage, count)

    # On the thread

    def _work(self) -> None:
        while batch := self._next_batch():
            self._export(batch)

    def _next_batch(self) -> list[ReadableSpan]:
        """Empty once there will be no more."""
        limits = self._limits
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(
                lambda: self._closed or self._exported < self._hurry_to or len(self._waiting) >= limits.batch_size,
                limits.delay_seconds,
            )
            return self._take()

    def _take(self) -> list[ReadableSpan]:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._limits.batch_size))]
        self._exporting = len(batch)
        return batch

    def _export(self, batch: Sequence[ReadableSpan]) -> None:
        lost, why = self._delivery.deliver(batch, count=len(batch))
        with self._changed:
            self._answers = lost < len(batch)
            if self._exporting and lost:  # else it was given up meanwhile, and counted
                self._lose(self._stage, lost)
                if why and not self._told_of:
                    self._told_of = lost
                    _logger.warning(
                        "%d spans did not get to %s: %s; further ones are counted in "
                        "hamilton_telemetry_spans_lost_total",
                        lost,
                        self._destination,
                        why,
                    )
            self._exporting = 0
            self._exported += len(batch)
            self._changed.notify_all()

    # From outside

    def flush(self, deadline: float) -> bool:
        """Exports what has ended by now.

        Args:
            deadline: In seconds of `time.monotonic()`; exporting goes on after that.

        Returns:
            Whether that was done in time and no span has been lost so far.
        """
        with self._changed:
            goal = self._queued
            self._hurry_to = max(self._hurry_to, goal)
            self._changed.notify_all()
            in_time = self._changed.wait_for(
                lambda: self._exported >= goal or self._closed, max(0.0, deadline - time.monotonic())
            )
            return in_time and self._exported >= goal and self._lost == 0

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """The same for the SDK's provider."""
        return self.flush(time.monotonic() + timeout_millis / 1e3)

    def close(self) -> None:
        """Exports what is left, for as long as that makes sense. Starts no thread: it may be the interpreter's exit."""
        started = time.monotonic()
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            if self._thread is not None and self._thread.is_alive():
                while self._waiting or self._exporting:
                    left = started + (CLOSE_SECONDS if self._answers else self._silent_seconds) - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                batch = []
            else:
                batch = self._take()
        while batch:
            self._export(batch)
            with self._changed:
                batch = self._take() if self._answers else []
        with self._changed:
            left_over = len(self._waiting) + self._exporting
            if left_over:
                self._lose(self._stage, left_over)
            self._waiting.clear()
            self._exporting = 0
            self._changed.notify_all()
        self._shut_exporter_down()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        if self._lost > self._told_of:
            _logger.warning("%d of %d spans did not get to %s", self._lost, self._ended, self._destination)

    def shutdown(self) -> None:
        """The same for the SDK's provider."""
        self.close()

    def _shut_exporter_down(self) -> None:
        """It breaks off an export under way, where it can, and is told not to wait for it."""
        shutdown: Any = self._delivery.exporter.shutdown
        if "timeout_millis" in inspect.signature(shutdown).parameters:
            shutdown(timeout_millis=STOP_SECONDS * 1e3)
        else:
            shutdown()
