"""What nodes ask of the machine into when each starts and ends, through the live scheduler in virtual time.

Nodes are submitted when they were in the record, counted from the run's start; those that Hamilton submitted after it
had waited for a node that is split into branches, counted from that node's end. As in a pool, a worker that ends a node
takes the next; for one that becomes ready while a place is free, a worker is woken up, and takes what is first when it
is awake. How long either takes is the recorded *hand-over*.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from traced_threadpool.analysis.replay.locks import Locking
from traced_threadpool.analysis.replay.machine import Demand, Machine
from traced_threadpool.engine.scheduler import NEW, OUTSIDE, READY, RunQueue, Scheduler, Task
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.recorded_run import NodeExecution

SLICES: Final = 2
"""In how many turns of waiting and computing a node is served (see `machine`)."""

SLIGHT_NS: Final = 1_000_000
"""A node that became ready up to this long after its last input was told so late; beyond, it waited for more."""

_TAKE: Final = "take"
"""The event of a worker that has woken up. That of a node to be submitted is its index, that of one that ends its
task."""


# What happens in a record, in the order in which a pool sees it at one moment.
_FREE: Final = 0
_READY: Final = 1
_TAKEN: Final = 2
_AWAKE: Final = 3


class Times(NamedTuple):
    """Of one execution, in nanoseconds from the run's start."""

    started_ns: float
    ended_ns: float


class Played(NamedTuple):
    """When each node starts and ends, None for those without; and whether more workers would change nothing."""

    times: list[Times | None]
    spares_workers: bool


class Placed(NamedTuple):
    """The backend of each node, empty for threads, and how many nodes of each backend may run at once.

    Nodes of the backends `elsewhere` need no worker.
    """

    backends: Sequence[str]
    limits: Mapping[str, int]
    elsewhere: Collection[str] = ()


class HandOvers(NamedTuple):
    """For each node, the nanoseconds to its start: on a worker woken up for it, from when it is ready; on one that has
    just ended another node, from that end.
    """

    woken_ns: Sequence[int]
    next_ns: Sequence[int]

    def at_most_usual(self) -> HandOvers:
        """Without what some take beyond the usual."""
        return HandOvers(*([min(ns, usual_ns) for ns in each] for each in self for usual_ns in [usual(each)]))

    def between(self, other: HandOvers, share: float) -> HandOvers:
        """The other's, and this share of what is longer here."""
        if share == 1:
            return self
        return HandOvers(
            *(
                [low + round((high - low) * share) for high, low in zip(*each, strict=True)]
                for each in zip(self, other, strict=True)
            )
        )


_Submissions = tuple[list[tuple[float, int]], dict[int, list[tuple[int, int]]]]


class _Virtual(Task):
    __slots__ = ("index",)

    def __init__(self, index: int, name: str, queue: RunQueue, backend: str) -> None:
        # Not all that a live task has: these are made by the hundred thousand, and only the scheduler reads them.
        self.index = index
        self.name = name
        self.queue = queue
        self.backend = backend
        self.state = NEW
        self.failed = False
        self.dependents = None
        self.submitted_ns = 0


