"""Readings at a node's start and end, and from these where its time went.

The order of the readings matters: the thread's CPU time, the clock, the run-queue delay, the shared memory. A
preemption that is due comes when a system call returns; with the delay read before the clock, the slice of time it
takes would be in one and not in the other. The pool reads the clock, so that a node's start and end are stamped in one
place, and the meter is called before and after that.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import ObserverLock
from traced_threadpool.model.observers import ErrorLog, Observer
from traced_threadpool.model.records import NodeRecord, RunRecord, WaitFacts, take_over_timing
from traced_threadpool.model.states import OTHER as REST
from traced_threadpool.model.states import RUNQUEUE, SAMPLED, sampled, unsampled
from traced_threadpool.model.timing import Timing
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import RUNNING
from traced_threadpool.waits.lock_names import waits_since
from traced_threadpool.waits.split import OTHER, Division, History
from traced_threadpool.waits.supervisor import Supervisor
from traced_threadpool.waits.worker_rows import WorkerRow

NOISE_NS: Final = 20_000
"""Less than this, neither run nor sampled, is the clocks' own and is not divided."""

STALE_NS: Final = 20_000
"""For how long a thread may have been off its CPU since the run-queue delay was read, for that to count for a node's
start: the delay has grown by no more. The reading is a system call of some microseconds."""

_GIL: Final = SAMPLED.index("gil")
_LOCK: Final = SAMPLED.index("lock")
_UNSEEN: Final = (0,) * len(SAMPLED)

MAX_HISTORIES: Final = 10_000

AT_ONCE_NS: Final = 20_000
"""A node that starts so soon after the one before on its thread is taken to start with that one's CPU time and what has
passed since: a thread that waited meanwhile would have been away for longer, and reading that clock is a system call of
half a microsecond. At most this much is missing from `cpu` where that is wrong."""


