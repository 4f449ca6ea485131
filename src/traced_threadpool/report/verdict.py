"""A finding into the words at the top of a report.

>>> finding = Finding(
...     cause="slow_network", nodes=("fetch",), evidence=("90 % on a socket",), advice="Cache.", gain_seconds=1.5
... )
>>> title(finding), tone(finding)
('Slow network: fetch', 'plain')
"""

from __future__ import annotations

from typing import Final

from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS, Tone
from traced_threadpool.analysis.diagnosis.causes import Finding
from traced_threadpool.model.formatting import duration, one_line, percent
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.recording.critical_path import DEPENDENCY, OUTSIDE, QUEUE

NODES_IN_TITLE: Final = 3
MAX_NAME: Final = 60


def title(finding: Finding) -> str:
    """The cause, and the nodes that it is about."""
    words = CAUSES_IN_WORDS[finding.cause].title
    if not finding.nodes or finding.cause == "healthy":
        return words
    names = ", ".join(one_line(name, MAX_NAME) for name in finding.nodes[:NODES_IN_TITLE])
    more = len(finding.nodes) - NODES_IN_TITLE
    return f"{words}: {names}{f' and {more:,} more' if more > 0 else ''}"


def tone(finding: Finding) -> Tone:
    """Whether something is broken, all is well, or something could be faster."""
    return CAUSES_IN_WORDS[finding.cause].tone


def expected_gain(finding: Finding, run: RecordedRun) -> str | None:
    """What the replay expects of doing what the finding advises; None where it expects nothing."""
    if finding.gain_seconds is None or finding.gain_seconds <= 0:
        return None
    gain_ns = finding.gain_seconds * 1e9
    return f"Expected gain: {duration(gain_ns)}, {percent(gain_ns, run.duration_ns)} of the run."


def path_name(name: str) -> str:
    """Where the critical path's time is: a node's name, or what a wait is called.

    >>> path_name("load"), path_name("_queue")
    ('load', 'queue wait')
    """
    return {
        QUEUE: "queue wait",
        DEPENDENCY: "inputs that are not in the record",
        OUTSIDE: "outside of nodes",
    }.get(name, name)
