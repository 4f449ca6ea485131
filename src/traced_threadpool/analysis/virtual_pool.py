"""What nodes ask of the machine into when each starts and ends, through the live scheduler in virtual time.

Nodes are submitted when they were in the record, counted from the run's start; those that Hamilton submitted after it
had waited for a node that is split into branches, counted from that node's end. A worker takes its next node as soon
as it ends one, or as a node becomes ready; from there to the node's start it takes the recorded *hand-over*.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from traced_threadpool.analysis.machine import Demand, Machine
from traced_threadpool.analysis.record import NodeExecution
from traced_threadpool.scheduler import NEW, READY, RunQueue, Scheduler, Task

SLICES: Final = 2
"""In how many turns of waiting and computing a node is served (see `machine`)."""

SLIGHT_NS: Final = 1_000_000
"""A node that became ready up to this long after its last input was told so late; beyond, it waited for more."""

_TAKE: Final = "take"
"""The event of a worker that has woken up. That of a node to be submitted is its index, that of one that ends its
task."""


class Times(NamedTuple):
    """Of one execution, in nanoseconds from the run's start."""

    started_ns: float
    ended_ns: float


class _Virtual(Task):
    __slots__ = ("index",)

    def __init__(self, index: int, name: str, queue: RunQueue) -> None:
        # Not all that a live task has: these are made by the hundred thousand, and only the scheduler reads them.
        self.index = index
        self.name = name
        self.queue = queue
        self.state = NEW
        self.failed = False
        self.dependents = None
        self.submitted_ns = 0


