"""A recorded run into lines of OTLP/JSON, as the adapter's own spans would be: `read_runs` gives the run back.

Its trace id follows from the run's id, so that a run that is saved twice is one run. Nodes keep the span ids that they
were read with; those of a run that was recorded in the process are numbered. A run that is `beside` another is marked,
so that the file does not count it among its own.

>>> from traced_threadpool.model.recorded_run import NodeExecution
>>> node = NodeExecution(key="0", name="load", submitted_ns=5, ready_ns=5, started_ns=5, ended_ns=9)
>>> run = RecordedRun(id="r", name="etl", pool="p", started_ns=5, ended_ns=9, nodes=(node,))
>>> [line] = lines_of(run, started_unix_ns=5)
>>> [span["name"] for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]]
['etl', 'load']
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.attribute_values import gil_holder_exactly, lock_attributes

BATCH: Final = 512
"""How many spans stand in a line."""

_SPAN_ID: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")
_INTERNAL: Final = 1
_ERROR: Final = 2

Json = dict[str, Any]


def lines_of(run: RecordedRun, *, started_unix_ns: int, beside: bool = False) -> Iterator[str]:
    """The run's spans, as lines with their ends."""
    spans = _Spans(run, started_unix_ns, beside).all
    for first in range(0, len(spans), BATCH):
        scope = {"scope": {"name": names.SCOPE}, "spans": spans[first : first + BATCH]}
        document = {"resourceSpans": [{"resource": {}, "scopeSpans": [scope]}]}
        # A lone surrogate stays an escape, so that the line is UTF-8.
        yield json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"


