"""An explanation into one HTML file that needs nothing else: no network, no server, no other file.

The verdict, the figures and the tables are written here, and can be read without JavaScript; the charts and the table
of nodes are drawn by `assets/page.js` from the data that the file carries.

Nothing that a trace says can become markup or code. Text is escaped; data is JSON in which every `<`, `>` and `&` is
written as an escape, so that no name can end its element; the script puts text into the page by `textContent` alone;
and a Content-Security-Policy allows the file's own two scripts and its style sheet, by their hashes, and nothing else:
no request, no other script, no form.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from statistics import median_low
from typing import Any, Final

from traced_threadpool._version import __version__
from traced_threadpool.analysis.diagnosis.diagnose import Finding
from traced_threadpool.model.formatting import change, count, duration, one_line, percent
from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.records import OUTCOMES, STATES
from traced_threadpool.recording.critical_path import Step
from traced_threadpool.report.curve import Curve
from traced_threadpool.report.explanation import Explanation
from traced_threadpool.report.palette import LOOKS
from traced_threadpool.report.timeline import levels, timeline
from traced_threadpool.report.verdict import expected_gain, path_name, title, tone

MAX_NODES: Final = 50_000
"""How many nodes a page shows. Of more, those on the critical path, those that failed, and the longest."""

MAX_STEPS: Final = 20_000
"""How finely the load over time is drawn, of a run with more changes than that."""

NAMES_IN_CHART: Final = 15
ROWS_IN_TABLES: Final = 60
STEPS_SHOWN: Final = 9
MAX_NAME: Final = 500

STEP_KINDS: Final = {
    "node": "node",
    "queue": "queue wait",
    "dependency": "waited for inputs",
    "outside": "outside of nodes",
}


def page(explanation: Explanation) -> str:
    """The whole file as text; write it as UTF-8."""
    data = script_json(_data(explanation))
    style = f"{_asset('page.css')}\n{_state_colours()}"
    charts, script = _asset("echarts.min.js"), _asset("page.js")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src '{_hash(charts)}' '{_hash(script)}'; style-src '{_hash(style)}'"
    )
    run = explanation.run
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_text(run.name)}: {_text(duration(run.duration_ns))}, where the time went</title>
<style>{style}</style>
</head>
<body>
<header class="top">{_heading(explanation)}</header>
<main>
{_verdict(explanation)}
{_figures(explanation)}
{_timeline_section(explanation)}
<div class="pair">
{_path_section(explanation)}
{_curve_section(explanation)}
</div>
{_states_section(explanation)}
{_nodes_section()}
{_record_section(explanation)}
</main>
<footer>Made by traced_threadpool {_text(__version__)}. Charts: Apache ECharts, Apache License 2.0.</footer>
<script type="application/json" id="data">{data}</script>
<script>{charts}</script>
<script>{script}</script>
</body>
</html>
"""


