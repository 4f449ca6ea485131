"""Each leaf of the diagnosis: one question to a recorded run, and a finding if the answer is yes.

What the questions are, and in which order they are asked, is said in `diagnose`. Each number below
has its reason beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from traced_threadpool.analysis.diagnosis.analyzed_run import OUTSIDE_OF_NODES, Look, faster_by, most_first, names_of
from traced_threadpool.analysis.diagnosis.causes import Cause, Finding
from traced_threadpool.analysis.diagnosis.path_states import BETWEEN_NODES
from traced_threadpool.analysis.diagnosis.words import count, listed, seconds, share, shortened
from traced_threadpool.analysis.replay.what_if import Replayed, Scaling
from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.records import State

MATTERS: Final = 0.1
"""What would take less than this part off the run is no finding."""

LOST: Final = 0.05
"""From this part of the nodes missing on, the record may mislead."""

DOMINATES: Final = 2 / 3
"""Waiting for network or disk, which nodes may be there for, is a finding from this part of the path's own time on."""

CONTRIBUTES: Final = 1 / 3
"""The same where something else is wrong as well."""

GOVERNS: Final = 0.2
"""A chain governs a run that would be shorter by this part, were the chain twice as fast: it fills 40 % of it alone."""

STRAGGLES: Final = 2.0
"""A straggler takes this many times what its siblings take in the middle."""

FAMILY: Final = 4
"""Fewer nodes have no middle that one of them could be far from."""

STARVED: Final = 1.0
"""Others take the processors away if nodes wait for one longer than they compute."""

FULL: Final = 0.7
"""From this part of its time on, a resource is what nodes share; below, others have it."""

CROWDED: Final = 2
"""A pool is too large if this many times more nodes ran at once than would do as well,"""

IN_THE_WAY: Final = 0.5
"""and if they spent this part of their time waiting for the interpreter lock or a processor."""

AS_WELL: Final = 0.02
"""Fewer workers do as well if the run gets no longer than by this part."""

OUTSIDE: Final = 0.5
"""If this part of the run passes outside of nodes, that is what it went to."""

UNKNOWN: Final = 0.5
"""If of this part of the run nobody knows what it went to, nothing can be called healthy."""

CULPRITS: Final = 0.5
"""Those are named who held the lock during this part of the waiting, beginning with the one who held it most."""

MOST_SHOWN: Final = 3

