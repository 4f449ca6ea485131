"""The benchmark's own yardstick: a bound that is not too high, whatever the DAG."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")

from benchmarks import branches, dags, priorities, report, schedules, targets
from benchmarks.bounds import lower_bound_seconds
from benchmarks.dags import Dag
from benchmarks.samples import Results
from benchmarks.settings import Settings
from benchmarks.strong_bound import strong_bound_seconds


@st.composite
def small_dags(draw: st.DrawFn) -> Dag:
    size = draw(st.integers(1, 5))
    inputs = {
        f"n{number}": tuple(f"n{each}" for each in sorted(draw(st.sets(st.integers(0, number - 1))))) if number else ()
        for number in range(size)
    }
    seconds = {name: float(draw(st.integers(1, 4))) for name in inputs}
    used = {each for upstream in inputs.values() for each in upstream}
    inputs["end"] = tuple(name for name in inputs if name not in used)
    return Dag(name="small", inputs=inputs, seconds={**seconds, "end": float(draw(st.integers(0, 2)))})


def shortest_seconds(dag: Dag, workers: int) -> float:
    """By exhaustive search: each order in which inputs come first, each node as early as it fits among those placed.

    One of these schedules is the best there is, idling included.
    """
    best = sum(dag.seconds.values())
    for order in itertools.permutations(list(dag.inputs)[:-1]):
        ends: dict[str, float] = {}
        placed: list[tuple[float, float]] = []
        for name in (*order, dag.end):
            if any(each not in ends for each in dag.inputs[name]):
                break
            earliest = max((ends[each] for each in dag.inputs[name]), default=0.0)
            for start in sorted({earliest, *(end for _, end in placed if end > earliest)}):
                end = start + dag.seconds[name]
                changes = [start, *(begun for begun, _ in placed if start < begun < end)]
                if all(sum(begun <= at < ended for begun, ended in placed) < workers for at in changes):
                    break
            ends[name] = end
            placed.append((start, end))
        else:
            best = min(best, ends[dag.end])
    return best


@given(dag=small_dags(), workers=st.integers(1, 3))
@settings(deadline=None, max_examples=150)
def test_no_schedule_beats_the_strong_bound(dag: Dag, workers: int) -> None:
    """And it is never below the simple one."""
    bound = strong_bound_seconds(dag, workers=workers)
    assert lower_bound_seconds(dag, workers=workers) - 1e-9 <= bound
    assert bound <= shortest_seconds(dag, workers) + 1e-9


@pytest.mark.parametrize("seed", [1, 2])
def test_learned_durations_come_near_the_bound(seed: int) -> None:
    """In virtual time, on the benchmark's shapes: within a tenth, and never behind first ready, first started."""
    for case in priorities.cases(priorities.SHAPES, [seed], [8]):
        fifo, warm = (
            schedules.schedule_seconds(case.dag, workers=case.workers, policy=policy)
            for policy in (None, schedules.known)
        )
        assert case.bound_seconds - 1e-9 <= warm <= min(1.1 * case.bound_seconds, 1.02 * fifo), case.name


def test_the_table_of_a_small_run() -> None:
    """Every order runs every DAG, and gives the value that is right."""
    dag = dags.sleeping(dags.fork_joins(2, 4), seed=1)
    case = priorities.Case(dag=dag, workers=2, bound_seconds=strong_bound_seconds(dag, workers=2))
    found = priorities.run_for_real([case], rounds=1)
    assert all(multiple >= 1 for [multiple] in found[case.name].values())
    assert priorities.run_virtually([case]).keys() == found.keys()


def test_tables_and_verdicts_of_priorities() -> None:
    """Averages and the worst of all DAGs, against the aims."""
    results = Results(priorities.measure(Settings(smoke=True)))
    titles = [each.title.partition(":")[0] for each in report.tables(results, [])]
    assert titles == [priorities.VIRTUAL_SECTION, priorities.REAL_SECTION]
    checks = [check for check in targets.check(results) if check.case.startswith(priorities.VIRTUAL_SECTION)]
    assert [check.limit for check in checks] == [1.05, 1.12, 1.02, 1.02, 1.12, 1.02]
    assert all(check.value >= 1 - 1e-9 for check in checks if "lower bound" in check.target)


def test_branches_cost_something() -> None:
    """Ours and Hamilton's own give the same result, which is checked."""
    results = Results(branches.measure(Settings(smoke=True)))
    assert results.peers(branches.SECTION, "5 branches") == list(branches.PEERS)
