"""A page opened in a real Chromium, and everything that goes wrong in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from traced_threadpool.model.formatting import duration

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS = 150_000
"""How long the browser is waited for: a machine that others use takes its time."""

PICTURES = os.environ.get("REPORT_PICTURES")
"""A directory: the pictures of the documentation are written there anew."""


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium, where there is one; else the test is skipped."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (it is in the dev group)"
    )
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=list(ARGUMENTS), timeout=PATIENCE_MS)
        yield browser
        browser.close()


class Opened:
    """A page that was opened, and everything that went wrong in it since."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", lambda message: self.faults.append(f"console: {message.text}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if not request.url.startswith("file:"):
            self.faults.append(f"request: {request.url}")

    def node(self, name: str) -> int:
        """The node's number on the page."""
        return int(self.page.evaluate("name => tracedThreadpool.find(name)", name))

    def point_at(self, name: str) -> dict[str, float]:
        """Move the pointer to the middle of a node's bar, which is on the screen then."""
        self.page.locator("#timeline").scroll_into_view_if_needed()
        place: dict[str, float] = self.page.evaluate("node => tracedThreadpool.place(node)", self.node(name))
        self.page.mouse.move(place["x"], place["y"])
        return place

    def selected(self) -> str | None:
        found: str | None = self.page.evaluate("tracedThreadpool.selected")
        return found

    def details(self) -> dict[str, str]:
        """What is told of the node that is chosen."""
        terms, values = (self.page.locator(f"#details {tag}").all_inner_texts() for tag in ("dt", "dd"))
        return dict(zip(terms, values, strict=True))

    def column(self, number: int) -> list[str]:
        """The texts of a column of the table of nodes."""
        texts: list[str] = self.page.locator(f"#nodes tbody td:nth-child({number})").all_inner_texts()
        return texts


def shown(ns: int) -> str:
    """A duration as the page has it, which knows whole microseconds."""
    return duration(round(ns / 1_000) * 1_000)


Open = Callable[..., Opened]
