"""One execution's wait divided, and its node's counters: pure arithmetic, so samples are made up here."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traced_threadpool.model.states import SAMPLED
from traced_threadpool.waits.split import Division, History

GIL, NETWORK, SLEEP, OTHER = (SAMPLED.index(state) for state in ("gil", "network", "sleep", "other"))
MS = 1_000_000
EACH_NS = 10 * MS
"""What a sample stands for."""

counts_of_each = st.lists(st.integers(0, 300), min_size=len(SAMPLED), max_size=len(SAMPLED))


def seen_in(*counts: tuple[int, int]) -> list[int]:
    """The samples of an execution: state and how often it was seen."""
    seen = [0] * len(SAMPLED)
    for state, count in counts:
        seen[state] = count * EACH_NS
    return seen


def settle(history: History, seen: Sequence[int], *, off_ns: int | None = None) -> Division:
    """An execution that took as long as its samples stand for, unless told otherwise."""
    return history.settle(sum(seen) if off_ns is None else off_ns, seen, samples=sum(seen) // EACH_NS)


def shares(parts: Sequence[int]) -> list[float]:
    return [part / sum(parts) for part in parts]


@given(st.lists(st.tuples(st.integers(0, 10**11), counts_of_each, st.booleans()), max_size=30))
def test_both_add_up_and_nothing_is_negative(executions: list[tuple[int, list[int], bool]]) -> None:
    """Whatever was seen; and a state that nobody ever saw gets nothing. Also of one that came in between another."""
    history, ever = History(), [0] * len(SAMPLED)
    for off_ns, counts, in_between in executions:
        seen = [count * EACH_NS for count in counts]
        ever = [so_far + now for so_far, now in zip(ever, seen, strict=True)]
        if in_between:
            division = history.glance(off_ns, seen, samples=sum(counts))
            history.learn(off_ns, seen, division.counted, samples=sum(counts))
        else:
            division = history.settle(off_ns, seen, samples=sum(counts))
        for parts in division:
            assert sum(parts) == off_ns
            assert min(parts) >= 0
        if sum(ever):
            assert [part for part, found in zip(division.estimate, ever, strict=True) if not found and part > 5] == []


def test_a_first_execution_is_what_was_seen_of_it() -> None:
    """Without a past there is nothing to mix it with."""
    assert shares(settle(History(), seen_in((GIL, 3), (SLEEP, 1))).estimate) == shares(seen_in((GIL, 3), (SLEEP, 1)))


def test_executions_that_are_alike_make_the_past_count() -> None:
    """Of eight samples of a node that spends half of its wait in each of two states, chance makes 1 to 7."""
    history, choice, errors = History(), random.Random(1), []
    for _ in range(100):
        seen = sum(choice.random() < 0.5 for _ in range(8))
        errors.append(abs(shares(settle(history, seen_in((GIL, seen), (SLEEP, 8 - seen))).estimate)[GIL] - 0.5))
    assert sum(errors[50:]) / 50 < 0.11  # by its own samples alone 0.14


def test_an_execution_is_mostly_its_own_samples() -> None:
    """Where some only sleep and some only wait for the GIL, eight samples are believed."""
    history, choice, found = History(), random.Random(1), []
    for _ in range(100):
        state = choice.choice([GIL, SLEEP])
        found.append(shares(settle(history, seen_in((state, 8))).estimate)[state])
    assert min(found[20:]) > 0.7


def test_an_execution_unlike_all_before_it_shows() -> None:
    """Also after a hundred that were alike."""
    history = History()
    for _ in range(100):
        settle(history, seen_in((GIL, 2), (SLEEP, 8)))
    assert shares(settle(history, seen_in((NETWORK, 12))).estimate)[NETWORK] > 0.7


def test_counters_are_right_in_the_sum_where_executions_differ() -> None:
    """One in eleven is long, waits for the network and is seen; the rest are short, wait for the GIL, and
    hardly any is sampled. What short ones were not given is made good later on.
    """
    history, choice = History(), random.Random(1)
    true, counted = [0] * len(SAMPLED), [0] * len(SAMPLED)
    for number in range(5_500):
        long = number % 11 == 0
        state, off_ns = (NETWORK, 10 * EACH_NS) if long else (GIL, EACH_NS)
        seen = seen_in((state, 10 if long else 1)) if long or choice.random() < 0.2 else seen_in()
        if not long:
            seen = [5 * each for each in seen]  # one in five was sampled: its sample stands for five of them
        division = history.settle(off_ns, seen, samples=sum(seen) // EACH_NS if long else min(1, sum(seen)))
        true[state] += off_ns
        counted = [so_far + now for so_far, now in zip(counted, division.counted, strict=True)]
    errors = [abs(one - other) for one, other in zip(shares(counted), shares(true), strict=True)]
    assert max(errors) < 0.04, (shares(counted), shares(true))


@pytest.mark.parametrize("in_between", [0.0, 0.3])
def test_counters_are_right_where_hardly_any_execution_is_sampled(in_between: float) -> None:
    """One in twenty, once; what it is seen in stands for the nineteen others too. Some come in between others."""
    history, choice = History(), random.Random(1)
    counted, off_ns = [0] * len(SAMPLED), EACH_NS // 20
    for _ in range(20_000):
        seen, samples = seen_in(), 0
        if choice.random() < 0.05:
            seen, samples = seen_in((GIL if choice.random() < 0.7 else SLEEP, 1)), 1
        if choice.random() < in_between:
            division = history.glance(off_ns, seen, samples=samples)
            history.learn(off_ns, seen, division.counted, samples=samples)
        else:
            division = history.settle(off_ns, seen, samples=samples)
        counted = [so_far + now for so_far, now in zip(counted, division.counted, strict=True)]
    found = shares(counted)
    assert abs(found[GIL] - 0.7) < 0.05
    assert found[GIL] + found[SLEEP] > 0.99


def test_what_was_counted_before_the_first_sample_is_made_good() -> None:
    """It was counted as `other`; later executions are counted as what is seen, and `other` gets no more."""
    history = History()
    for _ in range(3):
        assert history.settle(MS, seen_in(), samples=0).counted[OTHER] == MS
    settle(history, seen_in((SLEEP, 1)), off_ns=MS)
    division = history.settle(MS, seen_in(), samples=0)
    assert (division.estimate[SLEEP], division.counted[SLEEP]) == (MS, MS)


def test_a_node_that_changes_is_forgotten() -> None:
    """A thousand samples after it has, what it did before is hardly there."""
    history = History()
    for _ in range(100):
        settle(history, seen_in((GIL, 10)))
    for _ in range(100):
        settle(history, seen_in((SLEEP, 10)))
    assert history.settle(MS, seen_in(), samples=0).counted[SLEEP] > 0.8 * MS
