"""What nodes ask of the machine into when each starts and ends, through the live scheduler in virtual time.

Nodes are submitted when they were in the record, counted from the run's start; those that Hamilton submitted after it
had waited for a node that is split into branches, counted from that node's end. A worker takes its next node as soon
as it ends one, or as a node becomes ready; from there to the node's start it takes the recorded *hand-over*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from traced_threadpool.analysis.machine import Demand, Machine
from traced_threadpool.analysis.record import NodeExecution
from traced_threadpool.scheduler import READY, RunQueue, Scheduler, Task

SLICES: Final = 2
"""In how many turns of waiting and computing a node is served (see `machine`)."""

SLIGHT_NS: Final = 1_000_000
"""A node that became ready up to this long after its last input was told so late; beyond, it waited for more."""

_SUBMIT: Final = "submit"
_START: Final = "start"
_END: Final = "end"
_RELEASE: Final = "release"
_TAKE: Final = "take"


class Times(NamedTuple):
    """Of one execution, in nanoseconds from the run's start."""

    started_ns: float
    ended_ns: float


class _Virtual(Task):
    __slots__ = ("index", "started_ns")

    def __init__(self, index: int, name: str, queue: RunQueue) -> None:
        super().__init__(name, queue=queue)
        self.index = index


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
        self._splits = [each for each, node in enumerate(nodes) if node.is_split]
        self._known_ns = [
            max([node.submitted_ns, *(nodes[each].ended_ns for each in upstream)])
            for node, upstream in zip(nodes, self._upstream, strict=True)
        ]
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
        nodes = self._nodes
        machine = Machine(processors=processors, slices=SLICES)
        scheduler, queue = Scheduler(workers), RunQueue(ranks=ranks)
        tasks = [_Virtual(index, node.key, queue) for index, node in enumerate(nodes)]
        taken_out = {index for index, node in enumerate(nodes) if node.name in without}
        upstream = _around(self._upstream, taken_out)
        submitted_after: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for index in range(len(nodes)):
            if index not in taken_out:
                anchor, later_ns = self._submission(index, taken_out)
                if anchor is None:
                    machine.at(later_ns, (_SUBMIT, index))
                else:
                    submitted_after[anchor].append((later_ns, index))
        found: list[Times | None] = [None] * len(nodes)
        while (event := machine.next()) is not None:
            kind, subject = event
            now_ns = machine.now_ns
            if kind is _START:
                subject.started_ns = now_ns
                machine.serve(demands[subject.index], (_END, subject))
                continue
            if kind is _END:
                found[subject.index] = Times(subject.started_ns, now_ns)
                scheduler.end(subject, now_ns)  # type: ignore[arg-type]  # a virtual nanosecond has parts
                for later_ns, index in submitted_after.get(subject.index, ()):
                    machine.at(now_ns + later_ns, (_SUBMIT, index))
            elif kind is _TAKE:
                task = scheduler.take()
                if task is not None:
                    machine.at(now_ns, (_START, task))
                continue
            elif kind is _RELEASE:
                scheduler.end(subject, now_ns)  # type: ignore[arg-type]
            else:
                inputs: list[Task] = [tasks[each] for each in upstream[subject]]
                if nodes[subject].ready_ns - self._known_ns[subject] > SLIGHT_NS:
                    outside = Task("", queue=queue)
                    scheduler.add_outside(outside)
                    released_ns = nodes[subject].ready_ns - self._started_ns
                    machine.at(max(now_ns, released_ns), (_RELEASE, outside))
                    inputs.append(outside)
                scheduler.add(tasks[subject], inputs, now_ns)  # type: ignore[arg-type]
                if ranks is not None:
                    # A worker woken up chooses when it is awake: more may be submitted meanwhile.
                    if tasks[subject].state is READY:
                        machine.at(now_ns + hand_over_ns[subject], (_TAKE, None))
                    continue
            while (task := scheduler.take()) is not None:
                assert isinstance(task, _Virtual)
                machine.at(now_ns + hand_over_ns[task.index], (_START, task))
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
        before = [split for split in self._splits if nodes[split].ended_ns <= submitted_ns and split != index]
        if not before:
            return None, max(0, submitted_ns - self._started_ns)
        split = max(before, key=lambda each: nodes[each].ended_ns)
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
        unnamed_free_ns: list[int] = []
        found = [0] * len(self._nodes)
        for index in sorted(range(len(found)), key=lambda index: self._nodes[index].started_ns):
            node = self._nodes[index]
            slight = node.ready_ns - self._known_ns[index] <= SLIGHT_NS
            could_ns = self._known_ns[index] if slight else node.ready_ns
            if node.worker:
                could_ns = max(could_ns, free_ns.get(node.worker, could_ns))
                free_ns[node.worker] = node.ended_ns
            else:  # the worker that was free last
                before_ns = max((each for each in unnamed_free_ns if each <= node.started_ns), default=None)
                if before_ns is not None:
                    unnamed_free_ns.remove(before_ns)
                    could_ns = max(could_ns, before_ns)
                unnamed_free_ns.append(node.ended_ns)
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
