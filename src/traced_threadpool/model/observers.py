"""One event into a call on every observer. An observer that fails is counted and logged once; the work goes on.

`run_started` and `run_ended` come on whichever thread saw it happen. `node_started` and `node_ended` of a node
that runs come on its worker, inside the node's own `contextvars` context, so that what an observer attaches
there is seen by the node's function. A node that never ran gets `node_ended` alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import ObserverLock, release_owned
from traced_threadpool.model.records import NodeRecord, RunRecord

logger = logging.getLogger("traced_threadpool")


class Observer:
    """What telemetry can be told. Calls may come from many threads at once, and must not block.

    `component` is its name in `hamilton_telemetry_errors_total`. What a subclass does not override costs nothing.
    """

    component = "observer"

    def run_started(self, run: RunRecord) -> None:
        """The run's first node is about to be submitted."""

    def run_ended(self, run: RunRecord) -> None:
        """The caller has left the run and its last node has ended."""

    def node_announced(self, node: NodeRecord) -> None:
        """The node is sent elsewhere before it starts.

        Comes in a copy of the context that it will start in: what is attached there goes along.
        """

    def node_started(self, node: NodeRecord) -> None:
        """The node's function is about to be called."""

    def node_ended(self, node: NodeRecord) -> None:
        """The node's function has ended, or never will start; `outcome` tells which."""

    def node_stalled(self, node: NodeRecord, stack: Sequence[str]) -> None:
        """The node runs for much longer than usual. Comes once, on a thread of its own, while the node runs."""


class ErrorLog:
    """Counts failures inside telemetry by component, and logs the first of each."""

    def __init__(self) -> None:
        self._lock = ObserverLock()
        self._counts: Counter[str] = Counter()
        self._listeners: list[Callable[[str], None]] = []
        forks.register(self._reset_after_fork)

    def listen(self, listener: Callable[[str], None]) -> None:
        """`listener(component)` is called at each failure; its own failures are dropped."""
        self._listeners.append(listener)

    def record(self, component: str, error: BaseException) -> None:
        with self._lock:
            self._counts[component] += 1
            first = self._counts[component] == 1
        if first:
            logger.warning(
                "telemetry failed in %s (%s); nodes are not affected, and further failures are only counted in "
                "hamilton_telemetry_errors_total",
                component,
                type(error).__name__,
                exc_info=error,
            )
        for listener in self._listeners:
            try:
                listener(component)
            except Exception:
                logger.debug("counting a telemetry error failed", exc_info=True)

    def caught(self, component: str, error: BaseException) -> None:
        """As `record`, of an exception that went through the component: it may have left one of its locks held."""
        release_owned(ObserverLock)
        self.record(component, error)

    @property
    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def _reset_after_fork(self) -> None:
        self._lock = ObserverLock()
        self._counts = forks.kept_in_child(self._counts, Counter())


class Observers:
    """All observers as one."""

    __slots__ = ("_calls_ended", "_calls_started", "_observers", "errors")

    def __init__(self, observers: Sequence[Observer], errors: ErrorLog) -> None:
        self.errors = errors
        self._observers = tuple(observers)
        self._calls_started = [
            (observer.component, observer.node_started)
            for observer in observers
            if type(observer).node_started is not Observer.node_started
        ]
        # The last to start is the first to end, so that each sees what it saw.
        self._calls_ended = [
            (observer.component, observer.node_ended)
            for observer in reversed(observers)
            if type(observer).node_ended is not Observer.node_ended
        ]

    @property
    def any(self) -> bool:
        """Whether anybody looks at nodes at all."""
        return bool(self._calls_started or self._calls_ended)

    def run_started(self, run: RunRecord) -> None:
        self._tell_all(((observer.component, observer.run_started) for observer in self._observers), run)

    def run_ended(self, run: RunRecord) -> None:
        self._tell_all(((observer.component, observer.run_ended) for observer in reversed(self._observers)), run)

    def node_announced(self, node: NodeRecord) -> None:
        for observer in self._observers:
            try:
                observer.node_announced(node)
            except BaseException as error:
                self.errors.caught(observer.component, error)

    # A worker must survive whatever an observer raises, also SystemExit from a span processor.
    def node_started(self, node: NodeRecord) -> None:
        for component, call in self._calls_started:
            try:
                call(node)
            except BaseException as error:
                self.errors.caught(component, error)

    def node_ended(self, node: NodeRecord) -> None:
        for component, call in self._calls_ended:
            try:
                call(node)
            except BaseException as error:
                self.errors.caught(component, error)

    def node_stalled(self, node: NodeRecord, stack: Sequence[str]) -> None:
        for observer in self._observers:
            try:
                observer.node_stalled(node, stack)
            except Exception as error:
                self.errors.caught(observer.component, error)

    def _tell_all(self, calls: Iterable[tuple[str, Callable[[RunRecord], None]]], run: RunRecord) -> None:
        interrupted: KeyboardInterrupt | None = None
        for component, call in calls:
            try:
                call(run)
            except KeyboardInterrupt as error:  # of the caller's own thread; the others are told all the same
                release_owned(ObserverLock)
                interrupted = error
            except BaseException as error:
                self.errors.caught(component, error)
        if interrupted is not None:
            raise interrupted