class VirtualPool:
    """Plays the recorded nodes, given in the order of their submission, again and again.

    Args:
        nodes: Those that ran. Upstream keys that are not among them are of no account.
        started_ns: The run's start.
    """

    def __init__(self, nodes: Sequence[NodeExecution], started_ns: int) -> None:
        self._nodes = nodes
        self._started_ns = started_ns
        index = {node.key: each for each, node in enumerate(nodes)}
        self._upstream = [[index[key] for key in dict.fromkeys(node.upstream) if key in index] for node in nodes]
        splits = [each for each, node in enumerate(nodes) if node.is_split]
        self._splits = sorted(splits, key=lambda each: (nodes[each].ended_ns, -each))
        self._split_ends_ns = [nodes[each].ended_ns for each in self._splits]
        self._known_ns = [
            max([node.submitted_ns, *[nodes[each].ended_ns for each in upstream]]) if upstream else node.submitted_ns
            for node, upstream in zip(nodes, self._upstream, strict=True)
        ]
        self._released_ns = {
            each: node.ready_ns - started_ns
            for each, (node, known_ns) in enumerate(zip(nodes, self._known_ns, strict=True))
            if node.ready_ns - known_ns > SLIGHT_NS
        }
        """When nodes were ready that waited for more than the record holds."""
        self.hand_over_ns = self._hand_overs()

    def play(
        self,
        demands: Sequence[Demand],
        hand_over_ns: Sequence[int],
        *,
        workers: int,
        processors: int | None,
        without: Collection[str] = (),
        ranks: Mapping[str, float] | None = None,
    ) -> list[Times | None]:
        """When each node starts and ends; None for those without. `ranks` are the scheduler's, by keys of nodes.

        Raises:
            ValueError: Links form a circle.
        """
        nodes, released_ns = self._nodes, self._released_ns
        scheduler, queue = Scheduler(workers), RunQueue(ranks=ranks)
        tasks = [_Virtual(index, node.key, queue) for index, node in enumerate(nodes)]
        taken_out = {index for index, node in enumerate(nodes) if node.name in without} if without else set()
        upstream = _around(self._upstream, taken_out)
        planned: list[tuple[float, int]] = []
        submitted_after: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for index in range(len(nodes)):
            if index not in taken_out:
                anchor, later_ns = self._submission(index, taken_out)
                if anchor is None:
                    planned.append((later_ns, index))
                else:
                    submitted_after[anchor].append((later_ns, index))
        machine = Machine(processors=processors, slices=SLICES, planned=planned)
        found: list[Times | None] = [None] * len(nodes)
        next_event, serve, take, end = machine.next, machine.serve, scheduler.take, scheduler.end
        while (event := next_event()) is not None:
            now_ns = machine.now_ns
            hands_over = True
            if type(event) is _Virtual:
                found[event.index] = Times(event.started_ns, now_ns)
                end(event, now_ns)  # type: ignore[arg-type]  # a virtual nanosecond has parts
                for later_ns, index in submitted_after.get(event.index, ()) if submitted_after else ():
                    machine.at(now_ns + later_ns, index)
            elif type(event) is int:
                inputs: list[Task] = [tasks[each] for each in upstream[event]]
                if event in released_ns:
                    outside = Task("", queue=queue)
                    scheduler.add_outside(outside)
                    machine.at(max(now_ns, released_ns[event]), outside)
                    inputs.append(outside)
                scheduler.add(tasks[event], inputs, now_ns)  # type: ignore[arg-type]
                if ranks is not None:
                    # A worker woken up chooses when it is awake: more may be submitted meanwhile.
                    if tasks[event].state is READY:
                        machine.at(now_ns + hand_over_ns[event], _TAKE)
                    continue
            elif event is _TAKE:
                hands_over = False
            else:
                end(event, now_ns)  # type: ignore[arg-type]
            while scheduler.ready_count and scheduler.busy_count < workers:
                task = take()
                if task is None:
                    break
                assert type(task) is _Virtual
                index = task.index
                after_ns = hand_over_ns[index] if hands_over else 0
                task.started_ns = now_ns + after_ns  # type: ignore[assignment]
                serve(demands[index], task, after_ns)
                if not hands_over:  # each worker woken up takes one
                    break
        stuck = [node.name for index, node in enumerate(nodes) if found[index] is None and index not in taken_out]
        if stuck:
            raise ValueError(
                f"{len(stuck)} nodes of the record wait for one another, among them {stuck[0]!r}; "
                "its links form a circle"
            )
        return found

    def _submission(self, index: int, taken_out: set[int]) -> tuple[int | None, int]:
        """The node after whose end this one is submitted, None for the run's start; and how long after."""
        nodes = self._nodes
        submitted_ns = nodes[index].submitted_ns
        place = bisect_right(self._split_ends_ns, submitted_ns) if self._splits else 0
        if place and self._splits[place - 1] == index:
            place -= 1
        if not place:
            return None, max(0, submitted_ns - self._started_ns)
        split = self._splits[place - 1]
        later_ns = submitted_ns - nodes[split].ended_ns
        while split in taken_out:  # it ends with its last input now, or is as if it ended when it was submitted
            inputs = self._upstream[split]
            if not inputs:
                anchor, split_later_ns = self._submission(split, taken_out)
                return anchor, split_later_ns + later_ns
            split = max(inputs, key=lambda each: nodes[each].ended_ns)
        return split, later_ns

    def _hand_overs(self) -> list[int]:
        """For each node, how long after it was ready and its worker was free it started."""
        free_ns: dict[str, int] = {}  # by worker
        unnamed_free_ns: list[int] = []  # in order
        found = [0] * len(self._nodes)
        for index in sorted(range(len(found)), key=lambda index: self._nodes[index].started_ns):
            node = self._nodes[index]
            slight = node.ready_ns - self._known_ns[index] <= SLIGHT_NS
            could_ns = self._known_ns[index] if slight else node.ready_ns
            if node.worker:
                could_ns = max(could_ns, free_ns.get(node.worker, could_ns))
                free_ns[node.worker] = node.ended_ns
            else:  # the worker that was free last
                place = bisect_right(unnamed_free_ns, node.started_ns)
                if place:
                    could_ns = max(could_ns, unnamed_free_ns.pop(place - 1))
                insort(unnamed_free_ns, node.ended_ns)
            found[index] = max(0, node.started_ns - could_ns)
        return found


def most_at_once(intervals: Sequence[tuple[int, int]]) -> int:
    """How many of these are on at the same time, at most. One that starts as another ends is not.

    >>> most_at_once([(0, 10), (5, 15), (10, 20)])
    2
    """
    changes = sorted([(start, 1) for start, _ in intervals] + [(end, -1) for _, end in intervals])
    most = count = 0
    for _, change in changes:
        count += change
        most = max(most, count)
    return most


def _around(upstream: Sequence[Sequence[int]], taken_out: set[int]) -> Sequence[Sequence[int]]:
    """The inputs of each node when some are taken out: those take theirs in their place.

    >>> _around([[], [0], [0, 1]], {0, 1})
    [[], [], []]
    >>> _around([[], [0], [1]], {1})
    [[], [0], [0]]
    """
    if not taken_out:
        return upstream
    found = []
    for inputs in upstream:
        waiting, kept = list(inputs), dict.fromkeys(inputs)
        for each in waiting:  # grows while it is gone through
            if each in taken_out:
                new = [further for further in upstream[each] if further not in kept]
                waiting += new
                kept.update(dict.fromkeys(new))
        found.append([each for each in kept if each not in taken_out])
    return found
