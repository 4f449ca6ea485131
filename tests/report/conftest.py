"""A real Chromium, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.report.browser import ARGUMENTS, PATIENCE_MS, Open, Opened
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.explanation import explain

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (it is in the dev group)"
    )
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS), timeout=PATIENCE_MS)
        yield browser
        browser.close()


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
