"""Recorded runs made up for tests: layered DAGs on a few workers, with states, queue waits, failures, nasty names."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.records import Outcome
from traced_threadpool.model.states import State
from traced_threadpool.telemetry import names

NASTY_NAMES = (
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<!--<script>alert(1)</script>-->",
    "\"'&<b>&amp;",
    "line\u2028separator\u2029and\nnewline",
    "\x1b[31mred\x1b[0m\x07",
    "lone \ud800 surrogate",
    "ünïcödé_节点_🐢",
    "{a|rich}[bold]text[/bold]",
    "__proto__",
    "constructor",
    "w" * 400,
)

# How a kind of node divides its time.
_SPLITS: tuple[dict[State, float], ...] = (
    {"cpu": 0.85, "gil": 0.1, "runqueue": 0.05},
    {"cpu": 0.3, "gil": 0.6, "lock": 0.1},
    {"network": 0.9, "cpu": 0.06, "gil": 0.04},
    {"disk": 0.6, "cpu": 0.25, "other": 0.15},
    {"sleep": 0.95, "cpu": 0.05},
    {"cpu": 0.5, "runqueue": 0.4, "gil": 0.1},
)
BATCH = 512
"""Spans in a line, as the SDK's batch span processor hands them over."""

_WORDS = ("load", "parse", "join", "clean", "score", "fetch", "index", "merge", "rank", "store")


def layered_run(
    nodes: int = 60,
    *,
    workers: int = 4,
    layers: int = 6,
    seed: int = 0,
    states: bool = True,
    failing: str | None = None,
    node_names: Sequence[str] = (),
    mean_ms: float = 40.0,
    run_id: str = "run-1",
    run_name: str = "etl",
) -> RecordedRun:
    """A run as the scheduler would run it: first come, first served. The node called `failing` raises."""
    dice = random.Random(seed)
    per_layer = max(1, nodes // layers)
    upstream: list[list[int]] = []
    all_names: list[str] = []
    for index in range(nodes):
        layer = index // per_layer
        earlier = range(max(0, (layer - 1) * per_layer), min(index, layer * per_layer))
        upstream.append(sorted(dice.sample(earlier, min(len(earlier), dice.randint(1, 3)))) if layer else [])
        word = dice.choice(_WORDS)
        all_names.append(node_names[index] if index < len(node_names) else f"{word}_{index:03}")
    durations = [max(1_000, round(dice.lognormvariate(0, 0.8) * mean_ms * 1e6)) for _ in range(nodes)]
    return _simulate(all_names, upstream, durations, workers, dice, states, failing, run_id, run_name)


def _simulate(
    node_names: list[str],
    upstream: list[list[int]],
    durations: list[int],
    workers: int,
    dice: random.Random,
    states: bool,
    failing: str | None,
    run_id: str,
    run_name: str,
) -> RecordedRun:
    start_ns = 1_000_000
    free = [(start_ns, number) for number in range(workers)]
    executions: dict[int, NodeExecution] = {}
    broken: dict[int, str] = {}
    queue: list[tuple[int, int]] = []
    downstream: list[list[int]] = [[] for _ in node_names]
    left = [len(inputs) for inputs in upstream]
    for index, inputs in enumerate(upstream):
        for one in inputs:
            downstream[one].append(index)
        if not inputs:
            heapq.heappush(queue, (start_ns + 1_000 * index, index))
    while queue:
        ready_ns, index = heapq.heappop(queue)
        cause = next((broken[one] for one in upstream[index] if one in broken), None)
        outcome: Outcome = "success"
        started_ns = ended_ns = ready_ns
        worker = ""
        if cause is not None:
            outcome, broken[index] = "upstream_error", cause
        else:
            free_ns, number = heapq.heappop(free)
            worker = f"etl_{number}"
            started_ns = max(free_ns, ready_ns)
            ended_ns = started_ns + durations[index]
            heapq.heappush(free, (ended_ns, number))
            if node_names[index] == failing:
                outcome, broken[index] = "error", node_names[index]
        executions[index] = NodeExecution(
            key=f"{index + 1:016x}",
            name=node_names[index],
            submitted_ns=min(start_ns + 1_000 * index, ready_ns),
            ready_ns=ready_ns,
            started_ns=started_ns,
            ended_ns=ended_ns,
            outcome=outcome,
            upstream=tuple(f"{one + 1:016x}" for one in upstream[index]),
            worker=worker,
            states=_split(dice.choice(_SPLITS), ended_ns - started_ns) if states and outcome == "success" else {},
            samples=dice.choice((12, 250)) if states else 0,
            error_type="ValueError" if outcome == "error" else None,
            failed_upstream=cause,
        )
        for one in downstream[index]:
            left[one] -= 1
            if not left[one]:
                heapq.heappush(queue, (max(executions[each].ended_ns for each in upstream[one]), one))
    nodes = tuple(executions[index] for index in range(len(node_names)))
    return RecordedRun(
        id=run_id,
        name=run_name,
        pool="etl",
        started_ns=0,
        ended_ns=max((node.ended_ns for node in nodes), default=start_ns) + 1_000_000,
        nodes=nodes,
        outcome="error" if broken else "success",
        error_type="ValueError" if broken else None,
        max_workers=workers,
        cpus=2,
        attribution="process" if states else "none",
        attribution_reason=None if states else "the kernel does not say what threads do",
        gil_holders={node_names[0]: 120_000_000, "thread:MainThread": 30_000_000} if states and node_names else {},
        expected_nodes=len(node_names),
        started_unix_ns=1_760_000_000_000_000_000,
    )


def _split(shares: dict[State, float], total_ns: int) -> dict[State, int]:
    parts: dict[State, int] = {state: int(total_ns * share) for state, share in shares.items()}
    first = next(iter(parts))
    parts[first] += total_ns - sum(parts.values())
    return parts


def write_trace(path: Path, *runs: RecordedRun) -> Path:
    """A file of OTLP/JSON lines that these runs are read from again; each is a trace of its own."""
    with path.open("w") as file:
        for number, run in enumerate(runs, 1):
            spans = _spans(number, run)
            for first in range(0, len(spans), BATCH):
                scope = {"scope": {"name": names.SCOPE}, "spans": spans[first : first + BATCH]}
                file.write(json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [scope]}]}) + "\n")
    return path


