"""Spans, in any order, into recorded runs: one for each run that is not nested in another.

What belongs together: a node to the run whose span is its parent, else to the one whose id it carries; a run to the
node that executed it, where their spans are of one process and one pool, whatever spans lie between them. Upstream is
told by links. Where the SDK cut them off (it keeps 128), the names in `hamilton.node.upstream` tell it too: each
stands for the execution of that name with the same task id, else for all of that name that had ended by then.

A trace is never quite whole. What is missing, and what had to be repaired, is said in each record's `problems`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar, get_args

from traced_threadpool.analysis.diagnosis.words import count
from traced_threadpool.analysis.trace_forms.span import Attributes, Span, Unreadable, number_of, numbers, texts, whole
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.records import OUTCOMES, STATES, Outcome, RunOutcome, State
from traced_threadpool.telemetry import names

_Outcome = TypeVar("_Outcome", bound=str)

MAX_LINKS: Final = 128
"""How many links the SDK keeps unless it is told otherwise."""

_RUN_OUTCOMES: Final[tuple[RunOutcome, ...]] = get_args(RunOutcome)
_LONGEST_SECONDS: Final = 1e9
_ROUNDING: Final = 2  # two roundings, of a start and of a duration, in units of the format's resolution


@dataclass(slots=True)
class Gathered:
    """What a file holds, before it is put together. `take` is called for each span."""

    spans: int = 0
    unreadable: int = 0
    duplicates: int = 0
    nodes: dict[str, tuple[str, Span]] = field(default_factory=dict)
    """By span id: the identity of the process, and the span."""
    runs: dict[str, tuple[str, Span]] = field(default_factory=dict)
    parents: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Of every span that has a parent: which, and whether that is in another process."""
    processes: dict[str, None] = field(default_factory=dict)

    def take(self, process: str, span: Span | Unreadable) -> None:
        if isinstance(span, Unreadable):
            self.unreadable += 1
            return
        self.spans += 1
        self.processes[process] = None
        if span.parent_id is not None:
            self.parents[span.id] = (span.parent_id, span.parent_is_remote)
        kind = self.nodes if span.is_node else self.runs if span.is_run else None
        if kind is None:
            return
        if span.id in kind:
            self.duplicates += 1
        else:
            kind[span.id] = (process, span)


@dataclass(slots=True)
class _Group:
    """The nodes of one run, and its span unless that is missing."""

    run_id: str
    process: str
    pool: str
    span: Span | None = None
    nodes: list[Span] = field(default_factory=list)
    root: str = ""
    parent: str | None = None


def runs_from(gathered: Gathered, problems: Sequence[str] = ()) -> list[RecordedRun]:
    """All runs, by their start. `problems` are those of the file, which each run may suffer from."""
    groups = _groups(gathered)
    _nest(groups, gathered)
    members: dict[str, list[_Group]] = {}
    for name, group in groups.items():
        members.setdefault(group.root, []).append(groups[name])
    shared = list(problems)
    if gathered.unreadable:
        shared.append(f"{count(gathered.unreadable, 'span')} without usable ids or times: left out.")
    if gathered.duplicates:
        shared.append(f"{count(gathered.duplicates, 'span')} more than once in the file: counted once.")
    runs = [_record(groups[root], of_root, gathered, shared) for root, of_root in members.items()]
    return sorted(runs, key=lambda run: run.started_ns)


def _groups(gathered: Gathered) -> dict[str, _Group]:
    """By the run span's id where there is one, else by what its nodes have in common."""
    groups: dict[str, _Group] = {}
    by_run_id: dict[str, str] = {}
    for name, (process, span) in gathered.runs.items():
        group = _Group(
            _text(span.attributes, names.RUN_ID) or "", process, _text(span.attributes, names.POOL_NAME) or "", span
        )
        groups[name] = group
        by_run_id.setdefault(group.run_id, name)
    for process, span in gathered.nodes.values():
        parent_id, run_id = span.parent_id or "", _text(span.attributes, names.RUN_ID)
        if parent_id in gathered.runs:
            of_run = parent_id
        elif run_id is not None:
            of_run = by_run_id.get(run_id, run_id)
        else:
            of_run = f"no run {span.id[:32]}{parent_id}"
        if of_run not in groups:
            groups[of_run] = _Group(run_id or "", process, _text(span.attributes, names.POOL_NAME) or "")
        groups[of_run].nodes.append(span)
    return groups


