"""The dashboard on objectives: are runs as good as promised, and for how long will they be?"""

from __future__ import annotations

from dashboards.generate import queries as q
from dashboards.generate.boards import board
from dashboards.generate.panels import Column as C
from dashboards.generate.panels import falling, heat_map, number, rows, time_series


def slo() -> str:
    """Its JSON."""
    burn = ((None, "green"), (1, "yellow"), (3, "orange"), (6, "red"), (14.4, "dark-red"))
    return board(
        uid="hamilton-slo",
        title="Hamilton: objectives",
        description="Are runs as good as promised, and how fast does the error budget burn? Needs the rules of "
        "dashboards/rules/slo.yaml, or those that traced-threadpool slo writes.",
        variables=("datasource", "pool", "run"),
        since="now-7d",
        rows=(
            (
                "Objective and error budget",
                (
                    number(
                        "Objective",
                        "What was promised: the share of runs that must not fail, and of those that must be fast "
                        "enough. No data: the rules are not loaded, or no run has ended.",
                        q.OBJECTIVE,
                        limits=((None, "blue"),),
                        width=6,
                    ),
                    number(
                        "Achieved in 30 days",
                        "Compare with the objective. Runs that were cancelled do not count.",
                        q.ACHIEVED,
                        limits=((None, "blue"),),
                        width=6,
                    ),
                    number(
                        "Error budget left",
                        "100 %: nothing went wrong in 30 days. Below 0: the promise is broken. Under 25 %: put what "
                        "makes runs safer before what is new.",
                        q.BUDGET_LEFT,
                        limits=falling(0, 0.25),
                        width=6,
                    ),
                    number(
                        "Since the last success",
                        "How old the results of a batch run are. Compare with how often it should run; a process that "
                        "is gone is remembered for a week.",
                        q.SINCE_SUCCESS,
                        limits=((None, "blue"),),
                        width=6,
                    ),
                    time_series(
                        "Error budget left, over time",
                        "A cliff is an incident, a slope a steady trouble; below 0 the objective is missed. It "
                        "recovers as bad days leave the 30 days.",
                        q.BUDGET_LEFT,
                        limits=falling(0, 0.25),
                        lowest=None,
                        width=24,
                    ),
                ),
            ),
            (
                "Burn rates",
                (
                    time_series(
                        "Page: 1 hour with 5 minutes, 6 hours with 30 minutes",
                        "1 uses the budget up in exactly 30 days. A page fires while both of a pair are above 14.4 (1 "
                        "h and 5 m) or 6 (6 h and 30 m). The short one falls first when the trouble is over.",
                        q.BURN["1h"],
                        q.BURN["5m"],
                        q.BURN["6h"],
                        q.BURN["30m"],
                        limits=burn,
                    ),
                    time_series(
                        "Ticket: 1 day with 2 hours, 3 days with 6 hours",
                        "As beside, for trouble that is slow: above 3 (1 d and 2 h) or 1 (3 d and 6 h). Nobody is "
                        "woken; within days the budget would be gone.",
                        q.BURN["1d"],
                        q.BURN["2h"],
                        q.BURN["3d"],
                        q.BURN["6h"],
                        limits=burn,
                    ),
                ),
            ),
            (
                "RED: rate, errors, duration of runs",
                (
                    time_series(
                        "Runs ended a second",
                        "By outcome. Objectives rest on these: with few runs a single failure is a large share.",
                        q.RUN_RATE,
                        stacked=True,
                    ),
                    time_series(
                        "Run duration of successes",
                        "Median and 95th percentile, to within a bucket. Which node takes the time is on the Nodes "
                        "dashboard, under the critical path.",
                        q.RUN_DURATION_P50,
                        q.RUN_DURATION_P95,
                    ),
                    heat_map(
                        "Run duration",
                        "Each column is a moment, darker cells hold more runs; all outcomes. Points are traces: open a "
                        "slow one, or give it to traced-threadpool explain.",
                        q.RUN_DURATION_HEATMAP,
                    ),
                    time_series(
                        "Runs within the promised latency, and the promise",
                        "Share of the last hour's successful runs that took at most the promised time; that time is on "
                        "the right. Below the objective for long: the latency alert tells when it matters.",
                        q.WITHIN_LATENCY,
                        q.LATENCY_BOUND,
                    ),
                ),
            ),
            (
                "Freshness and alerts",
                (
                    time_series(
                        "Age of the last success, and what is allowed",
                        "A sawtooth that falls to 0 with each success. Above the line of what is allowed (only with "
                        "--fresh-within): results are stale, and the batch run is not running or fails.",
                        q.SINCE_SUCCESS,
                        q.FRESHNESS_BOUND,
                    ),
                    rows(
                        "Alerts that fire",
                        "Empty is good. docs/runbook.md says for each what it means and what to do.",
                        C(title="Alert", label="alertname"),
                        C(title="Severity", label="severity"),
                        C(title="Pool", label="pool"),
                        C(title="Run", label="run"),
                        C(title="Firing", query=q.FIRING),
                        sorted_by="Firing",
                        width=12,
                    ),
                ),
            ),
        ),
    )
