"""Measured scenarios into tables for the terminal, and into `docs/accuracy.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from benchmarks.table import Table
from benchmarks.truth.compare import (
    LIMIT_POINTS,
    SHORT_LIMIT_POINTS,
    STEAL_LIMIT,
    Measured,
    Verdict,
    judge,
    shares,
    total,
)
from benchmarks.truth.scenarios import SCENARIOS
from traced_threadpool.model.states import STATES, State

COLUMNS: Final = (
    "scenario",
    "nodes of",
    "executions",
    "samples",
    *STATES,
    "in the sum",
    "unexplained",
    "margin",
    "steal",
    "target",
)
NOTE: Final = (
    "Under each state: mean |error| over executions, in points of wall time. In the sum: the worst state's mean "
    "|error| over nodes, each by its counters. Samples: the median execution's. Unexplained: what the truth's own "
    "calls do not account for. Margin: how much longer the package took nodes to be."
)


def tables(measured: Sequence[Measured]) -> list[Table]:
    """For each Python, the errors of all cases and then what was true and what was reported."""
    found = []
    for python, group in _by_python(measured).items():
        found.append(
            Table(
                title=f"Errors, Python {python}",
                columns=COLUMNS,
                rows=[row for each in group for row in _error_rows(each)],
                text_columns=frozenset({0, 1, len(COLUMNS) - 1}),
                note=NOTE,
            )
        )
        found.append(
            Table(
                title=f"True and reported shares in percent, all executions, Python {python}",
                columns=("scenario", "nodes of", "node", *STATES),
                rows=[row for each in group for row in _share_rows(each)],
                text_columns=frozenset({0, 1, 2}),
            )
        )
    return found


def document(measured: Sequence[Measured], machine: str) -> str:
    """What is kept in the documentation."""
    groups = _by_python(measured)
    parts = [
        "# How accurate the states of a node's time are",
        "",
        "Written by `python -m benchmarks.truth --pythons --write docs/accuracy.md`; "
        "[benchmarks/truth](../benchmarks/truth/README.md) says how it is measured.",
        "",
        f"{machine}. Points are percentage points of a node's wall time. Targets: the mean absolute error of each "
        f"state at most {LIMIT_POINTS:g} points, for nodes of 100 ms and more; at most {SHORT_LIMIT_POINTS:g} points "
        "in the sum over 200 executions of shorter ones.",
        "",
        _summary(measured),
        "",
        "## The worst state of each case",
        "",
        "The state with the largest error, and that, in points: for nodes of 100 ms and more the mean over executions; "
        "for short ones the mean over nodes, each in the sum of its 200 executions. `!` is above the target.",
        "",
        *_markdown(["scenario", "", "nodes of", *groups], _worst_rows(groups)),
        "",
        "## All of it",
        "",
        NOTE,
        "",
    ]
    for python, group in groups.items():
        parts += [
            f"### Python {python}",
            "",
            *_markdown(COLUMNS, [row for each in group for row in _error_rows(each)]),
            "",
        ]
    return "\n".join(parts).rstrip() + "\n"


def missed(measured: Iterable[Measured]) -> list[str]:
    """The cases above their target, in words."""
    return [
        f"{each.python} {each.scenario} {case.length}: {_worst(verdict, short=short)}"
        for each in measured
        for short in [SCENARIOS[each.scenario].short]
        for case in each.cases
        for verdict in [judge(case)]
        if not verdict.met(short=short)
    ]


def _summary(measured: Sequence[Measured]) -> str:
    judged = [(SCENARIOS[each.scenario].short, judge(case)) for each in measured for case in each.cases]
    sentences = []
    for short, what in ((False, "nodes of 100 ms and more"), (True, "short nodes")):
        group = sorted(
            (verdict.worst_summed if short else verdict.worst_mean)[1] for of, verdict in judged if of is short
        )
        if group:
            met = sum(verdict.met(short=short) for of, verdict in judged if of is short)
            sentences.append(
                f"{met} of {len(group)} cases with {what} meet the target; the worst state's error is "
                f"{group[len(group) // 2]:.1f} points in the median case and {group[-1]:.1f} in the worst."
            )
    flagged = [f"{each.scenario} on {each.python}" for each in measured if each.steal > STEAL_LIMIT]
    if flagged:
        sentences.append(
            f"Measured while a hypervisor took away more than {STEAL_LIMIT:.0%}, in each attempt: {', '.join(flagged)}."
        )
    unsampled = [f"{each.scenario} on {each.python}" for each in measured if each.method != "process"]
    if unsampled:
        sentences.append(f"Not sampled: {', '.join(unsampled)}.")
    return " ".join(sentences)


def _by_python(measured: Iterable[Measured]) -> dict[str, list[Measured]]:
    groups: dict[str, list[Measured]] = {}
    for each in measured:
        groups.setdefault(each.python, []).append(each)
    return groups


def _error_rows(measured: Measured) -> list[list[str]]:
    short = SCENARIOS[measured.scenario].short
    rows = []
    for case in measured.cases:
        verdict = judge(case)
        rows.append(
            [
                measured.scenario,
                case.length,
                str(verdict.executions),
                f"{verdict.samples:.0f}",
                *(_points(verdict.mean_points[state]) for state in STATES),
                _named(verdict.worst_summed),
                f"{verdict.unexplained_share:.1%}",
                f"{verdict.margin_share:+.1%}",
                f"{measured.steal:.1%}" + (" !" if measured.steal > STEAL_LIMIT else ""),
                "met" if verdict.met(short=short) else "missed",
            ]
        )
    return rows


def _share_rows(measured: Measured) -> list[list[str]]:
    rows = []
    for case in measured.cases:
        for node, counted in case.counted_ns.items():
            true = shares(total(each.true_ns for each in case.executions if each.node == node))
            reported = shares(counted)
            rows.append(
                [
                    measured.scenario,
                    case.length,
                    node,
                    *(_pair(true[state], reported[state]) for state in STATES),
                ]
            )
    return rows


def _worst_rows(groups: Mapping[str, Sequence[Measured]]) -> list[list[str]]:
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for python, group in groups.items():
        for measured in group:
            short = SCENARIOS[measured.scenario].short
            for case in measured.cases:
                verdict = judge(case)
                mark = "" if verdict.met(short=short) else " !"
                cells.setdefault((measured.scenario, case.length), {})[python] = _worst(verdict, short=short) + mark
    return [
        [scenario, SCENARIOS[scenario].says, length, *(of.get(python, "") for python in groups)]
        for (scenario, length), of in cells.items()
    ]


def _worst(verdict: Verdict, *, short: bool) -> str:
    return _named(verdict.worst_summed if short else verdict.worst_mean)


def _named(found: tuple[State, float]) -> str:
    return f"{found[0]} {found[1]:.1f}"


def _points(value: float) -> str:
    return f"{value:.1f}" if value >= 0.05 else "–"


def _pair(true: float, reported: float) -> str:
    return "–" if max(abs(true), abs(reported)) < 0.05 else f"{true:.1f} / {reported:.1f}"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *rows)]
