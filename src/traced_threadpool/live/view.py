"""What the pool says of this moment into the records that `FutureAdapter.live()` gives.

Who asks again and again pays for what has changed. Of a run that nothing has happened to the parts of the last record
are used again, and within a few milliseconds the record itself; of one that something has happened to, those of its
nodes that are where they were. Where a record takes long all the same, since there are thousands of nodes, the last one
is given again for as long as keeps the cost at `SHARE`, but for two seconds at most.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from traced_threadpool.engine.pool_look import PoolLook, RunLook
from traced_threadpool.engine.scheduler import ENDED
from traced_threadpool.engine.work import Run, Work
from traced_threadpool.live.eta import RunEnd
from traced_threadpool.live.node_now import NodeNow, NodesNow
from traced_threadpool.live.prediction import SUBMITTED, Plan, Prediction, Usual
from traced_threadpool.live.records import (
    BlockedNode,
    GraphNode,
    LiveLane,
    LiveNode,
    LivePool,
    LiveRun,
    PredictedEnd,
    QueuedNode,
)

MAX_UPSTREAM: Final = 10
MAX_CHAIN: Final = 100
SAME_SECONDS: Final = 0.005
"""For how long a record in which nothing has changed is given again."""

SHARE: Final = 0.02
LARGE_SECONDS: Final = 0.001
"""A record that takes longer is given again for as long as keeps that at `SHARE` of a CPU, whatever has changed."""

MOST_REUSED_SECONDS: Final = 2.0
"""But for no longer than that: the first record of a run takes many times as long as those that follow."""

_ALL_ENDED: Final = RunEnd(end=PredictedEnd(reason="all nodes ended"))
_NOTHING_KNOWN: Final = NodeNow()


class Look(Protocol):
    """Gives the pool at this moment; with the last look, what has changed since."""

    def __call__(self, before: PoolLook | None = None) -> PoolLook: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A record, from what, and until when it is good whatever changes."""

    asked: tuple[bool, ...]
    look: PoolLook
    record: LivePool
    at: float
    until: float

    def is_of(self, look: PoolLook) -> bool:
        return self.look.closed == look.closed and list(map(id, self.look.runs)) == list(map(id, look.runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What was made of a run's nodes."""

    look: RunLook
    queued: Mapping[Work, tuple[int, QueuedNode]]  # with when it was ready, and the record
    blocked: Mapping[Work, tuple[int, Sequence[Work], BlockedNode]]  # with how many inputs it waits for, and its inputs
    queued_nodes: tuple[QueuedNode, ...]
    blocked_nodes: tuple[BlockedNode, ...]


class LiveView:
    """Makes the records, and remembers what the next look needs.

    Args:
        pool_name: Of the adapter.
        look: Gives the pool at this moment.
        usual: How long a node of that name usually takes, None where that is not known.
        plan: The nodes that a run will have, None where that is not known.
        nodes: Looks at running nodes.
        stalled: Whether a node counts as stalled.
    """

    def __init__(
        self,
        *,
        pool_name: str,
        look: Look,
        usual: Usual,
        plan: Callable[[Run], Plan | None],
        nodes: NodesNow,
        stalled: Callable[[Work], bool] = lambda work: False,
    ) -> None:
        self._pool_name = pool_name
        self._look = look
        self._usual = usual
        self._plan = plan
        self.prediction = Prediction(usual, plan)
        self.share, self.large_seconds = SHARE, LARGE_SECONDS
        self._nodes = nodes
        self._stalled = stalled
        # Each is replaced as a whole: of several threads that ask at once each has its own, and the last one's stays.
        self._made: _Made | None = None
        self._parts: Mapping[Run, _Parts] = {}
        self._graphs: Mapping[Run, tuple[RunLook, tuple[GraphNode, ...]]] = {}
        self._seen: Mapping[Work, tuple[float, NodeNow]] = {}  # what a node did, and when

    def live(self, *, stacks: bool = False, graph: bool = False, cancelled: bool = True) -> LivePool:
        """The pool now.

        Args:
            stacks: Add each running node's Python stack.
            graph: Add all nodes of each run, for a picture.
            cancelled: Also runs that were cancelled, or interrupted, and whose nodes have not all ended.
        """
        asked = (stacks, graph, cancelled)
        at, began = time.monotonic(), time.thread_time()
        made = self._made
        same = made if made is not None and made.asked == asked and not stacks else None
        if same is not None and at < same.until:
            return same.record
        look = self._look(None if made is None else made.look)
        if same is not None and at < same.at + SAME_SECONDS and same.is_of(look):
            return same.record
        record = self._record(look, stacks=stacks, graph=graph, cancelled=cancelled)
        took = time.thread_time() - began
        until = at + min(MOST_REUSED_SECONDS, took / self.share) if took > self.large_seconds else at
        self._made = _Made(asked=asked, look=look, record=record, at=at, until=until)
        self.prediction.make_wanted()
        return record

    def _record(self, look: PoolLook, *, stacks: bool, graph: bool, cancelled: bool) -> LivePool:
        now = time.time()
        ends = self.prediction.ends(look)
        nodes = self._running_nodes(look, now, stacks=stacks)
        parts = self._parts
        self._parts = parts = {
            each.run: _parts(each, parts.get(each.run), now - look.now_ns / 1e9) for each in look.runs
        }
        return LivePool(
            at=now,
            pid=os.getpid(),
            pool=self._pool_name,
            closed=look.closed,
            lanes=tuple(
                [
                    LiveLane(
                        name=lane.backend,
                        limit=lane.limit,
                        active=lane.active,
                        queued=lane.queued,
                        oldest_queued_seconds=lane.oldest_queued_seconds,
                    )
                    for lane in look.lanes
                ]
            ),
            runs=tuple(
                [
                    self._run(parts[each.run], look.now_ns, now, nodes, ends.get(each.run, _ALL_ENDED), graph=graph)
                    for each in look.runs
                    if cancelled or not each.run.cancelled
                ]
            ),
        )

    def _run(
        self, parts: _Parts, now_ns: int, now: float, nodes: Mapping[Work, LiveNode], end: RunEnd, *, graph: bool
    ) -> LiveRun:
        look = parts.look
        record = look.run.record
        assert record is not None
        elapsed = (now_ns - record.started_ns) / 1e9
        plan = self._plan(look.run)
        return LiveRun(
            id=record.id,
            name=record.name,
            since=now - elapsed,
            elapsed_seconds=elapsed,
            done=look.done,
            failed=look.failed,
            failed_names=look.failed_names,
            skipped=len(look.skipped),
            planned=None if plan is None else max(len(plan), look.submitted),
            running=tuple(sorted([nodes[work] for work in look.running], key=_latest_first)),
            queued=parts.queued_nodes,
            blocked=parts.blocked_nodes,
            critical_chain=end.chain[:MAX_CHAIN],
            predicted_end=end.end,
            graph=self._graph(look, plan) if graph else None,
        )

    def _graph(self, look: RunLook, plan: Plan | None) -> tuple[GraphNode, ...]:
        known = self._graphs.get(look.run)
        if known is None or known[0] is not look:
            known = look, _graph(look, plan)
            kept = {run: graph for run, graph in self._graphs.items() if run in self._parts}
            self._graphs = {**kept, look.run: known}
        return known[1]

    def _running_nodes(self, look: PoolLook, now: float, *, stacks: bool) -> dict[Work, LiveNode]:
        doing = self._doing(look, stacks=stacks)
        found: dict[Work, LiveNode] = {}
        for run in look.runs:
            for work in run.running:
                does = doing.get(work, _NOTHING_KNOWN)
                elapsed = max(0, look.now_ns - (work.started_ns or look.now_ns)) / 1e9
                usual = self._usual(work.name)
                found[work] = LiveNode(
                    name=work.name,
                    task_id=work.task_id,
                    backend=work.backend,
                    worker=does.worker,
                    since=now - elapsed,
                    elapsed_seconds=elapsed,
                    state=does.state,
                    on=does.on,
                    usual=usual,
                    late_seconds=0.0 if usual is None else max(0.0, elapsed - usual.p95_seconds),
                    stalled=self._stalled(work),
                    stack=does.stack,
                )
        return found

    def _doing(self, look: PoolLook, *, stacks: bool) -> Mapping[Work, NodeNow]:
        """What running nodes do. Not asked again of one that was looked at within the last `SAME_SECONDS`."""
        now = time.monotonic()
        seen = {
            work: told for work, told in self._seen.items() if told[0] > now - SAME_SECONDS and work in look.threads
        }
        new = {thread for work, thread in look.threads.items() if stacks or work not in seen}
        if new:  # with all nodes that are within one another on a thread
            asked = {work: thread for work, thread in look.threads.items() if thread in new}
            seen |= {work: (now, does) for work, does in self._nodes.look(asked, stacks=stacks).items()}
        self._seen = seen
        return {work: does for work, (_, does) in seen.items()}


def _latest_first(node: LiveNode) -> tuple[float, float]:
    return -node.late_seconds, -node.elapsed_seconds


def _parts(look: RunLook, before: _Parts | None, clock_offset: float) -> _Parts:
    """What is known of the run's nodes; from `before` where it is the same.

    `clock_offset` is what the clock of nodes lags behind Unix time, in seconds.
    """
    if before is not None and before.look is look:
        return before
    known_queued = {} if before is None else before.queued
    queued: dict[Work, tuple[int, QueuedNode]] = {}
    for work in look.ready:
        ready_ns = work.ready_ns
        one = known_queued.get(work)
        if one is None or one[0] != ready_ns:
            one = (ready_ns, QueuedNode(work.name, work.task_id, work.backend, ready_ns / 1e9 + clock_offset))
        queued[work] = one
    known_blocked = {} if before is None else before.blocked
    blocked: dict[Work, tuple[int, Sequence[Work], BlockedNode]] = {}
    for work, inputs, remaining in zip(look.blocked, look.inputs, look.remaining, strict=True):
        other = known_blocked.get(work)
        if other is None or other[0] != remaining or other[1] is not inputs:
            other = (remaining, inputs, BlockedNode(work.name, work.task_id, _waits_for(inputs, look)))
        blocked[work] = other
    if known_blocked.keys() >= blocked.keys():
        blocked = {work: blocked[work] for work in known_blocked if work in blocked}  # which has their order
    else:
        blocked = {work: blocked[work] for work in sorted(blocked, key=SUBMITTED)}
    return _Parts(
        look=look,
        queued=queued,
        blocked=blocked,
        queued_nodes=tuple([node for _, node in queued.values()]),
        blocked_nodes=tuple([node for _, _, node in blocked.values()]),
    )


def _waits_for(inputs: Sequence[Work], look: RunLook) -> tuple[str, ...]:
    """Names of the inputs that had not ended when the pool was looked at."""
    names: dict[str, None] = {}
    for upstream in inputs:
        if upstream in look.unended if upstream.queue is look.run else upstream.state is not ENDED:
            names[upstream.name or "a future that is no node's"] = None
            if len(names) >= MAX_UPSTREAM:
                break
    return tuple(names)


def _graph(look: RunLook, plan: Plan | None) -> tuple[GraphNode, ...]:
    """All nodes of a run that is planned; else those that have not ended, and those that failed or were skipped."""
    states: dict[str, str] = {}
    depths: dict[str, int] = {}
    if plan is not None:
        for index, (name, upstream) in enumerate(plan.items()):
            states[name] = "done" if index < look.submitted else "planned"
            depths[name] = 1 + max([depths[each] for each in upstream if each in depths], default=-1)
    for state, names in (
        ("failed", look.failed_names),
        ("skipped", look.skipped),
        ("blocked", [work.name for work in look.blocked]),
        ("queued", [work.name for work in look.ready]),
        ("running", [work.name for work in look.running]),
    ):
        states.update(dict.fromkeys(names, state))
    return tuple([GraphNode(name, depths.get(name, 0), state) for name, state in states.items()])
