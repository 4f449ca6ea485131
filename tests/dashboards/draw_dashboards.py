"""`python -m tests.dashboards.draw_dashboards docs/pictures`: the committed dashboards, drawn from a live Prometheus.

It runs `examples.as_a_service` under a real Prometheus for some minutes, asks the queries of every panel, and draws the
answers with the report's ECharts at the panels' places, in a real Chromium. It is not Grafana, and says so on each
picture: what is shown is what the queries give, and where.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from typing import Any

from playwright import sync_api as playwright

from dashboards.generate import rules
from dashboards.generate.queries import Query, concrete
from tests.dashboards.live_servers import Process, Prometheus
from tests.dashboards.live_world import ROOT, quick_rules

SECONDS = int(os.environ.get("SECONDS", "150"))
STEP = 2
WIDTH, ROW, GAP = 1320, 24, 6
ASSETS = ROOT / "src/traced_threadpool/report/assets"
SIGN = (
    "Drawn by tests/draw_dashboards.py from a live Prometheus' answers to the dashboard's queries. Not Grafana itself."
)
MOST = 9  # series in a panel, the largest first: a picture has no legend to scroll


class _Patient(Prometheus):
    """One that the examples, which keep all CPUs busy, can answer in time."""

    SCRAPE_SECONDS = 2.0


def main(target: Path) -> None:
    """Live, ask, draw."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        with _Patient(folder, quick_rules(folder, rules.THRESHOLDS, rules.EVERY_RUN)) as prometheus:
            words = ["--port", "0", "--every", "6", "--scale", "0.4", "--limit", "250", "--break-every", "5"]
            for example in ("survey", "gil_bound", "pool_starved", "slow_network"):
                words += ["--only", example]
            path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
            command = [sys.executable, "-m", "examples.as_a_service", *words]
            with Process(command, folder / "log", path) as service:
                url = service.wait_for(r"serving (\S+)\n")
                prometheus.scrape("pipeline", int(url.removesuffix("/metrics").rpartition(":")[2]))
                start = time.time()
                while time.time() < start + SECONDS:
                    service.check()
                    time.sleep(1)
                pages = {name: _page(prometheus, name, start) for name in ("pools", "nodes", "slo")}
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, text in pages.items():
            page = browser.new_page(viewport={"width": WIDTH + 2 * GAP, "height": 600})
            page.set_content(text)
            page.wait_for_function("window.drawn === true")
            page.screenshot(path=target / f"dashboard-{name}.jpg", type="jpeg", quality=72, full_page=True)
        browser.close()


def _page(prometheus: Prometheus, name: str, start: float) -> str:
    prometheus.settle("pipeline")
    dashboard = json.loads((ROOT / f"dashboards/{name}.json").read_text(encoding="utf-8"))
    end = time.time()
    panels = [_panel(prometheus, panel, start, end) for panel in dashboard["panels"]]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    look = (
        f"body{{margin:{GAP}px;font:12px system-ui,sans-serif;background:#f4f5f5;color:#24292e;position:relative}}"
        ".panel{position:absolute;background:#fff;border:1px solid #d8dadd;overflow:hidden;box-sizing:border-box}"
        ".panel h2{font-size:12px;margin:3px 6px;white-space:nowrap}.row{position:absolute;font-weight:600;padding:4px}"
        "table{border-collapse:collapse;width:100%}td,th{padding:1px 6px;text-align:left;white-space:nowrap}"
        ".big{font-size:13px;margin:3px 6px;display:flex}.big span{overflow:hidden;white-space:nowrap;flex:1}"
        ".big b{white-space:nowrap}"
        "h1{font-size:15px;margin:0;height:44px}h1 small{font-weight:normal;display:block;color:#57606a}"
    )
    return (
        f"<!doctype html><meta charset=utf-8><style>{look}</style><h1>{escape(dashboard['title'])}"
        f"<small>{escape(SIGN)}</small></h1><div style='position:relative;height:{bottom * (ROW + 2)}px'>"
        + "".join(_frame(panel, number) for number, panel in enumerate(panels))
        + f"</div><script>{(ASSETS / 'echarts.min.js').read_text(encoding='utf-8')}</script>"
        f"<script>const panels = {json.dumps(panels).replace('<', chr(92) + 'u003c')};{SCRIPT}</script>"
    )


