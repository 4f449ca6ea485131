"""Rounds of samples of other processes' workers, added up in shared memory. Runs in a process of its own.

So it needs no GIL of the process that it samples: a sampler that does would see every busy thread waiting,
for it has just made them wait. It is started as `python -I -S`, and imports little.

A sample that comes `d` nanoseconds after the one before stands for `d` nanoseconds. The rounds come as fast as the
budget allows: `Pace` keeps account, so that the first second of work, and short runs, are sampled more often.
Where a worker waits for the GIL, the GIL's own memory says which thread has it.

Threads of worker processes are sampled in the same rounds as the program's own, each in the place of the thread that
waits for it here: they cost no more than that one would. The kernel may refuse to let one be looked at until its
process has allowed it.

What a round costs is what decides how many there are. After 10 ms of sleep all that it touches is out of the
CPU's caches, so that code that is not run costs least: a round sleeps in one call, which what is said on the
channel interrupts as a signal would (it is one); files are opened once; a call that means one thing is looked up by its
number alone; and the account is made up every few rounds.
"""

from __future__ import annotations

import os
import sys
from errno import EACCES, EPERM

from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import GIL, LOCK, RUNNING

TYPE_CHECKING = False  # as in `typing`, the import of which takes long
if TYPE_CHECKING:
    from collections.abc import Callable

    from traced_threadpool.waits.sampled_process import SampledProcess

LEAST_NS = 2_000_000
MOST_NS = 1_000_000_000
SAVINGS_NS = 10_000_000
"""How much CPU time can be saved up, to be spent on more samples."""

FRESH_NS = 1_000_000_000
"""How long the CPU time stolen is taken as known."""

REFUSED_ROUNDS = 8
"""After so many rounds a thread is tried again that could not be looked at."""

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

    Args:
        words: The shared memory's.
        program: The process that is sampled.
        far: Gives the process that a worker's row names by its id, and where its interpreter's data are.
        holder_address: Where the GIL's holder is, or None.
        ident_offset: Where a thread state has the thread's identifier, or None.
    """

    def __init__(
        self,
        words: memoryview[int],
        program: SampledProcess,
        *,
        far: Callable[[int, int], SampledProcess] | None = None,
        holder_address: int | None = None,
        ident_offset: int | None = None,
    ) -> None:
        self._words = words
        self._program = program
        self._far = far
        self._plain = program.plain
        self._holder_address = holder_address
        self._ident_offset = ident_offset
        self._rows_given = 0  # the shared memory's, when the workers were last looked up
        self._workers: list[_Worker] = []  # all but those whose thread has gone
        self._known: dict[int, _Worker] = {}  # the same and those, by row
        self._refused: list[_Worker] = []  # those that cannot be looked at yet
        self._fresh_until_ns = 0
        self._round = 0
        self._holders: dict[int, dict[str, int]] = {}

    def close(self) -> None:
        for worker in self._known.values():
            worker.close()
        self._program.close()

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
        if self._refused and not self._round % REFUSED_ROUNDS:
            self._workers += self._refused
            self._refused = []
        for worker in self._workers:
            depth = words[worker.depth_at]
            if not depth:
                continue
            found = True
            if depth >= shm.AWAY:
                continue
            descriptor = worker.descriptor
            try:
                if descriptor < 0:
                    descriptor = self._open(worker)
                text = os.pread(descriptor, 256, 0)
            except OSError as error:
                self._lose(worker, error)
                continue
            kind = self._plain.get(text.partition(b" ")[0])
            if kind is None:
                kind = worker.process.classify(text)
                # Whose lock a worker process waits for, and who has its GIL, nobody here could name.
                if kind == LOCK and not worker.is_far:
                    self._note_lock(worker, text, now_ns, stands_for_ns)
                if kind == GIL and not worker.is_far:
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

    def _find_workers(self) -> None:
        """Workers have come."""
        words = self._words
        self._rows_given = words[shm.ROWS_GIVEN]  # before the rows: one that comes now is found the next time
        for row in range(shm.ROW, shm.ROW * (1 + words[shm.ROWS]), shm.ROW):
            known = self._known.get(row)
            if known is None or known.generation != words[row + shm.GENERATION]:
                if known is not None:
                    known.close()
                self._known[row] = _Worker(row, words[row + shm.GENERATION], self._program)
        self._workers = [worker for worker in self._known.values() if not worker.gone]
        self._refused = []

    def _open(self, worker: _Worker) -> int:
        """At the first sample. Raises OSError."""
        words, row = self._words, worker.row
        thread, process = words[row + shm.THREAD], words[row + shm.PROCESS]
        if process and not worker.is_far and self._far is not None:
            # It is in a function, so that it has said where its interpreter is.
            worker.process, worker.is_far = self._far(process, words[row + shm.RUNTIME]), True
        worker.descriptor = os.open(f"{worker.process.proc}/task/{thread}/syscall", os.O_RDONLY | os.O_CLOEXEC)
        return worker.descriptor

    def _lose(self, worker: _Worker, error: OSError) -> None:
        """A thread that has ended is not looked up again, for its id may be another's by now."""
        self._workers = [each for each in self._workers if each is not worker]
        if worker.is_far and error.errno in (EACCES, EPERM):
            self._refused.append(worker)
        else:
            worker.close()
            worker.gone = True

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
        lock = self._program.memory(self._holder_address, 12)
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
        ident = b"" if self._ident_offset is None else self._program.memory(state + self._ident_offset, 8)
        return f"t{int.from_bytes(ident, sys.byteorder)}"


class _Worker:
    """A worker, as the sampler knows it: where its words are, and the file that is read."""

    __slots__ = (
        "depth_at",
        "descriptor",
        "generation",
        "gone",
        "is_far",
        "lock_round",
        "lock_text",
        "process",
        "row",
        "samples_at",
        "seen_at",
    )

    def __init__(self, row: int, generation: int, process: SampledProcess) -> None:
        self.row = row
        self.generation = generation
        self.process = process
        self.is_far = False
        self.depth_at, self.samples_at, self.seen_at = row + shm.DEPTH, row + shm.SAMPLES, row + shm.SEEN_NS
        self.descriptor = -1
        self.gone = False
        self.lock_round, self.lock_text = -1, b""

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1
        if self.is_far:
            self.process.close()
