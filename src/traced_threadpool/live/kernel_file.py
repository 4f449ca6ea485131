"""A file of the kernel's, as `/proc/self/status`, into its bytes, without a turn at the GIL.

`os.open`, `os.read` and `os.close` each let go of the GIL and queue for it again, for a call of microseconds. Beside C
code that keeps the GIL for 120 ms at a time, one such file takes 360 ms. The same calls through `ctypes.PyDLL` keep it.

>>> read_kernel_file("/nowhere")
b''
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Final

MOST_BYTES: Final = 4096
"""Of a file, what is read of it."""


def read_kernel_file(path: str) -> bytes:
    """The first 4096 bytes of the file; empty where it cannot be read."""
    return _reader()(path)


@functools.cache
def _reader() -> Callable[[str], bytes]:
    if not sys.platform.startswith("linux"):
        return _read_by_os
    try:
        return _keeping_the_gil()
    except (ImportError, OSError, AttributeError):  # a Python without ctypes, or an unusual C library
        return _read_by_os


def _read_by_os(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return b""
    try:
        return os.read(file, MOST_BYTES)
    except OSError:
        return b""
    finally:
        os.close(file)


def _keeping_the_gil() -> Callable[[str], bytes]:
    import ctypes

    library = ctypes.PyDLL(None)
    open_file = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int)(("open", library))
    read_file = ctypes.PYFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(("read", library))
    close_file = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int)(("close", library))
    flags = os.O_RDONLY | os.O_CLOEXEC

    def read(path: str) -> bytes:
        file = open_file(os.fsencode(path), flags)
        if file < 0:
            return b""
        try:
            buffer = ctypes.create_string_buffer(MOST_BYTES)
            count = read_file(file, buffer, MOST_BYTES)
        finally:
            close_file(file)
        return ctypes.string_at(buffer, count) if count > 0 else b""

    return read
