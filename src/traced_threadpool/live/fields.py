"""A pool and its runs at one moment, as `FutureAdapter.live()` gives them: frozen records of names, times and states.

Names and lines of code, never values. Times are Unix seconds where they say `since` or `at`, else seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from traced_threadpool.model.formatting import count, duration, outline
from traced_threadpool.model.usual_duration import UsualDuration


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveNode:
    """A node that is running.

    `state` is what it does right now (`cpu`, `gil`, `network`, ...; None where it cannot be told), `on` what it waits
    for: `10.0.0.3:5432`, `held by parse`, `etl.py:41`. `late_seconds` is how far it is beyond its usual 95th
    percentile. `stack` has the innermost call last, and is there only on request.
    """

    name: str
    task_id: str | None
    backend: str
    worker: str
    since: float
    elapsed_seconds: float
    state: str | None = None
    on: str | None = None
    usual: UsualDuration | None = None
    late_seconds: float = 0.0
    stalled: bool = False
    stack: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        does = " ".join(filter(None, [self.state, self.on]))
        running = f"for {duration(self.elapsed_seconds * 1e9)}"
        return outline(self, self.name, running, does, "stalled" if self.stalled else "")


class QueuedNode(NamedTuple):
    """A node whose inputs are there, waiting for a worker."""

    name: str
    task_id: str | None
    backend: str
    since: float


class BlockedNode(NamedTuple):
    """A node that waits for inputs: `upstream` are those that have not ended, ten at most."""

    name: str
    task_id: str | None
    upstream: tuple[str, ...]


class GraphNode(NamedTuple):
    """A node in the picture of a run. `depth` counts the links of the longest way from a node without inputs.

    `state` is `done`, `failed`, `skipped` (ended without running), `running`, `queued`, `blocked`, or `planned`: not
    submitted yet.
    """

    name: str
    depth: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedEnd:
    """When a run will be over, in seconds from now: likely, and a range that holds it four times out of five.

    Without a prediction the three are None, and `reason` says why.
    """

    seconds: float | None = None
    earliest_seconds: float | None = None
    latest_seconds: float | None = None
    at: float | None = None
    known_share: float = 0.0
    reason: str | None = None

    def __repr__(self) -> str:
        if self.seconds is None:
            return outline(self, None, self.reason or "")
        return outline(self, None, f"in {duration(self.seconds * 1e9)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLane:
    """Where nodes of one backend run: how many at once, and how it stands."""

    name: str
    limit: int
    active: int
    queued: int
    oldest_queued_seconds: float

    def __repr__(self) -> str:
        return outline(self, self.name, f"{self.active} of {self.limit} running", f"{self.queued:,} queued")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """A run in progress. `planned` is None where the number of nodes is not known.

    `done` counts all nodes that have ended, `failed` and `skipped` among them; `failed_names` are of the first hundred
    that failed. `queued` has the order in which nodes start, `blocked` that in which they were submitted.
    `critical_chain` names the nodes, from one that runs or is ready to the last, that the end of the run waits for.
    `graph` has all nodes, and is there only on request.
    """

    id: str
    name: str
    since: float
    elapsed_seconds: float
    done: int
    failed: int
    failed_names: tuple[str, ...]
    skipped: int
    planned: int | None
    running: tuple[LiveNode, ...]
    queued: tuple[QueuedNode, ...]
    blocked: tuple[BlockedNode, ...]
    critical_chain: tuple[str, ...]
    predicted_end: PredictedEnd
    graph: tuple[GraphNode, ...] | None = None

    def __repr__(self) -> str:
        running = f"for {duration(self.elapsed_seconds * 1e9)}"
        done = f"{self.done:,} done" if self.planned is None else f"{self.done:,} of {self.planned:,} done"
        failed = f"{self.failed:,} failed" if self.failed else ""
        states = (f"{len(self.running):,} running", f"{len(self.queued):,} queued", f"{len(self.blocked):,} blocked")
        return outline(self, self.name, running, done, failed, *states)


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePool:
    """One adapter at one moment."""

    at: float
    pid: int
    pool: str
    closed: bool
    lanes: tuple[LiveLane, ...]
    runs: tuple[LiveRun, ...]

    def __repr__(self) -> str:
        lanes = [f"{lane.name} {lane.active} of {lane.limit} running" for lane in self.lanes]
        return outline(self, self.pool, count(len(self.runs), "run"), *lanes, "closed" if self.closed else "")

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return {
            "at": self.at,
            "pid": self.pid,
            "pool": self.pool,
            "closed": self.closed,
            "lanes": [asdict(lane) for lane in self.lanes],
            "runs": [_plain_run(run) for run in self.runs],
        }


def _plain_run(run: LiveRun) -> dict[str, Any]:
    """Without `asdict` for what there may be thousands of, which takes ten times as long."""
    plain: dict[str, Any] = {field.name: getattr(run, field.name) for field in fields(run)}
    plain["running"] = [asdict(node) for node in run.running]
    plain["predicted_end"] = asdict(run.predicted_end)
    for name in ("queued", "blocked", "graph"):
        if plain[name] is not None:
            plain[name] = [item._asdict() for item in plain[name]]
    return plain
