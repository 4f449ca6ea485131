"""Spans of a made-up trace, written in each form of file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traced_threadpool.analysis.trace_file import read_runs
from traced_threadpool.model.recorded_run import RecordedRun

EPOCH = 1_795_492_413_000_000_000
MS = 1_000_000
TRACE = "5b8efff798038103d269b633813fc60c"


@dataclass(frozen=True)
class Item:
    """One span, to be written in any format. Ids are small numbers, times milliseconds after `EPOCH`."""

    id: int
    name: str
    started_ms: float
    ended_ms: float
    attributes: dict[str, Any]
    parent: int | None = None
    links: tuple[int, ...] = ()
    dropped_links: int = 0
    remote: bool = False
    trace: str = TRACE
    service: dict[str, Any] = field(default_factory=lambda: {"service.name": "etl"})


def key(number: int) -> str:
    return f"{number:016x}"


def run_item(id: int, started: float, ended: float, *, run_id: str = "run-1", nodes: int = 2, **more: Any) -> Item:
    attributes = {
        "hamilton.run.id": run_id,
        "hamilton.run.outcome": "success",
        "hamilton.run.node.count": nodes,
        "hamilton.threadpool.name": "pool",
        "hamilton.threadpool.workers.limit": 4,
        **more.pop("attributes", {}),
    }
    return Item(id, "hamilton.run", started, ended, attributes, **more)


def node_item(
    id: int,
    name: str,
    started: float,
    ended: float,
    *upstream: tuple[int, str],
    run: int = 1,
    run_id: str | None = "run-1",
    queue_ms: float = 0,
    dependency_ms: float = 0,
    attributes: dict[str, Any] | None = None,
    **more: Any,
) -> Item:
    own: dict[str, Any] = {
        "hamilton.node.name": name,
        "hamilton.threadpool.name": "pool",
        "hamilton.node.queue.duration": queue_ms / 1e3,
        "hamilton.node.dependency.duration": dependency_ms / 1e3,
        "hamilton.node.upstream": [upstream_name for _, upstream_name in upstream],
        "hamilton.node.outcome": "success",
        "hamilton.node.tag.owner": "me",
        "code.line.number": 7,
        "thread.name": "pool_0",
        **({"hamilton.run.id": run_id} if run_id is not None else {}),
        **(attributes or {}),
    }
    more.setdefault("links", tuple(each for each, _ in upstream))
    return Item(id, name, started, ended, {k: v for k, v in own.items() if v is not None}, parent=run, **more)


# Formats


def any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(each) for each in value]}}
    kinds = {bool: "boolValue", str: "stringValue", float: "doubleValue", int: "intValue"}
    return {kinds[type(value)]: str(value) if type(value) is int else value}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": any_value(value)} for name, value in attributes.items()]


def ns(ms: float) -> int:
    return EPOCH + round(ms * MS)


def otlp_span(item: Item) -> dict[str, Any]:
    return {
        "traceId": item.trace,
        "spanId": key(item.id),
        **({} if item.parent is None else {"parentSpanId": key(item.parent)}),
        "flags": 0x300 if item.remote else 0x100,
        "name": item.name,
        "startTimeUnixNano": str(ns(item.started_ms)),
        "endTimeUnixNano": str(ns(item.ended_ms)),
        "attributes": pairs(item.attributes),
        "links": [
            {"traceId": item.trace, "spanId": key(each), "attributes": pairs({"hamilton.link.parameter": "x"})}
            for each in item.links
        ],
        "droppedLinksCount": item.dropped_links,
    }


def otlp(items: Iterable[Item]) -> dict[str, Any]:
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": pairs(item.service)},
                "scopeSpans": [{"scope": {"name": "traced_threadpool"}, "spans": [otlp_span(item)]}],
            }
            for item in items
        ]
    }


def lines(items: Iterable[Item]) -> str:
    return "".join(json.dumps(otlp([item])) + "\n" for item in items)


def in_base64(document: Any) -> Any:
    """The same with ids as protobuf's own JSON has them, and so Tempo."""
    if isinstance(document, dict):
        return {
            name: base64.b64encode(bytes.fromhex(value)).decode()
            if name in ("traceId", "spanId", "parentSpanId")
            else in_base64(value)
            for name, value in document.items()
        }
    return [in_base64(each) for each in document] if isinstance(document, list) else document


