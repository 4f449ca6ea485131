"""What looks biggest in the tables and is no finding: a sentence that says why.

Three things look biggest: what most of the nodes' time went to, what most of the critical path went to, and the node
that takes most of the path. A finding is about a state if its cause is, and about whatever its nodes did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, cast

from traced_threadpool.analysis.diagnosis.advice import REMARKS, WHY_NOT, quoted
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun, most_first
from traced_threadpool.analysis.diagnosis.causes import Finding
from traced_threadpool.analysis.diagnosis.path_states import PathState
from traced_threadpool.analysis.diagnosis.ranking import MATTERS
from traced_threadpool.model.formatting import duration, percent
from traced_threadpool.model.states import INFO, State

COVERED_BY: Final[Mapping[PathState, Collection[str]]] = {
    "gil": {"gil_bound", "pool_too_large", "switch_interval"},
    "runqueue": {"processor_starved", "pool_too_large"},
    "lock": {"lock_contention"},
    "sleep": {"sleeping_node"},
    "network": {"slow_network"},
    "disk": {"slow_disk"},
    "transfer": {"transfer_bound", "too_small_for_backend"},
    "remote_queue": {"remote_queue_bound"},
    "cpu": {"gil_bound", "processor_starved", "pool_too_large"},
    "queue": {"pool_too_small", "queued_behind_other_runs", "remote_queue_bound"},
    "dependency": {"telemetry_loss"},
    "unknown": {"telemetry_loss"},
    "outside": {"outside_nodes"},
}
"""The causes that are about a state. `critical_path` and `straggler` are about what their nodes do."""

_ABOUT_NODES: Final = frozenset({"critical_path", "straggler"})
_NEEDED: Final[frozenset[PathState]] = frozenset({"network", "disk"})
"""What nodes may be there for: it can be halved, not done away with."""


def remarks(analyzed: AnalyzedRun, findings: Sequence[Finding], after: Sequence[Finding] = ()) -> Iterator[str]:
    """At most three sentences. `after` are the findings that are not shown, since others come first."""
    if analyzed.as_recorded is None or analyzed.run.left_out or not analyzed.busy_ns:
        return
    causes = {finding.cause for finding in findings}
    of_nodes = _biggest(analyzed, {state for parts in analyzed.states.values() for state in parts})
    of_path = max(analyzed.on_path.items(), key=lambda item: item[1], default=(None, 0.0))[0]
    untold = [state for state in (of_nodes, of_path) if state is not None and not _covered(analyzed, state, findings)]
    if of_nodes in untold and of_nodes == of_path:
        yield _remark(analyzed, "of_both", untold[0], after)
    else:
        for key, state in (("of_nodes", of_nodes), ("of_path", of_path)):
            part_ns, whole_ns = _ns(analyzed, key, state)
            if state is not None and state in untold and part_ns >= MATTERS * whole_ns:
                yield _remark(analyzed, key, state, after)
    name, ns = next(iter(most_first(_nodes_on_path(analyzed)).items()), ("", 0.0))
    told = {each for finding in findings for each in finding.nodes} if causes - {"healthy"} else set()
    if ns >= MATTERS * analyzed.duration_ns and name not in told:
        why = WHY_NOT["twice"].format(
            source=analyzed.source, instead=analyzed.instead(analyzed.replayed(faster={name: 2.0}))
        )
        yield REMARKS["node"].format(node=quoted([name]), of_run=_part(ns, analyzed.duration_ns), why=why)


def _biggest(analyzed: AnalyzedRun, states: Collection[PathState]) -> PathState | None:
    return max(sorted(states), key=analyzed.total_ns, default=None)


def _ns(analyzed: AnalyzedRun, key: str, state: PathState | None) -> tuple[float, float]:
    if state is None:
        return 0.0, 1.0
    if key == "of_nodes":
        return analyzed.total_ns(state), analyzed.busy_ns
    return analyzed.on_path.get(state, 0.0), analyzed.duration_ns


def _nodes_on_path(analyzed: AnalyzedRun) -> dict[str, float]:
    sums: dict[str, float] = {}
    for step in analyzed.path.nodes:
        sums[step.name] = sums.get(step.name, 0.0) + step.duration_ns
    return sums


def _covered(analyzed: AnalyzedRun, state: PathState, findings: Sequence[Finding]) -> bool:
    """Whether a finding is about it."""
    if any(finding.cause in COVERED_BY.get(state, ()) for finding in findings):
        return True
    about = {name for finding in findings if finding.cause in _ABOUT_NODES for name in finding.nodes}
    return any(name in about for name in list(analyzed.by_name(state))[:1])


def _remark(analyzed: AnalyzedRun, key: str, state: PathState, after: Sequence[Finding]) -> str:
    return REMARKS[key].format(
        what=_IN_WORDS[state],
        of_nodes=_part(analyzed.total_ns(state), analyzed.busy_ns),
        of_run=_part(analyzed.on_path.get(state, 0.0), analyzed.duration_ns),
        why=WHY_NOT["after"] if _covered(analyzed, state, after) else _why(analyzed, state),
    )


def _part(part_ns: float, whole_ns: float) -> str:
    return f"{duration(part_ns)}, {percent(part_ns, whole_ns)}"


_IN_WORDS: Final[Mapping[PathState, str]] = {
    **{state: info.meaning for state, info in INFO.items()},
    "queue": "waiting for a worker",
    "dependency": "waiting for inputs that are not in the record",
    "outside": "time outside of nodes",
    "unknown": "time of which nothing is known",
}


def _why(analyzed: AnalyzedRun, state: PathState) -> str:
    if state == "cpu":
        return WHY_NOT["work"].format(more=_of_more(analyzed))
    if state == "queue":
        return _of_more(analyzed)
    if state in ("unknown", "other"):
        return WHY_NOT["unknown"]
    if state in ("dependency", "outside"):
        return WHY_NOT[state]
    if state == "gil":
        key, other = "removed", analyzed.without_gil
    elif state in _NEEDED:
        key, other = "halved", analyzed.without(cast("State", state), 0.5)
    else:
        key, other = "removed", analyzed.without(cast("State", state))
    return WHY_NOT[key].format(source=analyzed.source, instead=analyzed.instead(other))


def _of_more(analyzed: AnalyzedRun) -> str:
    """What more workers would gain, within a sentence."""
    scaling = analyzed.scaling
    assert scaling is not None
    said = scaling.of_more_than(scaling.recorded_workers).removesuffix(".")
    return said[:1].lower() + said[1:]
