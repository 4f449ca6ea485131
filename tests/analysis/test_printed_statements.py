"""No statement without its table, in what is printed: each number of a sentence is in a row beside it.

The text, the JSON and the page are read again as a person or a program would, with nothing known of the record.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.played_runs import MS, played
from tests.analysis.test_statements import runs
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.analysis.replay.what_if import HELPS
from traced_threadpool.model.formatting import change, duration
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.as_json import explanation_json, prediction_json
from traced_threadpool.report.explanation import explain
from traced_threadpool.report.prediction import Settings, predict

pytest.importorskip("rich", reason="needs the extra [report]")
pytest.importorskip("jinja2", reason="needs the extra [report]")

from traced_threadpool.report.page import page
from traced_threadpool.report.terminal import explanation_text, plain, prediction_text

TIME = r"(?:[\d.,]+ (?:s|ms|µs|ns|min|h)(?: \d+ (?:s|min))?)"
SHARE = r"[<>]?[\d,]+ %"
STATES = {
    "waiting for the GIL": "gil",
    "waiting for a CPU": "runqueue",
    "waiting for the network": "network",
    "waiting for the disk": "disk",
    "waiting for a lock": "lock",
    "sleeping": "sleep",
}
STATE_OF_TITLE = {
    "Lock contention": "lock",
    "Sleeping": "sleep",
    "Slow network": "network",
    "Slow disk": "disk",
    "The pool is too small": "queue wait",
    "Queued behind other runs": "behind others",
}
UNIT_NS = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9, "min": 60e9, "h": 3600e9}


def ns_of(text: str) -> float:
    """
    >>> ns_of("1.50 ms"), ns_of("2 min 5 s")
    (1500000.0, 125000000000.0)
    """
    words = text.replace(",", "").split()
    return sum(float(number) * UNIT_NS[unit] for number, unit in zip(words[::2], words[1::2], strict=True))


@dataclass
class Printed:
    """What stands on a screen."""

    findings: list[list[str]]
    states: dict[str, list[str]]
    """By state: of all nodes, share, on the path, of the run."""
    workers: dict[int, list[str]]
    """By number: run, change, limited by."""
    summary: str
    took: str


def cells(line: str) -> list[str]:
    return [each.strip() for each in re.split(r"  +", line.strip())]


def in_text(text: str) -> Printed:
    sections = dict(re.findall(r"^(\w.*)\n(.*\n─+\n(?:.+\n?)+)", text, re.MULTILINE))

    def rows(begins: str) -> list[list[str]]:
        found = [body for heading, body in sections.items() if heading.startswith(begins)]
        return [cells(line) for body in found for line in body.split("─\n", 1)[1].splitlines()]

    findings: list[list[str]] = []
    for line in text.split("\n\n", 1)[1].splitlines():
        if re.match(r"\d\. ", line):
            findings.append([line[3:]])
        elif line.startswith("   ") and findings and not sections.keys() & {line}:
            findings[-1].append(line.strip().removeprefix("- "))
        elif line:
            break
    workers = rows("Predicted length")
    return Printed(
        findings=findings,
        states={row[0]: row[1:5] for row in rows("Where the time went")},
        workers={int(row[0].replace(",", "")): row[1:] for row in workers if row[0].replace(",", "").isdecimal()},
        summary=" ".join(row[0] for row in workers if not row[0].replace(",", "").isdecimal()),
        took=re.match(rf".*?: ({TIME}), ", text)[1],  # type: ignore[index]  # the first line has it
    )


def in_page(document: str) -> Printed:
    def texts(html: str) -> list[str]:
        return [unescape(re.sub(r"<[^>]*>", "", each)) for each in re.findall(r"<(?:li|p|h3|td)[^>]*>(.*?)</", html)]

    def table(first: str) -> list[list[str]]:
        found = re.findall(rf"<th[^>]*>{first}</th>.*?<tbody>(.*?)</tbody>", document, re.DOTALL)
        return [texts(row) for row in re.findall(r"<tr>(.*?)</tr>", found[0])] if found else []

    [verdict] = re.findall(r"<section class=\"card verdict.*?</section>", document, re.DOTALL)
    findings = [texts(part) for part in re.split(r"<div class=\"finding\">", verdict)]
    return Printed(
        findings=findings,
        states={row[0]: row[1:5] for row in table("State")},
        workers={int(row[0].removesuffix(" (now)").replace(",", "")): row[1:] for row in table("Workers")},
        summary=unescape(re.findall(r"<p class=\"hint\">(.*?) Predicted by replaying", document)[0]),
        took=re.findall(r"<dt>Run</dt><dd>(.*?)<small>", document)[0],
    )


def check(printed: Printed) -> None:
    """Every sentence that has a number in it which a row has too."""
    for heading, *lines in printed.findings:
        for line in lines:
            check_states(heading, line, printed)
            check_replayed(line, printed)
    check_limits(printed.workers)
    check_summary(printed.summary, printed)


def check_states(heading: str, line: str, printed: Printed) -> None:
    if (found := re.match(rf"(.*?): ({TIME}), ({SHARE}) of the nodes' time; most of it", line)) is not None:
        assert printed.states[STATES[found[1]]][:2] == [found[2], found[3]], line
    state = STATE_OF_TITLE.get(heading.partition(":")[0])
    if (found := re.match(rf"on the critical path: ({TIME}), ({SHARE}) of the run", line)) and state and printed.states:
        assert printed.states[state][2:] == [found[1], found[2]], line
    if (found := re.match(rf"Expected gain: ({TIME}), ({SHARE}) of the run", line)) is not None:
        told = next(each for each in lines_of(heading, printed) if " instead of " in each)
        instead, took = re.findall(TIME, told)[-2:]
        assert ns_of(took) - ns_of(instead) == pytest.approx(ns_of(found[1]), abs=0.011 * ns_of(took))


def lines_of(heading: str, printed: Printed) -> list[str]:
    return next(lines for title, *lines in printed.findings if title == heading)


def check_replayed(line: str, printed: Printed) -> None:
    if found := re.match(
        rf"(?:replay|estimate): with (?:the other runs and )?([\d,]+) workers?, ({TIME}) instead of ({TIME})", line
    ):
        assert printed.workers[int(found[1].replace(",", ""))][0] == found[2], line
    if (found := re.search(rf"({TIME}) instead of ({TIME})", line)) is not None:
        assert found[2] == printed.took, line
    if (found := re.match(r"Set max_workers=([\d,]+)", line)) is not None:
        assert int(found[1].replace(",", "")) in printed.workers
    check_summary(line, printed)


def check_limits(rows: dict[int, list[str]]) -> None:
    """A row says that more workers help where a row below is shorter by 2 %, and only there."""
    for number, (took, _, limit) in rows.items():
        beyond = [ns_of(other) for more, (other, *_) in rows.items() if more > number]
        if limit != "the number of workers":
            assert not beyond or min(beyond) > ns_of(took) * (1 - HELPS) * (1 - 0.006), (number, rows)
        elif beyond:
            assert min(beyond) <= ns_of(took) * (1 - HELPS) * (1 + 0.006), (number, rows)


def check_summary(sentence: str, printed: Printed) -> None:
    def took(number: str) -> float:
        return ns_of(printed.workers[int(number.replace(",", ""))][0])

    if (found := re.search(r"More than ([\d,]+) workers? would not help", sentence)) is not None:
        number = int(found[1].replace(",", ""))
        beyond = [ns_of(row[0]) for more, row in printed.workers.items() if more > number]
        assert not beyond or min(beyond) >= took(found[1]), sentence
    if found := re.search(rf"More than ([\d,]+) workers? would gain ({TIME}) .*? at best, with ([\d,]+)", sentence):
        rounding = 0.006 * took(found[1])
        assert took(found[1]) - took(found[3]) == pytest.approx(ns_of(found[2]), abs=2 * rounding), sentence
    if (found := re.search(rf"([\d,]+) workers? instead of ([\d,]+) would take ({TIME})", sentence)) is not None:
        assert printed.workers[int(found[1].replace(",", ""))][0] == found[3], sentence


def check_running(printed: Printed, mean: str, peak: str) -> None:
    """How many nodes ran at once, on average and at most."""
    for _, *lines in printed.findings:
        for line in lines:
            if (
                found := re.search(r"(?:^|, )([\d.]+) (?:nodes ran at once )?(?:at once )?on average", line)
            ) is not None:
                assert found[1] == mean, line
            if (found := re.search(r"at most ([\d,]+) (?:nodes )?ran at once", line)) is not None:
                assert int(found[1].replace(",", "")) <= int(peak.replace(",", "")), line


@settings(deadline=None, max_examples=50)
@given(runs)
def test_what_explain_prints_agrees_with_itself(run: RecordedRun) -> None:
    """As text, and as a page."""
    explanation = explain(run)
    check(in_text(plain(explanation_text(explanation), 10_000)))
    printed = in_page(page(explanation))
    check(printed)
    check_running(printed, f"{explanation.mean_running:.1f}", f"{explanation.peak_running:,}")


@settings(deadline=None, max_examples=40)
@given(runs)
def test_the_json_has_what_the_text_says(run: RecordedRun) -> None:
    """The same findings, states and rows."""
    explanation = explain(run)
    told = json.loads(json.dumps(explanation_json(explanation)))
    text = in_text(plain(explanation_text(explanation), 10_000))
    assert [[each["title"], *each["evidence"], each["advice"]] for each in told["findings"]] == [
        [line for line in lines if not line.startswith("Expected gain")] for lines in text.findings
    ]
    rows = {row["workers"]: [duration(row["seconds"] * 1e9), row["limited_by"]] for row in told["workers"]["makespan"]}
    assert {number: [row[0], row[2]] for number, row in text.workers.items()}.items() <= rows.items()
    for state, (of_nodes, _, on_path, _) in text.states.items():
        if state in told["states"] and of_nodes != "0 s":
            assert duration(told["states"][state] * 1e9) == of_nodes
        if state in told["critical_states"] and state != "other":
            assert duration(told["critical_states"][state] * 1e9) == on_path
    assert sum(told["critical_states"].values()) == pytest.approx(told["run"]["duration"], abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(runs, st.sets(st.integers(1, 12), max_size=4), st.integers(1, 8), st.booleans(), st.data())
def test_what_if_agrees_with_itself(
    run: RecordedRun, asked: set[int], cpus: int, gil: bool, data: st.DataObject
) -> None:
    """With any other settings: sentences, limits and the change of each row."""
    names = sorted({node.name for node in run.nodes if node.parent is None})
    faster = dict.fromkeys(data.draw(st.lists(st.sampled_from(names), max_size=2)), 2.0)
    prediction = predict(run, Settings(workers=tuple(asked), faster=faster, cpus=cpus, gil=gil))
    rows = [cells(line) for line in plain(prediction_text(prediction), 10_000).split("─\n", 1)[1].splitlines()]
    workers = {int(row[0]): row[1:] for row in rows if row[0].isdecimal()}
    check_limits_of_some(workers)
    for number, (took, by, _) in workers.items():
        makespan_ns = prediction.scaling.makespan_ns[number]
        assert (took, by) == (duration(makespan_ns), change(before_ns=run.duration_ns, after_ns=makespan_ns))
    for row in rows:
        if not row[0].isdecimal():
            check_summary(row[0], Printed([], {}, workers, "", duration(run.duration_ns)))
            if (limited := re.match(r"Limited by (.*?): ", row[0])) is not None:
                assert limited[1] in {limit for *_, limit in workers.values()}


@settings(deadline=None, max_examples=40)
@given(runs, st.sets(st.integers(1, 12), min_size=1, max_size=3))
def test_what_if_says_of_a_number_of_workers_what_explain_says(run: RecordedRun, asked: set[int]) -> None:
    """Its length and what limits it, whatever other numbers were asked about; and the recorded number is the run."""
    prediction = predict(run, Settings(workers=tuple(asked)))
    whole = {point.workers: (point.makespan_ns, point.limit) for point in (explain(run).curve or prediction).points}
    assert {point.workers: (point.makespan_ns, point.limit) for point in prediction.points}.items() <= whole.items()
    assert whole[prediction.scaling.recorded_workers][0] == run.duration_ns
    text = plain(prediction_text(prediction), 10_000)
    rows = [cells(line) for line in text.split("─\n", 1)[1].splitlines()]
    workers = {int(row[0]): row[1:] for row in rows if row[0].isdecimal()}
    assert workers.keys() == asked
    check_limits_of_some(workers)
    told = prediction_json(prediction)
    assert [each["limited_by"] for each in told["predictions"]] == [workers[number][2] for number in sorted(asked)]
    for row in rows:
        if not row[0].isdecimal():
            check_summary(row[0], Printed([], {}, workers, "", duration(run.duration_ns)))


def check_limits_of_some(rows: dict[int, list[str]]) -> None:
    """Of rows with others between them: none that is limited by something else is beaten by one below."""
    for number, (took, _, limit) in rows.items():
        beyond = [ns_of(other) for more, (other, *_) in rows.items() if more > number]
        if limit != "the number of workers":
            assert not beyond or min(beyond) > ns_of(took) * (1 - HELPS) * (1 - 0.006), (number, rows)


def test_a_limit_is_the_same_where_some_other_number_is_best() -> None:
    """With more workers than that, nodes are in each other's way: `what-if` must ask about the others as well."""
    dice = random.Random(30)
    asked = []
    for index in range(dice.randint(4, 14)):
        parts = {name: dice.choice([0, 0, dice.randint(1, 60)]) * MS for name in Demand._fields}
        asked.append((Demand(**parts), [earlier for earlier in range(index) if dice.random() < 0.15]))
    run = played(asked, workers=dice.randint(1, 4), cpus=dice.randint(1, 3))
    whole = explain(run).curve
    assert whole is not None
    [point] = predict(run, Settings(workers=(2,))).points
    assert point in whole.points