def tempo(items: Iterable[Item]) -> str:
    return json.dumps({"batches": in_base64(otlp(items)["resourceSpans"])})


def tempo_2(items: Iterable[Item]) -> str:
    return json.dumps({"trace": otlp(items), "status": "complete"}, indent=2)


def old_collector(items: Iterable[Item]) -> str:
    return json.dumps(otlp(items)).replace('"scopeSpans"', '"instrumentationLibrarySpans"')


def jaeger_3(items: Iterable[Item]) -> str:
    return json.dumps({"result": otlp(items)})


def listed(items: Iterable[Item]) -> str:
    return json.dumps([otlp([item]) for item in items])


def tag(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"key": name, "type": "string", "value": json.dumps(value)}
    kinds = {bool: "bool", str: "string", float: "float64", int: "int64"}
    return {"key": name, "type": kinds[type(value)], "value": value}


def jaeger(items: Iterable[Item]) -> str:
    items = list(items)
    services = {json.dumps(item.service): f"p{n}" for n, item in enumerate(items)}
    processes = {
        name: {"serviceName": "etl", "tags": [tag(*pair) for pair in json.loads(service).items()]}
        for service, name in services.items()
    }
    spans = []
    for item in items:
        references = [] if item.parent is None else [("CHILD_OF", item.parent)]
        references += [("FOLLOWS_FROM", each) for each in item.links]
        spans.append(
            {
                "traceID": item.trace,
                "spanID": key(item.id),
                "operationName": item.name,
                "references": [{"refType": t, "traceID": item.trace, "spanID": key(i)} for t, i in references],
                "startTime": ns(item.started_ms) // 1000,
                "duration": (ns(item.ended_ms) - ns(item.started_ms)) // 1000,
                "tags": [tag(*pair) for pair in item.attributes.items()],
                "processID": services[json.dumps(item.service)],
                "warnings": None,
            }
        )
    trace = {"traceID": TRACE, "spans": spans, "processes": processes, "warnings": None}
    return json.dumps({"data": [trace], "total": 0, "errors": None}, indent=4)


def old_jaeger(items: Iterable[Item]) -> str:
    """One trace by itself, whose spans have their parents in a field of its own."""
    (trace,) = json.loads(jaeger(items))["data"]
    for span in trace["spans"]:
        for reference in [each for each in span["references"] if each["refType"] == "CHILD_OF"]:
            span["references"].remove(reference)
            span["parentSpanID"] = reference["spanID"]
    return json.dumps(trace)


FORMATS = {
    "lines": lines,
    "tempo": tempo,
    "tempo 2": tempo_2,
    "old collector": old_collector,
    "jaeger": jaeger,
    "old jaeger": old_jaeger,
    "jaeger 3": jaeger_3,
    "list": listed,
}


def read(file: Path, content: str | bytes) -> list[RecordedRun]:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_runs(file)


def read_one(file: Path, items: Iterable[Item]) -> RecordedRun:
    (run,) = read(file, lines(items))
    return run


def problems(file: Path, *items: Item) -> list[str]:
    return list(read_one(file, items).problems)


WHOLE = (
    run_item(
        1,
        0,
        100,
        attributes={
            "hamilton.attribution.method": "process",
            "hamilton.attribution.reason": "no-schedstat",
            "hamilton.cpus.limit": 2,
            "hamilton.run.gil.holders": ["parse 0.003 s", "thread:main 0.001 s"],
        },
    ),
    node_item(2, "load", 5, 45, queue_ms=3, attributes={"hamilton.node.cpu.duration": 0.01}),
    node_item(
        3,
        "parse",
        50,
        90,
        (2, "load"),
        queue_ms=5,
        dependency_ms=43,
        attributes={
            "hamilton.node.cpu.duration": 0.03,
            "hamilton.node.wait.gil.duration": 0.004,
            "hamilton.node.wait.samples": 12,
            "hamilton.node.outcome": "error",
            "error.type": "KeyError",
            "hamilton.task.id": "task",
            "thread.name": "pool_1",
        },
    ),
)
