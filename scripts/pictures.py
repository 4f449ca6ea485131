"""Take the README's pictures anew: `python -m scripts.pictures`. A real run, in Chromium.

The report is that of a run of `traced-threadpool demo`; the live view is of the same pipeline while it runs once more,
with the durations that it has learned.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hamilton import ad_hoc_utils, driver

from tests.house.layers import ROOT
from tests.report.browser import ARGUMENTS
from traced_threadpool import FutureAdapter, demo
from traced_threadpool.telemetry.metrics.http_server import MetricsServer

PICTURES: Final = ROOT / "docs/pictures"
SIZE: Final = {"width": 1200, "height": 900}
LEARNING_RUNS: Final = 4


@contextmanager
def page() -> Iterator[Any]:
    """A page of Chromium's, at twice the resolution."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
        yield browser.new_context(viewport=SIZE, color_scheme="light", locale="en-US").new_page()
        browser.close()


def main() -> None:
    """Both pictures."""
    with (
        demo._serving() as port,
        tempfile.TemporaryDirectory() as scratch,
        FutureAdapter(4, "demo", run_name="demo", record=True) as adapter,
        page() as shown,
    ):
        module = ad_hoc_utils.create_temporary_module(
            demo.fetched, demo.parsed, demo.digest, demo.stored, demo.quota, demo.ranking
        )
        dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
        inputs = {"port": port, "scratch": scratch}
        for _ in range(LEARNING_RUNS):
            dr.execute(["ranking"], inputs=inputs)

        report = Path(scratch) / "run.html"
        adapter.recorded_runs[-1].report(report)
        shown.goto(report.as_uri())
        shown.wait_for_timeout(500)
        shown.screenshot(
            path=PICTURES / "readme-report.png", full_page=True, clip={"x": 0, "y": 0, "width": 1200, "height": 1000}
        )

        server = MetricsServer(0)
        shown.goto(f"http://127.0.0.1:{server.port}/live")
        runs = threading.Thread(target=lambda: [dr.execute(["ranking"], inputs=inputs) for _ in range(20)], daemon=True)
        runs.start()
        shown.get_by_text("fetched_islands").first.wait_for()
        shown.screenshot(path=PICTURES / "readme-live.png", clip={"x": 0, "y": 0, "width": 1200, "height": 560})
        server.close()
        runs.join()


if __name__ == "__main__":
    main()