def script_json(value: Any) -> str:
    """JSON that can stand inside of a script element: what could end it is written as an escape.

    >>> script_json({"name": "</script>&"})
    '{"name":"\\\\u003c/script\\\\u003e\\\\u0026"}'
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# What the script draws from. Times are whole microseconds since the start of the run.


def _data(explanation: Explanation) -> dict[str, Any]:
    run = explanation.run
    nodes = _shown(explanation)
    rows = timeline(nodes)
    row_of = {node.key: index for index, row in enumerate(rows) for node in row.nodes}
    index_of = {node.key: index for index, node in enumerate(nodes)}

    def since_start(ns: int) -> int:
        return round((ns - run.started_ns) / 1_000)

    return {
        "run": {"duration": round(run.duration_ns / 1_000), "maxWorkers": run.max_workers},
        "states": [{"id": state, "label": state} for state in STATES],
        "outcomes": OUTCOMES,
        "rows": [{"worker": _cut(row.worker), "first": row.first} for row in rows],
        "nodes": {
            "name": [_cut(node.name) for node in nodes],
            "task": [None if node.task_id is None else _cut(node.task_id) for node in nodes],
            "row": [row_of.get(node.key, -1) for node in nodes],
            "start": [since_start(node.started_ns) for node in nodes],
            # Differences of rounded times, so that what touched in the record still touches.
            "duration": [since_start(node.ended_ns) - since_start(node.started_ns) for node in nodes],
            "queue": [since_start(node.started_ns) - since_start(node.ready_ns) for node in nodes],
            "dependency": [since_start(node.ready_ns) - since_start(node.submitted_ns) for node in nodes],
            "outcome": [OUTCOMES.index(node.outcome) for node in nodes],
            "error": [node.error_type and _cut(node.error_type) for node in nodes],
            "cause": [node.failed_upstream and _cut(node.failed_upstream) for node in nodes],
            "states": [_split(node) for node in nodes],
            "samples": [node.samples for node in nodes],
            "slack": [_slack(explanation.path.slack_ns.get(node.key)) for node in nodes],
            "critical": [int(node.key in explanation.critical_keys) for node in nodes],
            "upstream": [[index_of[key] for key in node.upstream if key in index_of] for node in nodes],
        },
        "path": [
            [
                step.kind,
                _cut(step.name),
                -1 if step.key is None else index_of.get(step.key, -1),
                since_start(step.started_ns),
                since_start(step.ended_ns),
                "" if step.behind is None else _cut(run.by_key[step.behind].name),
            ]
            for step in explanation.path.steps
            if step.ended_ns > step.started_ns
        ],
        "byName": [
            {
                "name": _cut(each.name),
                "executions": each.executions,
                "duration": round(each.duration_ns / 1_000),
                "critical": round(each.critical_ns / 1_000),
                "states": [round(each.states_ns.get(state, 0) / 1_000) for state in STATES] if each.states_ns else None,
            }
            for each in explanation.by_name[:NAMES_IN_CHART]
        ],
        "scaling": explanation.curve and _curve_data(explanation.curve),
        "load": _load(explanation) if len(run.nodes) > MAX_STEPS // 2 else None,
    }


def _load(explanation: Explanation) -> dict[str, Any]:
    """How many nodes ran and how many were queued over time, all of them; the script finds out itself of fewer.

    Time is cut into `MAX_STEPS`, and each shows the most that there were in it.
    """
    start_ns, run_ns = explanation.run.started_ns, max(1, explanation.run.duration_ns)

    def steps(stretches: Iterable[tuple[int, int]]) -> list[list[int]]:
        found: list[list[int]] = []
        for at_ns, level in levels(stretches):
            place = (at_ns - start_ns) * MAX_STEPS // run_ns
            at = round(place * run_ns / MAX_STEPS / 1_000)
            if found and found[-1][0] == at:
                found[-1][1] = max(found[-1][1], level)
            else:
                found.append([at, level])
        return [[0, 0], *found]

    return {
        "running": steps((node.started_ns, node.ended_ns) for node in explanation.ran),
        "queued": steps((node.ready_ns, node.started_ns) for node in explanation.ran),
    }


def _curve_data(curve: Curve) -> dict[str, Any]:
    return {
        "now": curve.now,
        "points": [[point.workers, round(point.makespan_ns / 1_000), point.limit] for point in curve.points],
    }


def _shown(explanation: Explanation) -> Sequence[NodeExecution]:
    nodes = explanation.run.nodes
    if len(nodes) <= MAX_NODES:
        return nodes
    keep = sorted(
        nodes,
        key=lambda node: (node.key not in explanation.critical_keys, node.outcome != "error", -node.duration_ns),
    )[:MAX_NODES]
    kept = {node.key for node in keep}
    return [node for node in nodes if node.key in kept]


def _split(node: NodeExecution) -> list[int] | None:
    return [round(node.states.get(state, 0) / 1_000) for state in STATES] if node.states else None


def _slack(ns: int | None) -> int | None:
    return None if ns is None else round(ns / 1_000)


# The parts of the page.


def _heading(explanation: Explanation) -> str:
    run = explanation.run
    facts = [f"pool <b>{_text(run.pool)}</b>"] if run.pool else []
    if run.max_workers is not None:
        facts.append(_text(count(run.max_workers, "worker")))
    if run.cpus is not None:
        facts.append(_text(count(run.cpus, "CPU")))
    if run.started_unix_ns is not None:
        facts.append(_text(_moment(run.started_unix_ns)))
    facts.append(f"run {_text(run.id)}")
    outcome = _text(run.outcome)
    if run.outcome != "success":
        outcome = f'<span class="error">✕ {outcome}{": " + _text(run.error_type) if run.error_type else ""}</span>'
    return f"""<div class="title"><h1>{_text(run.name)}</h1>