def _nest(groups: dict[str, _Group], gathered: Gathered) -> None:
    """Sets for each run the node that executed it, if one did, and the outermost run around it."""
    group_of_node = {node.id: name for name, group in groups.items() for node in group.nodes}
    outer: dict[str, str] = {}
    for name, group in groups.items():
        if group.span is None:
            continue
        node_id = _enclosing_node(group.span, gathered)
        if node_id is None:
            continue
        around = groups[group_of_node[node_id]]
        if around is not group and (around.process, around.pool) == (group.process, group.pool):
            group.parent = node_id
            outer[name] = group_of_node[node_id]
    for name, group in groups.items():
        seen, root = {name}, name
        while root in outer and outer[root] not in seen:
            root = outer[root]
            seen.add(root)
        if root in outer:  # spans that are each other's parents: none of them is outermost
            root = name
            group.parent = None
            del outer[name]
        group.root = root


def _enclosing_node(span: Span, gathered: Gathered) -> str | None:
    seen: set[str] = set()
    at = span.id
    while at in gathered.parents and at not in seen:
        seen.add(at)
        at, is_remote = gathered.parents[at]
        if is_remote:
            return None
        if at in gathered.nodes:
            return at
    return None


def _record(root: _Group, members: Sequence[_Group], gathered: Gathered, shared: Sequence[str]) -> RecordedRun:
    repairs: Counter[str] = Counter()
    left_out = _left_out(members)
    nodes = _without_cycles(_executions(members, root, gathered, repairs, thinned=left_out > 0), repairs)
    nodes.sort(key=lambda node: (node.submitted_ns, node.started_ns, node.key))
    repairs["disagree"] = _disagreeing(nodes, _tolerance(members))

    span, attributes = root.span, root.span.attributes if root.span is not None else {}
    problems = list(shared)
    first_ns = min((node.submitted_ns for node in nodes), default=0)
    last_ns = max((node.ended_ns for node in nodes), default=0)
    if span is None:
        started_ns, ended_ns = first_ns, last_ns
        problems.append(
            "The run's own span is missing: it had not ended when the file was written, or its span was lost. Its "
            "start and end are taken from its nodes; workers and settings are unknown."
            if root.run_id
            else "These nodes were submitted outside of any run; start and end are taken from them."
        )
    else:
        started_ns, ended_ns = span.started_ns, max(span.started_ns, span.ended_ns)
        if span.ended_ns < span.started_ns:
            problems.append("The run's span ends before it starts; its end is taken from its nodes.")
        tolerance = _tolerance(members)
        if nodes and (first_ns < started_ns - tolerance or last_ns > ended_ns + tolerance):
            problems.append("Some nodes lie outside of their run's span; the run is taken to reach over them.")
        if nodes:
            started_ns, ended_ns = min(started_ns, first_ns), max(ended_ns, last_ns)

    expected = _expected(members)
    if left_out:
        problems.append(
            f"{count(left_out, 'node')} of {expected or left_out + len(nodes):,} have no span, since the run is "
            "large: the critical path is in the record, and those that raised, the slowest and a sample of the others."
        )
    lost = 0 if expected is None else expected - left_out - len(nodes)
    if lost > 0:
        problems.append(
            f"{count(lost, 'span')} of {expected} nodes missing (lost, not sampled, or not written yet): their time "
            "shows as dependency waits or outside time."
        )
    elif expected is not None and expected < len(nodes):
        problems.append(f"The run says that it had {count(expected, 'node')}, the file has {len(nodes)}.")
    problems += [_REPAIRS[kind].format(count(many, "node")) for kind, many in repairs.items() if many]

    outcome: RunOutcome | None = _one_of(_RUN_OUTCOMES, attributes.get(names.RUN_OUTCOME))
    return RecordedRun(
        id=root.run_id,
        name=span.name if span is not None else names.DEFAULT_RUN_NAME,
        pool=root.pool,
        started_ns=started_ns,
        ended_ns=ended_ns,
        nodes=tuple(nodes),
        outcome=outcome or _outcome_of(nodes),
        error_type=_text(attributes, names.ERROR_TYPE),
        max_workers=_positive(attributes, names.POOL_LIMIT),
        priority=_text(attributes, names.RUN_PRIORITY) or "fifo",
        processors=_positive(attributes, names.PROCESSORS_LIMIT),
        attribution=_text(attributes, names.ATTRIBUTION_METHOD) or "none",
        attribution_reason=_text(attributes, names.ATTRIBUTION_REASON),
        gil_holders=_gil_holders(attributes),
        expected_nodes=expected,
        left_out=left_out,
        started_unix_ns=started_ns,
        problems=tuple(problems),
    )


