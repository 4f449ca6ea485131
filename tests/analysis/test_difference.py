"""Two runs into what changed, and whether it made the run longer."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.synthetic_runs import layered_run
from traced_threadpool.analysis.difference import NodeDifference, Total, compare
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import State

MS = 1_000_000


def node(key: str, name: str, started: int, ended: int, *upstream: str, **more: object) -> NodeExecution:
    ready = more.pop("ready", started)
    made = NodeExecution(
        key=key,
        name=name,
        submitted_ns=0,
        ready_ns=int(str(ready)) * MS,
        started_ns=started * MS,
        ended_ns=ended * MS,
        upstream=upstream,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def run_of(*nodes: NodeExecution, ended: int) -> RecordedRun:
    return RecordedRun(id="r", name="etl", pool="p", started_ns=0, ended_ns=ended * MS, nodes=nodes, max_workers=4)


def test_what_changed_and_what_it_did_to_the_makespan() -> None:
    """Slower on the path, slower beside it, as before, new, gone, and a longer queue wait: the most important first."""
    cpu: dict[State, int] = {"cpu": 10 * MS}
    before = run_of(
        node("1", "load", 0, 10, states=cpu),
        node("2", "beside", 0, 5),
        node("3", "old", 10, 20, "1"),
        node("4", "end", 22, 30, "3", ready=20),
        ended=30,
    )
    after = run_of(
        node("1", "load", 0, 50, states={"cpu": 10 * MS, "gil": 40 * MS}),
        node("2", "beside", 0, 45),
        node("3", "fresh", 50, 55, "1"),
        node("4", "end", 62, 70, "3", ready=55),
        ended=70,
    )
    found = compare(before, after)
    assert (found.before_ns, found.after_ns, found.change_ns) == (30 * MS, 70 * MS, 40 * MS)
    assert found.nodes == (
        NodeDifference(
            name="load",
            inside=None,
            kind="slower",
            before=Total(count=1, duration_ns=10 * MS, states=cpu, path_ns=10 * MS),
            after=Total(count=1, duration_ns=50 * MS, states={"cpu": 10 * MS, "gil": 40 * MS}, path_ns=50 * MS),
        ),
        NodeDifference(
            name="old",
            inside=None,
            kind="gone",
            before=Total(count=1, duration_ns=10 * MS, path_ns=10 * MS),
            after=Total(),
        ),
        NodeDifference(
            name="fresh",
            inside=None,
            kind="new",
            before=Total(),
            after=Total(count=1, duration_ns=5 * MS, path_ns=5 * MS),
        ),
        NodeDifference(
            name="beside",
            inside=None,
            kind="slower",
            before=Total(count=1, duration_ns=5 * MS),
            after=Total(count=1, duration_ns=45 * MS),
        ),
        NodeDifference(
            name="end",
            inside=None,
            kind="same",
            before=Total(count=1, duration_ns=8 * MS, path_ns=8 * MS),
            after=Total(count=1, duration_ns=8 * MS, path_ns=8 * MS),
        ),
    )
    assert list(found.path_change_ns.items()) == [
        ("load", 40 * MS), ("old", -10 * MS), ("_queue", 5 * MS), ("fresh", 5 * MS),
    ]  # fmt: skip
    assert [each.name for each in found.mattering] == ["load", "old", "fresh"]
    assert found.nodes[0].state_change_ns == {"gil": 40 * MS}


def test_a_change_within_the_noise_is_the_same() -> None:
    """Less than a tenth, or less than a millisecond, whichever is more."""
    before = run_of(node("1", "long", 0, 100), node("2", "short", 0, 1), ended=100)
    after = run_of(node("1", "long", 0, 109), replace(node("2", "short", 0, 1), ended_ns=2 * MS - 1), ended=109)
    assert {each.name: each.kind for each in compare(before, after).nodes} == {"long": "same", "short": "same"}
    assert {each.name: each.kind for each in compare(after, before).nodes} == {"long": "same", "short": "same"}


def test_several_executions_of_a_name_are_compared_by_their_mean() -> None:
    """Three branches instead of two, each as fast as before, make more time and nobody slower."""
    before = run_of(*(node(str(i), "parse", 0, 10) for i in range(2)), ended=10)
    after = run_of(*(node(str(i), "parse", 0, 10) for i in range(3)), ended=10)
    (found,) = compare(before, after).nodes
    assert (found.kind, found.change_ns, found.path_change_ns) == ("same", 10 * MS, 0)


def test_nodes_of_a_nested_run_are_told_by_the_node_around_them() -> None:
    """They are within its time on the path, and not mixed with nodes of the same name outside."""
    before = run_of(node("o", "outer", 0, 50), node("i", "load", 10, 20, parent="o"), node("l", "load", 0, 5), ended=50)
    after = run_of(node("o", "outer", 0, 90), node("i", "load", 10, 60, parent="o"), node("l", "load", 0, 5), ended=90)
    found = compare(before, after).nodes
    assert [(each.name, each.inside, each.kind, each.path_change_ns) for each in found] == [
        ("outer", None, "slower", 40 * MS),
        ("load", "outer", "slower", 0),
        ("load", None, "same", 0),
    ]


def test_a_node_within_a_node_of_its_name_is_not_on_the_path() -> None:
    """The outer one is, and has all of it."""
    before, after = (
        run_of(node("o", "load", 0, end), node("i", "load", 10, end - 5, parent="o"), ended=end) for end in (50, 90)
    )
    found = compare(before, after).nodes
    assert [(each.inside, each.path_change_ns) for each in found] == [(None, 40 * MS), ("load", 0)]


def test_a_node_that_never_ran_is_gone() -> None:
    """It took no time, and is no node that got faster."""
    before = run_of(node("1", "load", 0, 10), node("2", "parse", 10, 20, "1"), ended=20)
    stopped = node("2", "parse", 10, 10, "1", outcome="upstream_error")
    after = run_of(node("1", "load", 0, 10, outcome="error"), stopped, ended=10)
    assert {each.name: each.kind for each in compare(before, after).nodes} == {"load": "same", "parse": "gone"}
    assert {each.name: each.kind for each in compare(after, before).nodes} == {"load": "same", "parse": "new"}


def test_a_change_of_less_than_a_hundredth_does_not_matter() -> None:
    """Though it is on the path, and worth telling of the node."""
    before = run_of(node("1", "long", 0, 1000), node("2", "short", 1000, 1002, "1"), ended=1002)
    after = run_of(node("1", "long", 0, 1000), node("2", "short", 1000, 1009, "1"), ended=1009)
    found = compare(before, after)
    assert [(each.name, each.kind) for each in found.nodes] == [("short", "slower"), ("long", "same")]
    assert found.mattering == ()


def test_how_else_the_runs_differ_is_noted() -> None:
    """A comparison of unlike runs says so."""
    one = run_of(node("1", "load", 0, 10), ended=10)
    other = replace(one, name="nightly", cpus=2, attribution="process")
    assert compare(one, other).notes == (
        "The runs' names differ: 'etl' and 'nightly'.",
        "The numbers of CPUs differ: None and 2.",
        "How states were found out differs: 'none' and 'process'.",
    )
    before = run_of(node("1", "load", 0, 10), ended=10)
    after = replace(before, max_workers=8, outcome="error", problems=("1 span of 2 nodes missing.",))
    assert compare(before, before).notes == ()
    assert compare(before, after).notes == (
        "The limits of workers differ: 4 and 8.",
        "The outcomes differ: 'success' and 'error'.",
        "In the later run: 1 span of 2 nodes missing.",
    )


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 6))
def test_the_parts_add_up_to_the_change_exactly(first: int, second: int, workers: int) -> None:
    """Whatever the two runs, in nanoseconds; and turned round it is the negative."""
    before, after = layered_run(30, seed=first), layered_run(40, seed=second, workers=workers)
    found, back = compare(before, after), compare(after, before)
    assert sum(found.path_change_ns.values()) == found.change_ns == after.duration_ns - before.duration_ns
    assert {name: -change for name, change in back.path_change_ns.items()} == dict(found.path_change_ns)
    assert sum(each.path_change_ns for each in found.nodes) == sum(
        change for name, change in found.path_change_ns.items() if not name.startswith("_")
    )
