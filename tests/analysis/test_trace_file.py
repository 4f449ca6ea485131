"""Files of spans into recorded runs: each format, and what a trace has that it should not."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.analysis.synthetic_runs import layered_run, write_trace
from traced_threadpool.analysis.trace_file import TraceFileError, read_runs
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun

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


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.json"


def read(file: Path, content: str | bytes) -> list[RecordedRun]:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_runs(file)


def read_one(file: Path, items: Iterable[Item]) -> RecordedRun:
    (run,) = read(file, lines(items))
    return run


def problems(file: Path, *items: Item) -> list[str]:
    return list(read_one(file, items).problems)


# What a trace holds

WHOLE = (
    run_item(
        1,
        0,
        100,
        attributes={
            "hamilton.attribution.method": "process",
            "hamilton.attribution.reason": "no-schedstat",
            "hamilton.processors.limit": 2,
            "hamilton.run.gil.holders": ["parse", "thread:main"],
            "hamilton.run.gil.holder.durations": [0.003, 0.001],
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


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_record(form: str, file: Path) -> None:
    """All that a run and its nodes have to say, whoever kept it."""
    assert read(file, FORMATS[form](WHOLE)) == [
        RecordedRun(
            id="run-1",
            name="hamilton.run",
            pool="pool",
            started_ns=EPOCH,
            ended_ns=ns(100),
            nodes=(
                NodeExecution(
                    key=key(2),
                    name="load",
                    submitted_ns=ns(2),
                    ready_ns=ns(2),
                    started_ns=ns(5),
                    ended_ns=ns(45),
                    worker="pool_0",
                    states={"cpu": 10 * MS, "other": 30 * MS},
                ),
                NodeExecution(
                    key=key(3),
                    name="parse",
                    submitted_ns=ns(2),
                    ready_ns=ns(45),
                    started_ns=ns(50),
                    ended_ns=ns(90),
                    outcome="error",
                    upstream=(key(2),),
                    worker="pool_1",
                    task_id="task",
                    states={"cpu": 30 * MS, "gil": 4 * MS, "other": 6 * MS},
                    samples=12,
                    error_type="KeyError",
                ),
            ),
            max_workers=4,
            processors=2,
            attribution="process",
            attribution_reason="no-schedstat",
            gil_holders={"parse": 3 * MS, "thread:main": 1 * MS},
            expected_nodes=2,
            started_unix_ns=EPOCH,
        )
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_order_compression_and_duplicates_do_not_matter(form: str, file: Path) -> None:
    """Spans come in any order, some twice, in a file that may be compressed."""
    (expected,) = read(file, FORMATS[form](WHOLE))
    shuffled = FORMATS[form]([WHOLE[2], WHOLE[1], WHOLE[0], WHOLE[1]])
    (run,) = read(file, gzip.compress(shuffled.encode()))
    assert run == replace(expected, problems=("1 span more than once in the file: counted once.",))


@pytest.mark.parametrize("form", ["lines", "tempo 2", "jaeger"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\n\n" + text.encode() + b"\n \n",
    ],
    ids=["byte order mark", "carriage returns", "empty lines"],
)
def test_how_text_is_written_does_not_matter(form: str, change: Callable[[str], bytes], file: Path) -> None:
    """What editors and shells make of a file."""
    (expected,) = read(file, FORMATS[form](WHOLE))
    assert read(file, change(FORMATS[form](WHOLE))) == [expected]


@pytest.mark.parametrize("form", ["tempo", "jaeger"])
def test_a_document_in_utf_16_is_read(form: str, file: Path) -> None:
    """As some shells write what a program prints. Lines are read as bytes, and refused then."""
    text = FORMATS[form](WHOLE * 200)
    assert read(file, text.encode("utf-16")) == read(file, text)
    with pytest.raises(TraceFileError, match="is binary"):
        read(file, lines(WHOLE).encode("utf-16"))


def test_lines_of_other_signals_lie_between(file: Path) -> None:
    """A collector writes metrics and logs into the same file: they are nobody's loss."""
    metrics, *others = ('{"resourceMetrics": []}\n', '{"resourceLogs": [{"scopeLogs": []}]}\n')
    text = metrics + "".join(line + other for line in lines(WHOLE).splitlines(True) for other in others)
    assert read(file, text) == read(file, lines(WHOLE))


