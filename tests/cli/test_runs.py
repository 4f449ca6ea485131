"""`runs`, and `--all` of `explain`, `diff` and `report`: hundreds of runs in a file."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.synthetic_runs import layered_run
from tests.analysis.test_many_runs import service
from traced_threadpool.analysis import save_runs

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")
pytest.importorskip("jinja2", reason="needs the extra [report]")

from tests.cli.program import Command
from traced_threadpool.cli import program as cli

SLOW = (3, 17, 30, 31, 44, 59)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """60 runs of a service, of which six are slow, and two of another name, of which one failed."""
    path = tmp_path / "many.jsonl"
    failed = replace(
        layered_run(8, run_id="f", run_name="nightly"), outcome="error", error_type="KeyError", started_unix_ns=10**18
    )
    other = replace(layered_run(9, run_id="g", run_name="nightly"), started_unix_ns=10**18 + 10**10)
    save_runs(path, [*service(slow=SLOW, parse=200, state="lock"), failed, other])
    return path


def rows(text: str, heading: str = "") -> list[list[str]]:
    """The cells below a heading, or of the first table."""
    section = text[text.index(heading) :]
    body = section.split("─\n", 1)[1]
    return [re.split(r"  +", line.strip()) for line in body.split("\n\n")[0].splitlines() if "  " in line.strip()]


def test_the_list_is_sorted_and_its_numbers_choose_runs(command: Command, many: Path) -> None:
    """By start as it is in the file; by another column, both ways; a number leads to that run."""
    found = rows(command("runs", many, "--limit", 100))
    assert [row[0] for row in found] == [str(number) for number in range(1, 63)]
    longest = rows(command("runs", many, "--name", "etl", "--sort", "duration", "--reverse", "--limit", 6))
    assert {int(row[0]) - 1 for row in longest} == set(SLOW)
    assert f"run {longest[0][-1]}" in command("explain", many, "--run", longest[0][0])
    assert "(12 more runs; --limit shows more)" in command("runs", many)


def test_the_list_as_json_has_all_and_the_same(command: Command, many: Path) -> None:
    found = command.json("runs", many, "--sort", "duration", "--reverse")
    assert len(found["runs"]) == 62
    lengths = [run["duration"] for run in found["runs"]]
    assert lengths == sorted(lengths, reverse=True)
    [failed] = [run for run in found["runs"] if run["outcome"] == "error"]
    assert (failed["number"], failed["error_type"], failed["name"]) == (61, "KeyError", "nightly")
    assert found["runs"][0].keys() >= {"number", "id", "started_unix", "queued", "longest_on_path"}


def test_all_runs_together(command: Command, many: Path) -> None:
    """The typical run explained, what slow runs have in common with counts, each node, the trend."""
    text = command("explain", many, "--all")
    whole = " ".join(text.split())  # the path may be too long for the line
    assert whole.startswith(f"{many}: 60 runs of etl in 59 min 0 s: median 102 ms")
    assert "Left out are runs of nightly" in text
    assert "In 6 of them, and in 0 of the 54 others, parse took more than twice its" in text
    assert rows(text, "What the slow runs have in common")[0] == ["6", "0", "parse took more than twice its median"]
    assert [row[-1] for row in rows(text, "Nodes, by their time")][:2] == ["parse", "load"]
    assert "There is no trend" in text
    assert re.search(r"^The typical run: number \d+, nearest the median$", text, re.MULTILINE)

    found = command.json("explain", many, "--all")
    assert [number - 1 for number in sorted(found["slow"]["numbers"])] == list(SLOW)
    assert {node["name"]: node["p50"] for node in found["nodes"]} == {
        "parse": 0.05,
        "load": pytest.approx(0.052, abs=0.003),
    }
    assert found["typical"]["findings"]
    assert command.json("explain", many, "--all", "--name", "nightly")["outcomes"] == {"success": 1, "error": 1}


def test_two_sets_are_compared(command: Command, many: Path, tmp_path: Path) -> None:
    """`load` takes 20 ms more in each: clearly, and by that."""
    later = tmp_path / "later.jsonl"
    save_runs(later, [replace(run, id=f"later {run.id}") for run in service(slow=range(60), parse=70)])
    text = command("diff", many, later, "--all")
    assert "60 runs before, 60 runs after: median 102 ms and" in text
    assert "More than chance would give." in text
    found = command.json("diff", many, later, "--all")
    assert found["clear"] is True
    assert sum(found["path_changes"].values()) == pytest.approx(found["change"])
    assert "No more than runs differ by chance" in command("diff", many, many, "--all")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("explain", "--all", "--run", "3"), 2, "--run chooses one run and --all takes all"),
        (("explain", "--name", "etl"), 2, "--name chooses among all runs"),
        (("explain", "--all", "--name", "weekly"), 4, "no run of the name 'weekly'; it has etl and nightly"),
        (("runs", "--name", "weekly"), 4, "no run of the name 'weekly'; it has etl and nightly"),
        (("runs", "--sort", "length"), 2, "'length' is not one of"),
        (("runs", "--limit", "0"), 2, "0 is not in the range"),
    ],
)
def test_what_does_not_go_together(
    command: Command, many: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    """A sentence that says what was found, and what to give instead."""
    assert message in command(words[0], many, *words[1:], status=status)


def test_two_sets_have_a_page(command: Command, many: Path, tmp_path: Path) -> None:
    """Beside what is printed; of one run on either side there is none, and a trace is not written over."""
    page = tmp_path / "difference.html"
    text = command("diff", many, many, "--all", "-o", page)
    assert f"written to {page}" in text
    assert "<h1>etl</h1>" in page.read_text(encoding="utf-8")
    assert "give --all as well" in command("diff", many, many, "-o", page, status=2)
    assert "would be overwritten" in command("diff", many, many, "--all", "-o", many, status=2)


def test_the_fields_of_the_json_are_documented(command: Command, many: Path) -> None:
    """`docs/command-line.md` names each."""
    documented = (Path(__file__).parent.parent.parent / "docs" / "command-line.md").read_text()

    def fields(value: Any, *, of_names: bool = False) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(fields, value))
        if not isinstance(value, dict):
            return set()
        by_name = ("critical_seconds", "critical_states", "states", "gil_holders", "path_changes", "outcomes")
        inner = [fields(part, of_names=key in by_name) for key, part in value.items()]
        return set().union(set() if of_names else value.keys(), *inner)

    for words in (["runs", many], ["explain", many, "--all"], ["diff", many, many, "--all"]):
        assert {field for field in fields(command.json(*words)) if f"`{field}`" not in documented} == set()


@pytest.mark.measures
def test_a_thousand_runs_of_fifty_nodes_take_ten_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of this process' own time, since others may share the CPU: 3 s on an idle machine."""
    one = tmp_path / "one.jsonl"
    layered_run(50).save(one)
    text = one.read_text()
    [trace_id] = set(re.findall(r'"traceId":"(\w+)"', text))
    path = tmp_path / "thousand.jsonl"
    with path.open("w") as file:
        for number in range(1_000):
            file.write(text.replace(trace_id, f"{number + 1:032x}").replace("run-1", f"run-{number}"))
    for words in (["explain", "--all", "--json"], ["runs", "--json"]):
        before = time.process_time()
        assert cli.main([words[0], str(path), *words[1:]]) == 0
        assert time.process_time() - before < 10
        assert json.loads(capsys.readouterr().out)["runs"]
