"""A run's nodes and what is known of their durations into the order in which ready ones start.

The rule: of the ready nodes, the one with the longest path ahead of it goes first: its own duration and those of the
nodes that follow, to the end of the run. A node of unknown duration counts as the median of the known ones (the greater
of the two in the middle); when
nothing is known all count the same, and so hops are compared. Equals go in the order in which they became ready.

>>> plan = RunPlan(upstream={"a": (), "b": (), "c": ("b",), "end": ("a", "c")}, seconds={"a": 5.0, "end": 1.0})
>>> critical_path(plan)
{'end': 1.0, 'c': 6.0, 'b': 11.0, 'a': 6.0}

A policy of one's own is a callable like `critical_path`, and may change what that gives:

>>> def report_first(plan):
...     return {**critical_path(plan), "a": float("inf")}
>>> ranks_of(report_first(plan))["a"] < ranks_of(report_first(plan))["b"]
True
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol, cast, get_args

from traced_threadpool.engine.durations import Durations
from traced_threadpool.model import forks

CRITICAL_PATH: Final = "critical_path"
FIFO: Final = "fifo"
HOPS: Final = "hops"
CUSTOM: Final = "custom"

LEARNED_RUNS: Final = 8
LEARNED_EVERY: Final = 4

MOST_PLANS: Final = 64
"""Of how many different executions of one graph the plans are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What is known of a run as it starts.

    `upstream` names, for each node that will run, those of its inputs that will run too; in the order in which
    Hamilton submits nodes, inputs before what needs them. `seconds` is how long nodes took lately; it lacks those
    that have not been seen yet.
    """

    upstream: Mapping[str, tuple[str, ...]]
    seconds: Mapping[str, float] = field(default_factory=dict)


class Priority(Protocol):
    """A policy: from a run's plan to a number for each node's name. Of the ready nodes the highest goes first.

    Nodes without a number come last. Called once a run, on the caller's thread; one that raises, or gives what are no
    numbers, is a counted error, and the run's nodes go first ready, first started.
    """

    def __call__(self, plan: RunPlan, /) -> Mapping[str, float]: ...


PriorityName = Literal["critical_path", "fifo"]
PRIORITIES: Final[tuple[PriorityName, ...]] = get_args(PriorityName)
"""The named policies: who checks, lists or offers them takes them from here."""


def critical_path(plan: RunPlan) -> dict[str, float]:
    """For each node the seconds, or hops, from its start to the end of the run."""
    order = _Order(plan.upstream)
    ranks = order.ranks(list(map(plan.seconds.get, order.names)))
    return {name: -rank for name, rank in ranks.items()}


class _Order:
    """The nodes from the last to the first, each with the places of its inputs in that order.

    Places instead of names: for a run of 20,000 nodes no name is looked up, where each access is a cache miss.
    """

    __slots__ = ("_inputs", "names")

    def __init__(self, upstream: Mapping[str, tuple[str, ...]]) -> None:
        self.names = list(upstream)[::-1]
        place_of = {name: place for place, name in enumerate(self.names)}
        self._inputs = [tuple([place_of[each] for each in upstream[name] if each in place_of]) for name in self.names]

    def ranks(self, known: Sequence[float | None]) -> dict[str, float]:
        """For each node minus the longest way to the end, by what is known of how long each node takes."""
        if None in known:
            usual = _usual([cost for cost in known if cost is not None])
            costs = [usual if cost is None else cost for cost in known]
        else:
            costs = cast("list[float]", known)
        after = [0.0] * len(costs)  # the least rank of those that need the node
        for place, inputs in enumerate(self._inputs):
            # What needs a node comes before it: by now its own rank can be put in the place of what is after it.
            after[place] = rank = after[place] - costs[place]
            for each in inputs:
                if after[each] > rank:
                    after[each] = rank
        return dict(zip(self.names, after, strict=True))


def _usual(known: Collection[float]) -> float:
    """The median of what is known, else 1 a hop."""
    return sorted(known)[len(known) // 2] if known else 1.0


def ranks_of(priorities: Mapping[str, float]) -> dict[str, float]:
    """What the scheduler goes by: the lowest first.

    Raises:
        TypeError: They are no mapping to numbers.
        ValueError: One of them is not a number (NaN), which has no place in an order.
    """
    if not isinstance(priorities, Mapping):
        raise TypeError(f"a priority policy must return a mapping from names of nodes to numbers, not {priorities!r}")
    ranks: dict[str, float] = {}
    for name, number in priorities.items():
        if not isinstance(number, (int, float)):
            raise TypeError(f"the priority of node {name!r} must be a number, not {number!r}")
        if math.isnan(number):
            raise ValueError(f"the priority of node {name!r} must be a number, not {number!r}")
        ranks[name] = -number
    return ranks


class Ranks(NamedTuple):
    """What the scheduler goes by in a run.

    `by_name` is None for first ready, first started. `basis` is what the ranks rest on, as the record tells it.
    `learns` tells whether the run's durations are to be learned. `planned` is how many nodes it will have, if known.
    """

    by_name: Mapping[str, float] | None
    basis: str
    learns: bool = True
    planned: int | None = None


class Planner:
    """The ranks of each run. Those of the critical path are made anew only when learned durations have changed.

    The first `LEARNED_RUNS` runs of a plan are learned from, later every `LEARNED_EVERY`th, which is enough for an
    average and costs less. Called from any thread; two that come at once with one graph may both do the work.

    Args:
        policy: How.
        durations: What is learned.
    """

    def __init__(self, policy: PriorityName | Priority, durations: Durations) -> None:
        self._policy = policy
        self._durations = durations
        self._forget()
        forks.register(self._forget)

    def _forget(self) -> None:
        self._plans: weakref.WeakKeyDictionary[Any, dict[Hashable, _Plan]] = weakref.WeakKeyDictionary()

    def ranks(self, graph: Any, wanted: Hashable, upstream: Callable[[], Mapping[str, tuple[str, ...]]]) -> Ranks:
        """The ranks of a run of this graph.

        Args:
            graph: What is executed. It is not kept alive.
            wanted: What of it; a run with the same has the same nodes.
            upstream: Gives `RunPlan.upstream`; called for what has not been met before.
        """
        policy, durations = self._policy, self._durations
        if policy == FIFO:
            return Ranks(None, FIFO)
        plans = self._plans.get(graph)
        if plans is None:
            plans = self._plans[graph] = {}
        plan = plans.get(wanted)
        if plan is None:
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plan = plans[wanted] = _Plan(upstream(), custom=callable(policy))
        plan.runs += 1
        learns = plan.runs <= LEARNED_RUNS or plan.runs % LEARNED_EVERY == 0
        if callable(policy):
            seconds = durations.settled(plan.upstream)
            by_name = ranks_of(policy(RunPlan(upstream=plan.upstream, seconds=seconds)))
            return Ranks(by_name, CUSTOM, learns, plan.count)
        changes = durations.changes  # first: what changes while the ranks are made counts for the next run
        made = plan.made  # whole or not at all: another thread may make it at this moment
        if made is None or made[0] != changes:
            known = durations.settled_each(plan.order.names)
            basis = CRITICAL_PATH if any(each is not None for each in known) else HOPS
            plan.made = made = changes, plan.order.ranks(known), basis
        return Ranks(made[1], made[2], learns, plan.count)


class _Plan:
    """What is kept of the executions of the same nodes of one graph."""

    __slots__ = ("count", "made", "order", "runs", "upstream")

    def __init__(self, upstream: Mapping[str, tuple[str, ...]], *, custom: bool) -> None:
        self.count = len(upstream)
        self.upstream = upstream if custom else {}  # one of the two is needed
        self.order = _Order({} if custom else upstream)
        self.runs = 0
        self.made: tuple[int, Mapping[str, float], str] | None = None  # change of durations, ranks, basis
