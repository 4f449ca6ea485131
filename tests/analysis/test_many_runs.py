"""Many runs together: the typical one, what slow ones have in common, the trend; and how two sets differ."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.diagnosed_runs import MS, node
from tests.analysis.synthetic_runs import layered_run
from traced_threadpool.analysis import compare_sets, summarize
from traced_threadpool.analysis.many_runs import ManyRuns
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.report.many_runs import explain_many


def of(nodes: Sequence[NodeExecution], number: int, **facts: Any) -> RecordedRun:
    """Run `number` of a service: one a minute, as long as its last node."""
    start_ns = number * 60_000 * MS
    moved = [
        replace(
            each,
            submitted_ns=each.submitted_ns + start_ns,
            ready_ns=each.ready_ns + start_ns,
            started_ns=each.started_ns + start_ns,
            ended_ns=each.ended_ns + start_ns,
        )
        for each in nodes
    ]
    end_ns = max(each.ended_ns for each in moved)
    defaults: dict[str, Any] = {
        "max_workers": 2,
        "cpus": 2,
        "pool": "etl",
        "name": "etl",
        "started_unix_ns": start_ns + 1,
    }
    return RecordedRun(
        id=f"{number:04}", started_ns=start_ns, ended_ns=end_ns, nodes=tuple(moved), **{**defaults, **facts}
    )


def chain(load: int, parse: int, state: str = "cpu") -> list[NodeExecution]:
    """`load`, then `parse`, so many milliseconds each."""
    return [
        node("load", 0, load, {"network": load}),
        node("parse", load, load + parse, {state: parse}, upstream=("load",)),  # type: ignore[dict-item]
    ]


def service(slow: Sequence[int] = (), count: int = 60, **slow_chain: Any) -> list[RecordedRun]:
    """Runs of 100 ms and a few more; those that are named are slow, for a reason."""
    dice = random.Random(1)
    return [
        of(chain(50 + dice.randint(0, 4), **({"parse": 50} if number not in slow else slow_chain)), number)
        for number in range(count)
    ]


def traits(many: ManyRuns) -> list[tuple[str, str, int, int]]:
    return [(each.kind, each.name, each.slow, each.others) for each in many.slow.traits]


def test_what_slow_runs_have_in_common_is_told_with_counts() -> None:
    """Six of 60 runs wait for a lock in `parse`; nothing else sets them apart."""
    many = summarize(service(slow=(3, 17, 30, 31, 44, 59), parse=200, state="lock"))

    assert len(many.slow.runs) == 6
    assert many.slow.others == 54
    assert traits(many) == [("long_node", "parse", 6, 0), ("state", "lock", 6, 0)]
    assert many.slow.change is not None
    name, by_ns = next(iter(many.slow.change.path_change_ns.items()))
    assert (name, by_ns) == ("parse", pytest.approx(150 * MS))


def test_what_the_others_have_too_is_no_reason() -> None:
    """`load` is on every path, of slow runs and of others."""
    many = summarize(service(slow=(3, 17, 30, 31), parse=200))
    assert ("on_path", "load") not in {(kind, name) for kind, name, *_ in traits(many)}


def test_slow_runs_that_other_runs_were_beside() -> None:
    """Runs that overlap in the pool: that is what they have in common."""
    runs = service(slow=(10, 20, 30, 40), parse=50)
    queued = [node("load", 200, 250, {"cpu": 50}, ready=0, submitted=0)]
    for number in (10, 20, 30, 40):
        runs[number] = of(queued, number)
        beside = [of([node("load", 0, 100, {"cpu": 100})], number, name="other") for _ in range(3)]
        runs += [replace(each, id=f"{number}-{index}") for index, each in enumerate(beside)]
    many = summarize(runs, name="etl")
    assert ("state", "queue", 4, 0) in traits(many)
    assert ("beside", "0", 4, 0) in traits(many)


def test_runs_that_vary_by_chance_have_nothing_in_common() -> None:
    """The slowest tenth of runs that only vary in everything."""
    dice = random.Random(5)
    runs = [of(chain(dice.randint(80, 120), dice.randint(80, 120)), number) for number in range(80)]
    many = summarize(runs)
    assert [kind for kind, *_ in traits(many)] == []
    assert not many.drifts


def test_the_typical_run_is_one_that_succeeded_and_took_the_median() -> None:
    """Those that failed are shorter, and of no length that anybody waits for."""
    runs = service(count=21)
    failed = [
        of([replace(chain(5, 5)[0], outcome="error", error_type="ValueError")], number, outcome="error")
        for number in range(21, 60)
    ]
    many = summarize([*runs, *failed])
    assert many.outcomes == {"success": 21, "error": 39}
    assert many.typical is not None
    assert many.typical.run.outcome == "success"
    assert many.typical.duration_ns == many.durations.p50_ns
    assert many.failures == {("load", "ValueError"): 39}


def test_a_trend_is_told_and_noise_is_not() -> None:
    """`parse` takes 1 ms more in each run: from the first third to the last, 40."""
    runs = [of(chain(50, 50 + number), number) for number in range(60)]
    many = summarize(runs)
    assert many.drifts
    assert many.trend is not None
    assert dict(many.trend.path_change_ns) == {"parse": 40 * MS}
    assert [(block.first, block.last) for block in many.blocks][:2] == [(1, 7), (8, 15)]
    assert not summarize(service()).drifts


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=8), st.lists(st.integers(0, 400), min_size=1, max_size=8))
def test_the_change_of_the_mean_is_the_sum_of_the_paths_changes(before: list[int], after: list[int]) -> None:
    """Whatever the graphs."""
    sets = [[layered_run(12, seed=seed, workers=2) for seed in seeds] for seeds in (before, after)]
    found = compare_sets(*sets)
    means = [sum(run.duration_ns for run in runs) / len(runs) for runs in sets]
    assert found.change_ns == pytest.approx(means[1] - means[0])
    assert sum(found.path_change_ns.values()) == pytest.approx(found.change_ns, abs=1)
    assert sum(both[0] for both in found.path_ns.values()) == pytest.approx(means[0])


def test_a_set_against_itself_is_unchanged_and_a_slower_one_is_not() -> None:
    """Whether a difference is more than chance, the ranks tell; of three runs nothing."""
    runs = service(count=20)
    slower = service(slow=range(20), count=20, parse=70)
    assert (compare_sets(runs, runs).clear, compare_sets(runs, slower).clear) == (False, True)
    assert not compare_sets(runs[:3], slower[:3]).clear
    with pytest.raises(ValueError, match="a set of runs is empty"):
        compare_sets([], runs)


def test_a_name_that_no_run_has_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="no run 'nightly'; there are 'etl'"):
        summarize(service(count=3), name="nightly")
    with pytest.raises(ValueError, match="there are none"):
        summarize([])


def test_runs_of_which_none_succeeded_have_no_typical_one() -> None:
    """Their lengths are told, and what failed."""
    runs = [
        of(
            [replace(chain(5, 5)[0], outcome="error", error_type="ValueError")],
            number,
            outcome="error",
            max_workers=None,
        )
        for number in range(8)
    ]
    sentences = explain_many(runs).sentences
    assert sentences[1:3] == (
        "8 runs failed: load raised ValueError in 8.",
        "No run succeeded, so none is typical or slow.",
    )
