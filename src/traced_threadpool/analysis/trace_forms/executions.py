"""The spans of a run's nodes into executions, with their upstream.

Upstream is told by links. Where the SDK cut them off (it keeps 128), the names in `hamilton.node.upstream` tell it too:
each stands for the execution of that name with the same task id, else for all of that name that had ended by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from traced_threadpool.analysis.trace_forms.grouping import Gathered, Group
from traced_threadpool.analysis.trace_forms.limits import any_cut, name_of, outcome_of, whole_names
from traced_threadpool.analysis.trace_forms.span import Attributes, Span, number_of, text_of, texts, whole
from traced_threadpool.model.lock_wait import LockWait
from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.records import worker_of
from traced_threadpool.model.states import STATES, State
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.attribute_values import UNRUN_NS

MAX_LINKS: Final = 128
"""How many links the SDK keeps unless it is told otherwise."""

ROUNDING: Final = 2
"""Two roundings, of a start and of a duration, in units of the format's resolution."""

_LONGEST_SECONDS: Final = 1e9


def executions(
    members: Sequence[Group], root: Group, gathered: Gathered, repairs: Counter[str], *, thinned: bool
) -> list[NodeExecution]:
    """The nodes of a run and of those nested in it. Names are looked up within one run, links anywhere."""
    by_group = [[_execution(span, group, root, repairs) for span in group.nodes] for group in members]
    is_cut = any_cut(members)
    by_id = {
        span.id: node
        for group, nodes in zip(members, by_group, strict=True)
        for span, node in zip(group.nodes, nodes, strict=True)
    }
    for group, nodes in zip(members, by_group, strict=True):
        by_name: dict[str, list[NodeExecution]] = {}
        for node in nodes:
            by_name.setdefault(node.name, []).append(node)
        look_up = _LookUp(by_id, by_name, gathered.nodes, thinned, is_cut)
        for node, span in zip(nodes, group.nodes, strict=True):
            _link(node, span, look_up, repairs)
    return [node for nodes in by_group for node in nodes]


@dataclass(frozen=True, slots=True)
class _LookUp:
    """Where a node's upstream is looked for."""

    by_id: Mapping[str, NodeExecution]
    by_name: Mapping[str, Sequence[NodeExecution]]
    in_file: Mapping[str, tuple[str, Span]]
    thinned: bool
    """Whether nodes were left out: then of those of one name, none in another task may be taken for this one's."""
    is_cut: bool
    """Whether names may be cut off."""


def _execution(span: Span, group: Group, root: Group, repairs: Counter[str]) -> NodeExecution:
    """A node without its upstream."""
    attributes = span.attributes
    run_started_ns = None if group.span is None else group.span.started_ns
    started_ns, ended_ns = span.started_ns, span.ended_ns
    if ended_ns < started_ns:
        repairs["duration"] += 1
        ended_ns = started_ns
    outcome = outcome_of(attributes)
    if outcome in ("upstream_error", "cancelled"):
        # It never ran. So that viewers show it, its span has a length, and starts as much after what stopped it.
        started_ns -= min(ended_ns - started_ns, UNRUN_NS)
        ended_ns = started_ns
    queue_ns = nanoseconds(attributes.get(names.NODE_QUEUE, 0))
    dependency_ns = nanoseconds(attributes.get(names.NODE_DEPENDENCY, 0))
    ready_ns = started_ns - (queue_ns or 0)
    submitted_ns = ready_ns - (dependency_ns or 0)
    backend, pid = text_of(attributes, names.NODE_BACKEND) or "", whole(attributes.get(names.NODE_WORKER_PID))
    began_ns, until_ns = _function_ns(attributes, started_ns, ended_ns) if backend else (0, 0)
    earliest_ns = submitted_ns if run_started_ns is None else min(run_started_ns, started_ns)
    if queue_ns is None or dependency_ns is None or submitted_ns < earliest_ns - ROUNDING * span.resolution_ns:
        repairs["waits"] += 1
    submitted_ns, ready_ns = max(submitted_ns, earliest_ns), max(ready_ns, earliest_ns)
    return NodeExecution(
        key=span.id[32:],
        name=name_of(span),
        submitted_ns=submitted_ns,
        ready_ns=ready_ns,
        started_ns=started_ns,
        ended_ns=ended_ns,
        outcome=outcome,
        worker=worker_of(backend, pid)
        if pid and backend
        else text_of(attributes, names.THREAD_NAME) or text_of(attributes, names.THREAD_ID) or "",
        backend=backend,
        is_remote=bool(pid and backend),
        sent_bytes=max(0, whole(attributes.get(names.NODE_SENT)) or 0) if backend else 0,
        received_bytes=max(0, whole(attributes.get(names.NODE_RECEIVED)) or 0) if backend else 0,
        function_started_ns=began_ns,
        function_ended_ns=until_ns,
        clock_correction_ns=nanoseconds(attributes.get(names.NODE_CLOCK_CORRECTION, 0)) or 0,
        task_id=text_of(attributes, names.TASK_ID),
        states=_states(attributes, ended_ns - started_ns, span.resolution_ns, repairs),
        samples=max(0, whole(attributes.get(names.NODE_SAMPLES)) or 0),
        lock=_lock(attributes) if names.NODE_LOCK_NAME in attributes else None,
        queue_others_ns=min(nanoseconds(attributes.get(names.NODE_QUEUE_OTHERS, 0)) or 0, started_ns - ready_ns),
        error_type=text_of(attributes, names.ERROR_TYPE),
        error_message=span.error_message,
        failed_upstream=text_of(attributes, names.NODE_FAILED_UPSTREAM),
        parent=None if group.parent is None or group is root else group.parent[32:],
        run_id=None if group is root else group.run_id,
    )


