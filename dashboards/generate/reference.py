"""The inventory into reference pages for those who write queries."""

from __future__ import annotations

import math
from typing import Final

from dashboards.generate.markdown import table
from traced_threadpool.model.records import OUTCOMES, RUN_OUTCOMES
from traced_threadpool.model.states import STATES
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.lost_spans import STAGES

_LABELS: Final = {
    "pool": "the adapter's `name=`, else its `thread_name_prefix`, else `default`",
    "node": "the node's name; `_other` beyond `Metrics(max_node_labels=)`. On the critical path also `_queue`, "
    "`_dependency`, `_outside`: waits between nodes",
    "run": f"the adapter's `run_name=`, else `{names.DEFAULT_RUN_NAME}`",
    "outcome": f"of nodes: {', '.join(f'`{each}`' for each in OUTCOMES)}; of runs: "
    f"{', '.join(f'`{each}`' for each in RUN_OUTCOMES)}",
    "backend": "where nodes run: `threads`, or the name of a [backend](backends.md)",
    "state": f"{', '.join(f'`{each}`' for each in STATES)} ([waits.md](waits.md))",
    "method": "how waits are told apart ([waits.md](waits.md))",
    "reason": "what that lacks, empty if nothing",
    "component": "the part of telemetry that failed",
    "stage": f"where spans were lost: {', '.join(f'`{each}`' for each in STAGES)} ([metrics-push.md](metrics-push.md))",
}
_MADE: Final = "<!-- Written by `make dashboards` from src/traced_threadpool/telemetry/names.py. -->"


def metrics_page() -> str:
    """`docs/metrics.md`."""
    labels = list(dict.fromkeys(label for metric in names.METRICS for label in metric.labels))
    parts = [
        _MADE,
        "# Metrics",
        "What is scraped from the registry. The OpenTelemetry name is for metrics that are pushed "
        "([metrics-push.md](metrics-push.md)); it has neither the unit nor `_total`. Histograms are `_bucket`, `_sum` "
        "and `_count`. No run id, trace id or value is ever a label.",
        table(
            ("metric", "kind", "labels", "meaning", "OpenTelemetry"),
            [
                (
                    f"`{metric.prometheus}`",
                    metric.kind,
                    ", ".join(metric.labels),
                    metric.description,
                    f"`{metric.otel}`" + (f", {metric.unit}" if metric.unit else ""),
                )
                for metric in names.METRICS
            ],
        ),
        "## Labels",
        table(("label", "is"), [(f"`{label}`", _LABELS[label]) for label in labels]),
        "## Bounds of the histograms",
        "In seconds; an adapter's argument sets others. An objective's latency must be one of them ([slo.md](slo.md)).",
        table(
            ("metric", "bounds"),
            [
                (f"`{metric.prometheus}`", ", ".join(f"{each:g}" for each in metric.buckets))
                for metric in names.METRICS
                if metric.buckets
            ],
        ),
        "## Number of series",
        f"A node that always succeeds is {series_of_a_node()} series in each pool, and 1,000 such nodes are "
        f"{1_000 * series_of_a_node():,}:",
        table(
            ("metric", "series for a node"),
            [(f"`{metric.prometheus}`", str(_series(metric))) for metric in names.METRICS if "node" in metric.labels],
        ),
        f"A node that has failed as well has {_series(names.NODE_DURATION)} more, of its other duration histogram. "
        f"A pool has about {_series_of_a_pool()} of its own. `Metrics(max_node_labels=)`, 1,000 by default, bounds "
        "the number of nodes; fewer `node_duration_buckets` make each of them cheaper.",
        "## Two rates worth knowing",
        f"`rate({names.QUEUE_WAIT.prometheus}_sum[5m])` is the mean number of nodes in the queue, and\n"
        f"`rate({names.NODE_DURATION.prometheus}_sum[5m])` the mean number at work: what nodes spend waiting or\n"
        "working in a second, counted when they start and end. The gauges are glances at the moment of the scrape.",
        "The runs' histogram is there, at 0, for each outcome from when the adapter is made: to Prometheus, a counter\n"
        "that appears with its first failure has not risen.",
    ]
    return "\n\n".join(parts) + "\n"


def series_of_a_node() -> int:
    """How many series a node has that always succeeds, in one pool and one run's name."""
    return sum(_series(metric) for metric in names.METRICS if "node" in metric.labels)


def _series_of_a_pool() -> int:
    per_outcome = len(RUN_OUTCOMES)
    return sum(
        _series(metric) * (per_outcome if metric is names.RUN_DURATION else 1)
        for metric in names.METRICS
        if "pool" in metric.labels and "node" not in metric.labels
    )


def _series(metric: names.Metric) -> int:
    """Of one node, or one pool: a histogram is its buckets with `+Inf`, `_sum` and `_count`."""
    if metric.kind == "histogram":
        return len(metric.buckets) + 3
    known = {"outcome": len(OUTCOMES), "state": len(STATES)}
    return math.prod(known.get(label, 1) for label in metric.labels)


def spans_page() -> str:
    """`docs/spans.md`."""
    parts = [
        _MADE,
        "# Spans",
        f"Instrumentation scope `{names.SCOPE}`. One span a run, named `{names.DEFAULT_RUN_NAME}` unless `run_name=` "
        "is given, and under it one span a node, named after the node, with a link to the span of each upstream node. "
        "Beside these a span `queued <node>` for each queue wait on the run's critical path of 1 ms or longer, linked "
        "to the span of the node that had the worker, 2 µs shorter than the wait at either end (before "
        "another such span: until 1 µs before that begins). Where a viewer of "
        "traces would shade other nodes for more than 1 % of the run, shorter waits have one too, and time in which no "
        "node was ready has a span `gap before <node>`. In a large run, steps of the path can share a span "
        "`path <first node> to <last>`. None of these counts as a node ([jaeger.md](jaeger.md)). "
        "Names only, never values.",
    ]
    for title, kinds in (
        ("The run's span", ("run", "both")),
        ("A node's span", ("node", "both")),
        ("A span of a wait on the critical path, which has `hamilton.run.id` besides", ("queue",)),
        ("A link to an upstream node's span", ("link",)),
    ):
        rows = [(f"`{each.key}`", each.type, each.description) for each in names.ATTRIBUTES if each.of in kinds]
        parts += [f"## {title}", table(("attribute", "type", "meaning"), rows)]
    parts.append(
        f"`<state>` is one of {', '.join(f'`{each}`' for each in STATES if each != 'cpu')} ([waits.md](waits.md)).\n"
        "Status is Unset on success and Error on the node that raised and on its run. A node that never ran is a span\n"
        "of 1 µs and no error, linked to what stopped it. The status's description is the exception's message; with\n"
        "`Tracing(record_exceptions=False)` there is none. Empty arrays are left out, and so is the tag `module`\n"
        "where `code.function.name` begins with it.\n\n"
        f"The schema URL of the scope is `{names.SCHEMA_URL}`. Where the SDK's limits cut a span\n"
        "(`OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT` and its like), the adapter's attributes are the last to go,\n"
        f"`{names.NODE_UPSTREAM}` names every upstream node, and `{names.ATTRIBUTES_CUT}` counts values cut short."
    )
    return "\n\n".join(parts) + "\n"
