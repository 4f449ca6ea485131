"""A finding into the words at the top of a report.

>>> finding = Finding(
...     cause="slow_network", nodes=("fetch",), evidence=("90 % on a socket",), advice="Cache.", gain_seconds=1.5
... )
>>> title(finding), tone(finding)
('Slow network: fetch', 'plain')
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from traced_threadpool.analysis.diagnosis.diagnose import Cause, Finding
from traced_threadpool.model.formatting import duration, one_line, percent
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.recording.critical_path import DEPENDENCY, OUTSIDE, QUEUE

Tone = Literal["bad", "good", "plain"]

TITLES: Final[Mapping[Cause, str]] = {
    "failing_upstream": "A node failed",
    "cancelled": "The run was stopped",
    "telemetry_loss": "The record is incomplete",
    "gil_bound": "Bound by the interpreter lock",
    "processor_starved": "Too few processors",
    "lock_contention": "Waiting for a lock",
    "sleeping_node": "Sleeping",
    "pool_too_small": "The pool is too small",
    "straggler": "One straggler",
    "slow_network": "Slow network",
    "slow_disk": "Slow disk",
    "critical_path": "A chain of nodes fills the run",
    "outside_nodes": "The time passes outside of nodes",
    "pool_too_large": "The pool is too large",
    "healthy": "Healthy: nothing stands out",
}

NODES_IN_TITLE: Final = 3
MAX_NAME: Final = 60


def title(finding: Finding) -> str:
    """The cause, and the nodes that it is about."""
    words = TITLES[finding.cause]
    if not finding.nodes or finding.cause == "healthy":
        return words
    names = ", ".join(one_line(name, MAX_NAME) for name in finding.nodes[:NODES_IN_TITLE])
    more = len(finding.nodes) - NODES_IN_TITLE
    return f"{words}: {names}{f' and {more:,} more' if more > 0 else ''}"


def tone(finding: Finding) -> Tone:
    """Whether something is broken, all is well, or something could be faster."""
    if finding.cause in ("failing_upstream", "cancelled", "telemetry_loss"):
        return "bad"
    return "good" if finding.cause == "healthy" else "plain"


def expected_gain(finding: Finding, run: RecordedRun) -> str | None:
    """What the replay expects of doing what the finding advises; None where it expects nothing."""
    if finding.gain_seconds is None or finding.gain_seconds <= 0:
        return None
    gain_ns = finding.gain_seconds * 1e9
    return f"Gain to expect: {duration(gain_ns)}, {percent(gain_ns, run.duration_ns)} of the run."


def path_name(name: str) -> str:
    """Where the critical path's time is: a node's name, or what a wait is called.

    >>> path_name("load"), path_name("_queue")
    ('load', 'waiting for a worker')
    """
    return {
        QUEUE: "waiting for a worker",
        DEPENDENCY: "waiting for inputs that the record does not hold",
        OUTSIDE: "outside of nodes",
    }.get(name, name)
