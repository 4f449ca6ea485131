"""Nodes on workers of a backend, as the page's timeline draws them: the function, and moving and waiting around it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.analysis.synthetic_runs import layered_run
from tests.dags import driver_of
from tests.report.browser import Open, Opened, shown
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis import read_runs
from traced_threadpool.model.formatting import size
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.report.moving import pieces
from traced_threadpool.report.notebook import notebook_html
from traced_threadpool.report.timeline import timeline

pytest.importorskip("playwright", reason="playwright is not installed (it is in the dev group)")
pytest.importorskip("jinja2", reason="needs the extra [report]")

MS = 1_000_000


def node(number: int, name: str, started: int, ended: int, **facts: Any) -> NodeExecution:
    times = {"submitted_ns": 0, "ready_ns": started * MS, "started_ns": started * MS, "ended_ns": ended * MS}
    facts["states"] = {state: ms * MS for state, ms in facts["states"].items()}
    return NodeExecution(key=f"{number:016x}", name=name, **times, **facts)


def moved_run() -> RecordedRun:
    """`parse` waits for a worker and is moved; `scan` is, while its worker runs `parse`; `merge` is on a thread."""
    there = {"backend": "cpu", "worker": "cpu 41", "is_remote": True}
    nodes = (
        node(1, "load", 0, 100, worker="main", states={"cpu": 100}),
        node(
            2,
            "parse",
            100,
            600,
            function_started_ns=300 * MS,
            function_ended_ns=500 * MS,
            sent_bytes=12_345_678,
            received_bytes=900,
            states={"cpu": 150, "other": 50, "transfer": 180, "remote_queue": 120},
            upstream=(f"{1:016x}",),
            **there,
        ),
        node(
            3,
            "scan",
            420,
            900,
            function_started_ns=700 * MS,
            function_ended_ns=850 * MS,
            sent_bytes=2_000,
            states={"cpu": 150, "transfer": 330},
            **there,
        ),
        node(4, "merge", 900, 1_000, worker="main", states={"cpu": 60, "transfer": 40}, received_bytes=5_000_000),
    )
    return RecordedRun(
        id="r",
        name="etl",
        pool="p",
        started_ns=0,
        ended_ns=1_000 * MS,
        nodes=nodes,
        max_workers=2,
        attribution="process",
        backends={"cpu": Lane("processes", 1)},
    )


_ROW = """([index, from, to, down, colour]) => {
    const probe = document.createElement("span");
    probe.style.color = `var(--${colour})`;
    document.body.append(probe);
    const wanted = getComputedStyle(probe).color.match(/\\d+/g).slice(0, 3).map(Number);
    probe.remove();
    const canvas = document.querySelector("#timeline canvas");
    const box = canvas.getBoundingClientRect();
    const at = (ms) => tracedThreadpool.at(index, ms * 1000);
    const [left, right, y] = [at(from).x - box.x, at(to).x - box.x, at(from).y - box.y + down];
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(Math.round(left) + 2, Math.round(y), Math.round(right - left) - 4, 1);
    let count = 0;
    for (let at = 0; at < data.length; at += 4)
        count += wanted.every((part, k) => Math.abs(data[at + k] - part) <= 2);
    return count / (data.length / 4);
}"""
BAR_TOP, BAR_MIDDLE = -1, 5  # from the middle of a row of 34 px, of which the upper 14 are for names


def share(opened: Opened, name: str, from_ms: int, to_ms: int, colour: str, down: int = BAR_MIDDLE) -> float:
    """How much of a line through a node's row is of a colour of the style sheet."""
    return float(opened.page.evaluate(_ROW, [opened.node(name), from_ms, to_ms, down, colour]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_moving_and_waiting_are_thin_pieces_around_the_function(
    open_page: Open, scheme: Literal["light", "dark"]
) -> None:
    """In their order, transfer solid and waiting hatched; of the bar's own bands none is of these; in the legend."""
    opened = open_page(moved_run(), scheme)
    assert share(opened, "parse", 100, 180, "state-transfer") == 1
    assert 0.1 < share(opened, "parse", 180, 300, "state-remote_queue") < 0.9
    assert share(opened, "parse", 300, 500, "state-cpu") == 1
    assert share(opened, "parse", 500, 600, "state-transfer") == 1
    # Thin: above them is nothing, where a bar is.
    for from_ms, to_ms, height in ((100, 180, 0), (500, 600, 0), (300, 500, 1)):
        above = [share(opened, "parse", from_ms, to_ms, f"state-{each}", BAR_TOP) for each in ("transfer", "other")]
        assert max(above) == height, from_ms
    # What a thread brought is a band of its bar, as ever.
    assert share(opened, "merge", 900, 1_000, "state-transfer", BAR_TOP + 2) == 1
    legend = opened.page.locator(".legend li").all_inner_texts()
    assert "thin, before and after a bar: transfer, there and back" in legend
    assert "thin and hatched, before a bar: remote_queue, waiting for a worker" in legend
    assert "the bar is the node's function there" in opened.page.locator(".hint").first.inner_text()


def test_what_another_node_hides_is_seen_once_it_is_selected(open_page: Open) -> None:
    """A worker is one row, whatever is on its way to it; a click on the thin piece selects its node too."""
    run = moved_run()
    assert [[each.name for each in row.nodes] for row in timeline(run.nodes)] == [["parse", "scan"], ["load", "merge"]]
    opened = open_page(run)
    assert share(opened, "scan", 440, 490, "state-cpu") == 1
    place = opened.page.evaluate("([node, us]) => tracedThreadpool.at(node, us)", [opened.node("scan"), 650_000])
    opened.page.locator("#timeline").scroll_into_view_if_needed()
    place = opened.page.evaluate("([node, us]) => tracedThreadpool.at(node, us)", [opened.node("scan"), 650_000])
    opened.page.mouse.move(place["x"], place["y"])
    assert opened.page.locator(".tip b").inner_text() == "scan"
    opened.page.mouse.click(place["x"], place["y"])
    assert opened.selected() == "scan"
    opened.page.mouse.move(5, 5)
    assert opened.page.evaluate("tracedThreadpool.thin") == [
        ["transfer", 420_000, 700_000],
        ["transfer", 850_000, 900_000],
    ]


def test_the_tip_the_details_and_a_screen_reader_have_the_figures(open_page: Open) -> None:
    """When the function ran, what was before and after it, that their order is not known, and the bytes."""
    run = moved_run()
    opened = open_page(run)
    figures = {
        "function": f"{shown(200 * MS)}, from {shown(300 * MS)}",
        "before it": f"transfer {shown(80 * MS)} and remote_queue {shown(120 * MS)}, in whatever order",
        "after it": f"transfer {shown(100 * MS)}",
        "sent": size(12_345_678),
        "received": size(900),
    }
    place = opened.point_at("parse")
    told = opened.page.locator(".tip div").all_inner_texts()
    assert [f"{what} {said}" for what, said in figures.items()] == told[3:8]
    opened.page.mouse.click(place["x"], place["y"])
    assert opened.details().items() >= figures.items()
    opened.page.locator("#timeline").focus()
    opened.page.keyboard.press("ArrowRight")
    assert opened.selected() == "scan"
    spoken = opened.page.locator("#spoken").inner_text()
    assert f"before it transfer {shown(280 * MS)}; after it transfer {shown(50 * MS)}; sent {size(2_000)}" in spoken
    opened.page.locator("#nodes tbody button", has_text="merge").click()
    assert opened.details()["received"] == size(5_000_000)
    assert "function" not in opened.details()


def test_without_such_nodes_nothing_is_said_of_them(open_page: Open) -> None:
    """Neither in the hint nor in the legend; a record that does not tell when a function ran has whole bars."""
    run = moved_run()
    for plain in (layered_run(), _without_function_times(run)):
        opened = open_page(plain)
        assert not re.search("thin[ ,]", opened.page.locator(".legend").inner_text())
        assert "backend" not in opened.page.locator(".hint").first.inner_text()
    assert share(opened, "parse", 100, 600, "state-remote_queue", BAR_TOP + 2) == 1  # a band over all of it


def _without_function_times(run: RecordedRun) -> RecordedRun:
    nodes = [replace(each, function_started_ns=0, function_ended_ns=0) for each in run.nodes]
    return replace(run, nodes=tuple(nodes))


def test_the_notebooks_timeline_has_them_too() -> None:
    """Thin, told by their titles, and once in words."""
    shown_html = notebook_html(moved_run())
    thin = re.findall(r'<rect x="[\d.]+" y="\d+" width="[\d.]+" height="4" fill="#\w+"><title>([^<]*)', shown_html)
    assert thin == [
        "parse: 500 ms, mostly transfer, transfer 80.0 ms",
        "parse: 500 ms, mostly transfer, remote_queue 120 ms",
        "parse: 500 ms, mostly transfer, transfer 100 ms",
        "scan: 480 ms, mostly transfer, transfer 280 ms",
        "scan: 480 ms, mostly transfer, transfer 50.0 ms",
    ]
    words = "Thin, before and after the function"
    assert (words in shown_html, words in notebook_html(layered_run())) == (True, False)


def test_of_a_real_run_on_processes(open_page: Open, tmp_path: Path) -> None:
    """What comes before and after a function adds up to the node, in a record of the process and in one of a file."""
    pytest.importorskip("cloudpickle", reason="needs the extra [processes]")
    from traced_threadpool.backends import Processes

    def made() -> bytes:
        return bytes(20_000_000)

    def there(made: bytes) -> bytes:
        import time

        time.sleep(0.1)
        return made[:10_000_000]

    with FutureAdapter(2, backends={"cpu": Processes(1)}, run_on={"there": "cpu"}, record=True) as adapter:
        driver_of(adapter, made, there).execute(["there"])
        (run,) = adapter.recorded_runs
    run.save(tmp_path / "run.jsonl")
    for each in (run, *read_runs(tmp_path / "run.jsonl")):
        one = next(one for one in each.nodes if one.name == "there")
        assert one.started_ns < one.function_started_ns < one.function_ended_ns < one.ended_ns
        assert one.function_ended_ns - one.function_started_ns >= 99 * MS
        assert (one.sent_bytes > 20_000_000, one.received_bytes > 10_000_000) == (True, True)
        found = pieces(one)
        assert found is not None
        assert min(found.before_ns, found.queue_ns, found.after_ns) > 0  # the worker had to start
        around_ns = found.before_ns + found.queue_ns + found.after_ns
        assert around_ns == one.states["transfer"] + one.states["remote_queue"]
    opened = open_page(run)
    opened.point_at("there")
    assert opened.page.locator(".tip b").inner_text() == "there"
    assert {"before it", "after it", "sent", "received"} <= set(_words(opened))


def _words(opened: Opened) -> list[str]:
    opened.page.locator("#nodes tbody button", has_text="there").first.click()
    return list(opened.details())
