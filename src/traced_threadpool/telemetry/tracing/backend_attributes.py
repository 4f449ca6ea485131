"""What a backend reports of a node into attributes of the node's span."""

from __future__ import annotations

from traced_threadpool.model.records import THREADS, NodeRecord
from traced_threadpool.telemetry import names

Attributes = dict[str, str | int | float]


def of_backend(node: NodeRecord) -> Attributes:
    """Names, process, bytes and times; of a node on threads, what it took to bring its arguments. Nothing unknown.

    >>> from traced_threadpool.model.timing import Timing
    >>> node = NodeRecord("parse", run=None)
    >>> of_backend(node)
    {}
    >>> node.backend, node.timing = "cpu", Timing(worker_pid=12, sent_bytes=600, attempts=1)
    >>> of_backend(node)  # doctest: +NORMALIZE_WHITESPACE
    {'hamilton.node.backend': 'cpu', 'hamilton.node.worker.pid': 12, 'hamilton.node.sent.size': 600,
     'hamilton.node.attempts': 1}
    """
    timing = node.timing
    if timing is None:
        return {} if node.backend == THREADS else {names.NODE_BACKEND: node.backend}
    found: Attributes = {
        names.NODE_BACKEND: "" if node.backend == THREADS else node.backend,
        names.NODE_WORKER_PID: timing.worker_pid,
        names.NODE_WORKER_HOST: timing.worker_host,
        names.NODE_WORKER_ADDRESS: timing.worker_address,
        names.NODE_SENT: timing.sent_bytes,
        names.NODE_RECEIVED: timing.received_bytes,
        names.NODE_FUNCTION_START: _after_start(node, timing.started_ns),
        names.NODE_FUNCTION_END: _after_start(node, timing.ended_ns),
        names.NODE_ATTEMPTS: timing.attempts,
        names.NODE_CLOCK_CORRECTION: timing.clock_correction_ns / 1e9,
    }
    return {name: value for name, value in found.items() if value}


def _after_start(node: NodeRecord, ns: int) -> float:
    return (ns - node.started_ns) / 1e9 if ns else 0.0