_REPAIRS: Final[Mapping[str, str]] = {
    "links": "{}: links cut off; upstream resolved by name.",
    "upstream": "{}: the span of an upstream node is missing, so what it waited for is not known.",
    "cycle": "{}: links form a cycle; those that point back in time are left out.",
    "disagree": "{}: started before an upstream node's end; clocks disagree. Steps are cut where the later one begins.",
    "duration": "{}: ended before the start; the duration is taken as 0.",
    "waits": "{}: a wait that is negative, no number, or reaches back before the run; it is cut.",
    "states": "{}: states of time that add up to more than the duration, or are no numbers; scaled to fit.",
}


def _executions(
    members: Sequence[_Group], root: _Group, gathered: Gathered, repairs: Counter[str], *, thinned: bool
) -> list[NodeExecution]:
    """The nodes of a run and of those nested in it. Names are looked up within one run, links anywhere."""
    executions = [[_execution(span, group, root, repairs) for span in group.nodes] for group in members]
    by_id = {
        span.id: node
        for group, nodes in zip(members, executions, strict=True)
        for span, node in zip(group.nodes, nodes, strict=True)
    }
    for group, nodes in zip(members, executions, strict=True):
        by_name: dict[str, list[NodeExecution]] = {}
        for node in nodes:
            by_name.setdefault(node.name, []).append(node)
        look_up = _LookUp(by_id, by_name, gathered.nodes, thinned)
        for node, span in zip(nodes, group.nodes, strict=True):
            _link(node, span, look_up, repairs)
    return [node for nodes in executions for node in nodes]


@dataclass(frozen=True, slots=True)
class _LookUp:
    """Where a node's upstream is looked for."""

    by_id: Mapping[str, NodeExecution]
    by_name: Mapping[str, Sequence[NodeExecution]]
    in_file: Mapping[str, tuple[str, Span]]
    thinned: bool
    """Whether nodes were left out: then of those of one name, none in another task may be taken for this one's."""


def _execution(span: Span, group: _Group, root: _Group, repairs: Counter[str]) -> NodeExecution:
    """A node without its upstream."""
    attributes = span.attributes
    run_started_ns = None if group.span is None else group.span.started_ns
    started_ns, ended_ns = span.started_ns, span.ended_ns
    if ended_ns < started_ns:
        repairs["duration"] += 1
        ended_ns = started_ns
    queue_ns = _nanoseconds(attributes.get(names.NODE_QUEUE, 0))
    dependency_ns = _nanoseconds(attributes.get(names.NODE_DEPENDENCY, 0))
    ready_ns = started_ns - (queue_ns or 0)
    submitted_ns = ready_ns - (dependency_ns or 0)
    earliest_ns = submitted_ns if run_started_ns is None else min(run_started_ns, started_ns)
    if queue_ns is None or dependency_ns is None or submitted_ns < earliest_ns - _ROUNDING * span.resolution_ns:
        repairs["waits"] += 1
    submitted_ns, ready_ns = max(submitted_ns, earliest_ns), max(ready_ns, earliest_ns)
    return NodeExecution(
        key=span.id[32:],
        name=_name(span),
        submitted_ns=submitted_ns,
        ready_ns=ready_ns,
        started_ns=started_ns,
        ended_ns=ended_ns,
        outcome=_one_of(OUTCOMES, attributes.get(names.NODE_OUTCOME)) or "success",
        worker=_text(attributes, names.THREAD_NAME) or _text(attributes, names.THREAD_ID) or "",
        task_id=_text(attributes, names.TASK_ID),
        states=_states(attributes, ended_ns - started_ns, span.resolution_ns, repairs),
        samples=max(0, whole(attributes.get(names.NODE_SAMPLES)) or 0),
        error_type=_text(attributes, names.ERROR_TYPE),
        failed_upstream=_text(attributes, names.NODE_FAILED_UPSTREAM),
        parent=None if group.parent is None or group is root else group.parent[32:],
        run_id=None if group is root else group.run_id,
    )


