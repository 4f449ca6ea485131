"""Nodes for worker processes, which import this module: it imports nothing that takes long."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path


def write(path: str) -> None:
    """Says that the node runs, and in which process: a file that is there is whole."""
    Path(f"{path}-new").write_text(str(os.getpid()))
    Path(f"{path}-new").rename(path)


def ready() -> int:
    return 1


def sleeps(path: str) -> int:
    write(path)
    while True:
        time.sleep(0.01)


def keeps_the_gil(path: str) -> int:
    write(path)
    ctypes.PyDLL(None).sleep(60)
    return 1
