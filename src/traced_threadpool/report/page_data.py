"""What the page's script draws from: nodes, rows, the critical path, the load over time.

Nothing that a trace says can end the element that holds it: `script_json` writes every `<`, `>` and `&` as an escape.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from traced_threadpool.model.formatting import one_line
from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.records import OUTCOMES
from traced_threadpool.model.states import STATES
from traced_threadpool.report.curve import Curve
from traced_threadpool.report.explanation import Explanation
from traced_threadpool.report.moving import pieces
from traced_threadpool.report.timeline import levels, timeline

MAX_NODES: Final = 50_000
"""How many nodes a page shows. Of more, those on the critical path, those that failed, and the longest."""

MAX_STEPS: Final = 20_000
"""How finely the load over time is drawn, of a run with more changes than that."""

NAMES_IN_CHART: Final = 15
MAX_NAME: Final = 500


def script_json(value: Any) -> str:
    """JSON that can stand inside of a script element: what could end it is written as an escape.

    >>> script_json({"name": "</script>&"})
    '{"name":"\\\\u003c/script\\\\u003e\\\\u0026"}'
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def cut(text: str) -> str:
    """A text of the record on one line, and no longer than anybody reads."""
    return one_line(text, MAX_NAME)


def page_data(explanation: Explanation) -> dict[str, Any]:
    """Everything that is drawn. Times are whole microseconds since the start of the run."""
    run = explanation.run
    nodes = shown_nodes(explanation)
    rows = timeline(nodes)
    row_of = {node.key: index for index, row in enumerate(rows) for node in row.nodes}
    index_of = {node.key: index for index, node in enumerate(nodes)}

    def since_start(ns: int) -> int:
        return round((ns - run.started_ns) / 1_000)

    return {
        "run": {"duration": round(run.duration_ns / 1_000), "maxWorkers": run.max_workers},
        "states": [{"id": state, "label": state} for state in STATES],
        "outcomes": OUTCOMES,
        "rows": [{"worker": cut(row.worker), "first": row.first} for row in rows],
        "nodes": {
            "name": [cut(node.name) for node in nodes],
            "task": [None if node.task_id is None else cut(node.task_id) for node in nodes],
            "row": [row_of.get(node.key, -1) for node in nodes],
            "start": [since_start(node.started_ns) for node in nodes],
            # Differences of rounded times, so that what touched in the record still touches.
            "duration": [since_start(node.ended_ns) - since_start(node.started_ns) for node in nodes],
            "queue": [since_start(node.started_ns) - since_start(node.ready_ns) for node in nodes],
            "dependency": [since_start(node.ready_ns) - since_start(node.submitted_ns) for node in nodes],
            "outcome": [OUTCOMES.index(node.outcome) for node in nodes],
            "error": [_error(node) for node in nodes],
            "cause": [node.failed_upstream and cut(node.failed_upstream) for node in nodes],
            "states": [_split(node) for node in nodes],
            "samples": [node.samples for node in nodes],
            "slack": [_slack(explanation.path.slack_ns.get(node.key)) for node in nodes],
            "critical": [int(node.key in explanation.critical_keys) for node in nodes],
            "upstream": [[index_of[key] for key in node.upstream if key in index_of] for node in nodes],
        },
        "moved": [moved for index, node in enumerate(nodes) if (moved := _moved(index, node, run.started_ns))],
        "path": [
            [
                step.kind,
                cut(step.name),
                -1 if step.key is None else index_of.get(step.key, -1),
                since_start(step.started_ns),
                since_start(step.ended_ns),
                "" if step.behind is None else cut(run.by_key[step.behind].name),
            ]
            for step in explanation.path.steps
            if step.ended_ns > step.started_ns
        ],
        "byName": [
            {
                "name": cut(each.name),
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


def shown_nodes(explanation: Explanation) -> Sequence[NodeExecution]:
    """Those that the page draws and lists: all, unless there are too many."""
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


def _moved(index: int, node: NodeExecution, run_started_ns: int) -> list[int] | None:
    """What it sent and received; of one that ran elsewhere, from when until when, and what came before and after."""
    found = pieces(node)
    if found is None:
        return [index, node.sent_bytes, node.received_bytes] if node.moved_bytes else None
    times_ns = *(ns - run_started_ns for ns in found.function_ns), found.before_ns, found.queue_ns, found.after_ns
    return [index, node.sent_bytes, node.received_bytes, *(round(ns / 1_000) for ns in times_ns)]


def _error(node: NodeExecution) -> str | None:
    said = ": ".join(filter(None, (node.error_type, node.error_message)))
    return cut(said) if said else None


def _slack(ns: int | None) -> int | None:
    return None if ns is None else round(ns / 1_000)
