"""A node's value on a worker of a cluster, as the cluster gets to see it: with no code in it but ours.

A cluster asks objects how large they are, pickles and unpickles them, on threads that its connections and all of its
tasks need. What an object's own code raises there ends the worker, or leaves whoever waits for the value waiting. So
the cluster has a `Kept`: it says its size, becomes bytes, and is read from bytes. The value in it is unpickled by who
takes it, once on each worker, and what goes wrong then is the taker's.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any

from traced_threadpool.engine.backends.errors import NotPicklable
from traced_threadpool.engine.backends.pickling import Pickled, dump_result, load_result


@dataclass(frozen=True, slots=True)
class _Open:
    """The value itself."""

    value: Any


@dataclass(frozen=True, slots=True)
class _Refused:
    """In place of a value that was pickled when it was made, and later cannot be."""

    what: str
    reason: str


class Kept:
    """A value of a node.

    Args:
        node: The node's name.
        nbytes: How large the value is, pickled: for the cluster's bookkeeping.
        content: The value, as `_Open`; or what it is read from.
    """

    __slots__ = ("_content", "_nbytes", "_node", "_opening")

    def __init__(self, node: str, nbytes: int, content: _Open | Pickled | _Refused) -> None:
        self._node = node
        self._nbytes = nbytes
        self._content = content  # read once wherever it is looked at: `value` puts another in its place
        self._opening = threading.Lock()

    @classmethod
    def of(cls, node: str, value: Any, nbytes: int) -> Kept:
        """For a value that was made here."""
        return cls(node, nbytes, _Open(value))

    def value(self) -> Any:
        """The value, the same object at each call. Raises NotPicklable, at each call anew."""
        content = self._content
        if type(content) is Pickled:
            with self._opening:
                content = self._content
                if type(content) is Pickled:
                    self._content = content = _Open(load_result(self._node, content))
        if type(content) is _Refused:
            raise NotPicklable(self._node, content.what, content.reason)
        assert type(content) is _Open
        return content.value

    def __sizeof__(self) -> int:
        return self._nbytes

    def __repr__(self) -> str:
        return f"<the value of node {self._node!r}, {self._nbytes} bytes>"

    def parts(self) -> tuple[tuple[Any, ...], list[memoryview]]:
        """What `of_parts` makes it of again: plain facts, and memory. Never raises, and waits for nobody.

        Not for `value` either, whose unpickling may hang.
        """
        content = self._content
        if type(content) is _Open:
            try:
                content = dump_result(self._node, content.value)
            except NotPicklable as error:
                content = _Refused(error.what, error.reason)
        if type(content) is Pickled:
            return (self._node, self._nbytes), [content.stream, *content.blocks]
        assert type(content) is _Refused
        return (self._node, self._nbytes, content.what, content.reason), []

    @classmethod
    def of_parts(cls, facts: tuple[Any, ...], parts: Sequence[Any]) -> Kept:
        """The other side of `parts`."""
        node, nbytes, *refused = facts
        if refused:
            return cls(node, nbytes, _Refused(*refused))
        stream, *blocks = [memoryview(part) for part in parts]
        return cls(node, nbytes, Pickled(stream, blocks))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        facts, parts = self.parts()
        if protocol >= 5:
            return type(self).of_parts, (facts, [PickleBuffer(part) for part in parts])
        return type(self).of_parts, (facts, [bytes(part) if part.readonly else bytearray(part) for part in parts])


def brought(kept: Kept) -> Any:
    """The value of what has come here from a cluster. Raises NotPicklable.

    Never unpickled on the main thread, where an interrupt of the user's could not be told from one that the value
    raises, and where a value whose unpickling hangs would keep the user's waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        return kept.value()
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def open_it() -> None:
        try:
            future.set_result(context.run(kept.value))
        except NotPicklable as error:
            future.set_exception(error)

    thread = threading.Thread(target=open_it, daemon=True, name="traced_threadpool-unpickling")
    thread.start()
    value = future.result()
    thread.join()
    return value
