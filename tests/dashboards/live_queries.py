"""What the result of every query must be, by its name: from what the programs did, in the window that is asked of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from tests.dashboards.live_servers import Labels, Vector, labels
from tests.dashboards.live_truth import Bounds, Window, quantile, quotient, total
from tests.dashboards.live_world import OBJECTIVE
from traced_threadpool.telemetry import names

RATE_SECONDS, RANGE_SECONDS = 300, 3600  # what `concrete` puts in place of $__rate_interval and $__range

_LANE = ("pool", "backend")

Truth = Callable[[Window], Vector | Bounds]
"""What a query's result must be: values, or bounds between which they must lie."""


def _page(metric: names.Metric, *by: str) -> Truth:
    """A gauge, as the programs show it, summed up."""
    return lambda window: total(window.value(metric.prometheus), *by)


def _oldest(metric: names.Metric) -> Truth:
    def truth(window: Window) -> Bounds:
        found: dict[Labels, float] = {}
        for one, value in window.value(metric.prometheus).items():
            lane = labels(**{name: dict(one)[name] for name in _LANE})
            found[lane] = max(found.get(lane, 0.0), value)
        # The pages were read before: what still runs is older by now.
        return {lane: (value, value + 60 if value else 0.0) for lane, value in found.items()}

    return truth


def rate_of(name: str, *by: str, seconds: float = RATE_SECONDS, **where: str | Callable[[str], bool]) -> Truth:
    return lambda window: total(window.rate(name, seconds, **where), *by)


def _increase(name: str, *by: str, seconds: float = RATE_SECONDS, **where: str | Callable[[str], bool]) -> Truth:
    return lambda window: total(window.increase(name, seconds, **where), *by)


def quantile_of(share: float, metric: names.Metric, *by: str, seconds: float = RATE_SECONDS, **where: str) -> Truth:
    return lambda window: quantile(share, window.increase(f"{metric.prometheus}_bucket", seconds, **where), *by)


def divided(above: Truth, below: Truth) -> Truth:
    return lambda window: quotient(values_of(above(window)), values_of(below(window)))


def _positive(truth: Truth) -> Truth:
    return lambda window: {one: value for one, value in values_of(truth(window)).items() if value > 0}


def values_of(truth: Vector | Bounds) -> Vector:
    assert all(isinstance(value, float) for value in truth.values())
    return truth  # type: ignore[return-value]  # just asserted


def _ratio_of_quantiles(window: Window) -> Bounds:
    high = quantile_of(0.99, names.NODE_DURATION, "node", seconds=RANGE_SECONDS)(window)
    low = quantile_of(0.5, names.NODE_DURATION, "node", seconds=RANGE_SECONDS)(window)
    return {
        node: (above[0] / below[1], above[1] / below[0] if below[0] else math.inf)
        for node, below in low.items()
        for above in [high[node]]
        if isinstance(above, tuple) and isinstance(below, tuple)
    }


def _critical_share(window: Window) -> Vector:
    by_node = total(window.increase(names.CRITICAL_PATH_TIME.prometheus, RANGE_SECONDS), "node")
    return {node: seconds / sum(by_node.values()) for node, seconds in by_node.items()}


def errors_of(seconds: float, slo: str) -> Truth:
    """Of the runs that were promised something, the share of those that broke it."""

    def truth(window: Window) -> Vector:
        counts = f"{names.RUN_DURATION.prometheus}_count"
        if slo == "availability":
            bad = total(window.rate(counts, seconds, outcome="error"), "pool", "run")
            all_runs = total(window.rate(counts, seconds, outcome=_ran), "pool", "run")
            ratios = quotient({one: bad.get(one, 0.0) for one in all_runs}, all_runs)
        else:
            all_runs = total(window.rate(counts, seconds, outcome="success"), "pool", "run")
            bound = str(float(OBJECTIVE.latency_seconds or 0))
            bucket = f"{names.RUN_DURATION.prometheus}_bucket"
            good = total(window.rate(bucket, seconds, outcome="success", le=bound), "pool", "run")
            ratios = {one: 1 - ratio for one, ratio in quotient(good, all_runs).items()}
        return {one | labels(slo=slo): ratio for one, ratio in ratios.items()}

    return truth


