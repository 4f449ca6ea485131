"""The far side of a call: bytes in, the node's function run, bytes out. For worker processes and clusters alike.

Needs the standard library, OpenTelemetry's API and, for results, cloudpickle; not Hamilton.

The function runs under what came with it: the trace context and baggage of the node's span, and those of the caller's
context variables that can be sent.
"""

from __future__ import annotations

import builtins
import contextvars
import logging
import os
import pickle
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import GeneratorType, TracebackType
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import propagate

from traced_threadpool._version import __version__
from traced_threadpool.engine.backends.errors import RemoteError, RemoteTraceback, set_cause
from traced_threadpool.engine.backends.pickling import (
    Pickled,
    context_variable,
    dump,
    dump_result,
    dump_whole,
    load_call,
    load_result,
    locate,
    plain,
    text_of,
)
from traced_threadpool.engine.backends.sampled import InFunction
from traced_threadpool.model.exceptions import is_a, traceback_of, type_name

logger = logging.getLogger("traced_threadpool")

VERSIONS: Final = {
    "Python": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "traced_threadpool": __version__,
}
"""What both sides must have the same of: functions travel as bytecode, and the two speak to each other."""

_NOT_SENT: Final = ("traced_threadpool.", "opentelemetry.", "distributed.", "dask.", "ray.")
"""Packages whose context variables are not sent: the context of traces and baggage travels as W3C headers, and a
cluster's worker has a client of its own."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent with a node's function and arguments. Of plain types alone.

    `variables` are context variables: module, attribute, the pickled value.
    """

    node: str
    run_id: str | None
    task_id: str | None
    headers: Mapping[str, str]
    variables: tuple[tuple[str, str, bytes], ...]
    log_level: int


@dataclass(frozen=True, slots=True)
class Report:
    """How a call went, by the clock of the process that ran it. `runqueue_ns` is None where it is not known."""

    received_ns: int
    started_ns: int
    ended_ns: int
    cpu_ns: int
    runqueue_ns: int | None
    pid: int
    host: str
    raised: tuple[str, str, str] | None = None  # type, message, traceback


def variables_of(context: contextvars.Context) -> tuple[tuple[tuple[str, str, bytes], ...], list[str]]:
    """The context variables that can be sent, and the names of those that cannot."""
    sent: list[tuple[str, str, bytes]] = []
    left: list[str] = []
    for variable, value in context.items():
        try:
            module, attribute = locate(variable)
            if not module.startswith(_NOT_SENT):
                sent.append((module, attribute, dump_whole(value)))
        except BaseException:  # whatever its value raises when it is pickled
            left.append(variable.name)
    return tuple(sent), left


def perform(
    request: Request, call: Pickled, received_ns: int, in_function: InFunction | None = None
) -> tuple[Report, Pickled]:
    """Runs one call. Never raises, whatever the function does: what it raised is in the answer.

    `in_function` is told when the function begins and ends.
    """
    report, answer = perform_as(request, call.load, partial(dump_result, request.node), received_ns, in_function)
    return report, answer


def perform_as(
    request: Request,
    load: Callable[[], tuple[Callable[..., Any], dict[str, Any]]],
    finish: Callable[[Any], Any],
    received_ns: int,
    in_function: InFunction | None = None,
) -> tuple[Report, Any]:
    """As `perform`: gets the function and its arguments from `load`, and answers with what `finish` makes of its value.

    What was raised is answered as a `Pickled`.
    """
    context = contextvars.copy_context()
    clocks = _Clocks(received_ns, in_function)
    try:
        result = context.run(_call, request, load, finish, clocks)
        return clocks.report(), result
    except BaseException as error:
        clocks.stop()
        answer, described = packed(error)
        return clocks.report(described), answer


