"""Take the README's pictures anew: `python -m scripts.pictures`. A real run, in Chromium.

The report is that of a run of `traced-threadpool demo`; the README's live view is of the same pipeline while it runs
once more, with the durations that it has learned. That of docs/live.md is of a pipeline whose nodes wait for a lock.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
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


def picture_of_stalls(shown: Any) -> None:
    """Nodes that usually take 20 ms wait for a lock that nobody lets go of."""
    lock, stuck = threading.Lock(), threading.Event()

    def parsed(index: int) -> Callable[..., int]:
        def parse(loaded: int) -> int:
            with lock:
                time.sleep(0.001)
            time.sleep(0.02)
            if stuck.is_set() and index == 17:
                lock.acquire()
            return index

        parse.__name__ = f"parsed_{index}"
        return parse

    def loaded() -> int:
        time.sleep(0.05)
        return 1

    names = [f"parsed_{index}" for index in range(38)]
    scope: dict[str, Any] = {}
    exec(f"def joined({', '.join(f'{name}: int' for name in names)}) -> int:\n    return 1\n", scope)
    scope["joined"].__module__ = __name__

    def report(joined: int) -> int:
        return joined

    module = ad_hoc_utils.create_temporary_module(loaded, *map(parsed, range(38)), scope["joined"], report)
    server = MetricsServer(0)
    with FutureAdapter(4, "etl", run_name="nightly", stall_after=1.0) as adapter:
        dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
        for _ in range(LEARNING_RUNS):
            dr.execute(["report"])
        stuck.set()
        run = threading.Thread(target=dr.execute, args=(["report"],), daemon=True)
        run.start()
        shown.goto(f"http://127.0.0.1:{server.port}/live")
        shown.get_by_text("stalled: lock").first.wait_for()
        shown.get_by_text("Picture of the DAG").click()
        shown.wait_for_timeout(1500)
        shown.screenshot(path=PICTURES / "live.png", clip={"x": 0, "y": 0, "width": 1200, "height": 720})
        lock.release()
        run.join()
    server.close()


def main() -> None:
    """All of them."""
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
        picture_of_stalls(shown)


if __name__ == "__main__":
    main()
