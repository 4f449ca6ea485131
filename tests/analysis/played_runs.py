"""Records that the virtual pool made itself, and graphs of any shape for it to play."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st

from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.virtual_pool import HandOvers, Placed, VirtualPool
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import State

MS = 1_000_000
START_NS = 5_000 * MS


def node(name: str, started_ms: float = 0, ended_ms: float = 0, *upstream: str, **facts: Any) -> NodeExecution:
    """Submitted with the run's start, ready and started at one moment, unless `facts` say otherwise."""
    started_ns, ended_ns = START_NS + round(started_ms * MS), START_NS + round(ended_ms * MS)
    given = {"submitted_ns": START_NS, "ready_ns": started_ns, **facts}
    states: Mapping[State, float] = given.pop("states", {})
    given["states"] = {state: round(ms * MS) for state, ms in states.items()}
    return NodeExecution(key=name, name=name, started_ns=started_ns, ended_ns=ended_ns, upstream=upstream, **given)


def record(nodes: Sequence[NodeExecution], *, workers: int | None, **facts: Any) -> RecordedRun:
    given = {"ended_ns": max((each.ended_ns for each in nodes), default=START_NS), **facts}
    return RecordedRun(
        id="run", name="etl", pool="pool", started_ns=START_NS, nodes=tuple(nodes), max_workers=workers, **given
    )


def played(
    asked: Sequence[tuple[Demand, Sequence[int]]],
    *,
    workers: int,
    cpus: int | None = None,
    backends: Sequence[str] = (),
    lanes: Mapping[str, Lane] = MappingProxyType({}),
) -> RecordedRun:
    """The record of nodes that ask for this much, after those inputs, on the machine of the model itself.

    `backends` are those of the nodes in turn, empty for none; `lanes` what they are.
    """
    nodes = [node(str(index), 0, 0, *(str(each) for each in inputs)) for index, (_, inputs) in enumerate(asked)]
    wanted = [demand for demand, _ in asked]
    where = [backends[index % len(backends)] if backends else "" for index in range(len(nodes))]
    times, _ = VirtualPool(nodes, START_NS, workers).play(
        wanted,
        HandOvers([0] * len(nodes), [0] * len(nodes)),
        workers=workers,
        cpus=cpus,
        placed=Placed(
            where,
            {name: lane.max_workers for name, lane in lanes.items()},
            [name for name, lane in lanes.items() if lane.kind != "threads"],
        ),
    )
    found: list[NodeExecution] = []
    for each, demand, when, backend in zip(nodes, wanted, times, where, strict=True):
        assert when is not None
        started_ns, ended_ns = START_NS + round(when.started_ns), START_NS + round(when.ended_ns)
        computing_ns = round(demand.held_ns + demand.free_ns)
        contended_ns = max(0, ended_ns - started_ns - round(sum(demand)))
        states: dict[State, int] = {
            "cpu": computing_ns,
            "network": round(demand.wait_ns),
            "gil" if demand.held_ns else "runqueue": contended_ns,
        }
        ready_ns = max([START_NS, *(found[int(key)].ended_ns for key in each.upstream)])
        found.append(
            dataclasses.replace(
                each,
                ready_ns=ready_ns,
                started_ns=started_ns,
                ended_ns=ended_ns,
                states=states,
                samples=100,
                backend=backend,
                is_remote=bool(backend) and lanes[backend].kind != "threads",
            )
        )
    return record(found, workers=workers, cpus=cpus, attribution="process", backends=lanes)


def critical_path_ns(run: RecordedRun) -> int:
    ends: dict[str, int] = {}
    for each in run.nodes:
        ends[each.key] = each.duration_ns + max((ends[key] for key in each.upstream), default=0)
    return max(ends.values())


@st.composite
def dags(draw: st.DrawFn, held: bool = False, mixed: bool = False) -> list[tuple[Demand, list[int]]]:
    """For each node what it asks for, and which earlier nodes are its inputs.

    Milliseconds, and a little that is each node's own: of two ends at the same nanosecond no record tells the order.
    """
    size = draw(st.integers(1, 20))
    found = []
    for number in range(size):
        inputs = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True)) if number else []
        amount_ns = draw(st.integers(1, 50)) * MS + (number + 1) ** 3 * 7_919 % 999_983
        other_ns = draw(st.integers(0, 50)) * MS if mixed else 0
        demand = Demand(held_ns=amount_ns, wait_ns=other_ns) if held else Demand(wait_ns=amount_ns, free_ns=other_ns)
        found.append((demand, inputs))
    return found


workers_counts = st.integers(1, 6)
