"""What runs have shown of nodes into where they run next time: `run_on="auto"`.

A node moves to worker processes when two things are known of it. It *gains*: on threads it held the GIL while other
nodes waited. However many waited at once, no more is gained than it computed. And it *can*: once it has shown that, its
arguments and result are pickled after an execution on threads, which tells whether they pickle and about how long
moving them takes. After each run there the measured transfer takes the place of that estimate; a node whose transfer
eats the gain comes back, and stays.

    threads: runs --gains--> threads: probed --less transfer than gain--> processes --measured: does not pay--> threads

>>> auto = AutoPlacement("cpu")
>>> auto.executed("parse", duration_ns=300_000_000, computing_ns=250_000_000, transfer_ns=None)
>>> auto.run_over({"parse": 210_000_000})
>>> auto.moved(["parse", "load"])  # to be probed there
{'parse': 'threads'}
>>> auto.executed("parse", duration_ns=300_000_000, computing_ns=250_000_000, transfer_ns=None)
>>> auto.probed("parse", transfer_ns=2_000_000)
>>> auto.run_over({"parse": 210_000_000})
>>> auto.moved(["parse", "load"]), auto.decisions["parse"].reason
({'parse': 'cpu'}, 'it saves 210 ms of waiting for the GIL for each execution, and moving takes about 2.0 ms')
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from traced_threadpool.model import forks
from traced_threadpool.model.formatting import outline
from traced_threadpool.model.lock_backoff import ObserverLock
from traced_threadpool.model.observers import Observer
from traced_threadpool.model.records import THREADS, NodeRecord, RunRecord
from traced_threadpool.model.states import CPU, STATES

logger = logging.getLogger("traced_threadpool")

LEAST_NS: Final = 5_000_000
"""What a node must gain for each execution: a call to another process takes a part of that."""

LEAST_SHARE: Final = 0.1
"""And as a part of its duration."""

AHEAD: Final = 2.0
"""How many times the transfer a node must gain to move; to stay there, once."""

MOST_NODES: Final = 10_000

RUNQUEUE: Final = STATES.index("runqueue")

State = Literal["learning", "probing", "moved", "returned", "unpicklable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a node runs, and why. Seconds are of one execution, averages over the executions seen."""

    node: str
    backend: str
    state: State
    reason: str
    executions: int
    gained_seconds: float
    transfer_seconds: float | None

    def __repr__(self) -> str:
        return outline(self, self.node, self.backend, self.state)


@dataclass(slots=True)
class _Seen:
    """Of one node, in nanoseconds. `gained_ns` is what others waited for the GIL that it held, for each execution, and
    no more than it computed: of two that wait for it at once, both have the GIL so much earlier, and not twice.
    """

    state: State = "learning"
    executions: int = 0
    duration_ns: float = 0.0
    gained_ns: float = 0.0
    transfer_ns: float | None = None
    reason: str = ""
    now: dict[str, float] = field(default_factory=lambda: {"count": 0, "duration": 0, "computing": 0, "transfer": 0})


