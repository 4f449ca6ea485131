"""A node's start and end into readings, and these into where its time went.

The order of the readings matters: the thread's processor time, the clock, the run-queue delay, the board. A preemption
that is due comes when a system call returns; with the delay read before the clock, the slice of time it takes would be
in one and not in the other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from traced_threadpool.model import forks
from traced_threadpool.model.observers import ErrorLog, Observer
from traced_threadpool.model.records import NodeRecord, RunRecord, WaitFacts, take_over_timing
from traced_threadpool.model.states import SAMPLED, sampled, unsampled
from traced_threadpool.waits import shared_memory as b
from traced_threadpool.waits.classify import KINDS, RUNNING
from traced_threadpool.waits.estimate import OTHER, Account, Division
from traced_threadpool.waits.supervisor import Seat, Service

NOISE_NS: Final = 20_000
"""Less than this, neither run nor looked at, is the clocks' own and is not divided."""

STALE_NS: Final = 20_000
"""For how long a thread may have been off its processor since the run-queue delay was read, for that to count for a
node's start: the delay has grown by no more. The reading is a system call of some microseconds."""

_GIL: Final = SAMPLED.index("gil")
_UNSEEN: Final = (0,) * len(SAMPLED)

MAX_ACCOUNTS: Final = 10_000

AT_ONCE_NS: Final = 20_000
"""A node that starts so soon after the one before on its thread is taken to start with that one's processor time and
what has passed since: a thread that waited meanwhile would have been away for longer, and reading that clock is a
system call of half a microsecond. At most this much is missing from `cpu` where that is wrong."""


