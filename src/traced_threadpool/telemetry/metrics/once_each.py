"""What is made once for each registry or meter provider, and goes with it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from traced_threadpool.model import forks

_Owner = TypeVar("_Owner")
_Made = TypeVar("_Made")


class OnceEach(Generic[_Owner, _Made]):
    """By its owner, which it does not keep alive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: weakref.WeakKeyDictionary[_Owner, _Made] = weakref.WeakKeyDictionary()
        forks.register(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._made = forks.kept_in_child(self._made, weakref.WeakKeyDictionary())

    def of(self, owner: _Owner, make: Callable[[], _Made]) -> tuple[_Made, bool]:
        """The owner's, and whether it was made just now."""
        with self._lock:
            found = self._made.get(owner)
            if found is not None:
                return found, False
            made = self._made[owner] = make()
            return made, True

    def known(self, owner: _Owner) -> _Made | None:
        """The owner's, if there is one."""
        with self._lock:
            return self._made.get(owner)