@pytest.mark.parametrize("form", FORMATS)
def test_several_runs_are_told_apart_and_sorted(form: str, file: Path) -> None:
    """Also where they share a trace, and where spans of others lie around them."""
    _several_runs(file, form)


def _several_runs(file: Path, form: str) -> None:
    items = [
        run_item(11, 200, 300, run_id="late", nodes=1),
        node_item(12, "a", 210, 220, run=11, run_id="late"),
        Item(50, "GET /", 0, 400, {"http.method": "GET"}),
        run_item(1, 0, 100, nodes=1, parent=50),
        node_item(2, "a", 10, 20),
        Item(51, "SELECT", 12, 13, {}, parent=2),
    ]
    runs = read(file, FORMATS[form](items))
    assert [(run.id, run.problems, [node.key for node in run.nodes]) for run in runs] == [
        ("run-1", (), [key(2)]),
        ("late", (), [key(12)]),
    ]


NESTED = (
    run_item(1, 0, 100, nodes=1),
    node_item(2, "outer", 0, 90),
    Item(3, "in between", 5, 80, {}, parent=2),
    run_item(4, 10, 80, run_id="inner", nodes=1, parent=3),
    node_item(5, "deep", 20, 30, run=4, run_id="inner"),
)


def test_a_nested_run_is_part_of_the_outer_record(file: Path) -> None:
    """By way of whatever spans the node's own code made."""
    run = read_one(file, NESTED)
    assert (run.id, run.expected_nodes, run.problems) == ("run-1", 2, ())
    assert [(node.name, node.parent, node.run_id) for node in run.nodes] == [
        ("outer", None, None),
        ("deep", key(2), "inner"),
    ]


@pytest.mark.parametrize(
    "change",
    [{"remote": True}, {"service": {"service.name": "other"}}, {"attributes": {"hamilton.threadpool.name": "b"}}],
    ids=["remote", "process", "pool"],
)
def test_a_run_of_another_process_or_pool_is_a_record_of_its_own(change: dict[str, Any], file: Path) -> None:
    """Its workers are not those of the node that called it, and its clock may not be."""
    items = list(NESTED)
    change = {name: {**getattr(items[3], name), **value} if isinstance(value, dict) else value
              for name, value in change.items()}  # fmt: skip
    items[3] = replace(items[3], **change)
    assert [(run.id, len(run.nodes)) for run in read(file, lines(items))] == [("run-1", 1), ("inner", 1)]


# What is missing


def test_a_run_that_has_not_ended_is_read_from_its_nodes(file: Path) -> None:
    """The run's own span comes last; a file may be read before."""
    run = read_one(file, WHOLE[1:])
    assert (run.id, run.started_ns, run.ended_ns, run.outcome, run.max_workers) == (
        "run-1", ns(2), ns(90), "error", None,
    )  # fmt: skip
    assert [problem.split(":")[0] for problem in run.problems] == ["The run's own span is missing"]


def test_how_a_run_ended_that_has_no_span(file: Path) -> None:
    """As its nodes did: with an error, else cancelled."""
    stopped = node_item(4, "c", 20, 20, attributes={"hamilton.node.outcome": "cancelled"})
    assert read_one(file, [node_item(2, "a", 0, 10), stopped]).outcome == "cancelled"
    assert read_one(file, [node_item(2, "a", 0, 10)]).outcome == "success"


def test_a_run_that_says_too_few_nodes(file: Path) -> None:
    """Is read with all that there are, and that is told."""
    run = read_one(file, [run_item(1, 0, 100, nodes=1), node_item(2, "a", 0, 10), node_item(3, "b", 10, 20)])
    assert len(run.nodes) == 2
    assert run.problems == ("The run says that it had 1 node, the file has 2.",)


def test_a_worker_that_has_no_name_is_told_by_its_number(file: Path) -> None:
    """The thread's id is on a span as well."""
    node = node_item(2, "a", 0, 10, attributes={"thread.name": None, "thread.id": 77})
    assert [each.worker for each in read_one(file, [run_item(1, 0, 100, nodes=1), node]).nodes] == ["77"]


