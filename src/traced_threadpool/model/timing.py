"""What a backend reports of one call: when and where the node's function ran, and what it cost to get there.

The node's own `started_ns` and `ended_ns` are those of this process: from the hand-over to the value's arrival. What
is here divides that stretch::

    node started --transfer--> (remote queue) --> started --the function--> ended --transfer--> node ended
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Timing:
    """Filled in by `Backend.call` as things happen, so that a call that fails tells how far it came. 0: not known.

    `started_ns` and `ended_ns` are the function's, on this process's monotonic clock: of another host's clock they are
    kept within the moments of sending and receiving, and `clock_correction_ns` is by how much they were moved.
    `state_ns` divides the function's time among `STATES`, as the worker measured it, or is None.
    `transfer_ns` is pickling, moving and unpickling, both ways; `remote_queue_ns` the wait for the worker.
    """

    started_ns: int = 0
    ended_ns: int = 0
    cpu_ns: int = 0
    state_ns: tuple[int, ...] | None = None
    transfer_ns: int = 0
    remote_queue_ns: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    worker_pid: int = 0
    worker_host: str = ""
    worker_address: str = ""
    attempts: int = 0
    clock_correction_ns: int = 0
    call: object = None
    """What is to be called, until it has ended, where the backend knows of it before."""
    handed_over_ns: int = 0
    """When that was handed over to the backend, which is when the node started; its thread here comes later."""
