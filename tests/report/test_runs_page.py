"""The page of many runs: what it says without JavaScript, and in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run
from tests.analysis.test_many_runs import service
from tests.report.browser import PATIENCE_MS, Opened
from tests.report.documents import elements_of, renamed
from traced_threadpool.analysis import compare_sets
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.many_runs import difference_sentences, difference_tables, explain_many

pytest.importorskip("jinja2", reason="needs the extra [report]")

from traced_threadpool.report.runs_page import runs_page, sets_page

SLOW = (3, 17, 30, 31, 44, 59)


def runs() -> list[RecordedRun]:
    """As `explain --all` is tested with, and a run that failed."""
    found = service(slow=SLOW, parse=200, state="lock")
    found[7] = replace(found[7], outcome="error", error_type="ValueError")
    return found


def test_the_page_says_what_the_text_says() -> None:
    """Sentences, findings of the typical run, and every table."""
    explanation = explain_many(runs())
    page = runs_page(explanation)
    texts = {text for _, _, text in elements_of(page)}
    assert set(explanation.sentences) <= texts
    for table in explanation.tables(100):
        assert {table.heading, table.note, *table.columns, *(cell for row in table.rows for cell in row)} <= texts | {
            ""
        }
    assert "1 run failed: ValueError in 1. The lengths are of those that succeeded." in texts


def test_no_text_makes_an_element() -> None:
    """Names of runs and nodes that are markup stay text, in the page and in its data."""

    def outline(rename: Any) -> list[tuple[str, list[str]]]:
        page = runs_page(explain_many([renamed(run, rename) for run in runs()]))
        assert not re.search(r"<(?!script|style)[^>]*(?:\son\w+=|https?:|url\()", page.partition("<script>")[0])
        return [(tag, list(attributes)) for tag, attributes, _ in elements_of(page)]

    assert outline("a_{}".format) == outline("<b onclick=x>{}</b>\"'&amp;".format)


@pytest.mark.parametrize("nasty", [False, True])
def test_few_runs_have_a_page_too(nasty: bool) -> None:
    """One run; one that failed; one without nodes."""
    names = NASTY_NAMES if nasty else ()
    for run in (
        layered_run(5, node_names=names),
        layered_run(30, failing=layered_run(30).nodes[5].name),
        layered_run(0),
    ):
        assert "The typical run" in runs_page(explain_many([run])) or run.outcome == "error"


def two_sets() -> str:
    before, after = service(), service(slow=range(60), parse=200, state="lock")
    return sets_page(compare_sets(before, after), "etl", before, after)


def test_the_page_of_two_sets_says_what_diff_says() -> None:
    """Sentences and every table, in which markup stays text."""
    before, after = service(), service(slow=range(60), parse=200, state="lock")
    found = compare_sets(before, after)
    texts = {text for _, _, text in elements_of(sets_page(found, "<b>etl</b>", before, after))}
    assert {"<b>etl</b>", *difference_sentences(found)} <= texts
    for table in difference_tables(found):
        assert {table.heading, *table.columns, *(cell for row in table.rows for cell in row)} <= texts
    assert "More than chance would give." in texts


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    file = tmp_path / "runs.html"
    file.write_text(runs_page(explain_many(runs())), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    one = Opened(context.new_page())
    one.page.goto(file.as_uri())
    yield one
    context.close()
    assert one.faults == []


def column(opened: Opened, number: int) -> list[str]:
    texts: list[str] = opened.page.locator(f"#runs tbody td:nth-child({number})").all_inner_texts()
    return texts


def test_the_list_is_sorted_and_searched(opened: Opened) -> None:
    """By number at first; by length, the longest first; slow runs, failed ones, those with a word."""
    assert column(opened, 1) == [str(number) for number in range(1, 61)]
    opened.page.locator("#runs th button").nth(2).click()
    assert {int(number) - 1 for number in column(opened, 1)[:6]} == set(SLOW)
    opened.page.locator("#runs th button").nth(2).click()
    assert {int(number) - 1 for number in column(opened, 1)[-6:]} == set(SLOW)
    opened.page.locator("#only").select_option("slow")
    assert opened.page.locator("#matches").inner_text() == "6 runs"
    opened.page.locator("#only").select_option("failed")
    assert column(opened, 5) == ["error: ValueError"]
    opened.page.locator("#only").select_option("all")
    opened.page.locator("#search").fill("0042")
    assert column(opened, 9) == ["0042"]


def test_the_chart_has_each_run(opened: Opened) -> None:
    """In three kinds; in the dark as well."""
    told = (
        "echarts.getInstanceByDom(document.getElementById('runs-chart')).getOption().series.map(one => one.data.length)"
    )
    assert opened.page.evaluate(told) == [53, 6, 1]
    opened.page.locator(".switch button[value=dark]").click()
    assert opened.page.evaluate(told) == [53, 6, 1]


def test_the_chart_of_two_sets_has_each_run_and_the_medians(browser: Any, tmp_path: Path) -> None:
    """In a real Chromium, whose console stays empty."""
    file = tmp_path / "sets.html"
    file.write_text(two_sets(), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    one = Opened(context.new_page())
    one.page.goto(file.as_uri())
    told = (
        "echarts.getInstanceByDom(document.getElementById('sets-chart')).getOption().series"
        ".map(one => [one.name, one.data.length, one.markLine.data[0].yAxis])"
    )
    found = one.page.evaluate(told)
    assert [each[:2] for each in found] == [["before", 60], ["after", 60]]
    assert found[0][2] < found[1][2]
    context.close()
    assert one.faults == []
