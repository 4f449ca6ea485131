"""What a PromQL query names: series with their labels, and labels to aggregate and match by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import promql_parser

from traced_threadpool.model.records import OUTCOMES
from traced_threadpool.model.states import STATES
from traced_threadpool.telemetry import names

OF_SCRAPES = {"job", "instance"}
"""Labels that Prometheus adds."""

METRICS: Mapping[str, frozenset[str]] = {
    name: frozenset({*metric.labels, *more})
    for metric in names.METRICS
    for name, more in (
        [(f"{metric.prometheus}_{part}", {"le"} if part == "bucket" else set()) for part in ("bucket", "sum", "count")]
        if metric.kind == "histogram"
        else [(metric.prometheus, set())]
    )
}
"""Each series that is scraped, and the labels that it has."""

VALUES: Mapping[str, frozenset[str]] = {"outcome": frozenset(OUTCOMES), "state": frozenset(STATES)}
"""Labels that have few values, all known."""


def nodes(expr: Any) -> Iterator[Any]:
    """The expression and all its parts."""
    yield expr
    for part in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(expr, part, None)
        if inner is not None:
            yield from nodes(inner)
    for inner in getattr(expr, "args", None) or []:
        yield from nodes(inner)


def problems(query: str, recorded: Mapping[str, frozenset[str]]) -> list[str]:
    """Names in a query that nobody exports. `recorded`: names that rules make, with their labels."""
    known = {**METRICS, **recorded, "ALERTS": frozenset({"alertname", "alertstate", "severity", "pool", "run"})}
    found = []
    everywhere: set[str] = set(OF_SCRAPES)
    parts = list(nodes(promql_parser.parse(query)))
    for part in parts:
        if not isinstance(part, promql_parser.VectorSelector):
            continue
        if part.name not in known:
            found.append(f"no metric {part.name}")
            continue
        labels = known[part.name] | OF_SCRAPES
        everywhere |= labels
        for matcher in part.matchers.matchers:
            if matcher.name not in labels:
                found.append(f"{part.name} has no label {matcher.name}")
            if matcher.name in VALUES and not set(matcher.value.split("|")) <= VALUES[matcher.name]:
                found.append(f"{part.name} has no {matcher.name} {matcher.value}")
    for part in parts:
        modifier = getattr(part, "modifier", None)
        labels = getattr(modifier, "labels", None) or []
        found += [f"nothing here has the label {label}" for label in labels if label not in everywhere]
    return found
