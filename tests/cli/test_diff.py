"""`diff`: what changed between two runs, and whether it matters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.analysis import diagnosed_runs as made
from tests.analysis.synthetic_runs import layered_run, slowed, write_trace
from traced_threadpool.analysis.difference import compare
from traced_threadpool.analysis.trace_file import read_runs
from traced_threadpool.model.formatting import duration
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.report.explanation import path_name

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")


from tests.cli.program import RUN, SHORT, Command


def test_diff_names_what_got_slower(command: Command, trace: Path, tmp_path: Path) -> None:
    """The node at the run's end takes twice as long: it is named, and it matters."""
    last = max(RUN.nodes, key=lambda node: node.ended_ns)
    after = write_trace(tmp_path / "after.jsonl", slowed(RUN, last.name, 2))
    found = command.json("diff", trace, after)
    assert (found["nodes"][0]["name"], found["nodes"][0]["kind"], found["nodes"][0]["matters"]) == (
        last.name,
        "slower",
        True,
    )
    assert sum(found["path_changes"].values()) == pytest.approx(found["change"])
    text = command("diff", trace, after)
    assert "The run took 944 ms before and" in text
    assert re.search(rf"yes\s+{last.name}\s*$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "later", [layered_run(mean_ms=60.0), layered_run(seed=3, workers=3)], ids=["slower", "another"]
)
def test_what_diff_prints(command: Command, trace: Path, tmp_path: Path, later: RecordedRun) -> None:
    """How the runs differ, what the change is made of, and the nodes that changed; of either the ten first."""
    after = write_trace(tmp_path / "after.jsonl", later)
    (first,), (second,) = read_runs(trace), read_runs(after)
    found = compare(first, second)

    def shown(ns: int, *, signed: bool = False) -> str:
        return ("+" if signed and ns > 0 else "") + duration(ns)

    on_path = {node.name: node for node in found.nodes}
    parts = list(found.path_change_ns.items())

    def moved(name: str) -> str:
        node = on_path.get(name)
        if node is None or bool(node.before.path_ns) == bool(node.after.path_ns):
            return ""
        how = node.kind if node.kind != "same" else "as long as before"
        return f" {'joined' if node.after.path_ns else 'left'} the path, {how}"

    def on(name: str) -> list[str]:
        node = on_path.get(name)
        sides = () if node is None else (node.before.path_ns, node.after.path_ns)
        return [shown(ns) if ns else "-" for ns in sides]

    made_of = [[*on(name), shown(by_ns, signed=True), f"{path_name(name)}{moved(name)}"] for name, by_ns in parts[:10]]
    if len(parts) > 10:
        rest_ns = sum(by_ns for _, by_ns in parts[10:])
        made_of.append([shown(rest_ns, signed=True), f"({len(parts) - 10} others)"])
    changed = sorted((node for node in found.nodes if node.kind != "same"), key=lambda node: -abs(node.change_ns))
    nodes = []
    for node in changed[:10]:
        state, by_ns = max(node.state_change_ns.items(), key=lambda each: abs(each[1]))
        nodes.append(
            [
                shown(node.before.duration_ns) if node.before.count else "-",
                shown(node.after.duration_ns) if node.after.count else "-",
                node.kind if node.kind in ("new", "gone") else shown(node.change_ns, signed=True),
                f"{state} {shown(by_ns, signed=True)}",
                "yes" if node in found.mattering else "no",
                node.name,
            ]
        )
    text = command("diff", trace, after)
    tables = [
        [re.split(r"\s{2,}", line.strip()) for line in part.split("\n\n")[0].splitlines()[3:]]
        for part in re.split(r"\n(?=The change on|Nodes that changed)", text)[1:]
    ]
    assert tables == [made_of, nodes]
    assert len(changed) > 10
    assert f"(the first 10 of {len(changed)})" in text
    for note in found.notes:
        assert f"\nnote: {note}\n" in text


def test_diff_of_two_runs_of_one_file(command: Command, both: Path) -> None:
    """Each file has its own choice, which is the longest run unless it is made; both are named."""
    found = command.json("diff", both, both, "--run-after", "last")
    assert [found[side]["id"] for side in ("before", "after")] == ["run-1", "run-2"]
    assert found["change"] == pytest.approx((SHORT.duration_ns - RUN.duration_ns) / 1e9)
    text = command("diff", both, both, "--run-before", "2")
    assert text.splitlines()[:2] == [
        f"{both}: run 2 of 2 (--run-before picks another)",
        f"{both}: run 1 of 2, the longest (--run-after picks another)",
    ]
    assert "has no run '7'" in command("diff", both, both, "--run-before", "7", status=4)
    assert "has no run '8'" in command("diff", both, both, "--run-after", "8", status=4)


def test_diff_of_a_run_with_itself(command: Command, trace: Path) -> None:
    """Nothing changed, and that is what it says."""
    text = command("diff", trace, trace)
    assert "no change" in text
    assert "none became slower or faster" in text


def test_a_node_that_only_joined_the_path_is_told_as_that(command: Command, tmp_path: Path) -> None:
    """`slow` took over the path from `quick`, which got faster; itself it takes what it took."""
    before = made.run(made.node("slow", 0, 100), made.node("quick", 0, 200), end=200)
    after = made.run(made.node("slow", 0, 100), made.node("quick", 0, 50), end=100)
    files = [tmp_path / "before.jsonl", tmp_path / "after.jsonl"]
    before.save(files[0])
    after.save(files[1])
    text = command("diff", *files)
    assert re.search(r"^ *- +100 ms +\+100 ms +slow joined the path, as long as before$", text, re.MULTILINE)
    assert re.search(r"^ *200 ms +- +-200 ms +quick left the path, faster$", text, re.MULTILINE)
