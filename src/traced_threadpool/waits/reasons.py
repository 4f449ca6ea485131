"""Why states are not fully known here: one word each for telemetry, one sentence each for the log.

>>> REASONS["free_threaded"]
'this interpreter has no GIL, so nothing waits for it'
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from traced_threadpool.model import forks

logger = logging.getLogger("traced_threadpool")

REASONS: Final = {
    "warming_up": "nodes have not been running for long enough to start the sampler",
    "unsupported_platform": "threads cannot be sampled on this platform",
    "unknown_architecture": "no system-call table for this CPU architecture",
    "subinterpreter": "a subinterpreter may start no process",
    "no_interpreter": "the path of a Python interpreter to run the sampler with is not known",
    "proc_unreadable": "the kernel does not let one process see the system calls of another here",
    "gil_not_found": "the GIL could not be told from other locks, so time waiting for any is in `other`",
    "runqueue_unknown": "the kernel does not tell how long each worker waited for a CPU, so it is in `other`",
    "too_many_workers": "there are more workers than can be sampled; the waits of the others are in `other`",
    "free_threaded": "this interpreter has no GIL, so nothing waits for it",
    "no_init": "a sampler would become a child of this program, or stay behind as a zombie, so there is none",
    "is_init": "this program is pid 1, so the sampler is its child; it ends when the program waits for any child",
    "sampler_failed": "the sampler could not be started, or has ended",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How the states of a node's time are found out: `process`, or `none`; and what is missing, by `REASONS`.

    Of several reasons the gravest is first, with commas between them.
    """

    method: str
    reason: str | None = None


class Notices:
    """Reasons for the log, each once in a process. They wait until no lock is held: handlers may do anything."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._waiting: deque[tuple[str, object]] = deque()

    def add(self, reason: str, detail: object = None) -> None:
        self._waiting.append((reason, detail))

    def log(self) -> None:
        while self._waiting:
            try:
                reason, detail = self._waiting.popleft()
            except IndexError:  # another thread logs it
                return
            if reason not in self._logged:
                self._logged.add(reason)
                shown = "" if detail is None else f" ({detail})"
                logger.info("where nodes wait is not fully known: %s%s", REASONS[reason], shown)

    def reset_after_fork(self) -> None:
        self._logged = forks.kept_in_child(self._logged, set())
        self._waiting = deque()


def why_unsupported() -> str:
    """A reason why nothing can be sampled here; empty where that is not known."""
    if not sys.platform.startswith("linux") or not hasattr(os, "memfd_create"):
        return "unsupported_platform"
    return "subinterpreter" if in_subinterpreter() else ""


def has_gil() -> bool:
    """Whether this interpreter has one, and it is in use."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def in_subinterpreter() -> bool:
    """Whether this is not the main interpreter of the process."""
    return _IN_SUBINTERPRETER


def _is_subinterpreter() -> bool:
    for module in ("_interpreters", "_xxsubinterpreters"):  # from 3.13, and before
        try:
            interpreters = __import__(module)
            return int(_id_of(interpreters.get_current())) != int(_id_of(interpreters.get_main()))
        except ImportError:
            continue
    return False


def _id_of(interpreter: Any) -> Any:
    return interpreter[0] if isinstance(interpreter, tuple) else interpreter


# Found once: a forked child that imports what another thread of its parent's was importing waits for ever.
_IN_SUBINTERPRETER: Final = _is_subinterpreter()
