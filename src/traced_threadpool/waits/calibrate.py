"""A few held waits into the address of the GIL, and where the name of its holder is kept.

A second thread sleeps for moments. This thread holds the lock over a call that the second one sleeps less long than:
so it must be waiting for the lock, and the kernel says at which address. Two equal answers decide, if the structure
there can be checked to be the lock's; four, if it cannot.

The lock's structure (CPython's `_gil_runtime_state`) also has the thread state of its last holder. That word is looked
for near the address: it must equal each thread's own state while that thread runs. So it is found out, not assumed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

VOTES: Final = 4
VOTES_CONFIRMED: Final = 2
TRIES: Final = 24
HOLD_MICROSECONDS: Final = 600
MOST_HELD_MICROSECONDS: Final = 5_000
"""How long the lock is held at most for one sample, where the second thread has to wait for a CPU first. It is the
time that any thread may keep the lock for (`sys.getswitchinterval`)."""

NAP_SECONDS: Final = 0.0002
RUNTIME_BYTES: Final = 4 << 20  # an upper bound for the size of _PyRuntime, in which the lock lies
NEAR_BYTES: Final = 256  # around the lock's address, where its holder is looked for
STATE_BYTES: Final = 1024  # of a thread state, in which the thread's identifier is looked for


class NoCalibration(Exception):
    """The lock's address could not be found out; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Where the GIL is.

    `holder_address` is the word with the thread state of who had the lock last, followed by a word that is 1 while it
    is held; `ident_offset` is where a thread state has `threading.get_ident()`. None: not found.
    """

    address: int
    holder_address: int | None = None
    ident_offset: int | None = None


def calibrate(*, proc: Path = Path("/proc")) -> Lock:
    """Finds the GIL of this process. Takes some milliseconds, for part of which it holds the lock.

    Args:
        proc: Where the kernel's `proc` is mounted.

    Raises:
        NoCalibration: It cannot be found here.
    """
    own_state = thread_state_address()
    try:
        import ctypes

        keeping = ctypes.PyDLL(None)  # calls that keep the lock
        runtime = _runtime_address()
        read, napper_read = _reader(keeping), _reader(keeping)  # each thread has a buffer of its own
        hold = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_uint)(("usleep", keeping))
    except (ImportError, OSError, AttributeError, ValueError) as error:
        raise NoCalibration(f"the interpreter's own symbols are not available ({error})") from None
    futex = b"202" if platform.machine() == "x86_64" else b"98"  # the generic table's
    napper = _Napper(proc, napper_read)
    with napper, _opened(proc / "self" / "task" / str(napper.native_id) / "syscall") as sampled:
        votes: Counter[int] = Counter()
        microseconds = HOLD_MICROSECONDS
        for _ in range(TRIES):
            time.sleep(0)  # lets the other thread have its nap
            hold(microseconds)
            text = read(sampled, 256, 0)
            if text.startswith(b"running"):  # or about to, on a machine that has no CPU for it
                microseconds = min(MOST_HELD_MICROSECONDS, 3 * microseconds // 2)
            word = _futex_word(text, futex)
            if word is not None and 0 <= word - runtime < RUNTIME_BYTES:
                word &= ~7
                votes[word] += 1
                if votes[word] == VOTES_CONFIRMED:
                    found = _with_holder(word, napper, own_state, read)
                    if found.holder_address is not None:
                        return found
                if votes[word] == VOTES:
                    return Lock(address=word)
    raise NoCalibration(f"no address had a majority: {sum(votes.values())} of {TRIES} samples saw a wait for the GIL")


def _with_holder(address: int, napper: _Napper, own_state: int, read: Callable[[int, int, int], bytes]) -> Lock:
    """Adds where the holder is found, if both threads agree on it."""
    try:
        with _opened(napper.proc / "self" / "mem") as memory:
            near = address - NEAR_BYTES // 2
            own_words = set(_words_equal(read(memory, NEAR_BYTES, near), own_state))
            own_idents = set(_words_equal(read(memory, STATE_BYTES, own_state), threading.get_ident()))
            other_words, other_idents = napper.ask(memory, near)
            words = sorted(own_words & other_words)
            idents = sorted(own_idents & other_idents)
    except (OSError, NoCalibration):
        return Lock(address=address)
    if not words:
        return Lock(address=address)
    return Lock(address=address, holder_address=near + words[0], ident_offset=idents[0] if idents else None)


class _Napper:
    """A thread that sleeps for moments, and says what it sees of itself when asked."""

    def __init__(self, proc: Path, read: Callable[[int, int, int], bytes]) -> None:
        self.proc = proc
        self.native_id = 0
        self._read = read
        self._started = threading.Event()
        self._answered = threading.Event()
        self._stopping = False
        self._question: tuple[int, int] | None = None
        self._answer: tuple[set[int], set[int]] = (set(), set())
        self._thread = threading.Thread(target=self._nap, name="traced-threadpool-calibration", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()
        self._started.wait()

    def __exit__(self, *exc_info: object) -> None:
        self._stopping = True
        self._thread.join()

    def ask(self, memory: int, near: int) -> tuple[set[int], set[int]]:
        self._question = (memory, near)
        self._answered.wait(1.0)
        return self._answer

    def _nap(self) -> None:
        self.native_id = threading.get_native_id()
        self._started.set()
        while not self._stopping:
            time.sleep(NAP_SECONDS)
            if self._question is not None:
                memory, near = self._question
                self._question = None
                with contextlib.suppress(OSError):
                    state = thread_state_address()
                    self._answer = (
                        set(_words_equal(self._read(memory, NEAR_BYTES, near), state)),
                        set(_words_equal(self._read(memory, STATE_BYTES, state), threading.get_ident())),
                    )
                self._answered.set()


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoCalibration(f"{path} cannot be opened ({error.strerror})") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def thread_state_address() -> int:
    """Of the calling thread's state in the interpreter.

    Raises:
        NoCalibration: There is no way to ask.
    """
    try:
        import ctypes

        return ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThreadState_Get", ctypes.pythonapi))() or 0
    except (ImportError, AttributeError) as error:
        raise NoCalibration(f"the interpreter's own symbols are not available ({error})") from None


def runtime_address() -> int:
    """Where this interpreter's own data begins, in which the GIL is; 0 where there is no way to ask."""
    try:
        return _runtime_address()
    except (ImportError, OSError, AttributeError, ValueError):
        return 0


