"""Rounds of samples of another process's workers, added up in shared memory. Runs in a process of its own.

So it needs no GIL of the process that it samples: a sampler that does would see every busy thread waiting,
for it has just made them wait. It is started as `python -I -S`, and imports little.

A sample that comes `d` nanoseconds after the one before stands for `d` nanoseconds. The rounds come as fast as the
budget allows: `Pace` keeps account, so that the first second of work, and short runs, are sampled more often.
Where a worker waits for the GIL, the GIL's own memory says which thread has it.

What a round costs is what decides how many there are. After 10 ms of sleep all that it touches is out of the
CPU's caches, so that code that is not run costs least: a round sleeps in one call, which what is said on the
channel interrupts as a signal would (it is one); files are opened once; a call that means one thing is looked up by its
number alone; and the account is made up every few rounds.
"""

from __future__ import annotations

import contextlib
import os
import sys

from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import GIL, LOCK, RUNNING, Classifier

LEAST_NS = 2_000_000
MOST_NS = 1_000_000_000
SAVINGS_NS = 10_000_000
"""How much CPU time can be saved up, to be spent on more samples."""

FRESH_NS = 1_000_000_000
"""How long the CPU time stolen is taken as known."""

MAX_READINGS = 4_096
MAX_RUNS = 1_000
MAX_HOLDERS = 50