class _Spans:
    """The spans of one run, and of those that its nodes executed."""

    def __init__(self, run: RecordedRun, started_unix_ns: int, beside: bool) -> None:
        self.run = run
        self._beside = beside
        self.trace_id = _hash(f"{run.id}\n{run.started_unix_ns}{beside or ''}", 16)
        self._offset_ns = started_unix_ns - run.started_ns
        kept = all(map(_SPAN_ID.fullmatch, run.by_key))
        self._ids = {key: key if kept else f"{number:016x}" for number, key in enumerate(run.by_key, 1)}
        self._taken = set(self._ids.values())
        nested: dict[tuple[str | None, str | None], list[NodeExecution]] = {(None, None): []}
        for node in run.nodes:
            nested.setdefault(self._place(node), []).append(node)
        self.all = [span for place, nodes in nested.items() for span in self._of_one(place, nodes, nested)]

    def _place(self, node: NodeExecution) -> tuple[str | None, str | None]:
        """Which run it is of: the key of the node that executed that, and its id."""
        return (node.parent, node.run_id) if node.parent in self._ids else (None, None)

    def _of_one(
        self,
        place: tuple[str | None, str | None],
        nodes: Sequence[NodeExecution],
        nested: Mapping[tuple[str | None, str | None], Sequence[NodeExecution]],
    ) -> Iterator[Json]:
        parent, run_id = place
        own_id = self._new_id(f"{parent} {run_id}")
        yield self._of_run(own_id, nested) if parent is None else self._of_nested_run(own_id, parent, run_id, nodes)
        for node in nodes:
            yield self._of_node(node, own_id, self.run.id if parent is None else run_id)

    def _of_run(self, own_id: str, nested: Mapping[Any, Sequence[NodeExecution]]) -> Json:
        run = self.run
        others = sum(len(nodes) for place, nodes in nested.items() if place != (None, None))
        values = {
            names.RUN_ID: run.id,
            names.RUN_OUTCOME: run.outcome,
            # The counts of all runs in a record are added up when it is read.
            names.RUN_NODE_COUNT: None if run.expected_nodes is None else max(0, run.expected_nodes - others),
            names.RUN_SPANS_LEFT_OUT: run.left_out or None,
            names.RUN_PRIORITY: run.priority,
            names.THREAD_ID: run.caller or None,
            names.POOL_NAME: run.pool,
            names.POOL_LIMIT: run.max_workers,
            names.POOL_BACKENDS: [f"{name} {lane}" for name, lane in run.backends.items()],
            names.CPUS_LIMIT: run.cpus,
            names.ATTRIBUTION_METHOD: run.attribution,
            names.ATTRIBUTION_REASON: run.attribution_reason,
            names.RUN_GIL_HOLDERS: [gil_holder_exactly(name, ns / 1e9) for name, ns in run.gil_holders.items()],
            names.ERROR_TYPE: run.error_type,
            names.RECORD_PROBLEMS: list(run.problems),
            names.RECORD_BESIDE: self._beside or None,
        }
        return self._span(own_id, None, run.name, run.started_ns, run.ended_ns, values)

    def _of_nested_run(self, own_id: str, parent: str, run_id: str | None, nodes: Sequence[NodeExecution]) -> Json:
        values = {
            names.RUN_ID: run_id,
            names.RUN_OUTCOME: "success",
            names.RUN_NODE_COUNT: None if self.run.expected_nodes is None else len(nodes),
            names.POOL_NAME: self.run.pool,
        }
        started_ns = min(node.submitted_ns for node in nodes)
        ended_ns = max(node.ended_ns for node in nodes)
        return self._span(own_id, self._ids[parent], names.DEFAULT_RUN_NAME, started_ns, ended_ns, values)

    def _of_node(self, node: NodeExecution, run_span: str, run_id: str | None) -> Json:
        values: dict[str, object] = {
            names.NODE_NAME: node.name,
            names.RUN_ID: run_id,
            names.POOL_NAME: self.run.pool,
            names.NODE_OUTCOME: node.outcome,
            names.NODE_QUEUE: node.queue_ns / 1e9,
            names.NODE_QUEUE_OTHERS: node.queue_others_ns / 1e9 or None,
            names.NODE_DEPENDENCY: node.dependency_ns / 1e9,
            names.THREAD_NAME: node.worker,
            names.NODE_BACKEND: node.backend or None,
            names.NODE_SENT: node.sent_bytes or None,
            names.NODE_RECEIVED: node.received_bytes or None,
            names.NODE_FUNCTION_START: _seconds(node.function_started_ns - node.started_ns, node.function_ended_ns),
            names.NODE_FUNCTION_END: _seconds(node.function_ended_ns - node.started_ns, node.function_ended_ns),
            names.NODE_CLOCK_CORRECTION: node.clock_correction_ns / 1e9 or None,
            names.NODE_WORKER_PID: _pid(node.worker) if node.is_remote else None,
            names.TASK_ID: node.task_id,
            names.NODE_SAMPLES: node.samples or None,
            names.NODE_FAILED_UPSTREAM: node.failed_upstream,
            names.ERROR_TYPE: node.error_type,
        }
        if node.lock is not None:
            values.update(lock_attributes(node.lock))
        for state, state_ns in node.states.items():
            values[names.NODE_CPU if state == "cpu" else names.node_wait(state)] = state_ns / 1e9
        span = self._span(self._ids[node.key], run_span, node.name, node.started_ns, node.ended_ns, values)
        links = [(self._ids[key], self.run.by_key[key].name) for key in node.upstream if key in self._ids]
        if links:
            span["links"] = [
                {
                    "traceId": self.trace_id,
                    "spanId": linked,
                    "attributes": _attributes({names.LINK_PARAMETER: name}),
                }
                for linked, name in links
            ]
        if node.outcome == "error":
            span["status"] = {"code": _ERROR, **({"message": node.error_message} if node.error_message else {})}
        return span

    def _span(
        self, own_id: str, parent: str | None, name: str, started_ns: int, ended_ns: int, values: Mapping[str, object]
    ) -> Json:
        return {
            "traceId": self.trace_id,
            "spanId": own_id,
            **({} if parent is None else {"parentSpanId": parent}),
            "name": name,
            "kind": _INTERNAL,
            "startTimeUnixNano": str(started_ns + self._offset_ns),
            "endTimeUnixNano": str(ended_ns + self._offset_ns),
            "attributes": _attributes(values),
        }

    def _new_id(self, text: str) -> str:
        """One that no other span of the run has."""
        while (found := _hash(text, 8)) in self._taken or not _SPAN_ID.fullmatch(found):
            text += "'"
        self._taken.add(found)
        return found


def _hash(text: str, size: int) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def _attributes(values: Mapping[str, object]) -> list[Json]:
    return [{"key": key, "value": _any_value(value)} for key, value in values.items() if value is not None]


def _any_value(value: object) -> Json:
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(each) for each in value]}}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def _seconds(ns: int, known: int) -> float | None:
    return ns / 1e9 if known else None


def _pid(worker: str) -> int | None:
    """That of `worker_of`."""
    number = worker.rpartition(" ")[2]
    return int(number) if number.isascii() and number.isdigit() else None
