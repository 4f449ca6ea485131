"""What a replay gives: when each node would run, and how long the run would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from traced_threadpool.analysis.replay.virtual_pool import most_at_once
from traced_threadpool.model.formatting import count, duration, outline
from traced_threadpool.model.lazy import lazy


class ReplayedNode(NamedTuple):
    """When an execution starts and ends, on the record's clock."""

    key: str
    name: str
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The run to expect.

    `nodes` are those that ran, in the order of the record, without those taken out. The shares are of the makespan:
    of all workers' time, how much they have a node; how long the GIL is held; of all CPUs' time,
    how much nodes compute (0 when nobody knows how many there are); nodes of other runs in the pool count.
    `assumptions` are sentences for people.
    """

    makespan_ns: int
    workers: int
    nodes: tuple[ReplayedNode, ...]
    busy_share: float
    gil_share: float
    cpu_share: float
    assumptions: tuple[str, ...] = ()
    spares_workers: bool = False
    """Whether more of them would change nothing: no node of any run waited because all had one."""
    range_ns: tuple[int, int] | None = None
    """Between which lengths it lies, where what is recorded of a lock does not tell enough for one."""

    def __repr__(self) -> str:
        return outline(self, None, duration(self.makespan_ns), count(self.workers, "worker"))

    @property
    def makespan_seconds(self) -> float:
        return self.makespan_ns / 1e9

    @lazy
    def most_busy(self) -> int:
        """The most workers that have a node of the run at once."""
        return most_at_once([(node.started_ns, node.ended_ns) for node in self.nodes])