class Pace:
    """How long to wait between rounds so that they cost the budgeted share of a CPU.

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
    """Samples the workers that shared memory names.

    `classifier` is to be set before the first sample: it asks this sampler for descriptors and memory.

    Args:
        words: The shared memory's.
        proc: The folder of the process that is sampled, `/proc/<pid>`.
        holder_address: Where the GIL's holder is, or None.
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
        self._rows_given = 0  # the shared memory's, when the workers were last looked up
        self._workers: list[_Worker] = []  # all but those whose thread has gone
        self._known: dict[int, _Worker] = {}  # the same and those, by row
        self._readings: dict[bytes, int] = {}
        self._fresh_until_ns = 0
        self._round = 0
        self._holders: dict[int, dict[str, int]] = {}
        self.classifier: Classifier

    def close(self) -> None:
        for worker in self._known.values():
            worker.close()
        if self._memory is not None and self._memory >= 0:
            os.close(self._memory)
        self._memory = None

    def is_needed(self) -> bool:
        """Whether anybody is in a node."""
        words = self._words
        return any(words[shm.ROW + shm.DEPTH : shm.ROW * (1 + words[shm.ROWS]) : shm.ROW])

    def sample(self, now_ns: int, stands_for_ns: int) -> bool:
        """One round: whether anybody was in a node."""
        words = self._words
        if words[shm.ROWS_GIVEN] != self._rows_given:
            self._find_workers()
        waiting = None
        found = False
        self._round += 1
        for worker in self._workers:
            if not words[worker.depth_at]:
                continue
            found = True
            descriptor = worker.descriptor
            if descriptor < 0:
                descriptor = self._open(worker)
            try:
                text = os.pread(descriptor, 256, 0)
            except OSError:  # the thread has ended; its id is not looked up again, for it may be another's by now
                self._lose(worker)
                continue
            kind = self.classifier.plain.get(text.partition(b" ")[0])
            if kind is None:
                kind = self._readings.get(text)
                if kind is None:
                    kind = self._classify(text)
                if kind == LOCK:
                    self._note_lock(worker, text, now_ns, stands_for_ns)
                if kind == GIL:
                    waiting = [worker] if waiting is None else [*waiting, worker]
            words[worker.seen_at + kind] += stands_for_ns
            if kind != RUNNING:
                words[worker.samples_at] += 1
        if waiting is not None and self._holder_address is not None:
            self._note_holder(waiting, stands_for_ns)
        if found and now_ns >= self._fresh_until_ns:
            self._refresh(now_ns)
        return found

    def holders(self, run_number: int) -> list[tuple[str, int]]:
        """Who held the GIL while nodes of a run waited for it, and how long they waited. Forgets it."""
        caused = self._holders.pop(run_number, {})
        return sorted(caused.items(), key=lambda item: -item[1])[:MAX_HOLDERS]

    def descriptor(self, number: int) -> str:
        """What a file descriptor of the process is at this moment: the next file to be opened gets its number."""
        try:
            return os.readlink(f"{self._proc}/fd/{number}")  # noqa: PTH115  # pathlib is slow to import
        except OSError:
            return ""

    def _note_lock(self, worker: _Worker, text: bytes, now_ns: int, stands_for_ns: int) -> None:
        """It waits for a lock; in the same call as at the sample before, it still does."""
        words, half_ns = self._words, stands_for_ns // 2
        count_at = worker.row + shm.LOCK_WAITS
        count = words[count_at]
        if worker.lock_round != self._round - 1 or worker.lock_text != text:
            place = worker.row + shm.LOCK_RING + 3 * (count % shm.LOCKS_KEPT)
            try:
                words[place] = int(text.split(b" ", 2)[1], 16)
            except (IndexError, ValueError):
                words[place] = 0
            words[place + 1] = now_ns - half_ns
            count += 1
        place = worker.row + shm.LOCK_RING + 3 * ((count - 1) % shm.LOCKS_KEPT)
        words[place + 2] = now_ns + half_ns
        words[count_at] = count
        worker.lock_round, worker.lock_text = self._round, text

    def _classify(self, text: bytes) -> int:
        kind = self.classifier.classify(text)
        if not self.classifier.asked_descriptor:
            if len(self._readings) >= MAX_READINGS:
                self._readings.clear()
            self._readings[text] = kind
        return kind

    def _find_workers(self) -> None:
        """Workers have come."""
        words = self._words
        self._rows_given = words[shm.ROWS_GIVEN]  # before the rows: one that comes now is found the next time
        for row in range(shm.ROW, shm.ROW * (1 + words[shm.ROWS]), shm.ROW):
            known = self._known.get(row)
            if known is None or known.generation != words[row + shm.GENERATION]:
                if known is not None:
                    known.close()
                self._known[row] = _Worker(row, words[row + shm.GENERATION])
        self._workers = [worker for worker in self._known.values() if not worker.gone]

    def _open(self, worker: _Worker) -> int:
        """At the first sample. A file that cannot be opened is -1, and cannot be read."""
        thread = self._words[worker.row + shm.THREAD]
        with contextlib.suppress(OSError):
            worker.descriptor = os.open(f"{self._proc}/task/{thread}/syscall", os.O_RDONLY | os.O_CLOEXEC)
        return worker.descriptor

    def _lose(self, worker: _Worker) -> None:
        worker.close()
        worker.gone = True
        self._workers = [each for each in self._workers if each is not worker]

    def _refresh(self, now_ns: int) -> None:
        self._fresh_until_ns = now_ns + FRESH_NS
        try:
            with open("/proc/stat", "rb") as file:  # noqa: PTH123  # as above
                ticks = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return
        self._words[shm.TICKS] = sum(ticks)
        self._words[shm.STEAL] = ticks[7] if len(ticks) > 7 else 0

    def _note_holder(self, waiting: list[_Worker], stands_for_ns: int) -> None:
        words = self._words
        assert self._holder_address is not None
        lock = self.memory(self._holder_address, 12)
        if len(lock) < 12 or not int.from_bytes(lock[8:], sys.byteorder):
            return  # nobody has it: one of those who wait is about to
        holder = self._name_holder(int.from_bytes(lock[:8], sys.byteorder))
        for worker in waiting:
            run_number, _ = shm.unpacked(words[worker.row + shm.NODE])
            caused = self._holders.get(run_number)
            if caused is None:
                if len(self._holders) >= MAX_RUNS:
                    del self._holders[next(iter(self._holders))]
                caused = self._holders[run_number] = {}
            caused[holder] = caused.get(holder, 0) + stands_for_ns

    def _name_holder(self, state: int) -> str:
        """`n` and a node's number in shared memory, or `t` and a thread's identifier."""
        words = self._words
        end = shm.ROW * (1 + words[shm.ROWS])
        states = words[shm.ROW + shm.THREAD_STATE : end : shm.ROW].tolist()
        if state in states:
            row = shm.ROW * (1 + states.index(state))
            if words[row + shm.DEPTH]:
                return f"n{shm.unpacked(words[row + shm.NODE])[1]}"
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


class _Worker:
    """A worker, as the sampler knows it: where its words are, and the file that is read."""

    __slots__ = (
        "depth_at",
        "descriptor",
        "generation",
        "gone",
        "lock_round",
        "lock_text",
        "row",
        "samples_at",
        "seen_at",
    )

    def __init__(self, row: int, generation: int) -> None:
        self.row = row
        self.generation = generation
        self.depth_at, self.samples_at, self.seen_at = row + shm.DEPTH, row + shm.SAMPLES, row + shm.SEEN_NS
        self.descriptor = -1
        self.gone = False
        self.lock_round, self.lock_text = -1, b""

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1
