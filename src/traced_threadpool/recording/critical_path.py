"""A recorded run into its critical path: the chain of steps that fills it from start to end without a gap.

The rule, backwards from the run's end: the node that ended last; before its start, its *queue* wait (its inputs were
there, no worker was free); before that, the upstream node that ended last, since its end is what made the node ready;
and so on until a node without upstream nodes. A node that is split into branches (`Parallelizable`) counts as upstream
of whatever was submitted after its end, since Hamilton's walk over the graph stands still for it. What no node
accounts for is named as what it is: *dependency* where the node had been submitted and waited for something that the
record does not hold (a future of somebody else's, a lost span), *outside* where it had not even been submitted
(Hamilton's walk, the caller; also after the last node). Neighbours share their timestamps, so the steps add up to the
run's duration exactly.

>>> from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
>>> load = NodeExecution(key="1", name="load", submitted_ns=2, ready_ns=2, started_ns=2, ended_ns=50)
>>> rates = NodeExecution(key="2", name="rates", submitted_ns=3, ready_ns=3, started_ns=3, ended_ns=20)
>>> join = NodeExecution(
...     key="3", name="join", submitted_ns=4, ready_ns=50, started_ns=60, ended_ns=90, upstream=("1", "2")
... )
>>> run = RecordedRun(id="r", name="etl", pool="p", started_ns=0, ended_ns=95, nodes=(load, rates, join))
>>> path = critical_path(run)
>>> for step in path.steps:
...     print(step.kind, step.name, step.started_ns, step.ended_ns)
outside _outside 0 2
node load 2 50
queue join 50 60
node join 60 90
outside _outside 90 95
>>> dict(path.slack_ns)
{'1': 10, '2': 40, '3': 0}

*Slack* is how much later a node could have ended without the run's last node ending later: its latest end minus its
recorded end. The latest end of a node without downstream nodes is the end of the last node; that of any other is the
least, over its downstream nodes, of their latest end minus their recorded duration. This is the total float of the
critical path method (J. E. Kelley and M. R. Walker, *Critical-path planning and scheduling*, 1959), taken from the
recorded ends instead of the earliest possible ones; where every node starts as soon as its inputs are there, the two
are the same. It assumes a free worker for whatever starts later than it did. So a node on the path has slack when
there is a wait further along the path: had it ended earlier, or a little later, that wait would have changed instead.

Conventions: of nodes that ended at the same moment the first counts, in the order of the record or of the inputs.
Nodes that never ran take no time and are left out. A nested run lies within the node that executed it, and the path
shows that node; `inside` gives the path within it. Where clocks disagree (an upstream node that seems to end after
its downstream node started), the earlier node's step is cut where the later one begins.

Path and slack take time linear in the links; there is no recursion.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeVar

from traced_threadpool.model.formatting import count, duration, outline
from traced_threadpool.model.lazy import lazy
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.records import MIN_QUEUE_NS, Holder, PathFacts, TimedNode

QUEUE: Final = "_queue"
DEPENDENCY: Final = "_dependency"
OUTSIDE: Final = "_outside"
"""Where `critical_ns` puts what is not a node's. No Hamilton node's name starts with an underscore."""

MAX_NAMES: Final = 100
"""How many steps `hamilton.run.critical_path` holds."""

Kind = Literal["node", "queue", "dependency", "outside"]

_ended_ns: Final = attrgetter("ended_ns")


class _OnWorker(TimedNode, Protocol):
    @property
    def worker(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stretch of the path.

    `name` and `key` are those of the node that ran, or that waited; `outside` has `_outside` and no key. `behind` is
    the key of the node that had the worker which a queue wait ended with, where that is known.
    """

    kind: Kind
    name: str
    key: str | None
    started_ns: int
    ended_ns: int
    behind: str | None = None

    def __repr__(self) -> str:
        return outline(self, self.name, self.kind, duration(self.duration_ns))

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.started_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPath:
    """The steps from start to end, and the slack of every node that ran, by key."""

    steps: tuple[Step, ...]
    slack_ns: Mapping[str, int]

    def __repr__(self) -> str:
        total_ns = sum(step.duration_ns for step in self.steps)
        return outline(self, None, count(len(self.steps), "step"), duration(total_ns))

    @property
    def nodes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.kind == "node")

    @property
    def ns_by_name(self) -> dict[str, int]:
        """Sums over the steps, in their order."""
        sums: dict[str, int] = {}
        for step in self.steps:
            name = _NAMES.get(step.kind, step.name)
            sums[name] = sums.get(name, 0) + step.duration_ns
        return sums


_NAMES: Final[Mapping[Kind, str]] = {"queue": QUEUE, "dependency": DEPENDENCY, "outside": OUTSIDE}