class VirtualPool:
    """Plays the recorded nodes, given in the order of their submission, again and again.

    Args:
        nodes: Those that ran. Upstream keys that are not among them are of no account.
        started_ns: The run's start.
        workers: How many there were.
        run_of: The number of each node's run, where nodes of several runs share the pool: 0 for the run itself.
        after: By the number of a run, the node after whose end it is begun.
    """

    def __init__(
        self,
        nodes: Sequence[NodeExecution],
        started_ns: int,
        workers: int,
        *,
        run_of: Sequence[int] = (),
        after: Mapping[int, int] | None = None,
    ) -> None:
        self._nodes = nodes
        self._started_ns = started_ns
        self._run_of = run_of or [0] * len(nodes)
        self._after = after or {}
        index = {node.key: each for each, node in enumerate(nodes)}
        self.upstream = [[index[key] for key in dict.fromkeys(node.upstream) if key in index] for node in nodes]
        self._splits: dict[int, list[int]] = {}  # by run
        for each, node in enumerate(nodes):
            if node.is_split:
                self._splits.setdefault(self._run_of[each], []).append(each)
        for splits in self._splits.values():
            splits.sort(key=lambda each: (nodes[each].ended_ns, -each))
        self._split_ends_ns = {run: [nodes[each].ended_ns for each in splits] for run, splits in self._splits.items()}
        self._known_ns = [
            max([node.submitted_ns, *[nodes[each].ended_ns for each in upstream]]) if upstream else node.submitted_ns
            for node, upstream in zip(nodes, self.upstream, strict=True)
        ]
        self.released_ns = {
            each: node.ready_ns - started_ns
            for each, (node, known_ns) in enumerate(zip(nodes, self._known_ns, strict=True))
            if node.ready_ns - known_ns > SLIGHT_NS
        }
        """When nodes were ready that waited for more than the record holds."""
        self.hand_overs = self._hand_overs(workers)
        """How long each node took to start, by either way."""

    def play(
        self,
        demands: Sequence[Demand],
        hand_overs: HandOvers,
        *,
        workers: int,
        cpus: int | None,
        without: Collection[str] = (),
        ranks: Mapping[str, float] | None = None,
        alone: bool = False,
        locking: Mapping[int, Locking] | None = None,
        locks: Sequence[int] = (),
        placed: Placed | None = None,
    ) -> Played:
        """When each node starts and ends. `ranks` are the scheduler's, by keys of nodes.

        `placed` is where they run: on threads, unless it says otherwise. `locking` is by the index of those nodes that
        use one of the locks, whose capacities `locks` are.
        With nodes of other runs it ends with the run's own last one; `alone` leaves the others out.

        Raises:
            ValueError: Links form a circle.
        """
        nodes, released_ns = self._nodes, self.released_ns
        woken_ns, next_ns = hand_overs
        run_of = self._run_of
        limits = placed.limits if placed is not None and placed.limits else None
        backends = [""] * len(nodes) if placed is None else placed.backends
        scheduler = Scheduler(workers, limits, () if placed is None else placed.elsewhere)
        queues = [RunQueue(ranks=ranks) for _ in range(max(run_of, default=0) + 1)]
        tasks = [_Virtual(index, node.key, queues[run_of[index]], backends[index]) for index, node in enumerate(nodes)]
        usual_ns = usual(woken_ns)
        taken_out = {index for index, node in enumerate(nodes) if node.name in without} if without else set()
        if alone:
            taken_out.update(index for index, run in enumerate(run_of) if run)
        own_left = sum(not run for index, run in enumerate(run_of) if index not in taken_out) if len(queues) > 1 else -1
        upstream = _around(self.upstream, taken_out)
        planned, submitted_after = self._submissions(taken_out) if taken_out else self._all_submissions
        machine = Machine(cpus=cpus, slices=SLICES, planned=planned, locks=locks)
        found: list[Times | None] = [None] * len(nodes)
        next_event, serve, take, end = machine.next, machine.serve, scheduler.take, scheduler.end
        waking = 0  # workers on their way, as a pool counts them
        spares_workers = True  # until another one would be woken up, if there were one
        while (event := next_event()) is not None:
            now_ns = machine.now_ns
            made_ready: Sequence[Task] = ()
            takes, after_ns = False, None
            if type(event) is _Virtual:
                found[event.index] = Times(event.started_ns, now_ns)
                if event.queue is queues[0]:
                    own_left -= 1
                    if not own_left:
                        break
                made_ready = event.dependents or ()
                end(event, now_ns)  # type: ignore[arg-type]  # a virtual nanosecond has parts
                if submitted_after:
                    for later_ns, index in submitted_after.get(event.index, ()):
                        machine.at(now_ns + later_ns, index)
                takes, after_ns = True, next_ns
            elif type(event) is int:
                inputs: list[Task] = [tasks[each] for each in upstream[event]]
                if event in released_ns:
                    outside = Task("", queue=queues[run_of[event]])
                    outside.state = OUTSIDE
                    machine.at(max(now_ns, released_ns[event]), outside)
                    inputs.append(outside)
                scheduler.add(tasks[event], inputs, now_ns)  # type: ignore[arg-type]  # moments are floats here
                made_ready = (tasks[event],)
            elif event is _TAKE:
                waking -= 1
                takes = True
            else:
                made_ready = event.dependents or ()
                end(event, now_ns)  # type: ignore[arg-type]  # likewise
            if takes and scheduler.ready_count and (task := take()) is not None:
                assert type(task) is _Virtual
                to_start_ns = 0 if after_ns is None else after_ns[task.index]
                task.started_ns = now_ns + to_start_ns  # type: ignore[assignment]  # likewise
                if locking and (uses := locking.get(task.index)) is not None:
                    machine.serve_locking(demands[task.index], uses, task, to_start_ns)
                else:
                    serve(demands[task.index], task, to_start_ns)
            while scheduler.leaving and (task := scheduler.take_leaving()) is not None:
                assert type(task) is _Virtual
                task.started_ns = now_ns + woken_ns[task.index]  # type: ignore[assignment]  # likewise
                serve(demands[task.index], task, woken_ns[task.index])
            for each in made_ready:
                if waking >= scheduler.ready_count:
                    break
                if scheduler.busy_count + waking >= workers:
                    spares_workers = False
                    break
                if each.state is READY:
                    waking += 1
                    machine.at(now_ns + woken_ns[each.index], _TAKE)  # type: ignore[attr-defined]  # a _Virtual
            # A node of which its backend had too many may go on since another one has ended.
            while limits and waking < min(scheduler.ready_count, workers - scheduler.busy_count):
                waking += 1
                machine.at(now_ns + usual_ns, _TAKE)
            if limits and waking < scheduler.ready_count:
                spares_workers = False
        stuck = [
            node.name
            for index, node in enumerate(nodes)
            if found[index] is None and index not in taken_out and not run_of[index]
        ]
        if stuck:
            raise ValueError(
                f"{len(stuck)} nodes of the record wait for one another, among them {stuck[0]!r}; "
                "its links form a circle"
            )
        return Played(found, spares_workers)

    @lazy
    def _all_submissions(self) -> _Submissions:
        return self._submissions(frozenset())

    def _submissions(self, taken_out: Collection[int]) -> _Submissions:
        """What is submitted when, in that order; and by node, what how long after its end."""
        planned: list[tuple[float, int]] = []
        submitted_after: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for index in range(len(self._nodes)):
            if index not in taken_out:
                anchor, later_ns = self.submission(index, taken_out)
                if anchor is None or anchor in taken_out:
                    planned.append((later_ns, index))
                else:
                    submitted_after[anchor].append((later_ns, index))
        return sorted(planned), submitted_after

    def submission(self, index: int, taken_out: Collection[int] = ()) -> tuple[int | None, int]:
        """The node after whose end this one is submitted, None for the run's start; and how long after."""
        nodes = self._nodes
        submitted_ns = nodes[index].submitted_ns
        run = self._run_of[index]
        splits = self._splits.get(run, ())
        place = bisect_right(self._split_ends_ns[run], submitted_ns) if splits else 0
        if place and splits[place - 1] == index:
            place -= 1
        if not place:
            behind = self._after.get(run)
            if behind is not None:
                return behind, max(0, submitted_ns - nodes[behind].ended_ns)
            later_ns = submitted_ns - self._started_ns
            return None, later_ns if run else max(0, later_ns)
        split = splits[place - 1]
        later_ns = submitted_ns - nodes[split].ended_ns
        while split in taken_out:  # it ends with its last input now, or is as if it ended when it was submitted
            inputs = self.upstream[split]
            if not inputs:
                anchor, split_later_ns = self.submission(split, taken_out)
                return anchor, split_later_ns + later_ns
            split = max(inputs, key=lambda each: nodes[each].ended_ns)
        return split, later_ns

    def _hand_overs(self, workers: int) -> HandOvers:
        """A worker that had a node when this one became ready took it as the next. Any other was woken up: for the node
        that had waited for that for longest, by the rules of a pool, which need not be the one it then took.

        A node of a backend may have been held, and could start only when another of its backend had ended. Which of the
        pool's threads waits for one in another process is not recorded: where there are such, each node is taken to
        have begun on the thread that had last ended one.
        """
        nodes = self._nodes
        woken_ns: list[int | None] = [None] * len(nodes)
        next_ns: list[int | None] = [None] * len(nodes)
        ready_ns = [
            nodes[index].ready_ns if index in self.released_ns else known_ns
            for index, known_ns in enumerate(self._known_ns)
        ]
        ends_ns: dict[str, list[int]] = {}  # by backend
        for node in nodes:
            if node.backend:
                ends_ns.setdefault(node.backend, []).append(node.ended_ns)
        for of_backend in ends_ns.values():
            of_backend.sort()
        for index, node in enumerate(nodes):
            if node.backend:
                ready_ns[index] = _last_until(ends_ns[node.backend], node.started_ns, ready_ns[index])
        if any(node.is_remote for node in nodes):
            any_ends_ns = sorted([node.ended_ns for node in nodes])
            took_ns = [
                max(0, node.started_ns - _last_until(any_ends_ns, node.started_ns, since_ns))
                for node, since_ns in zip(nodes, ready_ns, strict=True)
            ]
            return HandOvers(woken_ns=took_ns, next_ns=took_ns)
        events: list[tuple[int, int, int]] = []
        for index, before in self._befores():
            node = nodes[index]
            events.append((ready_ns[index], _READY, index))
            if before is not None and nodes[before].ended_ns >= ready_ns[index]:
                next_ns[index] = max(0, node.started_ns - nodes[before].ended_ns)
                events.append((nodes[before].ended_ns, _TAKEN, index))
            else:
                events.append((node.started_ns, _AWAKE, index))
                if before is not None:
                    events.append((nodes[before].ended_ns, _FREE, before))
        busy = 0
        queued: set[int] = set()
        new: list[int] = []
        waking: deque[int] = deque()
        events.sort()
        for place, (now_ns, kind, index) in enumerate(events):
            if kind == _FREE:
                busy -= 1
            elif kind == _READY:
                queued.add(index)
                new.append(index)
            else:
                queued.discard(index)
                if kind == _AWAKE:
                    busy += 1
                    of = waking.popleft() if waking else index
                    woken_ns[of] = max(0, now_ns - ready_ns[of])
            if place + 1 == len(events) or events[place + 1][0] > now_ns:
                for each in new:
                    if each in queued and len(waking) < min(len(queued), workers - busy):
                        waking.append(each)
                new.clear()
        for index in waking:
            woken_ns[index] = nodes[index].started_ns - ready_ns[index]
        return HandOvers(woken_ns=_filled(woken_ns), next_ns=_filled(next_ns))

    def _befores(self) -> Iterator[tuple[int, int | None]]:
        """Each node in the order of their starts, and which one its worker had before."""
        last: dict[str, int] = {}
        unnamed: list[tuple[int, int]] = []  # a heap: those of workers without a name, by their ends
        for index in sorted(range(len(self._nodes)), key=lambda index: self._nodes[index].started_ns):
            node = self._nodes[index]
            if node.worker:
                yield index, last.get(node.worker)
                last[node.worker] = index
            else:
                free = unnamed and unnamed[0][0] <= node.started_ns
                yield index, heapq.heappop(unnamed)[1] if free else None
                heapq.heappush(unnamed, (node.ended_ns, index))


