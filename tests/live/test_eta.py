"""What is left of runs in a pool into when each will be over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traced_threadpool.live.eta import NodeLeft, left_seconds, predict_ends
from traced_threadpool.model.usual_duration import UsualDuration


def usually(seconds: float, p95: float | None = None) -> UsualDuration:
    return UsualDuration(p50_seconds=seconds, p95_seconds=p95 or seconds * 1.1, count=9)


def end_of(nodes: Sequence[NodeLeft], workers: int, run: str = "run") -> float:
    seconds = predict_ends(nodes, [workers])[run].end.seconds
    assert seconds is not None
    return seconds


def test_a_chain_takes_the_sum_and_a_running_node_what_is_left_of_it() -> None:
    """The chain that the end waits for is named, the next node first."""
    nodes = [
        NodeLeft(name="load", run="run", elapsed_seconds=1.0, usual=usually(4.0, 4.1)),
        NodeLeft(name="clean", run="run", upstream=(0,), usual=usually(2.0)),
        NodeLeft(name="report", run="run", upstream=(1,), usual=usually(3.0)),
        NodeLeft(name="aside", run="run", usual=usually(1.0)),
    ]
    found = predict_ends(nodes, [2])["run"]
    assert found.end.seconds == pytest.approx(3.0 + 2.0 + 3.0, rel=0.05)
    assert found.chain == ("load", "clean", "report")
    assert found.end.reason is None


def test_nodes_queue_for_workers() -> None:
    """Six seconds of work on two workers take three, and on one six."""
    nodes = [NodeLeft(name=f"n{index}", run="run", usual=usually(1.0)) for index in range(6)]
    assert end_of(nodes, 2) == pytest.approx(3.0)
    assert end_of(nodes, 1) == pytest.approx(6.0)
    assert len(predict_ends(nodes, [1])["run"].chain) == 6  # each waits for the worker of the one before


def test_another_run_in_the_pool_counts() -> None:
    """Runs take turns for the one worker: either ends later than alone."""
    mine = [NodeLeft(name=f"m{index}", run="mine", usual=usually(1.0)) for index in range(3)]
    theirs = [NodeLeft(name=f"t{index}", run="theirs", usual=usually(1.0)) for index in range(3)]
    both = predict_ends([*mine, *theirs], [1])
    assert end_of(mine, 1, "mine") == pytest.approx(3.0)
    assert sorted(round(both[run].end.seconds or 0) for run in ("mine", "theirs")) == [5, 6]


def test_lanes_have_their_own_limits() -> None:
    """Two at a time in the lane, whatever limit the pool has."""
    nodes = [NodeLeft(name=f"q{index}", run="run", lane=1, usual=usually(1.0)) for index in range(4)]
    found = predict_ends(nodes, [8, 2])["run"].end.seconds
    assert found == pytest.approx(2.0)


def test_nothing_is_predicted_of_what_is_not_known() -> None:
    """No number without support, and the reason in its place."""
    unknown = [NodeLeft(name="a", run="run"), NodeLeft(name="b", run="run")]
    assert predict_ends(unknown, [1])["run"].end.seconds is None
    assert "no earlier execution" in str(predict_ends(unknown, [1])["run"].end.reason)
    some = [NodeLeft(name="a", run="run", usual=usually(1.0)), *unknown, *unknown]
    assert "of 1 of the 5 nodes" in str(predict_ends(some, [1])["run"].end.reason)
    reasons = predict_ends([NodeLeft(name="a", run="run", usual=usually(1.0))], [1], reasons={"run": "branches"})
    assert reasons["run"].end.reason == "branches"


def test_the_range_is_as_wide_as_durations_differ() -> None:
    """Around the likely end, wider for what varies."""
    steady = predict_ends([NodeLeft(name="a", run="run", usual=usually(10.0, 10.5))], [1])["run"].end
    varied = predict_ends([NodeLeft(name="a", run="run", usual=usually(10.0, 30.0))], [1])["run"].end
    for end in (steady, varied):
        assert end.earliest_seconds is not None
        assert end.seconds is not None
        assert end.latest_seconds is not None
        assert 0 <= end.earliest_seconds <= end.seconds <= end.latest_seconds
    assert (steady.latest_seconds or 0) < (varied.latest_seconds or 0)


@given(elapsed=st.floats(0, 1e6), median=st.floats(1e-6, 1e5), spread=st.floats(1.0, 50.0))
def test_what_is_left_is_never_negative(elapsed: float, median: float, spread: float) -> None:
    """However long it has run already."""
    left = left_seconds(usually(median, median * spread), elapsed)
    assert 0 <= left < 1e9


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.01, 10), st.lists(st.integers(0, 30), max_size=3), st.booleans()), min_size=1, max_size=30
    ),
    st.integers(1, 5),
)
def test_the_end_is_within_grahams_bounds(shape: list[tuple[float, list[int], bool]], workers: int) -> None:
    """Not before the longest chain or the work shared evenly; not after both added up."""
    nodes: list[NodeLeft] = []
    depth: list[float] = []
    for index, (seconds, inputs, _) in enumerate(shape):
        upstream = sorted({each % index for each in inputs}) if index else []
        nodes.append(NodeLeft(name=f"n{index}", run="run", upstream=upstream, usual=usually(seconds)))
        depth.append(seconds + max((depth[each] for each in upstream), default=0.0))
    work, longest = sum(seconds for seconds, _, _ in shape), max(depth)
    end = end_of(nodes, workers)
    assert max(longest, work / workers) <= end + 1e-6
    assert end <= longest + work / workers + 1e-6
