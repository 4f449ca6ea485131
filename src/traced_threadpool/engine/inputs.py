"""A piece of work's arguments into the tasks that it waits for; and, once these have ended, into values."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import FINISHED
from typing import Any, Final

from traced_threadpool.engine.backends.held import Held
from traced_threadpool.engine.scheduler import OUTSIDE, RunQueue, Task
from traced_threadpool.engine.work import DONE, NodeFuture, Work

Outside = dict[int, tuple[Task, Future[Any]]]
"""Futures that are not the pool's own, each with the task that stands for it, by the future's identity."""

More = list[tuple[str, Future[Any]]]
"""Futures that came as values of futures, each with the parameter by which it came in."""

_NOTHING_OUTSIDE: Final[Outside] = {}
_OUTSIDE_QUEUE = RunQueue()


def find_inputs(work: Work) -> Outside:
    """Sets what the work waits for. Returns those of its inputs that are somebody else's futures."""
    inputs: list[Task] = []
    parameters: list[str] = []
    arguments, pool = work.arguments, work.pool
    # Nearly every node's arguments are all nodes of the same pool.
    for value in arguments.values():
        if type(value) is not NodeFuture or (upstream := value.work).pool is not pool:
            break
        inputs.append(upstream)
    else:
        work.inputs = inputs
        work.parameters = [*arguments]
        return _NOTHING_OUTSIDE
    inputs.clear()
    outside: Outside = {}
    expanded = work.queue.expanded
    for name, value in arguments.items():
        if type(value) is NodeFuture and (upstream := value.work).pool is pool:
            parameters.append(name)
            inputs.append(upstream)
        elif isinstance(value, Future):
            parameters.append(name)
            inputs.append(input_of(work, value, outside))
        elif name == work.collected and isinstance(value, list):
            for each in value:
                if isinstance(each, Future):
                    parameters.append(name)
                    inputs.append(input_of(work, each, outside))
        elif name in expanded:  # an element of that node's list: there already, but where it came from is told
            parameters.append(name)
            inputs.append(expanded[name])
    if inputs:
        work.inputs = inputs
        work.parameters = parameters
    return outside


def input_of(work: Work, future: Future[Any], outside: Outside) -> Task:
    """What to wait for: the node itself, or what stands for a future that is not one of the same pool's nodes."""
    if isinstance(future, NodeFuture) and future.work.pool is work.pool:
        return future.work
    known = outside.get(id(future))
    if known is not None:
        return known[0]
    task = Task("", queue=_OUTSIDE_QUEUE)
    task.state = OUTSIDE
    outside[id(future)] = (task, future)
    return task


def resolve(work: Work) -> More:
    """Puts values in the place of futures. Returns the futures among the values that are not resolved yet."""
    arguments = work.arguments
    more: More = []
    for name in work.parameters:
        future = arguments[name]
        # What `result` does, without the calls: this is done for every input of every node.
        if type(future) is NodeFuture:
            if future._state is FINISHED and future._exception is None:
                value = future._result
                if not isinstance(value, Future):
                    arguments[name] = value
                    continue
        elif not isinstance(future, Future):
            continue
        arguments[name] = _value_of(work, name, future, more)
    collect = work.collected
    if collect is not None and isinstance(collected := arguments.get(collect), list):
        arguments[collect] = [
            _value_of(work, collect, each, more) if isinstance(each, Future) else each for each in collected
        ]
    return more


def _value_of(work: Work, name: str, future: Future[Any], more: More) -> Any:
    """The value of an argument whose future is done; if that is a future, its value, and so on."""
    held = type(future) is NodeFuture and future._state is FINISHED and future._exception is None
    value = future._result if held else future.result()
    while isinstance(value, Future):
        if type(value) is Held:
            return value if work.timing is not None else value.result()  # a node with a timing brings it itself
        if not value.done():
            more.append((name, value))
            return value
        if isinstance(value, NodeFuture) and value.work not in work.inputs:  # upstream too, by way of another
            work.inputs = [*work.inputs, value.work]
            work.parameters = [*work.parameters, name]
            if value.work.error is not None:
                work.cause = value.work.cause or value.work
        value = value.result()
    return value


def add_callback(future: Future[Any], callback: Callable[[Future[Any]], Any]) -> None:
    """Adds a done-callback that may be called twice, without the future's lock.

    An exception that comes where `add_done_callback` takes that lock leaves it held, and whoever resolves the future
    waits for ever.
    """
    if type(future) is not Future:
        future.add_done_callback(callback)
        return
    future._done_callbacks.append(callback)  # type: ignore[attr-defined]  # the stub leaves it out
    if future._state in DONE:  # perhaps before that
        callback(future)


def forget_callback(future: Future[Any], callback: Callable[[Future[Any]], None]) -> None:
    """Takes a done-callback back, so that a node that looks again and again leaves nothing behind.

    Only of a future that is not done: of one that is, its list is being gone through without the lock.
    """
    with future._condition:
        if not future.done():
            future._done_callbacks.remove(callback)  # type: ignore[attr-defined]  # the stub leaves it out


def failure_of(future: Future[Any]) -> BaseException | None:
    """The exception of a future that is done, cancelled or not."""
    try:
        return future.exception()
    except CancelledError as error:
        return error
