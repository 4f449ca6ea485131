"""What was reported of nodes and what was true of them into errors, in percentage points of the nodes' wall time.

Both divide a stretch of time into states, and the two stretches differ by what passes between the package's readings
and the node's own. So shares are compared: a state's part of what was reported of the node, against its part of the
truth.

>>> node = Execution(
...     node="load", true_ns={"cpu": 60, "gil": 40}, reported_ns={"cpu": 60, "gil": 38, "lock": 2},
...     unexplained_ns=0, samples=50,
... )
>>> {state: round(error, 1) for state, error in errors(node.true_ns, node.reported_ns).items() if error}
{'gil': -2.0, 'lock': 2.0}
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from traced_threadpool.model.states import STATES, State

LIMIT_POINTS: Final = 5.0
"""Of the mean over a case's nodes of a state's absolute error, for nodes of 100 ms and more."""
SHORT_LIMIT_POINTS: Final = 3.0
"""Of the mean over a case's nodes of a state's absolute error in the sum over a short node's executions."""
STEAL_LIMIT: Final = 0.01
"""Above this share of time taken away by a hypervisor, a measurement says little."""

Times = Mapping[State, int]
"""Nanoseconds by state; a state that is not there is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One execution of one node. `true_ns` and `reported_ns` each add up to what they take for its duration."""

    node: str
    true_ns: Times
    reported_ns: Times
    unexplained_ns: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scenario with nodes of one length. `counted_ns` are the counters, by node."""

    length: str
    executions: Sequence[Execution]
    counted_ns: Mapping[str, Times]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One process's cases."""

    scenario: str
    python: str
    method: str
    steal: float
    cases: Sequence[Case]
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A case's mean absolute errors in points: over its executions, and over its nodes, each in the sum of its own.

    `unexplained_share` is of the truth's own wall; `margin_share` how much longer the reported durations are.
    """

    mean_points: Mapping[State, float]
    summed_points: Mapping[State, float]
    executions: int
    samples: float
    unexplained_share: float
    margin_share: float

    @property
    def worst_mean(self) -> tuple[State, float]:
        return worst(self.mean_points)

    @property
    def worst_summed(self) -> tuple[State, float]:
        return worst(self.summed_points)

    def met(self, *, short: bool) -> bool:
        return self.worst_summed[1] <= SHORT_LIMIT_POINTS if short else self.worst_mean[1] <= LIMIT_POINTS


def shares(times: Times) -> dict[State, float]:
    """The percentages of the whole.

    >>> shares({"cpu": 30, "lock": 10})["lock"]
    25.0
    """
    whole = sum(times.values())
    return {state: 100 * times.get(state, 0) / whole if whole else 0.0 for state in STATES}


def errors(true_ns: Times, reported_ns: Times) -> dict[State, float]:
    """Reported less true, in points."""
    true, reported = shares(true_ns), shares(reported_ns)
    return {state: reported[state] - true[state] for state in STATES}


def total(times: Iterable[Times]) -> dict[State, int]:
    """The sum, state by state."""
    result: dict[State, int] = dict.fromkeys(STATES, 0)
    for each in times:
        for state, nanoseconds in each.items():
            result[state] += nanoseconds
    return result


def worst(points: Mapping[State, float]) -> tuple[State, float]:
    """The state with the largest error, and that."""
    return max(points.items(), key=lambda item: item[1])


def judge(case: Case) -> Verdict:
    """All errors of a case."""
    each = [errors(execution.true_ns, execution.reported_ns) for execution in case.executions]
    summed = [
        errors(total(execution.true_ns for execution in case.executions if execution.node == node), counted)
        for node, counted in case.counted_ns.items()
    ]
    true_wall = sum(sum(execution.true_ns.values()) for execution in case.executions)
    reported_wall = sum(sum(execution.reported_ns.values()) for execution in case.executions)
    return Verdict(
        mean_points={state: statistics.fmean(abs(found[state]) for found in each) for state in STATES},
        summed_points={state: statistics.fmean(abs(found[state]) for found in summed) for state in STATES},
        executions=len(case.executions),
        samples=statistics.median(execution.samples for execution in case.executions),
        unexplained_share=sum(abs(execution.unexplained_ns) for execution in case.executions) / true_wall,
        margin_share=reported_wall / true_wall - 1,
    )


def from_record(record: Mapping[str, Any]) -> Measured:
    """Back from `dataclasses.asdict`, by way of JSON."""
    return Measured(
        **{
            **record,
            "cases": [
                Case(**{**case, "executions": [Execution(**each) for each in case["executions"]]})
                for case in record["cases"]
            ],
        }
    )
