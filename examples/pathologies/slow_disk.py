"""Payments of four branches, each of them on the disk before the next is taken.

What is wrong: every payment is a write and an `fsync` of its own, and a disk needs its time for each, however small
it is. The threads wait for the disk side by side, and it has one queue.

The cure: group commit. Write what has gathered and sync once for all of it, or leave both to a database that does. A
disk with a protected cache is quicker, too; more workers are not, since they wait for the same disk.

How many payments there are is measured beforehand: as many as this disk can sync in a few seconds.
"""

import itertools
import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from .families import each, together
from .pathology import Amount, Pathology
from .program import main

BRANCHES = ("bergen", "drammen", "hamar", "molde")
SECONDS = 4.0
PROBE_SECONDS = 0.2
BLOCK_BYTES = 4_096  # what a disk writes at once, and O_DIRECT asks for
BLOCKS = 2_048  # a journal is a ring: after these it begins again
REAL_DISK_SECONDS = 20e-6  # an fsync that takes less did not go to a disk
PAYMENT = struct.Struct("<QQ")


class Journal:
    """A ring of payments in a file. What has been appended is on the disk."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT
        self._appended = 0
        self._block = mmap.mmap(-1, BLOCK_BYTES)  # aligned to a page, as O_DIRECT wants it
        try:
            self._file = os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o600)
        except OSError:  # a file system without it: the cache is written to, and synced all the same
            self._file = os.open(path, flags, 0o600)

    def append(self, cents: int) -> None:
        """Write one payment and wait until it is on the disk."""
        PAYMENT.pack_into(self._block, 0, self._appended, cents)
        os.lseek(self._file, self._appended % BLOCKS * BLOCK_BYTES, os.SEEK_SET)
        os.write(self._file, self._block)
        os.fsync(self._file)
        self._appended += 1

    def close(self) -> None:
        """Give the file up."""
        os.close(self._file)
        self._block.close()


@each(BRANCHES, "journal_{}", branch="{}")
def journal_of_branch(folder: Path, payments: dict[str, int], branch: str) -> Path:
    """Take the branch's payments, and each into the journal before the next."""
    path = folder / f"{branch}.journal"
    with closing(Journal(path)) as journal:
        for number in range(payments[branch]):
            journal.append(100 + number % 90_000)
    return path


@each(BRANCHES, "audit_{}", journal="journal_{}")
def audit_of_branch(journal: Path) -> tuple[int, int]:
    """The latest payments in the journal: how many, and their sum."""
    found = [PAYMENT.unpack_from(block) for block in _blocks(journal)]
    newest = max(number for number, _ in found)
    if sorted(number for number, _ in found) != list(range(newest + 1 - len(found), newest + 1)):
        raise ValueError(f"{journal.name} does not hold its {len(found):,} latest payments up to {newest:,}")
    return len(found), sum(cents for _, cents in found)


@together(BRANCHES, audits="audit_{}")
def balance(audits: list[tuple[int, int]]) -> dict[str, float]:
    return {branch: cents / 100 for branch, (_, cents) in zip(BRANCHES, audits, strict=True)}


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    with tempfile.TemporaryDirectory(prefix="pathologies-", dir=_on_a_disk()) as name:
        folder = Path(name)
        each_branch = _appends_per_second(folder) * SECONDS
        yield {"folder": folder, "payments": amount.shares(BRANCHES, each_branch)}


def _blocks(journal: Path) -> Iterator[bytes]:
    with journal.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _on_a_disk() -> str:
    """A place for temporary files where `fsync` takes time; in memory it does nothing."""
    usual = tempfile.gettempdir()
    for place in (usual, "/var/tmp", str(Path.cwd())):
        with suppress(OSError), tempfile.TemporaryDirectory(prefix="pathologies-", dir=place) as name:
            if min(_append_seconds(Path(name) / "probe", appends=5)) > REAL_DISK_SECONDS:
                return place
    return usual


def _append_seconds(path: Path, *, appends: int) -> list[float]:
    with closing(Journal(path)) as journal:
        times = [time.perf_counter()]
        for number in range(appends):
            journal.append(number)
            times.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(times)]


def _appends_per_second(folder: Path) -> float:
    """Of each journal, while all of them are written side by side."""

    def appends(number: int) -> int:
        path = folder / f"probe-{number}"
        end = time.monotonic() + PROBE_SECONDS
        done = 0
        with closing(Journal(path)) as journal:
            while time.monotonic() < end:
                journal.append(done)
                done += 1
        path.unlink()
        return done

    with ThreadPoolExecutor(len(BRANCHES)) as threads:
        return sum(threads.map(appends, range(len(BRANCHES)))) / len(BRANCHES) / PROBE_SECONDS


PATHOLOGY = Pathology(output="balance", workers=4, inputs=_inputs)

if __name__ == "__main__":
    sys.exit(main("slow_disk"))
