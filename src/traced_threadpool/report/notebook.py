"""A recorded run into what a notebook shows of it: a piece of HTML without script, which needs nothing else.

It brings its own light ground, since a notebook does not say whether its own is light or dark. Only inline styles
and SVG, every text escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from traced_threadpool.analysis.diagnosis.advice import expected_gain, title
from traced_threadpool.analysis.diagnosis.diagnose import Finding
from traced_threadpool.model.formatting import count, duration, one_line, percent
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import INFO, State
from traced_threadpool.report.explanation import Explanation, explain, path_name
from traced_threadpool.report.moving import Pieces, pieces
from traced_threadpool.report.timeline import timeline

BARS: Final = 400
"""How many executions are drawn, the longest ones."""

WORKERS: Final = 32
NAMES: Final = 10
MAX_NAME: Final = 80

_WIDTH: Final = 900
_LEFT: Final = 110
_ROW: Final = 14
_INK: Final = "#15191e"
_SOFT: Final = "#555f6b"
_LINE: Final = "#dde1e7"
_PLAIN: Final = "#6f8aa8"
_BAD: Final = "#b3160a"


def notebook_html(run: RecordedRun) -> str:
    """The verdict, a timeline, the critical path, the states and the nodes that took most."""
    return explanation_html(explain(run, with_curve=False))


def explanation_html(explanation: Explanation) -> str:
    """The same of what is explained already."""
    run = explanation.run
    parts = [_heading(run), *(_finding(finding, run) for finding in explanation.findings)]
    parts += [f'<div style="color:{_SOFT};margin-top:6px">{_text(remark)}</div>' for remark in explanation.remarks]
    if explanation.ran:
        parts += [_timeline(explanation), _tables(explanation)]
    parts += [f'<div style="color:{_SOFT}">note: {_text(problem)}</div>' for problem in run.problems]
    return (
        f'<div style="background:#fff;color:{_INK};font:13px/1.45 system-ui,sans-serif;border:1px solid {_LINE};'
        f'border-radius:8px;padding:12px 16px;max-width:{_WIDTH + 40}px">{"".join(parts)}</div>'
    )


def _heading(run: RecordedRun) -> str:
    facts = [duration(run.duration_ns), count(len(run.nodes), "node")]
    if run.max_workers is not None:
        facts.append(count(run.max_workers, "worker"))
    outcome = run.outcome if run.error_type is None else f"{run.outcome} ({run.error_type})"
    colour = _SOFT if run.outcome == "success" else _BAD
    return (
        f"<div><b>{_text(run.name)}</b> · {_text(' · '.join(facts))} · "
        f'<span style="color:{colour}">{_text(outcome)}</span></div>'
    )


def _finding(finding: Finding, run: RecordedRun) -> str:
    evidence = "".join(f"<li>{_text(each)}</li>" for each in finding.evidence)
    gain = expected_gain(finding, run)
    return (
        f'<div style="margin:8px 0 0;font-size:15px;font-weight:600">{_text(title(finding))}</div>'
        f'<ul style="margin:2px 0 2px;padding-left:18px">{evidence}</ul>'
        f"<div>{_text(finding.advice)}{f' <b>{_text(gain)}</b>' if gain else ''}</div>"
    )


def _timeline(explanation: Explanation) -> str:
    run = explanation.run
    longest = sorted(explanation.ran, key=lambda node: -node.duration_ns)[:BARS]
    rows = timeline(explanation.ran)
    shown = rows[:WORKERS]
    keys = {node.key for node in longest}
    scale = (_WIDTH - _LEFT) / max(run.duration_ns, 1)

    def rect(started_ns: int, ended_ns: int, row: int, fill: str, what: str, height: int = _ROW - 4, y: int = 2) -> str:
        x, wide = _LEFT + (started_ns - run.started_ns) * scale, max((ended_ns - started_ns) * scale, 0.6)
        return (
            f'<rect x="{x:.1f}" y="{row * _ROW + y}" width="{wide:.1f}" height="{height}" fill="{fill}">'
            f"<title>{_text(what)}</title></rect>"
        )

    def label(row: int, text: str) -> str:
        return (
            f'<text x="{_LEFT - 6}" y="{row * _ROW + 10}" text-anchor="end" font-size="10" fill="{_SOFT}">'
            f"{_text(one_line(text, 18))}</text>"
        )

    shapes = [label(0, "critical path")]
    for step in sorted(explanation.path.steps, key=lambda step: -step.duration_ns)[:BARS]:
        fill = {"node": _INK, "queue": "#c9ced6"}.get(step.kind, "#eef0f3")
        what = f"{path_name(step.name)}: {step.kind}, {duration(step.duration_ns)}"
        shapes.append(rect(step.started_ns, step.ended_ns, 0, fill, what))
    for number, row in enumerate(shown, 1):
        if row.first:
            shapes.append(label(number, row.worker or "worker unknown"))
        for node in row.nodes:
            if node.key in keys:
                what = f"{node.name}: {duration(node.duration_ns)}{_mostly(node)}"
                moved = pieces(node)
                for state, began_ns, until_ns in moved.around() if moved else ():
                    told = f"{what}, {state} {duration(until_ns - began_ns)}"
                    shapes.append(rect(began_ns, until_ns, number, INFO[state].light, told, height=4, y=5))
                shapes.append(rect(*node.function_ns, number, _fill(node, moved), what))
                if node.key in explanation.critical_keys:
                    shapes.append(rect(node.started_ns, node.ended_ns, number, _INK, what, height=2))
    height = (len(shown) + 1) * _ROW + 4
    notes = [
        "First row: nodes on the critical path in black, waits in grey. Below: executions, in the colour of the state "
        "that took most, with a black edge on the critical path."
    ]
    if any(node.function_ended_ns for node in explanation.ran):
        notes.append("Thin, before and after the function of a node on a worker of a backend: moving it, and waiting.")
    if len(explanation.ran) > BARS:
        notes.append(f"The {BARS} longest of {len(explanation.ran):,}.")
    if len(rows) > WORKERS:
        notes.append(f"The first {WORKERS} of {len(rows):,} rows.")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="100%" style="display:block;margin:10px 0 2px" role="img" '
        f'aria-label="Timeline of {count(len(longest), "node")}">{"".join(shapes)}</svg>'
        f'<div style="color:{_SOFT};font-size:12px">{_text(" ".join(notes))}</div>'
    )


def _tables(explanation: Explanation) -> str:
    run = explanation.run
    path = sorted(explanation.critical_ns.items(), key=lambda item: -item[1])
    tables = [
        _table(
            ("Critical path", "Time", "Of the run"),
            [(path_name(name), duration(ns), percent(ns, run.duration_ns)) for name, ns in path[:NAMES] if ns > 0],
        ),
        _table(
            ("Slowest nodes", "Time", "Queue wait"),
            [(each.name, duration(each.duration_ns), duration(each.queue_ns)) for each in explanation.by_name[:NAMES]],
        ),
    ]
    if explanation.states_ns:
        states = explanation.state_rows
        rows = [("■" if row.state else "", row.name, *explanation.state_cells(row)) for row in states]
        colours = [INFO[row.state].light if row.state else _SOFT for row in states]
        headings = ("", "State", "Of all nodes", "Share", "On the path", "Of the run")
        tables.insert(1, _table(headings, rows, colours, texts=2))
    else:
        tables.insert(1, f'<div style="color:{_SOFT}">States were not recorded.</div>')
    style = "display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start;margin-top:8px"
    return f'<div style="{style}">{"".join(tables)}</div>'


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], colours: Sequence[str] = (), *, texts: int = 1
) -> str:
    """The first `texts` columns to the left, the others, numbers, to the right; `colours` are the first column's."""

    def cell(tag: str, index: int, text: str, colour: str) -> str:
        side = "left" if index < texts else "right"
        return f'<{tag} style="text-align:{side};padding:1px 8px 1px 0;color:{colour}">{_text(text)}</{tag}>'

    def line(tag: str, row: Sequence[str], first: str, others: str) -> str:
        return f"<tr>{''.join(cell(tag, at, text, others if at else first) for at, text in enumerate(row))}</tr>"

    head = line("th", headings, _SOFT, _SOFT)
    body = "".join(line("td", row, colours[number] if colours else _INK, _INK) for number, row in enumerate(rows))
    return f'<table style="border-collapse:collapse;background:#fff;font-size:12.5px">{head}{body}</table>'


def _strongest(node: NodeExecution, *besides: str) -> State | None:
    known = [item for item in node.states.items() if item[0] not in besides]
    state, ns = max(known, key=lambda item: item[1], default=(None, 0))
    return state if ns > 0 else None


def _fill(node: NodeExecution, moved: Pieces | None) -> str:
    if node.outcome == "error":
        return _BAD
    state = _strongest(node, *(() if moved is None else ("transfer", "remote_queue")))
    return _PLAIN if state is None else INFO[state].light


def _mostly(node: NodeExecution) -> str:
    if node.outcome == "error":
        return f", failed{f': {node.error_type}' if node.error_type else ''}"
    state = _strongest(node)
    return "" if state is None else f", mostly {state}"


def _text(value: str) -> str:
    return html.escape(one_line(value, 1_000), quote=True)
