"""What the pool says of this moment into the records that `FutureAdapter.live()` gives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from traced_threadpool.engine.pool import PoolLook, RunLook
from traced_threadpool.engine.work import Run, Work
from traced_threadpool.live.eta import NodeLeft, RunEnd, predict_ends
from traced_threadpool.live.fields import (
    BlockedNode,
    GraphNode,
    LiveLane,
    LiveNode,
    LivePool,
    LiveRun,
    PredictedEnd,
    QueuedNode,
)
from traced_threadpool.live.node_now import NodeNow, NodesNow
from traced_threadpool.model.usual_duration import UsualDuration

MAX_UPSTREAM: Final = 10
MAX_CHAIN: Final = 100
PREDICTING_SHARE: Final = 0.05
MOST_REUSED_SECONDS: Final = 2.0

Plan = Mapping[str, Sequence[str]]
"""The nodes of a run in the order in which they are submitted, each with its inputs."""


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
        look: Callable[[], PoolLook],
        usual: Callable[[str], UsualDuration | None],
        plan: Callable[[Run], Plan | None],
        nodes: NodesNow,
        stalled: Callable[[Work], bool] = lambda work: False,
    ) -> None:
        self._pool_name = pool_name
        self._look = look
        self._usual = usual
        self._plan = plan
        self._nodes = nodes
        self._predicted: tuple[float, Mapping[str, RunEnd]] = (0.0, {})  # until when it is good, and the ends
        self._stalled = stalled

    def live(
        self, *, stacks: bool = False, graph: bool = False, predict: bool = True, cancelled: bool = True
    ) -> LivePool:
        """The pool now.

        Args:
            stacks: Add each running node's Python stack.
            graph: Add all nodes of each run, for a picture.
            predict: Add the end of each run.
            cancelled: Also runs that were cancelled, or interrupted, and whose nodes have not all ended.
        """
        look = self._look()
        now = time.time()
        lanes = [lane.backend for lane in look.lanes]
        ends: Mapping[str, RunEnd] = {}
        if predict:
            ends = self._predict(look)
        nodes = self._running_nodes(look, now, lanes, stacks=stacks)
        return LivePool(
            at=now,
            pid=os.getpid(),
            pool=self._pool_name,
            closed=look.closed,
            lanes=tuple(
                LiveLane(
                    name=lane.backend,
                    limit=lane.limit,
                    active=lane.active,
                    queued=lane.queued,
                    oldest_queued_seconds=lane.oldest_queued_seconds,
                )
                for lane in look.lanes
            ),
            runs=tuple(
                self._run(each, look.now_ns, now, lanes, nodes, ends, graph=graph)
                for each in look.runs
                if cancelled or not each.run.cancelled
            ),
        )

    def _predict(self, look: PoolLook) -> Mapping[str, RunEnd]:
        """By run id. Made anew where the last is old: who asks all the time has a twentieth of a CPU for it at most."""
        now = time.monotonic()
        until, ends = self._predicted
        if now < until and all(each.run.record is not None and each.run.record.id in ends for each in look.runs):
            return {run: _later(end) for run, end in ends.items()}
        left, limits, reasons = _what_is_left(look, self._usual, self._plan)
        found = predict_ends(left, limits, reasons=reasons)
        ends = {
            each.run.record.id: found[each.run]
            for each in look.runs
            if each.run in found and each.run.record is not None
        }
        took = time.monotonic() - now
        self._predicted = now + min(MOST_REUSED_SECONDS, took / PREDICTING_SHARE), ends
        return ends

    def _run(
        self,
        look: RunLook,
        now_ns: int,
        now: float,
        lanes: Sequence[str],
        nodes: Mapping[Work, LiveNode],
        ends: Mapping[str, RunEnd],
        *,
        graph: bool,
    ) -> LiveRun:
        run = look.run
        record = run.record
        assert record is not None
        end = ends.get(record.id) or RunEnd(
            end=PredictedEnd(reason="it was not asked for" if not ends else "all nodes ended")
        )
        elapsed = (now_ns - record.started_ns) / 1e9
        plan = self._plan(run)
        return LiveRun(
            id=record.id,
            name=record.name,
            since=now - elapsed,
            elapsed_seconds=elapsed,
            done=max(0, record.node_count - len(run.pending)),
            failed=tuple(run.failed_names),
            planned=None if plan is None else max(len(plan), record.node_count),
            running=tuple(
                sorted(
                    (nodes[work] for work in look.running if work in nodes),
                    key=lambda node: (-node.late_seconds, -node.elapsed_seconds),
                )
            ),
            queued=tuple(
                QueuedNode(
                    work.name,
                    work.task_id,
                    work.backend or lanes[0],
                    now - (waited := max(0, now_ns - work.ready_ns) / 1e9),
                    waited,
                    position,
                )
                for position, work in enumerate(look.ready)
            ),
            blocked=tuple(
                [BlockedNode(work.name, work.task_id, _waits_for(work)) for work in _as_submitted(look.blocked)]
            ),
            critical_chain=end.chain[:MAX_CHAIN],
            predicted_end=end.end,
            graph=_graph(look, plan) if graph else None,
        )

    def _running_nodes(self, look: PoolLook, now: float, lanes: Sequence[str], *, stacks: bool) -> dict[Work, LiveNode]:
        running = [work for run in look.runs for work in run.running if work.started_ns]
        doing = self._nodes.look(look.threads, stacks=stacks)
        found: dict[Work, LiveNode] = {}
        for work in running:
            does = doing.get(work, NodeNow())
            elapsed = max(0, look.now_ns - work.started_ns) / 1e9
            usual = self._usual(work.name)
            found[work] = LiveNode(
                name=work.name,
                task_id=work.task_id,
                backend=work.backend or lanes[0],
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


def _later(run_end: RunEnd) -> RunEnd:
    """The same prediction, counted from now."""
    end = run_end.end
    if end.at is None or end.seconds is None or end.earliest_seconds is None or end.latest_seconds is None:
        return run_end
    passed = max(0.0, end.seconds - (end.at - time.time()))
    return replace(
        run_end,
        end=replace(
            end,
            seconds=max(0.0, end.seconds - passed),
            earliest_seconds=max(0.0, end.earliest_seconds - passed),
            latest_seconds=max(0.0, end.latest_seconds - passed),
        ),
    )


def _as_submitted(works: Sequence[Work]) -> list[Work]:
    return sorted(works, key=lambda work: work.submitted_ns)


def _waits_for(work: Work) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for upstream in work.inputs:
        if not upstream.ended_ns:
            names[upstream.name or "a future that is no node's"] = None
            if len(names) >= MAX_UPSTREAM:
                break
    return tuple(names)


def _graph(look: RunLook, plan: Plan | None) -> tuple[GraphNode, ...]:
    """All nodes of a run that is planned; else those that have not ended, and those that failed."""
    record = look.run.record
    assert record is not None
    states: dict[str, str] = {}
    depths: dict[str, int] = {}
    if plan is not None:
        for index, (name, upstream) in enumerate(plan.items()):
            states[name] = "done" if index < record.node_count else "planned"
            depths[name] = 1 + max((depths.get(each, 0) for each in upstream), default=-1)
    states.update(dict.fromkeys(look.run.failed_names, "failed"))
    for state, works in (("blocked", look.blocked), ("queued", look.ready), ("running", look.running)):
        states.update((work.name, state) for work in works)
    return tuple([GraphNode(name, depths.get(name, 0), state) for name, state in states.items()])


def _what_is_left(
    look: PoolLook, usual: Callable[[str], UsualDuration | None], plan_of: Callable[[Run], Plan | None]
) -> tuple[list[NodeLeft], list[int], dict[Hashable, str]]:
    """The nodes of all runs that have not ended, submitted or not; the lanes; and why there is no answer."""
    nodes: list[NodeLeft] = []
    reasons: dict[Hashable, str] = {}
    known: dict[str, UsualDuration | None] = {}

    def usual_of(name: str) -> UsualDuration | None:
        if name not in known:
            known[name] = usual(name)
        return known[name]

    lanes: list[str | None] = [lane.backend for lane in look.lanes]
    for each in look.runs:
        run = each.run
        record = run.record
        assert record is not None
        place: dict[object, int] = {}
        by_name: dict[str, int] = {}

        def add(work: Work, elapsed: float | None, upstream: Sequence[int]) -> None:
            place[work] = by_name[work.name] = len(nodes)  # noqa: B023  # called within this turn of the loop
            rank = 0.0 if run.ranks is None else run.ranks.get(work.name, 0.0)  # noqa: B023  # likewise
            nodes.append(
                NodeLeft(
                    name=work.name,
                    run=run,  # noqa: B023  # likewise
                    lane=lanes.index(work.backend) if work.backend in lanes else 0,
                    upstream=upstream,
                    elapsed_seconds=elapsed,
                    usual=usual_of(work.name),
                    rank=rank,
                )
            )

        for work in each.running:
            add(work, max(0, look.now_ns - (work.started_ns or look.now_ns)) / 1e9, ())
        for work in each.ready:
            add(work, None, ())
        for work in _as_submitted(each.blocked):  # inputs first
            add(work, None, [place[upstream] for upstream in work.inputs if upstream in place])
        plan = plan_of(run)
        if plan is None:
            reasons[run] = "how many nodes it will have is not known yet"
            continue
        names = list(plan)
        for name in names[record.node_count :]:
            by_name[name] = len(nodes)
            upstream = [by_name[other] for other in plan[name] if other in by_name]
            nodes.append(NodeLeft(name=name, run=run, upstream=upstream, usual=usual_of(name)))
    return nodes, [lane.limit for lane in look.lanes], reasons
