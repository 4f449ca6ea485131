"""The rule files: valid, tested alert by alert with promtool, each with a place in the runbook."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("promql_parser", reason="needs the development dependencies")
yaml = pytest.importorskip("yaml", reason="needs the extra [report]")

from tests.dashboards.promql_names import problems  # noqa: E402  # what it imports may be missing
from tests.dashboards.test_dashboards import recorded  # noqa: E402  # likewise

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "dashboards/rules"
FILES = sorted(RULES.glob("*.yaml"))
CASES = sorted((RULES / "tests").glob("*.yaml"))
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on PATH (Debian's package `prometheus` has it)"
)


def rules(*kinds: str) -> list[Any]:
    found = [rule for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    return [rule for rule in found if any(kind in rule for kind in kinds)]


def promtool(*words: object) -> str:
    """What it prints; it must be content."""
    ran = subprocess.run(
        ["promtool", *map(str, words)], capture_output=True, text=True, timeout=290, check=False, cwd=RULES
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    """Syntax, names, templates; each file has rules, and no rule is there twice."""
    checked = promtool("check", "rules", *FILES)
    assert len(re.findall(r"SUCCESS: \d+ rules found", checked)) == len(FILES) == 3
    assert "duplicate" not in checked


@needs_promtool
@pytest.mark.slow
@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_are_silent_and_resolve(cases: Path) -> None:
    """Prometheus's own evaluation, over hours and days of series."""
    assert "SUCCESS" in promtool("test", "rules", cases)


def test_every_alert_has_its_cases() -> None:
    """Of each alert, by its long window: silent and then firing, firing and then resolved; and its text."""
    tests = [test for file in CASES for test in yaml.safe_load(file.read_text())["tests"]]
    told = {each["alertname"] for test in tests for each in test.get("alert_rule_test", [])}
    for rule in rules("alert"):
        wanted = {"alertname": rule["alert"]}
        if "long_window" in rule["labels"]:
            wanted["long_window"] = rule["labels"]["long_window"]
        histories = []
        for test in tests:
            moments = [each for each in test.get("promql_expr_test", []) if "ALERTS" in each["expr"]]
            fires = [
                any(
                    all(f'{label}="{value}"' in sample["labels"] for label, value in wanted.items())
                    for sample in moment["exp_samples"]
                )
                for moment in moments
            ]
            histories.append("".join("x" if each else "." for each in fires))
        assert any(".x" in history for history in histories), (wanted, histories)
        assert any("x." in history for history in histories), (wanted, histories)
        assert rule["alert"] in told


def test_every_alert_has_a_place_in_the_runbook() -> None:
    """What its link leads to is a heading, under which are its meaning, a first look and a cure; no other is there."""
    found = re.findall(r"^## (Hamilton\w+)\n(.*?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text(), re.M | re.DOTALL)
    headings = [heading for heading, _ in found]
    for heading, text in found:
        parts = re.findall(r"^\*\*(\w[\w ]+)\.\*\*", text, re.MULTILINE)
        assert parts == ["Meaning", "First look", "Cure"], heading
    alerts = {rule["alert"] for rule in rules("alert")}
    assert sorted(headings) == sorted(alerts)
    for rule in rules("alert"):
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_documented_command_puts_the_runbooks_address_in(tmp_path: Path) -> None:
    """Every alert's link becomes an address with the alert's heading, and nothing else changes."""
    text = (ROOT / "docs/dashboards.md").read_text()
    (command,) = re.findall(r"^sed .*$", text, re.MULTILINE)
    for name in ("alerts.yaml", "slo.yaml"):
        shutil.copy(RULES / name, tmp_path)
    subprocess.run(shlex.split(command), cwd=tmp_path, timeout=150, check=True)
    for name in ("alerts.yaml", "slo.yaml"):
        before, after = (yaml.safe_load((folder / name).read_text()) for folder in (RULES, tmp_path))
        for group in before["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    heading = rule["annotations"]["runbook_url"].partition("#")[2]
                    rule["annotations"]["runbook_url"] = f"https://wiki.example.com/hamilton#{heading}"
        assert after == before


@pytest.mark.parametrize("rule", rules("alert", "record"), ids=lambda rule: rule.get("record") or rule["alert"])
def test_rules_name_only_what_is_exported(rule: Any) -> None:
    """Metrics, labels and values of the inventory, or what other rules record."""
    assert problems(rule["expr"], recorded()) == []
