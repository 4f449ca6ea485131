"""A run as it was recorded: what every analysis reads, wherever the record came from.

Plain facts, checked and repaired by whoever made the record (`problems` says what was repaired or is missing).
All `*_ns` are nanoseconds of one clock; only their differences mean anything.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from traced_threadpool.model.formatting import count, duration, outline
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.model.records import Outcome, RunOutcome
from traced_threadpool.model.states import State

if TYPE_CHECKING:
    from traced_threadpool.report.explanation import Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExecution:
    """One execution of one node.

    Its life is three stretches without a gap: submitted, then ready (all inputs there), then started, then ended.
    `key` is unique in the record (the span id, where there is one); `upstream` holds keys. `states` divides the
    duration, in nanoseconds; it may lack states, which are 0, and is empty where nothing is known. `samples` is what
    the division of the waiting part rests on. A node that never ran has `started_ns == ended_ns`.
    """

    key: str
    name: str
    submitted_ns: int
    ready_ns: int
    started_ns: int
    ended_ns: int
    outcome: Outcome = "success"
    upstream: tuple[str, ...] = ()
    worker: str = ""
    backend: str = ""
    """The one that it ran on; empty: the adapter's own threads."""
    is_remote: bool = False
    """Whether its function ran on a worker of that backend, in another process."""
    sent_bytes: int = 0
    received_bytes: int = 0
    """What was sent there, and what came back."""
    function_started_ns: int = 0
    function_ended_ns: int = 0
    """When its function began and ended there, which is within the node's own start and end; 0: not known."""
    clock_correction_ns: int = 0
    """By how much the times of its worker, on another host, were moved to lie within this host's."""
    task_id: str | None = None
    states: Mapping[State, int] = field(default_factory=dict)
    samples: int = 0
    error_type: str | None = None
    error_message: str | None = None
    """Of the exception, where the record may hold it."""
    failed_upstream: str | None = None
    parent: str | None = None
    """Key of the node inside which this one's run was executed, for nested runs that share the record."""
    run_id: str | None = None
    """Id of that nested run; None for the record's own."""
    queue_others_ns: int = 0
    """The part of the queue wait in which other runs had the workers."""
    lock: LockWait | None = None
    """What it waited for in the state `lock`, where that is known."""

    def __repr__(self) -> str:
        return outline(self, self.name, duration(self.duration_ns), self.outcome, self.error_type or "")

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.started_ns

    @property
    def queue_ns(self) -> int:
        return self.started_ns - self.ready_ns

    @property
    def dependency_ns(self) -> int:
        return self.ready_ns - self.submitted_ns

    @property
    def moved_bytes(self) -> int:
        return self.sent_bytes + self.received_bytes

    @property
    def function_ns(self) -> tuple[int, int]:
        """From when until when its function ran on a worker of a backend, where that is known; else its own times."""
        return (
            (self.function_started_ns, self.function_ended_ns)
            if self.function_ended_ns
            else (
                self.started_ns,
                self.ended_ns,
            )
        )

    @property
    def ran(self) -> bool:
        return self.outcome in ("success", "error")

    @property
    def is_split(self) -> bool:
        """Whether it is split into branches (`Parallelizable`); Hamilton's walk over the graph stands still for it."""
        return is_split(self.name, self.task_id)


