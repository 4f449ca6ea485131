"""What threads ask of one machine into when they get it, in virtual time.

Three things can be asked for. *Waiting* (sockets, files, sleep) goes on by itself: any number at once. Computing
*with the interpreter lock* is for one thread at a time: n who want it get an n-th each. Computing *without* it takes
a processor: if more threads want one than there are, they share them evenly; whoever has the lock is one of them.

A demand is served in slices, each a part of its waiting, then of its computing, since a record tells how much of
each there was and not in which order. Many slices let threads fall into step, so that one computes while the other
waits; with a single slice, threads that start together get in each other's way.

>>> machine = Machine(processors=2, slices=1)
>>> machine.serve(Demand(held_ns=100), "one")
>>> machine.serve(Demand(held_ns=50, wait_ns=50), "other")
>>> machine.next(), machine.now_ns
('one', 150.0)
>>> machine.next(), machine.now_ns
('other', 150.0)
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, Final

_WAIT: Final = 0
_HELD: Final = 1
_FREE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one execution of a node asks for: it takes the sum of these when it is alone on the machine."""

    wait_ns: float = 0
    held_ns: float = 0
    """Computing with the interpreter lock."""
    free_ns: float = 0
    """Computing without it."""

    @property
    def alone_ns(self) -> float:
        return self.wait_ns + self.held_ns + self.free_ns

    def times(self, factor: float) -> Demand:
        return Demand(wait_ns=self.wait_ns * factor, held_ns=self.held_ns * factor, free_ns=self.free_ns * factor)

    def without_lock(self) -> Demand:
        return Demand(wait_ns=self.wait_ns, free_ns=self.held_ns + self.free_ns)


class _Job:
    """A demand being served: the parts of one slice, which part is on, and how many slices are left."""

    __slots__ = ("event", "part", "parts", "slices_left")

    def __init__(self, event: Any, parts: tuple[float, float, float], slices: int) -> None:
        self.event = event
        self.parts = parts
        self.slices_left = slices
        self.part = -1


class _Station:
    """Who computes, in the order in which they will be done. All go equally fast, so that the order stands.

    `served_ns` is what each has got that has been here from the start; who comes at x and asks for y is done at x + y.
    """

    __slots__ = ("jobs", "served_ns")

    def __init__(self) -> None:
        self.jobs: list[tuple[float, int, _Job]] = []
        self.served_ns = 0.0


class Machine:
    """See the module's text. `processors=None`: as many as anybody could want."""

    def __init__(self, *, processors: int | None, slices: int) -> None:
        self.now_ns: float = 0
        self._processors = processors
        self._slices = slices
        self._timers: list[tuple[float, int, Any]] = []
        self._lock = _Station()
        self._free = _Station()
        self._count = 0

    def at(self, time_ns: float, event: Any) -> None:
        """`event` happens then."""
        self._count += 1
        heapq.heappush(self._timers, (time_ns, self._count, event))

    def serve(self, demand: Demand, event: Any) -> None:
        """`event` happens when the demand has been served, from now on."""
        if not demand.held_ns and not demand.free_ns:
            self.at(self.now_ns + demand.wait_ns, event)
            return
        slices = self._slices if demand.wait_ns or (demand.held_ns and demand.free_ns) else 1
        parts = (demand.wait_ns / slices, demand.held_ns / slices, demand.free_ns / slices)
        self._go_on(_Job(event, parts, slices))

    def next(self) -> Any:
        """Lets time go on to the next event, and returns it; None when nothing is left to happen."""
        while True:
            lock, free, timers = self._lock, self._free, self._timers
            wanting = len(free.jobs) + (1 if lock.jobs else 0)
            share = 1.0 if self._processors is None or wanting <= self._processors else self._processors / wanting
            found, until_ns = None, 0.0
            if lock.jobs:
                lock_share = share / len(lock.jobs)
                found, until_ns = lock, self.now_ns + (lock.jobs[0][0] - lock.served_ns) / lock_share
            if free.jobs:
                free_until_ns = self.now_ns + (free.jobs[0][0] - free.served_ns) / share
                if found is None or free_until_ns < until_ns:
                    found, until_ns = free, free_until_ns
            is_timer = bool(timers) and (found is None or timers[0][0] <= until_ns)
            if is_timer:
                until_ns = timers[0][0]
            elif found is None:
                return None
            if lock.jobs:
                lock.served_ns += (until_ns - self.now_ns) * lock_share
            if free.jobs:
                free.served_ns += (until_ns - self.now_ns) * share
            self.now_ns = until_ns
            if is_timer:
                event = heapq.heappop(timers)[2]
                if type(event) is not _Job:
                    return event
                job = event
            else:
                assert found is not None
                done_ns, _, job = heapq.heappop(found.jobs)
                found.served_ns = done_ns  # not a rounding error less
            if self._go_on(job):
                return job.event

    def _go_on(self, job: _Job) -> bool:
        """Sends the job where its next part is served; True when there is none."""
        while True:
            job.part += 1
            if job.part > _FREE:
                job.slices_left -= 1
                if not job.slices_left:
                    return True
                job.part = _WAIT
            amount_ns = job.parts[job.part]
            if amount_ns:
                break
        if job.part == _WAIT:
            self.at(self.now_ns + amount_ns, job)
        else:
            station = self._lock if job.part == _HELD else self._free
            self._count += 1
            heapq.heappush(station.jobs, (station.served_ns + amount_ns, self._count, job))
        return False
