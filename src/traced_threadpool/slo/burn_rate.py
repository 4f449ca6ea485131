"""An objective into rules, by the method of Google's SRE workbook, chapter 5: several windows, several burn rates.

A burn rate of 1 uses the error budget up in exactly the objective's period of 30 days. An alert fires while the budget
burns too fast over a long window, so that it is worth waking up for, and over a short one too, so that it stops soon
after the trouble has:

>>> for rate in BURN_RATES:
...     print(f"{rate.severity:6} {rate.budget:>2} % in {rate.long:2} is {float(rate.factor):4}x, short {rate.short}")
page    2 % in 1h is 14.4x, short 5m
page    5 % in 6h is  6.0x, short 30m
ticket 10 % in 1d is  3.0x, short 2h
ticket 10 % in 3d is  1.0x, short 6h

What counts are runs that succeeded or failed; one that was cancelled was nobody's promise. For latency, those that
succeeded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from traced_threadpool.slo.objective import Objective
from traced_threadpool.slo.promql import bound_matcher, duration, quoted, selector
from traced_threadpool.slo.rule_file import Alert, Group, Recording
from traced_threadpool.telemetry import names

PERIOD: Final = "30d"
PERIOD_HOURS: Final = 720
_HOURS: Final = {"1h": 1, "6h": 6, "1d": 24, "3d": 72}

Kind = Literal["availability", "latency"]
RUNBOOK: Final = "docs/runbook.md"

ERRORS: Final = "pool_run:hamilton_slo_errors:ratio_rate"
"""Share of runs that broke the promise, by window: `...ratio_rate5m` and so on."""
BUDGET: Final = "pool_run:hamilton_slo_budget:ratio"
"""Share of runs that may."""
BUDGET_LEFT: Final = "pool_run:hamilton_slo_budget_left:ratio"
"""What is left of the budget of the last 30 days: 1 is all of it, below 0 the promise is broken."""
LATENCY_BOUND: Final = "pool_run:hamilton_slo_latency_bound:seconds"
FRESHNESS_BOUND: Final = "pool_run:hamilton_slo_freshness_bound:seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnRate:
    """`budget` percent of the error budget burnt in `long`, and burning still in `short`."""

    severity: Literal["page", "ticket"]
    budget: int
    long: str
    short: str

    @property
    def factor(self) -> Decimal:
        return Decimal(self.budget) * PERIOD_HOURS / _HOURS[self.long] / 100


BURN_RATES: Final = (
    BurnRate(severity="page", budget=2, long="1h", short="5m"),
    BurnRate(severity="page", budget=5, long="6h", short="30m"),
    BurnRate(severity="ticket", budget=10, long="1d", short="2h"),
    BurnRate(severity="ticket", budget=10, long="3d", short="6h"),
)
QUICK_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h")
SLOW_WINDOWS: Final = ("1d", "3d", PERIOD)
SLOW_INTERVAL: Final = "2m"
"""Long windows change slowly and cost more. Prometheus takes a series for gone after five minutes."""


def slo_groups(objective: Objective, *, runbook: str = RUNBOOK) -> list[Group]:
    """The groups of a rule file. `runbook` is where the alerts' text is to be found."""
    name = "hamilton-slo" + "".join(f"-{part}" for part in (objective.pool, objective.run) if part is not None)
    promises = list(_promises(objective))
    quick = [rule for promise in promises for rule in promise.recordings(QUICK_WINDOWS)]
    slow = [rule for promise in promises for rule in promise.recordings(SLOW_WINDOWS)]
    budgets = [rule for promise in promises for rule in promise.budget()]
    alerts = [rule for promise in promises for rule in promise.alerts(runbook)]
    return [
        Group(name=f"{name}-quick", rules=(*quick, *_bounds(objective))),
        Group(name=f"{name}-slow", interval=SLOW_INTERVAL, rules=(*slow, *budgets)),
        Group(name=f"{name}-alerts", rules=(*alerts, *_guards(objective, runbook))),
    ]


