"""Plain records of a run and of a node's life: who, when, how it ended. Nothing here acts.

All `*_ns` fields are nanoseconds of one monotonic clock; 0 means "has not happened".
A node's life is three stretches without a gap::

    submitted --dependency--> ready --queue--> started --duration--> ended

>>> node = NodeRecord("clean", run=None)
>>> node.submitted_ns, node.ready_ns, node.started_ns, node.ended_ns = 10, 30, 35, 95
>>> node.dependency_ns, node.queue_ns, node.duration_ns
(20, 5, 60)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.model.states import in_order
from traced_threadpool.model.timing import Timing

if TYPE_CHECKING:
    from traced_threadpool.model.recorded_run import RecordedRun

Outcome = Literal["success", "error", "upstream_error", "cancelled"]
"""How a node ended: its function returned; it raised; an upstream failed; it was never started."""

THREADS: Final = "threads"
"""The backend of nodes that run on this process's own threads."""

RunOutcome = Literal["success", "error", "cancelled"]
RUN_OUTCOMES: Final[tuple[RunOutcome, ...]] = ("success", "error", "cancelled")

OUTCOMES: Final[tuple[Outcome, ...]] = ("success", "error", "upstream_error", "cancelled")


def cause_by_outcome(
    run: RunOutcome, nodes: Iterable[Outcome | None]
) -> Literal["failing_upstream", "cancelled"] | None:
    """The cause of a run that did not end as it should, from how it and its nodes ended.

    >>> cause_by_outcome("error", ["error", "cancelled"]), cause_by_outcome("success", ["success", "cancelled"])
    ('failing_upstream', 'cancelled')
    """
    found = set(nodes)
    if run == "error" or "error" in found:
        return "failing_upstream"
    return "cancelled" if run == "cancelled" or "cancelled" in found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFacts:
    """What is known of the waits of a run's nodes beyond their states.

    `method` is how states were found out: `process`, or `none`; `reason` a word for what is missing, if anything is.
    `gil_holders` are who held the GIL while nodes of the run waited for it, and the nanoseconds of waiting
    caused. `steal_ratio` is the share of CPU time that a hypervisor took away meanwhile.
    """

    method: str
    reason: str | None = None
    gil_holders: Mapping[str, int] = field(default_factory=dict)
    steal_ratio: float = 0.0


MIN_QUEUE_NS: Final = 1_000_000
"""Queue waits on the critical path that are as long are told one by one."""

MISLEADS_FROM_NS: Final = 5_000
"""Shorter waits there are as good as none."""

QUEUE_INSET_NS: Final = 2_000
"""How much later than the wait its span starts, and how much earlier it ends: viewers of traces take the child that
ended strictly before, at microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFacts:
    """The critical path of a run as telemetry tells it.

    `names` are its nodes from first to last, and `_queue` where one waited for a worker for `MIN_QUEUE_NS` or longer;
    of a very long path the longest ones. `durations` are theirs, in seconds. `seconds` is how much of the path each
    node's name takes, and the waits between nodes under names that start with an underscore: the whole run.
    `queued_behind` is how long the path waited for workers, by the name of the node that had the worker.
    """

    names: tuple[str, ...] = ()
    durations: tuple[float, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    queued_behind: Mapping[str, float] = field(default_factory=dict)


class TimedNode(Protocol):
    """A node's name and times, however they are kept: as far as the critical path looks at it."""

    @property
    def name(self) -> str: ...
    @property
    def submitted_ns(self) -> int: ...
    @property
    def ready_ns(self) -> int: ...
    @property
    def started_ns(self) -> int: ...
    @property
    def ended_ns(self) -> int: ...


class KeptNode(TimedNode, Protocol):
    """What is kept of a node that has ended."""

    @property
    def upstream(self) -> Sequence[KeptNode]: ...
    @property
    def parameters(self) -> Sequence[str]: ...
    @property
    def outcome(self) -> Outcome | None: ...
    @property
    def worker(self) -> str: ...
    @property
    def task_id(self) -> str | None: ...
    @property
    def cpu_ns(self) -> int: ...
    @property
    def state_ns(self) -> tuple[int, ...] | None: ...
    @property
    def samples(self) -> int: ...
    @property
    def queue_others_ns(self) -> int: ...
    @property
    def lock(self) -> LockWait | None: ...
    @property
    def span_context(self) -> Any: ...