def _function_ns(attributes: Attributes, started_ns: int, ended_ns: int) -> tuple[int, int]:
    """When its function began and ended on a worker of a backend, within the node; (0, 0) where nothing tells."""
    ended = nanoseconds(attributes.get(names.NODE_FUNCTION_END, 0)) or 0
    until_ns = min(started_ns + ended, ended_ns)
    began_ns = min(started_ns + (nanoseconds(attributes.get(names.NODE_FUNCTION_START, 0)) or 0), until_ns)
    return (began_ns, until_ns) if ended > 0 else (0, 0)


def _lock(attributes: Attributes) -> LockWait:
    return LockWait(
        name=text_of(attributes, names.NODE_LOCK_NAME) or "",
        line=text_of(attributes, names.NODE_LOCK_LINE) or "",
        capacity=max(0, whole(attributes.get(names.NODE_LOCK_CAPACITY)) or 0) or None,
        waits=max(1, whole(attributes.get(names.NODE_LOCK_WAITS)) or 1),
        first_ns=nanoseconds(attributes.get(names.NODE_LOCK_FIRST, 0)) or 0,
        last_ns=nanoseconds(attributes.get(names.NODE_LOCK_LAST, 0)) or 0,
    )


def _link(node: NodeExecution, span: Span, look_up: _LookUp, repairs: Counter[str]) -> None:
    """Gives it its upstream. Nobody has seen it yet: a copy of each would be a fifth of the time that reading takes."""
    if not span.links and not span.dropped_links and names.NODE_UPSTREAM not in span.attributes:
        return
    told: Collection[str] = texts(span.attributes.get(names.NODE_UPSTREAM))
    if look_up.is_cut:
        told = whole_names(told, look_up.by_name)
    is_told = names.NODE_UPSTREAM in span.attributes
    upstream: dict[str, None] = {}
    found: set[str] = set()  # names whose execution is known, be it in this record or another run's
    lost, last_ns = 0, 0
    for link in span.links:
        if link == span.id:
            repairs["cycle"] += 1
        elif (linked := look_up.by_id.get(link)) is not None:
            if not is_told or linked.name in told:
                upstream[linked.key] = None
                last_ns = max(last_ns, linked.ended_ns)
                found.add(linked.name)
        elif link in look_up.in_file:
            found.add(name_of(look_up.in_file[link][1]))
        else:
            lost += 1
    missing = [name for name in told if name not in found]
    if span.dropped_links or len(span.links) >= MAX_LINKS or len(missing) > lost:
        before = len(upstream)
        cut = span.dropped_links or len(span.links) >= MAX_LINKS
        for name in told:
            if look_up.thinned and name in found and not cut:
                continue
            others = _named(name, node, look_up.by_name, same_task=look_up.thinned and not cut)
            for other in others:
                upstream[other.key] = None
                last_ns = max(last_ns, other.ended_ns)
            if others:
                found.add(name)
        # A node that never ran need not have had spans to link to: some of its inputs had not started.
        repairs["links"] += node.ran and len(upstream) > before and not look_up.thinned
        missing = [name for name in told if name not in found]
    untold = not is_told and (lost or (span.dropped_links and span.dropped_attributes))
    if node.ran and (missing or untold) and not look_up.thinned:
        repairs["upstream"] += 1
    rounding_ns = ROUNDING * span.resolution_ns
    if upstream and span.resolution_ns > 1 and abs(last_ns - node.ready_ns) <= rounding_ns:
        # An end and a ready time that differ by rounding alone are one.
        object.__setattr__(node, "ready_ns", max(node.submitted_ns, min(last_ns, node.started_ns)))
    if upstream:
        object.__setattr__(node, "upstream", tuple(upstream))