def notes(objective: Objective) -> list[str]:
    """What one should know of these numbers, in sentences."""
    found = []
    for promise in _promises(objective):
        left_out = [rate for rate in BURN_RATES if not promise.can_fire(rate)]
        found += [
            f"An objective of {promise.percent:f} % for {promise.kind} cannot burn {rate.factor.normalize():f} times "
            f"too fast: the alert on {rate.budget} % in {rate.long} is left out."
            for rate in left_out
        ]
        paging = next((rate for rate in BURN_RATES if rate not in left_out), BURN_RATES[-1])
        few = math.ceil(1 / promise.threshold(paging)) - 1
        if few > 1:
            found.append(
                f"With {few:,} or fewer runs in {paging.long}, a single bad one is enough for the "
                f"{paging.severity} on {promise.kind}."
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Promise:
    """One of the objective's two parts."""

    kind: Kind
    percent: Decimal
    of: dict[str, str]
    bound_seconds: float | None = None

    @property
    def budget_ratio(self) -> Decimal:
        return (100 - self.percent) / 100

    def threshold(self, rate: BurnRate) -> Decimal:
        return rate.factor * self.budget_ratio

    def can_fire(self, rate: BurnRate) -> bool:
        """No more than all runs can be bad."""
        return self.threshold(rate) < 1

    def errors(self, window: str) -> str:
        def runs(suffix: str, *matchers: str, **labels: str) -> str:
            series = selector(names.RUN_DURATION, suffix, *matchers, **self.of, **labels)
            return f"sum by (pool, run) (rate({series}[{window}]))"

        if self.bound_seconds is None:
            counted = runs("_count", 'outcome=~"success|error"')
            return f"(\n  {runs('_count', outcome='error')}\n  or\n  0 * {counted}\n)\n/\n({counted} > 0)"
        good = runs("_bucket", bound_matcher(self.bound_seconds), outcome="success")
        return f"1 - {good}\n/\n({runs('_count', outcome='success')} > 0)"

    def recordings(self, windows: tuple[str, ...]) -> Iterator[Recording]:
        for window in windows:
            yield Recording(record=ERRORS + window, expr=self.errors(window), labels={"slo": self.kind})

    def budget(self) -> Iterator[Recording]:
        known = f"group by (pool, run) ({selector(names.RUN_DURATION, '_count', **self.of)})"
        labels = {"slo": self.kind}
        yield Recording(record=BUDGET, expr=f"{known} * {self.budget_ratio:f}", labels=labels)
        left = f"1 - {self._recorded(ERRORS + PERIOD)} / {self.budget_ratio:f}"
        yield Recording(record=BUDGET_LEFT, expr=left, labels=labels)

    def _recorded(self, record: str) -> str:
        labels = {**self.of, "slo": self.kind}
        return f"{record}{{{', '.join(f'{label}={quoted(value)}' for label, value in labels.items())}}}"

    def alerts(self, runbook: str) -> Iterator[Alert]:
        broken = "failed" if self.bound_seconds is None else f"took longer than {duration(self.bound_seconds)}"
        for rate in BURN_RATES:
            if not self.can_fire(rate):
                continue
            factor = f"{rate.factor.normalize():f}"
            limit = f"({factor} * {self.budget_ratio:f})"
            used_up = duration(PERIOD_HOURS * 3600 / float(rate.factor))
            yield Alert(
                alert=f"Hamilton{self.kind.capitalize()}BudgetBurn",
                expr=f"{self._recorded(ERRORS + rate.long)} > {limit}\n"
                f"and\n{self._recorded(ERRORS + rate.short)} > {limit}",
                labels={"severity": rate.severity, "long_window": rate.long, "short_window": rate.short},
                annotations={
                    "summary": "Run {{ $labels.run }} of pool {{ $labels.pool }} burns its error budget "
                    f"({self.kind}) too fast",
                    "description": f"{{{{ $value | humanizePercentage }}}} of runs {broken} in the last {rate.long}, "
                    f"and too many in the last {rate.short}; {self.percent.normalize():f} % must not. That is a "
                    f"burn rate above {factor}: {used_up} of it use up the error budget of {PERIOD}.",
                    "runbook_url": f"{runbook}#hamilton{self.kind}budgetburn",
                },
            )


def _promises(objective: Objective) -> Iterator[_Promise]:
    of = _of(objective)
    yield _Promise(kind="availability", percent=objective.availability, of=of)
    if objective.latency_seconds is not None:
        yield _Promise(kind="latency", percent=objective.latency, of=of, bound_seconds=objective.latency_seconds)


def _of(objective: Objective) -> dict[str, str]:
    labels = {"pool": objective.pool, "run": objective.run}
    return {label: value for label, value in labels.items() if value is not None}


def _bounds(objective: Objective) -> Iterator[Recording]:
    """What was promised, for the dashboard."""
    of = _of(objective)
    known = f"group by (pool, run) ({selector(names.RUN_DURATION, '_count', **of)})"
    if objective.latency_seconds is not None:
        yield Recording(record=LATENCY_BOUND, expr=f"{known} * {objective.latency_seconds:.10g}")
    if objective.fresh_seconds is not None:
        yield Recording(record=FRESHNESS_BOUND, expr=f"{known} * {objective.fresh_seconds:.10g}")


def _guards(objective: Objective, runbook: str) -> Iterator[Alert]:
    """That results are fresh; and that the bound on which the latency rests is there."""
    of = _of(objective)
    if objective.fresh_seconds is not None:
        yield stale_alert(objective.fresh_seconds, runbook, **of)
    if objective.latency_seconds is not None:
        all_runs = selector(names.RUN_DURATION, "_count", **of, outcome="success")
        below = selector(
            names.RUN_DURATION, "_bucket", bound_matcher(objective.latency_seconds), **of, outcome="success"
        )
        yield Alert(
            alert="HamiltonLatencyBoundMissing",
            expr=f"group by (pool, run) ({all_runs})\nunless\ngroup by (pool, run) ({below})",
            hold="10m",
            labels={"severity": "ticket"},
            annotations={
                "summary": "The latency of run {{ $labels.run }} of pool {{ $labels.pool }} is not watched",
                "description": f"{names.RUN_DURATION.prometheus} has no bound of {duration(objective.latency_seconds)} "
                "any more, on which the latency objective rests: its alerts cannot fire.",
                "runbook_url": f"{runbook}#hamiltonlatencyboundmissing",
            },
        )


def stale_alert(fresh_seconds: float, runbook: str, severity: str = "page", **of: str) -> Alert:
    """The last success is too old. A process that is gone is remembered for a week, or twice as long as it may take."""
    last = selector(names.RUN_LAST_SUCCESS, **of)
    remembered = duration(max(7 * 86_400, math.ceil(2 * fresh_seconds)))
    return Alert(
        alert="HamiltonBatchNotFresh",
        expr=f"time() - max by (pool, run) (last_over_time({last}[{remembered}])) > {fresh_seconds:.10g}",
        hold="5m",
        labels={"severity": severity},
        annotations={
            "summary": "Run {{ $labels.run }} of pool {{ $labels.pool }} has not succeeded for too long",
            "description": "The last success was {{ $value | humanizeDuration }} ago; "
            f"{duration(fresh_seconds)} are allowed. What reads its results reads old ones.",
            "runbook_url": f"{runbook}#hamiltonbatchnotfresh",
        },
    )
