"""Running nodes into those that are stalled: told once each, while they still run.

The rule: a node is stalled once it has run for `stall_after` seconds; without that, for five times its learned 95th
percentile and at least 30 s. Of fewer than 20 executions the percentile counts as three times the median at least. A
node that has never been seen before, and has no `stall_after`, is never stalled: nobody knows how long it takes.

>>> from traced_threadpool.model.usual_duration import UsualDuration
>>> usual = UsualDuration(p50_seconds=1.0, p95_seconds=20.0, count=30)
>>> limit_seconds(None, usual), limit_seconds(5.0, usual), limit_seconds(None, None)
(100.0, 5.0, None)
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from traced_threadpool.engine.work import Work
from traced_threadpool.live.kernel_file import read_kernel_file
from traced_threadpool.live.node_now import NodeNow, NodesNow
from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import Event, ObserverLock, release_owned
from traced_threadpool.model.observers import ErrorLog, Observer
from traced_threadpool.model.records import RunRecord
from traced_threadpool.model.usual_duration import UsualDuration
from traced_threadpool.waits.reasons import in_subinterpreter

logger = logging.getLogger("traced_threadpool")

TIMES_P95: Final = 5
LEAST_SECONDS: Final = 30.0
MOST_INTERVAL_SECONDS: Final = 1.0
LEAST_INTERVAL_SECONDS: Final = 0.02
MANY: Final = 20
FEW_SPREAD: Final = 3.0
GIL_HELD_SECONDS: Final = 0.03
REMEMBERED: Final = 8


def limit_seconds(
    stall_after: float | None, usual: UsualDuration | None, *, least_seconds: float = LEAST_SECONDS
) -> float | None:
    """After how long a node counts as stalled; None for never."""
    if stall_after is not None:
        return stall_after
    if usual is None:
        return None
    p95 = usual.p95_seconds if usual.count >= MANY else max(usual.p95_seconds, FEW_SPREAD * usual.p50_seconds)
    return max(least_seconds, TIMES_P95 * p95)


class RunningNodes(Protocol):
    """Gives the moment, of the clock that nodes' starts are told by, and the nodes that run, each with its thread."""

    def __call__(self) -> tuple[int, Mapping[Work, threading.Thread | None]]: ...


