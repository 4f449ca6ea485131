"""What a recorder keeps of a node: a small tuple; and a record's node made of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.records import THREADS, Holder, NodeRecord, Outcome, PathFacts, RunRecord
from traced_threadpool.model.states import STATES, State
from traced_threadpool.model.timing import Timing

if TYPE_CHECKING:
    from traced_threadpool.recording.critical_path import Stretch
    from traced_threadpool.recording.recorder import Recording


MAX_BESIDE: Final = 20_000
"""How many nodes of other runs are kept with a run, those of the latest."""


class Part:
    """One run's share of a recording. Most recordings have one part."""

    recording: Recording | None = None

    def __init__(self, run_id: str, run: RunRecord) -> None:
        self.run_id = run_id
        self.name, self.started_ns, self.priority, self.caller = run.name, run.started_ns, run.priority, run.caller
        self.node_count = 0
        self.path = PathFacts()
        self.holders: Mapping[int, Holder] = {}
        self.stretches: Sequence[Stretch[Entry]] | None = None
        """The critical path from its end, once it was found and until it has been told."""
        self.by_end: Sequence[Entry] = ()
        """Its nodes in the order of their ends, for as long."""
        self.parent: Entry | None = None
        self.nested = False
        self.shared = False
        """Whether another run ended while this one went on."""
        self.beside: deque[Recording] = deque()
        """Other runs of the pool that ended while this one went on."""
        self._beside_nodes = 0

    def keep_beside(self, other: Recording) -> None:
        """Another run has ended."""
        self.beside.append(other)
        self._beside_nodes += other.node_count
        while self._beside_nodes > MAX_BESIDE:
            self._beside_nodes -= self.beside.popleft().node_count


class Past(NamedTuple):
    """What is kept of the node that a worker ran last, of whatever run."""

    name: str
    ended_ns: int
    span_context: Any


class Away(NamedTuple):
    """What is kept of a node's way to a backend: where its function ran on a worker there, when; and the bytes."""

    is_remote: bool
    sent_bytes: int
    received_bytes: int
    function_started_ns: int
    function_ended_ns: int
    clock_correction_ns: int


def away(timing: Timing) -> Away:
    """Of what its backend reports."""
    return Away(
        is_remote=timing.worker_pid != 0,
        sent_bytes=timing.sent_bytes,
        received_bytes=timing.received_bytes,
        function_started_ns=timing.started_ns,
        function_ended_ns=timing.ended_ns,
        clock_correction_ns=timing.clock_correction_ns,
    )


NOWHERE: Final = away(Timing())


class Entry(NamedTuple):
    """What is kept of a node."""

    name: str
    submitted_ns: int
    ready_ns: int
    started_ns: int
    ended_ns: int
    upstream: Sequence[Entry]
    outcome: Outcome | None
    worker: str
    backend: str
    away: Away | None
    task_id: str | None
    cpu_ns: int
    state_ns: tuple[int, ...] | None
    samples: int
    queue_others_ns: int
    lock: LockWait | None
    error_type: str | None
    error_message: str | None
    failed_upstream: str | None
    part: Part
    span_context: Any
    parameters: Sequence[str]
    """One for each of `upstream`, unless some of these are the same or not kept."""
    before: Past | None
    """What its worker ran right before, where it waited for that."""


def ran(entry: Entry) -> bool:
    """Whether its function was called."""
    return entry.outcome in ("success", "error")


def last_to_end(by_end: Sequence[Entry]) -> Entry | None:
    """Of those that ran, in the order of their ends; of several that ended last, the one that was submitted first."""
    last: Entry | None = None
    for entry in reversed(by_end):
        if last is not None and entry.ended_ns < last.ended_ns:
            break
        if ran(entry) and (last is None or entry.submitted_ns <= last.submitted_ns):
            last = entry
    return last


def running_node(node: NodeRecord) -> tuple[str, NodeExecution]:
    """The id of its run, and a node that runs. It has no end yet, and so no more than a moment."""
    run, thread = node.run, node.thread
    started_ns = node.started_ns or node.ready_ns
    return "" if run is None else run.id, NodeExecution(
        key=f"running-{id(node)}",
        name=node.name,
        submitted_ns=node.submitted_ns,
        ready_ns=node.ready_ns,
        started_ns=started_ns,
        ended_ns=started_ns,
        worker="" if thread is None else thread.name,
    )


def execution(entry: Entry, keys: Mapping[int, str]) -> NodeExecution:
    """The node of a record. `keys` are by the identity of entries."""
    part, away = entry.part, entry.away or NOWHERE
    began_ns, until_ns = away.function_started_ns, away.function_ended_ns
    if not entry.started_ns <= began_ns <= until_ns <= entry.ended_ns:
        began_ns = until_ns = 0
    return NodeExecution(
        key=keys[id(entry)],
        name=entry.name,
        submitted_ns=entry.submitted_ns,
        ready_ns=entry.ready_ns,
        started_ns=entry.started_ns,
        ended_ns=entry.ended_ns,
        outcome=entry.outcome or "success",
        upstream=tuple(keys[id(each)] for each in entry.upstream if id(each) in keys),
        worker=entry.worker,
        backend="" if entry.backend == THREADS else entry.backend,
        is_remote=away.is_remote,
        sent_bytes=away.sent_bytes,
        received_bytes=away.received_bytes,
        function_started_ns=began_ns,
        function_ended_ns=until_ns,
        clock_correction_ns=away.clock_correction_ns,
        task_id=entry.task_id,
        states=states_of(entry),
        samples=entry.samples,
        queue_others_ns=max(0, min(entry.queue_others_ns, entry.started_ns - entry.ready_ns)),
        lock=entry.lock,
        error_type=entry.error_type if entry.outcome == "error" else None,
        error_message=entry.error_message if entry.outcome == "error" else None,
        failed_upstream=entry.failed_upstream if entry.outcome == "upstream_error" else None,
        parent=None if part.parent is None else keys.get(id(part.parent)),
        run_id=part.run_id if part.nested else None,
    )


def states_of(entry: Entry) -> dict[State, int]:
    """What its duration is divided into."""
    duration_ns = entry.ended_ns - entry.started_ns
    if not duration_ns:
        return {}
    if entry.state_ns is None:
        parts: dict[State, int] = {"cpu": entry.cpu_ns, "other": duration_ns - entry.cpu_ns}
    else:
        parts = dict(zip(STATES, entry.state_ns, strict=True))
    return {state: part_ns for state, part_ns in parts.items() if part_ns}


def error_type_of(error: BaseException) -> str:
    """As `error.type` has it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def problems_of(expected: int, found: int, max_nodes: int) -> tuple[str, ...]:
    """What a record lacks."""
    if found >= expected:
        return ()
    return (
        f"{expected - found:,} of {expected:,} nodes left out: the recorder keeps {max_nodes:,} of a run. Their time "
        "shows as dependency waits or outside time.",
    )