def _runtime_address() -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))


def _reader(keeping: Any) -> Callable[[int, int, int], bytes]:
    """`pread` that keeps the lock: `os.pread` would release it, and then wait for it."""
    import ctypes

    prototype = ctypes.PYFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
    pread = prototype(("pread", keeping))
    buffer = ctypes.create_string_buffer(max(NEAR_BYTES, STATE_BYTES))

    def read(descriptor: int, length: int, offset: int) -> bytes:
        got = pread(descriptor, buffer, length, offset)
        return buffer.raw[:got] if got > 0 else b""

    return read


def _futex_word(text: bytes, number: bytes) -> int | None:
    """The address that a thread waits at, if it is in the call of this number, that of `futex`.

    >>> hex(_futex_word(b"202 0x7f0000a0 0x189 0x0 0x7ffe 0x0 0xffffffff 0x7ffd 0x7f", b"202"))
    '0x7f0000a0'
    """
    fields = text.split()
    return int(fields[1], 16) if len(fields) == 9 and fields[0] == number else None


def _words_equal(memory: bytes, value: int) -> list[int]:
    """Offsets of the aligned words with this value."""
    words = struct.unpack(f"{len(memory) // 8}Q", memory[: len(memory) // 8 * 8])
    return [8 * index for index, word in enumerate(words) if word == value]