class StallWatch(Observer):
    """Looks at the running nodes of one pool now and then, for as long as it has runs in progress.

    Args:
        running: Gives them.
        usual: How long a node of that name usually takes.
        knows: Whether that is known of any: else no node has a limit, unless there is a `stall_after`.
        stall_after: Seconds, or None for the rule above.
        nodes: Looks at running nodes.
        told: Is told of each stalled node, with its stack.
        errors: Where failures are counted.
    """

    component = "stalls"

    def __init__(
        self,
        *,
        running: RunningNodes,
        usual: Callable[[str], UsualDuration | None],
        knows: Callable[[], bool],
        stall_after: float | None,
        nodes: NodesNow,
        told: Callable[[Work, Sequence[str]], None],
        errors: ErrorLog,
    ) -> None:
        self._running = running
        self._usual = usual
        self._knows = knows
        self._stall_after = stall_after
        self._nodes = nodes
        self._told = told
        self._errors = errors
        self.least_seconds = LEAST_SECONDS
        self.interval_seconds = (
            MOST_INTERVAL_SECONDS
            if stall_after is None
            else min(MOST_INTERVAL_SECONDS, max(LEAST_INTERVAL_SECONDS, stall_after / 8))
        )
        self._forget()
        forks.register(self._forget)

    def _forget(self) -> None:
        self._runs: set[int] = set()
        self._stalled: dict[Work, None] = {}  # those that still run

    @property
    def stalled(self) -> int:
        """How many nodes that run now are stalled."""
        return sum(not work.ended_ns for work in self._stalled.copy())

    def is_stalled(self, work: Work) -> bool:
        return work in self._stalled

    def run_started(self, run: RunRecord) -> None:
        self._runs.add(id(run))
        if self._stall_after is not None or self._knows():
            _watcher.watch(self)

    def run_ended(self, run: RunRecord) -> None:
        self._runs.discard(id(run))
        if not self._runs:
            self._stalled.clear()

    @property
    def has_runs(self) -> bool:
        return bool(self._runs)

    def look(self, gil_held_seconds: float = 0.0) -> None:
        """Tells of the nodes that have stalled since.

        Args:
            gil_held_seconds: For how long the caller had to wait for the GIL lately, at most.
        """
        try:
            for work in [each for each in self._stalled if each.ended_ns]:
                self._stalled.pop(work, None)
            now_ns, running = self._running()
            late = [
                (work, (now_ns - work.started_ns) / 1e9)
                for work in running
                if work.started_ns and not work.ended_ns and work not in self._stalled
            ]
            late = [(work, seconds) for work, seconds in late if self._is_late(work, seconds)]
            if not late:
                return
            held = gil_held_seconds if gil_held_seconds > GIL_HELD_SECONDS else 0.0
            doing = self._nodes.look(running, stacks=True, gil_held_seconds=held)
            for work, seconds in late:
                if not work.ended_ns:  # else it ended while we looked: the stack may be another node's
                    self._tell(work, seconds, doing[work])
        except Exception as error:
            self._errors.caught(self.component, error)

    def _is_late(self, work: Work, elapsed_seconds: float) -> bool:
        limit = limit_seconds(self._stall_after, self._usual(work.name), least_seconds=self.least_seconds)
        return limit is not None and elapsed_seconds >= limit

    def _tell(self, work: Work, elapsed_seconds: float, doing: NodeNow) -> None:
        self._stalled[work] = None
        usual = self._usual(work.name)
        waits = "" if doing.state is None else f", {doing.state}"
        waits += "" if doing.on is None else f" {doing.on}"
        where = f" on {doing.worker}" if doing.worker else ""
        usually = (
            "" if usual is None else f" (usually {usual.p50_seconds:.3g} s, 95th percentile {usual.p95_seconds:.3g} s)"
        )
        stack = doing.stack or ()
        logger.warning(
            "node %r is stalled: it has run for %.1f s%s%s%s%s",
            work.name,
            elapsed_seconds,
            where,
            usually,
            waits,
            "".join(f"\n  {line}" for line in stack),
        )
        self._told(work, stack)


def _run_queue_seconds(path: str = "/proc/thread-self/schedstat") -> float:
    """How long this thread has waited for a CPU in its life; 0 where the kernel does not tell."""
    try:
        return int(read_kernel_file(path).split()[1]) / 1e9
    except (ValueError, IndexError):
        return 0.0


class _Watcher:
    """The thread that looks, for all pools of the process. It ends when no run is in progress."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._lock = ObserverLock()
        self._watched: dict[int, weakref.ref[StallWatch]] = {}
        self._thread: threading.Thread | None = None
        self._woken = Event(ObserverLock)

    def watch(self, watch: StallWatch) -> None:
        if in_subinterpreter():
            return  # it may start no thread that outlives its work
        with self._lock:
            self._watched[id(watch)] = weakref.ref(watch)
            if self._thread is not None:
                self._woken.set()
                return
            self._thread = thread = threading.Thread(target=self._run, name="traced-threadpool-stalls", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is at its end
            with self._lock:
                self._thread = None

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # between two samples
            release_owned(ObserverLock)
            with self._lock:
                self._thread = None  # the next run starts another
            logger.warning("the thread that watches for stalled nodes ended with %s", type(error).__name__)

    def _work(self) -> None:
        late: deque[float] = deque(maxlen=REMEMBERED)
        while True:
            interval = MOST_INTERVAL_SECONDS
            with self._lock:
                self._woken.clear()
                for key, reference in list(self._watched.items()):
                    watch = reference()
                    if watch is None or not watch.has_runs:
                        del self._watched[key]
                    else:
                        interval = min(interval, watch.interval_seconds)
                    del watch
                if not self._watched:
                    self._thread = None
                    return
                watched = list(self._watched.values())
            before = time.monotonic() - _run_queue_seconds()
            woken = self._woken.wait(interval)
            # What came on top of the wait, other than for a CPU, was for the GIL.
            late.append(0.0 if woken else time.monotonic() - _run_queue_seconds() - before - interval)
            for reference in watched:
                watch = reference()
                if watch is not None:
                    watch.look(max(late))
                del watch


_watcher: Final = _Watcher()
forks.register(_watcher._forget)
