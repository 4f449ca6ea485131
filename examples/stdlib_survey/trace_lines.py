"""Lines of OTLP/JSON into the runs that they tell of.

Rule: a span with a run's outcome is a run; a span with a node's name belongs to the run of the same id.
A link leads to the node whose span it names, by that span's id. Spans of anything else are left out.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_SECONDS = ".duration"
_WAIT = "hamilton.node.wait."


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpan:
    """One execution of a node. `upstream` are the nodes that its links lead to, in the order of the links."""

    name: str
    started_ns: int
    ended_ns: int
    outcome: str
    upstream: tuple[str, ...] = ()
    queued_seconds: float = 0.0
    stage: str = ""
    task: str = ""
    state_seconds: tuple[tuple[str, float], ...] = ()

    @property
    def seconds(self) -> float:
        """From start to end."""
        return (self.ended_ns - self.started_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpan:
    """One run and its nodes, in the order of their starts."""

    name: str
    trace_id: str
    started_ns: int
    ended_ns: int
    outcome: str
    workers: int
    nodes: tuple[NodeSpan, ...]

    @property
    def seconds(self) -> float:
        """From start to end."""
        return (self.ended_ns - self.started_ns) / 1e9


def read_runs(lines: Iterable[str]) -> list[RunSpan]:
    """The runs that ended within these lines, in the order of their starts; empty lines are passed over.

    Raises:
        ValueError: a line is not OTLP/JSON.
    """
    spans = [span for number, line in enumerate(lines, 1) if line.strip() for span in _spans(number, line)]
    names = {span["spanId"]: span["name"] for span in spans}
    nodes: dict[str, list[NodeSpan]] = defaultdict(list)
    for span in spans:
        attributes = _attributes(span)
        if "hamilton.node.name" in attributes:
            nodes[attributes.get("hamilton.run.id", "")].append(_node(span, attributes, names))
    runs = []
    for span in spans:
        attributes = _attributes(span)
        if "hamilton.run.outcome" in attributes:
            runs.append(_run(span, attributes, nodes[attributes.get("hamilton.run.id", "")]))
    return sorted(runs, key=lambda run: run.started_ns)


def _spans(number: int, line: str) -> Iterator[dict[str, Any]]:
    try:
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                yield from scope["spans"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"line {number} of the trace is not OTLP/JSON ({error!r}): {line[:60]!r}") from error


def _run(span: dict[str, Any], attributes: dict[str, Any], nodes: list[NodeSpan]) -> RunSpan:
    return RunSpan(
        name=span["name"],
        trace_id=span["traceId"],
        started_ns=int(span["startTimeUnixNano"]),
        ended_ns=int(span["endTimeUnixNano"]),
        outcome=attributes["hamilton.run.outcome"],
        workers=attributes.get("hamilton.threadpool.workers.limit", 0),
        nodes=tuple(sorted(nodes, key=lambda node: (node.started_ns, node.ended_ns, node.name))),
    )


def _node(span: dict[str, Any], attributes: dict[str, Any], names: dict[str, str]) -> NodeSpan:
    states = {
        key.removeprefix(_WAIT).removesuffix(_SECONDS): value
        for key, value in attributes.items()
        if key.startswith(_WAIT) and key.endswith(_SECONDS)  # and not how many samples they rest on
    }
    if "hamilton.node.cpu.duration" in attributes:
        states = {"cpu": attributes["hamilton.node.cpu.duration"], **states}
    return NodeSpan(
        name=attributes["hamilton.node.name"],
        started_ns=int(span["startTimeUnixNano"]),
        ended_ns=int(span["endTimeUnixNano"]),
        outcome=attributes.get("hamilton.node.outcome", ""),
        upstream=tuple(names.get(link["spanId"], link["spanId"]) for link in span.get("links", ())),
        queued_seconds=attributes.get("hamilton.node.queue.duration", 0.0),
        stage=attributes.get("hamilton.node.tag.stage", ""),
        task=attributes.get("hamilton.task.id", ""),
        state_seconds=tuple(states.items()),
    )


def _attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {attribute["key"]: _value(attribute["value"]) for attribute in span.get("attributes", ())}


def _value(tagged: dict[str, Any]) -> Any:
    """An attribute's value out of its typed wrapper.

    >>> _value({"arrayValue": {"values": [{"intValue": "3"}, {"stringValue": "three"}]}})
    [3, 'three']
    """
    for kind, value in tagged.items():
        if kind == "arrayValue":
            return [_value(item) for item in value.get("values", ())]
        return int(value) if kind == "intValue" else float(value) if kind == "doubleValue" else value
    return None
