"""The page: what it says, what it allows, and that no name can become anything but a name."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="needs the extra [report]")
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run
from tests.report.documents import EMPTY, FAILED, NARROW, check_that_no_text_makes_an_element, elements_of
from traced_threadpool.analysis.diagnosis.advice import title
from traced_threadpool.model.formatting import one_line
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.explanation import explain
from traced_threadpool.report.page import page
from traced_threadpool.report.page_data import MAX_NODES, script_json

ECHARTS_SHA256 = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"


def _data(document: str) -> Any:
    return json.loads(next(text for _, attributes, text in elements_of(document) if attributes.get("id") == "data"))


def test_the_page_allows_its_own_scripts_and_nothing_else() -> None:
    """The policy forbids all but the hashes of what is there; no element refers to anything outside of the file."""
    elements = elements_of(page(explain(layered_run())))
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
    elements = elements_of(page(explanation))
    assert [text for tag, _, text in elements if tag == "h2"] == [
        "Verdict",
        "Timeline",
        "Critical path",
        "Predicted length by number of workers",
        "Where the time went",
        "Nodes",
        "About this record",
    ]
    lead = next(text for _, attributes, text in elements if attributes.get("class") == "lead")
    assert lead == title(explanation.findings[0])


def test_names_make_noelements_of() -> None:
    """A run with the nastiest names has the same elements as the same run with tame ones."""
    words = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda")
    tame = layered_run(40, node_names=words)
    nasty = layered_run(40, node_names=NASTY_NAMES)
    nasty = replace(nasty, name=NASTY_NAMES[0], id=NASTY_NAMES[1], pool=NASTY_NAMES[2], problems=(NASTY_NAMES[0],))
    tame = replace(tame, problems=("tame",))

    def outline(run: RecordedRun) -> list[str]:
        return sorted(tag for tag, _, _ in elements_of(page(explain(run))))

    assert outline(nasty) == outline(tame)
    assert _data(page(explain(nasty)))["nodes"]["name"][: len(NASTY_NAMES)] == [
        one_line(name, 500) for name in NASTY_NAMES
    ]


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
    monkeypatch.setattr("traced_threadpool.report.page_data.MAX_NODES", 20)
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
    monkeypatch.setattr("traced_threadpool.report.page_data.MAX_NODES", 20)
    monkeypatch.setattr("traced_threadpool.report.page_data.MAX_STEPS", 50)
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
    assert ("does not tell what the nodes did" in document) == (bool(run.nodes) and run.attribution == "none")
    assert ("error: ValueError" in document) == (run.outcome == "error")


def test_the_charting_library_is_the_published_one() -> None:
    """Byte for byte echarts@6.1.0's dist/echarts.min.js; its licence is beside it."""
    assets = files("traced_threadpool.report") / "assets"
    assert hashlib.sha256((assets / "echarts.min.js").read_bytes()).hexdigest() == ECHARTS_SHA256
    assert "Apache License" in (assets / "echarts.LICENSE").read_text()


@pytest.mark.parametrize("run", [layered_run(), layered_run(states=False), FAILED, NARROW])
def test_no_text_of_a_record_makes_an_element_of_the_page(run: RecordedRun) -> None:
    """Names, workers, tasks, errors, holders, reasons, problems: whatever they are, they are text where they stand."""
    check_that_no_text_makes_an_element(run, lambda one: page(explain(one)))


def test_slack_of_a_node_on_the_critical_path_is_explained_beside_the_numbers() -> None:
    """Where a wait follows it on the path, it has some; and a run that failed has no predicted length."""
    run = layered_run(60, workers=2)
    explanation = explain(run)
    with_slack = [key for key in explanation.critical_keys if explanation.path.slack_ns[key] > 0]
    assert with_slack
    hint = "A node on the critical path has slack where a wait follows it on the path"
    assert hint in " ".join(page(explanation).split())
    failed = page(explain(layered_run(30, failing=layered_run(30).nodes[5].name)))
    assert "No prediction: the run failed." in failed


def test_clocks_that_are_off_are_told() -> None:
    """How many nodes ran there, and by how much their times were moved at most; nothing where no clock is off."""
    run = layered_run(4)
    said = "The clocks of other hosts are off"
    assert said not in page(explain(run))
    moved = [
        replace(each, clock_correction_ns=ns) for each, ns in zip(run.nodes, (2_500_000_000, 7, 0, 0), strict=True)
    ]
    text = page(explain(replace(run, nodes=tuple(moved))))
    assert f"{said}: the times of 2 nodes there were moved, by 2.50 s at most" in text