class CpuMeter:
    """Reads the thread's CPU time; says nothing of the rest.

    Args:
        clock: What `NodeRecord` tells times by, in nanoseconds.
        cpu_clock: The calling thread's CPU time so far, likewise.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        cpu_clock: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._of_thread = threading.local()

    def before_start(self, node: NodeRecord) -> None:
        now_ns = self._clock()
        try:
            cpu_ns, at_ns = self._of_thread.end
        except AttributeError:
            at_ns = 0
        node.reading = cpu_ns + now_ns - at_ns if now_ns - at_ns < AT_ONCE_NS else self._cpu_clock()

    def after_start(self, node: NodeRecord) -> None:
        pass

    def before_end(self, node: NodeRecord) -> None:
        node.cpu_ns = self._cpu_clock()

    def after_end(self, node: NodeRecord) -> None:
        self._of_thread.end = node.cpu_ns, node.ended_ns
        # Two clocks: kept within the node's duration, so that the parts of its time add up to it.
        node.cpu_ns = _within(node.cpu_ns - node.reading, node.ended_ns - node.started_ns)
        if node.timing is not None:
            take_over_timing(node)

    def leave(self, node: NodeRecord) -> None:
        node.reading -= self._cpu_clock()

    def come_back(self, node: NodeRecord) -> None:
        node.reading += self._cpu_clock()

    def hand_over(self, node: NodeRecord) -> None:
        pass

    def take_back(self, node: NodeRecord) -> None:
        pass


class _Reading(NamedTuple):
    """What a worker had used up at one moment. Made for every node: a plain tuple is what costs least."""

    row: WorkerRow | None
    before: int  # the node that the worker was in, in shared memory
    cpu_ns: int
    delay_ns: int
    samples: int
    seen_ns: Sequence[int]


class WaitsMeter(CpuMeter, Observer):
    """Divides a node's time among all states. As an observer it gives each run its number.

    Args:
        supervisor: The process's.
        errors: Where failures are counted: such a node has its CPU time and no more.
        clock: As in `CpuMeter`, and `cpu_clock` too.
    """

    component = "attribution"

    def __init__(
        self,
        supervisor: Supervisor,
        errors: ErrorLog,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        cpu_clock: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        super().__init__(clock=clock, cpu_clock=cpu_clock)
        self._supervisor = supervisor
        self._errors = errors
        self._reset_after_fork()
        forks.register(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        """What nodes waited in the parent is learned anew: a container may be locked by a thread that is not here."""
        self._lock = ObserverLock()  # nobody waits for it: see `_settle`
        self._left: deque[tuple[History, int, Sequence[int], Sequence[int], int]] = deque()
        self._histories: dict[str | tuple[str, str], History] = {}

    def run_started(self, run: RunRecord) -> None:
        run.number = self._supervisor.next_run_number()
        run.wait_facts = _Facts(self._supervisor, run.number)

    def before_start(self, node: NodeRecord) -> None:
        try:
            self._enter(node)
        except Exception as error:
            self._errors.caught(self.component, error)
            node.reading = _Reading(None, 0, self._cpu_clock(), 0, 0, ())

    def _enter(self, node: NodeRecord) -> None:
        supervisor, run = self._supervisor, node.run
        row = supervisor.worker_row()
        before = 0
        if row is not None:
            words, at = row.words, row.at
            before = words[at + shm.NODE]
            words[at + shm.NODE] = (0 if run is None else run.number << shm.NAME_BITS) | supervisor.number_of(node.name)
            words[at + shm.DEPTH] += 1
            if words[shm.PHASE] == shm.PARKED:
                supervisor.wake_sampler()
            if supervisor.sleeps:
                supervisor.wake()
            now_ns = self._clock()
            since_ns = now_ns - row.cpu_at_ns
            if since_ns < AT_ONCE_NS:
                node.reading = row, before, row.cpu_ns + since_ns
                return
        node.reading = row, before, self._cpu_clock()

    def after_start(self, node: NodeRecord) -> None:
        row, before, cpu_ns = node.reading[:3]
        if row is None:
            node.reading = _Reading(None, 0, cpu_ns, 0, 0, ())
            return
        try:
            started_ns = node.started_ns
            if started_ns - row.delay_at_ns - cpu_ns + row.delay_cpu_ns > STALE_NS:
                row.read_delay(started_ns, cpu_ns)
            samples = row.words[row.at + shm.SAMPLES]
            if samples != row.samples or row.delay is None:
                row.read_seen(samples)
            node.reading = tuple.__new__(_Reading, (row, before, cpu_ns, row.delay_ns, samples, row.seen_ns))
        except Exception as error:
            self._errors.caught(self.component, error)
            node.reading = _Reading(None, 0, cpu_ns, 0, 0, ())

    def after_end(self, node: NodeRecord) -> None:
        reading: _Reading = node.reading
        node.reading = None
        cpu_ns, row = node.cpu_ns, reading[0]
        if row is not None:
            row.cpu_ns, row.cpu_at_ns = cpu_ns, node.ended_ns
        node.cpu_ns = _within(cpu_ns - reading[2], node.ended_ns - node.started_ns)
        try:
            self._divide(node, reading)
            if node.timing is not None:
                take_over_timing(node)
        except Exception as error:
            self._errors.caught(self.component, error)

    def _divide(self, node: NodeRecord, reading: _Reading) -> None:
        cpu_ns = node.cpu_ns
        waited_ns = node.ended_ns - node.started_ns - cpu_ns
        aside_ns = node.aside_ns
        if aside_ns:
            aside_ns = min(aside_ns, waited_ns)
            waited_ns -= aside_ns
        delay_ns = samples = 0
        row = reading.row
        if row is not None and row.epoch == self._supervisor.epoch:
            words, at = row.words, row.at
            words[at + shm.DEPTH] -= 1
            words[at + shm.NODE] = reading.before
            if waited_ns > NOISE_NS:
                row.read_delay(node.ended_ns, row.cpu_ns)
                delay_ns = min(max(0, row.delay_ns - reading.delay_ns), waited_ns)
            samples = words[at + shm.SAMPLES]
            if samples != row.samples or row.delay is None:
                row.read_seen(samples)
            samples -= reading.samples
        off_ns = waited_ns - delay_ns
        if node.timing is not None and (node.timing.started_ns or node.timing.seen_ns is not None):
            # This thread has waited for another process, whose time counts.
            if node.timing.started_ns:
                self._divide_far(node, node.timing)
            else:
                _divide_lost(node, node.timing, delay_ns, off_ns + aside_ns)
            return
        if not samples and off_ns <= NOISE_NS:
            node.state_ns = node.counted_ns = unsampled(cpu_ns, delay_ns, off_ns + aside_ns)
            return
        seen_ns: Sequence[int] = _UNSEEN
        if row is not None and (samples or row.delay is None):
            seen_ns = [now - then for now, then in zip(row.seen_ns, reading.seen_ns, strict=True)]
            running_ns = seen_ns.pop(RUNNING)
            if seen_ns[_GIL] and node.run is not None and isinstance(node.run.wait_facts, _Facts):
                node.run.wait_facts.saw_gil = True
            if row.delay is None:
                # Nobody counts what it waited for a CPU. It is what samples found running beyond the CPU time,
                # but that is a guess: `other`.
                unknown_ns = _unknown_ns(
                    node.ended_ns - node.started_ns - aside_ns, cpu_ns, off_ns, running_ns, sum(seen_ns)
                )
                aside_ns += unknown_ns
                off_ns -= unknown_ns
        if seen_ns[_LOCK] and row is not None:
            waits = waits_since(row.words, row.at, node.started_ns)
            if waits:
                node.lock = self._supervisor.lock_names.of(row.at, waits, node.name, node.started_ns)
        history = self._histories.get(node.name) or self._new_history(node.name)
        estimate, counted = _beside(aside_ns, self._settle(history, off_ns, seen_ns, samples))
        node.samples = samples
        node.state_ns = sampled(cpu_ns, delay_ns, estimate)
        node.counted_ns = sampled(cpu_ns, delay_ns, counted)

    def _divide_far(self, node: NodeRecord, timing: Timing) -> None:
        """As `_divide`, of a function that ran in another process, which has read its clocks there."""
        if timing.seen_ns is None or timing.state_ns is None:
            return
        samples, off_ns, delay_ns = timing.samples, timing.state_ns[REST], timing.state_ns[RUNQUEUE]
        if not samples and off_ns <= NOISE_NS:
            return
        running_ns, *seen_ns = timing.seen_ns
        aside_ns = 0
        if not timing.is_delay_known:
            duration_ns = timing.ended_ns - timing.started_ns
            aside_ns = _unknown_ns(duration_ns, timing.cpu_ns, off_ns, running_ns, sum(seen_ns))
        # A node that has moved waits for other things than it did.
        key = node.backend, node.name
        history = self._histories.get(key) or self._new_history(key)
        estimate, counted = _beside(aside_ns, self._settle(history, off_ns - aside_ns, seen_ns, samples))
        timing.state_ns = sampled(timing.cpu_ns, delay_ns, estimate)
        timing.counted_ns = sampled(timing.cpu_ns, delay_ns, counted)
        timing.seen_ns = None  # not kept with the node

    def _settle(self, history: History, off_ns: int, seen_ns: Sequence[int], samples: int) -> Division:
        """Without waiting for another worker, which may have lost the interpreter in the middle of this.

        All would queue up behind it, for tens of milliseconds. Whoever comes next learns what is left to be learned.
        """
        if not self._lock.acquire(blocking=False):
            division = history.glance(off_ns, seen_ns, samples=samples)
            self._left.append((history, off_ns, seen_ns, division.counted, samples))
            return division
        try:
            while self._left:
                other, other_off_ns, other_seen, counted, other_samples = self._left.popleft()
                other.learn(other_off_ns, other_seen, counted, samples=other_samples)
            return history.settle(off_ns, seen_ns, samples=samples)
        finally:
            self._lock.release()

    def _new_history(self, key: str | tuple[str, str]) -> History:
        # Two workers that come at once may make one more than there should be.
        return self._histories.setdefault(key if len(self._histories) < MAX_HISTORIES else "", History())

    def leave(self, node: NodeRecord) -> None:
        now = self._now(node.reading)
        node.reading = node.reading, now, self._clock()

    def come_back(self, node: NodeRecord) -> None:
        start, left, left_at_ns = node.reading
        node.aside_ns += self._clock() - left_at_ns
        now = self._now(start)
        node.reading = _Reading(
            now.row if left.row is start.row else None,
            start.before,
            start.cpu_ns + now.cpu_ns - left.cpu_ns,
            start.delay_ns + now.delay_ns - left.delay_ns,
            start.samples + now.samples - left.samples,
            [sum(each) for each in zip(start.seen_ns, now.seen_ns, (-one for one in left.seen_ns), strict=True)],
        )

    def hand_over(self, node: NodeRecord) -> None:
        row = node.reading.row
        if row is not None and row.epoch == self._supervisor.epoch:
            row.words[row.at + shm.DEPTH] |= shm.AWAY
        node.aside_ns -= self._clock()

    def take_back(self, node: NodeRecord) -> None:
        node.aside_ns += self._clock()
        row = node.reading.row
        if row is not None and row.epoch == self._supervisor.epoch:
            row.words[row.at + shm.DEPTH] &= shm.AWAY - 1

    def _now(self, start: _Reading) -> _Reading:
        cpu_ns, now_ns = self._cpu_clock(), self._clock()
        row = start.row
        if row is not None and row.epoch == self._supervisor.epoch:
            try:
                row.read_delay(now_ns, cpu_ns)
                row.read_seen(row.words[row.at + shm.SAMPLES])
                return _Reading(row, 0, cpu_ns, row.delay_ns, row.samples, row.seen_ns)
            except Exception as error:
                self._errors.caught(self.component, error)
        return _Reading(None, 0, cpu_ns, start.delay_ns, start.samples, start.seen_ns)


class _Facts:
    """What is known of one run's waits: found out at the first call, for the sampler tells it once."""

    __slots__ = ("_known", "_lock", "_run_number", "_stolen", "_supervisor", "saw_gil")

    def __init__(self, supervisor: Supervisor, run_number: int) -> None:
        self._supervisor = supervisor
        self._run_number = run_number
        self._stolen = supervisor.stolen()
        self._known: WaitFacts | None = None
        self._lock = ObserverLock()
        self.saw_gil = False
        """Whether a sample found a node of the run waiting for the GIL."""

    def __call__(self) -> WaitFacts:
        with self._lock:
            if self._known is None:
                self._known = self._find_out()
            return self._known

    def _find_out(self) -> WaitFacts:
        supervisor = self._supervisor
        method = supervisor.method
        stolen, ticks = (now - then for now, then in zip(supervisor.stolen(), self._stolen, strict=True))
        known_before = self._stolen[1] > 0
        return WaitFacts(
            method=method.method,
            reason=method.reason,
            # Only such a run has anybody to name. For thousands of short ones, answers would cost all the budget.
            gil_holders=supervisor.holders(self._run_number) if self.saw_gil else {},
            steal_ratio=stolen / ticks if known_before and ticks > 0 and stolen > 0 else 0.0,
        )


