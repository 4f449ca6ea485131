"""Every query of every panel, as data: a name, PromQL with Grafana's variables in it, and what its result is.

Metric names come from the package's inventory, through the f-string's `{...}`. Variables of the dashboards stay as they
are (`$pool`, `$run`, `$node`, `$__rate_interval`, `$__range`); `concrete` puts values in their place:

>>> concrete(QUEUE_DEPTH, pool="etl")
'sum by (pool, backend) (hamilton_threadpool_queue_depth{pool=~"etl"})'

Two facts that several queries rest on: the rate of the sum of waits is the mean number of those who wait, and the rate
of the sum of durations is the mean number of those at work (Little's law). Both are exact where a gauge is a glance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from traced_threadpool.slo import burn_rate
from traced_threadpool.telemetry import names

Format = Literal["time_series", "heatmap", "table"]
Unit = Literal["short", "s", "ops", "percentunit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """`unit` is Grafana's name of what the result measures. `needs` names rules files that must be loaded.

    `exemplar` asks for exemplars too, of which Grafana takes those of a panel's first query of a metric alone.
    """

    name: str
    expr: str
    legend: str = ""
    unit: Unit
    format: Format = "time_series"
    exemplar: bool = False
    instant: bool = False
    needs: Literal["", "slo"] = ""


def concrete(
    query: Query,
    *,
    pool: str = ".+",
    run: str = ".+",
    node: str = ".+",
    rate_interval: str = "5m",
    range: str = "1h",
) -> str:
    """The PromQL that Grafana would send: `pool`, `run` and `node` are regular expressions, the others durations."""
    expr = query.expr
    values = {"__rate_interval": rate_interval, "__range": range, "pool": pool, "run": run, "node": node}
    for variable, value in values.items():
        expr = expr.replace(f"${variable}", value)
    return expr


_POOL: Final = 'pool=~"$pool"'
_NODE: Final = 'pool=~"$pool", node=~"$node"'
_RUN: Final = 'pool=~"$pool", run=~"$run"'
_RATE: Final = "[$__rate_interval]"

_busy: Final = f"sum by (pool, backend) ({names.ACTIVE_WORKERS.prometheus}{{{_POOL}}})"
_limit: Final = f"sum by (pool, backend) ({names.MAX_WORKERS.prometheus}{{{_POOL}}})"
_wait_bucket: Final = f"{names.QUEUE_WAIT.prometheus}_bucket{{{_POOL}}}{_RATE}"
_ran: Final = f'{names.NODES.prometheus}{{{_POOL}, outcome=~"success|error"}}'
_node_seconds: Final = f"{names.NODE_DURATION.prometheus}_sum"
_node_bucket: Final = f"{names.NODE_DURATION.prometheus}_bucket"
_node_count: Final = f"{names.NODE_DURATION.prometheus}_count"


def _quantile(quantile: str, by: str, bucket: str) -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({bucket})))"


# Pools: utilization

SATURATION = Query(
    name="pool_saturation",
    expr=f"{_busy} / {_limit}",
    legend="{{pool}} {{backend}}",
    unit="percentunit",
)
ACTIVE_WORKERS = Query(name="pool_active_workers", expr=_busy, legend="{{pool}} {{backend}} busy", unit="short")
WORKER_THREADS = Query(
    name="pool_worker_threads",
    expr=f"sum by (pool, backend) ({names.WORKERS.prometheus}{{{_POOL}}})",
    legend="{{pool}} {{backend}} alive",
    unit="short",
)
WORKER_LIMIT = Query(name="pool_worker_limit", expr=_limit, legend="{{pool}} {{backend}} limit", unit="short")
MEAN_RUNNING = Query(
    name="pool_mean_running",
    expr=f"sum by (pool) (rate({_node_seconds}{{{_POOL}}}{_RATE}))",
    legend="{{pool}} mean",
    unit="short",
)

# Pools: saturation

QUEUE_DEPTH = Query(
    name="pool_queue_depth",
    expr=f"sum by (pool, backend) ({names.QUEUE_DEPTH.prometheus}{{{_POOL}}})",
    legend="{{pool}} {{backend}} now",
    unit="short",
)
MEAN_QUEUE_DEPTH = Query(
    name="pool_mean_queue_depth",
    expr=f"sum by (pool, backend) (rate({names.QUEUE_WAIT.prometheus}_sum{{{_POOL}}}{_RATE}))",
    legend="{{pool}} {{backend}} mean",
    unit="short",
)
BLOCKED_NODES = Query(
    name="pool_blocked_nodes",
    expr=f"sum by (pool, backend) ({names.BLOCKED_NODES.prometheus}{{{_POOL}}})",
    legend="{{pool}} {{backend}}",
    unit="short",
)
OLDEST_QUEUED = Query(
    name="pool_oldest_queued",
    expr=f"max by (pool, backend) ({names.OLDEST_QUEUED.prometheus}{{{_POOL}}})",
    legend="{{pool}} {{backend}} queued",
    unit="s",
)
STALLED_NODES = Query(
    name="pool_stalled_nodes",
    expr=f"sum by (pool) ({names.STALLED_NODES.prometheus}{{{_POOL}}})",
    legend="{{pool}}",
    unit="short",
)
OLDEST_ACTIVE = Query(
    name="pool_oldest_active",
    expr=f"max by (pool, backend) ({names.OLDEST_ACTIVE.prometheus}{{{_POOL}}})",
    legend="{{pool}} {{backend}} running",
    unit="s",
)
QUEUE_WAIT_P50 = Query(
    name="pool_queue_wait_p50",
    expr=_quantile("0.5", "pool, backend", _wait_bucket),
    legend="{{pool}} {{backend}} p50",
    unit="s",
    exemplar=True,
)
QUEUE_WAIT_P95 = Query(
    name="pool_queue_wait_p95",
    expr=_quantile("0.95", "pool, backend", _wait_bucket),
    legend="{{pool}} {{backend}} p95",
    unit="s",
)
QUEUE_WAIT_P99 = Query(
    name="pool_queue_wait_p99",
    expr=_quantile("0.99", "pool, backend", _wait_bucket),
    legend="{{pool}} {{backend}} p99",
    unit="s",
)
QUEUE_WAIT_HEATMAP = Query(
    name="pool_queue_wait_heatmap",
    expr=f"sum by (le) (increase({_wait_bucket}))",
    legend="{{le}}",
    unit="s",
    format="heatmap",
    exemplar=True,
)

# Pools: errors; rate, errors, duration

NODES_PER_SECOND = Query(
    name="pool_nodes_per_second",
    expr=f"sum by (pool, outcome) (rate({names.NODES.prometheus}{{{_POOL}}}{_RATE}))",
    legend="{{pool}} {{outcome}}",
    unit="ops",
)
NODE_ERROR_RATIO = Query(
    name="pool_node_error_ratio",
    expr=(
        f'(\n  sum by (pool) (rate({names.NODES.prometheus}{{{_POOL}, outcome="error"}}{_RATE}))\n  or\n'
        f"  0 * sum by (pool) (rate({_ran}{_RATE}))\n)\n/\nsum by (pool) (rate({_ran}{_RATE}))"
    ),
    legend="{{pool}}",
    unit="percentunit",
)
POOL_NODE_DURATION_P50 = Query(
    name="pool_node_duration_p50",
    expr=_quantile("0.5", "pool", f"{_node_bucket}{{{_POOL}}}{_RATE}"),
    legend="{{pool}} p50",
    unit="s",
    exemplar=True,
)
POOL_NODE_DURATION_P99 = Query(
    name="pool_node_duration_p99",
    expr=_quantile("0.99", "pool", f"{_node_bucket}{{{_POOL}}}{_RATE}"),
    legend="{{pool}} p99",
    unit="s",
)
RUNS_ACTIVE = Query(
    name="pool_runs_active",
    expr=f"sum by (pool, run) ({names.RUNS_ACTIVE.prometheus}{{{_RUN}}})",
    legend="{{run}} on {{pool}}",
    unit="short",
)
TELEMETRY_ERRORS = Query(
    name="telemetry_errors",
    expr=f"sum by (component) (rate({names.TELEMETRY_ERRORS.prometheus}{_RATE}))",
    legend="{{component}}",
    unit="ops",
)
SPANS_LOST = Query(
    name="telemetry_spans_lost",
    expr=f"sum by (stage) (rate({names.SPANS_LOST.prometheus}{_RATE}))",
    legend="spans lost: {{stage}}",
    unit="ops",
)

# Pools: the GIL

GIL_PROBE_WAIT = Query(
    name="gil_wait",
    expr=f"sum by (job, instance) (rate({names.GIL_PROBE_WAIT.prometheus}{_RATE}))",
    legend="{{job}} {{instance}}",
    unit="percentunit",
)
GIL_SHARE = Query(
    name="pool_gil_share",
    expr=(
        f'sum by (pool) (rate({names.NODE_TIME.prometheus}{{{_POOL}, state="gil"}}{_RATE}))\n'
        f"/\nsum by (pool) (rate({names.NODE_TIME.prometheus}{{{_POOL}}}{_RATE}))"
    ),
    legend="{{pool}}",
    unit="percentunit",
)
ATTRIBUTION = Query(
    name="attribution_method",
    expr=f"count by (method, reason) ({names.ATTRIBUTION.prometheus})",
    legend="{{method}} {{reason}}",
    unit="short",
    format="table",
    instant=True,
)

# Nodes: rate, errors, duration

NODE_RATE = Query(
    name="node_rate",
    expr=f"topk(20, sum by (node) (rate({names.NODES.prometheus}{{{_NODE}}}{_RATE})))",
    legend="{{node}}",
    unit="ops",
)
NODE_OUTCOMES = Query(
    name="node_outcomes",
    expr=f'sum by (node, outcome) (increase({names.NODES.prometheus}{{{_NODE}, outcome!="success"}}{_RATE})) > 0',
    legend="{{node}} {{outcome}}",
    unit="short",
)
NODE_DURATION_HEATMAP = Query(
    name="node_duration_heatmap",
    expr=f"sum by (le) (increase({_node_bucket}{{{_NODE}}}{_RATE}))",
    legend="{{le}}",
    unit="s",
    format="heatmap",
    exemplar=True,
)
NODE_DURATION_P50 = Query(
    name="node_duration_p50",
    expr=f"topk(20, {_quantile('0.5', 'node', f'{_node_bucket}{{{_NODE}}}{_RATE}')})",
    legend="{{node}} p50",
    unit="s",
)
NODE_DURATION_P95 = Query(
    name="node_duration_p95",
    expr=f"topk(20, {_quantile('0.95', 'node', f'{_node_bucket}{{{_NODE}}}{_RATE}')})",
    legend="{{node}}",
    unit="s",
    exemplar=True,
)

# Nodes: where their time goes

TIME_BY_STATE = Query(
    name="node_time_by_state",
    expr=f"sum by (state) (rate({names.NODE_TIME.prometheus}{{{_NODE}}}{_RATE}))",
    legend="{{state}}",
    unit="short",
)
NODE_STATES = Query(
    name="node_states",
    expr=f"topk(30, sum by (node, state) (increase({names.NODE_TIME.prometheus}{{{_NODE}}}[$__range])) > 0)",
    legend="{{node}} {{state}}",
    unit="s",
    format="table",
    instant=True,
)

# Nodes: what governs the runs' duration

CRITICAL_SHARE = Query(
    name="node_critical_share",
    expr=(
        f"topk(15, sum by (node) (increase({names.CRITICAL_PATH_TIME.prometheus}{{{_RUN}}}[$__range]))\n"
        f"/ on () group_left ()\nsum (increase({names.CRITICAL_PATH_TIME.prometheus}{{{_RUN}}}[$__range])))"
    ),
    legend="{{node}}",
    unit="percentunit",
    instant=True,
)
CRITICAL_SECONDS = Query(
    name="node_critical_seconds",
    expr=f'topk(15, sum by (node) (rate({names.CRITICAL_PATH_TIME.prometheus}{{{_RUN}, node=~"$node|_.*"}}{_RATE})))',
    legend="{{node}}",
    unit="short",
)

QUEUED_BEHIND = Query(
    name="node_queued_behind",
    expr=f"topk(15, sum by (node) (increase({names.QUEUED_BEHIND.prometheus}{{{_RUN}}}[$__range])) > 0)",
    legend="{{node}}",
    unit="s",
    instant=True,
)
NODE_QUEUED = Query(
    name="node_queued",
    expr=f"topk(15, sum by (node) (rate({names.NODE_QUEUE_TIME.prometheus}{{{_NODE}}}{_RATE})))",
    legend="{{node}}",
    unit="short",
)

# Nodes: slowest and most variable, over the time range that is shown

_range_bucket: Final = f"{_node_bucket}{{{_NODE}}}[$__range]"
_executions: Final = f"sum by (node) (increase({_node_count}{{{_NODE}}}[$__range]))"
SLOWEST_MEAN = Query(
    name="node_slowest_mean",
    expr=f"sum by (node) (increase({_node_seconds}{{{_NODE}}}[$__range]))\n/\n({_executions} > 0)",
    legend="{{node}}",
    unit="s",
    format="table",
    instant=True,
)
SLOWEST_P95 = Query(
    name="node_slowest_p95",
    expr=_quantile("0.95", "node", _range_bucket),
    legend="{{node}}",
    unit="s",
    format="table",
    instant=True,
)
SLOWEST_TOTAL = Query(
    name="node_slowest_total",
    expr=f"sum by (node) (increase({_node_seconds}{{{_NODE}}}[$__range])) > 0",
    legend="{{node}}",
    unit="s",
    format="table",
    instant=True,
)
SLOWEST_EXECUTIONS = Query(
    name="node_executions",
    expr=f"{_executions} > 0",
    legend="{{node}}",
    unit="short",
    format="table",
    instant=True,
)
MOST_VARIABLE = Query(
    name="node_most_variable",
    expr=f"topk(15, {_quantile('0.99', 'node', _range_bucket)}\n/\n{_quantile('0.5', 'node', _range_bucket)})",
    legend="{{node}}",
    unit="short",
    instant=True,
)

# SLO


def _recorded(name: str, slo: str = "") -> str:
    return f"{name}{{{_RUN}" + (f', slo="{slo}"' if slo else "") + "}"


def _slo(
    name: str, expr: str, unit: Unit, legend: str = "{{run}} on {{pool}}, {{slo}}", *, instant: bool = False
) -> Query:
    return Query(name=name, expr=expr, legend=legend, unit=unit, instant=instant, needs="slo")


OBJECTIVE = _slo("slo_objective", f"1 - {_recorded(burn_rate.BUDGET)}", "percentunit")
BUDGET_LEFT = _slo("slo_budget_left", _recorded(burn_rate.BUDGET_LEFT), "percentunit")
ACHIEVED = _slo("slo_achieved", f"1 - {_recorded(burn_rate.ERRORS + burn_rate.PERIOD)}", "percentunit")
BURN = {
    window: _slo(
        f"slo_burn_{window}",
        f"{_recorded(burn_rate.ERRORS + window)}\n/\n{_recorded(burn_rate.BUDGET)}",
        "short",
        f"{{{{run}}}} on {{{{pool}}}}, {{{{slo}}}} {window}",
    )
    for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
}
LATENCY_BOUND = _slo("slo_latency_bound", _recorded(burn_rate.LATENCY_BOUND), "s", "{{run}} on {{pool}}")
WITHIN_LATENCY = _slo(
    "slo_within_latency",
    f"1 - {_recorded(burn_rate.ERRORS + '1h', 'latency')}",
    "percentunit",
    "{{run}} on {{pool}}, last hour",
)
FRESHNESS_BOUND = _slo("slo_freshness_bound", _recorded(burn_rate.FRESHNESS_BOUND), "s", "{{run}} on {{pool}}, allowed")
RUN_RATE = Query(
    name="run_rate",
    expr=f"sum by (run, outcome) (rate({names.RUN_DURATION.prometheus}_count{{{_RUN}}}{_RATE}))",
    legend="{{run}} {{outcome}}",
    unit="ops",
)
RUN_DURATION_HEATMAP = Query(
    name="run_duration_heatmap",
    expr=f"sum by (le) (increase({names.RUN_DURATION.prometheus}_bucket{{{_RUN}}}{_RATE}))",
    legend="{{le}}",
    unit="s",
    format="heatmap",
    exemplar=True,
)
RUN_DURATION_P50 = Query(
    name="run_duration_p50",
    expr=_quantile("0.5", "run", f'{names.RUN_DURATION.prometheus}_bucket{{{_RUN}, outcome="success"}}{_RATE}'),
    legend="{{run}} p50",
    unit="s",
    exemplar=True,
)
RUN_DURATION_P95 = Query(
    name="run_duration_p95",
    expr=_quantile("0.95", "run", f'{names.RUN_DURATION.prometheus}_bucket{{{_RUN}, outcome="success"}}{_RATE}'),
    legend="{{run}} p95",
    unit="s",
)
SINCE_SUCCESS = Query(
    name="run_since_success",
    expr=f"time() - max by (pool, run) (last_over_time({names.RUN_LAST_SUCCESS.prometheus}{{{_RUN}}}[7d]))",
    legend="{{run}} on {{pool}}",
    unit="s",
)
FIRING = Query(
    name="alerts_firing",
    expr='sum by (alertname, severity, pool, run) (ALERTS{alertname=~"Hamilton.+", alertstate="firing"})',
    legend="{{alertname}} {{severity}} {{pool}} {{run}}",
    unit="short",
    format="table",
    instant=True,
)

# Variables of the dashboards

POOLS = f"label_values({names.QUEUE_WAIT.prometheus}_count, pool)"  # outlives its adapters, as the gauges do not
RUNS = f"label_values({names.RUN_DURATION.prometheus}_count{{{_POOL}}}, run)"
NODES = f"label_values({names.NODES.prometheus}{{{_POOL}}}, node)"

ALL: Final[dict[str, Query]] = {
    query.name: query
    for value in list(globals().values())
    for query in (value.values() if isinstance(value, dict) and value is not globals() else [value])
    if isinstance(query, Query)
}
"""By name."""