class AutoPlacement:
    """Decides for the nodes of one adapter. Methods may be called from any thread.

    Args:
        backend: The name of the worker processes.
        known: What `as_json` gave in an earlier process.
    """

    def __init__(self, backend: str, known: Mapping[str, Any] | None = None) -> None:
        self.backend = backend
        self.least_ns = LEAST_NS
        self._nodes: dict[str, _Seen] = {}
        self._forget()
        forks.register(self._forget)
        for name, facts in (known or {}).items():
            self._nodes[name] = _Seen(**facts)

    def _forget(self) -> None:
        self._lock = ObserverLock()
        self._nodes = forks.kept_in_child(self._nodes, {})

    # What runs show

    def executed(self, name: str, *, duration_ns: int, computing_ns: int, transfer_ns: int | None) -> None:
        """An execution has ended well: on threads, or, where there is a transfer, on a worker process."""
        with self._lock:
            seen = self._nodes.get(name)
            if seen is None:
                if len(self._nodes) >= MOST_NODES:
                    return
                seen = self._nodes[name] = _Seen()
            if (seen.state == "moved") != (transfer_ns is not None):
                return  # of a run that started before it moved
            now = seen.now
            now["count"] += 1
            now["duration"] += duration_ns
            now["computing"] += computing_ns
            now["transfer"] += transfer_ns or 0

    def probed(self, name: str, *, transfer_ns: int | None) -> None:
        """How long moving its arguments and result takes, about; None: they cannot be pickled."""
        with self._lock:
            seen = self._nodes.get(name)
            if seen is None:
                return
            if transfer_ns is None:
                self._decide(name, seen, "unpicklable", "its function, an argument or its result cannot be pickled")
            else:
                seen.transfer_ns = transfer_ns

    def unpicklable(self, name: str) -> None:
        """It was sent, and could not be."""
        self.probed(name, transfer_ns=None)

    def run_over(self, gil_held_ns: Mapping[str, int]) -> None:
        """A run has ended: decides anew. By node, how long others waited for the GIL that it held."""
        with self._lock:
            for name, seen in self._nodes.items():
                now = seen.now
                count = now["count"]
                if not count:
                    continue
                seen.executions += int(count)
                if seen.state == "moved":
                    seen.transfer_ns = _followed(seen.transfer_ns, now["transfer"] / count)
                else:
                    seen.duration_ns = _followed(seen.duration_ns or None, now["duration"] / count)
                    gained_ns = min(gil_held_ns.get(name, 0), now["computing"]) / count
                    seen.gained_ns = _followed(seen.gained_ns or None, gained_ns)
                seen.now = dict.fromkeys(now, 0)
                self._look_at(name, seen)

    def _look_at(self, name: str, seen: _Seen) -> None:
        gains = seen.gained_ns >= max(self.least_ns, LEAST_SHARE * seen.duration_ns)
        about = f"{seen.gained_ns / 1e6:.0f} ms of waiting for the GIL for each execution"
        if seen.state == "learning" and gains:
            seen.state = "probing"
        elif seen.state == "probing" and not gains:
            seen.state = "learning"
        elif seen.state == "probing" and seen.transfer_ns is not None:
            moving = f"moving takes about {seen.transfer_ns / 1e6:.1f} ms"
            if seen.transfer_ns * AHEAD <= seen.gained_ns:
                self._decide(name, seen, "moved", f"it saves {about}, and {moving}")
            else:
                self._decide(name, seen, "returned", f"it would save {about}, but {moving}")
        elif seen.state == "moved" and (seen.transfer_ns or 0) > seen.gained_ns:
            moving = f"moving took {(seen.transfer_ns or 0) / 1e6:.1f} ms"
            self._decide(name, seen, "returned", f"it was to save {about}, but {moving}")

    def _decide(self, name: str, seen: _Seen, state: State, reason: str) -> None:
        seen.state, seen.reason = state, reason
        where = f"on backend {self.backend!r}" if state == "moved" else "on threads"
        logger.info("node %r runs %s from the next run on: %s", name, where, reason)

    @property
    def has_news(self) -> bool:
        """Whether any node has run since the last decision."""
        return any(seen.now["count"] for seen in list(self._nodes.values()))

    # What follows

    def moved(self, names: Iterable[str]) -> dict[str, str]:
        """The backends of those nodes that have moved, and `threads` for those that are to be probed."""
        nodes, where = self._nodes, {"moved": self.backend, "probing": THREADS}
        return {
            name: where[seen.state] for name in names if (seen := nodes.get(name)) is not None and seen.state in where
        }

    def evidence(self, names: Iterable[str]) -> dict[str, str]:
        """Why these nodes have moved."""
        return {name: f"{name} on {self.backend}: {self._nodes[name].reason}" for name in names}

    @property
    def decisions(self) -> dict[str, Decision]:
        """For each node that has run."""
        with self._lock:
            return {
                name: Decision(
                    node=name,
                    backend=self.backend if seen.state == "moved" else "threads",
                    state=seen.state,
                    reason=seen.reason,
                    executions=seen.executions,
                    gained_seconds=seen.gained_ns / 1e9,
                    transfer_seconds=None if seen.transfer_ns is None else seen.transfer_ns / 1e9,
                )
                for name, seen in self._nodes.items()
            }

    def as_json(self) -> dict[str, Any]:
        """What has been decided or is about to be, for the file of durations."""
        with self._lock:
            known = {name: asdict(replace(seen, now={})) for name, seen in self._nodes.items()}
        return {
            name: {key: value for key, value in facts.items() if key != "now"}
            for name, facts in known.items()
            if facts["state"] != "learning"
        }


class PlacementObserver(Observer):
    """Tells an `AutoPlacement` of the adapter's nodes and runs."""

    component = "placement"

    def __init__(self, auto: AutoPlacement) -> None:
        self._auto = auto

    def node_ended(self, node: NodeRecord) -> None:
        duration_ns = node.ended_ns - node.started_ns
        if node.outcome != "success" or duration_ns < self._auto.least_ns:
            return
        timing = node.timing
        there = timing is not None and timing.worker_pid != 0
        self._auto.executed(
            node.name,
            duration_ns=duration_ns,
            computing_ns=_computing_ns(node),
            transfer_ns=timing.transfer_ns if timing is not None and there else None,
        )

    def run_ended(self, run: RunRecord) -> None:
        if self._auto.has_news:
            self._auto.run_over({} if run.wait_facts is None else run.wait_facts().gil_holders)


def _computing_ns(node: NodeRecord) -> int:
    """How long it may have held the GIL: it does while it computes, and while it waits for a CPU to go on."""
    return node.cpu_ns if node.state_ns is None else node.state_ns[CPU] + node.state_ns[RUNQUEUE]


def _followed(average: float | None, value: float) -> float:
    return value if average is None else average + (value - average) / 2
