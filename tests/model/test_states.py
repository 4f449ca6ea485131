"""The table of states, and what follows from it."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scripts import states_table
from traced_threadpool.model.states import INFO, SAMPLED, STATES, TABLE, has_waits, in_order, sampled, unsampled
from traced_threadpool.waits import shared_memory
from traced_threadpool.waits.classify import KINDS

ROOT = Path(__file__).resolve().parents[2]

nanoseconds = st.integers(0, 10**12)


def test_what_a_sample_tells_is_what_the_table_says() -> None:
    """The sampler's process does not import the table, so its own list must be the same."""
    assert ("running", *SAMPLED) == KINDS
    assert KINDS[-1] == "other"
    assert shared_memory.SEEN_NS + len(KINDS) <= shared_memory.ROW


@given(nanoseconds, nanoseconds, st.lists(nanoseconds, min_size=len(SAMPLED), max_size=len(SAMPLED)))
def test_a_division_has_each_part_at_its_state(cpu_ns: int, runqueue_ns: int, sampled_ns: list[int]) -> None:
    """By whichever way it is built; and only waits that are known count as such."""
    parts = {"cpu": cpu_ns, "runqueue": runqueue_ns, **dict(zip(SAMPLED, sampled_ns, strict=True))}
    division = sampled(cpu_ns, runqueue_ns, sampled_ns)
    assert dict(zip(STATES, division, strict=True)) == {state: parts.get(state, 0) for state in STATES}
    assert division == in_order(parts)
    assert has_waits(division) == any(ns for state, ns in parts.items() if state not in ("cpu", "other"))
    other_ns = parts["other"]
    assert unsampled(cpu_ns, runqueue_ns, other_ns) == in_order(
        {"cpu": cpu_ns, "runqueue": runqueue_ns, "other": other_ns}
    )


def test_the_table_in_the_documentation_is_current() -> None:
    """`make docs` writes it."""
    text = states_table.DOCUMENT.read_text(encoding="utf-8")
    assert text == states_table.with_table(text), "the table of states is out of date: run make docs"


def test_no_two_states_look_the_same() -> None:
    """Nor is any name or meaning there twice."""
    for field in ("name", "meaning", "light", "dark", "terminal", "panel"):
        assert len({getattr(each, field) for each in TABLE}) == len(TABLE), field
    assert tuple(INFO) == STATES


def test_nothing_counts_states_by_position() -> None:
    """The order is the table's to change: no slice from the second to the last but one, no number for `other`."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("src", "dashboards", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "classify.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(state_ns|counted_ns|STATES)\[(-?\d|1?:)|\bOTHER(: Final)? = \d", line)
    ]
    assert found == []
