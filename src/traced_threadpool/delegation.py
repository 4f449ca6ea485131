"""One node of Hamilton's into one whose own function is called on a backend.

Everything around that function stays here: hooks, caching and what else other adapters do run on the node's thread,
in order, with the real value.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

from traced_threadpool.engine.backends.base import Backend, Call
from traced_threadpool.engine.backends.threads import Threads
from traced_threadpool.engine.work import Work
from traced_threadpool.model.timing import Timing

if TYPE_CHECKING:
    from hamilton import node as hamilton_node


def delegate(work: Work, execute: Any, node: hamilton_node.Node, backend: Backend, name: str) -> None:
    """Has a piece of work call its node's function on a backend of this name.

    Args:
        work: Not submitted yet.
        execute: What Hamilton hands over: its function that runs a node with everything around it, as a partial.
        node: The node.
        backend: Where its function is called.
        name: The backend's name.
    """
    work.backend = name
    if isinstance(backend, Threads):  # a limit alone
        return
    call = _Delegated(work, node.callable, backend)
    keywords = {**execute.keywords, "__node_": node.copy_with(callabl=call)}
    work.function = partial(execute.func, *execute.args, **keywords)
    work.timing = Timing()


class _Delegated:
    """Stands for a node's function. One for each piece of work."""

    __slots__ = ("_backend", "_function", "_work")

    def __init__(self, work: Work, function: Callable[..., Any], backend: Backend) -> None:
        self._work = work
        self._function = function
        self._backend = backend

    def __call__(self, /, **arguments: Any) -> Any:
        work, backend = self._work, self._backend
        run, timing = work.queue, work.timing
        assert timing is not None
        call = Call(record=work, function=self._function, arguments=arguments)
        run.calls[call] = backend
        try:
            if run.stopped:
                raise CancelledError(f"node {work.name!r} was cancelled before it was sent to its backend")
            return backend.call(call, timing)
        finally:
            del run.calls[call]
