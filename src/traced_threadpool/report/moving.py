"""A node on a worker of a backend into the pieces of its time: moving there, waiting for a worker, its function, moving
back.

The record has when the function began and ended there, and how long moving and waiting took in all. Waiting was before
the function; what order it and moving had there is not known, and it is put next to the function. Moving is divided
as the time that is left before and after: that is exact, unless other adapters' hooks took time in the driver.

>>> node = NodeExecution(key="0", name="parse", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=100,
...     function_started_ns=30, function_ended_ns=90, states={"cpu": 60, "remote_queue": 10, "transfer": 30})
>>> pieces(node)
Pieces(before_ns=20, queue_ns=10, function_ns=(30, 90), after_ns=10)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Moving there, waiting for a worker, from when until when the function ran, moving back."""

    before_ns: int
    queue_ns: int
    function_ns: tuple[int, int]
    after_ns: int

    def around(self) -> Iterator[tuple[State, int, int]]:
        """What comes before and after the function: its state, from, to."""
        began_ns, ended_ns = self.function_ns
        waits_ns = began_ns - self.queue_ns
        stretches: tuple[tuple[State, int, int], ...] = (
            ("transfer", waits_ns - self.before_ns, waits_ns),
            ("remote_queue", waits_ns, began_ns),
            ("transfer", ended_ns, ended_ns + self.after_ns),
        )
        return (each for each in stretches if each[2] > each[1])


def pieces(node: NodeExecution) -> Pieces | None:
    """None where the record does not tell when the function ran."""
    if not node.function_ended_ns:
        return None
    began_ns, ended_ns = node.function_ns
    before_ns, after_ns = max(0, began_ns - node.started_ns), max(0, node.ended_ns - ended_ns)
    queue_ns = min(node.states.get("remote_queue", 0), before_ns)
    left_ns = before_ns - queue_ns + after_ns
    moving_ns = min(node.states.get("transfer", 0), left_ns)
    back_ns = moving_ns * after_ns // left_ns if left_ns else 0
    return Pieces(before_ns=moving_ns - back_ns, queue_ns=queue_ns, function_ns=(began_ns, ended_ns), after_ns=back_ns)
