"""The page's charts in a real Chromium: what they draw, and what pointer and keyboard do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run
from tests.report.browser import Open, shown
from traced_threadpool.model.formatting import one_line, percent
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.states import STATES
from traced_threadpool.report.explanation import explain

pytest.importorskip("playwright", reason="playwright is not installed (it is in the dev group)")
pytest.importorskip("jinja2", reason="needs the extra [report]")


RUNS: dict[str, Callable[[], RecordedRun]] = {
    "usual": layered_run,
    "no states": lambda: layered_run(20, states=False),
    "failed": lambda: layered_run(30, failing=layered_run(30).nodes[5].name),
    "one node": lambda: layered_run(1, workers=1, layers=1),
    "no node": lambda: layered_run(0),
    "64 workers": lambda: layered_run(300, workers=64),
    "nasty names": lambda: layered_run(40, node_names=NASTY_NAMES),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_it_opens_without_an_error_and_asks_nobody(open_page: Open, run: Callable[[], RecordedRun]) -> None:
    """Whatever the run is like: the verdict is there, the table is filled, nothing is logged, nothing is requested."""
    recorded = run()
    opened = open_page(recorded)
    assert opened.page.locator(".verdict .lead").inner_text()
    assert opened.page.locator("#nodes tbody tr").count() == min(max(1, len(recorded.nodes)), 100)
    # Nothing sticks out to the side.
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_names_are_text(open_page: Open) -> None:
    """Names that are markup, script, or control characters are shown, and do nothing."""
    run = layered_run(40, node_names=NASTY_NAMES)
    opened = open_page(run)
    shown = set(opened.column(1))
    assert {one_line(name, 500) for name in NASTY_NAMES} <= shown
    assert opened.page.title() == "etl: " + opened.page.locator(".figures dd").first.inner_text().split("\n")[0] + (
        ", where the time went"
    )
    for name in NASTY_NAMES:
        opened.point_at(one_line(name, 500))
        opened.page.locator("#nodes tbody button", has_text=one_line(name, 500)).first.click()
        assert opened.selected() == one_line(name, 500)
        assert opened.page.locator("#details h3").inner_text() == one_line(name, 500)
    opened.page.locator("#names").scroll_into_view_if_needed()
    names = opened.page.locator("#names").bounding_box()
    told = set()
    for bar in range(15):  # the tips of the bars by name, which the chart's library puts into the page
        opened.page.mouse.move(names["x"] + 172, names["y"] + 6 + (bar + 0.5) * (names["height"] - 32) / 15)
        told.add(opened.page.locator("#names b").inner_text())
    assert one_line(NASTY_NAMES[0], 500) in told
    assert opened.page.locator("img, iframe, b b, script").count() == 3  # the data and the page's own two scripts


_PIXELS = """([where, colour, left, top, width, height]) => {
    const probe = document.createElement("span");
    probe.style.color = `var(--${colour})`;
    document.body.append(probe);
    const wanted = getComputedStyle(probe).color.match(/\\d+/g).slice(0, 3).map(Number);
    probe.remove();
    const canvas = document.querySelector(where);
    const box = [left, top, width || canvas.width - left, height || canvas.height - top];
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(...box);
    let count = 0;
    for (let at = 0; at < data.length; at += 4)
        count += wanted.every((part, k) => Math.abs(data[at + k] - part) <= 2) && data[at + 3] === 255;
    return count;
}"""


def test_what_the_charts_draw(open_page: Open) -> None:
    """States as colours in the bars and by name, the path in its row and under its nodes, the load, the curve."""
    run = layered_run()
    opened = open_page(run)

    def pixels(where: str, colour: str, left: float = 0, top: float = 0, width: float = 0, height: float = 0) -> int:
        place = [round(each) for each in (left, top, width, height)]
        return int(opened.page.evaluate(_PIXELS, [f"{where} canvas", colour, *place]))

    known = {state for node in run.nodes for state, ns in node.states.items() if ns}
    for state in STATES:
        drawn = pixels("#timeline", f"state-{state}") > 0, pixels("#names", f"state-{state}") > 0
        assert drawn == (state in known, state in known), state
    places = [opened.page.evaluate("node => tracedThreadpool.place(node)", index) for index in range(len(run.nodes))]
    box = opened.page.locator("#timeline").bounding_box()
    on_path = {step.key for step in explain(run).path.nodes}
    under = {
        node.name: pixels("#timeline", "ink", place["x"] - box["x"] - 1, place["y"] - box["y"] + 13, 3, 3) > 0
        for node, place in zip(run.nodes, places, strict=True)
    }
    assert under == {node.name: node.key in on_path for node in run.nodes}
    above_all = min(place["y"] for place in places) - box["y"] - 34  # the middle of the row of the path
    assert pixels("#timeline", "ink", 132, above_all, height=1) > 600
    below_all = max(place["y"] for place in places) - box["y"] + 60  # where the load is
    for colour in ("ink", "accent"):
        assert pixels("#timeline", colour, 132, below_all, height=96) > 20
    assert pixels("#curve", "ink", 64) > 100


def test_pointing_at_a_bar_tells_of_its_node(open_page: Open) -> None:
    """The name, its times and an arrow from each of its inputs; away from it, all is gone."""
    run = layered_run()
    node = max((node for node in run.nodes if len(node.upstream) > 1), key=lambda node: node.duration_ns)
    opened = open_page(run)
    opened.point_at(node.name)
    tip = opened.page.locator(".tip")
    assert tip.is_visible()
    assert tip.locator("b").inner_text() == node.name
    by_time = sorted(node.states.items(), key=lambda each: -each[1])
    assert tip.locator("div").all_inner_texts() == [
        f"ran {shown(node.duration_ns)}, from {shown(node.started_ns)}",
        f"queue wait {shown(node.queue_ns)}, waited for inputs {shown(node.dependency_ns)}",
        ", ".join(f"{state} {shown(ns)}" for state, ns in by_time),
        "on the critical path"
        if node.key in explain(run).critical_keys
        else f"slack {shown(explain(run).path.slack_ns[node.key])}",
    ]
    box = opened.page.locator("#timeline").bounding_box()
    first, here, *inputs = opened.page.evaluate(
        "nodes => nodes.map(tracedThreadpool.place)",
        [0, opened.node(node.name), *(opened.node(run.by_key[key].name) for key in node.upstream)],
    )
    middles = [(each.started_ns + each.ended_ns) / 2 for each in (run.nodes[0], node)]
    scale = (here["x"] - first["x"]) / (middles[1] - middles[0])
    arrows = opened.page.evaluate("tracedThreadpool.arrows")
    for key, place, (from_x, from_y, to_x, to_y) in zip(node.upstream, inputs, arrows, strict=True):
        assert from_x == pytest.approx(first["x"] - box["x"] + scale * (run.by_key[key].ended_ns - middles[0]), abs=2)
        assert to_x + 4 == pytest.approx(first["x"] - box["x"] + scale * (node.started_ns - middles[0]), abs=2)
        # In the middle of the bars, which is below the middle of their row: above is space for a name.
        assert (from_y - place["y"], to_y - here["y"]) == pytest.approx((to_y - here["y"],) * 2)
    opened.point_at(next(each.name for each in run.nodes if each.key in explain(run).critical_keys))
    assert tip.locator("div").last.inner_text() == "on the critical path"
    opened.page.mouse.move(5, 5)
    assert not tip.is_visible()
    assert opened.page.evaluate("tracedThreadpool.arrows") == []


def test_pointing_below_tells_the_load(open_page: Open) -> None:
    """The lower chart says how many nodes ran and how many waited at that moment."""
    opened = open_page(layered_run())
    timeline = opened.page.locator("#timeline")
    timeline.scroll_into_view_if_needed()
    box = timeline.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 120)
    text = opened.page.locator(".tip").inner_text()
    assert "running" in text
    assert "queued" in text


def test_a_click_keeps_a_node(open_page: Open) -> None:
    """Its details are shown, its row is marked, and links lead on to its neighbours; Escape lets go."""
    run = layered_run()
    critical = explain(run).critical_keys
    node = max(
        (node for node in run.nodes if node.upstream and node.key not in critical), key=lambda node: node.duration_ns
    )
    opened = open_page(run)
    place = opened.point_at(node.name)
    opened.page.mouse.click(place["x"], place["y"])
    assert opened.selected() == node.name
    assert opened.page.locator("#details h3").inner_text() == node.name
    assert opened.page.locator("#nodes tr.chosen td").first.inner_text() == node.name
    neighbours = (
        [run.by_key[key].name for key in node.upstream],
        [other.name for other in run.nodes if node.key in other.upstream],
    )
    links = opened.page.locator("#details .links")
    assert tuple(links.nth(side).locator("button").all_inner_texts() for side in (0, 1)) == neighbours
    assert len(opened.page.evaluate("tracedThreadpool.arrows")) == sum(map(len, neighbours))
    assert opened.details() == {
        "worker": node.worker,
        "start": f"{shown(node.started_ns)} into the run",
        "duration": shown(node.duration_ns),
        "queue wait": shown(node.queue_ns),
        "waited for inputs": shown(node.dependency_ns),
        "slack": shown(explain(run).path.slack_ns[node.key]),
        **{
            state: f"{shown(ns)}, {percent(ns, node.duration_ns)}"
            for state in STATES
            if (ns := node.states.get(state, 0))
        },
    }
    assert opened.page.locator("#details .shares rect").count() == sum(ns > 0 for ns in node.states.values())
    links.first.locator("button").first.click()
    assert opened.selected() == neighbours[0][0]
    opened.page.locator("#timeline").focus()
    opened.page.keyboard.press("Escape")
    assert opened.selected() is None
    assert opened.page.locator("#nodes tr.chosen").count() == 0


def test_a_click_beside_all_bars_lets_go(open_page: Open) -> None:
    """Beside the last bar of a worker there is nothing."""
    run = layered_run()
    opened = open_page(run)
    first = run.nodes[0]
    place = opened.point_at(first.name)
    opened.page.mouse.click(place["x"], place["y"])
    assert opened.selected() == first.name
    lasts = {node.worker: node for node in sorted(run.nodes, key=lambda node: node.ended_ns)}
    last = max(lasts.values(), key=lambda node: node.ended_ns)
    idle = min(lasts.values(), key=lambda node: node.ended_ns)
    opened.page.mouse.click(opened.point_at(last.name)["x"], opened.point_at(idle.name)["y"])
    assert opened.selected() is None


def test_the_row_of_the_critical_path(open_page: Open) -> None:
    """Pointing at a step of it tells what it was, a wait too; a click chooses the step's node."""
    run = layered_run()
    steps = explain(run).path.steps
    opened = open_page(run)
    opened.page.locator("#timeline").scroll_into_view_if_needed()
    places = [opened.page.evaluate("node => tracedThreadpool.place(node)", index) for index in range(len(run.nodes))]
    row = min(place["y"] for place in places) - 34
    middles = [(node.started_ns + node.ended_ns) / 2 for node in run.nodes]
    scale = (places[-1]["x"] - places[0]["x"]) / (middles[-1] - middles[0])
    for kind, says in (("node", "on the critical path"), ("queue", "queued")):
        step = max((step for step in steps if step.kind == kind), key=lambda step: step.duration_ns)
        x = places[0]["x"] + scale * ((step.started_ns + step.ended_ns) / 2 - middles[0])
        opened.page.mouse.move(x, row)
        tip = opened.page.locator(".tip").inner_text().split("\n")
        assert tip[0] == step.name
        assert tip[1].startswith(says)
        assert tip[-1] == f"{shown(step.duration_ns)}, {percent(step.duration_ns, run.duration_ns)} of the run"
        opened.page.mouse.click(x, row)
        assert opened.selected() == step.name


