"""Reports of runs: what they say, that they add up, and that a name cannot become anything but a name."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.replay.what_if import counts_to_try
from traced_threadpool.model.formatting import change, duration, one_line, percent
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.report.as_json import explanation_json
from traced_threadpool.report.curve import curve
from traced_threadpool.report.explanation import explain
from traced_threadpool.report.notebook import notebook_html
from traced_threadpool.report.page import MAX_NODES, page, script_json
from traced_threadpool.report.palette import DARK_BACKGROUND, LIGHT_BACKGROUND, LOOKS
from traced_threadpool.report.timeline import timeline
from traced_threadpool.report.verdict import title

ECHARTS_SHA256 = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"

EMPTY = layered_run(0)
FAILED = layered_run(30, failing=layered_run(30).nodes[5].name)


# Numbers and names


@given(st.integers(0, 10**16))
def test_a_duration_is_right_to_its_digits(ns: int) -> None:
    """What is shown is within a percent of what is meant."""
    units = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9, "min": 60e9, "h": 3600e9}
    parts = duration(ns).replace(",", "").split()
    shown = sum(float(number) * units[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True))
    assert shown == pytest.approx(ns, rel=0.01)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_change_has_the_sign_of_what_changed(before: int, after: int) -> None:
    """More is +, less is -, the same is none."""
    shown = change(before_ns=before, after_ns=after)
    assert shown[0] == ("+" if after > before else "-" if after < before else "n")


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_share_is_never_rounded_to_none_or_to_all(part: int, whole: int) -> None:
    """0 % and 100 % mean exactly that."""
    part = min(part, whole)
    assert (percent(part, whole) == "0 %") == (part == 0)
    assert (percent(part, whole) == "100 %") == (part == whole)


@given(st.text(), st.integers(3, 40))
def test_a_name_is_one_printable_line(name: str, limit: int) -> None:
    """Nothing in it moves a cursor or changes a colour, and it is no longer than it may be."""
    shown = one_line(name, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


# Colours


def _linear(colour: str) -> list[float]:
    parts = (int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5))
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), _linear(colour), strict=True))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


# How colours are seen (Machado, Oliveira, Fernandes 2009), and Oklab, in which distances are what people see.
_SIGHTS = {
    "normal": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": ((0.1523, 1.0526, -0.2049), (0.1145, 0.7863, 0.0992), (-0.0039, -0.0481, 1.052)),
    "deuteranopia": ((0.3673, 0.8606, -0.228), (0.2801, 0.6725, 0.0474), (-0.0118, 0.0429, 0.969)),
}


def _cube_root(value: float) -> float:
    return math.copysign(abs(value) ** (1 / 3), value)  # `math.cbrt` comes with Python 3.11


def _oklab(linear: list[float]) -> tuple[float, float, float]:
    red, green, blue = (min(1.0, max(0.0, part)) for part in linear)
    long = _cube_root(0.4122 * red + 0.5363 * green + 0.0514 * blue)
    middle = _cube_root(0.2119 * red + 0.6807 * green + 0.1074 * blue)
    short = _cube_root(0.0883 * red + 0.2817 * green + 0.63 * blue)
    return (
        0.2105 * long + 0.7936 * middle - 0.0041 * short,
        1.978 * long - 2.4286 * middle + 0.4506 * short,
        0.0259 * long + 0.7828 * middle - 0.8087 * short,
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_states_can_be_told_apart(theme: str) -> None:
    """By everybody who sees fewer colours too, and each from the background."""
    colours = {state: getattr(look, theme) for state, look in LOOKS.items()}
    background = LIGHT_BACKGROUND if theme == "light" else DARK_BACKGROUND
    assert {state: round(_contrast(colour, background), 1) >= 3 for state, colour in colours.items()} == dict.fromkeys(
        colours, True
    )
    for sight, matrix in _SIGHTS.items():
        seen = {
            state: _oklab([sum(a * b for a, b in zip(row, _linear(colour), strict=True)) for row in matrix])
            for state, colour in colours.items()
        }
        nearest = min((math.dist(seen[a], seen[b]), a, b) for a, b in itertools.combinations(seen, 2))
        assert nearest[0] > 0.09, (sight, nearest)


# The timeline


@st.composite
def executions(draw: st.DrawFn) -> list[NodeExecution]:
    nodes = []
    for number in range(draw(st.integers(0, 25))):
        start, length = draw(st.integers(0, 50)), draw(st.integers(0, 20))
        nodes.append(
            NodeExecution(
                key=str(number),
                name=f"n{number}",
                submitted_ns=0,
                ready_ns=0,
                started_ns=start,
                ended_ns=start + length,
                worker=draw(st.sampled_from(["", "w1", "w2"])),
                outcome=draw(st.sampled_from(["success", "error", "cancelled"])),
            )
        )
    return nodes


@given(executions())
def test_rows_hold_every_execution_once_without_overlap(nodes: list[NodeExecution]) -> None:
    """Each that ran is in one row, of its own worker, and starts when its neighbour has ended."""
    rows = timeline(nodes)
    assert sorted(node.key for row in rows for node in row.nodes) == sorted(node.key for node in nodes if node.ran)
    assert all(node.worker == row.worker for row in rows for node in row.nodes)
    assert all(one.ended_ns <= other.started_ns for row in rows for one, other in itertools.pairwise(row.nodes))
    firsts = [row.worker for row in rows if row.first]
    assert len(firsts) == len(set(firsts)) == len({row.worker for row in rows})


# The explanation


@pytest.mark.parametrize("run", [layered_run(), layered_run(states=False), FAILED, EMPTY, layered_run(1, workers=1)])
def test_an_explanation_adds_up(run: RecordedRun) -> None:
    """The path fills the run; sums by name, by state and over nodes are the same; there is a verdict."""
    explanation = explain(run)
    assert 1 <= len(explanation.findings) <= 3
    assert sum(explanation.critical_ns.values()) == run.duration_ns
    total = sum(node.duration_ns for node in run.nodes)
    assert sum(each.duration_ns for each in explanation.by_name) == total
    assert sum(explanation.states_ns.values()) == sum(sum(node.states.values()) for node in run.nodes)
    assert sum(each.executions for each in explanation.by_name) == sum(node.ran for node in run.nodes)
    assert explanation.peak_running <= (run.max_workers or 0)
    assert explanation.mean_running <= explanation.peak_running
    assert (explanation.curve is None) == (not explanation.ran)


def test_the_curve_begins_at_one_worker_and_goes_past_the_recorded_number() -> None:
    """More workers never make the prediction much worse, and the recorded number gives the recorded run."""
    run = layered_run(states=False)
    found = curve(AnalyzedRun(run))
    assert found is not None
    lengths = {point.workers: point.makespan_ns for point in found.points}
    assert list(lengths) == list(range(1, 65))
    assert found.now == run.max_workers == 4
    assert lengths[4] == pytest.approx(run.duration_ns, rel=0.02)
    assert lengths[1] > lengths[4] >= lengths[64]
    assert found.summary


def test_a_large_run_is_replayed_with_few_numbers_of_workers() -> None:
    """So that explaining it takes seconds; the recorded number and its double are among them."""
    (node,) = layered_run(1).nodes
    assert counts_to_try(replace(EMPTY, nodes=(node,) * 5_000, max_workers=10)) == [1, 4, 10, 16, 20, 40, 64]


def test_json_is_json() -> None:
    """No NaN, nothing that only Python reads, also with the strangest names; the first finding is the first."""
    explanation = explain(layered_run(40, node_names=NASTY_NAMES))
    document = explanation_json(explanation)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert [finding["cause"] for finding in document["findings"]] == [each.cause for each in explanation.findings]
    steps = document["critical_path"]
    assert steps[0]["start"] == 0
    assert sum(step["duration"] for step in steps) == pytest.approx(document["run"]["duration"])


# The page


class _Elements(HTMLParser):
    """The elements of a document: their names, attributes and texts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in ("meta", "input", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "path"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == self.found[-1][0]:
            self.found[-1][2].append(data)


def _elements(document: str) -> list[tuple[str, dict[str, str | None], str]]:
    parser = _Elements()
    parser.feed(document)
    parser.close()
    assert parser.open == []
    return [(tag, attributes, "".join(texts)) for tag, attributes, texts in parser.found]


def _data(document: str) -> Any:
    return json.loads(next(text for _, attributes, text in _elements(document) if attributes.get("id") == "data"))


def test_the_page_allows_its_own_scripts_and_nothing_else() -> None:
    """The policy forbids all but the hashes of what is there; no element refers to anything outside of the file."""
    elements = _elements(page(explain(layered_run())))
    policy = next(
        attributes["content"]
        for tag, attributes, _ in elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None

    def hashes(tag: str) -> list[str]:
        texts = [text for name, attributes, text in elements if name == tag and "type" not in attributes]
        return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]

    assert dict(part.strip().split(" ", 1) for part in policy.split(";")) == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "script-src": " ".join(hashes("script")),
        "style-src": " ".join(hashes("style")),
    }
    assert len(hashes("script")) == 2
    references = {"src", "href", "action", "data", "srcset", "style", "poster"}
    assert [(tag, attributes) for tag, attributes, _ in elements if references & attributes.keys()] == []
    assert [name for _, attributes, _ in elements for name in attributes if name.startswith("on")] == []