def test_how_many_nodes_there_were_is_not_known_without_every_runs_span(file: Path) -> None:
    """A nested run whose span is missing may have had more; its nodes have no record of their own."""
    inner = [node_item(5, "deep", 20, 30, run=4, run_id="inner"), node_item(2, "outer", 0, 90)]
    runs = read(file, lines([run_item(1, 0, 100, nodes=1), *inner]))
    assert [(run.id, run.expected_nodes) for run in runs] == [("run-1", 1), ("inner", None)]


def test_what_belongs_together_without_a_parent(file: Path) -> None:
    """A node whose parent is lost belongs to the run whose id it has; nodes of no run, to their trace."""
    items = [
        run_item(1, 0, 100, nodes=1),
        node_item(2, "a", 10, 20, run=99),
        node_item(3, "b", 200, 210, run=9, run_id=None),
        node_item(3, "c", 300, 310, run=9, run_id=None, trace="f" * 32),
    ]
    runs = read(file, lines(items))
    assert [(run.id, [node.name for node in run.nodes]) for run in runs] == [
        ("run-1", ["a"]), ("", ["b"]), ("", ["c"]),
    ]  # fmt: skip


def test_an_input_of_another_run_is_not_missing(file: Path) -> None:
    """It is there, though no node of this run."""
    items = [
        run_item(1, 0, 100, nodes=1),
        node_item(2, "a", 10, 20),
        run_item(11, 200, 300, run_id="late", nodes=1),
        node_item(12, "b", 210, 220, (2, "a"), run=11, run_id="late"),
    ]
    assert [(run.nodes[0].upstream, run.problems) for run in read(file, lines(items))] == [((), ()), ((), ())]


def test_nodes_outside_of_any_run_are_a_record(file: Path) -> None:
    """An adapter can be used without a driver."""
    run = read_one(file, [node_item(2, "a", 0, 10, run=9, run_id=None), node_item(3, "b", 10, 20, run=9, run_id=None)])
    assert (run.id, len(run.nodes), run.duration_ns) == ("", 2, 20 * MS)
    assert run.problems == ("These nodes were submitted outside of any run; start and end are taken from them.",)


def test_missing_spans_are_counted(file: Path) -> None:
    """Those that the run says it had, and the node that waited for one of them."""
    run = read_one(file, [run_item(1, 0, 100, nodes=3), node_item(3, "parse", 50, 90, (2, "load"))])
    assert [node.upstream for node in run.nodes] == [()]
    assert [problem.split(";")[0].split(" (")[0] for problem in run.problems] == [
        "2 spans of 3 nodes missing",
        "1 node: the span of an upstream node is missing, so what it waited for is not known.",
    ]


def test_links_cut_off_are_resolved_by_name(file: Path) -> None:
    """The SDK keeps 128 of them; the names in `hamilton.node.upstream` are whole."""
    loads = [node_item(10 + i, f"load_{i}", 0, 10) for i in range(200)]
    upstream = [(10 + i, f"load_{i}") for i in range(200)]
    last = node_item(500, "join", 20, 30, *upstream, links=tuple(range(82, 210)), dropped_links=72)
    run = read_one(file, [run_item(1, 0, 100, nodes=201), *loads, last])
    assert set(run.by_key[key(500)].upstream) == {key(10 + i) for i in range(200)}
    assert run.problems == ("1 node: links cut off; upstream resolved by name.",)


def branch(id: int, name: str, number: int, started: float, *upstream: tuple[int, str], **more: Any) -> Item:
    task = {"hamilton.task.id": f"expand-files.{number}.block-files"}
    return node_item(id, name, started, started + 10, *upstream, attributes=task, **more)


