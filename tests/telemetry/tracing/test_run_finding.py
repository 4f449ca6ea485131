"""The first finding on the span of a run: what `explain` says first, where that costs next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.htypes import Collect, Parallelizable
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.telemetry.small_nodes import holding
from tests.telemetry.telemetry_helpers import (
    Caller,
    Gate,
    Traces,
    make_adapter,
    make_driver,
    make_dynamic_driver,
    until,
)
from tests.telemetry.tracing.jaeger_rule import recorded
from tests.telemetry.tracing.test_wait_spans import pipelines
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis import diagnose
from traced_threadpool.analysis.diagnosis.first_finding import first_finding
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.records import KeptNodes, RunRecord
from traced_threadpool.telemetry.tracing import run_finding
from traced_threadpool.telemetry.tracing.run_finding import RunFinding

FINDING = "hamilton.run.finding"


@pytest.fixture
def whatever_it_takes() -> Iterator[None]:
    """A finding may take as long as it does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_finding, "SHARE", 1e9)
        patch.setattr(run_finding, "MOST_SECONDS", 1e9)
        yield


def finding_of(traces: Traces) -> str | None:
    """Of the outermost run."""
    (span,) = (each for each in traces.spans if each.name == "hamilton.run" and each.parent is None)
    found: str | None = (span.attributes or {}).get(FINDING)  # type: ignore[assignment]
    return found


def explained(adapter: FutureAdapter, traces: Traces, folder: Path) -> set[str]:
    """What comes first of the record that was kept, and of that which is read from the trace."""
    (read,) = recorded(traces.every, folder)
    return {diagnose(run).cause for run in (*adapter.recorded_runs, read)}


def first() -> int:
    time.sleep(0.02)
    return 1


def second() -> int:
    time.sleep(0.02)
    return 2


def both(first: int, second: int) -> int:
    return first + second


def fails(first: int) -> int:
    raise ValueError("no")


def after(fails: int) -> int:
    return fails


@given(functions=pipelines(), workers=st.integers(1, 3))
@settings(max_examples=6)
def test_it_is_what_explain_says_first(
    tmp_path_factory: pytest.TempPathFactory, functions: list[Callable[..., Any]], workers: int
) -> None:
    traces = Traces()
    with pytest.MonkeyPatch.context() as patch, make_adapter(traces, max_workers=workers, record=True) as adapter:
        patch.setattr(run_finding, "SHARE", 1e9)
        patch.setattr(run_finding, "MOST_SECONDS", 1e9)
        make_driver(adapter, *functions).execute([each.__name__ for each in functions])
        assert {finding_of(traces)} == explained(adapter, traces, tmp_path_factory.mktemp("trace"))


@pytest.mark.usefixtures("whatever_it_takes")
def test_it_is_what_explain_says_first_of_branches_and_nested_runs(tmp_path: Path) -> None:
    def item() -> Parallelizable[int]:
        yield from range(4)

    def fetched(item: int) -> int:
        time.sleep(0.02 * (item + 1))
        return item

    def total(fetched: Collect[int]) -> int:
        return sum(fetched)

    traces = Traces()
    with make_adapter(traces, max_workers=2, record=1) as adapter:
        inner = make_driver(adapter, first, second, both)

        def nests(total: int) -> int:
            found: int = inner.execute(["both"])["both"]
            return found + total

        make_dynamic_driver(adapter, item, fetched, total, nests).execute(["nests"])
        assert {finding_of(traces)} == explained(adapter, traces, tmp_path)
    (nested,) = (each for each in traces.spans if each.name == "hamilton.run" and each.parent is not None)
    assert FINDING not in (nested.attributes or {})


@pytest.mark.parametrize("fail_fast", [False, True])
def test_a_failed_run_always_has_it(tmp_path: Path, fail_fast: bool) -> None:
    traces = Traces()
    with make_adapter(traces, max_workers=1, fail_fast=fail_fast, record=True) as adapter:
        with pytest.raises(ValueError, match="no"):
            make_driver(adapter, first, second, fails, after).execute(["second", "after"])
        assert finding_of(traces) == "failing_upstream"
        assert explained(adapter, traces, tmp_path) == {"failing_upstream"}