def _both(seconds: float, change: Callable[[float, float], float]) -> Truth:
    """`change` of each share of broken promises and of the budget, for both kinds of promise."""

    def truth(window: Window) -> Vector:
        return {
            one: change(ratio, budget)
            for slo, budget in BUDGETS.items()
            for one, ratio in values_of(errors_of(seconds, slo)(window)).items()
        }

    return truth


def _ran(outcome: str) -> bool:
    return outcome in ("success", "error")


def _of_every_run(value: float) -> Truth:
    def truth(window: Window) -> Vector:
        counts = total(window.value(f"{names.RUN_DURATION.prometheus}_count"), "pool", "run")
        return dict.fromkeys(counts, value)

    return truth


def _objectives(window: Window) -> Vector:
    runs = values_of(_of_every_run(1.0)(window))
    return {one | labels(slo=slo): 1 - budget for one in runs for slo, budget in BUDGETS.items()}


def _since_success(window: Window) -> Vector:
    last: Vector = {}  # of whichever process
    for one, value in window.value(names.RUN_LAST_SUCCESS.prometheus).items():
        run = frozenset(x for x in one if x[0] in ("pool", "run"))
        last[run] = max(value, last.get(run, 0.0))
    return {run: window.at - value for run, value in last.items()}


def _attribution(window: Window) -> Vector:
    shown = window.value(names.ATTRIBUTION.prometheus)
    return dict(Counter(frozenset(x for x in one if x[0] in ("method", "reason") and x[1]) for one in shown))


BUDGETS = {
    "availability": float(100 - OBJECTIVE.availability) / 100,
    "latency": float(100 - OBJECTIVE.latency) / 100,
}
HOUR = 3600.0
WINDOWS = {"5m": 300.0, "30m": 1800.0, "1h": HOUR, "2h": 2 * HOUR, "6h": 6 * HOUR, "1d": 24 * HOUR, "3d": 72 * HOUR}
_BUSY, _LIMIT = _page(names.ACTIVE_WORKERS, *_LANE), _page(names.MAX_WORKERS, *_LANE)
_EXECUTIONS = _increase(f"{names.NODE_DURATION.prometheus}_count", "node", seconds=RANGE_SECONDS)
_NODE_SECONDS = _increase(f"{names.NODE_DURATION.prometheus}_sum", "node", seconds=RANGE_SECONDS)


def _node_error_ratio(window: Window) -> Vector:
    ran = total(window.rate(names.NODES.prometheus, RATE_SECONDS, outcome=_ran), "pool")
    failed = total(window.rate(names.NODES.prometheus, RATE_SECONDS, outcome="error"), "pool")
    return quotient({pool: failed.get(pool, 0.0) for pool in ran}, ran)


