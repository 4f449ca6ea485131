"""The table of predictions can be made, and says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.predictions import __main__ as predictions
from benchmarks.predictions.__main__ import BEGIN, END, Pair
from benchmarks.predictions.cases import CASES


def pair(**facts: float) -> Pair:
    foretold = facts.get("foretold", 1.0)
    given = {"low": foretold, "foretold": foretold, "high": foretold, "measured": 1.0, **facts}
    return Pair(case=CASES["a lock"], workers=2, **given)


def test_a_prediction_is_right_near_the_truth_or_in_a_narrow_range_that_holds_it() -> None:
    assert pair(foretold=1.14).is_right
    assert not pair(foretold=1.2).is_right
    assert pair(foretold=1.5, low=0.9, high=1.7).is_right
    assert not pair(foretold=1.5, low=0.5, high=1.7).is_right
    assert not pair(foretold=1.5, low=1.2, high=1.7).is_right


def test_the_table_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    predictions.write(page, predictions.markdown([pair(), pair(foretold=2.0)], "a machine"))
    text = page.read_text()
    assert "1 of 2 (50%) are right. Measured on a machine." in text
    assert text.count("| lock | a lock | 2 |") == 2
    assert "missed" in text
    assert "old" not in text
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no place for the table"):
        predictions.write(page, "")


@pytest.mark.slow
def test_a_case_is_run_and_foretold(capsys: pytest.CaptureFixture[str]) -> None:
    predictions.main(["--rounds", "1", "--only", "of two"])
    assert "| semaphore | of two | 16 |" in capsys.readouterr().out
