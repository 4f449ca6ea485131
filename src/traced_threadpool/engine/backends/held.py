"""A node's value that stays where it was computed, until somebody here wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final


class Held(Future[Any]):
    """Stands for a value on a cluster. It is done once the value has been brought here, which is done at most once.

    A future, so that whoever puts values in the place of futures looks at it.

    Args:
        home: Where it is: calls on a backend of the same home take it there.
        remote: What stands for it there.
        bring: Brings it here.
        nbytes: How many that takes, as far as is known.
    """

    def __init__(self, home: object, remote: Any, bring: Callable[[], Any], nbytes: int = 0) -> None:
        super().__init__()
        self.nbytes = nbytes
        self.home = home
        self.remote = remote
        self._bring = bring
        self._bringing = threading.Lock()

    def result(self, timeout: float | None = None) -> Any:
        """The value. Brings it here if it is not; `timeout` is not looked at.

        Raises whatever goes wrong on the way, at each call anew.
        """
        if not self.done():
            with self._bringing:
                if not self.done():
                    self.set_result(self._bring())
        return super().result()

    def __repr__(self) -> str:
        return f"<a value on {self.home!r}>"


class Coming:
    """Stands for a value that will be on a cluster: `remote` is what stands for it there."""

    __slots__ = ("remote",)

    def __init__(self, remote: Any) -> None:
        self.remote = remote


REMOTE: Final = frozenset((Held, Coming))