<p class="meta">{outcome} · {" · ".join(facts)}</p></div>
<div class="switch" role="group" aria-label="Colours">
<button type="button" value="auto" aria-pressed="true">Auto</button>
<button type="button" value="light" aria-pressed="false">Light</button>
<button type="button" value="dark" aria-pressed="false">Dark</button></div>"""


def _verdict(explanation: Explanation) -> str:
    first, *others = explanation.findings
    also = "".join(
        f'<div class="finding"><h3>{_text(title(finding))}</h3>{_finding_body(finding, explanation)}</div>'
        for finding in others
    )
    return f"""<section class="card verdict {tone(first)}" aria-labelledby="verdict">
<h2 id="verdict" class="off">Verdict</h2>
<p class="lead">{_text(title(first))}</p>
{_finding_body(first, explanation)}
{f'<div class="also">{also}</div>' if also else ""}
</section>"""


def _finding_body(finding: Finding, explanation: Explanation) -> str:
    evidence = "".join(f"<li>{_text(each)}</li>" for each in finding.evidence)
    gain = expected_gain(finding, explanation.run)
    return (
        f"<ul>{evidence}</ul>"
        f'<p class="advice">{_text(finding.advice)}</p>'
        f"{f'<p class=gain>{_text(gain)}</p>' if gain else ''}"
    )


def _figures(explanation: Explanation) -> str:
    run = explanation.run
    on_path = sum(step.ended_ns - step.started_ns for step in explanation.path.nodes)
    waits = sorted(node.queue_ns for node in explanation.ran)
    never = len(run.nodes) - len(explanation.ran)
    failed = sum(node.outcome == "error" for node in run.nodes)
    of_workers = "" if run.max_workers is None else f" of {run.max_workers:,}"
    nodes_more = [f"{failed:,} failed"] * bool(failed) + [f"{never:,} never ran"] * bool(never)
    names = len(explanation.by_name)
    tiles = [
        ("Run", duration(run.duration_ns), "from the call to the last node"),
        ("Nodes on the critical path", duration(on_path), f"{percent(on_path, run.duration_ns)} of the run"),
        (
            "Nodes running at once",
            f"{explanation.mean_running:.2f}{of_workers}",
            f"on average; {explanation.peak_running:,} at most",
        ),
        (
            "Queue wait, median",
            duration(median_low(waits)) if waits else "-",
            f"{duration(waits[-1])} at most; up to {explanation.peak_queue:,} queued" if waits else "",
        ),
        ("Nodes", f"{len(run.nodes):,}", ", ".join(nodes_more) or count(names, "name")),
    ]
    return (
        '<dl class="figures">'
        + "".join(
            f"<div><dt>{_text(what)}</dt><dd>{_text(figure)}<small>{_text(more)}</small></dd></div>"
            for what, figure, more in tiles
        )
        + "</dl>"
    )


def _timeline_section(explanation: Explanation) -> str:
    if not explanation.ran:
        return _card("Timeline", '<p class="empty">No node of this run ran, so there is nothing to draw.</p>')
    run = explanation.run
    left_out = ""
    if len(run.nodes) > MAX_NODES:
        left_out = (
            f'<p class="note">Drawn and listed are {MAX_NODES:,} of {len(run.nodes):,} nodes: those on the critical '
            "path, those that failed, and the longest. The figures above count all.</p>"
        )
    bands = (
        "A bar is one execution of a node. Its bands are shares of its time, not an order in time."
        if explanation.states_ns
        else "A bar is one execution of a node. This record does not say what the nodes did with their time."
    )
    rowed = timeline(_shown(explanation))
    summary = (
        f"Timeline of {count(len(explanation.ran), 'node')} on {count(sum(row.first for row in rowed), 'worker')}; "
        "the table of nodes below holds the same figures"
    )
    return f"""<section class="card" aria-labelledby="timeline-title">
