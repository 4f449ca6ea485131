"""An explanation as one HTML file.

`assets/page.html` is its template. The findings, the figures and the tables can be read without JavaScript; the charts
and the table of nodes are drawn by `assets/page.js` from `page_data`, which the file carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from statistics import median_low
from typing import Any, Final

from traced_threadpool.model.formatting import change, count, duration, percent
from traced_threadpool.model.states import INFO
from traced_threadpool.recording.critical_path import Step
from traced_threadpool.report import page_data as drawn
from traced_threadpool.report.explanation import Explanation, path_name
from traced_threadpool.report.html_document import document
from traced_threadpool.report.moving import pieces
from traced_threadpool.report.page_data import NAMES_IN_CHART, shown_nodes
from traced_threadpool.report.timeline import timeline

ROWS_IN_TABLES: Final = 60
NAMES_ON_PATH: Final = 12
STEPS_SHOWN: Final = 9
HOLDERS: Final = 8
FEW_SAMPLES: Final = 200

_STEP_KINDS: Final = {
    "node": "node",
    "queue": "queue wait",
    "dependency": "waited for inputs",
    "outside": "outside of nodes",
}
_METHODS: Final = {
    "process": "States were sampled by a helper process.",
    "none": "States were not recorded.",
}
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


def page(explanation: Explanation) -> str:
    """The whole file as text; write it as UTF-8."""
    return document(
        "page.html",
        "page.js",
        drawn.page_data(explanation),
        columns=_COLUMNS,
        run=explanation.run,
        explanation=explanation,
        facts=list(_facts(explanation)),
        findings=explanation.findings,
        tiles=list(_tiles(explanation)),
        rows=sum(row.first for row in timeline(shown_nodes(explanation))),
        max_nodes=drawn.MAX_NODES,
        legend=_legend(explanation),
        path=_path(explanation),
        curve=_curve(explanation),
        states=_states(explanation),
        notes=list(_notes(explanation)),
    )


def _facts(explanation: Explanation) -> Iterator[str]:
    run = explanation.run
    if run.max_workers is not None:
        yield count(run.max_workers, "worker")
    if run.cpus is not None:
        yield count(run.cpus, "CPU")
    if run.started_unix_ns is not None:
        yield _moment(run.started_unix_ns)
    yield f"run {run.id}"


def _tiles(explanation: Explanation) -> Iterator[tuple[str, str, str]]:
    """What a figure is of, the figure, and what goes with it."""
    run = explanation.run
    on_path = sum(step.duration_ns for step in explanation.path.nodes)
    waits = sorted(node.queue_ns for node in explanation.ran)
    never = len(run.nodes) - len(explanation.ran)
    failed = sum(node.outcome == "error" for node in run.nodes)
    of_workers = "" if run.max_workers is None else f" of {run.max_workers:,}"
    nodes_more = [f"{failed:,} failed"] * bool(failed) + [f"{never:,} never ran"] * bool(never)
    yield "Run", duration(run.duration_ns), "from the call to the last node"
    yield "Nodes on the critical path", duration(on_path), f"{percent(on_path, run.duration_ns)} of the run"
    yield (
        "Nodes running at once",
        f"{explanation.mean_running:.2f}{of_workers}",
        f"on average; {explanation.peak_running:,} at most",
    )
    yield (
        "Queue wait, median",
        duration(median_low(waits)) if waits else "-",
        f"{duration(waits[-1])} at most; up to {explanation.peak_queue:,} queued" if waits else "",
    )
    yield "Nodes", f"{len(run.nodes):,}", ", ".join(nodes_more) or count(explanation.names, "name")


def _legend(explanation: Explanation) -> dict[str, Any]:
    total = explanation.nodes_ns
    moved = [found for node in explanation.ran if (found := pieces(node)) is not None]
    return {
        "states": [
            (state, percent(ns, total), INFO[state].meaning) for state, ns in explanation.states_ns.items() if ns > 0
        ],
        "not_recorded": any(not node.states for node in explanation.ran),
        "queued": any(step.kind == "queue" for step in explanation.path.steps),
        "failed": any(node.outcome == "error" for node in explanation.ran),
        "elsewhere": bool(moved),
        "moved": any(each.before_ns or each.after_ns for each in moved),
        "waited": any(each.queue_ns for each in moved),
    }


def _path(explanation: Explanation) -> dict[str, Any]:
    run = explanation.run
    shown = [row for row in sorted(explanation.critical_ns.items(), key=lambda item: -item[1]) if row[1] > 0]
    steps = [step for step in explanation.path.steps if step.duration_ns > 0]
    longest = sorted(steps, key=lambda step: -step.duration_ns)[:ROWS_IN_TABLES]
    return {
        "names": [(path_name(name), duration(ns), percent(ns, run.duration_ns)) for name, ns in shown[:NAMES_ON_PATH]],
        "other_names": len(shown) - NAMES_ON_PATH,
        "other_names_take": duration(sum(ns for _, ns in shown[NAMES_ON_PATH:])),
        "is_open": len(steps) <= STEPS_SHOWN,
        "steps": [_step(step, run.started_ns) for step in sorted(longest, key=lambda step: step.started_ns)],
        "of_steps": len(steps),
        "other_steps_take": duration(
            sum(step.duration_ns for step in steps) - sum(each.duration_ns for each in longest)
        ),
    }


def _step(step: Step, started_ns: int) -> tuple[str, ...]:
    name = "" if step.kind == "outside" else step.name
    return _STEP_KINDS[step.kind], name, duration(step.started_ns - started_ns), duration(step.duration_ns)


def _curve(explanation: Explanation) -> Sequence[tuple[str, ...]]:
    curve = explanation.curve
    if curve is None:
        return ()
    return [
        (
            f"{point.workers:,}{' (now)' if point.workers == curve.now else ''}",
            duration(point.makespan_ns),
            change(before_ns=curve.recorded_ns, after_ns=point.makespan_ns),
            point.limit,
        )
        for point in curve.points
    ]


def _states(explanation: Explanation) -> dict[str, Any]:
    run, known = explanation.run, explanation.states_ns
    states = [state for state, ns in known.items() if ns > 0]
    if known:
        hint = "Sums over all executions, and over the critical path, which fills the run."
    else:
        reason = f" ({run.attribution_reason})" if run.attribution_reason else ""
        hint = f"This record has no states{reason}, so the bars show durations only."
    if explanation.has_nested_runs:
        hint += " The nodes of a run that a node executed are part of that node."
    holders = sorted(run.gil_holders.items(), key=lambda item: -item[1])[:HOLDERS]
    return {
        "hint": hint,
        "names": states,
        "sums": [(row.name, *explanation.state_cells(row), row.meaning) for row in explanation.state_rows],
        "known": bool(known),
        "holders": [(name, duration(ns)) for name, ns in holders],
        "in_chart": NAMES_IN_CHART,
        "shown": count(min(explanation.names, NAMES_IN_CHART), "name"),
        "rows": [
            (
                each.name,
                f"{each.executions:,}",
                *(duration(ns) for ns in (each.duration_ns, each.longest_ns, each.queue_ns)),
                *(duration(each.states_ns.get(state, 0)) if each.states_ns else "-" for state in states),
            )
            for each in explanation.slowest(ROWS_IN_TABLES)
        ],
    }


def _notes(explanation: Explanation) -> Iterator[str]:
    """What one should know of this record."""
    run = explanation.run
    yield from run.problems
    method = _METHODS.get(run.attribution, f"States: {run.attribution}.")
    yield f"{method} Reason: {run.attribution_reason}." if run.attribution_reason else method
    if explanation.estimated is not None:
        yield explanation.estimated
    corrected = [node.clock_correction_ns for node in explanation.ran if node.clock_correction_ns]
    if corrected:
        yield (
            f"The clocks of other hosts are off: the times of {count(len(corrected), 'node')} there were moved, by "
            f"{duration(max(corrected))} at most, to lie between sending and receiving."
        )
    if any(0 < node.samples < FEW_SAMPLES for node in explanation.ran):
        yield f"The states of an execution with fewer than {FEW_SAMPLES} samples are approximate; sums are better."


def _moment(unix_ns: int) -> str:
    try:
        moment = datetime.fromtimestamp(unix_ns // 1_000_000_000, tz=timezone.utc)
    except (OverflowError, OSError, ValueError):
        return "at an unknown time"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
