"""The benchmarks run, every peer gives the same results, and what is written can be read back."""

from __future__ import annotations

import doctest
import importlib
import json
import random
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")

from benchmarks import __main__ as command
from benchmarks import bounds, dags, guard, holds, memory, page, peers, samples, targets, telemetry_parts, wait_spans
from benchmarks.samples import Results, Series
from benchmarks.table import Table
from benchmarks.what_if import __main__ as what_if
from benchmarks.what_if import report as foretold_report
from benchmarks.what_if.kept import read_runs

BENCHMARKS = Path(dags.__file__).parent


def wall(section: str, case: str, peer: str, *values: float) -> Series:
    return Series(section=section, case=case, peer=peer, measure="wall", unit="µs/node", values=values)


@pytest.mark.slow
def test_smoke_writes_every_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One round of a part, with its tables and its file. A peer with another result than the others would raise."""
    path = tmp_path / "results.json"
    command.main(["--smoke", "--only", "overhead,makespan", "--json", str(path)])
    record = json.loads(path.read_text(encoding="utf-8"))
    found = {(each["section"], each["case"], each["peer"]) for each in record["series"]}
    installed = [peer for peer in command.overhead.PEERS if peers.is_installed(peer)]
    assert found >= {("overhead", dag.name, peer) for dag in command.overhead.shapes(smoke=True) for peer in installed}
    assert all(len(each["values"]) == 1 and each["median"] > 0 for each in record["series"])
    assert {check["target"].split(" ≤")[0] for check in record["checks"]} == {
        "untraced per node",
        "traced per node",
        "makespan",
    }
    assert record["versions"]["python"]
    assert "overhead: wide" in capsys.readouterr().out


@pytest.mark.slow
def test_smoke_of_telemetry_parts() -> None:
    """Each setting of our telemetry gives the right result, and as many spans as it should."""
    settings = command.Settings(smoke=True)
    found = telemetry_parts.measure(settings) + telemetry_parts.measure_first_run(settings)
    assert {each.peer for each in found} == {*telemetry_parts.PEERS, *telemetry_parts.FIRST_RUN_PEERS}


def test_memory_of_one_peer() -> None:
    """A run's peak is some memory, by Python's own count."""
    assert memory.peak_per_node(peers.UNTRACED, 4, layers=3)[memory.PEAK] > 0


def test_wrong_result_is_an_error() -> None:
    """A peer that does not do the work is not measured."""
    with peers.open_peers([peers.GRAPHLIB], 2) as opened:
        peer = opened[peers.GRAPHLIB]
        dag = dags.chains(2, 2)
        action = samples.timed(peer, peer.prepare(dag), dag.expected + 1)
        with pytest.raises(RuntimeError, match=f"{dag.expected + 1} is right"):
            action()


def test_every_action_once_a_round() -> None:
    """Actions take turns, and the round that warms up is not counted."""
    calls: list[str] = []

    def noted(name: str) -> samples.Action:
        def action() -> dict[str, float]:
            calls.append(name)
            return {"wall": float(len(calls))}

        return action

    taken = samples.take_turns({name: noted(name) for name in "abc"}, rounds=2, choice=random.Random(1))
    assert [sorted(calls[start : start + 3]) for start in (0, 3, 6)] == [["a", "b", "c"]] * 3
    assert sorted(value for each in taken.values() for value in each["wall"]) == [4, 5, 6, 7, 8, 9]


def test_bounds_hold_for_simulated_schedules() -> None:
    """No schedule is shorter than the lower bound, and one worker takes the sum of all."""
    for seed in range(20):
        dag = dags.sleeping(dags.layered(4, 5, 3, seed=seed, vary=True), seed=seed)
        for workers in (1, 3):
            bound = bounds.lower_bound_seconds(dag, workers=workers)
            for foreseeing in (False, True):
                seconds = bounds.list_schedule_seconds(dag, workers=workers, foreseeing=foreseeing)
                assert bound - 1e-9 <= seconds <= sum(dag.seconds.values()) + 1e-9


def test_verdicts() -> None:
    """A ratio of medians decides; where the rounds lie on both sides of the limit it is close."""
    series = [
        wall("overhead", "wide", peer, *values)
        for peer, values in {
            peers.UNTRACED: (6.0, 6.0, 9.0),
            peers.TRACED: (60.0, 60.0, 60.0),
            peers.HAMILTON: (10.0, 10.0, 10.0),
            peers.FLOOR: (30.0, 30.0, 30.0),
            peers.HAMILTON_TRACED: (200.0, 200.0, 200.0),
            peers.HAMILTON_TRACED_HASHED: (100.0, 100.0, 100.0),
        }.items()
    ]
    verdicts = [(check.verdict, check.value) for check in targets.check(Results(series))]
    assert verdicts == [("met, close", 0.6), ("missed", 1.5), ("met", 0.3), ("missed", 0.6)]


def test_guard_tells_a_regression_from_noise(capsys: pytest.CaptureFixture[str]) -> None:
    """What is within the margin passes; what is beyond it is named."""
    assert guard.compare({"untraced": 1_100.0, "traced": 7_000.0}, {"untraced": 1_000.0, "traced": 6_000.0}) == [
        "traced"
    ]
    assert "traced" in capsys.readouterr().out


def test_lock_is_held_for_less_than_a_run_takes() -> None:
    """Each node takes it a few times, and the pool has its own lock back afterwards."""
    found = {each.measure: each.median for each in holds.measure(command.Settings(smoke=True))}
    assert 1 <= found["holds of a node"] < 5
    assert 0 < found["median of a hold"] <= found["99th percentile of a hold"] <= found["longest hold"]


def test_page_keeps_what_others_wrote(tmp_path: Path) -> None:
    """Tables are replaced in place; text around them stays."""
    path = tmp_path / "page.md"
    first = Table(title="one", columns=("", "n"), rows=[("a", "1")])
    page.write(path, [first], {"CPUs usable": 2, "CPU": "some"}, {"python": "3"})
    path.write_text(path.read_text() + "\nWords.\n")
    second = Table(title="one", columns=("", "n"), rows=[("a", "2")])
    page.write(path, [second], {"CPUs usable": 2, "CPU": "some"}, {"python": "3"})
    text = path.read_text()
    assert ("| a | 1 |" in text, "| a | 2 |" in text, text.endswith("Words.\n")) == (False, True, True)


def test_what_was_foretold_is_put_between_the_marks_of_a_page(tmp_path: Path) -> None:
    """From runs that are really made, kept and read again, with their records as they were."""
    path = tmp_path / "page.md"
    marked = f"{foretold_report.BEGIN}\nto be replaced\n{foretold_report.END}"
    path.write_text(f"before\n{marked}\nafter\n", encoding="utf-8")
    words = ["--only", "wide", "--scale", "0.05", "--rounds", "1", "--workers", "2,4", "--keep", str(tmp_path)]
    for _ in range(2):
        what_if.main([*words, "--write", str(path)])
        text = path.read_text(encoding="utf-8")
        assert "to be replaced" not in text
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "| I/O | wide 101: sleep |" in text
    (file,) = tmp_path.glob("*.json")
    assert sorted(read_runs(file)) == [2, 4]
    with pytest.raises(ValueError, match="has no place for the tables"):
        foretold_report.write(Path(__file__), [], "here")


@pytest.mark.parametrize("arguments", [["--only", "speed"], ["--only", ""], ["--repeat", "0"], ["--repeat", "x"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that cannot be meant is refused, with what was expected."""
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "__main__"))
def test_examples_in_docstrings(name: str) -> None:
    """The modules' own examples are true."""
    result = doctest.testmod(importlib.import_module(f"benchmarks.{name}".removesuffix(".__init__")))
    assert result.failed == 0


def test_the_cost_of_spans_of_waits_is_measured_with_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert wait_spans.main(["--smoke"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "layered 4x10 fan-in 3, wall",
        "layered 4x10 fan-in 3, cpu",
        "layered 4x10 fan-in 3, work",
    ]