<div class="tools"><h2 id="timeline-title">Timeline</h2><span class="spring"></span>
<button type="button" id="zoom-in">Zoom in</button><button type="button" id="zoom-out">Zoom out</button>
<button type="button" id="zoom-all">Whole run</button></div>
<p class="hint">{bands} Point at a bar for its inputs, click to keep it. Drag to move, Ctrl and the wheel to zoom;
with the keyboard: arrows, +, −, 0, Escape.</p>
{_legend(explanation)}
{left_out}
<div class="timeline-box">
<div id="timeline" class="chart" tabindex="0" role="group" aria-label="{_text(summary)}"></div></div>
<div id="spoken" class="off" role="status" aria-live="polite"></div>
<div id="details" class="details"></div>
</section>"""


def _legend(explanation: Explanation) -> str:
    def entry(swatch: str, words: str) -> str:
        return f'<li><svg width="16" height="12" aria-hidden="true">{swatch}</svg>{words}</li>'

    total = sum(node.duration_ns for node in explanation.ran)
    known = explanation.states_ns
    entries = [
        entry(
            f'<rect width="16" height="12" rx="2" class="state-{state}"/>',
            f"<span><b>{state}</b> {percent(ns, total)}, {_text(LOOKS[state].meaning)}</span>",
        )
        for state, ns in known.items()
        if ns > 0
    ]
    if any(not node.states for node in explanation.ran):
        entries.append(entry('<rect width="16" height="12" rx="2" class="plain"/>', "<span>not recorded</span>"))
    entries.append(
        entry('<rect y="8" width="16" height="3" class="ink"/>', "<span>underlined: on the critical path</span>")
    )
    if any(step.kind == "queue" for step in explanation.path.steps):
        entries.append(
            entry(
                '<rect x=".5" y=".5" width="15" height="11" class="frame"/>'
                '<path d="M1 11L11 1M6 11L15 2" class="frame"/>',
                "<span>hatched, in the first row: ready, and no worker free</span>",
            )
        )
    if any(node.outcome == "error" for node in explanation.ran):
        entries.append(entry('<path d="M4 2l8 8M12 2l-8 8" class="cross"/>', "<span>failed</span>"))
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _path_section(explanation: Explanation) -> str:
    run = explanation.run
    rows = sorted(explanation.critical_ns.items(), key=lambda item: -item[1])
    shown = [row for row in rows if row[1] > 0]
    body = _table(
        ("Where the path's time is", "Time", "Of the run"),
        [(path_name(name), duration(ns), percent(ns, run.duration_ns)) for name, ns in shown[:12]],
        numbers=(1, 2),
    )
    if len(shown) > 12:
        rest = sum(ns for _, ns in shown[12:])
        body += f'<p class="small">and {count(len(shown) - 12, "other name")}, {_text(duration(rest))} in sum</p>'
    steps = [step for step in explanation.path.steps if step.ended_ns > step.started_ns]
    is_open = " open" if len(steps) <= STEPS_SHOWN else ""
    in_order = _steps_table(explanation, steps)
    body += f'<details class="more"{is_open}><summary>All steps, in order</summary>{in_order}</details>'
    return _card(
        "Critical path",
        '<p class="hint">The chain that fills the run from its start to its end, without a gap. Only what is on it can '
        f"make the run shorter. Outside of nodes are Hamilton and the caller.</p>{body}",
    )


def _steps_table(explanation: Explanation, steps: Sequence[Step]) -> str:
    run = explanation.run
    shown = steps
    note = ""
    if len(steps) > ROWS_IN_TABLES:
        longest = sorted(steps, key=lambda step: step.started_ns - step.ended_ns)[:ROWS_IN_TABLES]
        shown = sorted(longest, key=lambda step: step.started_ns)
        rest = sum(step.duration_ns for step in steps) - sum(step.duration_ns for step in shown)
        note = (
            f'<p class="small">The {ROWS_IN_TABLES} longest of {len(steps):,} steps; the others take '
            f"{_text(duration(rest))} in sum.</p>"
        )
    return note + _table(
        ("Step", "Node", "From", "Time"),
        [
            (
                STEP_KINDS[step.kind],
                "" if step.kind == "outside" else step.name,
                duration(step.started_ns - run.started_ns),
                duration(step.duration_ns),
            )
            for step in shown
        ],
        numbers=(2, 3),
    )


def _curve_section(explanation: Explanation) -> str:
    curve = explanation.curve
    heading = "What more workers would give"
    if curve is None:
        return _card(heading, '<p class="empty">No prediction: there is nothing to replay.</p>')
    rows = [
        (
            f"{point.workers:,}" + (" (now)" if point.workers == curve.now else ""),
            duration(point.makespan_ns),
            change(before_ns=curve.recorded_ns, after_ns=point.makespan_ns),
            point.limit,
        )
        for point in curve.points
    ]
    return _card(
        heading,
        f'<p class="hint">{_text(curve.summary)} Predicted by replaying the record with other numbers of workers.</p>'
        '<div id="curve" class="chart" role="img" aria-label="Predicted length of the run by number of workers; '
        'the table below holds the same figures"></div>'
        '<details class="more"><summary>As a table</summary>'
        f"{_table(('Workers', 'Run', 'Change', 'Limited by'), rows, numbers=(0, 1, 2))}</details>",
    )


def _states_section(explanation: Explanation) -> str:
    if not explanation.ran:
        return ""
    known = explanation.states_ns
    run = explanation.run
    total = sum(node.duration_ns for node in explanation.ran)
    if known:
        states = [state for state, ns in known.items() if ns > 0]
        hint = "Sums over all executions."
    else:
        states = []
        reason = f" ({_text(run.attribution_reason)})" if run.attribution_reason else ""
        hint = f"This record has no states{reason}, so the bars show durations alone."
    if explanation.has_nested_runs:
        hint += " A node that executed a run of its own includes the time of that run."
    names = [
        (
            each.name,
            f"{each.executions:,}",
            duration(each.duration_ns),
            duration(each.longest_ns),
            duration(each.queue_ns),
            *(duration(each.states_ns.get(state, 0)) if each.states_ns else "-" for state in states),
        )
        for each in explanation.by_name
    ]
    more = (
        f'<p class="small">The {ROWS_IN_TABLES} longest of {count(len(names), "name")}.</p>'
        if len(names) > ROWS_IN_TABLES
        else ""
    )
    sums = _table(
        ("State", "Time", "Of the nodes' time", "Meaning"),
        [(state, duration(known[state]), percent(known[state], total), LOOKS[state].meaning) for state in states],
        numbers=(1, 2),
    )
    holders = ""
    if run.gil_holders:
        ranked = sorted(run.gil_holders.items(), key=lambda item: -item[1])[:8]
        holders = "<h3>Who held the GIL while nodes waited for it</h3>" + _table(
            ("Node or thread", "Waiting it caused"), [(name, duration(ns)) for name, ns in ranked], numbers=(1,)
        )
    side = f"<div>{sums if known else ''}{holders}</div>" if known or holders else ""
    shown = count(min(len(names), NAMES_IN_CHART), "name")
    chart = (
        f'<div><div id="names" class="chart" role="img" aria-label="Time by state for the {shown} that took most; the '
        'table below holds the same figures"></div></div>'
    )
    return f"""<section class="card" aria-labelledby="states-title">