class CpuMeter:
    """Reads the clock and the thread's processor time; says nothing of the rest.

    Args:
        clock: What `NodeRecord` tells times by, in nanoseconds.
        cpu_clock: The calling thread's processor time so far, likewise.
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

    def start(self, node: NodeRecord) -> None:
        now_ns = self._clock()
        try:
            cpu_ns, at_ns = self._of_thread.end
        except AttributeError:
            at_ns = 0
        if now_ns - at_ns < AT_ONCE_NS:
            node.reading = cpu_ns + now_ns - at_ns
            node.started_ns = now_ns
        else:
            node.reading = self._cpu_clock()
            node.started_ns = self._clock()

    def end(self, node: NodeRecord) -> None:
        now_cpu_ns = self._cpu_clock()
        node.ended_ns = ended_ns = self._clock()
        self._of_thread.end = now_cpu_ns, ended_ns
        # Two clocks: kept within the node's duration, so that the parts of its time add up to it.
        node.cpu_ns = _within(now_cpu_ns - node.reading, ended_ns - node.started_ns)
        if node.timing is not None:
            take_over_timing(node)

    def leave(self, node: NodeRecord) -> None:
        node.reading -= self._cpu_clock()

    def come_back(self, node: NodeRecord) -> None:
        node.reading += self._cpu_clock()


class _Reading(NamedTuple):
    """What a worker had used up at one moment. Made for every node: a plain tuple is what costs least."""

    seat: Seat | None
    before: int  # the node that the worker was in, on the board
    cpu_ns: int
    delay_ns: int
    looks: int
    seen: Sequence[int]


class WaitsMeter(CpuMeter, Observer):
    """Divides a node's time among all states. As an observer it gives each run its number.

    Args:
        service: The process's.
        errors: Where failures are counted: such a node has its processor time and no more.
        clock: As in `CpuMeter`, and `cpu_clock` too.
    """

    component = "attribution"

    def __init__(
        self,
        service: Service,
        errors: ErrorLog,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        cpu_clock: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        super().__init__(clock=clock, cpu_clock=cpu_clock)
        self._service = service
        self._errors = errors
        self._lock = threading.Lock()  # nobody waits for it: see `_settle`
        self._left: deque[tuple[Account, int, Sequence[int], Sequence[int], int]] = deque()
        self._accounts: dict[str, Account] = {}
        forks.register(self._reset_after_fork)

    def run_started(self, run: RunRecord) -> None:
        run.number = self._service.next_run_number()
        run.wait_facts = _Facts(self._service, run.number)

    def start(self, node: NodeRecord) -> None:
        try:
            self._start(node)
        except Exception as error:
            self._errors.record(self.component, error)
            self._start_unseen(node)

    def _start(self, node: NodeRecord) -> None:
        service, run = self._service, node.run
        seat = service.seat()
        if seat is None:
            self._start_unseen(node)
            return
        words, row = seat.words, seat.row
        before = words[row + b.NODE]
        words[row + b.NODE] = (0 if run is None else run.number << b.NAME_BITS) | service.number_of(node.name)
        words[row + b.DEPTH] += 1
        if words[b.PHASE] == b.PARKED:
            service.wake_sampler()
        if service.keeper_sleeps:
            service.wake_keeper()
        now_ns = self._clock()
        since_ns = now_ns - seat.cpu_at_ns
        if since_ns < AT_ONCE_NS:
            cpu_ns = seat.cpu_ns + since_ns
        else:
            cpu_ns = self._cpu_clock()
            now_ns = self._clock()
        node.started_ns = now_ns
        if now_ns - seat.delay_at_ns - cpu_ns + seat.delay_cpu_ns > STALE_NS:
            _read_delay(seat, now_ns, cpu_ns)
        looks = words[row + b.LOOKS]
        if looks != seat.looks or seat.delay is None:
            _read_seen(seat, looks)
        node.reading = tuple.__new__(_Reading, (seat, before, cpu_ns, seat.delay_ns, looks, seat.seen))

    def _start_unseen(self, node: NodeRecord) -> None:
        node.reading = _Reading(None, 0, self._cpu_clock(), 0, 0, ())
        node.started_ns = self._clock()

    def end(self, node: NodeRecord) -> None:
        reading: _Reading = node.reading
        node.reading = None
        cpu_ns = self._cpu_clock()
        node.ended_ns = ended_ns = self._clock()
        seat = reading[0]
        if seat is not None:
            seat.cpu_ns, seat.cpu_at_ns = cpu_ns, ended_ns
        node.cpu_ns = _within(cpu_ns - reading[2], ended_ns - node.started_ns)
        try:
            self._divide(node, reading)
        except Exception as error:
            self._errors.record(self.component, error)

    def _divide(self, node: NodeRecord, reading: _Reading) -> None:
        cpu_ns = node.cpu_ns
        waited_ns = node.ended_ns - node.started_ns - cpu_ns
        aside_ns = node.aside_ns
        if aside_ns:
            aside_ns = min(aside_ns, waited_ns)
            waited_ns -= aside_ns
        delay_ns = looks = 0
        seat = reading.seat
        if seat is not None and seat.epoch == self._service.epoch:
            words, row = seat.words, seat.row
            words[row + b.DEPTH] -= 1
            words[row + b.NODE] = reading.before
            if waited_ns > NOISE_NS:
                _read_delay(seat, node.ended_ns, seat.cpu_ns)
                delay_ns = min(max(0, seat.delay_ns - reading.delay_ns), waited_ns)
            looks = words[row + b.LOOKS]
            if looks != seat.looks or seat.delay is None:
                _read_seen(seat, looks)
            looks -= reading.looks
        if node.timing is not None and node.timing.started_ns:
            take_over_timing(node)  # this thread has waited for another process, whose time counts
            return
        off_ns = waited_ns - delay_ns
        if not looks and off_ns <= NOISE_NS:
            node.state_ns = node.counted_ns = unsampled(cpu_ns, delay_ns, off_ns + aside_ns)
            return
        seen: Sequence[int] = _UNSEEN
        if seat is not None and (looks or seat.delay is None):
            seen = [now - then for now, then in zip(seat.seen, reading.seen, strict=True)]
            running_ns = seen.pop(RUNNING)
            if seen[_GIL] and node.run is not None and isinstance(node.run.wait_facts, _Facts):
                node.run.wait_facts.saw_gil = True
            if seat.delay is None:
                # Nobody counts what it waited for a processor. It is what looks found running beyond the processor
                # time, but that is a guess: `other`.
                total_ns = running_ns + sum(seen) or 1
                found_ns = (node.ended_ns - node.started_ns - aside_ns) * running_ns // total_ns
                unknown_ns = min(off_ns, max(0, found_ns - cpu_ns))
                aside_ns += unknown_ns
                off_ns -= unknown_ns
        account = self._accounts.get(node.name) or self._new_account(node.name)
        division = self._settle(account, off_ns, seen, looks)
        node.samples = looks
        estimate, counted = division
        if aside_ns:
            estimate, counted = list(estimate), list(counted)
            estimate[OTHER] += aside_ns
            counted[OTHER] += aside_ns
        node.state_ns = sampled(cpu_ns, delay_ns, estimate)
        node.counted_ns = sampled(cpu_ns, delay_ns, counted)

    def _settle(self, account: Account, off_ns: int, seen: Sequence[int], looks: int) -> Division:
        """Without waiting for another worker, which may have lost the interpreter in the middle of this.

        All would queue up behind it, for tens of milliseconds. Whoever comes next learns what is left to be learned.
        """
        if not self._lock.acquire(blocking=False):
            division = account.glance(off_ns, seen, looks=looks)
            self._left.append((account, off_ns, seen, division.counted, looks))
            return division
        try:
            while self._left:
                other, other_off_ns, other_seen, counted, other_looks = self._left.popleft()
                other.learn(other_off_ns, other_seen, counted, looks=other_looks)
            return account.settle(off_ns, seen, looks=looks)
        finally:
            self._lock.release()

    def _new_account(self, name: str) -> Account:
        # Two workers that come at once may make one more than there should be.
        return self._accounts.setdefault(name if len(self._accounts) < MAX_ACCOUNTS else "", Account())

    def leave(self, node: NodeRecord) -> None:
        now = self._now(node.reading)
        node.reading = node.reading, now, self._clock()

    def come_back(self, node: NodeRecord) -> None:
        start, left, left_at_ns = node.reading
        node.aside_ns += self._clock() - left_at_ns
        now = self._now(start)
        node.reading = _Reading(
            now.seat if left.seat is start.seat else None,
            start.before,
            start.cpu_ns + now.cpu_ns - left.cpu_ns,
            start.delay_ns + now.delay_ns - left.delay_ns,
            start.looks + now.looks - left.looks,
            [sum(each) for each in zip(start.seen, now.seen, (-one for one in left.seen), strict=True)],
        )

    def _now(self, start: _Reading) -> _Reading:
        cpu_ns, now_ns = self._cpu_clock(), self._clock()
        seat = start.seat
        if seat is not None and seat.epoch == self._service.epoch:
            try:
                _read_delay(seat, now_ns, cpu_ns)
                _read_seen(seat, seat.words[seat.row + b.LOOKS])
                return _Reading(seat, 0, cpu_ns, seat.delay_ns, seat.looks, seat.seen)
            except Exception as error:
                self._errors.record(self.component, error)
        return _Reading(None, 0, cpu_ns, start.delay_ns, start.looks, start.seen)

    def _reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._left = deque()
        self._accounts = {}


class _Facts:
    """What is known of one run's waits: found out at the first call, for the sampler tells it once."""

    __slots__ = ("_known", "_lock", "_run_number", "_service", "_stolen", "saw_gil")

    def __init__(self, service: Service, run_number: int) -> None:
        self._service = service
        self._run_number = run_number
        self._stolen = service.stolen()
        self._known: WaitFacts | None = None
        self._lock = threading.Lock()
        self.saw_gil = False
        """Whether a look found a node of the run waiting for the interpreter lock."""

    def __call__(self) -> WaitFacts:
        with self._lock:
            if self._known is None:
                self._known = self._find_out()
            return self._known

    def _find_out(self) -> WaitFacts:
        service = self._service
        method = service.method
        stolen, ticks = (now - then for now, then in zip(service.stolen(), self._stolen, strict=True))
        known_before = self._stolen[1] > 0
        return WaitFacts(
            method=method.method,
            reason=method.reason,
            # Only such a run has anybody to name. For thousands of short ones, answers would cost all the budget.
            gil_holders=service.holders(self._run_number) if self.saw_gil else {},
            steal_ratio=stolen / ticks if known_before and ticks > 0 and stolen > 0 else 0.0,
        )


def _within(cpu_ns: int, duration_ns: int) -> int:
    return cpu_ns if 0 <= cpu_ns <= duration_ns else duration_ns if cpu_ns > 0 else 0


def _read_delay(seat: Seat, now_ns: int, cpu_ns: int) -> None:
    delay = seat.delay
    if delay is not None:
        seat.delay_ns = delay.read_ns()
        seat.delay_at_ns = now_ns
        seat.delay_cpu_ns = cpu_ns


def _read_seen(seat: Seat, looks: int) -> None:
    start = seat.row + b.SEEN
    seat.seen = seat.words[start : start + len(KINDS)].tolist()
    seat.looks = looks
