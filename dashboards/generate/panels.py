"""Queries into panels: how each kind of panel looks, and the links that lead to traces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.generate.queries import Query
from traced_threadpool.model.states import TABLE
from traced_threadpool.telemetry import names

PROMETHEUS: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = timeseries.Panel | heatmap.Panel | stat.Panel | table.Panel | bargauge.Panel
Limits = Sequence[tuple[float | None, str]]
"""Colours from a value on; the first has none."""

GOOD: Final = "green"
WORRY: Final = "orange"
BAD: Final = "red"


def rising(worry: float, bad: float) -> Limits:
    """The more the worse."""
    return ((None, GOOD), (worry, WORRY), (bad, BAD))


def falling(bad: float, worry: float) -> Limits:
    """The less the worse."""
    return ((None, BAD), (bad, WORRY), (worry, GOOD))


STATE_COLOURS: Final[Mapping[str, str]] = {each.name: each.panel for each in TABLE}


def time_series(
    title: str,
    description: str,
    *queries: Query,
    limits: Limits = (),
    stacked: bool = False,
    lowest: float | None = 0,
    highest: float | None = None,
    links: Sequence[dashboard.DashboardLink] = (),
    colours: Mapping[str, str] | None = None,
    width: int = 12,
) -> timeseries.Panel:
    """Lines over time, in the unit of the first query; those in another have an axis on the right."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets(queries))
        .unit(queries[0].unit)
        .height(8)
        .span(width)
        .line_width(1)
        .fill_opacity(60 if stacked else 10)
        .show_points(common_models.VisibilityMode.AUTO)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if lowest is not None:
        panel.min(lowest)
    if highest is not None:
        panel.max(highest)
    for query, letter in zip(queries, _letters(len(queries)), strict=True):
        if query.unit != queries[0].unit:
            panel.override_by_query(letter, [_property("unit", query.unit), _property("custom.axisPlacement", "right")])
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if limits:
        panel.thresholds(_thresholds(limits)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    if links:
        panel.data_links(list(links))
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_property("color", {"mode": "fixed", "fixedColor": colour})])
    return panel


def heat_map(title: str, description: str, query: Query, *, width: int = 12) -> heatmap.Panel:
    """A histogram over time, with exemplars on it."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets([query]))
        .unit(query.unit)
        .height(9)
        .span(width)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .fill("dark-orange")
            .steps(64)
            .reverse(False)
        )
        .cell_gap(1)
        .cell_values(heatmap.CellValues().unit("short"))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(common_models.HeatmapCellLayout.AUTO))
        .show_value(common_models.VisibilityMode.NEVER)
        .y_axis(heatmap.YAxisConfig().unit(query.unit).axis_placement(common_models.AxisPlacement.LEFT).reverse(False))
        .mode(common_models.TooltipDisplayMode.SINGLE)
        .show_y_histogram()
        .show_legend()
        .exemplars_color("rgba(255,0,255,0.7)")
    )


def number(title: str, description: str, query: Query, *, limits: Limits, width: int = 4) -> stat.Panel:
    """One figure for each series, as it is now."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets([query]))
        .unit(query.unit)
        .height(5)
        .span(width)
        .thresholds(_thresholds(limits))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.NONE if query.instant else common_models.BigValueGraphMode.AREA)
        .text_mode(common_models.BigValueTextMode.AUTO)
        .justify_mode(common_models.BigValueJustifyMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )


def bars(
    title: str,
    description: str,
    query: Query,
    *,
    limits: Limits,
    highest: float | None = None,
    links: Sequence[dashboard.DashboardLink] = (),
    width: int = 12,
    height: int = 9,
) -> bargauge.Panel:
    """A bar for each series, as it is now."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets([query]))
        .unit(query.unit)
        .min(0)
        .height(height)
        .span(width)
        .thresholds(_thresholds(limits))
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .value_mode(common_models.BarGaugeValueMode.COLOR)
        .show_unfilled(True)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )
    if highest is not None:
        panel.max(highest)
    if links:
        panel.data_links(list(links))
    return panel


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: a query, or a label."""

    title: str
    query: Query | None = None
    label: str = ""
    links: Sequence[dashboard.DashboardLink] = ()


def rows(title: str, description: str, *columns: Column, sorted_by: str, width: int = 24) -> table.Panel:
    """A table with a row for each set of labels."""
    queries = [column.query for column in columns if column.query is not None]
    values = [f"Value #{letter}" for letter in _letters(len(queries))] if len(queries) > 1 else ["Value"]
    remaining = iter(values)
    fields = [column.label if column.query is None else next(remaining) for column in columns]
    organized = {
        "excludeByName": {"Time": True},
        "indexByName": {field: index for index, field in enumerate(fields)},
        "renameByName": {field: column.title for field, column in zip(fields, columns, strict=True)},
    }
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets(queries))
        .height(9)
        .span(width)
        .show_header(True)
        .cell_options(common_models.TableAutoCellOptions())
        .filterable(True)
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(models.DataTransformerConfig(id_val="organize", options=organized))
        .sort_by([common.TableSortByFieldState().display_name(sorted_by).desc(True)])
    )
    for column in columns:
        properties = []
        if column.query is not None:
            properties.append(_property("unit", column.query.unit))
        if column.links:
            properties.append(_property("links", [_as_json(link) for link in column.links]))
        if properties:
            panel.override_by_name(column.title, properties)
    return panel


# Traces


def trace_links(node: str) -> list[dashboard.DashboardLink]:
    """Links that open the spans of one node. `node` is Grafana's expression for its name."""
    in_jaeger = {"queryType": "search", "service": "${service}", "operation": node}
    condition = f'{{ resource.service.name =~ "${{service}}" && span.{names.NODE_NAME} = "{node}" }}'
    in_tempo = {"queryType": "traceql", "query": condition, "limit": 20}
    return [
        _link("Its spans in Jaeger", _explore("jaeger", in_jaeger)),
        _link("Its spans in Tempo", _explore("tempo", in_tempo)),
    ]


OF_SERIES: Final = "${__field.labels.node}"
OF_ROW: Final = "${__data.fields.node}"


def _explore(kind: str, query: Mapping[str, Any]) -> str:
    source = f"${{{kind}}}"
    pane = {
        "datasource": source,
        "queries": [{"refId": "A", "datasource": {"type": kind, "uid": source}, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    # Grafana looks for its variables in the address as it stands: braces and dollars of variables stay what they are.
    return "/explore?schemaVersion=1&orgId=1&panes=" + quote(json.dumps({"traces": pane}), safe="${}._:,")


def _link(title: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).url(url).target_blank(True)


def _as_json(link: dashboard.DashboardLink) -> dict[str, Any]:
    built = link.build()
    return {"title": built.title, "url": built.url, "targetBlank": built.target_blank}


# Parts


def _letters(count: int) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]


def _targets(queries: Sequence[Query]) -> list[Any]:
    return [_target(query, letter) for query, letter in zip(queries, _letters(len(queries)), strict=True)]


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .datasource(PROMETHEUS)
        .ref_id(ref_id)
        .expr(query.expr)
        .legend_format(query.legend)
        .format(PromQueryFormat(query.format))
        .editor_mode(prometheus_models.QueryEditorMode.CODE)
        .exemplar(query.exemplar)
    )
    return target.instant() if query.instant else target.range()


def _thresholds(limits: Limits) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=value, color=colour) for value, colour in limits]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _property(name: str, value: Any) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)
