"""The far side of a node on a cluster, whichever it is: what was sent into a call, and how it went into plain facts."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.errors import NotPicklable
from traced_threadpool.engine.backends.host_clock import host_clock
from traced_threadpool.engine.backends.kept import Kept
from traced_threadpool.engine.backends.pickling import Place, dump_result
from traced_threadpool.engine.backends.remote_call import Request


class Facts(NamedTuple):
    """How a call went, by the worker's clock, which `clock_name` and `unix_offset_ns` describe. Plain types alone."""

    received_ns: int
    started_ns: int
    ended_ns: int
    cpu_ns: int
    runqueue_ns: int | None
    pid: int
    host: str
    clock_name: str
    unix_offset_ns: int
    moved_ns: int
    """How long the worker has fetched arguments from others before it took the call, as far as is known."""
    nbytes: int
    """Of the value, pickled."""


def request_of(head: bytes, versions: Mapping[str, str]) -> Request:
    """What was sent with a call.

    Raises:
        RuntimeError: This worker has another version of Python or of this package.
    """
    if versions != remote_call.VERSIONS:
        raise RuntimeError(f"this worker has {_listed(remote_call.VERSIONS)}, and the program {_listed(versions)}")
    request: Request = pickle.loads(head)
    return request


def perform(
    request: Request,
    payload: Any,
    upstream: Sequence[Kept],
    received_ns: int,
    moved_ns: int,
    kept: type[Kept] = Kept,
) -> tuple[Facts, tuple[str, str, str] | None, Any]:
    """Runs one call, with values of this cluster in the places that were left for them.

    Returns:
        How it went; what was raised, described, or None; and the value as a `kept`, or what was raised as a `Pickled`.
    """
    clock, nbytes = host_clock(), 0

    def load() -> tuple[Callable[..., Any], dict[str, Any]]:
        function, arguments = _unpickled(payload)
        return function, {
            name: _filled(name, value, upstream, request.node) if type(value) is Place else value
            for name, value in arguments.items()
        }

    def finish(value: Any) -> Kept:
        nonlocal nbytes
        nbytes = dump_result(request.node, value).nbytes  # what cannot be pickled could not leave this worker
        return kept.of(request.node, value, nbytes)

    report, answer = remote_call.perform_as(request, load, finish, received_ns)
    facts = Facts(
        received_ns=report.received_ns,
        started_ns=report.started_ns,
        ended_ns=report.ended_ns,
        cpu_ns=report.cpu_ns,
        runqueue_ns=report.runqueue_ns,
        pid=report.pid,
        host=report.host,
        clock_name=clock.name,
        unix_offset_ns=clock.unix_offset_ns,
        moved_ns=moved_ns,
        nbytes=nbytes,
    )
    return facts, report.raised, answer


def _filled(name: str, place: Place, upstream: Sequence[Kept], node: str) -> Any:
    try:
        return place.fill({number: upstream[number].value() for number in place.numbers})
    except NotPicklable as error:
        raise NotPicklable(node, f"parameter {name!r}", error.reason) from error


def _unpickled(payload: Any) -> Any:
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return pickle.loads(payload)
    stream, *blocks = payload
    return pickle.loads(stream, buffers=blocks)


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