def test_the_verdict_comes_first() -> None:
    """And then what it rests on, in the order in which one asks."""
    explanation = explain(layered_run())
    elements = _elements(page(explanation))
    assert [text for tag, _, text in elements if tag == "h2"] == [
        "Verdict",
        "Timeline",
        "Critical path",
        "What more workers would give",
        "Where the nodes' time went",
        "Nodes",
        "About this record",
    ]
    lead = next(text for _, attributes, text in elements if attributes.get("class") == "lead")
    assert lead == title(explanation.findings[0])


def test_names_make_no_elements() -> None:
    """A run with the nastiest names has the same elements as the same run with tame ones."""
    words = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda")
    tame = layered_run(40, node_names=words)
    nasty = layered_run(40, node_names=NASTY_NAMES)
    nasty = replace(nasty, name=NASTY_NAMES[0], id=NASTY_NAMES[1], pool=NASTY_NAMES[2], problems=(NASTY_NAMES[0],))
    tame = replace(tame, problems=("tame",))

    def outline(run: RecordedRun) -> list[str]:
        return sorted(tag for tag, _, _ in _elements(page(explain(run))))

    assert outline(nasty) == outline(tame)
    assert _data(page(explain(nasty)))["nodes"]["name"][: len(NASTY_NAMES)] == [
        one_line(name, 500) for name in NASTY_NAMES
    ]


