"""Records into span attributes. Pure functions: what is known of a run or node, as OpenTelemetry has it.

What matters most comes last: where there are more attributes than the SDK keeps, it drops the first.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from operator import attrgetter
from typing import Any, Final

from traced_threadpool.model import forks
from traced_threadpool.model.records import THREADS, KeptNodes, NodeRecord, RunRecord, WaitFacts, usable_cpus
from traced_threadpool.model.states import CPU, STATES
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.attribute_values import gil_holder, lock_attributes
from traced_threadpool.telemetry.tracing.backend_attributes import of_backend

AttributeValue = str | bool | int | float | Sequence[str] | Sequence[float]
Attributes = dict[str, AttributeValue]

STEAL_WORTH_TELLING: Final = 0.01
_started_ns: Final = attrgetter("started_ns")
_ready_ns: Final = attrgetter("ready_ns")

MAX_GIL_HOLDERS: Final = 5
MAX_FAILED_NODES: Final = 20
MAX_DEFINITIONS: Final = 10_000
"""How many nodes' unchanging attributes are kept."""

# In the order of `STATES`; none for `cpu`, which has an attribute of another name.
_NODE_WAITS: Final = tuple(None if state == "cpu" else names.node_wait(state) for state in STATES)
_RUN_WAITS: Final = tuple(None if state == "cpu" else names.run_wait(state) for state in STATES)


# Runs


def of_run(
    run: RunRecord,
    kept: KeptNodes,
    *,
    pool_name: str,
    max_workers: int,
    backends: Sequence[str],
    graph_version: str | None,
    state_ns: Sequence[int] | None,
    left_out: int | None,
    finding: str | None,
) -> Attributes:
    """Of a run that has ended. `state_ns` are the sums over its nodes; `left_out` is how many have no span."""
    attributes: Attributes = {}
    if run.wait_facts is not None:
        attributes.update(_of_waits(run.wait_facts()))
        if state_ns is not None:
            attributes[names.RUN_CPU] = state_ns[CPU] / 1e9
            _add_waits(attributes, state_ns, _RUN_WAITS)
    if graph_version is not None:
        attributes[names.GRAPH_VERSION] = graph_version
    if kept.whole:
        attributes[names.RUN_QUEUE] = _queue_ns(run, kept) / 1e9
    failed = dict.fromkeys([node.name for node in kept.nodes if node.outcome == "error"])
    if kept.facts.names:
        attributes[names.CRITICAL_PATH_DURATIONS] = kept.facts.durations
    for key, texts in (
        (names.RUN_INPUTS, run.input_names),
        (names.RUN_OVERRIDES, run.override_names),
        (names.RUN_OUTPUTS, run.output_names),
        (names.CRITICAL_PATH, kept.facts.names),
        (names.RUN_FAILED_NODES, tuple(failed)[:MAX_FAILED_NODES]),
    ):
        if texts:
            attributes[key] = texts
    attributes[names.CPUS_LIMIT] = usable_cpus()
    attributes[names.RUN_PRIORITY] = run.priority
    if run.placed:
        attributes[names.RUN_PLACEMENT] = list(run.placed.values())
    if left_out is not None:
        attributes[names.RUN_SPANS_LEFT_OUT] = left_out
    if finding is not None:
        attributes[names.RUN_FINDING] = finding
    if run.outcome == "error" and run.error is not None:
        attributes[names.ERROR_TYPE] = error_type(run.error)
    if run.caller:
        attributes[names.THREAD_ID] = run.caller
    attributes[names.POOL_LIMIT] = max_workers
    if backends:
        attributes[names.POOL_BACKENDS] = backends
    attributes[names.POOL_NAME] = pool_name
    attributes[names.RUN_NODE_COUNT] = run.node_count
    attributes[names.RUN_OUTCOME] = run.outcome or "success"
    attributes[names.RUN_ID] = run.id
    return attributes


def _queue_ns(run: RunRecord, kept: KeptNodes) -> int:
    nodes = kept.nodes
    if run.outcome != "success":
        nodes = [node for node in nodes if node.worker]  # else all have run
    started_ns: int = sum(map(_started_ns, nodes))
    ready_ns: int = sum(map(_ready_ns, nodes))
    return started_ns - ready_ns


def _of_waits(facts: WaitFacts) -> Attributes:
    attributes: Attributes = {names.ATTRIBUTION_METHOD: facts.method}
    if facts.reason is not None:
        attributes[names.ATTRIBUTION_REASON] = facts.reason
    longest = nlargest(MAX_GIL_HOLDERS, facts.gil_holders.items(), key=lambda each: each[1])
    if longest:
        attributes[names.RUN_GIL_HOLDERS] = [gil_holder(name, caused_ns) for name, caused_ns in longest]
    if facts.steal_ratio > STEAL_WORTH_TELLING:
        attributes[names.RUN_STEAL] = facts.steal_ratio
    return attributes


# Nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a framework's node object says of itself."""

    tags: Mapping[str, Any]
    function: Callable[..., Any] | None


