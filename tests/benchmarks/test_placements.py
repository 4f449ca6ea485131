"""What nodes gain on processes: the table says what is missed, and the cases have the nodes that they move."""

from __future__ import annotations

import pytest
from hamilton import driver

from benchmarks.placements.cases import CASES
from benchmarks.placements.predictions import BEGIN, END, Pair, markdown
from tests.house.test_readme import ROOT


def pair(recorded: int, asked: int, foretold: float) -> Pair:
    return Pair(case=CASES["plain Python"], recorded=recorded, asked=asked, foretold=foretold, measured=1.0)


def test_the_table_says_what_changes_and_whether_it_is_met() -> None:
    """By the median and by the worst of all pairs."""
    near = [pair(0, 2, 1.1), pair(2, 0, 0.9), pair(1, 2, 1.05)]
    said = markdown(near, "a machine")
    assert said.startswith("3 pairs: median error 10.0%, worst 10%; to be reached were 15% and 30%: met.")
    assert "| plain Python | threads | 2 processes | 1.100 s | 1.000 s | +10% |" in said
    assert [line.split(" | ")[0] for line in said.splitlines()[4:7]] == [
        "| threads to processes",
        "| back to threads",
        "| number of processes",
    ]
    assert ": missed." in markdown([*near, pair(0, 1, 1.4)], "a machine")


def test_the_page_has_a_place_for_the_table() -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert page.index(BEGIN) < page.index(END)


@pytest.mark.parametrize("name", CASES)
def test_a_case_has_the_nodes_that_it_moves(name: str) -> None:
    case = CASES[name]
    nodes = driver.Builder().with_modules(case.module()).build().graph.nodes
    assert set(case.moved) <= set(nodes)
