"""A process as the sampler reads it: what its threads' readings mean there, its descriptors and its memory.

The sampler's process imports this at its start.
"""

from __future__ import annotations

import os

from traced_threadpool.waits.classify import Classifier

TYPE_CHECKING = False  # as in `typing`, the import of which takes long
if TYPE_CHECKING:
    from traced_threadpool.waits.classify import Table

MAX_READINGS = 4_096


class SampledProcess:
    """One process.

    Args:
        proc: Its folder, `/proc/<pid>`.
        table: The calls of its machine.
        gil_address: As `Classifier` takes it.
    """

    def __init__(self, proc: str, table: Table, *, gil_address: int | None) -> None:
        self.proc = proc
        self._classifier = Classifier(table, gil_address=gil_address, descriptor=self._descriptor, memory=self.memory)
        self.plain = self._classifier.plain
        """As the classifier's: the same for all processes of the machine."""
        self._readings: dict[bytes, int] = {}
        self._memory: int | None = None  # its descriptor, -1 where it cannot be read

    def classify(self, text: bytes) -> int:
        """What a thread does, by one reading."""
        kind = self._readings.get(text)
        if kind is None:
            kind = self._classifier.classify(text)
            if not self._classifier.asked_descriptor:
                if len(self._readings) >= MAX_READINGS:
                    self._readings.clear()
                self._readings[text] = kind
        return kind

    def _descriptor(self, number: int) -> str:
        """What a file descriptor of the process is at this moment: the next file to be opened gets its number."""
        try:
            return os.readlink(f"{self.proc}/fd/{number}")  # noqa: PTH115  # pathlib is slow to import
        except OSError:
            return ""

    def memory(self, address: int, length: int) -> bytes:
        """What is at an address of the process; empty where it cannot be read."""
        if self._memory is None:
            try:
                self._memory = os.open(f"{self.proc}/mem", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._memory = -1
        try:
            return os.pread(self._memory, length, address)
        except (OSError, OverflowError, ValueError):
            return b""

    def close(self) -> None:
        if self._memory is not None and self._memory >= 0:
            os.close(self._memory)
        self._memory = None


def gil_there(runtime: int, *, gil_address: int | None, own_runtime: int, no_gil: int) -> int | None:
    """Where the GIL of a process is that runs the same interpreter: as far into the interpreter's own data.

    Args:
        runtime: Where these data are, as that process says: 0 unknown, `no_gil` if it has no GIL.
        gil_address: Where this program's GIL is, None unknown, 0 if it has none.
        own_runtime: Where this program's data are, 0 unknown.
        no_gil: What stands for a process without a GIL.

    >>> hex(gil_there(0x9000, gil_address=0x5040, own_runtime=0x5000, no_gil=1))
    '0x9040'
    >>> [gil_there(where, gil_address=0x5040, own_runtime=0x5000, no_gil=1) for where in (0, 1)]
    [None, 0]
    """
    if runtime == no_gil:
        return 0
    return gil_address - own_runtime + runtime if runtime and gil_address and own_runtime else None