class Definitions:
    """What is the same in each run of a node, worked out once for each of the framework's node objects.

    Args:
        describe: Gives the definition of a framework's node object.
        pool_name: Value of `hamilton.threadpool.name`.
    """

    def __init__(self, describe: Callable[[Any], Definition], pool_name: str) -> None:
        self._describe = describe
        self._pool_name = pool_name
        self._known: dict[int, tuple[weakref.ref[Any], Attributes]] = {}
        forks.register(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        self._known = forks.kept_in_child(self._known, {})

    def of(self, node: NodeRecord) -> Attributes:
        """A copy, for the caller to add to."""
        known = self._known.get(id(node.definition))
        if known is not None and known[0]() is node.definition:
            return known[1].copy()
        attributes: Attributes = {}
        if node.definition is not None:
            described = self._describe(node.definition)
            code = of_code(described.function)
            for key, value in described.tags.items():
                if key != "module" or not str(code.get(names.CODE_FUNCTION, "")).startswith(f"{value}."):
                    attributes[names.NODE_TAG_PREFIX + key] = _attribute_value(value)
            attributes.update(code)
        attributes[names.POOL_NAME] = self._pool_name
        attributes[names.NODE_NAME] = node.name
        if node.definition is not None:
            if len(self._known) >= MAX_DEFINITIONS:
                self._known.clear()
            self._known[id(node.definition)] = (weakref.ref(node.definition), attributes.copy())
        return attributes


def add_start(attributes: Attributes, node: NodeRecord) -> None:
    """What is known when a node starts, besides its definition."""
    if node.task_id is not None:
        attributes[names.TASK_ID] = node.task_id
    thread = node.thread
    if thread is not None:
        attributes[names.THREAD_ID] = thread.ident or 0
        attributes[names.THREAD_NAME] = thread.name
    ready_ns = node.ready_ns
    attributes[names.NODE_DEPENDENCY] = (ready_ns - node.submitted_ns) / 1e9
    attributes[names.NODE_QUEUE] = (node.started_ns - ready_ns) / 1e9
    if node.queue_others_ns > 0:
        attributes[names.NODE_QUEUE_OTHERS] = min(node.queue_others_ns, node.started_ns - ready_ns) / 1e9
    if node.inputs:
        upstream = _upstream_names(node)
        if upstream:
            attributes[names.NODE_UPSTREAM] = upstream
    if node.run_id is not None:
        attributes[names.RUN_ID] = node.run_id


def of_end(node: NodeRecord, again: Attributes | None = None) -> Attributes:
    """What is known when a node has ended. `again` is what it started with, where some of that was dropped since."""
    attributes: Attributes = {names.NODE_CPU: node.cpu_ns / 1e9}
    if again:
        attributes.update(each for each in again.items() if not each[0].startswith(names.NODE_TAG_PREFIX))
        attributes[names.NODE_NAME] = attributes.pop(names.NODE_NAME, node.name)
    if node.state_ns is not None:
        _add_waits(attributes, node.state_ns, _NODE_WAITS)
        if node.state_ns is not node.counted_ns:  # there was something to divide
            attributes[names.NODE_SAMPLES] = node.samples
    if node.lock is not None:
        attributes.update(lock_attributes(node.lock))
    if node.timing is not None or node.backend is not THREADS:
        attributes.update(of_backend(node))
    if node.error is not None:
        attributes[names.ERROR_TYPE] = error_type(node.error)
    attributes[names.NODE_OUTCOME] = node.outcome or "success"
    return attributes


def add_why_it_never_ran(attributes: Attributes, node: NodeRecord) -> None:
    """Of a node that never ran."""
    if node.outcome == "upstream_error" and node.cause is not None and node.cause.name:
        attributes[names.NODE_FAILED_UPSTREAM] = node.cause.name
    attributes[names.NODE_OUTCOME] = node.outcome or "cancelled"  # the last is what a limit leaves


def _upstream_names(node: NodeRecord) -> Sequence[str]:
    inputs = node.inputs
    if len(inputs) == 1 and inputs[0].name:
        return (inputs[0].name,)
    return tuple(dict.fromkeys([upstream.name for upstream in inputs if upstream.name]))


# Parts


def add_cut(attributes: Attributes, limit: int | None, earlier: Attributes | None = None) -> None:
    """Adds how many values, of these and of those given earlier, are longer than the SDK's limit, which cuts them."""
    if limit is not None:
        values = [*(earlier or {}).values(), *attributes.values()]
        if count := sum(_longest_text(value) > limit for value in values):
            attributes[names.ATTRIBUTES_CUT] = count


def _longest_text(value: AttributeValue) -> int:
    if isinstance(value, str):
        return len(value)
    return max((len(each) for each in value if isinstance(each, str)), default=0) if isinstance(value, Sequence) else 0


def _add_waits(attributes: Attributes, state_ns: Sequence[int], keys: Sequence[str | None]) -> None:
    """What is not 0 of the states that have a key."""
    for key, one_ns in zip(keys, state_ns, strict=True):
        if one_ns and key is not None:
            attributes[key] = one_ns / 1e9


def error_type(error: BaseException) -> str:
    """The exception's type as `error.type` wants it.

    >>> error_type(KeyError("private")), error_type(__import__("json").JSONDecodeError("", "", 0))
    ('KeyError', 'json.decoder.JSONDecodeError')
    """
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _attribute_value(value: Any) -> AttributeValue:
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [str(each) for each in value]
    return str(value)


def of_code(function: Callable[..., Any] | None) -> Attributes:
    """Where a node's function was written."""
    if function is None:
        return {}
    source = inspect.unwrap(function)
    module, name = getattr(source, "__module__", None), getattr(source, "__qualname__", None)
    attributes: Attributes = {}
    if name is not None:
        attributes[names.CODE_FUNCTION] = f"{module}.{name}" if module else name
    code = getattr(source, "__code__", None)
    if code is not None:
        attributes[names.CODE_FILE] = code.co_filename
        attributes[names.CODE_LINE] = code.co_firstlineno
    return attributes