LARGE: Final = (
    "Shorten the critical path, which is told above. What fewer waits or more workers would bring, these spans cannot "
    "tell: replay the run in the process, FutureAdapter(record=True), or record it with Tracing(large_run=None)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A finding, and by what findings are ordered: the part of the run it would save, or is about."""

    finding: Finding
    weight: float


# Did the run end as it should? Does the record tell enough?


def failing_upstream(look: Look) -> Finding | None:
    """A node raised."""
    run = look.run
    raised = sorted((node for node in run.nodes if node.outcome == "error"), key=lambda node: (node.ended_ns, node.key))
    if not raised and run.outcome != "error":
        return None
    stopped = sum(node.outcome == "upstream_error" for node in run.nodes)
    cancelled = sum(node.outcome == "cancelled" for node in run.nodes)
    evidence = [
        f"{shortened(node.name)} raised {node.error_type or 'an exception'} after {seconds(node.duration_ns)}"
        for node in raised[:MOST_SHOWN]
    ]
    if len(raised) > MOST_SHOWN:
        evidence.append(f"{len(raised):,} nodes raised in all")
    if not raised:
        evidence.append(f"the run ended with {run.error_type or 'an error'} after {seconds(run.duration_ns)}")
    evidence.append(f"{stopped:,} of {count(len(run.nodes), 'node')} never ran, for what they need had failed")
    if cancelled:
        evidence.append(f"{cancelled:,} more had not started and were cancelled")
    names = names_of(raised)
    advice = (
        f"Mend {listed(names)} first. What the run would take without the failure, the record cannot tell."
        if raised
        else "No node in the record raised. Look at what is done with the results, or for spans that are missing."
    )
    return Finding(cause="failing_upstream", nodes=names, evidence=tuple(evidence), advice=advice, gain_seconds=None)


def cancelled(look: Look) -> Finding | None:
    """It was stopped, and no node had raised."""
    run = look.run
    never_ran = sum(node.outcome == "cancelled" for node in run.nodes)
    if run.outcome == "error" or any(node.outcome == "error" for node in run.nodes):
        return None
    if not never_ran and run.outcome != "cancelled":
        return None
    return Finding(
        cause="cancelled",
        nodes=(),
        evidence=(
            f"the run was stopped after {seconds(run.duration_ns)}; {never_ran:,} of {count(len(run.nodes), 'node')} "
            "had not started",
        ),
        advice="The record shows the beginning of a run. Look at one that went to its end.",
        gain_seconds=None,
    )


def telemetry_loss(look: Look) -> tuple[Finding, bool] | None:
    """Nodes or other things are missing in the record; and whether that is so much that the rest may mislead."""
    run = look.run
    expected = max(run.expected_nodes or 0, len(run.nodes))
    missing = max(0, expected - len(run.nodes) - run.left_out)
    evidence = []
    if missing:
        evidence.append(f"{missing:,} of {count(expected, 'node')} ({share(missing / expected)}) are not in the record")
    waited = look.on_path.get("dependency", 0) / look.duration_ns if look.duration_ns > 0 else 0.0
    if missing and waited:
        evidence.append(f"{share(waited)} of the run is waiting for what the record does not hold")
    evidence += run.problems[:MOST_SHOWN]
    if len(run.problems) > MOST_SHOWN:
        evidence.append(f"{len(run.problems):,} problems of the record in all")
    if not evidence:
        return None
    if run.left_out:
        evidence.append(f"the critical path: {_most(most_first(look.path.ns_by_name))}")
    advice = (
        LARGE
        if run.left_out and not missing
        else "See that all spans of a run arrive: a longer queue in the span processor (OTEL_BSP_MAX_QUEUE_SIZE), a "
        "flush before the program ends, a sampler that takes whole traces. All else that is said rests on the other "
        "nodes."
        if missing
        else "What was repaired or is missing is said above; all else that is said rests on what is there."
    )
    found = Finding(cause="telemetry_loss", nodes=(), evidence=tuple(evidence), advice=advice, gain_seconds=None)
    return found, bool(run.left_out) or (missing > 0 and (missing >= LOST * expected or waited >= MATTERS))


# What would the run take if one thing were different? These ask the replay.


def gil_bound(look: Look, *, matters: float = MATTERS) -> Leaf | None:
    """Nobody waits for the interpreter lock."""
    waited_ns = look.total_ns("gil")
    if waited_ns < MATTERS * look.busy_ns or not waited_ns:
        return None
    # The replay knows of nodes alone. What others in the process did to them is taken off as it was recorded.
    other = look.without("gil") if look.is_held_from_outside else look.replayed(gil=False)
    victims = look.by_name("gil")
    evidence = [f"waiting for the interpreter lock: {look.of_nodes(waited_ns)}; most of it {_most(victims)}"]
    holders = most_first(look.run.gil_holders)
    culprits = _culprits(holders)
    if holders:
        evidence.append(f"waiting caused by who held it: {_most(holders)}")
    evidence.append(f"{look.foretold_by}: if nobody waited for it, {look.instead(other)}")
    nodes = [name for name in culprits if not name.startswith(OUTSIDE_OF_NODES)]
    threads = [name.removeprefix(OUTSIDE_OF_NODES) for name in culprits if name.startswith(OUTSIDE_OF_NODES)]
    advice = []
    if threads:
        advice.append(f"Keep the thread {listed(threads)} from computing in this process while nodes run.")
    if nodes or not threads:
        advice.append(
            f"Let {listed(nodes or list(victims))} compute in processes, or with a library that lets go of the lock "
            "(NumPy, Polars, Arrow). More threads cannot help."
        )
    return _by_gain(look, other, "gil_bound", nodes or list(victims), evidence, " ".join(advice), matters=matters)


def _culprits(holders: Mapping[str, float]) -> list[str]:
    """
    >>> _culprits({"parse": 40, "thread:MainThread": 20, "load": 15, "join": 10})
    ['parse', 'thread:MainThread']
    """
    found: list[str] = []
    left_ns = CULPRITS * sum(holders.values())
    for name, held_ns in holders.items():
        if left_ns <= 0:
            break
        found.append(name)
        left_ns -= held_ns
    return found


def processor_starved(look: Look) -> Leaf | None:
    """Twice the processors; where the nodes do not use those that there are, nobody waits for one."""
    waited_ns = look.total_ns("runqueue")
    if not waited_ns:
        return None
    processors, used = look.run.processors, look.processors_used
    victims = look.by_name("runqueue")
    evidence = [f"waiting for a processor: {look.of_nodes(waited_ns)}; most of it {_most(victims)}"]
    if processors is not None and used is not None:
        evidence.append(f"nodes compute for {share(used)} of the time of {count(processors, 'processor')}")
    if processors is not None and used is not None and used >= FULL:
        other = look.replayed(processors=2 * processors)
        evidence.append(f"{look.foretold_by}: with {2 * processors:,} processors, {look.instead(other)}")
        advice = (
            "Give the program more processors (a container's limit is the first thing to look at), or let "
            f"{listed(list(look.by_name('cpu')))} compute less. More workers cannot help."
        )
    elif waited_ns < STARVED * look.total_ns("cpu"):
        return None
    else:
        other = look.without("runqueue")
        evidence.append(f"{look.foretold_by}: if they had not waited for one, {look.instead(other)}")
        advice = (
            "Look at what else runs on the machine, and at the container's limit: the nodes alone would not use up "
            "the processors."
        )
    return _by_gain(look, other, "processor_starved", list(victims), evidence, advice)


def lock_contention(look: Look, *, matters: float = MATTERS) -> Leaf | None:
    """Nobody waits for a lock."""

    def advice(names: Sequence[str]) -> str:
        return (
            f"Look for the lock that {listed(names)} wait{_s(names)} for. Give each thread a client or a connection of "
            "its own, or hold the lock for quick things only, never while waiting for something else."
        )

    condition = "if nobody waited for one"
    return _waiting(look, "lock_contention", "lock", 1.0, "waiting for a lock", condition, advice, matters=matters)


def contention(look: Look) -> Leaf | None:
    """Nobody waits for the interpreter lock or for another.

    Where it is a mixture of the two, what either takes off by itself may be little: the nodes then meet at the other.
    The one that is waited for more is the cause; the gain is that of both.
    """
    waited_ns = {state: look.total_ns(state) for state in ("gil", "lock")}
    if min(waited_ns.values()) < MATTERS * look.busy_ns or sum(waited_ns.values()) < CONTRIBUTES * look.busy_ns:
        return None
    locks_ns = {node.key: look.states[node.key].get("lock", 0) for node in look.nodes}
    other = look.replayed(gil=False, less_wait_ns=locks_ns)
    leaves = [leaf for leaf in (gil_bound(look, matters=0.0), lock_contention(look, matters=0.0)) if leaf is not None]
    if look.gain_ns(other) < GOVERNS * look.duration_ns or len(leaves) < 2:
        return None
    first, second = [leaf.finding for leaf in (leaves if waited_ns["gil"] >= waited_ns["lock"] else reversed(leaves))]
    return _by_gain(
        look,
        other,
        first.cause,
        first.nodes,
        (
            *first.evidence,
            second.evidence[0],
            f"{look.foretold_by}: if nobody waited for either, {look.instead(other)}",
        ),
        f"{first.advice} Then the other: by itself, neither gains much. {second.advice}",
    )


def sleeping_node(look: Look) -> Leaf | None:
    """Nobody sleeps."""

    def advice(names: Sequence[str]) -> str:
        return (
            f"Look for a sleep in what {listed(names)} call{_s(names)}: a pause before another attempt, a polling "
            "loop, a rate limit. Wait for the event itself, or pause for less."
        )

    return _waiting(look, "sleeping_node", "sleep", 1.0, "sleeping", "if nobody slept", advice)


def pool_too_small(look: Look) -> Leaf | None:
    """More workers."""
    scaling = look.more_workers
    if scaling is None or scaling.enough_workers <= scaling.recorded_workers:
        return None
    queued = sorted((node for node in look.nodes if node.queue_ns > 0), key=lambda node: (-node.queue_ns, node.name))
    allowed = ", as many as were allowed" if look.most_at_once == look.run.max_workers else ""
    evidence = [
        f"{count(len(queued), 'node')} waited for a worker, {seconds(sum(node.queue_ns for node in queued))} in all; "
        f"{look.most_at_once:,} ran at once at most{allowed}"
    ]
    if look.on_path.get("queue"):
        evidence.append(f"on the critical path: {look.of_run(look.on_path['queue'])}")
    is_known = look.total_ns("unknown") <= UNKNOWN * look.busy_ns
    evidence.append(
        f"{look.foretold_by}: with {scaling.enough_workers:,} workers, {look.instead(scaling)}"
        + ("" if is_known else ", if the nodes wait and do not compute, which the record does not tell")
    )
    more = "" if scaling.limit == "none" else f" More would not help: {scaling.reason}."
    advice = f"Set max_workers={scaling.enough_workers}.{more}"
    leaf = _by_gain(look, scaling, "pool_too_small", names_of(queued), evidence, advice)
    if leaf is None or is_known:
        return leaf
    return replace(leaf, finding=replace(leaf.finding, gain_seconds=None))


def straggler(look: Look) -> Leaf | None:
    """The longest of a family takes as long as the others do in the middle."""
    on_path = {step.key for step in look.path.nodes}
    # Few nodes are so long that the run would be noticeably shorter.
    long = {node.key for node in look.nodes if look.own_ns(node) >= MATTERS * look.duration_ns} & on_path
    leaves = []
    for family in families(look.nodes) if long else ():
        longest = max(family, key=lambda node: (look.own_ns(node), node.name, node.key))
        if longest.key in long:
            own_ns = look.own_ns(longest)
            middle_ns = median(look.own_ns(node) for node in family if node is not longest)
            if own_ns >= STRAGGLES * middle_ns:
                leaves.append(_straggler(look, longest, own_ns, middle_ns, len(family) - 1))
    return max((leaf for leaf in leaves if leaf), key=lambda leaf: (leaf.weight, leaf.finding.nodes), default=None)


def _straggler(look: Look, longest: NodeExecution, own_ns: float, middle_ns: float, siblings: int) -> Leaf | None:
    other = look.replayed(faster_executions={longest.key: faster_by(own_ns, middle_ns)})
    name = shortened(longest.name)
    state, state_ns = max(look.states[longest.key].items(), key=lambda item: item[1])
    times = f", {own_ns / middle_ns:.1f} times as much" if middle_ns else ""
    evidence = (
        f"{name} takes {seconds(own_ns)}, the {siblings:,} others like it {seconds(middle_ns)} in the middle{times}",
        f"most of it is {state}, {seconds(state_ns)}",
        f"on the critical path: {look.of_run(longest.duration_ns)}",
        f"{look.foretold_by}: if it were like the others, {look.instead(other)}",
    )
    advice = (
        f"Look at what {name} has to do that the others like it have not. Split it into parts of even size, or let "
        "it start first."
    )
    return _by_gain(look, other, "straggler", [longest.name], evidence, advice)


def slow_network(look: Look, *, least: float) -> Leaf | None:
    """The waiting for the network is halved, if it is this part of the own time of the path's nodes."""

    def advice(names: Sequence[str]) -> str:
        return (
            f"Let {listed(names)} ask for less, for many things at a time, or earlier; keep the answers; or have the "
            "service made faster. More workers or processors cannot help."
        )

    if look.on_path.get("network", 0) < least * look.own_on_path_ns:
        return None
    condition = "if that took half as long"
    return _waiting(look, "slow_network", "network", 0.5, "waiting for the network", condition, advice)


def slow_disk(look: Look, *, least: float) -> Leaf | None:
    """The waiting for the disk is halved, if it is this part of the own time of the path's nodes."""

    def advice(names: Sequence[str]) -> str:
        return (
            f"Let {listed(names)} read and write more at a time, and sync once for many writes; or take a faster disk. "
            "More workers or processors cannot help."
        )

    if look.on_path.get("disk", 0) < least * look.own_on_path_ns:
        return None
    condition = "if that took half as long"
    return _waiting(look, "slow_disk", "disk", 0.5, "waiting for the disk", condition, advice)


def _waiting(
    look: Look,
    cause: Cause,
    state: State,
    part: float,
    what: str,
    condition: str,
    advice: Callable[[Sequence[str]], str],
    *,
    matters: float = MATTERS,
) -> Leaf | None:
    if not look.total_ns(state):
        return None
    other = look.without(state, part)
    if look.gain_ns(other) < matters * look.duration_ns:
        return None
    names = list(look.by_name(state))
    evidence = [f"{what}: {look.of_nodes(look.total_ns(state))}; most of it {_most(look.by_name(state))}"]
    if look.on_path.get(state):
        evidence.append(f"on the critical path: {look.of_run(look.on_path[state])}")
    evidence.append(f"{look.foretold_by}: {condition}, {look.instead(other)}")
    return _by_gain(look, other, cause, names, evidence, advice(names), matters=matters)


def governing_chain(look: Look) -> Leaf | None:
    """The nodes of the critical path are twice as fast."""
    steps = sorted(
        (step for step in look.path.nodes if step.duration_ns > 0), key=lambda step: (-step.duration_ns, step.name)
    )
    if not steps:
        return None
    ns_by_name: dict[str, float] = {}
    for step in steps:
        ns_by_name[step.name] = ns_by_name.get(step.name, 0) + step.duration_ns
    other = look.replayed(faster=dict.fromkeys(ns_by_name, 2.0))
    states = most_first({state: ns for state, ns in look.on_path.items() if state not in BETWEEN_NODES})
    names = list(most_first(ns_by_name))
    evidence = (
        f"{count(len(steps), 'node')} in a row: {look.of_run(sum(ns_by_name.values()))}; most of it "
        f"{_most(most_first(ns_by_name))}",
        f"what these do: {_most(states)}",
        f"nodes that ran at once: {look.at_once:.1f} on average",
        f"{look.foretold_by}: if these nodes were twice as fast, {look.instead(other)}",
    )
    advice = (
        f"Make {listed(names)} faster, split what can be done side by side, or start the chain earlier. More workers "
        "cannot help."
    )
    return _by_gain(look, other, "critical_path", names, evidence, advice, matters=GOVERNS)


# What no replay can be asked


def outside_nodes(look: Look) -> Leaf | None:
    """During most of the run no node runs at all, and none waits to."""
    outside_ns = min(look.on_path.get("outside", 0), look.idle_ns)
    if outside_ns < OUTSIDE * look.duration_ns:
        return None
    evidence = (
        f"outside of nodes: {look.of_run(outside_ns)}",
        f"in nodes, and waiting for them: {look.of_run(look.duration_ns - outside_ns)}",
    )
    advice = (
        "Look at what the caller does within the run: its result builder, the hooks of other adapters, Hamilton's own "
        "work for each node. Join nodes that take next to nothing."
    )
    finding = Finding(cause="outside_nodes", nodes=(), evidence=evidence, advice=advice, gain_seconds=None)
    return Leaf(finding=finding, weight=outside_ns / look.duration_ns)


def pool_too_large(look: Look) -> Leaf | None:
    """Nodes that compute stand in each other's way, and half as many at once would be done as early."""
    recorded = look.as_recorded
    in_the_way_ns = look.total_ns("gil", "runqueue")
    if look.is_large:
        return None  # fewer nodes would wait less for each other, of which an estimate knows nothing
    if recorded is None or in_the_way_ns < IN_THE_WAY * look.busy_ns:
        return None
    if max(recorded.gil_share, recorded.processor_share) < FULL or look.is_held_from_outside:
        return None  # others are in their way, of which fewer nodes would get even less
    enough = _fewest(look, recorded, recorded.most_busy // CROWDED)
    if enough is None:
        return None
    evidence = (
        f"{recorded.most_busy:,} nodes ran at once at most, {look.at_once:.1f} on average",
        f"waiting for the interpreter lock or a processor: {look.of_nodes(in_the_way_ns)}",
        f"{look.foretold_by}: with {count(enough.workers, 'worker')}, {look.instead(enough)}",
    )
    advice = (
        f"Set max_workers={enough.workers}. Nodes then compute one after the other instead of all a little at a time, "
        "and fewer results and arguments are in memory at once."
    )
    finding = Finding(cause="pool_too_large", nodes=(), evidence=evidence, advice=advice, gain_seconds=None)
    return Leaf(finding=finding, weight=in_the_way_ns / look.busy_ns)


def _fewest(look: Look, recorded: Replayed, most: int) -> Replayed | None:
    """The run with the least number of workers, up to `most`, that is as good as what there was."""
    low, high, found = 1, most, None
    while low <= high:
        middle = (low + high) // 2
        other = look.replayed(workers=middle)
        if other.makespan_ns <= recorded.makespan_ns * (1 + AS_WELL):
            found, high = other, middle - 1
        else:
            low = middle + 1
    return found


# Nothing of these


def not_known(look: Look) -> Finding | None:
    """Nothing was found, and most of the run is time of which nobody knows what it went to."""
    run = look.run
    if look.as_recorded is None:
        evidence: tuple[str, ...] = (
            f"{len(look.nodes):,} of {count(len(run.nodes), 'node')} ran, in {seconds(run.duration_ns)}",
        )
        advice = "There is nothing to explain: look at a run that executed nodes."
        return Finding(cause="telemetry_loss", nodes=(), evidence=evidence, advice=advice, gain_seconds=None)
    unknown_ns = look.on_path.get("unknown", 0)
    if unknown_ns < UNKNOWN * look.duration_ns:
        return None
    reason = f" (reason: {run.attribution_reason})" if run.attribution_reason else ""
    evidence = (
        f"what nodes did is not in the record for {look.of_run(unknown_ns)}{reason}",
        f"by their durations alone nothing stands out; {look.at_once:.1f} nodes ran at once on average",
    )
    advice = (
        "Whether nodes waited for the interpreter lock, a processor, the network, the disk or a lock, or slept, cannot "
        "be said. Record a longer run, on Linux, with attribution switched on."
    )
    return Finding(cause="telemetry_loss", nodes=(), evidence=evidence, advice=advice, gain_seconds=None)


def healthy(look: Look) -> Finding:
    """Nothing was found."""
    scaling = look.more_workers
    assert scaling is not None
    kinds: tuple[tuple[State, str], ...] = (
        ("gil", "for the interpreter lock"),
        ("runqueue", "for a processor"),
        ("lock", "for a lock"),
        ("sleep", "asleep"),
    )
    waits = ", ".join(
        f"{share(look.total_ns(state) / look.busy_ns if look.busy_ns else 0)} {words}" for state, words in kinds
    )
    evidence = (
        f"{count(len(look.nodes), 'node')} in {seconds(look.duration_ns)}, {look.at_once:.1f} at once on average",
        f"of the nodes' time is waiting: {waits}",
        f"{look.foretold_by}: with more than {count(scaling.recorded_workers, 'worker')}, {look.instead(scaling)}",
    )
    return Finding(
        cause="healthy",
        nodes=(),
        evidence=evidence,
        advice=(
            f"Leave it as it is: no setting makes it shorter by {share(MATTERS)}. More workers would not help: "
            f"{scaling.reason}."
        ),
        gain_seconds=None,
    )


def families(nodes: Iterable[NodeExecution]) -> list[list[NodeExecution]]:
    """Nodes that do the same for different things: of one name, or but for its last word or number; or nodes with the
    same upstream and the same downstream nodes.
    """
    nodes = list(nodes)
    downstream: dict[str, list[str]] = {}
    for node in nodes:
        for key in node.upstream:
            downstream.setdefault(key, []).append(node.key)
    groups: dict[object, list[NodeExecution]] = {}
    for node in nodes:
        groups.setdefault(_stem(node.name), []).append(node)
        if node.upstream and node.key in downstream:
            between = frozenset(node.upstream), frozenset(downstream[node.key])
            groups.setdefault(between, []).append(node)
    return [group for group in groups.values() if len(group) >= FAMILY]


def _stem(name: str) -> str:
    """
    >>> _stem("prices_hansen"), _stem("page_maps_12"), _stem("shard7"), _stem("join")
    ('prices', 'page_maps', 'shard', 'join')
    """
    return name.rpartition("_")[0] or name.rstrip("0123456789") or name


def _by_gain(
    look: Look,
    other: Replayed | Scaling,
    cause: Cause,
    nodes: Sequence[str],
    evidence: Sequence[str],
    advice: str,
    *,
    matters: float = MATTERS,
) -> Leaf | None:
    gain_ns = look.gain_ns(other)
    if gain_ns < matters * look.duration_ns:
        return None
    finding = Finding(
        cause=cause,
        nodes=tuple(nodes),
        evidence=tuple(evidence),
        advice=advice,
        gain_seconds=gain_ns / 1e9,
    )
    return Leaf(finding=finding, weight=gain_ns / look.duration_ns)


def _most(ns_by_name: Mapping[str, float]) -> str:
    """Names with their times."""
    shown = [f"{shortened(name)} {seconds(ns)}" for name, ns in list(ns_by_name.items())[:MOST_SHOWN]]
    more = len(ns_by_name) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _s(names: Sequence[str]) -> str:
    """What a verb of these ends with."""
    return "s" if len(names) == 1 else ""
