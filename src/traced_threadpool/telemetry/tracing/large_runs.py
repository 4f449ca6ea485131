"""A run of very many nodes into spans of the notable ones alone: a trace that a backend takes and a person can read.

A node of such a run has no span until somebody needs one:

- code in the node asks for the current span, to make a span of its own under it, to log with its id, to write on it;
- the node raises;
- the run is over, and the node is on its critical path, or among the slowest, or in an even sample of the rest.

A span that is made late has the times of its node, given explicitly, and is the same as one made in time: nothing can
have referred to it before. So no span is started and thrown away, none lacks its parent, and a node without a span
costs a few microseconds. There is a quota for each reason; beyond it, the run's span is the current one in its nodes.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import NonRecordingSpan, Span, SpanContext

from traced_threadpool.model.records import KeptNode, KeptNodes
from traced_threadpool.telemetry.tracing.path_cover import PathCover, path_cover

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes, AttributeValue

DEFAULT_LARGE_RUN: Final = 5_000
"""A span of ours is about 1 kB on its way, and a trace of 5 MB is the most that Tempo takes unless it is told to."""

ASKED_SHARE: Final = 4
FAILED_SHARE: Final = 4
PATH_SHARE: Final = 4
SLOWEST_SHARE: Final = 8
SAMPLE_SHARE: Final = 8
"""Each quota is this part of `large_run`: together they are as many as `large_run` or fewer."""
QUEUE_SHARE: Final = 8
"""Likewise of the spans of waits on the path, and of those that steps of it share, which come on top."""


class RunInstead(SpanContext):
    """The context of a run's span, where that of a node would be if it had a span. Nothing links to it."""

    @classmethod
    def of(cls, context: SpanContext) -> RunInstead:
        return cls(context.trace_id, context.span_id, context.is_remote, context.trace_flags, context.trace_state)


class Quota:
    """So many, and no more.

    >>> quota = Quota(2)
    >>> quota.take(), quota.take(), quota.take(), quota.taken()
    (True, True, False, 2)
    """

    __slots__ = ("_asked", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._asked = itertools.count()  # its `next` is atomic

    def take(self) -> bool:
        return next(self._asked) < self._limit

    def taken(self) -> int:
        """How many were. To be asked once, when it is all over."""
        return min(self._limit, next(self._asked))


class LargeRun:
    """Whether a run is large, and how many spans it still may have for which reason."""

    __slots__ = ("asked", "definitions", "every", "failed", "instead", "limit", "on")

    def __init__(self, context: SpanContext, *, limit: int, planned: int) -> None:
        self.limit = limit
        self.on = planned > limit  # else once it turns out so
        self.every = Quota(limit)
        self.asked = Quota(limit // ASKED_SHARE)
        self.failed = Quota(limit // FAILED_SHARE)
        self.instead = RunInstead.of(context)
        self.definitions: dict[str, Any] = {}

    def takes_every_node(self) -> bool:
        """Whether the next node simply has a span, as in any run."""
        if not self.on and not self.every.take():
            self.on = True
        return not self.on

    def spans(self) -> int:
        """How many were made while the run went on. To be asked once."""
        return self.every.taken() + self.asked.taken() + self.failed.taken()

    def cover(self, kept: KeptNodes) -> PathCover:
        """What of its critical path gets a span now that the run is over."""
        return path_cover(kept, _lacks_span, most_nodes=self.limit // PATH_SHARE, most_waits=self.limit // QUEUE_SHARE)

    def chosen(self, kept: KeptNodes, cover: PathCover) -> list[KeptNode]:
        """The nodes that get a span now, in the order of their starts: of the path, the slowest, a sample.

        Nodes that share a span have no other: a viewer that came to it would leave the path at its start.
        """
        shared = {id(node) for steps in cover.joined for node in steps.nodes}
        have_none = [node for node in kept.nodes if _lacks_span(node) and id(node) not in shared]
        chosen = {id(node): node for node in cover.nodes}
        for node in _longest(have_none, self.limit // SLOWEST_SHARE + len(chosen)):
            if len(chosen) >= self.limit // PATH_SHARE + self.limit // SLOWEST_SHARE:
                break
            chosen.setdefault(id(node), node)
        rest = [node for node in have_none if id(node) not in chosen]
        wanted = self.limit // SAMPLE_SHARE
        if wanted:
            chosen.update((id(node), node) for node in rest[:: max(1, -(-len(rest) // wanted))])
        return sorted(chosen.values(), key=lambda node: (node.started_ns, node.submitted_ns))


def _lacks_span(node: KeptNode) -> bool:
    """Whether it has none, and may get one: of one that failed nobody knows any more what it raised."""
    return node.outcome == "success" and type(node.span_context) is RunInstead


def _longest(nodes: Sequence[KeptNode], count: int) -> list[KeptNode]:
    return heapq.nlargest(count, nodes, key=lambda node: node.ended_ns - node.started_ns)


class SpanOnDemand(Span):
    """The current span in a node that has none until somebody asks for it.

    The race: several threads of a node may ask at once, and its end may come meanwhile. `setdefault` lets one of them
    say what the span is, a real one or, from the node's end on, its run's instead. Of two that make a real one at the
    same moment the loser's is never ended, and so never exported.
    """

    def __init__(self, make: Callable[[], Span], large: LargeRun) -> None:
        self._make = make
        self._large = large
        self._maker: int | None = None

    def settle(self, *, failed: bool) -> Span | None:
        """The node has ended: its span, if it has one or, having failed, gets one now."""
        if failed and "_span" not in self.__dict__ and self._large.failed.take():
            self.__dict__.setdefault("_span", self._make())
        span: Span = self.__dict__.setdefault("_span", NonRecordingSpan(self._large.instead))
        return None if type(span) is NonRecordingSpan and type(span.get_span_context()) is RunInstead else span

    def _asked(self) -> Span:
        known: Span | None = self.__dict__.get("_span")
        if known is not None:
            return known
        if self._maker == threading.get_ident():  # a span processor's `on_start` looks at the current span
            return NonRecordingSpan(self._large.instead)
        span: Span = NonRecordingSpan(self._large.instead)
        if self._large.asked.take():
            self._maker = threading.get_ident()
            try:
                span = self._make()
            finally:
                self._maker = None
        made: Span = self.__dict__.setdefault("_span", span)
        return made

    def __getattr__(self, name: str) -> Any:
        """What the SDK's spans have besides, such as `name` and `attributes`."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._asked(), name)

    def get_span_context(self) -> SpanContext:
        return self._asked().get_span_context()

    def is_recording(self) -> bool:
        """Whether it would, which takes no span to tell."""
        known: Span | None = self.__dict__.get("_span")
        return True if known is None else known.is_recording()

    def end(self, end_time: int | None = None) -> None:
        self._asked().end(end_time)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._asked().set_attributes(dict(attributes))

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._asked().set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        self._asked().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self._asked().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._asked().update_name(name)

    def set_status(self, status: Any, description: str | None = None) -> None:
        self._asked().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._asked().record_exception(exception, attributes, timestamp, escaped)