Node = TypeVar("Node", bound=TimedNode)
WorkerNode = TypeVar("WorkerNode", bound=_OnWorker)
Stretch = tuple[Kind, Node | None, int, int]
"""Kind, the node that ran or waited, from, to."""


def critical_path(run: RecordedRun, *, inside: str | None = None) -> CriticalPath:
    """The path through a run, or through what the node with the key `inside` executed, between its start and end.

    Raises:
        KeyError: The run has no node with the key `inside`.
    """
    started_ns, ended_ns = run.started_ns, run.ended_ns
    if inside is not None:
        outer = run.by_key[inside]
        started_ns, ended_ns = outer.started_ns, outer.ended_ns
    nodes = [node for node in run.by_parent.get(inside, ()) if node.ran]
    stretches = _fill(nodes, started_ns, ended_ns)
    return CriticalPath(steps=_steps(run, stretches), slack_ns=_Slack(nodes))


def critical_ns(run: RecordedRun) -> dict[str, int]:
    """How much of the path each node's name takes, the waits under `_queue`, `_dependency` and `_outside`.

    They add up to the run's duration exactly.
    """
    return critical_path(run).ns_by_name


def walk_back(
    last: Node | None, started_ns: int, ended_ns: int, upstream_of: Callable[[Node], Iterable[Node]]
) -> list[Stretch[Node]]:
    """The path's stretches from the end to the start, from the node that ended last. The algorithm itself."""
    stretches: list[Stretch[Node]] = []
    if last is not None and last.ended_ns < ended_ns:
        stretches.append(("outside", None, max(last.ended_ns, started_ns), ended_ns))
        ended_ns = stretches[0][2]
    at = ended_ns  # everything after it is accounted for
    seen: set[int] = set()  # a record with a cycle is nobody's intention, but must not hang
    node = last
    while node is not None:
        seen.add(id(node))
        since = min(at, max(node.started_ns, started_ns))
        stretches.append(("node", node, since, at))
        at = since
        if node.ready_ns < at > started_ns:
            since = max(node.ready_ns, started_ns)
            stretches.append(("queue", node, since, at))
            at = since
        governing: Node | None = None
        inputs_ns = started_ns
        for upstream in upstream_of(node):
            if (governing is None or upstream.ended_ns > inputs_ns) and id(upstream) not in seen:
                governing, inputs_ns = upstream, upstream.ended_ns
        since = max(inputs_ns, node.submitted_ns)
        if since < at > started_ns:
            since = max(since, started_ns)
            stretches.append(("dependency", node, since, at))
            at = since
        if inputs_ns < at > started_ns:
            since = max(inputs_ns, started_ns)
            stretches.append(("outside", None, since, at))
            at = since
        node = governing
    if last is None and started_ns < ended_ns:
        stretches.append(("outside", None, started_ns, ended_ns))
    return stretches


def waited_for(node: Node, splits: Iterable[Node]) -> list[Node]:
    """Those nodes, split into branches, that Hamilton's walk had waited for when it came to submit `node`."""
    return [split for split in splits if split.ended_ns <= node.submitted_ns]


def ns_by_name(stretches: Iterable[Stretch[Node]]) -> dict[str, int]:
    """Sums over stretches, in their order."""
    sums: dict[str, int] = {}
    for kind, node, started_ns, ended_ns in stretches:
        name = node.name if kind == "node" and node is not None else _NAMES[kind]
        sums[name] = sums.get(name, 0) + ended_ns - started_ns
    return sums


def path_facts(
    stretches: Sequence[Stretch[Node]], holders: Mapping[int, Holder] = MappingProxyType({}), *, limit: int = MAX_NAMES
) -> PathFacts:
    """The path for attributes and counters: of more than `limit` steps, names and durations of the longest ones.

    `holders` had the workers for which nodes of the path waited, by the identity of these nodes.
    """
    steps = [
        (ended_ns - started_ns, -index, node.name if kind == "node" else QUEUE)
        for index, (kind, node, started_ns, ended_ns) in enumerate(stretches)
        if node is not None and (kind == "node" or (kind == "queue" and ended_ns - started_ns >= MIN_QUEUE_NS))
    ]
    if len(steps) > limit:
        steps = sorted(heapq.nlargest(limit, steps), key=lambda each: -each[1])
    steps.reverse()
    behind: dict[str, float] = {}
    for kind, node, started_ns, ended_ns in stretches if holders else ():
        holder = holders.get(id(node)) if kind == "queue" else None
        if holder is not None:
            behind[holder.name] = behind.get(holder.name, 0.0) + (ended_ns - started_ns) / 1e9
    return PathFacts(
        names=tuple(name for _, _, name in steps),
        durations=tuple(duration_ns / 1e9 for duration_ns, _, _ in steps),
        seconds={name: total_ns / 1e9 for name, total_ns in ns_by_name(reversed(stretches)).items()},
        queued_behind=behind,
    )