def test_a_failure_is_told_by_its_node_and_by_those_it_stopped(open_page: Open) -> None:
    """What was raised, and because of which node the others never ran."""
    run = layered_run(30, failing=layered_run(30).nodes[5].name)
    opened = open_page(run)
    failed = next(node for node in run.nodes if node.outcome == "error")
    stopped = next(node for node in run.nodes if node.outcome == "upstream_error")
    for node, told in (
        (failed, {"outcome": "error: ValueError"}),
        (stopped, {"outcome": "upstream error", "failed upstream": failed.name, "ran": "never"}),
    ):
        opened.page.locator("#nodes tbody button", has_text=node.name).first.click()
        assert opened.details().items() >= told.items()


def test_the_keyboard_does_what_the_pointer_does(open_page: Open) -> None:
    """Arrows go along a worker and across workers, and what is chosen is told to a screen reader."""
    run = layered_run()
    opened = open_page(run)
    longest = max(run.nodes, key=lambda node: node.duration_ns)
    opened.page.locator("#timeline").focus()
    opened.page.keyboard.press("ArrowRight")
    assert opened.selected() == longest.name
    assert longest.name in opened.page.locator("#spoken").inner_text()
    before = max(
        (node for node in run.nodes if node.worker == longest.worker and node.ended_ns <= longest.started_ns),
        key=lambda node: node.ended_ns,
    )
    opened.page.keyboard.press("ArrowLeft")
    assert opened.selected() == before.name
    opened.page.keyboard.press("ArrowDown" if longest.worker == "etl_0" else "ArrowUp")
    other = run.nodes[opened.node(str(opened.selected()))]
    assert other.worker != longest.worker
    assert opened.page.evaluate("document.activeElement.id") == "timeline"