def _frame(panel: dict[str, Any], number: int) -> str:
    at, unit = panel["at"], WIDTH / 24
    place = (
        f"left:{at['x'] * unit:.0f}px;top:{at['y'] * (ROW + 2)}px;"
        f"width:{at['w'] * unit - GAP:.0f}px;height:{at['h'] * (ROW + 2) - GAP}px"
    )
    if panel["type"] == "row":
        return f"<div class=row style='{place}'>{escape(panel['title'])}</div>"
    inside = f"<div id=p{number} style='width:100%;height:{at['h'] * (ROW + 2) - GAP - 24}px'></div>"
    if panel["type"] == "stat":
        inside = "".join(
            f"<div class=big><span>{escape(one)}</span><b>{escape(value)}</b></div>" for one, value in panel["values"]
        )
    elif panel["type"] == "table":
        head = "".join(f"<th>{escape(column)}</th>" for column in panel["head"])
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in panel["rows"])
        inside = f"<table><tr>{head}</tr>{rows}</table>"
    return f"<div class=panel style='{place}'><h2>{escape(panel['title'])}</h2>{inside}</div>"


def _panel(prometheus: Prometheus, panel: dict[str, Any], start: float, end: float) -> dict[str, Any]:
    """A panel and the answers to its queries, as far as they are drawn."""
    drawn: dict[str, Any] = {"type": panel["type"], "title": panel.get("title", ""), "at": panel["gridPos"]}
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
    if panel["type"] == "row":
        return drawn
    asked = [
        (target, concrete(Query(name="", expr=target["expr"], unit=""), rate_interval="20s", range=f"{SECONDS}s"))
        for target in panel["targets"]
    ]
    if panel["type"] == "table":
        return {**drawn, **_table(prometheus, asked, panel, end)}
    if panel["type"] in ("stat", "bargauge"):
        values = [
            (_legend(target["legendFormat"], dict(labels)), value)
            for target, expression in asked
            for labels, value in prometheus.query(expression, end).items()
            if not math.isnan(value)
        ]
        values.sort(key=lambda one: -one[1])
        rows = panel["gridPos"]["h"] - 1 if panel["type"] == "stat" else MOST
        return {**drawn, "unit": unit, "values": [(n, _text(v, unit)) for n, v in values[:rows]],
                "numbers": [v for _, v in values[:rows]]}  # fmt: skip
    right = {
        override["matcher"]["options"]: setting["value"]
        for override in panel["fieldConfig"]["overrides"]
        for setting in override["properties"]
        if override["matcher"]["id"] == "byFrameRefID" and setting["id"] == "unit"
    }
    series = [
        (
            _legend(target["legendFormat"], one["metric"]),
            [[float(t) * 1000, float(v)] for t, v in one["values"]],
            target["refId"] in right,
        )
        for target, expression in asked
        for one in prometheus.matrix(expression, start + 20, end, STEP)
    ]
    series = [(name, [point for point in points if not math.isnan(point[1])], at) for name, points, at in series]
    if panel["type"] == "heatmap":
        return {**drawn, **_heatmap([(name, points) for name, points, _ in series])}
    stacked = "stacking" in panel["fieldConfig"]["defaults"].get("custom", {})
    series.sort(key=lambda one: -max((value for _, value in one[1]), default=0))
    times = [(start + 20 + STEP * n) * 1000 for n in range(int((end - start - 20) / STEP) + 1)]
    shown = [(name, _with_gaps(points, times, 0.0 if stacked else None), at) for name, points, at in series[:MOST]]
    return {**drawn, "unit": unit, "right": next(iter(right.values()), None), "stacked": stacked, "series": shown}


def _with_gaps(points: list[list[float]], times: list[float], gap: float | None) -> list[tuple[float, float | None]]:
    """A value for each time; where there is none, a line is broken and a stack has nothing."""
    known = {round(time): value for time, value in points}
    return [(time, known.get(round(time), gap)) for time in times]


def _heatmap(series: list[tuple[str, list[list[float]]]]) -> dict[str, Any]:
    """Cumulative buckets into cells of their own."""
    by_bound = sorted(((float(name), dict(points)) for name, points in series), key=lambda one: one[0])
    times = sorted({time for _, points in by_bound for time in points})
    cells, below = [], dict.fromkeys(times, 0.0)
    for row, (_, points) in enumerate(by_bound):
        for column, moment in enumerate(times):
            count = points.get(moment, 0.0)
            if count - below[moment] > 1e-9:
                cells.append([column, row, round(count - below[moment], 3)])
            below[moment] = max(below[moment], count)
    return {"bounds": ["∞" if bound == math.inf else _text(bound, "s") for bound, _ in by_bound], "times": times,
            "cells": cells}  # fmt: skip