def _named(
    name: str, node: NodeExecution, by_name: Mapping[str, Sequence[NodeExecution]], *, same_task: bool
) -> list[NodeExecution]:
    """The executions that an upstream name stands for."""
    found = [other for other in by_name.get(name, ()) if other is not node]
    if same_task:
        return [other for other in found if other.task_id == node.task_id and other.ended_ns <= node.started_ns]
    if len(found) > 1:
        found = [other for other in found if other.task_id == node.task_id] or [
            other for other in found if other.ended_ns <= node.started_ns
        ]
    return found


def without_cycles(nodes: list[NodeExecution], repairs: Counter[str]) -> list[NodeExecution]:
    """The same, without links that go round in a circle and back in time."""
    downstream: dict[str, list[str]] = {node.key: [] for node in nodes}
    left = {node.key: 0 for node in nodes}
    for node in nodes:
        for key in node.upstream:
            downstream[key].append(node.key)
            left[node.key] += 1
    settled = [key for key, count in left.items() if not count]
    for key in settled:  # grows while it is gone through
        for dependent in downstream[key]:
            left[dependent] -= 1
            if not left[dependent]:
                settled.append(dependent)
    if len(settled) == len(nodes):
        return nodes
    sound = set(settled)
    in_time = sorted((node for node in nodes if node.key not in sound), key=lambda node: node.started_ns)
    place = {node.key: index for index, node in enumerate(in_time)}

    def in_time_only(node: NodeExecution) -> NodeExecution:
        if node.key in sound:
            return node
        upstream = tuple(key for key in node.upstream if key in sound or place[key] < place[node.key])
        if len(upstream) == len(node.upstream):
            return node
        repairs["cycle"] += 1
        return replace(node, upstream=upstream)

    return [in_time_only(node) for node in nodes]


def disagreeing(nodes: Sequence[NodeExecution], tolerance_ns: int) -> int:
    """How many nodes started before what they needed had ended."""
    ends = {node.key: node.ended_ns for node in nodes}
    return sum(any(ends[key] > node.started_ns + tolerance_ns for key in node.upstream) for node in nodes if node.ran)


_STATE_NAMES: Final = tuple((state, names.NODE_CPU if state == "cpu" else names.node_wait(state)) for state in STATES)


def _states(attributes: Attributes, duration_ns: int, resolution_ns: int, repairs: Counter[str]) -> dict[State, int]:
    """The parts of the duration. What is not told is `other`; too much is scaled down."""
    states: dict[State, int] = {}
    sum_ns, unusable = 0, False
    for state, name in _STATE_NAMES:
        value = attributes.get(name)
        if value is not None:
            part_ns = nanoseconds(value)
            if part_ns is None:
                unusable = True
            else:
                sum_ns += part_ns
            states[state] = part_ns or 0
    if not states or not duration_ns:
        return {}
    excess_ns = sum_ns - duration_ns
    if unusable or excess_ns > ROUNDING * resolution_ns:
        repairs["states"] += 1
    if excess_ns > 0:
        total_ns = duration_ns + excess_ns
        states = {state: part_ns * duration_ns // total_ns for state, part_ns in states.items()}
        longest = max(states, key=lambda state: states[state])
        states[longest] += duration_ns - sum(states.values())
    elif excess_ns < 0:
        states["other"] = states.get("other", 0) - excess_ns
    return {state: part_ns for state, part_ns in states.items() if part_ns}


def nanoseconds(seconds: object) -> int | None:
    """None for what is no duration."""
    number = seconds if type(seconds) is float else number_of(seconds)
    return None if number is None or not 0 <= number < _LONGEST_SECONDS else round(number * 1e9)