def _divide_lost(node: NodeRecord, timing: Timing, delay_ns: int, off_ns: int) -> None:
    """Of a call that has brought no answer, what was seen of its worker is known: how long that waited for what.

    What it computed nobody has told.
    """
    assert timing.seen_ns is not None
    seen_ns = timing.seen_ns[1:]
    total_ns = max(1, off_ns, sum(seen_ns))
    parts = [each_ns if total_ns == off_ns else each_ns * off_ns // total_ns for each_ns in seen_ns]
    parts[OTHER] += off_ns - sum(parts)
    node.samples = timing.samples
    node.state_ns = node.counted_ns = sampled(node.cpu_ns, delay_ns, parts)


def _unknown_ns(duration_ns: int, cpu_ns: int, off_ns: int, running_ns: int, blocked_ns: int) -> int:
    """Of what was waited where nobody counts the waits for a CPU, what samples saw of these beyond the CPU time."""
    found_ns = duration_ns * running_ns // (running_ns + blocked_ns or 1)
    return min(off_ns, max(0, found_ns - cpu_ns))


def _beside(aside_ns: int, division: Division) -> tuple[Sequence[int], Sequence[int]]:
    """A division with what was left out of it, which is `other`."""
    if not aside_ns:
        return division
    estimate, counted = list(division.estimate), list(division.counted)
    estimate[OTHER] += aside_ns
    counted[OTHER] += aside_ns
    return estimate, counted


def _within(cpu_ns: int, duration_ns: int) -> int:
    return cpu_ns if 0 <= cpu_ns <= duration_ns else duration_ns if cpu_ns > 0 else 0
