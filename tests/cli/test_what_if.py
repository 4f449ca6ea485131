"""`what-if`: settings that combine, and settings that make no sense."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.analysis.played_runs import MS, played
from tests.analysis.synthetic_runs import layered_run, write_trace

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")


from tests.cli.program import RUN, SHORT, Command
from traced_threadpool.analysis import save_runs
from traced_threadpool.analysis.replay.machine import Demand
from traced_threadpool.model.lane import Lane


def test_what_if_options_combine(command: Command, trace: Path) -> None:
    """Each number of workers gets a row; making the longest node of the path faster makes the run shorter."""
    node = max((node for node in RUN.nodes), key=lambda node: node.duration_ns).name
    text = command(
        "what-if",
        trace,
        "--workers",
        "8,4",
        "--faster",
        f"{node}=4x",
        "--no-gil",
        "--cpus",
        "8",
        "--priority",
        "fifo",
    )
    assert f"{node} 4x faster, no GIL, 8 CPUs" in text
    assert re.search(r"^\s*4\s.*-.*\n\s*8\s", text, re.MULTILINE)


def test_what_if_as_json(command: Command, trace: Path, tmp_path: Path) -> None:
    """Nothing changed gives the run as it was; taking a node out is a change."""
    same = command.json("what-if", trace)
    assert [point["workers"] for point in same["predictions"]] == [2, 4, 8, 16]
    assert same["predictions"][1]["makespan"] == pytest.approx(RUN.duration_ns / 1e9, rel=0.02)
    last = max(RUN.nodes, key=lambda node: node.ended_ns).name
    less = command.json("what-if", trace, "--without", last, "--workers", "4,64")
    assert less["settings"] == {
        "faster": {},
        "without": [last],
        "cpus": None,
        "gil": True,
        "priority": None,
        "run_on": {},
        "processes": None,
        "moves": {},
        "lanes": {},
    }
    assert less["predictions"][0]["change"] < 0
    found = command.json("what-if", trace, "--workers", "8,2,8", "--priority", "critical_path", "--cpus", "9")
    assert [point["workers"] for point in found["predictions"]] == [2, 8]
    assert {key: found["settings"][key] for key in ("priority", "cpus")} == {
        "priority": "critical_path",
        "cpus": 9,
    }
    unknown = write_trace(tmp_path / "unknown.jsonl", layered_run(states=False))
    assert "note: no states recorded of 60 nodes" in command("what-if", unknown)


def test_nodes_are_moved_to_processes(command: Command, trace: Path) -> None:
    """Named with their number and sizes, in words and in JSON; and taken for small where no size is given."""
    first, second = (node.name for node in RUN.nodes[:2])
    words = ("--run-on", f"{first}=processes", "--run-on", f"{second}=processes", "--processes", "4")
    text = command("what-if", trace, *words, "--moves", f"{second}=2.5MB")
    assert f"{first} on processes, {second} on processes, 4 processes" in text
    assert f"how much '{first}' would move is not in the record" in " ".join(text.split())
    found = command.json("what-if", trace, *words, "--moves", f"{second}=2.5MB")
    assert {key: found["settings"][key] for key in ("run_on", "processes", "moves")} == {
        "run_on": {first: "processes", second: "processes"},
        "processes": 4,
        "moves": {second: 2.5e6},
    }
    large = command.json("what-if", trace, "--run-on", f"{first}=processes", "--moves", f"{first}=9GB")
    small = command.json("what-if", trace, "--run-on", f"{first}=processes", "--moves", f"{first}=9B")
    assert large["predictions"][0]["makespan"] > small["predictions"][0]["makespan"] + 5


def test_lanes_get_other_limits(command: Command, tmp_path: Path) -> None:
    """Each of its own, in words and in JSON; what limits the run is told by the lane's name."""
    lanes = {"db": Lane("threads", 2), "web": Lane("threads", 1)}
    asked = [(Demand(wait_ns=100 * MS), [])] * 12
    save_runs(file := tmp_path / "lanes.jsonl", [played(asked, workers=6, cpus=2, backends=("db", "web"), lanes=lanes)])
    text = command("what-if", file, "--lane", "db=3", "--lane", "web=2")
    assert "Predicted by replay, 3 at once in db, 2 at once in web" in text
    found = command.json("what-if", file, "--lane", "db=3", "--lane", "web=2")
    assert found["settings"]["lanes"] == {"db": 3, "web": 2}
    assert [each["makespan"] for each in found["predictions"]] == [0.3]
    assert (found["limit"], found["reason"]) == (
        "backend",
        "`db` lets 3 nodes run at once and `web` lets 2 nodes run at once",
    )
    assert "note: what the nodes of 'web' use is taken to be as fast with 2 at once" in text
    assert "no lane 'pg' in the record; its lanes: 'db', 'web'" in command("what-if", file, "--lane", "pg=3", status=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--faster", "load"), "'load' is not NODE=FACTOR with a factor above 0, such as parse=2x"),
        (("--faster", "load=fast"), "'load=fast' is not NODE=FACTOR with a factor above 0"),
        (("--faster", "load=-1"), "'load=-1' is not NODE=FACTOR with a factor above 0"),
        (("--faster", "=2x"), "'=2x' is not NODE=FACTOR with a factor above 0"),
        (("--faster", "load=inf"), "'load=inf' is not NODE=FACTOR with a factor above 0"),
        (("--faster", f"{RUN.nodes[0].name}=1e-300"), "is 1e-300; it must be 1e-06 at least, a million times slower"),
        (("--faster", "load=2x,parse=3x"), "'load=2x,parse=3x' names more than one node; repeat --faster for each"),
        (
            ("--faster", "load=2x", "--faster", "load=3x"),
            "'load' is given twice; give it once",
        ),
        (("--workers", "four"), "'four' is not a comma-separated list of integers, such as 4,8,16"),
        (("--workers", "0"), "'0' contains a number below 1; a pool has at least one worker"),
        (("--workers", "4,,8"), "'4,,8' is not a comma-separated list of integers, such as 4,8,16"),
        (("--cpus", "0"), "0 is not in the range x>=1"),
        (("--cpus", "1.5"), "'1.5' is not a valid integer"),
        (("--priority", "lifo"), "'lifo' is not one of 'critical_path', 'fifo'"),
        (("--without", "no_such_node"), "no node 'no_such_node' in the record"),
        (("--run-on", "load"), "'load' is not NODE=BACKEND, such as parse=processes"),
        (("--run-on", "a=threads", "--run-on", "a=processes"), "'a' is given twice; give it once"),
        (("--run-on", f"{RUN.nodes[0].name}=cpu"), "is 'cpu'; it must be 'processes' or 'threads'"),
        (("--processes", "4"), "processes is 4, and no node runs on processes"),
        (("--moves", "load=4"), "'load=4' is not NODE=SIZE with a unit, such as parse=200MB"),
        (("--lane", "db"), "'db' is not LANE=N with a whole number from 1 on, such as db=4"),
        (("--lane", "db=0"), "'db=0' is not LANE=N with a whole number from 1 on, such as db=4"),
        (("--lane", "db=1.5"), "'db=1.5' is not LANE=N with a whole number from 1 on"),
        (("--lane", "=4"), "'=4' is not LANE=N with a whole number from 1 on"),
        (("--lane", "db=4", "--lane", "db=8"), "'db' is given twice; give it once"),
        (("--lane", "db=4"), "no lane 'db' in the record; its lanes: none"),
        (
            ("--lane", "processes=4"),
            "worker processes are no lane; say how many there are with processes (--processes)",
        ),
        (("--sideways",), "No such option"),
        (("--worker", "4"), "No such option '--worker'. Did you mean '--workers'?"),
        (
            ("--faster", "load=2x", "--without", "load"),
            "'load' is given to both --faster and --without; choose one",
        ),
    ],
)
def test_settings_that_make_no_sense(command: Command, trace: Path, words: tuple[str, ...], message: str) -> None:
    """What was found and what to write instead; status 2."""
    assert message in command("what-if", trace, *words, status=2)


