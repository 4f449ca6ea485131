"""A real Chromium, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.report.browser import PATIENCE_MS, Open, Opened, chromium
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.explanation import explain


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens the page of a run, and at the end fails if anything went wrong in it, or left it."""
    pytest.importorskip("jinja2", reason="needs the extra [report]")
    from traced_threadpool.report.page import page as page_of

    opened: list[Opened] = []

    def open_one(run: RecordedRun, scheme: Literal["light", "dark"] = "light") -> Opened:
        file = tmp_path / f"{len(opened)}.html"
        file.write_text(page_of(explain(run)), encoding="utf-8")
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1360, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        one = Opened(context.new_page())
        opened.append(one)
        one.page.goto(file.as_uri())
        return one

    yield open_one
    for one in opened:
        one.page.context.close()
    assert [fault for one in opened for fault in one.faults] == []