def _renamed(run: RecordedRun, rename: Callable[[str], str]) -> RecordedRun:
    """The same run with every text that a trace may bring along changed."""

    def texts(record: Any, *fields: str) -> dict[str, Any]:
        found = {field: getattr(record, field) for field in fields}
        return {field: text if text is None else rename(text) for field, text in found.items()}

    of_nodes = ("name", "worker", "task_id", "error_type", "failed_upstream")
    return replace(
        run,
        nodes=tuple(replace(node, **texts(node, *of_nodes)) for node in run.nodes),
        gil_holders={rename(name): ns for name, ns in run.gil_holders.items()},
        problems=tuple(map(rename, run.problems)),
        **texts(run, "id", "name", "pool", "error_type", "attribution", "attribution_reason"),
    )


NARROW = replace(layered_run(40, workers=1, layers=1), problems=("something was repaired",))
NARROW = replace(NARROW, nodes=tuple(replace(node, task_id=f"task {node.key}") for node in NARROW.nodes))


@pytest.mark.parametrize("shown", [lambda run: page(explain(run)), notebook_html], ids=["page", "notebook"])
@pytest.mark.parametrize("run", [layered_run(), layered_run(states=False), FAILED, NARROW])
def test_no_text_of_a_record_makes_an_element(run: RecordedRun, shown: Callable[[RecordedRun], str]) -> None:
    """Names, workers, tasks, errors, holders, reasons, problems: whatever they are, they are text where they stand."""
    tame, nasty = (shown(_renamed(run, rename)) for rename in ("a_{}".format, "<b onclick=x>{}</b>\"'&amp;".format))
    outlines = [[(tag, list(attributes)) for tag, attributes, _ in _elements(each)] for each in (tame, nasty)]
    assert outlines[0] == outlines[1]
    assert not re.search(r"<(?!script|style)[^>]*(?:\son\w+=|https?:|url\()", nasty.partition("<script>")[0])


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_embedded_json_cannot_end_its_element(value: Any) -> None:
    """Whatever the strings are: no `<`, no separator that JavaScript once took for a new line; and it reads back."""
    text = script_json(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert text.isascii()
    assert json.loads(text) == value


def test_the_pages_data_fit_together() -> None:
    """Node after node on one worker touch where they did; states sum to durations; the path fills the run."""
    run = layered_run()
    data = _data(page(explain(run)))
    nodes = data["nodes"]
    for index, split in enumerate(nodes["states"]):
        assert sum(split) == pytest.approx(nodes["duration"][index], abs=5)
    ends = [start + length for start, length in zip(nodes["start"], nodes["duration"], strict=True)]
    assert ends == [round((node.ended_ns - run.started_ns) / 1_000) for node in run.nodes]
    assert [step[3] for step in data["path"]] == [0, *(step[4] for step in data["path"][:-1])]
    assert data["path"][-1][4] == data["run"]["duration"]
    assert all(nodes["critical"][step[2]] for step in data["path"] if step[0] == "node")


def test_of_very_many_nodes_the_telling_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those on the path, those that failed and the longest; the page says that it has left some out."""
    monkeypatch.setattr("traced_threadpool.report.page.MAX_NODES", 20)
    document = page(explain(FAILED))
    kept = _data(document)["nodes"]
    assert len(kept["name"]) == 20
    assert {FAILED.by_key[step.key].name for step in explain(FAILED).path.nodes if step.key} <= set(kept["name"])
    assert "ValueError" in kept["error"]
    assert "Drawn and listed are 20 of 30 nodes" in document
    assert MAX_NODES >= 5_000


def test_the_load_of_a_run_that_is_not_shown_whole_counts_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs and waits over time is no matter of the nodes that are listed; a step shows the most there were."""
    run = layered_run(300, workers=6)
    monkeypatch.setattr("traced_threadpool.report.page.MAX_NODES", 20)
    monkeypatch.setattr("traced_threadpool.report.page.MAX_STEPS", 50)
    explanation = explain(run)
    load = _data(page(explanation))["load"]
    for steps, most in ((load["running"], explanation.peak_running), (load["queued"], explanation.peak_queue)):
        assert max(level for _, level in steps) == most
        assert len(steps) <= 52
        assert [at for at, _ in steps] == sorted(at for at, _ in steps)
    assert _data(page(explain(layered_run(10))))["load"] is None


@pytest.mark.parametrize("run", [EMPTY, FAILED, layered_run(states=False), layered_run(1, workers=1)])
def test_a_page_of_little_says_what_is_missing(run: RecordedRun) -> None:
    """No node, no states, a failure: told in words, and no table or chart is left empty without one."""
    document = page(explain(run))
    assert ("No node of this run ran" in document) == (not run.nodes)
    assert ("does not say what the nodes did" in document) == (bool(run.nodes) and run.attribution == "none")
    assert ("error: ValueError" in document) == (run.outcome == "error")


def test_the_charting_library_is_the_published_one() -> None:
    """Byte for byte echarts@6.1.0's dist/echarts.min.js; its licence is beside it."""
    assets = files("traced_threadpool.report") / "assets"
    assert hashlib.sha256((assets / "echarts.min.js").read_bytes()).hexdigest() == ECHARTS_SHA256
    assert "Apache License" in (assets / "echarts.LICENSE").read_text()


# A notebook


@pytest.mark.parametrize("run", [layered_run(), FAILED, EMPTY, layered_run(40, node_names=NASTY_NAMES)])
def test_a_notebook_shows_a_run_without_script(run: RecordedRun) -> None:
    """Well-formed, small, and made of a few harmless elements."""
    shown = run._repr_html_()
    assert shown == notebook_html(run)
    assert {tag for tag, _, _ in _elements(shown)} <= {
        *("div", "b", "span", "ul", "li", "svg", "rect", "title", "text", "table", "tr", "th", "td")
    }
    assert len(shown) < 40_000


@pytest.mark.parametrize("run", [layered_run(), layered_run(states=False), FAILED, NARROW])
def test_what_a_notebook_shows(run: RecordedRun) -> None:
    """The verdict, every execution where it was, in the colour of what it did most, the path, and what is missing."""
    explanation = explain(run)
    elements = _elements(run._repr_html_())
    texts = {text for _, _, text in elements}
    for finding in explanation.findings:
        assert {title(finding), *finding.evidence} <= texts
        assert any(text.startswith(finding.advice) for text in texts)
    assert {f"note: {problem}" for problem in run.problems} <= texts

    scale = (900 - 110) / run.duration_ns
    row_of = {node.key: number for number, row in enumerate(timeline(explanation.ran), 1) for node in row.nodes}

    def box(started_ns: int, ended_ns: int, row: int, colour: str, height: int = 10) -> tuple[str, ...]:
        x, wide = 110 + (started_ns - run.started_ns) * scale, max((ended_ns - started_ns) * scale, 0.6)
        return (f"{x:.1f}", str(row * 14 + 2), f"{wide:.1f}", str(height), colour)

    expected = {
        box(step.started_ns, step.ended_ns, 0, {"node": "#15191e", "queue": "#c9ced6"}.get(step.kind, "#eef0f3"))
        for step in explanation.path.steps
    }
    for node in explanation.ran:
        most = max(node.states, key=lambda state: node.states[state], default=None)
        known = "#6f8aa8" if most is None else LOOKS[most].light
        colour = "#b3160a" if node.outcome == "error" else known
        expected.add(box(node.started_ns, node.ended_ns, row_of[node.key], colour))
        if node.key in explanation.critical_keys:
            expected.add(box(node.started_ns, node.ended_ns, row_of[node.key], "#15191e", 2))
    fields = ("x", "y", "width", "height", "fill")
    assert {tuple(str(found[each]) for each in fields) for tag, found, _ in elements if tag == "rect"} == expected
    cells = [text for tag, _, text in elements if tag == "td"]
    for each in explanation.by_name[:10]:
        assert any(
            cells[at : at + 3] == [each.name, duration(each.duration_ns), duration(each.queue_ns)]
            for at in range(len(cells))
        )


def test_a_notebook_shows_the_first_of_many_workers() -> None:
    """And says so, as of the executions."""
    shown = notebook_html(layered_run(500, workers=40, layers=2))
    assert {f"etl_{number}" for number in range(40) if f">etl_{number}<" in shown} == {
        f"etl_{number}" for number in range(32)
    }
    assert "The 400 longest of 500. The first 32 of 40 rows." in shown


def test_a_notebook_stays_small_with_thousands_of_nodes() -> None:
    """It draws the longest of them."""
    assert len(notebook_html(layered_run(5_000, workers=40, layers=40))) < 150_000


# A terminal


def _printed(run: RecordedRun, **options: Any) -> str:
    console = pytest.importorskip("rich.console", reason="needs the extra [report]")
    from traced_threadpool.report.terminal import explanation_text

    output = io.StringIO()
    terminal = console.Console(file=output, width=120, markup=False, highlight=False, **options)
    for part in explanation_text(explain(run)):
        terminal.print(part)
    return output.getvalue()


def test_text_begins_with_the_verdict() -> None:
    """The run in a line, then the findings, then what they rest on, in this order."""
    text = _printed(layered_run())
    headings = ("etl: ", "1. ", "Critical path", "Where the nodes' time went", "Slowest nodes", "number of workers")
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)


@pytest.mark.parametrize("run", [EMPTY, FAILED, layered_run(states=False), layered_run(40, node_names=NASTY_NAMES)])
def test_text_obeys_no_name(run: RecordedRun) -> None:
    """Names that are escape sequences or markup come out as they are, and the text stays within its width."""
    text = _printed(run)
    assert "\x1b" not in text
    assert "[bold]" in text or NASTY_NAMES[7] not in {step.name for step in explain(run).path.nodes}
    assert max(map(len, text.splitlines())) <= 120


def test_text_has_colours_on_a_terminal_alone() -> None:
    """And none where NO_COLOR asks for none."""
    assert "\x1b[" in _printed(layered_run(), force_terminal=True)
    assert "\x1b[3" not in _printed(layered_run(), force_terminal=True, no_color=True)
