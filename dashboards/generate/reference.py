"""The inventory into reference pages for those who write queries."""

from __future__ import annotations

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
        "## Two rates worth knowing",
        f"`rate({names.QUEUE_WAIT.prometheus}_sum[5m])` is the mean number of nodes in the queue, and\n"
        f"`rate({names.NODE_DURATION.prometheus}_sum[5m])` the mean number at work: what nodes spend waiting or\n"
        "working in a second, counted when they start and end. The gauges are glances at the moment of the scrape.",
        "The runs' histogram is there, at 0, for each outcome from when the adapter is made: to Prometheus, a counter\n"
        "that appears with its first failure has not risen.",
    ]
    return "\n\n".join(parts) + "\n"


def spans_page() -> str:
    """`docs/spans.md`."""
    parts = [
        _MADE,
        "# Spans",
        f"Instrumentation scope `{names.SCOPE}`. One span a run, named `{names.DEFAULT_RUN_NAME}` unless `run_name=` "
        "is given, and under it one span a node, named after the node, with a link to the span of each upstream node. "
        "Names only, never values.",
    ]
    for title, kinds in (
        ("The run's span", ("run", "both")),
        ("A node's span", ("node", "both")),
        ("A link to an upstream node's span", ("link",)),
    ):
        rows = [(f"`{each.key}`", each.type, each.description) for each in names.ATTRIBUTES if each.of in kinds]
        parts += [f"## {title}", table(("attribute", "type", "meaning"), rows)]
    parts.append(
        f"`<state>` is one of {', '.join(f'`{each}`' for each in STATES if each != 'cpu')} ([waits.md](waits.md)).\n"
        "Status is Unset on success and Error on the node that raised and on its run. A node that never ran is a span\n"
        "of no length and no error, linked to what stopped it."
    )
    return "\n\n".join(parts) + "\n"
