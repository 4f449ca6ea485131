"""What comes from a worker process, into the driver's log, streams, timing and exceptions."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Any

from traced_threadpool.engine.backends import worker
from traced_threadpool.engine.backends.base import Call, Timing
from traced_threadpool.engine.backends.errors import RemoteTraceback, WorkerCrashed, WorkerSetupError, set_cause
from traced_threadpool.engine.backends.pickling import Pickled
from traced_threadpool.engine.backends.remote_call import Report
from traced_threadpool.model.exceptions import is_a
from traced_threadpool.model.states import unsampled

logger = logging.getLogger("traced_threadpool")


def deliver(kind: int, head: Any, call: Call) -> None:
    """What a worker has logged or printed, as if it had been here."""
    try:
        if kind == worker.LOG:
            record = logging.makeLogRecord(head)
            record.node, record.run_id = call.record.name, call.record.run_id
            own = logging.getLogger(record.name)
            if own.isEnabledFor(record.levelno):
                own.handle(record)
        elif kind == worker.PRINTED:
            name, text = head
            stream = getattr(sys, name)
            if stream is not None:
                stream.write(text)
    except Exception:  # a handler's or a stream's own failure is not the node's
        logger.debug("what a worker process had to say could not be delivered", exc_info=True)


def crash(node: str, pid: int, code: int | None) -> WorkerCrashed:
    """What a node fails with whose worker has ended, by the exit code."""
    if code is not None and code < 0:
        return WorkerCrashed(node, pid, signal=-code)
    return WorkerCrashed(node, pid, exitcode=code)


def setup_error(node: str, described: Any, answer: Pickled | None) -> WorkerSetupError:
    """What a node fails with whose worker could not be made ready."""
    if answer is None:
        return WorkerSetupError(f"no worker process can run node {node!r}: {described}")
    type_name, message, text = described
    error = WorkerSetupError(f"no worker process can run node {node!r}: its initializer raised {type_name}: {message}")
    with contextlib.suppress(BaseException):  # whatever its class raises
        cause = answer.load()
        if is_a(cause, BaseException):
            set_cause(cause, RemoteTraceback(text))
            set_cause(error, cause)
    return error


def fill(timing: Timing, report: Report, began_ns: int) -> None:
    """Puts a worker's report into the call's timing. What is neither the function's nor waiting is transfer."""
    timing.worker_pid, timing.worker_host = report.pid, report.host
    timing.started_ns, timing.ended_ns = report.started_ns, report.ended_ns
    function_ns = max(0, report.ended_ns - report.started_ns)
    timing.cpu_ns = min(report.cpu_ns, function_ns)
    delay_ns = min(report.runqueue_ns or 0, function_ns - timing.cpu_ns)
    other_ns = function_ns - timing.cpu_ns - delay_ns
    timing.state_ns = unsampled(timing.cpu_ns, delay_ns, other_ns)
    timing.transfer_ns = max(0, time.monotonic_ns() - began_ns - timing.remote_queue_ns - function_ns)
