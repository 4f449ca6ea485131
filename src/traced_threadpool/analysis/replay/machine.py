"""What threads ask of one machine into when they get it, in virtual time.

Three things can be asked for. *Waiting* (sockets, files, sleep) goes on by itself: any number at once. Computing
*with the GIL* is for one thread at a time: n who want it get an n-th each. Computing *without* it takes
a CPU: if more threads want one than there are, they share them evenly; whoever has the lock is one of them.

A *lock* is for as many at a time as its capacity; who comes first gets it first, and does with it what its demand says.

A demand is served in slices, each a part of its waiting, then of its computing, since a record tells how much of
each there was and not in which order. Many slices let threads fall into step, so that one computes while the other
waits; with a single slice, threads that start together get in each other's way.

>>> machine = Machine(cpus=2, slices=1)
>>> machine.serve(Demand(held_ns=100), "one")
>>> machine.serve(Demand(held_ns=50, wait_ns=50), "other")
>>> machine.next(), machine.now_ns
('one', 150.0)
>>> machine.next(), machine.now_ns
('other', 150.0)
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from traced_threadpool.analysis.replay.locks import Locking

_WAIT: Final = 0
_HELD: Final = 1
_FREE: Final = 2
_ACQUIRE: Final = 3
_RELEASE: Final = 4


class Demand(NamedTuple):
    """What one execution of a node asks for: it takes the sum of these when it is alone on the machine."""

    wait_ns: float = 0
    held_ns: float = 0
    """Computing with the GIL."""
    free_ns: float = 0
    """Computing without it."""

    def times(self, factor: float) -> Demand:
        return Demand(self.wait_ns * factor, self.held_ns * factor, self.free_ns * factor)

    def minus(self, other: Demand) -> Demand:
        """Without what another one asks for, which is a part of this."""
        return Demand(*[max(0.0, own - part) for own, part in zip(self, other, strict=True)])

    def without_lock(self) -> Demand:
        return Demand(self.wait_ns, 0, self.held_ns + self.free_ns)


def _add_steps(steps: list[tuple[int, float]], demand: Demand, share: float) -> None:
    if share > 0:
        kinds = ((_WAIT, demand.wait_ns), (_HELD, demand.held_ns), (_FREE, demand.free_ns))
        steps += [(kind, amount_ns * share) for kind, amount_ns in kinds if amount_ns]


class _Job:
    """A demand being served: the event when it has been, what comes one after the other, and how far it is."""

    __slots__ = ("event", "lock", "place", "steps")

    def __init__(self, event: Any, steps: list[tuple[int, float]], lock: _Lock | None = None) -> None:
        self.event = event
        self.steps = steps
        self.place = 0
        self.lock = lock


class _Lock:
    """How many more can have it, and who waits."""

    __slots__ = ("free", "waiting")

    def __init__(self, capacity: int) -> None:
        self.free = capacity
        self.waiting: deque[_Job] = deque()


class _Station:
    """Who computes, in the order in which they will be done. All go equally fast, so that the order stands.

    `served_ns` is what each has got that has been here from the start; who comes at x and asks for y is done at x + y.
    """

    __slots__ = ("jobs", "served_ns")

    def __init__(self) -> None:
        self.jobs: list[tuple[float, int, _Job]] = []
        self.served_ns = 0.0


class Machine:
    """See the module's text. `cpus=None`: as many as anybody could want.

    `planned` are events known from the beginning, with their times; of what happens at one moment, they come first.
    `locks` are their capacities.
    """

    def __init__(
        self,
        *,
        cpus: int | None,
        slices: int,
        planned: Iterable[tuple[float, Any]] = (),
        locks: Sequence[int] = (),
    ) -> None:
        self.now_ns: float = 0
        self._cpus = math.inf if cpus is None else cpus
        self._slices = slices
        # The next is the last. They are not among the timers, which would be a large heap for nothing.
        self._planned = sorted(planned, key=itemgetter(0))[::-1]
        self._timers: list[tuple[float, int, Any]] = []
        self._lock = _Station()
        self._free = _Station()
        self._locks = [_Lock(capacity) for capacity in locks]
        self._count = 0

    def at(self, time_ns: float, event: Any) -> None:
        """`event` happens then."""
        self._count = count = self._count + 1
        heapq.heappush(self._timers, (time_ns, count, event))

    def serve(self, demand: Demand, event: Any, after_ns: float = 0) -> None:
        """`event` happens when the demand has been served, from so much later than now on."""
        wait_ns, held_ns, free_ns = demand
        started_ns = self.now_ns + after_ns
        if not held_ns and not free_ns:
            self.at(started_ns + wait_ns, event)
            return
        slices = self._slices if wait_ns or (held_ns and free_ns) else 1
        steps = []
        if wait_ns:
            steps.append((_WAIT, wait_ns / slices))
        if held_ns:
            steps.append((_HELD, held_ns / slices))
        if free_ns:
            steps.append((_FREE, free_ns / slices))
        job = _Job(event, steps * slices)
        if wait_ns:  # one timer for what comes before and the first wait
            job.place = 1
            self.at(started_ns + steps[0][1], job)
        elif after_ns:
            self.at(started_ns, job)
        else:
            self._go_on(job)

    def serve_locking(self, demand: Demand, locking: Locking, event: Any, after_ns: float = 0) -> None:
        """The same of a demand of which a part is served under a lock."""
        steps: list[tuple[int, float]] = []
        outside, turns = 1 - locking.share, max(1, locking.turns)
        for _ in range(turns):
            _add_steps(steps, demand, outside * locking.before / turns)
            steps.append((_ACQUIRE, 0))
            _add_steps(steps, demand, locking.share / turns)
            steps.append((_RELEASE, 0))
            _add_steps(steps, demand, outside * (1 - locking.before) / turns)
        self.at(self.now_ns + after_ns, _Job(event, steps, self._locks[locking.lock]))

    def next(self) -> Any:
        """Lets time go on to the next event, and returns it; None when nothing is left to happen."""
        lock, free, timers, planned = self._lock, self._free, self._timers, self._planned
        lock_jobs, free_jobs, cpus = lock.jobs, free.jobs, self._cpus
        while True:
            is_planned = bool(planned) and (not timers or planned[-1][0] <= timers[0][0])
            timer_ns = planned[-1][0] if is_planned else timers[0][0] if timers else math.inf
            found = None
            if lock_jobs or free_jobs:
                wanting = len(free_jobs) + 1 if lock_jobs else len(free_jobs)
                share = 1.0 if wanting <= cpus else cpus / wanting
                now_ns, until_ns = self.now_ns, timer_ns
                if lock_jobs:
                    lock_share = share / len(lock_jobs)
                    done_ns = now_ns + (lock_jobs[0][0] - lock.served_ns) / lock_share
                    if done_ns < until_ns:
                        found, until_ns = lock, done_ns
                if free_jobs:
                    done_ns = now_ns + (free_jobs[0][0] - free.served_ns) / share
                    if done_ns < until_ns:
                        found, until_ns = free, done_ns
                if lock_jobs:
                    lock.served_ns += (until_ns - now_ns) * lock_share
                if free_jobs:
                    free.served_ns += (until_ns - now_ns) * share
                self.now_ns = until_ns
            elif timer_ns == math.inf:
                return None
            else:
                self.now_ns = timer_ns
            if found is not None:
                found.served_ns, _, job = heapq.heappop(found.jobs)  # not a rounding error less than it asked for
            elif is_planned:
                return planned.pop()[1]
            else:
                event = heapq.heappop(timers)[2]
                if type(event) is not _Job:
                    return event
                job = event
            if self._go_on(job):
                return job.event

    def _go_on(self, job: _Job) -> bool:
        """Sends the job where its next step is served; True when there is none."""
        while True:
            if job.place == len(job.steps):
                return True
            kind, amount_ns = job.steps[job.place]
            job.place += 1
            if kind < _ACQUIRE:
                break
            lock = job.lock
            assert lock is not None
            if kind == _ACQUIRE:
                if not lock.free:
                    lock.waiting.append(job)
                    return False
                lock.free -= 1
            elif lock.waiting:
                self.at(self.now_ns, lock.waiting.popleft())
            else:
                lock.free += 1
        self._count = count = self._count + 1
        if kind == _WAIT:
            heapq.heappush(self._timers, (self.now_ns + amount_ns, count, job))
        else:
            station = self._lock if kind == _HELD else self._free
            heapq.heappush(station.jobs, (station.served_ns + amount_ns, count, job))
        return False
