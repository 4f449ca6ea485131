"""What a prompt, a debugger and a log show of a public record: a line without values, however large it is."""

from __future__ import annotations

import dataclasses
import inspect
from types import ModuleType
from typing import Any

import pytest

import traced_threadpool
from traced_threadpool import FutureAdapter, analysis, live
from traced_threadpool.engine.auto_placement import Decision
from traced_threadpool.live import LiveNode, LiveRun, PredictedEnd

SECRET = "hunter2"

WRITTEN_AS_GIVEN = {traced_threadpool.Tracing, traced_threadpool.Metrics, traced_threadpool.Attribution}
"""Settings, whose generated repr is what one writes to get them."""

RUN = analysis.RecordedRun(
    id="8f14e45f",
    name="etl",
    pool="jobs",
    started_ns=0,
    ended_ns=3_000_000_000,
    outcome="error",
    nodes=(
        analysis.NodeExecution(
            key="1",
            name="load",
            submitted_ns=0,
            ready_ns=0,
            started_ns=0,
            ended_ns=3_000_000_000,
            outcome="error",
            error_type="ValueError",
            error_message=SECRET,
        ),
    ),
)

FINDING = analysis.Finding(
    cause="lock_contention", nodes=("load", "join"), evidence=(SECRET,), advice=SECRET, gain_seconds=1.25
)

NODE = LiveNode(
    name="load", task_id=None, backend="threads", worker="etl_0", since=0.0, elapsed_seconds=1.5, state="gil", on="x"
)

LIVE_RUN = LiveRun(
    id="8f14e45f",
    name="etl",
    since=0.0,
    elapsed_seconds=61.0,
    done=4,
    failed=1,
    failed_names=("join",),
    skipped=0,
    planned=9,
    running=(NODE,),
    queued=(),
    blocked=(),
    critical_chain=("load",),
    predicted_end=PredictedEnd(seconds=2.5),
)


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (RUN, "<RecordedRun 'etl': 1 node, 3.00 s, error, id 8f14e45f>"),
        (RUN.nodes[0], "<NodeExecution 'load': 3.00 s, error, ValueError>"),
        (analysis.critical_path(RUN), "<CriticalPath: 1 step, 3.00 s>"),
        (analysis.critical_path(RUN).steps[0], "<Step 'load': node, 3.00 s>"),
        (FINDING, "<Finding 'lock_contention': load and join, gains 1.25 s>"),
        (dataclasses.replace(FINDING, gain_seconds=None), "<Finding 'lock_contention': load and join>"),
        (analysis.Diagnosis(findings=(FINDING,), remarks=(SECRET,)), "<Diagnosis: lock_contention>"),
        (analysis.what_if(RUN, workers=2), "<Replayed: 3.00 s, 2 workers>"),
        (analysis.scale(RUN, workers=[1, 2]), "<Scaling: 1 to 2 workers, enough: 1, limit: nodes>"),
        (analysis.scale_pool([RUN], workers=[1, 2]), "<PoolScaling 'jobs': 1 run, 1 to 2 workers, enough: 1>"),
        (analysis.compare(RUN, RUN), "<Difference: 3.00 s to 3.00 s>"),
        (analysis.compare_sets([RUN], [RUN]), "<SetDifference: median 3.00 s to 3.00 s, within chance>"),
        (analysis.summarize([RUN]), "<ManyRuns 'etl': 1 run, median 3.00 s, 1 error>"),
        (analysis.summarize([RUN]).durations, "<Durations: 1 run, median 3.00 s, 95th percentile 3.00 s>"),
        (NODE, "<LiveNode 'load': for 1.50 s, gil x>"),
        (dataclasses.replace(NODE, state=None, on=None, stalled=True), "<LiveNode 'load': for 1.50 s, stalled>"),
        (PredictedEnd(seconds=2.5), "<PredictedEnd: in 2.50 s>"),
        (PredictedEnd(reason="nothing is known of 3 nodes"), "<PredictedEnd: nothing is known of 3 nodes>"),
        (LIVE_RUN, "<LiveRun 'etl': for 61.0 s, 4 of 9 done, 1 failed, 1 running, 0 queued, 0 blocked>"),
        (
            Decision(
                node="parse",
                backend="cpu",
                state="moved",
                reason=SECRET,
                executions=9,
                gained_seconds=0.1,
                transfer_seconds=None,
            ),
            "<Decision 'parse': cpu, moved>",
        ),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_record_is_shown_in_one_line(record: object, shown: str) -> None:
    """What it is of, and what one asks first; no message, no evidence, none of what it holds many of."""
    assert repr(record) == shown


def test_an_adapter_and_its_parts_are_shown_in_one_line_each() -> None:
    """As long as it is idle; what changes are the numbers."""
    with FutureAdapter(3, name="jobs", attribution=False) as adapter:
        parts = [adapter, adapter.executor, adapter.durations, adapter.snapshot(), *adapter.snapshot().lanes]
        shown = [repr(part) for part in [*parts, adapter.live(), *adapter.live().lanes]]
    assert shown == [
        "<FutureAdapter 'jobs', 3 workers>",
        "<PoolExecutor 'jobs': 3 workers>",
        "<Durations: 0 nodes>",
        "<PoolSnapshot: 0 runs, 0 of 3 running, 0 queued, 0 blocked>",
        "<LaneSnapshot 'threads': 0 of 3 running, 0 queued, 0 blocked>",
        "<LivePool 'jobs': 0 runs, threads 0 of 3 running>",
        "<LiveLane 'threads': 0 of 3 running, 0 queued>",
    ]


@pytest.mark.parametrize("module", [traced_threadpool, analysis, live], ids=lambda module: module.__name__)
def test_every_public_record_has_a_repr_of_its_own(module: ModuleType) -> None:
    """The one that `dataclass` generates writes out whatever is within: megabytes of a large run, and messages."""
    public: list[Any] = [getattr(module, name) for name in module.__all__]
    records = [each for each in public if inspect.isclass(each) and dataclasses.is_dataclass(each)]
    generated = [
        record
        for record in records
        if inspect.unwrap(record.__repr__).__code__.co_filename != inspect.getfile(record)  # but `<string>`
    ]
    assert set(generated) <= WRITTEN_AS_GIVEN
