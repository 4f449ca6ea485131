"""Reports of runs: numbers, colours, rows, what an explanation adds up to, the notebook and the terminal."""

from __future__ import annotations

import io
import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run
from tests.report.documents import EMPTY, FAILED, NARROW, check_that_no_text_makes_an_element, elements_of
from traced_threadpool.analysis.diagnosis.advice import title
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.replay.what_if import counts_to_try
from traced_threadpool.model.formatting import change, duration, one_line, percent
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import INFO
from traced_threadpool.report.as_json import explanation_json
from traced_threadpool.report.curve import curve
from traced_threadpool.report.explanation import explain
from traced_threadpool.report.notebook import notebook_html
from traced_threadpool.report.timeline import timeline

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
    colours = {state: getattr(look, theme) for state, look in INFO.items()}
    background = "#ffffff" if theme == "light" else "#14181d"
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
    assert (explanation.curve is None) == (not explanation.ran or run.outcome == "error")


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


# A notebook


@pytest.mark.parametrize("run", [layered_run(), FAILED, EMPTY, layered_run(40, node_names=NASTY_NAMES)])
def test_a_notebook_shows_a_run_without_script(run: RecordedRun) -> None:
    """Well-formed, small, and made of a few harmless elements."""
    shown = run._repr_html_()
    assert shown == notebook_html(run)
    assert {tag for tag, _, _ in elements_of(shown)} <= {
        *("div", "b", "span", "ul", "li", "svg", "rect", "title", "text", "table", "tr", "th", "td")
    }
    assert len(shown) < 40_000


@pytest.mark.parametrize("run", [layered_run(), layered_run(states=False), FAILED, NARROW])
def test_what_a_notebook_shows(run: RecordedRun) -> None:
    """The verdict, every execution where it was, in the colour of what it did most, the path, and what is missing."""
    explanation = explain(run)
    elements = elements_of(run._repr_html_())
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
        known = "#6f8aa8" if most is None else INFO[most].light
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
    assert len(notebook_html(layered_run(2_000, workers=40, layers=40))) < 150_000


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
    headings = ("etl: ", "1. ", "Critical path", "Where the time went", "Slowest nodes", "number of workers")
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


@pytest.mark.parametrize("run", [layered_run(), layered_run(states=False), FAILED, NARROW])
def test_no_text_of_a_record_makes_an_element_of_the_notebook(run: RecordedRun) -> None:
    """Names, workers, tasks, errors, holders, reasons, problems: whatever they are, they are text where they stand."""
    check_that_no_text_makes_an_element(run, notebook_html)
