"""What the sampler makes of what it finds, in memory of this process and files that say what the kernel would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EPERM, ESRCH
from pathlib import Path

import pytest

from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import GIL, LOCK, RUNNING, SLEEP, table_for
from traced_threadpool.waits.sampled_process import SampledProcess
from traced_threadpool.waits.sampler import REFUSED_ROUNDS, Sampler

RUNS, SLEEPS = "running\n", "230 0x1 0x0 0x7f 0x0 0x0 0x0 0x7f 0x7f\n"
EACH_NS = 1_000


class Workers:
    """Threads that are each in a node and do what their file says."""

    def __init__(self, proc: Path, far: Callable[[int, int], SampledProcess] | None = None) -> None:
        self._proc = proc
        self.words = shm.SharedMemory().words
        self.sampler = Sampler(self.words, SampledProcess(str(proc), table_for("x86_64", 8), gil_address=None), far=far)

    def add(self, *, node: int, does: str) -> int:
        """Another one; returns its row."""
        self.words[shm.ROWS] += 1
        row = shm.ROW * self.words[shm.ROWS]
        self.words[row + shm.THREAD] = row
        self.words[row + shm.NODE] = shm.packed(1, node)
        self.words[row + shm.DEPTH] = 1
        self.words[shm.ROWS_GIVEN] += 1
        (self._proc / "task" / str(row)).mkdir(parents=True)
        self.now_does(row, does)
        return row

    def now_does(self, row: int, does: str) -> None:
        (self._proc / "task" / str(row) / "syscall").write_text(does)

    def sample(self, times: int) -> None:
        for now_ns in range(times):
            self.sampler.sample(now_ns, EACH_NS)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    found = Workers(tmp_path)
    yield found
    found.sampler.close()


def test_samples_that_find_a_worker_waiting_are_counted(workers: Workers) -> None:
    """Those that find it running only stand for time, so that it has nothing to read at its node's end."""
    row = workers.add(node=1, does=RUNS)
    workers.sample(3)
    assert workers.words[row + shm.SAMPLES] == 0
    workers.now_does(row, SLEEPS)
    workers.sample(2)
    assert workers.words[row + shm.SAMPLES] == 2
    assert workers.words[row + shm.SEEN_NS + RUNNING] == 3 * EACH_NS
    assert workers.words[row + shm.SEEN_NS + SLEEP] == 2 * EACH_NS


class Far:
    """Beside them a worker process' thread, whose files are elsewhere."""

    def __init__(self, proc: Path) -> None:
        self.here, self.there = proc / "here", proc / "there"
        self.workers = Workers(self.here, far=self._process)
        self.asked: list[tuple[int, int]] = []
        self.row = self.workers.add(node=1, does=SLEEPS)
        self.workers.words[self.row + shm.PROCESS] = 77
        self.workers.words[self.row + shm.RUNTIME] = 0x9000

    def _process(self, process: int, runtime: int) -> SampledProcess:
        self.asked.append((process, runtime))
        return SampledProcess(str(self.there), table_for("x86_64", 8), gil_address=0x9040)

    def does(self, text: str) -> None:
        folder = self.there / "task" / str(self.row)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "syscall").write_text(text)

    def seen_ns(self, kind: int) -> int:
        return self.workers.words[self.row + shm.SEEN_NS + kind]


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    found = Far(tmp_path)
    yield found
    found.workers.sampler.close()


def test_a_thread_of_another_process_is_read_there(far: Far) -> None:
    """With that process's GIL, which is no lock; nobody here is told to hold it, or is looked for at a lock."""
    far.does("202 0x9044 0x89 0x0 0x7e10 0x0 0xffffffff 0x7e00 0x7d00")
    far.workers.sample(2)
    assert far.asked == [(77, 0x9000)]
    assert far.seen_ns(GIL) == 2 * EACH_NS
    far.does("202 0x7000 0x89 0x0 0x7e10 0x0 0xffffffff 0x7e00 0x7d00")
    far.workers.sample(1)
    assert far.seen_ns(LOCK) == EACH_NS
    assert far.workers.words[far.row + shm.LOCK_WAITS] == 0
    assert far.workers.sampler.holders(1) == []


def test_who_only_waits_for_another_process_is_not_read(workers: Workers) -> None:
    """It is in a node all the same, so that the rounds go on."""
    row = workers.add(node=1, does=SLEEPS)
    workers.words[row + shm.DEPTH] |= shm.AWAY
    assert workers.sampler.sample(1, EACH_NS)
    assert workers.words[row + shm.SAMPLES] == 0
    workers.words[row + shm.DEPTH] &= shm.AWAY - 1
    workers.sample(1)
    assert workers.words[row + shm.SAMPLES] == 1


def test_a_process_that_may_not_be_read_is_tried_again(far: Far) -> None:
    """It may have been asked to allow it, and not have come to that; one that has ended is not."""
    refusing = far.workers.sampler
    far.does(SLEEPS)
    far.workers.sample(1)
    (worker,) = refusing._workers
    refusing._lose(worker, PermissionError(EPERM, "not yet"))
    assert refusing._workers == []
    far.workers.sample(REFUSED_ROUNDS)
    assert refusing._workers == [worker]
    assert far.seen_ns(SLEEP) >= 2 * EACH_NS
    refusing._lose(worker, ProcessLookupError(ESRCH, "gone"))
    before_ns = far.seen_ns(SLEEP)
    far.workers.sample(2 * REFUSED_ROUNDS)
    assert far.seen_ns(SLEEP) == before_ns
