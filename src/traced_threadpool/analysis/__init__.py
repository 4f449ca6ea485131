"""A recorded run into answers: what took the time, and what would help.

>>> from traced_threadpool.analysis import NodeExecution, RecordedRun, critical_path, diagnose, what_if
>>> times = {"submitted_ns": 0, "ready_ns": 0, "started_ns": 0, "ended_ns": 3_000_000_000}
>>> poll = NodeExecution(key="1", name="poll", **times, states={"sleep": 3_000_000_000}, samples=99)
>>> run = RecordedRun(id="r", name="etl", pool="p", started_ns=0, ended_ns=3_000_000_000, nodes=(poll,))
>>> diagnose(run).cause, what_if(run, faster={"poll": 2}).makespan_ns
('sleeping_node', 1500000000)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from traced_threadpool.analysis.diagnosis.causes import Diagnosis, Finding
    from traced_threadpool.analysis.diagnosis.diagnose import diagnose
    from traced_threadpool.analysis.difference import Difference, compare
    from traced_threadpool.analysis.many_runs import ManyRuns, summarize
    from traced_threadpool.analysis.replay.pool_what_if import PoolScaling, scale_pool
    from traced_threadpool.analysis.replay.replayed import Replayed
    from traced_threadpool.analysis.replay.what_if import Scaling, scale
    from traced_threadpool.analysis.replay.what_if import replay as what_if
    from traced_threadpool.analysis.run_sets import SetDifference, compare_sets
    from traced_threadpool.analysis.trace_file import TraceFileError, read_runs, save_runs
    from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
    from traced_threadpool.recording.critical_path import CriticalPath, critical_path

__all__ = [
    "CriticalPath",
    "Diagnosis",
    "Difference",
    "Finding",
    "ManyRuns",
    "NodeExecution",
    "PoolScaling",
    "RecordedRun",
    "Replayed",
    "Scaling",
    "SetDifference",
    "TraceFileError",
    "compare",
    "compare_sets",
    "critical_path",
    "diagnose",
    "read_runs",
    "save_runs",
    "scale",
    "scale_pool",
    "summarize",
    "what_if",
]

_HOMES: Final = {
    "analysis.diagnosis.causes": ("Diagnosis", "Finding"),
    "analysis.diagnosis.diagnose": ("diagnose",),
    "analysis.difference": ("Difference", "compare"),
    "analysis.many_runs": ("ManyRuns", "summarize"),
    "analysis.replay.pool_what_if": ("PoolScaling", "scale_pool"),
    "analysis.replay.replayed": ("Replayed",),
    "analysis.replay.what_if": ("Scaling", "scale"),
    "analysis.run_sets": ("SetDifference", "compare_sets"),
    "analysis.trace_file": ("TraceFileError", "read_runs", "save_runs"),
    "model.recorded_run": ("NodeExecution", "RecordedRun"),
    "recording.critical_path": ("CriticalPath", "critical_path"),
}
_HOME_OF: Final = {name: (home, name) for home, names in _HOMES.items() for name in names}
_HOME_OF["what_if"] = ("analysis.replay.what_if", "replay")  # `replay` is a package here


def __getattr__(name: str) -> Any:
    """Each when it is asked for: the command line needs few of them."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, there = _HOME_OF[name]
    found = globals()[name] = getattr(import_module(f"traced_threadpool.{home}"), there)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
