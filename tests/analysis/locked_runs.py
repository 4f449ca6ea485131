"""Runs whose nodes meet at one lock, as a pool would run them."""

from __future__ import annotations

import heapq

from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun

MS = 1_000_000


def simulated(
    workers: int,
    *,
    outside_ms: float,
    held_ms: float,
    capacity: int = 1,
    turns: int = 1,
    nodes: int = 12,
    first: bool = False,
    known: bool = True,
) -> RecordedRun:
    """Nodes that sleep outside of one lock and under it, as a pool runs them; `first`: under it at the beginning."""
    events: list[tuple[float, int, str, int]] = []
    waiting: list[tuple[float, int]] = []
    left, free, permits, now = list(range(nodes)), workers, capacity, 0.0
    facts = [{"start": 0.0, "end": 0.0, "waited": 0.0, "turn": 0, "waits": 0, "first": 0.0, "last": 0.0} for _ in left]
    before, after = (0.0, outside_ms) if first else (outside_ms, 0.0)
    length = [1 + 0.05 * ((number * 7) % 5 - 2) / 2 for number in range(nodes)]

    def at(moment: float, what: str, number: int) -> None:
        heapq.heappush(events, (moment, len(events) + number, what, number))

    def start() -> None:
        nonlocal free
        while free and left:
            number = left.pop(0)
            free -= 1
            facts[number]["start"] = now
            at(now + before * length[number] / turns, "want", number)

    def get(number: int) -> None:
        at(now + held_ms * length[number] / turns, "release", number)

    start()
    while events:
        now, _, what, number = heapq.heappop(events)
        mine = facts[number]
        if what == "want":
            if permits:
                permits -= 1
                get(number)
            else:
                waiting.append((now, number))
        elif what == "release":
            if waiting:
                since, other = waiting.pop(0)
                theirs = facts[other]
                theirs["waited"] += now - since
                theirs["first"] = theirs["first"] if theirs["waits"] else since - theirs["start"]
                theirs["last"] = now - theirs["start"]
                theirs["waits"] += 1
                get(other)
            else:
                permits += 1
            mine["turn"] += 1
            at(now + after * length[number] / turns, "after", number)
        elif mine["turn"] < turns:
            at(now + before * length[number] / turns, "want", number)
        else:
            mine["end"] = now
            free += 1
            start()
    return RecordedRun(
        id="r",
        name="etl",
        pool="p",
        started_ns=0,
        ended_ns=round(now * MS),
        nodes=tuple(_node(number, each, capacity if known else None) for number, each in enumerate(facts)),
        max_workers=workers,
        cpus=2,
        attribution="process",
    )


def _node(number: int, facts: dict[str, float], capacity: int | None) -> NodeExecution:
    started_ns, ended_ns, waited_ns = (round(facts[name] * MS) for name in ("start", "end", "waited"))
    lock = None
    if facts["waits"]:
        lock = LockWait(
            name="Lock 1",
            line="app.py:41",
            capacity=capacity,
            waits=int(facts["waits"]),
            first_ns=round(facts["first"] * MS),
            last_ns=round(facts["last"] * MS),
        )
    return NodeExecution(
        key=str(number),
        name=f"hold_{number}",
        submitted_ns=number,
        ready_ns=number,
        started_ns=max(number, started_ns),
        ended_ns=ended_ns,
        states={"lock": waited_ns, "sleep": ended_ns - started_ns - waited_ns},
        samples=50,
        lock=lock,
    )