def _call(request: Request, load: Callable[[], Any], finish: Callable[[Any], Any], clocks: _Clocks) -> Any:
    _set_variables(request)
    if request.headers:
        otel_context.attach(propagate.extract(request.headers))
    function, arguments = load_call(request.node, load)
    clocks.start()
    try:
        result = function(**arguments)
        if type(result) is GeneratorType:  # a `Parallelizable`'s: it cannot be sent as it is
            result = list(result)
    finally:
        clocks.stop()
    return finish(result)


def _set_variables(request: Request) -> None:
    """One that cannot be read is left out, as those are that cannot be sent: no node fails of it."""
    for module, attribute, value in request.variables:
        try:
            context_variable(module, attribute).set(pickle.loads(value))
        except BaseException as error:  # whatever its class, or the import of its module, raises
            if (module, attribute) not in _told:
                _told.add((module, attribute))
                why = type_name(type(error)).removeprefix("builtins.")
                logger.info("context variable %s.%s cannot be unpickled here (%s)", module, attribute, why)


_told: Final[set[tuple[str, str]]] = set()


class _Clocks:
    """Reads the clock, this thread's CPU time and its run-queue delay at both ends of the function."""

    def __init__(self, received_ns: int, in_function: InFunction | None) -> None:
        self._received_ns = received_ns
        self._in_function = in_function
        self._started_ns = self._ended_ns = self._cpu_ns = 0
        self._delay_ns: int | None = None

    def start(self) -> None:
        self._delay_ns = run_queue_delay_ns()
        self._cpu_ns = -time.thread_time_ns()
        self._started_ns = time.monotonic_ns()
        if self._in_function is not None:
            self._in_function.enter()

    def stop(self) -> None:
        if not self._started_ns or self._ended_ns:
            return
        self._cpu_ns += time.thread_time_ns()
        self._ended_ns = time.monotonic_ns()
        if self._in_function is not None:
            self._in_function.leave()
        now_ns = run_queue_delay_ns()
        self._delay_ns = None if now_ns is None or self._delay_ns is None else now_ns - self._delay_ns

    def report(self, raised: tuple[str, str, str] | None = None) -> Report:
        return Report(
            received_ns=self._received_ns,
            started_ns=self._started_ns,
            ended_ns=self._ended_ns,
            cpu_ns=max(0, self._cpu_ns),
            runqueue_ns=self._delay_ns,
            pid=os.getpid(),
            host=platform.node(),
            raised=raised,
        )


