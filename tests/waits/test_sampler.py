"""What the sampler makes of what it finds, in memory of this process and files that say what the kernel would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import RUNNING, SLEEP, Classifier, table_for
from traced_threadpool.waits.sampler import Sampler

RUNS, SLEEPS = "running\n", "230 0x1 0x0 0x7f 0x0 0x0 0x0 0x7f 0x7f\n"
EACH_NS = 1_000


class Workers:
    """Threads that are each in a node and do what their file says."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self.words = shm.SharedMemory().words
        self.sampler = Sampler(self.words, str(proc))
        self.sampler.classifier = Classifier(
            table_for("x86_64", 8), gil_address=None, descriptor=self.sampler.descriptor, memory=self.sampler.memory
        )

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