def test_a_name_stands_for_the_execution_of_the_same_task_else_for_all_that_had_ended(file: Path) -> None:
    """In dynamic execution a name has many executions: a branch takes its own, a `Collect` all."""
    items = [
        run_item(1, 0, 100, nodes=6),
        *(branch(10 + i, "load", i, 0) for i in range(2)),
        *(branch(20 + i, "parse", i, 20, (10 + i, "load"), links=()) for i in range(2)),
        branch(30, "parse", 2, 70),
        node_item(40, "all", 50, 60, (20, "parse"), links=(), attributes={"hamilton.task.id": "collect-files"}),
    ]
    run = read_one(file, items)
    assert {node.key: node.upstream for node in run.nodes if node.upstream} == {
        key(20): (key(10),),
        key(21): (key(11),),
        key(40): (key(20), key(21)),
    }


def test_a_link_that_is_no_input_is_no_upstream(file: Path) -> None:
    """A node that never ran is linked to what stopped it."""
    items = [
        run_item(1, 0, 100, nodes=2),
        node_item(2, "bad", 0, 10),
        node_item(3, "never", 10, 10, links=(2,), attributes={"hamilton.node.outcome": "cancelled"}),
    ]
    assert [node.upstream for node in read_one(file, items).nodes] == [(), ()]


def test_a_node_that_never_ran_lacks_no_link(file: Path) -> None:
    """Its inputs that never started have no span to link to; the names tell of those that there are."""
    items = [
        run_item(1, 0, 100, nodes=3),
        node_item(2, "load", 0, 10),
        node_item(3, "bad", 0, 20, attributes={"hamilton.node.outcome": "error"}),
        node_item(
            4,
            "join",
            20,
            20,
            (2, "load"),
            (3, "bad"),
            (9, "late"),
            links=(3,),
            attributes={"hamilton.node.outcome": "upstream_error"},
        ),
    ]
    run = read_one(file, items)

    assert (run.by_key[key(4)].upstream, run.problems) == ((key(3), key(2)), ())


# What cannot be


def test_what_cannot_be_is_repaired_and_said(file: Path) -> None:
    """Negative durations and waits, waits from before the run, states beyond the duration, odd values."""
    bad = [
        node_item(2, "backwards", 50, 40),
        node_item(3, "negative", 10, 20, queue_ms=-5),
        node_item(4, "early", 10, 20, queue_ms=5_000_000),
        node_item(5, "odd", 10, 20, attributes={"hamilton.node.queue.duration": "soon"}),
        node_item(
            6, "busy", 10, 20, attributes={"hamilton.node.cpu.duration": 0.03, "hamilton.node.wait.gil.duration": 0.01}
        ),
        node_item(7, "nan", 10, 20, attributes={"hamilton.node.cpu.duration": "NaN"}),
    ]
    run = read_one(file, [run_item(1, 0, 100, nodes=6), *bad])
    found = {
        node.name: (node.submitted_ns, node.ready_ns, node.started_ns, node.ended_ns, dict(node.states))
        for node in run.nodes
    }
    at_10 = (ns(10), ns(10), ns(10), ns(20))
    assert found == {
        "backwards": (ns(50), ns(50), ns(50), ns(50), {}),
        "negative": (*at_10, {}),
        "early": (EPOCH, EPOCH, ns(10), ns(20), {}),
        "odd": (*at_10, {}),
        "busy": (*at_10, {"cpu": 7_500_000, "gil": 2_500_000}),
        "nan": (*at_10, {"other": 10 * MS}),
    }
    assert run.problems == (
        "1 node: ended before the start; the duration is taken as 0.",
        "3 nodes: a wait that is negative, no number, or reaches back before the run; it is cut.",
        "2 nodes: states of time that add up to more than the duration, or are no numbers; scaled to fit.",
    )


@pytest.mark.parametrize("form", ["lines", "jaeger"])
def test_a_run_that_ends_before_it_starts(form: str, file: Path) -> None:
    """Its end is that of its nodes; a node's duration is none."""
    items = [run_item(1, 50, 40, nodes=2), node_item(2, "a", 60, 70), node_item(3, "b", 80, 75, (2, "a"))]
    (run,) = read(file, FORMATS[form](items))
    assert (run.started_ns, run.ended_ns, [node.duration_ns for node in run.nodes]) == (ns(50), ns(80), [10 * MS, 0])
    assert run.problems[0] == "The run's span ends before it starts; its end is taken from its nodes."
    assert "1 node: ended before the start; the duration is taken as 0." in run.problems
    (run,) = read(file, FORMATS[form]([run_item(1, 50, 40, nodes=0)]))
    assert (run.started_ns, run.ended_ns, run.nodes) == (ns(50), ns(50), ())


