"""The live page in a real Chromium, over runs that go on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.dags import Held, Stage, driver_of, in_thread, start_process, wait_for
from tests.report.browser import PATIENCE_MS
from traced_threadpool import FutureAdapter
from traced_threadpool.telemetry.metrics.http_server import MetricsServer

PICTURES = os.environ.get("LIVE_PICTURES")
"""A directory: the pictures of the documentation are written there anew."""

HOSTILE = "</script><img src=x onerror=alert(1)><b>'\"`&amp;"


class Page:
    """The page of a server, and everything that went wrong in it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", lambda message: self.faults.append(f"console: {message.text}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("request", self._request)
        page.goto(url)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.faults.append(f"request: {request.url}")

    def says(self, *texts: str) -> None:
        """Each text is on the page, now or soon."""
        for text in texts:
            self.page.get_by_text(text).first.wait_for()

    def ticks(self, times: int = 2) -> None:
        """So many answers of the server have been drawn."""
        for _ in range(times):
            with self.page.expect_response(lambda answer: "format=json" in answer.url) as answer:
                pass
            answer.value.finished()
        self.page.evaluate("new Promise(requestAnimationFrame)")

    def picture(self, name: str) -> None:
        if PICTURES:
            (Path(PICTURES) / name).write_bytes(self.page.screenshot(full_page=True))


Open = Callable[..., Page]


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer(0)
    yield server
    server.close()


@pytest.fixture
def open_page(browser: Any, server: MetricsServer) -> Iterator[Open]:
    """Opens the page, and at the end fails if anything went wrong in it, or left it."""
    opened: list[Page] = []

    def open_one(
        scheme: Literal["light", "dark"] = "light", width: int = 1360, height: int = 900, port: int = server.port
    ) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height}, locale="en-US")
        context.set_default_timeout(PATIENCE_MS)
        opened.append(Page(context.new_page(), f"http://127.0.0.1:{port}/live"))
        return opened[-1]

    yield open_one
    for one in opened:
        one.page.context.close()
    assert [fault for one in opened for fault in one.faults] == []


class Nightly:
    """A run of six nodes: one done, one failed, `stuck` held on the first of two workers, others queued or blocked."""

    def __init__(self, stage: Stage, *, name: str = "etl", run_name: str = "nightly") -> None:
        held, aside = Held(stage), Held(stage)
        self._held, self._aside = held, aside

        def load() -> int:
            return 1

        def broken() -> int:
            raise LookupError("a value that nobody shows")

        def stuck(load: int) -> str:
            return held()

        def busy(load: int) -> str:
            return aside()

        def late(load: int) -> int:
            return load

        def last(stuck: str, busy: str, late: int) -> str:
            return stuck

        self.adapter = stage.adapter(FutureAdapter(2, name=name, run_name=run_name, stall_after=0.05))
        driver = driver_of(self.adapter, load, broken, stuck, busy, late, last)
        self.call = in_thread(lambda: driver.execute(["broken", "last"]))
        wait_for(held.started)
        wait_for(aside.started)

    def go_on(self) -> None:
        """`busy` ends, so that `late` runs."""
        self._aside.release.set()

    def end(self) -> None:
        self._aside.release.set()
        self._held.release.set()
        with pytest.raises(LookupError):
            self.call.result()


@contextmanager
def nightly(stage: Stage, **names: str) -> Iterator[Nightly]:
    run = Nightly(stage, **names)
    yield run
    run.end()