@pytest.mark.parametrize("a_nested_one_fails", [False, True])
def test_a_cancelled_run_has_it(tmp_path: Path, a_nested_one_fails: bool) -> None:
    """Unless a node of a nested run raised, which `explain` names first; that the outer run does not know by itself."""
    traces, gate = Traces(), Gate()
    adapter = make_adapter(traces, max_workers=2, record=True)
    inner = make_driver(adapter, first, fails)

    def held() -> int:
        if a_nested_one_fails:
            with pytest.raises(ValueError, match="no"):
                inner.execute(["fails"])
        gate()
        return 1

    def later(held: int) -> int:
        return held

    caller = Caller(lambda: make_driver(adapter, held, later).execute(["later"]))
    gate.wait_for()
    until(lambda: adapter.snapshot().blocked_nodes == 1)
    closing = Caller(lambda: adapter.close(cancel_pending=True))
    until(lambda: adapter.snapshot().blocked_nodes == 0)
    gate.open()
    closing.outcome()
    caller.outcome()
    assert finding_of(traces) == (None if a_nested_one_fails else "cancelled")
    assert explained(adapter, traces, tmp_path) == {"failing_upstream" if a_nested_one_fails else "cancelled"}


@pytest.mark.usefixtures("whatever_it_takes")
def test_it_is_what_explain_says_first_of_a_run_in_which_a_nested_one_failed(tmp_path: Path) -> None:
    """The outermost run was a success, and `explain` names the node that raised within."""
    traces = Traces()
    with make_adapter(traces, max_workers=2, record=True) as adapter:
        inner = make_driver(adapter, first, fails)

        def outer() -> int:
            with pytest.raises(ValueError, match="no"):
                inner.execute(["fails"])
            return 1

        make_driver(adapter, outer).execute(["outer"])
        assert explained(adapter, traces, tmp_path) == {"failing_upstream"}
        assert finding_of(traces) == "failing_upstream"


@pytest.mark.usefixtures("whatever_it_takes")
def test_nothing_is_said_of_a_run_that_had_others_beside_it() -> None:
    """What they had to do with it is not known before they have ended: neither of the one that ends first nor of it."""
    traces, gate = Traces(), Gate()

    held = holding(gate)

    with make_adapter(traces, max_workers=2) as adapter:
        longer = Caller(lambda: make_driver(adapter, held).execute(["held"]))
        gate.wait_for()
        make_driver(adapter, first).execute(["first"])
        gate.open()
        longer.outcome()
        alone = make_driver(adapter, second)
        alone.execute(["second"])
    runs = [(span.attributes or {}).get(FINDING) is not None for span in traces.spans if span.name == "hamilton.run"]
    assert runs == [False, False, True]


def test_a_short_run_has_none() -> None:
    traces = Traces()
    with make_adapter(traces, max_workers=1) as adapter:
        make_driver(adapter, first, second, both).execute(["both"])
    assert finding_of(traces) is None


class Asked:
    """In place of a diagnosis: remembers until when it had time."""

    def __init__(self) -> None:
        self.until: list[float] = []

    def __call__(self, run: RecordedRun, until: float) -> str:
        self.until.append(until)
        return "healthy"


@pytest.mark.parametrize(
    ("seconds", "nodes", "until"),
    [
        (9.9, 10, None),  # the first one has imports to do
        (12.0, 10, 100.12),
        (1_000.0, 100, 100.5),  # never more than half a second
        (1_000.0, 1_000, None),
    ],
)
def test_it_is_looked_for_where_it_takes_a_hundredth_of_the_run(
    seconds: float, nodes: int, until: float | None
) -> None:
    run = RunRecord("1", "etl")
    run.started_ns, run.ended_ns, run.node_count = 0, int(seconds * 1e9), nodes
    record = RecordedRun(id="1", name="etl", pool="p", started_ns=0, ended_ns=run.ended_ns, nodes=())
    run.recorded = lambda: record
    asked = Asked()
    found = RunFinding(asked, clock=lambda: 100.0).of(run, KeptNodes(nodes=(), stretches=(), whole=True))
    assert (found, asked.until) == ((None, []) if until is None else ("healthy", [pytest.approx(until)]))


def test_what_takes_longer_is_given_up_between_two_replays() -> None:
    traces = Traces()
    with make_adapter(traces, max_workers=1, record=True) as adapter:
        make_driver(adapter, first, second, both).execute(["both"])
        (run,) = adapter.recorded_runs
    readings = 0

    def clock() -> float:
        nonlocal readings
        readings += 1
        return float(readings)

    assert first_finding(run, until=3, clock=clock) is None
    assert readings == 4
    assert first_finding(run, until=1e9, clock=clock) == diagnose(run).cause
