"""Ids of spans that others hear of before these are started.

A node that is sent to a cluster ahead takes its trace context along: the spans that its function makes there are
children of a span that is started here only when the node's inputs have ended. So its id is drawn before, and given to
the span when that is started.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry import trace


class AnnouncedIds:
    """An id generator of the SDK's that can be told the next span's id. All else is the one's in whose place it is."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._of_thread = threading.local()

    def generate_span_id(self) -> int:
        """The id that was announced, on this thread; else a new one."""
        announced: int | None = self._of_thread.__dict__.pop("announced", None)
        span_id: int = self._generator.generate_span_id() if announced is None else announced
        return span_id

    @contextmanager
    def next_is(self, span_id: int) -> Iterator[None]:
        """The next span that this thread starts meanwhile has this id."""
        self._of_thread.announced = span_id
        try:
            yield
        finally:
            self._of_thread.__dict__.pop("announced", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def announced_ids(tracer: trace.Tracer) -> AnnouncedIds | None:
    """Those of a tracer of the SDK's; None of another tracer, whose spans' ids nobody can choose."""
    generator = getattr(tracer, "id_generator", None)
    if generator is None or not hasattr(generator, "generate_span_id"):
        return None
    if not isinstance(generator, AnnouncedIds):
        generator = tracer.id_generator = AnnouncedIds(generator)  # type: ignore[attr-defined]  # the SDK's has it
    return generator