def test_a_run_that_goes_on_and_ends(stage: Stage, open_page: Open) -> None:
    """Each node's place; what changes while it is looked at; and the end. Without a reload."""
    with nightly(stage) as run:
        opened = open_page()
        opened.says("2 of 2 busy, 1 queued", "Failed: broken", "End not predicted: ", "stalled: lock dags.py:")
        row = opened.page.get_by_role("row").filter(has_text="stuck")
        assert "etl_" in row.inner_text()
        for summary in ("Queued: 1 node", "Blocked: 1 node", "Picture of the DAG"):
            opened.page.get_by_text(summary).click()
        opened.says("last, waits for stuck, busy, late")
        opened.page.get_by_role("img", name=re.compile("of 6 nodes done, 2 running")).last.wait_for()
        opened.ticks()
        opened.picture("live-light.png")
        opened.page.emulate_media(color_scheme="dark")
        opened.ticks()
        opened.picture("live-dark.png")
        run.go_on()
        opened.says("1 of 2 busy, 0 queued", "last, waits for stuck")
        assert opened.page.get_by_text("Queued:").is_hidden()
    opened.says("No run is in progress.", "0 runs in progress")


def test_what_does_not_change_is_left_alone(stage: Stage, open_page: Open) -> None:
    """No element is removed or added while the same nodes run: nothing flickers, a selection and the focus stay."""
    with nightly(stage):
        opened = open_page()
        opened.says("Failed: broken", "stalled: lock")
        opened.page.get_by_role("button", name="Stack of stuck").focus()
        opened.page.evaluate("""() => {
          window.changes = [];
          const look = (all) => all.flatMap((one) => [...one.addedNodes, ...one.removedNodes])
            .filter((node) => node.nodeType === Node.ELEMENT_NODE)
            .forEach((node) => window.changes.push(node.outerHTML));
          new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
        }""")
        opened.ticks(3)
        assert opened.page.evaluate("window.changes") == []
        assert opened.page.evaluate("document.activeElement.textContent") == "Stack"
        opened.page.get_by_role("button", name="Pause").click()
        shown = opened.page.locator(".run").inner_text()
        opened.page.wait_for_timeout(1500)  # more than the time between two requests
        assert opened.page.locator(".run").inner_text() == shown
        opened.page.get_by_role("button", name="Go on").click()
        opened.ticks(1)


def test_by_keyboard_and_for_a_screen_reader(stage: Stage, open_page: Open) -> None:
    """Everything has a name; a stack opens with Enter, takes the focus, and gives it back."""
    with nightly(stage):
        opened = open_page()
        opened.says("stalled: lock")
        tree = opened.page.locator("body").aria_snapshot()
        for expected in (
            'heading "Live runs" [level=1]',
            'heading "etl" [level=2]',
            'heading "nightly" [level=3]',
            'list "Lanes"',
            'region "Running nodes"',
            'columnheader "Running node"',
            'button "Stack of stuck"',
            'button "Pause"',
        ):
            assert expected in tree, tree
        assert re.search(r'img "\d of 6 nodes done, 2 running, 1 queued, 1 blocked"', tree), tree
        assert "status: 1 run in progress" in tree
        button = opened.page.get_by_role("button", name="Stack of stuck")
        for _ in range(20):
            opened.page.keyboard.press("Tab")
            if button.evaluate("button => button === document.activeElement"):
                break
        opened.page.keyboard.press("Enter")
        dialog = opened.page.get_by_role("dialog", name="Stack of stuck")
        dialog.get_by_text("in Nightly.__init__").or_(dialog.get_by_text("in stuck")).first.wait_for()
        text = dialog.inner_text()
        assert "test_page.py:" in text
        assert "a value that nobody shows" not in text
        assert dialog.evaluate("dialog => dialog.contains(document.activeElement)")
        opened.picture("live-stack.png")
        opened.page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
        assert button.evaluate("button => button === document.activeElement")


def test_on_a_phone(stage: Stage, open_page: Open) -> None:
    """Nothing is wider than the screen, also with an endless name, and a finger tells a node in the picture."""
    with nightly(stage, name="a_long_name_" * 9, run_name="nightly_" * 12):
        opened = open_page("dark", 390, 844)
        opened.says("Failed: broken")
        opened.page.get_by_text("Picture of the DAG").click()
        opened.ticks()
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
        opened.picture("live-phone.png")
        opened.page.locator("canvas").click(position={"x": 3, "y": 3})
        opened.page.get_by_text(re.compile("^(load: done|broken: failed)$")).wait_for()


