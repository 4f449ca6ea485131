"""Rounds of looking at the workers of another process into sums on the board. Runs in a process of its own.

So it needs no interpreter lock of the process it looks at: a sampler that does would see every busy thread waiting,
for it has just made them wait. It is started as `python -I -S`, and imports little.

A look that comes `d` nanoseconds after the one before stands for `d` nanoseconds. The rounds come as fast as the
budget allows: `Pace` keeps account, so that the first second of work, and short runs, are looked at more closely.
Where a worker waits for the interpreter lock, the lock's own memory says which thread has it.

What a round costs is what decides how many there are. After 10 ms of sleep all that it touches is out of the
processor's caches, so that code that is not run costs least: a round sleeps in one call, which what is said on the
channel interrupts as a signal would (it is one); files are opened once; a call that means one thing is looked up by its
number alone; and the account is made up every few rounds.
"""

from __future__ import annotations

import contextlib
import os
import sys

from traced_threadpool.waits import shared_memory as b
from traced_threadpool.waits.classify import GIL, RUNNING, Classifier

LEAST_NS = 2_000_000
MOST_NS = 1_000_000_000
SAVINGS_NS = 10_000_000
"""How much processor time can be saved up, to be spent on closer looks."""

FRESH_NS = 1_000_000_000
"""How long the processor time stolen is taken as known."""

MAX_READINGS = 4_096
MAX_RUNS = 1_000
MAX_HOLDERS = 50


class Pace:
    """How long to wait between rounds so that they cost the budgeted share of a processor.

    >>> pace = Pace(saved_ns=0)
    >>> pace.interval_ns(cost_ns=400_000, elapsed_ns=40_000_000, rounds=4, share=0.01)  # spends what it gets
    10000000
    >>> pace = Pace(saved_ns=SAVINGS_NS)
    >>> pace.interval_ns(cost_ns=400_000, elapsed_ns=40_000_000, rounds=4, share=0.01)
    2000000
    """

    def __init__(self, saved_ns: float = SAVINGS_NS) -> None:
        self._saved_ns = saved_ns
        self._cost_ns = 0.0

    def interval_ns(self, *, cost_ns: int, elapsed_ns: int, rounds: int, share: float) -> int:
        """Between the next rounds, after some that cost `cost_ns` in all and took `elapsed_ns`."""
        self._saved_ns = min(SAVINGS_NS, self._saved_ns + elapsed_ns * share - cost_ns)
        each_ns = cost_ns / rounds
        self._cost_ns = each_ns if not self._cost_ns else 0.7 * self._cost_ns + 0.3 * each_ns
        steady_ns = max(LEAST_NS, self._cost_ns / share)
        if self._saved_ns < 0:  # in debt: wait until it is paid
            return int(min(MOST_NS, steady_ns - self._saved_ns / share / rounds))
        return int(min(MOST_NS, LEAST_NS + (steady_ns - LEAST_NS) * (1 - self._saved_ns / SAVINGS_NS)))


