"""What the sampler makes of what it finds, on a board of this process and files that say what the kernel would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from traced_threadpool.waits import board as b
from traced_threadpool.waits.classify import RUNNING, SLEEP, Classifier, table_for
from traced_threadpool.waits.sampler import INTEREST_LOOKS, LEAST_INTEREST, Sampler

RUNS, SLEEPS = "running\n", "230 0x1 0x0 0x7f 0x0 0x0 0x0 0x7f 0x7f\n"
EACH_NS = 1_000
ENOUGH = 4 * INTEREST_LOOKS


class Workers:
    """Threads that are each in a node and do what their file says."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self.words = b.Board().words
        self.sampler = Sampler(self.words, str(proc))
        self.sampler.classifier = Classifier(
            table_for("x86_64", 8), gil_address=None, descriptor=self.sampler.descriptor, memory=self.sampler.memory
        )

    def add(self, *, node: int, does: str) -> int:
        """Another one; returns its row."""
        self.words[b.ROWS] += 1
        row = b.ROW * self.words[b.ROWS]
        self.words[row + b.THREAD] = row
        self.words[row + b.NODE] = b.packed(1, node)
        self.words[row + b.DEPTH] = 1
        self.words[b.SEATING] += 1
        (self._proc / "task" / str(row)).mkdir(parents=True)
        self.now_does(row, does)
        return row

    def now_does(self, row: int, does: str) -> None:
        (self._proc / "task" / str(row) / "syscall").write_text(does)

    def look(self, times: int) -> float:
        """The interest that the last of so many rounds leaves."""
        for now_ns in range(times):
            self.sampler.look(now_ns, EACH_NS)
        return self.sampler.interest


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    found = Workers(tmp_path)
    yield found
    found.sampler.close()


def test_looks_that_find_a_worker_waiting_are_counted(workers: Workers) -> None:
    """Those that find it running stand for time and are no looks, so that it has nothing to read at its node's end."""
    row = workers.add(node=1, does=RUNS)
    workers.look(3)
    assert workers.words[row + b.LOOKS] == 0
    workers.now_does(row, SLEEPS)
    workers.look(2)
    assert workers.words[row + b.LOOKS] == 2
    assert workers.words[row + b.SEEN + RUNNING] == 3 * EACH_NS
    assert workers.words[row + b.SEEN + SLEEP] == 2 * EACH_NS


def test_where_nobody_waits_there_is_little_interest(workers: Workers) -> None:
    """Once enough has been seen of the nodes that run."""
    workers.add(node=1, does=RUNS)
    workers.add(node=2, does=RUNS)
    assert workers.look(1) > 0.9
    assert workers.look(ENOUGH) == LEAST_INTEREST


def test_one_that_waits_among_many_that_run_is_of_full_interest(workers: Workers) -> None:
    """It must not have to do with few looks because of the others; gone, it counts no more."""
    for number in range(1, 8):
        workers.add(node=number, does=RUNS)
    waits = workers.add(node=8, does=SLEEPS)
    assert workers.look(ENOUGH) == pytest.approx(1.0)
    workers.words[waits + b.DEPTH] = 0
    assert workers.look(1) == LEAST_INTEREST


def test_a_node_seen_for_the_first_time_is_of_full_interest(workers: Workers) -> None:
    """Nobody knows yet what it does. The same of a board with nobody in a node: who comes may be worth a look."""
    row = workers.add(node=1, does=RUNS)
    workers.look(ENOUGH)
    workers.words[row + b.NODE] = b.packed(1, 2)
    assert workers.look(1) > 0.9
    workers.look(ENOUGH)
    workers.words[row + b.DEPTH] = 0
    assert workers.look(1) == 1.0


def test_a_node_that_waits_now_and_then_is_of_some_interest(workers: Workers) -> None:
    """From full interest, where it does half of the time, down to the least."""
    row = workers.add(node=1, does=RUNS)

    def interest(one_in: int) -> float:
        found = []
        for number in range(20 * INTEREST_LOOKS):
            workers.now_does(row, RUNS if number % one_in else SLEEPS)
            found.append(workers.look(1))
        return sum(found[-120:]) / 120

    assert interest(2) == pytest.approx(1.0, abs=0.1)
    assert interest(4) == pytest.approx(0.5, abs=0.1)
    assert interest(20) == pytest.approx(LEAST_INTEREST, abs=0.05)