def test_hostile_names(stage: Stage, open_page: Open) -> None:
    """They are shown as they are, and do nothing: no element of theirs, no dialog, no request."""
    with nightly(stage, name=HOSTILE, run_name=HOSTILE):
        opened = open_page()
        opened.says("Failed: broken")
        opened.page.get_by_text("Picture of the DAG").click()
        opened.ticks()
        assert opened.page.locator("h2").first.text_content() == HOSTILE
        assert opened.page.locator("h3").first.text_content() == HOSTILE
        assert opened.page.locator("img, b").count() == 0


def test_two_adapters_of_one_name(stage: Stage, open_page: Open) -> None:
    """Each is shown once, however often the page is drawn."""
    with nightly(stage, name="twin"), nightly(stage, name="twin"):
        opened = open_page()
        opened.says("2 runs in progress")
        opened.ticks(3)
        assert opened.page.get_by_role("heading", name="twin").count() == 2
        assert opened.page.get_by_role("button", name="Stack of stuck").count() == 2


def test_five_thousand_nodes(stage: Stage, open_page: Open) -> None:
    """Lists and tables end after 200 with the number of the others; the picture has every node."""
    started, release = stage.event(), stage.event()

    def gate() -> str:
        started.set()
        release.wait()  # the browser may take longer than a test has patience for a node
        return "held"

    def make(index: int) -> Callable[..., int]:
        def node(gate: str) -> int:
            return index

        node.__name__ = f"n{index}"
        return node

    adapter = stage.adapter(FutureAdapter(1, name="wide"))
    names = [f"n{index}" for index in range(5000)]
    driver = driver_of(adapter, gate, *map(make, range(5000)))
    call = in_thread(lambda: driver.execute(names))
    wait_for(started)
    opened = open_page()
    opened.says("5,000 blocked")
    opened.page.get_by_text("Blocked: 5,000 nodes").click()
    opened.page.get_by_text("Picture of the DAG").click()
    opened.says("and 4,800 more")
    opened.ticks()
    box = opened.page.locator("canvas").bounding_box()
    assert box["height"] < 400
    opened.picture("live-large.png")
    opened.page.mouse.move(box["x"] + 1, box["y"] + 1)
    opened.says("gate: running")
    release.set()
    call.result()
    opened.says("No run is in progress.")


def test_a_process_that_dies(open_page: Open) -> None:
    """What it said last stays, faded, and that it does not answer is said once; it goes on when there is one again."""
    script = """
        from traced_threadpool.telemetry.metrics.http_server import MetricsServer
        held = threading.Event()
        def stuck() -> int:
            held.wait()
            return 1
        adapter = FutureAdapter(1, name="mortal")
        threading.Thread(target=lambda: driver_of(adapter, stuck).execute(["stuck"]), daemon=True).start()
        while not adapter.live().runs:
            pass
        server = MetricsServer(0)
        say(server.port)
        sys.stdin.read()
        """
    with start_process(script) as process:
        assert process.stdout is not None
        opened = open_page(port=int(process.stdout.readline()))
        opened.says("mortal", "1 run in progress")
        process.kill()
    opened.says("The process does not answer.", "What is below is")
    assert opened.page.get_by_role("button", name="Stack of stuck").is_visible()
    assert opened.page.locator("main.gone").count() == 1
    opened.page.get_by_role("button", name="Stack of stuck").click()
    opened.says("No answer: ")
    opened.page.goto("data:text/html,")  # or it would go on asking
    refused = [fault for fault in opened.faults if "ERR_CONNECTION" in fault]
    opened.faults[:] = [fault for fault in opened.faults if fault not in refused]  # Chromium's own words
    assert refused