@pytest.mark.parametrize("option", ["--faster", "--without"])
def test_a_name_that_is_nearly_one_is_answered_with_it(command: Command, trace: Path, option: str) -> None:
    """Both options that take a node's name."""
    right = RUN.nodes[0].name
    wrong = right.replace("_", "-")
    message = command("what-if", trace, option, f"{wrong}=2x" if option == "--faster" else wrong, status=2)
    assert f"no node {wrong!r} in the record; did you mean" in message
    assert repr(right) in message


def test_all_runs_of_a_pool_are_replayed_together(command: Command, both: Path) -> None:
    """A row of percentiles for each number of workers; the recorded one has what was recorded."""
    text = command("what-if", both, "--all", "--workers", "1,16")
    assert f"{both}: 2 runs of 2" in text
    assert re.search(r"workers\s+p50\s+p95\s+p99\s+runs/s\s+busy", text)
    told = command.json("what-if", both, "--all", "--workers", "1,16")
    (pool,) = told["pools"]
    assert (told["command"], pool["pool"], pool["runs"], pool["recorded"]) == ("what-if", RUN.pool, 2, RUN.max_workers)
    assert [each["workers"] for each in pool["predictions"]] == [1, RUN.max_workers, 16]
    recorded = pool["predictions"][1]
    assert recorded["p99"] == pytest.approx(RUN.duration_ns / 1e9)
    assert recorded["p50"] == pytest.approx(SHORT.duration_ns / 1e9)
    assert pool["predictions"][0]["p99"] > recorded["p99"] > pool["predictions"][2]["p99"]
    for sentence in (pool["reason"], *pool["assumptions"]):
        assert sentence in " ".join(text.split())
    defaults = command.json("what-if", both, "--all")["pools"][0]["predictions"]
    assert [each["workers"] for each in defaults] == [2, 4, 8, 16]


def test_the_runs_of_a_time_window_are_chosen_by_their_start(command: Command, tmp_path: Path) -> None:
    """From one moment on, and before another, as `runs` prints them."""
    second = 1_000_000_000
    runs = [
        replace(RUN, id=f"run-{number}", started_unix_ns=(1_700_000_000 + 60 * number) * second) for number in range(3)
    ]
    save_runs(file := tmp_path / "many.jsonl", runs)

    def within(*words: str) -> int:
        found: int = command.json("what-if", file, "--all", *words)["pools"][0]["runs"]
        return found

    assert within("--since", "2023-11-14 22:14:20") == 2
    assert within("--until", "2023-11-14T22:14:20") == 1
    assert within("--since", "2023-11-14 22:14:20", "--until", "2023-11-14 22:15:20") == 1
    message = command("what-if", file, "--all", "--since", "2024-01-01", status=4)
    assert "has 3 runs, none of which began then" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--all", "--no-gil"), "--all takes --workers, --since and --until; the other settings are of one run"),
        (("--all", "--lane", "db=4"), "--all takes --workers, --since and --until; the other settings are of one run"),
        (("--all", "--run", "1"), "--run chooses one run and --all takes all"),
        (("--since", "2024-01-01"), "--since and --until choose among all runs; give --all as well"),
        (("--all", "--since", "noon"), "'noon' is not a time, such as"),
    ],
)
def test_what_does_not_go_with_all_runs(command: Command, trace: Path, words: tuple[str, ...], message: str) -> None:
    assert message in " ".join(command("what-if", trace, *words, status=2).split())
