"""What a backend reports of one call: when and where the node's function ran, and what it cost to get there.

The node's own `started_ns` and `ended_ns` are those of this process: from the hand-over to the value's arrival. What
is here divides that stretch::

    node started --transfer--> (remote queue) --> started --the function--> ended --transfer--> node ended
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from traced_threadpool.model.states import CPU, OTHER, REMOTE_QUEUE, TRANSFER, in_order


@dataclass(slots=True, kw_only=True)
class Timing:
    """Filled in by `Backend.call` as things happen, so that a call that fails tells how far it came. 0: not known.

    `started_ns` and `ended_ns` are the function's, on this process's monotonic clock: of another host's clock they are
    kept within the moments of sending and receiving, and `clock_correction_ns` is by how much they were moved.
    `state_ns` divides the function's time among `STATES`, as the worker measured it, or is None; `counted_ns` is what
    counters add, where that is something else.
    `seen_ns` is what samples of the worker found while the function ran, also of a call that came to nothing: how long
    it ran, and waited for each of `SAMPLED`; None where nobody looked. `samples` is how often it was found waiting.
    `transfer_ns` is pickling, moving and unpickling, both ways; `remote_queue_ns` the wait for the worker.
    """

    started_ns: int = 0
    ended_ns: int = 0
    cpu_ns: int = 0
    is_delay_known: bool = True
    """Whether the states have what the function waited for a CPU; else that is in `other`."""
    state_ns: tuple[int, ...] | None = None
    counted_ns: tuple[int, ...] | None = None
    seen_ns: Sequence[int] | None = None
    samples: int = 0
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

    def of_node(self, function: Sequence[int] | None, cpu_ns: int, duration_ns: int) -> tuple[int, ...] | None:
        """A division of the function's time into one of its node's: what is left beside moving and waiting for a worker
        is `other`. None where the node's time was shorter.
        """
        states = list(in_order({}) if function is None else function)
        states[CPU] = cpu_ns
        states[OTHER] += duration_ns - sum(states)
        return self.with_moving(states) if states[OTHER] >= 0 else None

    def with_moving(self, states: Sequence[int]) -> tuple[int, ...]:
        """A division whose `other` holds the time of moving and of waiting for a worker: these get it."""
        division = list(states)
        for at, ns in ((REMOTE_QUEUE, self.remote_queue_ns), (TRANSFER, self.transfer_ns)):
            part_ns = min(ns, division[OTHER])
            division[at] += part_ns
            division[OTHER] -= part_ns
        return tuple(division)
