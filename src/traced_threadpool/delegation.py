"""One node of Hamilton's into one whose own function is called on a backend.

Everything around that function stays here: hooks, caching and what else other adapters do run on the node's thread,
in order, with the real value. So where another adapter looks at a node's values, they are brought here; else they stay
where they were computed, and a node that runs elsewhere brings those that it needs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from traced_threadpool.engine.auto_placement import AutoPlacement
from traced_threadpool.engine.backends.base import Backend, Call, SendsAhead
from traced_threadpool.engine.backends.errors import NotPicklable
from traced_threadpool.engine.backends.held import Held
from traced_threadpool.engine.backends.pickling import dump_call, dump_result
from traced_threadpool.engine.backends.threads import Threads
from traced_threadpool.engine.work import NodeFuture, Work
from traced_threadpool.model.records import THREADS
from traced_threadpool.model.timing import Timing

if TYPE_CHECKING:
    from hamilton import node as hamilton_node

SEES_NO_VALUES: Final = ("hamilton.plugins.h_rich", "hamilton.plugins.h_tqdm")
"""Modules of Hamilton's adapters that hear of nodes and take no notice of their values: progress bars."""


CALL_NS: Final = 400_000
BYTE_NS: Final = 1.1
"""What a call of a worker process and a byte of its arguments or result take, as `docs/backends.md` has them."""


def place(
    work: Work,
    execute: Any,
    node: hamilton_node.Node,
    backends: Mapping[str, Backend],
    auto: AutoPlacement | None,
) -> Callable[[], None] | None:
    """Has a piece of work run where its run has placed it. Returns what to do once it has been submitted, if anything.

    Args:
        work: Not submitted yet.
        execute: What Hamilton hands over: its function that runs a node with everything around it, as a partial.
        node: The node.
        backends: The adapter's.
        auto: What places nodes by itself, if anything does.

    Raises:
        TypeError: A subclass handed over a function of its own instead, for a node that runs elsewhere.
    """
    run = work.queue
    where = run.placement.get(work.name)
    backend = None if where is None else backends.get(where)
    then: Callable[[], None] | None = None
    if backend is not None or any(each.home is not None for each in backends.values()):
        by_itself = auto if run.record is not None and work.name in run.record.placed else None
        then = _delegate(work, execute, node, backend, where if backend is not None else None, by_itself)
    if where == THREADS and auto is not None:
        probe(work, node, auto)
    return then


def _delegate(
    work: Work,
    execute: Any,
    node: hamilton_node.Node,
    backend: Backend | None,
    name: str | None,
    auto: AutoPlacement | None,
) -> Callable[[], None] | None:
    """Has it call its node's function on a backend of this name, or bring values for it to be called here.

    `auto` is who has decided so, if anybody has: then a call that cannot be sent is made here.
    """
    work.backend = name or THREADS
    work.timing = Timing()
    if backend is None or isinstance(backend, Threads):  # a limit alone
        work.function = _Bringing(work, execute)
        return None
    if "__node_" not in getattr(execute, "keywords", ()):
        raise TypeError(
            f"node {work.name!r} is to run on the backend {name!r}, which needs the very function that Hamilton hands "
            "over, not one around it: pass execute_lifecycle_for_node on as it is"
        )
    call = _Delegated(work, node.callable, backend, auto)
    keywords = {**execute.keywords, "__node_": node.copy_with(callabl=call)}
    around = partial(execute.func, *execute.args, **keywords)
    if backend.home is None:
        work.function = _Bringing(work, around)
        return None
    looked_at = _values_are_looked_at(execute.keywords.get("__adapter"))
    work.function = _Keeping(work, around, call, looked_at=looked_at)
    if looked_at or work.queue.record is None or not isinstance(backend, SendsAhead):
        return None
    expected = Call(record=work, function=node.callable, arguments=dict(work.arguments))
    work.timing.call = expected
    work.queue.calls[expected] = backend
    backend.prepare(expected, partial(_call_of, backend), partial(_within, work))
    return partial(backend.expect, expected)


def _within(work: Work, function: Callable[[], Any]) -> Any:
    """Calls it as the node's own thread will, before that does."""
    context = work.context
    if context is None:
        raise LookupError(f"node {work.name!r} has ended")
    return context.copy().run(_announced, work, function)


def _announced(work: Work, function: Callable[[], Any]) -> Any:
    work.pool.announce(work)
    return function()


def _call_of(backend: Backend, future: Future[Any]) -> Call | None:
    """The call of a node that is on this backend and has not ended."""
    if type(future) is not NodeFuture or (timing := future.work.timing) is None:
        return None
    call = timing.call
    return call if isinstance(call, Call) and future.work.queue.calls.get(call) is backend else None


def _values_are_looked_at(adapters: Any) -> bool:
    """Whether another adapter of the driver gets to see arguments and results of nodes."""
    if adapters is None:
        return False
    if adapters.does_method("do_node_execute", is_async=False):
        return True
    hooks = adapters.sync_hooks
    return any(
        not type(each).__module__.startswith(SEES_NO_VALUES)
        for hook in ("pre_node_execute", "post_node_execute")
        for each in hooks.get(hook, ())
    )


