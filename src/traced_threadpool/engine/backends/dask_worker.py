"""The far side of a node on a Dask cluster: runs in a thread of a Dask worker.

What a node's function returns stays there. How it went is told by two events on the adapter's topic, one when the
function starts and one when it has ended: the client hears of an event before it hears of the task's end.
"""

from __future__ import annotations

import os
import pickle
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from distributed import get_worker

from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.host_clock import host_clock
from traced_threadpool.engine.backends.pickling import Pickled, Place, dump_result
from traced_threadpool.engine.backends.remote_call import Report, Request

STARTED: Final = 0
ENDED: Final = 1


class NodeRaised(Exception):
    """Carries what a node's function raised, as bytes, so that Dask sees a failure and may try again."""

    def __init__(self, stream: bytes, blocks: Sequence[bytes], described: tuple[str, str, str]) -> None:
        super().__init__(stream, blocks, described)
        self.answer = Pickled(memoryview(stream), [memoryview(block) for block in blocks])
        self.described = described

    def __str__(self) -> str:
        return f"{self.described[0]}: {self.described[1]}"

    def __repr__(self) -> str:
        """What Dask logs."""
        return f"NodeRaised({str(self)!r})"


def run(topic: str, key: str, head: bytes, versions: dict[str, str], payload: Any, upstream: Sequence[Any]) -> Any:
    """One call of a node's function. See `dask.Dask` for what is sent.

    Raises:
        NodeRaised: The function did.
        RuntimeError: This worker has another version of Python or of this package.
    """
    received_ns = time.monotonic_ns()
    if versions != remote_call.VERSIONS:
        raise RuntimeError(f"this worker has {_listed(remote_call.VERSIONS)}, and the program {_listed(versions)}")
    worker = get_worker()
    clock = host_clock()
    request: Request = pickle.loads(head)
    worker.log_event(topic, [key, STARTED, time.monotonic_ns(), worker.address, os.getpid(), platform.node()])
    moved_ns = _moved_ns(worker, key)

    size = 0

    def load() -> tuple[Callable[..., Any], dict[str, Any]]:
        function, arguments = _unpickled(payload)
        return function, {
            name: value.fill(upstream) if type(value) is Place else value for name, value in arguments.items()
        }

    def finish(value: Any) -> Any:
        nonlocal size
        size = dump_result(request.node, value).nbytes  # what cannot be pickled could not leave this worker
        return value

    report, answer = remote_call.perform_as(request, load, finish, received_ns)
    worker.log_event(topic, [key, ENDED, *_facts(report), clock.name, clock.unix_offset_ns, moved_ns, size])
    if report.raised is not None:
        raise NodeRaised(bytes(answer.stream), [bytes(block) for block in answer.blocks], report.raised)
    return answer


def _facts(report: Report) -> list[Any]:
    """What msgpack takes, in the order in which `dask.Dask` reads it."""
    return [
        report.received_ns,
        report.started_ns,
        report.ended_ns,
        report.cpu_ns,
        report.runqueue_ns,
        report.pid,
        report.host,
    ]


def _unpickled(payload: Any) -> Any:
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return pickle.loads(payload)
    stream, *blocks = payload
    return pickle.loads(stream, buffers=blocks)


def _moved_ns(worker: Any, key: str) -> int:
    """How long this worker has fetched the task's inputs from others, as it tells; 0 where it does not."""
    try:
        steps = worker.state.tasks[key].startstops
        stretches = sorted((step["start"], step["stop"]) for step in steps if step["action"] == "transfer")
    except Exception:  # of Dask's own making, and of no version for certain
        return 0
    total, until = 0.0, 0.0
    for start, stop in stretches:  # they overlap
        total += max(0.0, stop - max(start, until))
        until = max(until, stop)
    return int(total * 1e9)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