def test_spans_that_are_each_others_parents(file: Path) -> None:
    """Of runs that would be nested in each other the first is the outer one; others in a circle lead nowhere."""
    items = [
        run_item(1, 0, 100, nodes=1, parent=12),
        node_item(2, "a", 0, 90, run=1),
        run_item(11, 10, 80, run_id="other", nodes=1, parent=2),
        node_item(12, "b", 20, 70, run=11, run_id="other"),
        Item(50, "GET /", 0, 5, {}, parent=51),
        Item(51, "GET /", 0, 5, {}, parent=50),
        run_item(21, 200, 300, run_id="third", nodes=1, parent=50),
        node_item(22, "c", 210, 220, run=21, run_id="third"),
    ]
    runs = read(file, lines(items))
    assert [(run.id, [(node.name, node.parent) for node in run.nodes]) for run in runs] == [
        ("run-1", [("a", None), ("b", key(2))]),
        ("third", [("c", None)]),
    ]


def test_a_cycle_is_broken_where_it_points_back_in_time(file: Path) -> None:
    """Also a link of a node to itself; what follows the cycle keeps its links."""
    items = [
        run_item(1, 0, 100, nodes=3),
        node_item(2, "a", 0, 10, (3, "b"), (2, "a")),
        node_item(3, "b", 20, 30, (2, "a")),
        node_item(4, "c", 40, 50, (3, "b")),
    ]
    run = read_one(file, items)
    assert [node.upstream for node in run.nodes] == [(), (key(2),), (key(3),)]
    assert "2 nodes: links form a cycle; those that point back in time are left out." in run.problems


def test_clocks_that_disagree_are_told(file: Path) -> None:
    """A node before its upstream's end, and nodes outside of the run: the record reaches over all of them."""
    run = read_one(
        file, [run_item(1, 10, 50), node_item(2, "a", 5, 60), node_item(3, "b", 40, 45, (2, "a"), queue_ms=1)]
    )
    assert (run.started_ns, run.ended_ns) == (ns(5), ns(60))
    assert run.problems == (
        "Some nodes lie outside of their run's span; the run is taken to reach over them.",
        "1 node: started before an upstream node's end; clocks disagree. Steps are cut where the later one begins.",
    )


@pytest.mark.parametrize(("started", "ended"), [(5, 50), (10, 60)], ids=["before", "after"])
def test_a_node_outside_of_its_run(started: float, ended: float, file: Path) -> None:
    """On either side: a clock that disagrees is told."""
    run = read_one(file, [run_item(1, 10, 50, nodes=1), node_item(2, "a", started, ended)])
    assert (run.started_ns, run.ended_ns) == (ns(min(10, started)), ns(max(50, ended)))
    assert run.problems == ("Some nodes lie outside of their run's span; the run is taken to reach over them.",)


def test_microseconds_do_not_open_gaps(file: Path) -> None:
    """Jaeger rounds starts and durations apart: an end and a ready time that were one remain one."""
    items = [
        run_item(1, 0, 100),
        node_item(2, "a", 0.0019, 10.0008, queue_ms=0.0011),
        node_item(3, "b", 12.0005, 20.0007, (2, "a"), queue_ms=1.9997, dependency_ms=10,
                  attributes={"hamilton.node.cpu.duration": 0.0080002}),
    ]  # fmt: skip
    (run,) = read(file, jaeger(items))
    first, second = run.nodes
    assert second.ready_ns == first.ended_ns
    assert dict(second.states) == {"cpu": second.duration_ns}
    assert run.problems == ()


