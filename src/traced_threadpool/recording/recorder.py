"""What happens in a pool into recorded runs, as it happens, in bounded memory.

For each node that ends one small tuple is kept, which points at those of its upstream nodes; names and times, never a
result, an argument or an exception; of what a node raised, the type and the message. A record is made of them only when
somebody asks. A run that a node executes on the same adapter is part of the record of the outermost run.

No lock: a node's tuple is appended to a list and put into a dict, and both are atomic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from threading import get_ident
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from traced_threadpool.model import forks
from traced_threadpool.model.exceptions import message_of
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.observers import Observer
from traced_threadpool.model.recorded_run import NodeExecution, PoolRuns, RecordedRun, is_split
from traced_threadpool.model.records import (
    MIN_QUEUE_NS,
    KeptNodes,
    NodeRecord,
    PathFacts,
    RunOutcome,
    RunRecord,
    WaitFacts,
    usable_cpus,
    worker_of,
)
from traced_threadpool.recording.critical_path import Stretch, path_facts, waited_for, walk_back
from traced_threadpool.recording.kept_nodes import (
    Entry,
    Part,
    Past,
    away,
    error_type_of,
    execution,
    last_to_end,
    problems_of,
    ran,
    running_node,
)
from traced_threadpool.recording.told_waits import holders_of, path_waits

DEFAULT_RUNS: Final = 10
"""How many runs `record=True` keeps."""

MAX_NODES: Final = 100_000
"""How many nodes of one run are kept. 20,000 take about 10 MB."""


MAX_WORKERS_SEEN: Final = 1_000
"""Of how many worker threads, most of them gone, the last node is kept."""


class Recorder(Observer):
    """The observer that keeps the last runs.

    Args:
        pool_name: The pool of the records.
        max_workers: Its limit.
        keep: How many runs are kept; 0 for those who only want `on_end`.
        max_nodes: How many nodes of one run are.
        messages: Whether the messages of exceptions are kept, those that can be read without calling anybody's code.
        running: Gives the nodes that run now.
        on_end: Told of each outermost run that has ended, with what was kept of it; its `path` tells the critical path.
            Called where `run_ended` is, and should be as quick.
    """

    component = "recorder"

    def __init__(
        self,
        *,
        pool_name: str,
        max_workers: int,
        backends: Mapping[str, Lane] = MappingProxyType({}),
        keep: int = DEFAULT_RUNS,
        max_nodes: int = MAX_NODES,
        messages: bool = True,
        running: Callable[[], Sequence[NodeRecord]] = tuple,
        on_end: Callable[[RunRecord, Recording], None] | None = None,
    ) -> None:
        self._pool_name = pool_name
        self.max_workers = max_workers
        self._backends = backends
        self._max_nodes = max_nodes
        self._messages = messages
        self._running = running
        self._on_end = on_end
        self._keep = keep
        self._forget()
        forks.register(self._forget)

    def _forget(self) -> None:
        self._parts: dict[str, Part] = {}  # by run id, of those that have not ended
        self._kept: deque[Recording] = deque(maxlen=self._keep)
        self._last: dict[int, tuple[str, int, Any]] = {}  # by worker thread: what will be a `Past`

    @property
    def runs(self) -> list[RecordedRun]:
        """The last runs that have ended, the latest last."""
        return [recording.record for recording in self._kept.copy()]

    def run_started(self, run: RunRecord) -> None:
        self._parts[run.id] = Part(run.id, run)

    def node_ended(self, node: NodeRecord) -> None:
        run, before = node.run, None
        if node.thread is not None:  # it ran, here
            worker, last = get_ident(), self._last
            before = last.get(worker)
            if before is None and len(last) >= MAX_WORKERS_SEEN:
                last.clear()
            last[worker] = node.name, node.ended_ns, node.span_context
        part = self._parts.get(run.id) if run is not None else None
        if part is not None:
            recording = part.recording or self._place(part, node)
            recording.add(node, part, before)

    def run_ended(self, run: RunRecord) -> None:
        part = self._parts.pop(run.id, None)
        if part is None:
            return
        part.node_count = run.node_count
        recording = part.recording or self._record_of(part)
        run.kept = partial(recording.kept, part, run.started_ns, run.ended_ns, run.unix_offset_ns)
        if recording.root is not part:
            return
        recording.end(run, self._pool_name, self.max_workers, self._backends)
        going_on = [other for other in list(self._parts.values()) if other is not part]
        for other in going_on:
            other.shared = True
        if not going_on and not part.shared:
            run.recorded = recording.recorded
        if self._keep:
            self._keep_beside(recording, going_on)
            if len(self._kept) == self._keep:
                self._kept[0].let_go()
            self._kept.append(recording)
        if self._on_end is not None:
            self._on_end(run, recording)

    def _keep_beside(self, recording: Recording, going_on: Sequence[Part]) -> None:
        """Each run is kept with those that had nodes in the pool at the same time."""
        for part in going_on:
            part.keep_beside(recording)
        if going_on:
            recording.going_on = going_on
            recording.running = [running_node(node) for node in self._running() if node.run is not None]

    def _place(self, part: Part, node: NodeRecord) -> Recording:
        """Finds out, by its first node to end, what a run is nested in."""
        parent = node.parent
        outer = None if parent is None or parent.run is None else self._parts.get(parent.run.id)
        if parent is None or outer is None:
            return self._record_of(part)
        recording = outer.recording or self._place(outer, parent)
        recording.nest(part, parent)
        return recording

    def _record_of(self, part: Part) -> Recording:
        """Of several threads whose nodes end first at once, one makes it."""
        made = Recording(part, self._max_nodes, messages=self._messages)
        recording: Recording = part.__dict__.setdefault("recording", made)
        return recording


_ended_ns: Final = attrgetter("ended_ns")
_submitted_ns: Final = attrgetter("submitted_ns")


class _RunFacts(NamedTuple):
    """What is kept of a run."""

    name: str
    pool: str
    max_workers: int
    backends: Mapping[str, Lane]
    started_ns: int
    ended_ns: int
    unix_offset_ns: int
    outcome: RunOutcome
    error_type: str | None
    wait_facts: Callable[[], WaitFacts] | None
    priority: str
    caller: int


class Recording:
    """What is kept of an outermost run, and what can be made of it once the run has ended."""

    def __init__(self, root: Part, max_nodes: int, *, messages: bool) -> None:
        self.root = root
        self._messages = messages
        self._max_nodes = max_nodes
        self._parts = {root.run_id: root}
        self._entries: list[Entry] = []
        # By identity. It tells a node that is alive from all others that are; those that are not anybody's input any
        # more may be gone and their place taken, which the time of submission shows.
        self._by_node: dict[int, Entry] = {}
        # Who is to be told of the end of a node, by its identity, each with its time of submission, as above.
        self._awaited: dict[int, list[tuple[int, Callable[[Entry], None]]]] = {}
        self._facts: _RunFacts | None = None
        # The other runs that went on when this one ended, and the nodes that ran then.
        self.going_on: Sequence[Part] = ()
        self.running: Sequence[tuple[str, NodeExecution]] = ()

    @property
    def node_count(self) -> int:
        return len(self._entries)

    @property
    def has_ended(self) -> bool:
        return self._facts is not None

    def let_go(self) -> None:
        """It is kept only beside others from now on: those that were beside it would keep each other for ever."""
        self.root.beside.clear()
        self.going_on = self.running = ()
        self.__dict__.pop("record", None)

    def add(self, node: NodeRecord, part: Part, before: tuple[str, int, Any] | None) -> None:
        """A node has ended. This is on every node's way."""
        entries, by_node = self._entries, self._by_node
        if len(entries) >= self._max_nodes or self._facts is not None:
            return
        upstream: Sequence[Entry] = ()
        inputs = node.inputs
        if inputs:
            found = {}
            for each in inputs:
                key = id(each)
                entry = by_node.get(key)
                if entry is not None and entry[1] == each.submitted_ns:
                    found[key] = entry
            upstream = list(found.values())
            if node.thread is None:  # it will never run, and not all of its inputs may have ended
                for each in inputs:
                    if not each.ended_ns:
                        self._await(each, upstream.append)
        thread, error, cause, started_ns = node.thread, node.error, node.cause, node.started_ns
        timing, pid, sent = node.timing, 0, None
        if timing is not None:
            pid, sent = timing.worker_pid, away(timing)
        past = None
        if before is not None and started_ns - node.ready_ns >= MIN_QUEUE_NS:
            past = Past(*before) if node.ready_ns < before[1] <= started_ns else None
        # Twice as fast as calling the class.
        by_node[id(node)] = entry = tuple.__new__(
            Entry,
            (
                node.name,
                node.submitted_ns,
                node.ready_ns,
                started_ns,
                node.ended_ns,
                upstream,
                node.outcome,
                "" if thread is None else thread.name if pid == 0 else worker_of(node.backend, pid),
                node.backend,
                sent,
                node.task_id,
                node.cpu_ns,
                node.state_ns,
                node.samples,
                node.queue_others_ns,
                node.lock,
                None if error is None else error_type_of(error),
                message_of(error) if error is not None and self._messages else None,
                None if cause is None else cause.name,
                part,
                node.span_context,
                node.parameters,
                past,
            ),
        )
        entries.append(entry)
        if self._awaited:
            for submitted_ns, tell in self._awaited.pop(id(node), ()):
                if submitted_ns == node.submitted_ns:
                    tell(entry)

    def nest(self, part: Part, parent: NodeRecord) -> None:
        """A run that `parent`, a node of this recording, executes. Several threads may say so at once."""
        part.nested = True
        self._parts[part.run_id] = part
        part.recording = self
        self._await(parent, partial(setattr, part, "parent"))
        if parent.ended_ns:  # it did not wait for the run
            part.parent = self._by_node.get(id(parent))

    def _await(self, node: NodeRecord, tell: Callable[[Entry], None]) -> None:
        self._awaited.setdefault(id(node), []).append((node.submitted_ns, tell))

    def end(self, run: RunRecord, pool_name: str, max_workers: int, backends: Mapping[str, Lane]) -> None:
        self._facts = _RunFacts(
            run.name,
            pool_name,
            max_workers,
            backends,
            run.started_ns,
            run.ended_ns,
            run.unix_offset_ns,
            run.outcome or "success",
            None if run.error is None else error_type_of(run.error),
            run.wait_facts,
            run.priority,
            run.caller,
        )
        self._by_node.clear()
        self._awaited.clear()

    @lazy
    def path(self) -> PathFacts:
        """The critical path; nothing where nodes were left out. Its time grows with the path, not with the run."""
        facts, root = self._facts, self.root
        if facts is None:
            return PathFacts()
        if root.stretches is None:
            self._walk_once(root, facts.started_ns, facts.ended_ns)
        return root.path

    def kept(self, part: Part, started_ns: int, ended_ns: int, unix_offset_ns: int) -> KeptNodes:
        """The nodes of one run, which has ended, and its critical path from its end back to its start."""
        if part.stretches is None:
            self._walk_once(part, started_ns, ended_ns)
        stretches, part.stretches = part.stretches or [], []
        by_end, part.by_end = part.by_end or self._by_end(part), ()
        return KeptNodes(
            nodes=by_end,
            stretches=stretches,
            whole=len(by_end) >= part.node_count,
            nests=len(self._parts) > 1,
            waits=path_waits(stretches, by_end, part.holders, unix_offset_ns=unix_offset_ns),
            holders=part.holders,
            facts=part.path,
        )

    def _by_end(self, part: Part | None = None) -> list[Entry]:
        """The nodes of one run, or of all of the recording, in the order of their ends: nearly that of the entries."""
        entries = self._entries.copy()
        if part is not None and len(self._parts) > 1:
            entries = [entry for entry in entries if entry.part is part]
        entries.sort(key=_ended_ns)
        return entries

    def _walk_once(self, part: Part, started_ns: int, ended_ns: int) -> None:
        """Finds the critical path of a run, for its metrics and its trace."""
        by_end = self._by_end(part)
        stretches = self._walk(by_end, part, started_ns, ended_ns) if len(by_end) >= part.node_count else []
        part.holders = holders_of(stretches, self._by_end() if len(self._parts) > 1 else by_end)
        part.path = path_facts(stretches, part.holders)
        part.by_end, part.stretches = by_end, stretches

    def _walk(self, by_end: Sequence[Entry], part: Part, started_ns: int, ended_ns: int) -> list[Stretch[Entry]]:
        """The stretches of one run's critical path, from its end."""
        splits = [entry for entry in by_end if entry.task_id and ran(entry) and is_split(entry.name, entry.task_id)]

        def upstream_of(entry: Entry) -> Sequence[Entry]:
            upstream = entry.upstream
            if len(self._parts) > 1:
                upstream = [each for each in upstream if each.part is part]
            return [*upstream, *waited_for(entry, splits)] if splits else upstream

        return walk_back(last_to_end(by_end), started_ns, ended_ns, upstream_of)

    def recorded(self) -> RecordedRun:
        return self.record

    @lazy
    def record(self) -> RecordedRun:
        """The run for everybody to read. What the sampler of waits has to say of it is asked for here."""
        facts = self._facts
        assert facts is not None, "a recording is read when its run has ended"
        entries = sorted(
            (entry for entry in self._entries if not entry.part.nested or entry.part.parent is not None),
            key=lambda entry: entry.submitted_ns,
        )
        keys = {id(entry): str(number) for number, entry in enumerate(entries)}
        expected = sum(part.node_count for part in list(self._parts.values()))
        waits = WaitFacts(method="none") if facts.wait_facts is None else facts.wait_facts()
        return RecordedRun(
            id=self.root.run_id,
            name=facts.name,
            pool=facts.pool,
            started_ns=facts.started_ns,
            ended_ns=facts.ended_ns,
            nodes=tuple(execution(entry, keys) for entry in entries),
            outcome=facts.outcome,
            error_type=facts.error_type,
            max_workers=facts.max_workers,
            priority=facts.priority,
            cpus=usable_cpus(),
            attribution=waits.method,
            attribution_reason=waits.reason,
            gil_holders=waits.gil_holders,
            backends=facts.backends,
            expected_nodes=expected,
            started_unix_ns=facts.started_ns + facts.unix_offset_ns,
            problems=problems_of(expected, len(entries), self._max_nodes),
            caller=str(facts.caller or ""),
            pool_runs=PoolRuns(self._runs_beside) if self.root.beside or self.going_on else None,
        )

    def _runs_beside(self) -> list[RecordedRun]:
        roots = [part for part in self.going_on if not part.nested]
        ended = [each for each in (*self.root.beside, *[part.recording for part in roots]) if each and each.has_ended]
        going_on = [self._so_far(part) for part in roots if part.recording is None or not part.recording.has_ended]
        return [self.record, *[recording.record for recording in ended], *going_on]

    def _so_far(self, root: Part) -> RecordedRun:
        """What is known of a run that goes on when this one has ended: nodes that run then end with it."""
        facts = self._facts
        assert facts is not None
        entries = [] if root.recording is None else root.recording._entries.copy()
        entries = sorted((entry for entry in entries if not entry.part.nested), key=_submitted_ns)
        keys = {id(entry): str(number) for number, entry in enumerate(entries)}
        nodes = [execution(entry, keys) for entry in entries]
        known = {(node.name, node.submitted_ns) for node in nodes}
        nodes += [
            replace(node, ended_ns=max(node.ended_ns, facts.ended_ns))
            for run_id, node in self.running
            if run_id == root.run_id and (node.name, node.submitted_ns) not in known
        ]
        last_ns = max((node.ended_ns for node in nodes), default=root.started_ns)
        return RecordedRun(
            id=root.run_id,
            name=root.name,
            pool=facts.pool,
            started_ns=root.started_ns,
            ended_ns=max(last_ns, facts.ended_ns),
            nodes=tuple(nodes),
            max_workers=facts.max_workers,
            backends=facts.backends,
            priority=root.priority,
            cpus=usable_cpus(),
            caller=str(root.caller or ""),
        )
