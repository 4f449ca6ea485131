"""`shim.c` into a library, a command that runs under it, and, inside of that, what it measured so far.

    library = build(directory)
    subprocess.run(command(library, sys.executable, "-m", "something"))

and in `something`:

    instrument = Instrument()
    before = instrument.read()
    ...
    truth = between(before, instrument.read())  # of this thread
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from traced_threadpool.model.states import STATES, State

SOURCE: Final = Path(__file__).with_name("shim.c")
COMPILERS: Final = ("cc", "gcc", "clang")

# As the shim writes them: the clock, two states measured as they are, and the states of `enum state`.
_FIELDS: Final = ("wall", "cpu", "runqueue", "gil", "network", "disk", "lock", "sleep", "other")
_Buffer = ctypes.c_int64 * len(_FIELDS)

Reading = tuple[int, ...]
"""This thread's time so far: `_FIELDS`, in nanoseconds from some beginning."""


class NoInstrumentError(RuntimeError):
    """The shim cannot be built or does not work here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Where a stretch of a thread's time went: `states_ns` add up to `wall_ns`.

    `unexplained_ns` is the part of `other` that passed outside of every call that the shim knows.
    """

    wall_ns: int
    states_ns: Mapping[State, int]
    unexplained_ns: int


def missing() -> str | None:
    """Why there can be no instrument here, or None."""
    if sys.platform != "linux":
        return f"the shim is for Linux, not {sys.platform}"
    if _compiler() is None:
        return f"no C compiler: none of {', '.join(COMPILERS)} is on PATH"
    if not Path("/proc/thread-self/schedstat").exists():
        return "this kernel has no /proc/thread-self/schedstat"
    return None


def build(directory: Path) -> Path:
    """Compile the shim into `directory`; return the library's path.

    Raises:
        NoInstrumentError: It can't be; the message says why.
    """
    compiler = _compiler()
    if (reason := missing()) is not None or compiler is None:
        raise NoInstrumentError(reason)
    library = directory / "truth_shim.so"
    done = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NoInstrumentError(f"{compiler} could not compile {SOURCE}:\n{done.stderr}")
    return library


def command(library: Path, *arguments: str) -> list[str]:
    """The command that runs another one under the shim. The shell becomes the program, so their process is the same."""
    return ["/bin/sh", "-c", 'TRUTH_SHIM_PID=$$ LD_PRELOAD=$0 exec "$@"', str(library), *arguments]


def between(before: Reading, after: Reading) -> Truth:
    """Where the time between two readings of one thread went.

    >>> between((0, 0, 0, 0, 0, 0, 0, 0, 0), (100, 50, 10, 0, 0, 0, 0, 30, 4)).states_ns["other"]
    10
    """
    wall, *parts = (late - early for early, late in zip(before, after, strict=True))
    states: dict[State, int] = dict.fromkeys(STATES, 0)
    states.update(zip(_FIELDS[1:], parts, strict=True))
    unexplained = wall - sum(parts)
    states["other"] += unexplained
    return Truth(wall_ns=wall, states_ns=states, unexplained_ns=unexplained)


class Instrument:
    """The shim of this process.

    Raises:
        NoInstrumentError: This process was not started by `command`, or the shim cannot work in this Python.
    """

    def __init__(self) -> None:
        # PyDLL keeps the GIL: CDLL would release it, and the reading would change what it reads.
        library = ctypes.PyDLL(None)
        if not hasattr(library, "truth_active") or not library.truth_active():
            raise NoInstrumentError(
                "the shim is not active: expected a process started by benchmarks.truth.instrument.command, "
                "and a Python whose symbol `_PyRuntime` is visible"
            )
        self._library = library
        self._read = library.truth_read
        self._read.argtypes = [ctypes.POINTER(ctypes.c_int64)]
        self._read.restype = None

    def read(self) -> Reading:
        """This thread's time so far."""
        buffer = _Buffer()
        self._read(buffer)
        return tuple(buffer)


def without(truth: Truth, aside: Truth) -> Truth:
    """The same with all of a stretch within it as `other`."""
    states = {state: truth.states_ns[state] - aside.states_ns[state] for state in STATES}
    states["other"] += aside.wall_ns
    return Truth(wall_ns=truth.wall_ns, states_ns=states, unexplained_ns=truth.unexplained_ns - aside.unexplained_ns)


def _compiler() -> str | None:
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)