<h2 id="states-title">Where the nodes' time went</h2>
<p class="hint">{hint} {"The names that took most." if len(names) > NAMES_IN_CHART else ""}</p>
{f'<div class="pair">{chart}{side}</div>' if side else chart}
<details class="more"><summary>As a table</summary>{more}{
        _table(
            ("Node", "Executions", "Sum", "Longest", "Queue wait", *states),
            names[:ROWS_IN_TABLES],
            numbers=range(1, 5 + len(states)),
        )
    }</details>
</section>"""


_COLUMNS: Final = (
    ("name", "Node", ""),
    ("worker", "Worker", ""),
    ("start", "Start", "number"),
    ("duration", "Duration", "number"),
    ("queue", "Queue wait", "number"),
    ("dependency", "Waited for inputs", "number"),
    ("state", "States", ""),
    ("slack", "Slack", "number"),
    ("critical", "On path", ""),
    ("outcome", "Outcome", ""),
)


def _nodes_section() -> str:
    headings = "".join(
        f'<th scope="col" data-key="{key}"{f" class={kind}" if kind else ""}'
        f'{" aria-sort=ascending" if key == "start" else ""}><button type="button">{heading}</button></th>'
        for key, heading, kind in _COLUMNS
    )
    return f"""<section class="card" aria-labelledby="nodes-title">
