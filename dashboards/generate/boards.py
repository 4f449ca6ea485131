"""What the three dashboards have in common: variables, links to each other, marks for alerts, and the JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.generate import queries
from dashboards.generate.check_grafana import NEEDED
from dashboards.generate.panels import PROMETHEUS, Panel

GRAFANA: Final = NEEDED

TAG: Final = "hamilton"
_PANEL_NAMES: Final = {
    "bargauge": "Bar gauge",
    "heatmap": "Heatmap",
    "stat": "Stat",
    "table": "Table",
    "timeseries": "Time series",
}

Row = tuple[str, Sequence[Panel]]


def board(*, uid: str, title: str, description: str, variables: Sequence[str], rows: Sequence[Row], since: str) -> str:
    """The JSON of a dashboard. `since` is the time range to begin with."""
    builder = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(f"{description} Made for Grafana {GRAFANA}; older releases may leave out what they do not know.")
        .tags([TAG])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("30s")
        .timezone("browser")
        .variables([_VARIABLES[name] for name in variables])
        .link(
            dashboard.DashboardLink("Hamilton")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    number = 0
    for row_title, panels in rows:
        number += 1
        builder.with_row(dashboard.Row(row_title).id(number))
        for panel in panels:
            number += 1
            builder.with_panel(panel.id(number))
    built: dict[str, Any] = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    _leave_out_what_is_not_grafanas(built)
    kinds = sorted({panel["type"] for panel in built["panels"]} - {"row"})
    requires = [
        {"type": "grafana", "id": "grafana", "name": "Grafana", "version": GRAFANA},
        {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
        *({"type": "panel", "id": kind, "name": _PANEL_NAMES[kind], "version": ""} for kind in kinds),
    ]
    return json.dumps({"__requires": requires, **built}, indent=2, ensure_ascii=False) + "\n"


def _leave_out_what_is_not_grafanas(built: dict[str, Any]) -> None:
    """The SDK writes fields of interval variables into all variables, and data links as links between dashboards."""
    for variable in built["templating"]["list"]:
        for field in ("auto", "auto_count", "auto_min"):
            variable.pop(field, None)
    for panel in built["panels"]:
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if "links" in defaults:
            defaults["links"] = [
                {field: link[field] for field in ("title", "url", "targetBlank")} for link in defaults["links"]
            ]


def _source(name: str, label: str, kind: str, description: str) -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable(name).label(label).type(kind).description(description)


def _values(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


_VARIABLES: Final = {
    "datasource": _source("datasource", "Prometheus", "prometheus", "Where the metrics are"),
    "jaeger": _source("jaeger", "Jaeger", "jaeger", "Where links to Jaeger lead"),
    "tempo": _source("tempo", "Tempo", "tempo", "Where links to Tempo lead"),
    "service": (
        dashboard.TextBoxVariable("service")
        .label("Service")
        .description("The service name of the traces, as given to setup_telemetry(service_name=)")
        .default_value("stdlib-survey")
    ),
    "pool": _values("pool", "Pool", queries.POOLS),
    "run": _values("run", "Run", queries.RUNS),
    "node": _values("node", "Node", queries.NODES),
}