class Sampler:
    """Looks at the workers on a board.

    `classifier` is to be set before the first look: it asks this sampler for descriptors and memory.

    Args:
        words: The board's.
        proc: The folder of the process that is looked at, `/proc/<pid>`.
        holder_address: Where the interpreter lock's holder is, or None.
        ident_offset: Where a thread state has the thread's identifier, or None.
    """

    def __init__(
        self,
        words: memoryview[int],
        proc: str,
        *,
        holder_address: int | None = None,
        ident_offset: int | None = None,
    ) -> None:
        self._words = words
        self._proc = proc
        self._holder_address = holder_address
        self._ident_offset = ident_offset
        self._memory: int | None = None  # its descriptor, -1 where it cannot be read
        self._seating = 0  # the board's, when the seats were last looked up
        self._seats: list[_Seat] = []  # all but those whose thread has gone
        self._known: dict[int, _Seat] = {}  # the same and those, by row
        self._readings: dict[bytes, int] = {}
        self._fresh_until_ns = 0
        self._holders: dict[int, dict[str, int]] = {}
        self.classifier: Classifier

    def close(self) -> None:
        for seat in self._known.values():
            seat.close()
        if self._memory is not None and self._memory >= 0:
            os.close(self._memory)
        self._memory = None

    def is_needed(self) -> bool:
        """Whether anybody is in a node."""
        words = self._words
        return any(words[b.ROW + b.DEPTH : b.ROW * (1 + words[b.ROWS]) : b.ROW])

    def look(self, now_ns: int, stands_for_ns: int) -> bool:
        """One round: whether anybody was in a node."""
        words = self._words
        if words[b.SEATING] != self._seating:
            self._find_seats()
        waiting = None
        found = False
        for seat in self._seats:
            if not words[seat.depth_at]:
                continue
            found = True
            descriptor = seat.descriptor
            if descriptor < 0:
                descriptor = self._open(seat)
            try:
                text = os.pread(descriptor, 256, 0)
            except OSError:  # the thread has ended; its id is not looked up again, for it may be another's by now
                self._lose(seat)
                continue
            kind = self.classifier.plain.get(text.partition(b" ")[0])
            if kind is None:
                kind = self._readings.get(text)
                if kind is None:
                    kind = self._classify(text)
                if kind == GIL:
                    waiting = [seat] if waiting is None else [*waiting, seat]
            words[seat.seen_at + kind] += stands_for_ns
            if kind != RUNNING:
                words[seat.looks_at] += 1
        if waiting is not None and self._holder_address is not None:
            self._note_holder(waiting, stands_for_ns)
        if found and now_ns >= self._fresh_until_ns:
            self._refresh(now_ns)
        return found

    def holders(self, run_number: int) -> list[tuple[str, int]]:
        """Who held the interpreter lock while nodes of a run waited for it, and how long they waited. Forgets it."""
        caused = self._holders.pop(run_number, {})
        return sorted(caused.items(), key=lambda item: -item[1])[:MAX_HOLDERS]

    def descriptor(self, number: int) -> str:
        """What a file descriptor of the process is at this moment: the next file to be opened gets its number."""
        try:
            return os.readlink(f"{self._proc}/fd/{number}")  # noqa: PTH115  # pathlib is slow to import
        except OSError:
            return ""

    def _classify(self, text: bytes) -> int:
        kind = self.classifier.classify(text)
        if not self.classifier.asked_descriptor:
            if len(self._readings) >= MAX_READINGS:
                self._readings.clear()
            self._readings[text] = kind
        return kind

    def _find_seats(self) -> None:
        """Workers have come."""
        words = self._words
        self._seating = words[b.SEATING]  # before the rows: one that comes now is found the next time
        for row in range(b.ROW, b.ROW * (1 + words[b.ROWS]), b.ROW):
            known = self._known.get(row)
            if known is None or known.generation != words[row + b.GENERATION]:
                if known is not None:
                    known.close()
                self._known[row] = _Seat(row, words[row + b.GENERATION])
        self._seats = [seat for seat in self._known.values() if not seat.gone]

    def _open(self, seat: _Seat) -> int:
        """At the first look. A file that cannot be opened is -1, and cannot be read."""
        thread = self._words[seat.row + b.THREAD]
        with contextlib.suppress(OSError):
            seat.descriptor = os.open(f"{self._proc}/task/{thread}/syscall", os.O_RDONLY | os.O_CLOEXEC)
        return seat.descriptor

    def _lose(self, seat: _Seat) -> None:
        seat.close()
        seat.gone = True
        self._seats = [each for each in self._seats if each is not seat]

    def _refresh(self, now_ns: int) -> None:
        self._fresh_until_ns = now_ns + FRESH_NS
        try:
            with open("/proc/stat", "rb") as file:  # noqa: PTH123  # as above
                ticks = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return
        self._words[b.TICKS] = sum(ticks)
        self._words[b.STEAL] = ticks[7] if len(ticks) > 7 else 0

    def _note_holder(self, waiting: list[_Seat], stands_for_ns: int) -> None:
        words = self._words
        assert self._holder_address is not None
        lock = self.memory(self._holder_address, 12)
        if len(lock) < 12 or not int.from_bytes(lock[8:], sys.byteorder):
            return  # nobody has it: one of those who wait is about to
        holder = self._name_holder(int.from_bytes(lock[:8], sys.byteorder))
        for seat in waiting:
            run_number, _ = b.unpacked(words[seat.row + b.NODE])
            caused = self._holders.get(run_number)
            if caused is None:
                if len(self._holders) >= MAX_RUNS:
                    del self._holders[next(iter(self._holders))]
                caused = self._holders[run_number] = {}
            caused[holder] = caused.get(holder, 0) + stands_for_ns

    def _name_holder(self, state: int) -> str:
        """`n` and a node's number on the board, or `t` and a thread's identifier."""
        words = self._words
        end = b.ROW * (1 + words[b.ROWS])
        states = words[b.ROW + b.STATE : end : b.ROW].tolist()
        if state in states:
            row = b.ROW * (1 + states.index(state))
            if words[row + b.DEPTH]:
                return f"n{b.unpacked(words[row + b.NODE])[1]}"
        ident = b"" if self._ident_offset is None else self.memory(state + self._ident_offset, 8)
        return f"t{int.from_bytes(ident, sys.byteorder)}"

    def memory(self, address: int, length: int) -> bytes:
        """What is at an address of the process; empty where it cannot be read."""
        if self._memory is None:
            try:
                self._memory = os.open(f"{self._proc}/mem", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._memory = -1
        try:
            return os.pread(self._memory, length, address)
        except (OSError, OverflowError, ValueError):
            return b""


class _Seat:
    """A worker, as the sampler knows it: where its words are on the board, and the file that is read."""

    __slots__ = ("depth_at", "descriptor", "generation", "gone", "looks_at", "row", "seen_at")

    def __init__(self, row: int, generation: int) -> None:
        self.row = row
        self.generation = generation
        self.depth_at, self.looks_at, self.seen_at = row + b.DEPTH, row + b.LOOKS, row + b.SEEN
        self.descriptor = -1
        self.gone = False

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1