<h2 id="nodes-title">Nodes</h2>
<div class="tools"><label for="search">Search</label>
<input type="search" id="search" placeholder="name, task or worker" autocomplete="off" spellcheck="false">
<label for="only">Show</label><select id="only"><option value="all">all nodes</option>
<option value="critical">on the critical path</option><option value="queued">that waited for a worker</option>
<option value="failed">failed or never ran</option></select>
<span id="matches" role="status" aria-live="polite" class="small"></span><span class="spring"></span>
<span id="pager"><button type="button" id="previous">Previous</button> <span id="page" class="small"></span>
<button type="button" id="next">Next</button></span></div>
<div class="scroll"><table id="nodes"><caption class="off">All nodes of the run</caption>
<thead><tr>{headings}</tr></thead><tbody></tbody></table></div>
<noscript><p class="note">The charts and this table need JavaScript.</p></noscript>
</section>"""


def _record_section(explanation: Explanation) -> str:
    run = explanation.run
    lines = list(run.problems)
    method = {
        "process": "States were told by a helper process that looks at the threads.",
        "none": "States were not told apart.",
    }.get(run.attribution, f"States: {run.attribution}.")
    if run.attribution_reason:
        method += f" Reason: {run.attribution_reason}."
    lines.append(method)
    if explanation.estimated is not None:
        lines.append(explanation.estimated)
    if any(0 < node.samples < 200 for node in explanation.ran):
        lines.append("The split of a single execution with fewer than 200 samples is approximate; sums are better.")
    return _card("About this record", "".join(f"<p class=note>{_text(line)}</p>" for line in lines))


def _card(heading: str, body: str) -> str:
    return f'<section class="card"><h2>{_text(heading)}</h2>\n{body}\n</section>'


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if index in right else ' class=name' if tag == 'td' and not index else ''}>"
            f"{_text(text)}</{tag}>"
            for index, text in enumerate(texts)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", headings)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


# Text, colours, files.


def _text(value: str) -> str:
    return html.escape(_cut(value), quote=True)


def _cut(value: str) -> str:
    return one_line(value, MAX_NAME)


def _moment(unix_ns: int) -> str:
    try:
        moment = datetime.fromtimestamp(unix_ns // 1_000_000_000, tz=timezone.utc)
    except (OverflowError, OSError, ValueError):
        return "at an unknown time"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _state_colours() -> str:
    properties = "".join(f"--state-{state}:light-dark({look.light},{look.dark});" for state, look in LOOKS.items())
    fills: Mapping[str, str] = {f".state-{state}": f"fill:var(--state-{state})" for state in LOOKS}
    return f":root{{{properties}}}" + "".join(f"{name}{{{rule}}}" for name, rule in fills.items())


@cache
def _asset(name: str) -> str:
    text = (files("traced_threadpool.report") / "assets" / name).read_text(encoding="utf-8")
    # Inside of an element, these would end it or begin a comment.
    for end in ("</script", "</style", "<!--"):
        assert end not in text.lower(), (name, end)
    return text


@cache
def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
