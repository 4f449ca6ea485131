"""What a diagnosis is made of: causes from a fixed list, and findings that name one each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Cause = Literal[
    "failing_upstream",
    "cancelled",
    "telemetry_loss",
    "gil_bound",
    "processor_starved",
    "lock_contention",
    "sleeping_node",
    "pool_too_small",
    "straggler",
    "slow_network",
    "slow_disk",
    "critical_path",
    "outside_nodes",
    "pool_too_large",
    "healthy",
]
"""Why a run took as long as it did. The words are public: programs read them in JSON."""

CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

MEANINGS: Final[Mapping[Cause, str]] = {
    "failing_upstream": "a node raised, and what depends on it never ran",
    "cancelled": "the run was stopped before its nodes were done",
    "telemetry_loss": "the record lacks nodes, or what their time went to",
    "gil_bound": "nodes wait for the interpreter lock while others compute with it",
    "processor_starved": "nodes could compute, and have no processor",
    "lock_contention": "nodes wait for a lock that one of them holds",
    "sleeping_node": "a node sleeps",
    "pool_too_small": "nodes that could run have no worker",
    "straggler": "one node takes much longer than its siblings, and all wait for it",
    "slow_network": "nodes wait for the network most of the time",
    "slow_disk": "nodes wait for the disk most of the time",
    "critical_path": "a chain of nodes fills the run, whatever else there is",
    "outside_nodes": "the run's time passes outside of its nodes",
    "pool_too_large": "many nodes run at once and only get in each other's way",
    "healthy": "nothing stands out, and no setting would help",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One cause, with what shows it.

    `nodes` are the names of those it is about, culprits first. `evidence` are sentences with numbers, never none.
    `gain_seconds` is how much shorter the replay says the run would be; None where a replay cannot say.
    """

    cause: Cause
    nodes: tuple[str, ...]
    evidence: tuple[str, ...]
    advice: str
    gain_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One to three findings, each of another cause, the most important first.

    `estimated` is a sentence where the run is so large that its gains are estimates; None where they are replays.
    """

    findings: tuple[Finding, ...]
    estimated: str | None = None

    @property
    def cause(self) -> Cause:
        """That of the first finding."""
        return self.findings[0].cause
