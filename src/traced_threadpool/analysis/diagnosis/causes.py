"""What a diagnosis is made of: causes from a fixed list, and findings that name one each. Their words: `advice`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from traced_threadpool.model.formatting import duration, listed, outline

Cause = Literal[
    "failing_upstream",
    "cancelled",
    "telemetry_loss",
    "queued_behind_other_runs",
    "gil_bound",
    "processor_starved",
    "lock_contention",
    "sleeping_node",
    "pool_too_small",
    "straggler",
    "slow_network",
    "slow_disk",
    "transfer_bound",
    "too_small_for_backend",
    "remote_queue_bound",
    "critical_path",
    "outside_nodes",
    "pool_too_large",
    "switch_interval",
    "healthy",
]
"""Why a run took as long as it did. The words are public: programs read them in JSON."""

CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)


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

    def __repr__(self) -> str:
        gain = None if self.gain_seconds is None else f"gains {duration(self.gain_seconds * 1e9)}"
        return outline(self, self.cause, listed(self.nodes), gain or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedFinding:
    """A finding, and what findings are ordered by: the part of the run that it would save, or is about."""

    finding: Finding
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One to three findings, each of another cause, the most important first.

    `remarks` are sentences about what looks biggest in the tables and is no finding: why it is none.
    `estimated` is a sentence where the run is so large that its gains are estimates; None where they are replays.
    """

    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = ()
    estimated: str | None = None

    def __repr__(self) -> str:
        return outline(self, None, *(finding.cause for finding in self.findings))

    @property
    def cause(self) -> Cause:
        """That of the first finding."""
        return self.findings[0].cause