def test_zoom(open_page: Open) -> None:
    """The buttons and the keys change what part of the run is shown, and back."""
    run = layered_run()
    opened = open_page(run)

    def distance() -> float:
        first, last = (
            opened.page.evaluate("node => tracedThreadpool.place(node).x", index) for index in (0, len(run.nodes) - 1)
        )
        return float(last - first)

    whole = distance()
    opened.page.locator("#zoom-in").click()
    assert distance() == pytest.approx(2 * whole, rel=0.01)
    opened.page.locator("#timeline").focus()
    opened.page.keyboard.press("-")
    assert distance() == pytest.approx(whole, rel=0.01)
    opened.page.keyboard.press("+")
    opened.page.locator("#zoom-out").click()
    assert distance() == pytest.approx(whole, rel=0.01)
    opened.point_at(run.nodes[20].name)
    opened.page.keyboard.down("Control")
    opened.page.mouse.wheel(0, -300)
    opened.page.keyboard.up("Control")
    opened.page.wait_for_function(
        "([last, least]) => tracedThreadpool.place(last).x - tracedThreadpool.place(0).x > least",
        arg=[len(run.nodes) - 1, 1.05 * whole],
    )
    place = opened.point_at(run.nodes[20].name)
    opened.page.mouse.down()
    opened.page.mouse.move(place["x"] - 40, place["y"], steps=4)
    opened.page.mouse.up()
    opened.page.wait_for_function(
        "([node, x]) => Math.abs(tracedThreadpool.place(node).x - x) < 2", arg=[20, place["x"] - 40]
    )
    opened.page.locator("#timeline").focus()
    opened.page.keyboard.press("0")
    assert distance() == pytest.approx(whole, rel=0.01)


def test_a_node_that_is_out_of_view_is_brought_into_it(open_page: Open) -> None:
    """By its row in the table, while a part of the run is shown."""
    run = layered_run()
    opened = open_page(run)
    for _ in range(3):
        opened.page.locator("#zoom-in").click()
    box = opened.page.locator("#timeline").bounding_box()
    first = run.nodes[0].name
    x = "name => tracedThreadpool.place(tracedThreadpool.find(name)).x"
    assert opened.page.evaluate(x, first) < box["x"] + 132
    opened.page.locator("#nodes tbody button", has_text=first).click()
    assert box["x"] + 132 <= opened.page.evaluate(x, first) <= box["x"] + box["width"]


def test_a_narrow_window(open_page: Open) -> None:
    """The charts become as wide as it is, and nothing sticks out."""
    opened = open_page(layered_run())
    opened.page.set_viewport_size({"width": 700, "height": 800})
    opened.page.wait_for_function(
        """() => ["timeline", "names", "curve"].every((id) => {
            const canvas = document.querySelector(`#${id} canvas`);
            return Math.abs(canvas.clientWidth - document.getElementById(id).clientWidth) < 2;
        }) && document.documentElement.scrollWidth <= innerWidth"""
    )