class Holder(Protocol):
    """A node that had a worker, of any run in the pool."""

    @property
    def name(self) -> str: ...
    @property
    def ended_ns(self) -> int: ...
    @property
    def span_context(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PathWait:
    """A wait of the critical path before `node` started.

    For a worker if it was `queued`, which `behind` had meanwhile, if that is known; else it had not been submitted, or
    waited for something that is no node.
    """

    node: KeptNode
    queued: bool
    started_ns: int
    ended_ns: int
    behind: Holder | None

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.started_ns


PathStretch = tuple[str, KeptNode | None, int, int]
"""Kind (`node`, `queue`, `dependency`, `outside`), the node that ran or waited, from, to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptNodes:
    """The nodes of a run in the order of their ends, and its critical path from its end: all of it in `stretches`, and
    those `waits` that are told one by one. `holders` had the workers for which its nodes waited, by their identity.

    `whole` tells whether no node is left out; else nothing is known of the path. `nests` tells whether runs are nested
    in it, or it is nested in another.
    """

    nodes: Sequence[KeptNode]
    stretches: Sequence[PathStretch]
    whole: bool
    nests: bool = False
    waits: Sequence[PathWait] = ()
    holders: Mapping[int, Holder] = field(default_factory=dict)
    facts: PathFacts = field(default_factory=PathFacts)


NOTHING_KEPT: Final = KeptNodes(nodes=(), stretches=(), whole=False)


_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class RunRecord:
    """One `execute`: what was asked for, and how it went.

    `unix_offset_ns` makes Unix time of the monotonic clock: one offset for all of a run, and for what is nested in
    it, so that its times are in the order in which things happened.
    `telemetry` is a place for observers to keep what they need (the run's span); nobody else reads it. `number` tells
    runs apart in the waits' sampler; `wait_facts` gives what that knows, once the run has ended, and may take a moment.
    `caller` is the thread that executes it, 0 where nobody knows.
    `critical_path` gives the chain of nodes that fills the run, then too, and `kept` all its nodes. `priority` is the
    order of ready nodes. `placed` tells of each node that `run_on="auto"` has moved, why. `planned` is how many nodes
    it will have at least, where that was looked at. `recorded` gives the record of an outermost run that was alone in
    the pool: what others had to do with a run is known only once they have ended.
    """

    __slots__ = (
        "caller",
        "critical_path",
        "ended_ns",
        "error",
        "graph",
        "id",
        "input_names",
        "kept",
        "name",
        "node_count",
        "number",
        "outcome",
        "output_names",
        "override_names",
        "placed",
        "planned",
        "priority",
        "recorded",
        "started_ns",
        "telemetry",
        "unix_offset_ns",
        "wait_facts",
    )

    def __init__(
        self,
        id: str,
        name: str,
        *,
        output_names: Sequence[str] = (),
        input_names: Sequence[str] = (),
        override_names: Sequence[str] = (),
        graph: Any = None,
        started_ns: int = 0,
        unix_offset_ns: int = 0,
    ) -> None:
        self.id = id
        self.name = name
        self.output_names = output_names
        self.input_names = input_names
        self.override_names = override_names
        self.priority = "fifo"
        self.placed: Mapping[str, str] = _NONE
        self.graph = graph
        self.started_ns = started_ns
        self.unix_offset_ns = unix_offset_ns
        self.ended_ns = 0
        self.node_count = 0
        self.outcome: RunOutcome | None = None
        self.error: BaseException | None = None
        self.telemetry: Any = None
        self.number = 0
        self.wait_facts: Callable[[], WaitFacts] | None = None
        self.critical_path: Callable[[], PathFacts] | None = None
        self.kept: Callable[[], KeptNodes] | None = None
        self.recorded: Callable[[], RecordedRun] | None = None
        self.planned = 0
        self.caller = 0

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.started_ns


class NodeRecord:
    """One node of one run. `definition` is the framework's own node object, opaque here.

    `inputs[i]` is the upstream node whose value comes in by `parameters[i]`; one without a name is a future of
    somebody else's. `cause` is the node whose function raised (or that was cancelled), for a node that never ran
    because of it. `thread` is the worker. `span`, `span_context` and `token` belong to the tracing observer, `reading`
    to the meter.

    `state_ns` divides the duration among `STATES`; None where only `cpu_ns` is known. It rests on `samples` looks at
    the worker while it waited. `counted_ns` is what counters add: right in the sum over many executions.

    `queue_others_ns` is the part of its queue wait that is because of other runs, which had the workers meanwhile.
    `lock` is what it waited for, where it waited for one.
    `backend` names where the function runs; `timing` is what a backend other than this process's threads reports of it.
    """

    __slots__ = (
        "aside_ns",
        "backend",
        "cause",
        "counted_ns",
        "cpu_ns",
        "definition",
        "ended_ns",
        "error",
        "inputs",
        "lock",
        "name",
        "outcome",
        "parameters",
        "queue_others_ns",
        "reading",
        "ready_ns",
        "run",
        "run_id",
        "samples",
        "span",
        "span_context",
        "started_ns",
        "state_ns",
        "submitted_ns",
        "task_id",
        "thread",
        "timing",
        "token",
    )

    def __init__(
        self,
        name: str,
        *,
        run: RunRecord | None,
        run_id: str | None = None,
        task_id: str | None = None,
        definition: Any = None,
        submitted_ns: int = 0,
    ) -> None:
        self.name = name
        self.run = run
        self.run_id = run_id
        self.task_id = task_id
        self.definition = definition
        self.submitted_ns = submitted_ns
        self.ready_ns = 0
        self.started_ns = 0
        self.ended_ns = 0
        self.cpu_ns = 0
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.cause: NodeRecord | None = None
        self.inputs: Sequence[NodeRecord] = ()
        self.parameters: Sequence[str] = ()
        self.thread: threading.Thread | None = None
        self.reading: Any = None
        self.queue_others_ns = 0
        self.lock: LockWait | None = None
        self.aside_ns = 0  # spent on other nodes, which ran within this one
        self.state_ns: tuple[int, ...] | None = None
        self.counted_ns: tuple[int, ...] | None = None
        self.samples = 0
        self.span: Any = None
        self.span_context: Any = None
        self.token: Any = None
        self.backend = THREADS
        self.timing: Timing | None = None

    @property
    def parent(self) -> NodeRecord | None:
        """The node that executes the run of this one, where one does."""
        return None

    @property
    def dependency_ns(self) -> int:
        return self.ready_ns - self.submitted_ns

    @property
    def queue_ns(self) -> int:
        return self.started_ns - self.ready_ns

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.started_ns


def worker_of(backend: str, pid: int) -> str:
    """What a worker of a backend is called in records and pictures, where threads go by their names.

    >>> worker_of("cpu", 4711)
    'cpu 4711'
    """
    return f"{backend} {pid}"


def take_over_timing(node: NodeRecord) -> None:
    """Puts what a backend reports of a node into its states.

    Of a node that ran there, CPU time and states are those of its worker, and what is left beside moving and waiting
    for a worker is `other`. Of a node that ran here, moving is what it took to bring its arguments.
    """
    timing = node.timing
    if timing is None:
        return
    duration_ns = node.ended_ns - node.started_ns
    if not timing.started_ns:
        for_node = in_order({"cpu": node.cpu_ns, "other": max(0, duration_ns - node.cpu_ns)})
        node.state_ns = timing.with_moving(for_node if node.state_ns is None else node.state_ns)
        node.counted_ns = timing.with_moving(for_node if node.counted_ns is None else node.counted_ns)
        return
    node.cpu_ns = min(timing.cpu_ns, duration_ns)
    node.samples = timing.samples
    node.state_ns = node.counted_ns = timing.of_node(timing.state_ns, node.cpu_ns, duration_ns)
    if timing.counted_ns is not None:
        node.counted_ns = timing.of_node(timing.counted_ns, node.cpu_ns, duration_ns)


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def unix_offset_ns() -> int:
    """What to add to the monotonic clock's nanoseconds to get Unix time.

    The two clocks are read one after the other, so the reading with the least in between counts.
    """
    best_gap, best = None, 0
    for _ in range(5):
        before = time.monotonic_ns()
        unix = time.time_ns()
        gap = time.monotonic_ns() - before
        if best_gap is None or gap < best_gap:
            best_gap, best = gap, unix - before - gap // 2
        if gap < 2_000:
            break
    return best
