"""Would nodes be better off on another backend, on worker processes or on threads?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS, quoted
from traced_threadpool.analysis.diagnosis.analyzed_run import OUTSIDE_OF_NODES, AnalyzedRun, most_first
from traced_threadpool.analysis.diagnosis.causes import Finding, RankedFinding
from traced_threadpool.analysis.diagnosis.ranking import CONTRIBUTES, MATTERS, by_gain, most_of
from traced_threadpool.analysis.replay.placing import BYTE_NS
from traced_threadpool.analysis.replay.replayed import Replayed
from traced_threadpool.model.formatting import count, duration, share, size
from traced_threadpool.model.lane import PROCESSES
from traced_threadpool.model.recorded_run import NodeExecution
from traced_threadpool.model.records import THREADS
from traced_threadpool.model.states import State

LEAST_MOVING_NS: Final = 2_000_000
"""Processes are advised for nodes that would gain even if moving took this much: few values are smaller."""

SHORT_OF_CPUS: Final = 0.2
"""Where nodes wait for a CPU for this part of what they compute, processes would wait for one too."""

SMALL_BYTES: Final = 100_000
"""Executions that move fewer are slowed down by the call, and not by what is moved."""

SUFFERS: Final = 1 / 3
"""Nodes that wait for I/O suffer from the GIL if they wait for it during this part of their time."""

COMPUTES_LITTLE: Final = 0.2
"""A node that computes during less than this part of its time, beside waiting for the GIL, is one of I/O."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnProcesses:
    """Nodes that would gain on worker processes: what the run would take there, also if moving took `moving_ns`."""

    nodes: tuple[str, ...]
    processes: int
    other: Replayed
    moving_ns: float
    moved: Replayed


def on_processes(analyzed: AnalyzedRun, culprits: Sequence[str], holders: Sequence[str]) -> OnProcesses | None:
    """What would gain, of the nodes that held the GIL, on as many processes as there are CPUs.

    Those that held it most, or all, if that gains noticeably more. Nothing where CPUs are short, and nothing that
    executes a run of its own.
    """
    cpus = analyzed.run.cpus or 0
    if cpus < 2 or is_short_of_cpus(analyzed):
        return None
    nest = {node.name for node in analyzed.nodes if node.key in analyzed.run.by_parent}
    here = [node for node in analyzed.nodes if not node.is_remote and node.name not in nest]
    names = {node.name for node in here}
    lanes = [most for kind, most in analyzed.run.backends.values() if kind == PROCESSES]
    processes = lanes[0] if lanes else cpus
    least_ns = MATTERS * analyzed.duration_ns
    nodes: tuple[str, ...] = ()
    other: Replayed | None = None
    gain_ns = 0.0
    for asked in dict.fromkeys([tuple([name for name in each if name in names]) for each in (culprits, holders)]):
        replayed = analyzed.replayed(run_on=dict.fromkeys(asked, PROCESSES), processes=processes) if asked else None
        if replayed is not None and analyzed.gain_ns(replayed) >= gain_ns + least_ns:
            nodes, gain_ns, other = asked, analyzed.gain_ns(replayed), replayed
    if other is None:
        return None
    where = dict.fromkeys(nodes, PROCESSES)
    executions = sum(node.name in where for node in here)
    # Half of what is gained, spent on moving by all processes at once.
    moving_ns = gain_ns / 2 * min(processes, executions) / executions
    moved = analyzed.replayed(run_on=where, processes=processes, moves=dict.fromkeys(nodes, moving_ns / BYTE_NS))
    if moving_ns < LEAST_MOVING_NS or analyzed.gain_ns(moved) < min(least_ns, gain_ns / 4):
        return None
    return OnProcesses(nodes=nodes, processes=processes, other=other, moving_ns=moving_ns, moved=moved)


def is_short_of_cpus(analyzed: AnalyzedRun) -> bool:
    """Whether nodes waited for a CPU so much, for whoever had it, that processes of theirs would too."""
    return analyzed.total_ns("runqueue") >= SHORT_OF_CPUS * analyzed.total_ns("cpu")


def _remote(analyzed: AnalyzedRun) -> list[NodeExecution]:
    return [node for node in analyzed.nodes if node.is_remote]


