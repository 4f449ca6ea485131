"""Rounds of looking at the workers of another process into sums on the board. Runs in a process of its own.

So it needs no interpreter lock of the process it looks at: a sampler that does would see every busy thread waiting,
for it has just made them wait. It is started as `python -I -S`, and imports little.

A look that comes `d` nanoseconds after the one before stands for `d` nanoseconds. The rounds come as fast as the
budget allows: `Pace` keeps account, so that the first second of work, and short runs, are looked at more closely.
Where a worker waits for the interpreter lock, the lock's own memory says which thread has it.

The process ends when its socket is closed, which is how it learns of its parent's end however that came about.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

from traced_threadpool.waits import board as b
from traced_threadpool.waits.classify import GIL, Classifier, table_for

LEAST_NS = 2_000_000
MOST_NS = 1_000_000_000
SAVINGS_NS = 5_000_000
"""How much processor time can be saved up, to be spent on closer looks."""

LINGER_NS = 100_000_000
"""How long it goes on looking for work when no node runs, before it parks."""

FRESH_NS = 1_000_000_000
"""How long the processor time stolen is taken as known."""

MAX_READINGS = 4_096
MAX_RUNS = 1_000
MAX_HOLDERS = 50
ORPHAN_SECONDS = 2.0

MEMORY, CHANNEL = 3, 4
"""The descriptors that the process is started with, beside the usual three."""

# What is said over the channel, a socket that keeps messages apart. By the service:
WAKE, HOLDERS, AGAIN = b"w", b"h", b"a"
# and by the sampler, once it has been told whom to look at; later it answers with a run's holders.
READY, REFUSED = b"y", b"r"


class Pace:
    """How long to wait between rounds so that they cost the budgeted share of a processor.

    >>> pace = Pace(saved_ns=0)
    >>> pace.interval_ns(cost_ns=100_000, elapsed_ns=10_000_000, share=0.01)  # spends what it gets
    10000000
    >>> Pace(saved_ns=SAVINGS_NS).interval_ns(cost_ns=100_000, elapsed_ns=10_000_000, share=0.01)
    2000000
    """

    def __init__(self, saved_ns: float = SAVINGS_NS) -> None:
        self._saved_ns = saved_ns
        self._cost_ns = 0.0

    def interval_ns(self, *, cost_ns: int, elapsed_ns: int, share: float) -> int:
        """Until the next round, after one that cost `cost_ns`, `elapsed_ns` after the one before."""
        self._saved_ns = min(SAVINGS_NS, self._saved_ns + elapsed_ns * share - cost_ns)
        self._cost_ns = cost_ns if not self._cost_ns else 0.9 * self._cost_ns + 0.1 * cost_ns
        steady_ns = max(LEAST_NS, self._cost_ns / share)
        if self._saved_ns < 0:  # in debt: wait until it is paid
            return int(min(MOST_NS, steady_ns - self._saved_ns / share))
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
        self._files: dict[int, tuple[int, int]] = {}  # by row: generation and descriptor, -1 for a thread that is gone
        self._readings: dict[bytes, int] = {}
        self._fresh_until_ns = 0
        self._holders: dict[int, dict[str, int]] = {}
        self.classifier: Classifier

    def close(self) -> None:
        for row in list(self._files):
            self._close_file(row)
        if self._memory is not None and self._memory >= 0:
            os.close(self._memory)
        self._memory = None

    def active_rows(self) -> list[int]:
        words = self._words
        end = b.ROW * (1 + words[b.ROWS])
        depths = words[b.ROW + b.DEPTH : end : b.ROW].tolist()
        return [b.ROW * (1 + index) for index, depth in enumerate(depths) if depth]

    def look(self, rows: list[int], now_ns: int, stands_for_ns: int) -> None:
        """One round."""
        words, readings = self._words, self._readings
        if now_ns >= self._fresh_until_ns:
            self._refresh(now_ns)
        waiting = []
        for row in rows:
            text = self._read(row)
            if text is None:
                continue
            kind = readings.get(text)
            if kind is None:
                kind = self.classifier.classify(text)
                if not self.classifier.asked_descriptor:
                    if len(readings) >= MAX_READINGS:
                        readings.clear()
                    readings[text] = kind
            words[row + b.SEEN + kind] += stands_for_ns
            words[row + b.LOOKS] += 1
            if kind == GIL:
                waiting.append(row)
        if waiting and self._holder_address is not None:
            self._note_holder(waiting, stands_for_ns)

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

    def _read(self, row: int) -> bytes | None:
        words = self._words
        generation = words[row + b.GENERATION]
        known = self._files.get(row)
        if known is None or known[0] != generation:
            self._close_file(row)
            try:
                descriptor = os.open(f"{self._proc}/task/{words[row + b.THREAD]}/syscall", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                descriptor = -1
            known = self._files[row] = (generation, descriptor)
        if known[1] < 0:
            return None
        try:
            return os.pread(known[1], 256, 0)
        except OSError:  # the thread has ended; its id is not looked up again, for it may be another's by now
            self._close_file(row)
            self._files[row] = (generation, -1)
            return None

    def _close_file(self, row: int) -> None:
        known = self._files.pop(row, None)
        if known is not None and known[1] >= 0:
            os.close(known[1])

    def _refresh(self, now_ns: int) -> None:
        self._fresh_until_ns = now_ns + FRESH_NS
        try:
            with open("/proc/stat", "rb") as file:  # noqa: PTH123  # as above
                ticks = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return
        self._words[b.TICKS] = sum(ticks)
        self._words[b.STEAL] = ticks[7] if len(ticks) > 7 else 0

    def _note_holder(self, waiting: list[int], stands_for_ns: int) -> None:
        words = self._words
        assert self._holder_address is not None
        lock = self.memory(self._holder_address, 12)
        if len(lock) < 12 or not int.from_bytes(lock[8:], sys.byteorder):
            return  # nobody has it: one of those who wait is about to
        holder = self._name_holder(int.from_bytes(lock[:8], sys.byteorder))
        for row in waiting:
            run_number, _ = b.unpacked(words[row + b.NODE])
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


def serve(sampler: Sampler, words: memoryview[int], channel: int, parent: int) -> None:
    """Looks at what is active, parks when nothing is, answers questions; returns when the channel is closed."""
    pace = Pace()
    before_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
    active_ns = before_ns
    interval_ns = LEAST_NS
    words[b.PHASE] = b.SAMPLING
    while os.getppid() == parent:
        # Evenly spread over half to one and a half intervals, so as not to beat with the work; the clock's last
        # digits are chance enough.
        due_ns = before_ns + interval_ns * (500 + before_ns % 1_000) // 1_000
        now_ns = before_ns
        while now_ns < due_ns:  # a question neither puts the next look off nor brings it on: it comes at a run's end
            if not _answer(sampler, channel, max(0, due_ns - time.monotonic_ns()) / 1e9):
                return
            now_ns = time.monotonic_ns()
        rows = sampler.active_rows()
        if rows:
            active_ns = now_ns
            sampler.look(rows, now_ns, now_ns - before_ns)
        elif now_ns - active_ns > LINGER_NS:
            words[b.PHASE] = b.PARKED
            # A node that starts now sees that it must wake us, or is seen here.
            while not sampler.active_rows() and os.getppid() == parent:
                if not _answer(sampler, channel, ORPHAN_SECONDS):
                    return
            words[b.PHASE] = b.SAMPLING
            active_ns = now_ns = time.monotonic_ns()
        words[b.ROUNDS] += 1
        used_ns = time.process_time_ns()
        interval_ns = pace.interval_ns(
            cost_ns=used_ns - cpu_ns, elapsed_ns=now_ns - before_ns, share=max(1, words[b.BUDGET_PPM]) / 1e6
        )
        words[b.CPU_NS], words[b.INTERVAL_NS] = used_ns, interval_ns
        before_ns, cpu_ns = now_ns, used_ns


def _answer(sampler: Sampler, channel: int, seconds: float) -> bool:
    """Waits that long, or until something is said. False: the other side is gone."""
    readable, _, _ = select.select([channel], [], [], seconds)
    if not readable:
        return True
    try:
        said = os.read(channel, 64)
        if said[:1] == HOLDERS:
            run_number = int(said[1:])
            holders = " ".join(f"{who}={caused_ns}" for who, caused_ns in sampler.holders(run_number))
            os.write(channel, f"{run_number} {holders}".encode())
    except OSError:
        return False
    return bool(said)


def refusal(proc: str, thread: int) -> str | None:
    """Why the system calls of a thread cannot be read; None when they can."""
    try:
        descriptor = os.open(f"{proc}/task/{thread}/syscall", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return None if os.read(descriptor, 256) else "it is empty"
        finally:
            os.close(descriptor)
    except OSError as error:
        return os.strerror(error.errno or 0)


def main() -> None:
    """What the helper process does."""
    import resource  # not on Windows

    os.chdir("/")
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # pathlib is slow to import
        if int(name) > CHANNEL:
            with contextlib.suppress(OSError):
                os.close(int(name))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one for each worker
    told = os.read(CHANNEL, 4_096).decode().split("\n", 6)
    if len(told) < 7:
        return
    parent, pointer_bytes, address, holder_address, ident_offset = map(int, told[:5])
    proc = f"{told[6]}/{parent}"
    while (reason := refusal(proc, parent)) is not None:
        os.write(CHANNEL, REFUSED + reason.encode())
        if os.read(CHANNEL, 64) != AGAIN:
            return
    words = b.Board(MEMORY).words
    sampler = Sampler(
        words,
        proc,
        holder_address=None if holder_address < 0 else holder_address,
        ident_offset=None if ident_offset < 0 else ident_offset,
    )
    sampler.classifier = Classifier(
        table_for(told[5], pointer_bytes),
        gil_address=None if address < 0 else address,
        descriptor=sampler.descriptor,
        memory=sampler.memory,
    )
    os.write(CHANNEL, READY)
    serve(sampler, words, CHANNEL, parent)
