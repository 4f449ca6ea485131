"""A thread for what is put into its mailbox: started at the first item, gone when nothing has come for a while."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

logger = logging.getLogger("traced_threadpool")

TICK_SECONDS: Final = 1.0
IDLE_TICKS: Final = 5
STOP_SECONDS: Final = 5.0

_Item = TypeVar("_Item")


class Mailbox(Generic[_Item]):
    """Args:
    name: Of the thread.
    handle: Called on it with each item; it may take more of them itself.
    tick: Called on it each second in which nothing comes.
    needed: Whether it is to stay for its ticks. It must not block.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[_Item], None],
        tick: Callable[[], object] = lambda: None,
        needed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._name = name
        self._handle = handle
        self._tick = tick
        self._needed = needed
        self._lock = threading.Lock()
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def put(self, item: _Item) -> None:
        """Has it handled soon.

        Raises:
            RuntimeError: No thread can be started.
        """
        with self._lock:
            self._start()
            self._items.put(item)

    def stay(self) -> None:
        """It is needed from now on. Raises as `put` does."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
        self._stopped = False

    def take(self, timeout: float = 0.0) -> _Item | None:
        """The next item, for the thread itself; None if there is none within so many seconds."""
        try:
            return self._items.get(timeout > 0, timeout)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """The thread ends once it has handled what has come before. Another is started if more comes."""
        with self._lock:
            thread = self._thread
            self._stopped = True
            if thread is not None:
                self._items.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_SECONDS)

    def _work(self) -> None:
        idle = 0
        while True:
            item = self.take(0 if self._stopped else TICK_SECONDS)
            try:
                if item is not None:
                    idle = 0
                    self._handle(item)
                    continue
                self._tick()
            except Exception:
                logger.exception("what was put into the mailbox of %s could not be handled", self._name)
                continue
            idle += 1
            with self._lock:
                stays = (self._needed() or idle < IDLE_TICKS) and not self._stopped
                if self._items.empty() and not stays:
                    self._thread = None
                    return