def test_half_a_last_line_is_left_out_and_said(file: Path) -> None:
    """What a killed process leaves; the next process starts a line of its own after it."""
    text = lines(WHOLE)
    (run,) = read(file, text + text[: len(text) // 5])
    assert len(run.nodes) == 2
    assert run.problems == (
        "The last line is not whole, as a killed process leaves it: spans of the last moments are missing.",
    )
    (run,) = read(file, text[:500] + "\n" + text + "\n\n")
    assert run.problems == ("1 of the file's lines could not be read: spans may be missing.",)
    first, *others = text.splitlines(keepends=True)
    (run,) = read(file, "".join([first, text[:500] + "\n", *others]))
    assert run.problems == ("1 of the file's lines could not be read: spans may be missing.",)


def test_a_compressed_file_that_is_cut_off_gives_what_comes_before(file: Path) -> None:
    """As a copy that was broken off leaves it."""
    items = [node_item(2 + i, f"n{i}", i, i + 1) for i in range(400)]
    whole = gzip.compress(lines([run_item(1, 0, 500, nodes=400), *items]).encode())
    (run,) = read(file, whole[: len(whole) // 2])
    assert 0 < len(run.nodes) < 400
    assert run.problems[0] == "The compressed file is cut off; what comes before was read."


def test_a_compressed_file_that_is_damaged_gives_what_comes_before(file: Path) -> None:
    """As a disk or a copy in text mode leaves it."""
    items = [node_item(2 + i, f"n{i}", i, i + 1) for i in range(4_000)]
    whole = bytearray(gzip.compress(lines([run_item(1, 0, 5_000, nodes=4_000), *items]).encode(), compresslevel=0))
    second = 10 + 5 + int.from_bytes(whole[11:13], "little")  # after the file's header, and the first block and its own
    whole[second + 1 : second + 5] = bytes(4)  # how long the second block is
    (run,) = read(file, bytes(whole))
    assert 0 < len(run.nodes) < 4_000
    assert run.problems[0] == "The compressed file is cut off; what comes before was read."


def test_a_span_without_ids_or_times_is_left_out(file: Path) -> None:
    """Of any type, and everything else in the file is read."""
    document = otlp(WHOLE)
    spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    whole = otlp_span(WHOLE[1])
    spans += [
        None, 3, {}, {**whole, "spanId": "xyz"}, {**whole, "startTimeUnixNano": "soon"},
        {**whole, "endTimeUnixNano": 10**80},
    ]  # fmt: skip
    document["resourceSpans"] += [None, {"scopeSpans": [None, {}, {"spans": 3}]}]
    (run,) = read(file, json.dumps(document))
    assert len(run.nodes) == 2
    assert run.problems == ("6 spans without usable ids or times: left out.",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_value_anywhere_in_a_trace_is_a_crash(file: Path, data: st.DataObject) -> None:
    """One value of the trace is anything at all: a record, or an error that is ours."""
    document = data.draw(st.sampled_from([otlp(WHOLE), json.loads(jaeger(WHOLE))]))
    at: Any = document
    while True:
        step = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[step], (dict, list)) or not at[step] or data.draw(st.booleans()):
            at[step] = data.draw(json_values)
            break
        at = at[step]
    try:
        runs = read(file, json.dumps(document))
    except TraceFileError:
        return
    for run in runs:
        assert all(node.submitted_ns <= node.ready_ns <= node.started_ns <= node.ended_ns for node in run.nodes)
        assert all(sum(node.states.values()) in (0, node.duration_ns) for node in run.nodes)
        assert all(each in run.by_key for node in run.nodes for each in node.upstream)


# What is no trace


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty; expected a trace"),
        ("\n \n", "holds a trace without a span"),
        (b"\x7fELF\0\0\1\2" * 100, "is binary; expected a trace"),
        ("name,age\nada,36\n", "is not JSON"),
        ('{"a": 1, "b": 2}', "holds a JSON object with the keys 'a', 'b'; expected a trace"),
        ("[1, 2]", "holds JSON that is not an object but a list"),
        ("3", "holds JSON that is not an object but a int"),
        ("{}", "holds an empty JSON object"),
        ('{"a": 1}\n{"a": 2}\n', "holds lines of JSON, the first of them a JSON object with the keys 'a'"),
        (lines(WHOLE)[:900], "holds half a line of spans and no whole one: the process that wrote it was killed"),
        ('{"resourceSpans": []}', "holds a trace without a span"),
        ('{"resourceMetrics": []}\n', "holds metrics or logs, and no spans"),
        (
            lines([replace(WHOLE[0], trace="no id")]),
            "holds spans, but none with usable ids and times; expected a trace",
        ),
        (lines([Item(1, "GET /", 0, 1, {})]), "holds 1 span, none of them of a Hamilton run or node; expected spans"),
        ("[" * 100_000, "is not JSON (nested too deeply)"),
        (gzip.compress(lines(WHOLE).encode(), mtime=0)[:40], "is compressed and cut off"),
        (b"\x1f\x8bnot gzip at all", "is compressed and damaged"),
    ],
    ids=lambda value: None if isinstance(value, bytes) or len(value) > 60 else value,
)
def test_a_file_that_is_no_trace_is_an_error_that_helps(content: str | bytes, said: str, file: Path) -> None:
    """What was found, what was expected, what to do."""
    with pytest.raises(TraceFileError) as caught:
        read(file, content)
    assert said in str(caught.value)
    assert repr(str(file)) in str(caught.value)


def test_no_file_and_a_directory_are_errors_that_help(tmp_path: Path) -> None:
    """`TraceFileError` is a ValueError, and names what to give instead."""
    with pytest.raises(TraceFileError, match=r"there is no file '.*missing.jsonl'; name one that"):
        read_runs(tmp_path / "missing.jsonl")
    with pytest.raises(ValueError, match=r"is a directory; name a file in it, such as '.*trace.jsonl'"):
        read_runs(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error_that_helps(file: Path) -> None:
    """With the reason of the operating system."""
    file.write_text("{}")
    file.chmod(0)
    with pytest.raises(TraceFileError, match=r"cannot be read .Permission denied"):
        read_runs(file)


@pytest.mark.parametrize("form", ["tempo", "jaeger"])
def test_a_document_that_is_too_large_is_refused_unless_told(form: str, file: Path) -> None:
    """It would be held in memory as a whole; lines of any number are not."""
    file.write_text(FORMATS[form](WHOLE * 200))
    with pytest.raises(TraceFileError, match="is a single JSON document, or has a line, of more than 100,000 bytes"):
        read_runs(file, max_document_bytes=100_000)
    assert len(read_runs(file)) == 1
    file.write_text(lines(WHOLE * 200))
    assert len(read_runs(file, max_document_bytes=100_000)) == 1


def test_progress_is_told_in_bytes_of_the_file(file: Path) -> None:
    """Rising, and the whole file at the end."""
    file.write_text(lines(WHOLE * 1500))
    told: list[int] = []
    read_runs(file, progress=told.append)
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == file.stat().st_size


def test_a_file_with_more_spans_of_others_than_memory_is_meant_to_hold(file: Path) -> None:
    """Of those, which lies in which is kept, four times as many as of ours."""
    foreign = [Item(100 + i, "GET /", 0, 1, {}, parent=100 + i - 1) for i in range(45)]
    file.write_text(lines([*WHOLE, *foreign]))
    with pytest.raises(TraceFileError, match=r"more than 10 spans of runs and nodes, or four times as many others"):
        read_runs(file, max_spans=10)
    assert len(read_runs(file, max_spans=12)) == 1


def test_a_file_with_more_spans_than_memory_is_meant_to_hold(tmp_path: Path) -> None:
    """Says so as soon as that is met, and what to do; what comes after is not read."""
    trace = write_trace(tmp_path / "large.jsonl", layered_run(2_000))
    lines = trace.read_text().splitlines(keepends=True)
    read: list[int] = []
    with pytest.raises(TraceFileError, match=r"more than 700 spans.*grep -F TRACE_ID.*split -C.*larger max_spans"):
        read_runs(trace, max_spans=700, progress=read.append)
    assert sum(read) < trace.stat().st_size
    (whole,) = read_runs(trace, max_spans=2_001)
    assert len(whole.nodes) == 2_000
    part = tmp_path / "part.jsonl"
    part.write_text("".join(lines[:1]))
    (some,) = read_runs(part, max_spans=700)
    assert (len(some.nodes), some.expected_nodes) == (511, 2_000)