def _link(node: NodeExecution, span: Span, look_up: _LookUp, repairs: Counter[str]) -> None:
    """Gives it its upstream. Nobody has seen it yet: a copy of each would be a fifth of the time that reading takes."""
    if not span.links and not span.dropped_links and names.NODE_UPSTREAM not in span.attributes:
        return
    told = texts(span.attributes.get(names.NODE_UPSTREAM))
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
            found.add(_name(look_up.in_file[link][1]))
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
    if node.ran and (missing or (lost and not is_told)) and not look_up.thinned:
        repairs["upstream"] += 1
    rounding_ns = _ROUNDING * span.resolution_ns
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


def _without_cycles(nodes: list[NodeExecution], repairs: Counter[str]) -> list[NodeExecution]:
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


def _disagreeing(nodes: Sequence[NodeExecution], tolerance_ns: int) -> int:
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
            part_ns = _nanoseconds(value)
            if part_ns is None:
                unusable = True
            else:
                sum_ns += part_ns
            states[state] = part_ns or 0
    if not states or not duration_ns:
        return {}
    excess_ns = sum_ns - duration_ns
    if unusable or excess_ns > _ROUNDING * resolution_ns:
        repairs["states"] += 1
    if excess_ns > 0:
        total_ns = duration_ns + excess_ns
        states = {state: part_ns * duration_ns // total_ns for state, part_ns in states.items()}
        longest = max(states, key=lambda state: states[state])
        states[longest] += duration_ns - sum(states.values())
    elif excess_ns < 0:
        states["other"] = states.get("other", 0) - excess_ns
    return {state: part_ns for state, part_ns in states.items() if part_ns}


def _nanoseconds(seconds: object) -> int | None:
    """None for what is no duration."""
    number = seconds if type(seconds) is float else number_of(seconds)
    return None if number is None or not 0 <= number < _LONGEST_SECONDS else round(number * 1e9)


def _gil_holders(attributes: Attributes) -> dict[str, int]:
    holders = texts(attributes.get(names.RUN_GIL_HOLDERS))
    seconds = numbers(attributes.get(names.RUN_GIL_HOLDER_SECONDS))
    return {holder: held_ns for holder, each in zip(holders, seconds, strict=False) if (held_ns := _nanoseconds(each))}


def _expected(members: Sequence[_Group]) -> int | None:
    counts = [whole(group.span.attributes.get(names.RUN_NODE_COUNT)) for group in members if group.span is not None]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(members) else None


def _left_out(members: Sequence[_Group]) -> int:
    spans = [group.span for group in members if group.span is not None]
    return sum(max(0, whole(span.attributes.get(names.RUN_SPANS_LEFT_OUT)) or 0) for span in spans)


def _outcome_of(nodes: Iterable[NodeExecution]) -> RunOutcome:
    outcomes: set[Outcome] = {node.outcome for node in nodes if node.parent is None}
    return "error" if "error" in outcomes else "cancelled" if "cancelled" in outcomes else "success"


def _tolerance(members: Sequence[_Group]) -> int:
    return _ROUNDING * max((node.resolution_ns for group in members for node in group.nodes), default=1)


def _one_of(known: Sequence[_Outcome], value: object) -> _Outcome | None:
    return next((each for each in known if each == value), None)


def _name(span: Span) -> str:
    return _text(span.attributes, names.NODE_NAME) or span.name


def _text(attributes: Attributes, name: str) -> str | None:
    value = attributes.get(name)
    return None if value is None or value == "" else str(value)


def _positive(attributes: Attributes, name: str) -> int | None:
    number = number_of(attributes.get(name))
    return None if number is None or number < 1 else int(number)