class _Bringing:
    """Calls a function with the values of those of its arguments that are elsewhere."""

    __slots__ = ("_around", "_work")

    def __init__(self, work: Work, around: Callable[..., Any]) -> None:
        self._work = work
        self._around = around

    def __call__(self, /, **arguments: Any) -> Any:
        for name, value in arguments.items():
            arguments[name] = _brought(value, self._work)
        return self._around(**arguments)


class _Keeping:
    """Calls a function on a backend where values stay, with those that are there already as what stands for them.

    What other adapters look at is brought here first, and still sent back as what stands for it.
    """

    __slots__ = ("_around", "_call", "_looked_at", "_work")

    def __init__(self, work: Work, around: Callable[..., Any], call: _Delegated, *, looked_at: bool) -> None:
        self._work = work
        self._around = around
        self._call = call
        self._looked_at = looked_at

    def __call__(self, /, **arguments: Any) -> Any:
        call, looked_at = self._call, self._looked_at
        home = call.backend.home
        for name, value in arguments.items():
            there = _is_at(home, value)
            if looked_at or not there:
                arguments[name] = brought = _brought(value, self._work)
                if there:
                    call.known[name] = brought, value
        call.brings = looked_at
        result = self._around(**arguments)
        held = call.held
        return held if held is not None and held.done() and held.result() is result else result


class _Delegated:
    """Stands for a node's function. One for each piece of work.

    `known` are the values of parameters and what stands for them where the function runs; `held` what stands for the
    result, where `brings` asks for its value.
    """

    __slots__ = ("_auto", "_function", "_work", "backend", "brings", "held", "known")

    def __init__(self, work: Work, function: Callable[..., Any], backend: Backend, auto: AutoPlacement | None) -> None:
        self._auto = auto
        self._work = work
        self._function = function
        self.backend = backend
        self.brings = False
        self.known: dict[str, tuple[Any, Any]] = {}
        self.held: Held | None = None

    def __call__(self, /, **arguments: Any) -> Any:
        work, backend = self._work, self.backend
        run, timing = work.queue, work.timing
        assert timing is not None
        for name, (value, standing) in self.known.items():
            if arguments.get(name) is value:
                arguments[name] = standing
        if isinstance(call := timing.call, Call):
            call.arguments = arguments
        else:
            call = Call(record=work, function=self._function, arguments=arguments)
        run.calls[call] = backend
        try:
            if run.stopped:
                raise CancelledError(f"node {work.name!r} was cancelled before it was sent to its backend")
            with work.pool.handed_over(work):
                result = backend.call(call, timing)
        except NotPicklable as error:
            if self._auto is None:
                raise
            self._auto.unpicklable(work.name)
            if error.after_call:
                raise
            return self._function(**arguments)
        finally:
            del run.calls[call]
            timing.call = None
            if timing.handed_over_ns:
                work.aside_ns += work.started_ns - timing.handed_over_ns
                work.started_ns = timing.handed_over_ns
        if self.brings and type(result) is Held:
            self.held = result
            return _brought(result, work)
        return result


def probe(work: Work, node: hamilton_node.Node, auto: AutoPlacement) -> None:
    """Has a piece of work that runs here also tell what it would take to move its arguments and result."""
    assert work.function is not None
    work.function = partial(_probed, work.function, node, auto)


def _probed(around: Callable[..., Any], node: hamilton_node.Node, auto: AutoPlacement, /, **arguments: Any) -> Any:
    result = around(**arguments)
    if isinstance(result, GeneratorType):  # its values are for whoever takes them
        return result
    if threading.current_thread() is threading.main_thread():  # where Ctrl-C would pass for an object's own exception
        return result
    began_ns = time.monotonic_ns()
    try:
        sent = dump_call(node.name, node.callable, arguments), dump_result(node.name, result)
    except Exception:
        auto.unpicklable(node.name)
    else:
        took_ns = time.monotonic_ns() - began_ns
        auto.probed(node.name, transfer_ns=CALL_NS + 2 * took_ns + round(sum(each.nbytes for each in sent) * BYTE_NS))
    return result


def _is_at(home: object, value: Any) -> bool:
    """Whether this value, or all of this list, is there."""
    if type(value) is list:
        return bool(value) and all(type(each) is Held and each.home is home for each in value)
    return type(value) is Held and value.home is home


def _brought(value: Any, work: Work) -> Any:
    if type(value) is Held:
        timing = work.timing
        if value.done() or timing is None:
            return value.result()
        began_ns = time.monotonic_ns()
        try:
            with work.pool.aside(work):
                return value.result()
        finally:
            timing.transfer_ns += time.monotonic_ns() - began_ns
            timing.received_bytes += value.nbytes
    if type(value) is list and any(type(each) is Held for each in value):
        return [_brought(each, work) for each in value]
    return value