def is_split(name: str, task_id: str | None) -> bool:
    """By the id of the task that Hamilton makes of such a node.

    >>> is_split("files", "expand-files"), is_split("parse", "expand-files.0.block-files"), is_split("parse", None)
    (True, False, False)
    """
    return task_id is not None and task_id.endswith(f"expand-{name}")


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run: its nodes in the order of their submission.

    `max_workers` is None where the record does not say. `priority` is the order of ready nodes, by the words of
    `hamilton.run.priority`. `gil_holders` maps what held the GIL while nodes
    of this run waited for it (a node's name, or `thread:<name>` outside of the pool) to the nanoseconds of waiting it
    caused. `attribution` is how states were found out (`process`, or `none`). `problems` are sentences for people.
    """

    id: str
    name: str
    pool: str
    started_ns: int
    ended_ns: int
    nodes: tuple[NodeExecution, ...]
    outcome: RunOutcome = "success"
    error_type: str | None = None
    max_workers: int | None = None
    priority: str = "fifo"
    cpus: int | None = None
    attribution: str = "none"
    attribution_reason: str | None = None
    gil_holders: Mapping[str, int] = field(default_factory=dict)
    backends: Mapping[str, Lane] = field(default_factory=dict)
    """The adapter's, by name, as far as the record says."""
    expected_nodes: int | None = None
    """How many nodes the run says it submitted; more than `nodes` when spans were lost or left out."""
    left_out: int = 0
    """Of how many nodes of a large run no span was made, on purpose. What is not among `nodes` besides was lost."""
    started_unix_ns: int | None = None
    problems: tuple[str, ...] = ()
    caller: str = ""
    """The thread that executed it, where the record says."""
    pool_runs: PoolRuns | None = field(default=None, repr=False, compare=False)
    """All runs of its pool that the record has, this one among them; None where it has this one alone."""

    def __repr__(self) -> str:
        nodes = count(len(self.nodes), "node")
        return outline(self, self.name, nodes, duration(self.duration_ns), self.outcome, f"id {self.id}")

    @lazy
    def neighbours(self) -> Sequence[RecordedRun]:
        """Other runs of the pool that went on at the same time, by their start, as far as the record has them."""
        if self.pool_runs is None:
            return ()
        return [run for run in self.pool_runs.between(self.started_ns, self.ended_ns) if run.id != self.id]

    @lazy
    def queue_others_ns(self) -> int:
        """How long nodes of this run waited for a worker because of other runs, in total."""
        return sum([node.queue_others_ns for node in self.nodes])

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.started_ns

    @lazy
    def by_key(self) -> Mapping[str, NodeExecution]:
        return {node.key: node for node in self.nodes}

    @lazy
    def by_parent(self) -> Mapping[str | None, Sequence[NodeExecution]]:
        """The nodes of the run itself under None, those of nested runs under the key of the node that executed them."""
        found: dict[str | None, list[NodeExecution]] = {}
        for node in self.nodes:
            found.setdefault(node.parent, []).append(node)
        return found

    @lazy
    def outermost(self) -> Sequence[NodeExecution]:
        """Those that ran, without nodes of runs that one of them executed: they are part of what that one does."""
        return [node for node in self.nodes if node.ran and (node.parent is None or node.parent not in self.by_key)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the run to a file that `traced-threadpool explain` and `read_runs` read, in place of what was there.

        Several runs: `traced_threadpool.analysis.save_runs(path, runs)`.

        Raises:
            OSError: It cannot be written. What was there is still there.
        """
        _presenter().save(self, path)

    def explain(self) -> Explanation:
        """Why it took as long as it did. `print` shows what `traced-threadpool explain` does, a notebook a page."""
        return _presenter().explain(self)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Writes the HTML page that `traced-threadpool report` does.

        Returns:
            Where it is.

        Raises:
            ImportError: The extra `report` is not installed.
            OSError: It cannot be written. What was there is still there.
        """
        return _presenter().report(self, path)

    def _repr_html_(self) -> str:
        """What a notebook shows of a run."""
        return _presenter().notebook_html(self)


class PoolRuns:
    """The runs of one pool, by their start.

    Args:
        load: Gives them, in any order. Called once, when somebody asks.
    """

    def __init__(self, load: Callable[[], Sequence[RecordedRun]]) -> None:
        self._load = load

    @lazy
    def runs(self) -> Sequence[RecordedRun]:
        return sorted(self._load(), key=lambda run: run.started_ns)

    @lazy
    def _starts_ns(self) -> Sequence[int]:
        return [run.started_ns for run in self.runs]

    @lazy
    def _longest_ns(self) -> int:
        return max((run.duration_ns for run in self.runs), default=0)

    def between(self, started_ns: int, ended_ns: int) -> Sequence[RecordedRun]:
        """Those that went on at any time between these two."""
        first = bisect_right(self._starts_ns, started_ns - self._longest_ns - 1)
        last = bisect_right(self._starts_ns, ended_ns - 1)
        return [run for run in self.runs[first:last] if run.ended_ns > started_ns]


class Presenter(Protocol):
    """Shows and saves runs. That is above records, so the package says at its top who does it: see `present_with`."""

    def notebook_html(self, run: RecordedRun, /) -> str: ...
    def explain(self, run: RecordedRun, /) -> Explanation: ...
    def save(self, run: RecordedRun, path: str | os.PathLike[str], /) -> None: ...
    def report(self, run: RecordedRun, path: str | os.PathLike[str], /) -> Path: ...


_presenter: Callable[[], Presenter]


def present_with(load: Callable[[], Presenter]) -> None:
    """Says who does. `load` is called each time that somebody asks, and not before."""
    global _presenter  # noqa: PLW0603 - one for the program, set when the package is imported
    _presenter = load
