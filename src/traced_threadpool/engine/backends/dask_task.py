"""A node's task on a Dask cluster, for whoever looks at it while it runs: where it is, and its Python stack.

What tells the stack is `distributed` itself, as for `Client.call_stack`, by a thread of the worker's that the node does
not hold up, unless C code in the node keeps the GIL there. Lines come without their source.
"""

from __future__ import annotations

import platform
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

PATIENCE_SECONDS: Final = 2.0
AGE_SECONDS: Final = 0.2
"""For how long what the cluster has told is told again: one request is for all nodes on it."""

_FRAME: Final = re.compile(r'\s*File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<name>.*)')
_OWN_CODE: Final = re.compile(r"[/\\]traced_threadpool[/\\]engine[/\\]")

Stack = tuple[str, ...]


class Stacks:
    """Asks a cluster for the stacks of tasks, and remembers them for a moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[float, Mapping[str, Stack]] = (0.0, {})

    def of(self, client: Any, key: str, running: Callable[[], Collection[str]]) -> Stack | None:
        """A task's calls, innermost last; None where the cluster does not tell.

        Args:
            client: The client of the cluster.
            key: The task.
            running: Gives the keys of all tasks that may be asked for next.
        """
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            return None
        try:
            at, stacks = self._known
            if time.monotonic() > at + AGE_SECONDS or key not in stacks:
                stacks = self._ask(client, running())
                self._known = (time.monotonic(), stacks)
        except Exception:  # a worker or the scheduler is gone, or a task has just ended
            return None
        finally:
            self._lock.release()
        return stacks.get(key)

    @staticmethod
    def _ask(client: Any, keys: Collection[str]) -> Mapping[str, Stack]:
        told = client.sync(client.scheduler.call_stack, keys=list(keys), callback_timeout=PATIENCE_SECONDS)
        return {key: node_calls(frames) for of_worker in told.values() for key, frames in of_worker.items()}


def node_calls(frames: Sequence[str]) -> Stack:
    """The node's own calls among those of its thread, outermost first, as `file.py:41 in function`.

    >>> dask, own = (f'  File "/a/{file}", line 9, in run' for file in ("dask.py", "traced_threadpool/engine/call.py"))
    >>> node_calls([dask, own, '  File "/a/etl.py", line 4, in load\\n\\tx = connect("a password")'])
    ('/a/etl.py:4 in load',)
    """
    found = [match for each in frames if (match := _FRAME.match(each)) is not None]
    own = [place for place, each in enumerate(found) if _OWN_CODE.search(each["file"])]
    first = next((place for place in own if place + 1 not in own), -1) + 1
    end = next((place for place in own if place >= first), len(found))
    return tuple(f"{each['file']}:{each['line']} in {each['name'].strip()}" for each in found[first:end])


@dataclass(frozen=True, slots=True)
class DaskTask:
    """The task of a node that is on its way. `started` is what its worker told last, when it began."""

    started: Sequence[Any] | None
    tell: Callable[[], Stack | None]

    @property
    def name(self) -> str:
        return "" if self.started is None else str(self.started[0])

    @property
    def pid(self) -> int | None:
        """Of the worker's process, where that is on this host."""
        return self.started[1] if self.started is not None and self.started[2] == platform.node() else None

    @property
    def thread(self) -> int | None:
        """The kernel's number of the thread that runs it, on this host."""
        return None if self.started is None or self.pid is None else self.started[3]

    @property
    def waits(self) -> tuple[str, str] | None:
        """Its state and why, while no worker runs it."""
        return ("remote_queue", "for a worker of the cluster") if self.started is None else None

    def stack(self) -> Stack | None:
        return None if self.started is None else self.tell()