def moving_costs(analyzed: AnalyzedRun) -> RankedFinding | None:
    """Nodes of a backend run on threads; else nothing has to be moved.

    It is the moving if much is moved, and else the call, which takes longer than what is called.
    """
    by_name: dict[str, list[NodeExecution]] = {}
    for node in _remote(analyzed):
        by_name.setdefault(node.name, []).append(node)
    transfers = {name: _sum(each, "transfer") for name, each in by_name.items()}
    nodes = [name for name in most_first(transfers) if transfers[name] >= CONTRIBUTES * _lasting_ns(by_name[name])]
    if not nodes:
        return None
    executions = [node for name in nodes for node in by_name[name]]
    moved_bytes = fmean([node.moved_bytes for node in executions])
    back = analyzed.replayed(run_on=dict.fromkeys(nodes, THREADS))
    back_gains = analyzed.gain_ns(back) >= MATTERS * analyzed.duration_ns
    if moved_bytes < SMALL_BYTES:
        words = CAUSES_IN_WORDS["too_small_for_backend"]
        calls_ns = fmean([node.states.get("transfer", 0) + node.states.get("remote_queue", 0) for node in executions])
        lasting_ns = fmean([node.duration_ns for node in executions])
        if not back_gains or lasting_ns - calls_ns > calls_ns:
            return None
        evidence = [
            words.says(
                "short",
                executions=count(len(executions), "execution"),
                nodes=quoted(nodes),
                computing=duration(lasting_ns - calls_ns),
                whole=duration(lasting_ns),
            ),
            words.says("back", source=analyzed.source, nodes=quoted(nodes), instead=analyzed.instead(back)),
        ]
        return by_gain(analyzed, back, "too_small_for_backend", nodes, evidence, words.advises("", nodes=quoted(nodes)))
    words = CAUSES_IN_WORDS["transfer_bound"]
    evidence = [
        words.says("moved", of_nodes=analyzed.of_nodes(sum(transfers.values())), most=most_of(most_first(transfers))),
        words.says("sizes", size=size(moved_bytes), executions=count(len(executions), "execution")),
    ]
    if analyzed.on_path.get("transfer"):
        evidence.append(words.says("on_path", of_run=analyzed.of_run(analyzed.on_path["transfer"])))
    if back_gains:
        evidence.append(words.says("back", source=analyzed.source, nodes=quoted(nodes), instead=analyzed.instead(back)))
        return by_gain(analyzed, back, "transfer_bound", nodes, evidence, words.advises("threads", nodes=quoted(nodes)))
    other = analyzed.without("transfer")
    evidence.append(words.says("replay", source=analyzed.source, instead=analyzed.instead(other)))
    return by_gain(analyzed, other, "transfer_bound", nodes, evidence, words.advises("less", nodes=quoted(nodes)))


def switch_interval(analyzed: AnalyzedRun) -> RankedFinding | None:
    """Nodes of I/O wait for the GIL for much of their time, which other nodes hold. What it gains, no replay says."""
    holders = most_first(
        {name: ns for name, ns in analyzed.run.gil_holders.items() if not name.startswith(OUTSIDE_OF_NODES)}
    )
    suffering = [
        node
        for node in analyzed.nodes
        if node.samples
        and not node.is_remote
        and node.name not in holders
        and _is_io(node)
        and node.states.get("gil", 0) > 0
    ]
    all_ns, waited_ns = _lasting_ns(suffering), _sum(suffering, "gil")
    if len(suffering) < 2 or not holders or waited_ns < SUFFERS * all_ns:
        return None
    words = CAUSES_IN_WORDS["switch_interval"]
    sums: dict[str, float] = {}
    for node in suffering:
        sums[node.name] = sums.get(node.name, 0.0) + node.states.get("gil", 0)
    evidence = (
        words.says(
            "waited",
            nodes=count(len(suffering), "node"),
            waited=duration(waited_ns),
            share=share(waited_ns / all_ns),
            most=most_of(most_first(sums)),
        ),
        words.says("holders", most=most_of(holders)),
    )
    finding = Finding(
        cause="switch_interval",
        nodes=tuple(most_first(sums)),
        evidence=evidence,
        advice=words.advises(""),
        gain_seconds=None,
    )
    return RankedFinding(finding=finding, weight=waited_ns / max(1.0, analyzed.busy_ns))


_IO: Final[tuple[State, ...]] = ("network", "disk", "sleep")


def _is_io(node: NodeExecution) -> bool:
    waits_ns = sum([node.states.get(state, 0) for state in _IO])
    own_ns = node.duration_ns - node.states.get("gil", 0)
    return waits_ns > own_ns / 2 and node.states.get("cpu", 0) <= COMPUTES_LITTLE * node.duration_ns


def _sum(nodes: Sequence[NodeExecution], state: State) -> float:
    return sum([node.states.get(state, 0) for node in nodes])


def _lasting_ns(nodes: Sequence[NodeExecution]) -> float:
    return sum([node.duration_ns for node in nodes])
