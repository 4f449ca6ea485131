"""`traced-threadpool slo`: rules for a team's own numbers, and refusals that say what to write instead."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")
yaml = pytest.importorskip("yaml", reason="needs the extra [report]")

from traced_threadpool.cli import program as cli  # noqa: E402  # what it imports may be missing

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on PATH (Debian's package `prometheus` has it)"
)


class Slo:
    """Runs the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> str:
        """What it prints."""
        assert cli.main(["slo", *words]) == 0, self._capsys.readouterr()
        return self._capsys.readouterr().out

    def rules(self, *words: str) -> list[Any]:
        return [rule for group in yaml.safe_load(self(*words))["groups"] for rule in group["rules"]]

    def refusal(self, *words: str) -> str:
        """What it says on standard error, with the status of wrong usage."""
        assert cli.main(["slo", *words]) == 2
        found = self._capsys.readouterr()
        assert found.out == ""
        return found.err


@pytest.fixture
def slo(capsys: pytest.CaptureFixture[str]) -> Slo:
    return Slo(capsys)


def test_burn_rates_are_those_of_the_workbook(slo: Slo) -> None:
    """Of both parts: page at 14.4 and 6, ticket at 3 and 1, over their pairs of windows."""
    rules = slo.rules("--run", "etl", "--objective", "99.9", "--latency", "30s")
    found = [
        (rule["alert"], rule["labels"]["severity"], rule["expr"])
        for rule in rules
        if "long_window" in rule.get("labels", {})
    ]
    expected = []
    for kind, budget in (("availability", "0.001"), ("latency", "0.01")):
        for severity, factor, long, short in (
            ("page", "14.4", "1h", "5m"),
            ("page", "6", "6h", "30m"),
            ("ticket", "3", "1d", "2h"),
            ("ticket", "1", "3d", "6h"),
        ):
            of = f'{{run="etl", slo="{kind}"}} > ({factor} * {budget})'
            name = "pool_run:hamilton_slo_errors:ratio_rate"
            expected.append(
                (f"Hamilton{kind.capitalize()}BudgetBurn", severity, f"{name}{long}{of}\nand\n{name}{short}{of}")
            )
    assert found == expected


@needs_promtool
@pytest.mark.parametrize(
    "names",
    [
        ["--run", "it's", "--pool", "a: b # c"],
        ["--run", "{{ $labels.x }}", "--pool", "- [x]"],
        ["--run", "Über|läufer.*", "--pool", "!&*%@`"],
        [],
    ],
    ids=["quote", "template", "regular expression", "none"],
)
def test_odd_names_break_nothing(slo: Slo, tmp_path: Path, names: list[str]) -> None:
    """Whatever can be printed: Prometheus takes the file, and its selectors have the name as it is."""
    file = tmp_path / "slo.yaml"
    assert slo("--objective", "99.9", "--latency", "30s", "--fresh-within", "26h", *names, "-o", str(file)).startswith(
        "written"
    )
    ran = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, timeout=150, check=False)
    assert (ran.returncode, "SUCCESS: 32 rules found" in ran.stdout) == (0, True), ran.stdout + ran.stderr
    expressions = [rule["expr"] for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    for option, name in zip(names[::2], names[1::2], strict=True):
        assert all(f'{option.removeprefix("--")}="{name}"' in expr for expr in expressions)


@pytest.mark.parametrize("option", ["--run", "--pool"])
@pytest.mark.parametrize("name", ['say "etl"', "a\nb", "a\u2028b", "back\\slash", "", "\x1b[31m"])
def test_names_that_would_break_a_query_are_refused(slo: Slo, option: str, name: str) -> None:
    """By their option; a name with a line break does not get into the message as one."""
    message = slo.refusal("--objective", "99.9", option, name)
    assert message.splitlines()[-1].startswith(f"Error: {option.removeprefix('--')} ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["100"], "leaves no error budget"),
        (["100.0%"], "leaves no error budget"),
        (["0"], "must be above 0 and below 100"),
        (["-1"], "must be above 0 and below 100"),
        (["100.1"], "must be above 0 and below 100"),
        (["0.999"], "write 99.900 if a share of 0.999 is meant"),
        (["nan"], "not a percentage"),
        (["inf"], "not a percentage"),
        (["high"], "not a percentage"),
        (["99", "--latency", "45s"], "the nearest bounds are 30s and 1m"),
        (["99", "--latency", "2h"], "the nearest bound is 1h"),
        (["99", "--latency", "1ms"], "the nearest bound is 10ms"),
        (["99", "--latency", "30s", "--buckets", "1,45"], "the nearest bounds are 1s and 45s"),
        (["99", "--latency", "soon"], "not a duration"),
        (["99", "--latency", "0s"], "not a duration"),
        (["99", "--latency", "30s", "--latency-objective", "100"], "leaves no error budget"),
        (["99", "--latency-objective", "95"], "--latency-objective needs --latency"),
        (["99", "--fresh-within", "-1h"], "not a duration"),
        (["99", "--fresh-within", "101000d"], "is longer than 100 years"),
        (["99", "--buckets", "3,2"], "not a comma-separated list of positive, increasing seconds"),
        (["99", "--buckets", "a"], "not a comma-separated list of positive, increasing seconds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_makes_no_sense_is_refused(slo: Slo, words: list[str], message: str) -> None:
    """With a sentence that says what to write."""
    assert message in slo.refusal("--run", "etl", "--objective", *words)


def test_own_bounds_are_a_latency(slo: Slo) -> None:
    """A bound that is no default, once it is named; matched as Python and as a collector write it."""
    text = slo("--objective", "99", "--latency", "45s", "--buckets", "1,45,90")
    assert 'le=~"45(\\\\.0)?"' in text
    assert text.startswith("# traced-threadpool slo --objective 99 --latency 45s --latency-objective 99 --buckets 45\n")


def test_the_runbooks_address_is_in_every_alert(slo: Slo) -> None:
    """With the alert's heading; and in the command on top, which writes the file again."""
    words = ("--objective", "99.9", "--latency", "30s", "--fresh-within", "26h", "--runbook", "https://wiki/x.md")
    alerts = [rule for rule in slo.rules(*words) if "alert" in rule]
    assert len(alerts) == 10
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"https://wiki/x.md#{rule['alert'].lower()}"
    text = slo(*words)
    assert slo(*shlex.split(text.splitlines()[0])[3:]) == text


def test_alerts_that_could_never_fire_are_left_out_and_said(slo: Slo) -> None:
    """14.4 times 10 % is more than all runs."""
    text = slo("--objective", "90")
    assert "An objective of 90 % for availability cannot burn 14.4 times too fast" in text
    rules = slo.rules("--objective", "90")
    assert [rule["labels"]["long_window"] for rule in rules if "alert" in rule] == ["6h", "1d", "3d"]
    assert "An objective of 10 % for availability cannot burn 3 times too fast" in slo("--objective", "1e1")


def test_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One sentence, and the status for files."""
    assert cli.main(["slo", "--objective", "99", "-o", str(tmp_path / "no" / "slo.yaml")]) == 3
    assert "cannot be written" in capsys.readouterr().err