def run_queue_delay_ns(proc: str = "/proc") -> int | None:
    """How long the calling thread has waited for a CPU in its life; None where the kernel does not tell."""
    if sys.platform != "linux":
        return None
    try:
        # A third of what a `Path` and a text file take. Kept open, a node could close it.
        descriptor = os.open(f"{proc}/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(descriptor, 64).split()[1])
        finally:
            os.close(descriptor)
    except (OSError, ValueError, IndexError):
        return None


def packed(error: BaseException) -> tuple[Pickled, tuple[str, str, str]]:
    """An exception as bytes that the other side can read for certain; and its type, message and traceback."""
    described = _described(error)
    for form in _GROUP_FORMS if _is_group(error) else _FORMS:  # many can be pickled, and not unpickled
        try:
            answer = dump(form(error))
            if _is_copy(answer.load(), error):
                return answer, described
        except BaseException:  # its own methods raise anything; what it is, is said by what is sent instead
            continue
    return dump(RemoteError(*described)), described


def _is_copy(copy: Any, error: BaseException) -> bool:
    """Whether this came of it, members of a group included: these may be what stands for them."""
    kinds = (_GROUP, _EXCEPTION_GROUP) if type(error) is _GROUP else (type(error),)
    if type(copy) not in kinds or plain(str(copy)) != plain(str(error)):
        return False
    if not _is_group(error):
        return True
    pairs = zip(_members.__get__(copy), _members.__get__(error), strict=True)
    return all(type(each) is RemoteError or _is_copy(each, member) for each, member in pairs)


def _itself(error: BaseException) -> object:
    return error


def _by_call(error: BaseException) -> _Parts:
    return _Parts(_called, type(error), error.args, vars(error))


def _by_making(error: BaseException) -> _Parts:
    return _Parts(_made, type(error), error.args, vars(error))


def _by_members(error: BaseException) -> _Parts:
    """A group, with each of its members by itself: what cannot be sent of one is no loss of the others."""
    packed_members = [
        (described, bytes(answer.stream), [bytes(block) for block in answer.blocks])
        for answer, described in map(packed, _members.__get__(error))
    ]
    return _Parts(_gathered, type(error), (_message.__get__(error), packed_members), vars(error))


def _by_members_alone(error: BaseException) -> _Parts:
    """The same, of a group whose fields cannot be sent."""
    parts = _by_members(error)
    return _Parts(parts.make, parts.kind, parts.args, {})


_GROUP: Final[Any] = getattr(builtins, "BaseExceptionGroup", None)  # since Python 3.11
_EXCEPTION_GROUP: Final[Any] = getattr(builtins, "ExceptionGroup", None)
_members: Final[Any] = _GROUP and _GROUP.__dict__["exceptions"]
_message: Final[Any] = _GROUP and _GROUP.__dict__["message"]
_FORMS: Final = (_itself, _by_call, _by_making)
_GROUP_FORMS: Final = (_itself, _by_members, _by_members_alone)


def _is_group(error: BaseException) -> bool:
    return _GROUP is not None and is_a(error, _GROUP)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Pickles an exception by its arguments and fields, whatever it or a library says of how to."""

    make: Callable[..., BaseException]
    kind: type[BaseException]
    args: tuple[Any, ...]
    fields: dict[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_parts, (self.make, self.kind, self.args, self.fields)


def _from_parts(
    make: Callable[..., BaseException], kind: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]
) -> BaseException:
    error = make(kind, args)
    error.__dict__.update(fields)  # a frozen dataclass lets nobody assign
    return error


def _called(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Those of C have their text from `__init__`."""
    return kind(*args)


def _made(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Where `__init__` takes other arguments than the exception keeps."""
    return kind.__new__(kind, *args)


def _gathered(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """A group. The interpreter itself makes an `ExceptionGroup` of a `BaseExceptionGroup` that has only exceptions."""
    message, members = args
    group: BaseException = _GROUP.__new__(
        kind, message, [_read(described, Pickled(memoryview(stream), blocks)) for described, stream, blocks in members]
    )
    return group


def _described(error: BaseException) -> tuple[str, str, str]:
    kind = type(error)
    found = traceback_of(error)
    try:
        text = "".join(traceback.format_exception(kind, error, _without_own_frames(found)))
    except BaseException:  # its own attributes, or those of one of its causes
        text = "".join(traceback.format_tb(_without_own_frames(found)))
    return type_name(kind), text_of(error), text


def _without_own_frames(found: TracebackType | None) -> TracebackType | None:
    while found is not None and found.tb_frame.f_code.co_filename == __file__:
        found = found.tb_next
    return found


def value_of(node: str, report: Report, answer: Pickled) -> Any:
    """The near side of `perform`: the function's value.

    Raises what the function raised, with the remote traceback as its cause; or NotPicklable.
    """
    if report.raised is None:
        return load_result(node, answer)
    raise error_of(report.raised, answer)


def error_of(described: tuple[str, str, str], answer: Pickled) -> BaseException:
    """What a function raised, with the remote traceback as its cause."""
    error = _read(described, answer)
    set_cause(error, RemoteTraceback(described[2]))
    return error


def _read(described: tuple[str, str, str], answer: Pickled) -> BaseException:
    try:
        loaded = answer.load()
    except BaseException:  # its module is here in another version, or not at all; or whatever its class raises
        loaded = None
    return loaded if is_a(loaded, BaseException) else RemoteError(*described)