def _last_until(moments_ns: Sequence[int], until_ns: int, since_ns: int) -> int:
    """The last of the moments that is not after `until_ns`; `since_ns` where that is later.

    >>> _last_until([10, 20, 30], 25, 5), _last_until([10, 20, 30], 25, 22), _last_until([10], 5, 2)
    (20, 22, 2)
    """
    place = bisect_right(moments_ns, until_ns)
    return max(since_ns, moments_ns[place - 1]) if place else since_ns


def _filled(durations_ns: Sequence[int | None]) -> list[int]:
    """Where nothing is known, what is usual."""
    usual_ns = usual([each for each in durations_ns if each is not None])
    return [usual_ns if each is None else each for each in durations_ns]


def usual(durations_ns: Sequence[int]) -> int:
    """That which a quarter of them does not exceed; 0 if there are none.

    >>> usual([10, 90, 30, 20, 70])
    20
    """
    return sorted(durations_ns)[len(durations_ns) // 4] if durations_ns else 0


def most_at_once(intervals: Sequence[tuple[float, float]]) -> int:
    """How many of these are on at the same time, at most. One that starts as another ends is not, nor one of no length.

    >>> most_at_once([(0, 10), (5, 15), (10, 20), (7, 7)]), most_at_once([])
    (2, 0)
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