def _spans(trace: int, run: RecordedRun) -> list[dict[str, Any]]:
    offset_ns = (run.started_unix_ns or 0) - run.started_ns
    trace_id, run_span = f"{trace:032x}", f"{trace:08x}ffffffff"

    def span(own: str, name: str, started_ns: int, ended_ns: int, links: Sequence[str], **attributes: Any) -> Any:
        return {
            "traceId": trace_id,
            "spanId": own,
            "parentSpanId": "" if own == run_span else run_span,
            "name": name,
            "startTimeUnixNano": str(started_ns + offset_ns),
            "endTimeUnixNano": str(ended_ns + offset_ns),
            "links": [
                {"traceId": trace_id, "spanId": link, "attributes": _attributes({names.LINK_PARAMETER: f"p{number}"})}
                for number, link in enumerate(links)
            ],
            "attributes": _attributes({names.RUN_ID: run.id, names.POOL_NAME: run.pool, **attributes["values"]}),
        }

    spans = [
        span(
            run_span,
            run.name,
            run.started_ns,
            run.ended_ns,
            (),
            values={
                names.RUN_OUTCOME: run.outcome,
                names.POOL_LIMIT: run.max_workers,
                names.CPUS_LIMIT: run.cpus,
                names.ATTRIBUTION_METHOD: run.attribution,
                names.RUN_NODE_COUNT: len(run.nodes),
            },
        )
    ]
    for node in run.nodes:
        values: dict[str, Any] = {
            names.NODE_NAME: node.name,
            names.NODE_OUTCOME: node.outcome,
            names.NODE_QUEUE: node.queue_ns / 1e9,
            names.NODE_DEPENDENCY: node.dependency_ns / 1e9,
            names.THREAD_NAME: node.worker,
        }
        for state, ns in node.states.items():
            values[names.NODE_CPU if state == "cpu" else names.node_wait(state)] = ns / 1e9
        spans.append(span(node.key, node.name, node.started_ns, node.ended_ns, node.upstream, values=values))
    return spans


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue"}
    return [
        {"key": key, "value": {kinds[type(value)]: str(value) if isinstance(value, int) else value}}
        for key, value in values.items()
        if value is not None
    ]


def slowed(run: RecordedRun, name: str, factor: float) -> RecordedRun:
    """The same run with one node longer, and the run's end later by as much. Nothing else moves."""
    node = next(node for node in run.nodes if node.name == name)
    extra_ns = round(node.duration_ns * (factor - 1))
    longer = replace(node, ended_ns=node.ended_ns + extra_ns, states={"other": node.duration_ns + extra_ns})
    return replace(
        run,
        ended_ns=max(run.ended_ns, longer.ended_ns),
        nodes=tuple(longer if each is node else each for each in run.nodes),
    )