def _table(
    prometheus: Prometheus, asked: list[tuple[dict[str, Any], str]], panel: dict[str, Any], end: float
) -> dict[str, Any]:
    """The answers side by side, by their labels, the largest of the last column first."""
    answers = [prometheus.query(expression, end) for _, expression in asked]
    keys = sorted(set().union(*answers), key=lambda one: -_number(answers[-1].get(one)))
    columns = sorted({label for key in keys for label, _ in key})
    renamed = next((t["options"].get("renameByName", {}) for t in panel.get("transformations", ())
                    if t["id"] == "organize"), {})  # fmt: skip
    value_names = ["Value"] if len(asked) == 1 else [f"Value #{target['refId']}" for target, _ in asked]
    shown = keys[: (panel["gridPos"]["h"] * (ROW + 2) - 46) // 18]
    unit = "s" if "Mean" in renamed.values() or "Time" in renamed.values() else "short"
    units = ["short" if renamed.get(name) == "Executions" else unit for name in value_names]
    rows = [
        [*(dict(key).get(column, "") for column in columns),
         *(_text(_number(answer.get(key)), u) for answer, u in zip(answers, units, strict=True))]
        for key in shown
    ]  # fmt: skip
    return {"head": [renamed.get(name, name) for name in [*columns, *value_names]], "rows": rows}


def _number(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), form)


def _text(value: float, unit: str) -> str:
    """A number as people read it.

    >>> _text(0.25, "percentunit"), _text(0.0123, "s"), _text(7200, "s"), _text(3, "short")
    ('25 %', '12.3 ms', '2 h', '3')
    """
    if unit == "percentunit":
        return f"{value * 100:.3g} %" if abs(value) < 10 else f"{value * 100:,.0f} %"
    if unit == "s":
        for limit, size, sign in ((1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min")):
            if abs(value) < limit:
                return f"{value / size:.3g} {sign}"
        return f"{value / 3600:.3g} h"
    return f"{value:.3g}" + ("/s" if unit == "ops" else "")


SCRIPT = """
const time = t => new Date(t).toISOString().slice(14, 19);
const number = (value, unit) => unit === 'percentunit' ? Math.round(value * 1000) / 10 + ' %'
  : unit === 's' ? (value >= 1 || value === 0 ? +value.toPrecision(3) + ' s' : +(value * 1000).toPrecision(3) + ' ms')
  : String(+value.toPrecision(3));
panels.forEach((panel, index) => {
  const place = document.getElementById('p' + index);
  if (!place) return;
  const base = {animation: false, grid: {left: 56, right: 12, top: 8, bottom: 22}};
  let options;
  if (panel.type === 'timeseries') {
    options = {...base, grid: {...base.grid, right: panel.right ? 200 : 160},
      legend: {type: 'plain', orient: 'vertical', right: 4, top: 4, itemWidth: 12, itemHeight: 8, itemGap: 3,
        textStyle: {fontSize: 10, width: 130, overflow: 'truncate'}},
      xAxis: {type: 'time', axisLabel: {formatter: time, fontSize: 10, hideOverlap: true}},
      yAxis: [panel.unit, panel.right].filter(unit => unit).map(unit => ({type: 'value',
        min: range => Math.min(0, range.min), axisLabel: {fontSize: 10, formatter: value => number(value, unit)}})),
      series: panel.series.map(([name, data, right]) => ({name, data, yAxisIndex: +right, type: 'line',
        showSymbol: false,
        stack: panel.stacked ? 'all' : undefined, areaStyle: panel.stacked ? {opacity: .6} : undefined,
        lineStyle: {width: panel.stacked ? 0.5 : 1.5}}))};
  } else if (panel.type === 'heatmap') {
    options = {...base, xAxis: {type: 'category', data: panel.times.map(time), axisLabel: {fontSize: 10}},
      yAxis: {type: 'category', data: panel.bounds, axisLabel: {fontSize: 10}},
      visualMap: {show: false, min: 0, max: Math.max(1, ...panel.cells.map(cell => cell[2])) / 2,
        inRange: {color: ['#fff1e0', '#f39c3d', '#7f2704']}},
      series: [{type: 'heatmap', data: panel.cells}]};
  } else {
    options = {...base, grid: {left: 150, right: 60, top: 4, bottom: 4},
      xAxis: {type: 'value', show: false},
      yAxis: {type: 'category', inverse: true, data: panel.values.map(one => one[0]), axisTick: {show: false},
        axisLabel: {fontSize: 10, width: 140, overflow: 'truncate'}},
      series: [{type: 'bar', barCategoryGap: '25%', data: panel.numbers.map((value, i) => ({value,
        label: {show: true, position: 'right', fontSize: 10, formatter: panel.values[i][1]}}))}]};
  }
  echarts.init(place, null, {renderer: 'canvas'}).setOption(options);
});
window.drawn = true;
"""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.dashboards.draw_dashboards DIRECTORY")
    main(Path(sys.argv[1]))