def _fill(nodes: Sequence[NodeExecution], started_ns: int, ended_ns: int) -> list[Stretch[NodeExecution]]:
    """From the start to the end. Runs that one node executed one after the other follow each other."""
    by_key = {node.key: node for node in nodes}
    last_of_run: dict[str | None, NodeExecution] = {}
    splits: dict[str | None, list[NodeExecution]] = {}
    for node in nodes:
        last = last_of_run.get(node.run_id)
        if last is None or node.ended_ns > last.ended_ns:
            last_of_run[node.run_id] = node
        if node.is_split:
            splits.setdefault(node.run_id, []).append(node)
    lasts = sorted(last_of_run.values(), key=lambda node: -node.ended_ns)

    def upstream_of(node: NodeExecution) -> Iterable[NodeExecution]:
        upstream = [by_key[key] for key in node.upstream if key in by_key]
        if splits:
            upstream += waited_for(node, splits.get(node.run_id, ()))
        return upstream

    stretches = walk_back(lasts[0] if lasts else None, started_ns, ended_ns, upstream_of)
    for last in lasts[1:]:
        kind, _, _, until_ns = stretches[-1]
        if kind == "outside" and last.ended_ns <= until_ns:  # else it went on beside the one that is on the path
            stretches.pop()
            stretches += walk_back(last, started_ns, until_ns, upstream_of)
    stretches.reverse()
    return stretches


def _steps(run: RecordedRun, stretches: Iterable[Stretch[NodeExecution]]) -> tuple[Step, ...]:
    ends: Mapping[str, Sequence[NodeExecution]] | None = None
    steps: list[Step] = []
    for kind, node, started_ns, ended_ns in stretches:
        behind = None
        if kind == "queue" and node is not None:
            if ends is None:
                ends = by_worker(each for each in run.nodes if each.ran)
            holder = worker_holder(node, ends)
            behind = None if holder is None else holder.key
        steps.append(
            Step(
                kind=kind,
                name=OUTSIDE if node is None else node.name,
                key=None if node is None else node.key,
                started_ns=started_ns,
                ended_ns=ended_ns,
                behind=behind,
            )
        )
    return tuple(steps)


def by_worker(nodes: Iterable[WorkerNode]) -> dict[str, list[WorkerNode]]:
    """The nodes that each worker ran, by their ends."""
    found: dict[str, list[WorkerNode]] = {}
    for node in nodes:
        if node.worker:
            found.setdefault(node.worker, []).append(node)
    for of_worker in found.values():
        of_worker.sort(key=_ended_ns)
    return found


def worker_holder(node: WorkerNode, ends: Mapping[str, Sequence[WorkerNode]]) -> WorkerNode | None:
    """The node that had the worker right before `node` did, if that was while it waited."""
    of_worker = ends.get(node.worker, ())
    index = bisect_right(of_worker, node.started_ns, key=_ended_ns)
    while index:
        index -= 1
        other = of_worker[index]
        if other.ended_ns <= node.ready_ns:
            break
        if other is not node:
            return other
    return None


class _Slack(Mapping[str, int]):
    """Worked out when somebody asks, which few do."""

    def __init__(self, nodes: Sequence[NodeExecution]) -> None:
        self._nodes = nodes

    def __getitem__(self, key: str) -> int:
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return repr(self._known)

    @lazy
    def _known(self) -> dict[str, int]:
        return _slack(self._nodes)


def _slack(nodes: Sequence[NodeExecution]) -> dict[str, int]:
    """Latest end minus recorded end, for nodes of one level; see the module's text."""
    if not nodes:
        return {}
    latest = dict.fromkeys((node.key for node in nodes), max(node.ended_ns for node in nodes))
    by_key = {node.key: node for node in nodes}
    downstream_left = dict.fromkeys(latest, 0)
    for node in nodes:
        for key in node.upstream:
            if key in downstream_left:
                downstream_left[key] += 1
    settled = [node for node in nodes if not downstream_left[node.key]]
    for node in settled:  # grows while it is gone through
        latest_start_ns = latest[node.key] - node.duration_ns
        for key in node.upstream:
            if key in downstream_left:
                latest[key] = min(latest[key], latest_start_ns)
                downstream_left[key] -= 1
                if not downstream_left[key]:
                    settled.append(by_key[key])
    return {node.key: max(0, latest[node.key] - node.ended_ns) for node in nodes}