TRUTHS: dict[str, Truth] = {
    "pool_saturation": divided(_BUSY, _LIMIT),
    "pool_active_workers": _BUSY,
    "pool_worker_threads": _page(names.WORKERS, *_LANE),
    "pool_worker_limit": _LIMIT,
    "pool_mean_running": rate_of(f"{names.NODE_DURATION.prometheus}_sum", "pool"),
    "pool_queue_depth": _page(names.QUEUE_DEPTH, *_LANE),
    "pool_mean_queue_depth": rate_of(f"{names.QUEUE_WAIT.prometheus}_sum", *_LANE),
    "pool_blocked_nodes": _page(names.BLOCKED_NODES, *_LANE),
    "pool_oldest_queued": _oldest(names.OLDEST_QUEUED),
    "pool_stalled_nodes": _page(names.STALLED_NODES, "pool"),
    "pool_oldest_active": _oldest(names.OLDEST_ACTIVE),
    "pool_queue_wait_p50": quantile_of(0.5, names.QUEUE_WAIT, *_LANE),
    "pool_queue_wait_p95": quantile_of(0.95, names.QUEUE_WAIT, *_LANE),
    "pool_queue_wait_p99": quantile_of(0.99, names.QUEUE_WAIT, *_LANE),
    "pool_queue_wait_heatmap": _increase(f"{names.QUEUE_WAIT.prometheus}_bucket", "le"),
    "pool_nodes_per_second": rate_of(names.NODES.prometheus, "pool", "outcome"),
    "pool_node_error_ratio": _node_error_ratio,
    "pool_node_duration_p50": quantile_of(0.5, names.NODE_DURATION, "pool"),
    "pool_node_duration_p99": quantile_of(0.99, names.NODE_DURATION, "pool"),
    "pool_runs_active": _page(names.RUNS_ACTIVE, "pool", "run"),
    "telemetry_errors": rate_of(names.TELEMETRY_ERRORS.prometheus, "component"),
    "telemetry_spans_lost": rate_of(names.SPANS_LOST.prometheus, "stage"),
    "gil_wait": rate_of(names.GIL_PROBE_WAIT.prometheus, "job", "instance"),
    "pool_gil_share": divided(
        rate_of(names.NODE_TIME.prometheus, "pool", state="gil"), rate_of(names.NODE_TIME.prometheus, "pool")
    ),
    "attribution_method": _attribution,
    "node_rate": rate_of(names.NODES.prometheus, "node"),
    "node_outcomes": _positive(_increase(names.NODES.prometheus, "node", "outcome", outcome=lambda o: o != "success")),
    "node_duration_heatmap": _increase(f"{names.NODE_DURATION.prometheus}_bucket", "le"),
    "node_duration_p50": quantile_of(0.5, names.NODE_DURATION, "node"),
    "node_duration_p95": quantile_of(0.95, names.NODE_DURATION, "node"),
    "node_time_by_state": rate_of(names.NODE_TIME.prometheus, "state"),
    "node_states": _positive(_increase(names.NODE_TIME.prometheus, "node", "state", seconds=RANGE_SECONDS)),
    "node_critical_share": _critical_share,
    "node_critical_seconds": rate_of(names.CRITICAL_PATH_TIME.prometheus, "node"),
    "node_queued_behind": _positive(_increase(names.QUEUED_BEHIND.prometheus, "node", seconds=RANGE_SECONDS)),
    "node_queued": rate_of(names.NODE_QUEUE_TIME.prometheus, "node"),
    "node_slowest_mean": divided(_NODE_SECONDS, _positive(_EXECUTIONS)),
    "node_slowest_p95": quantile_of(0.95, names.NODE_DURATION, "node", seconds=RANGE_SECONDS),
    "node_slowest_total": _positive(_NODE_SECONDS),
    "node_executions": _positive(_EXECUTIONS),
    "node_most_variable": _ratio_of_quantiles,
    "slo_objective": _objectives,
    "slo_budget_left": _both(30 * 24 * HOUR, lambda ratio, budget: 1 - ratio / budget),
    "slo_achieved": _both(30 * 24 * HOUR, lambda ratio, _: 1 - ratio),
    **{
        f"slo_burn_{window}": _both(seconds, lambda ratio, budget: ratio / budget)
        for window, seconds in WINDOWS.items()
    },
    "slo_latency_bound": _of_every_run(OBJECTIVE.latency_seconds or 0),
    "slo_within_latency": lambda window: {
        one: ratio for one, ratio in _both(HOUR, lambda r, _: 1 - r)(window).items() if ("slo", "latency") in one
    },
    "slo_freshness_bound": _of_every_run(OBJECTIVE.fresh_seconds or 0),
    "run_rate": rate_of(f"{names.RUN_DURATION.prometheus}_count", "run", "outcome"),
    "run_duration_heatmap": _increase(f"{names.RUN_DURATION.prometheus}_bucket", "le"),
    "run_duration_p50": quantile_of(0.5, names.RUN_DURATION, "run", outcome="success"),
    "run_duration_p95": quantile_of(0.95, names.RUN_DURATION, "run", outcome="success"),
    "run_since_success": _since_success,
}
RECORDED = {name for name in TRUTHS if name.startswith("slo_")}
"""Queries that ask for what rules have recorded."""
ALERTS = "alerts_firing"
