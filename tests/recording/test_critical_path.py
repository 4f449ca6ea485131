"""The chain that fills a run, everyone's slack, and both against brute force."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.records import Outcome
from traced_threadpool.recording.critical_path import (
    MAX_NAMES,
    CriticalPath,
    Step,
    critical_ns,
    critical_path,
    path_facts,
    walk_back,
)


def node(
    key: str,
    submitted: int,
    ready: int,
    started: int,
    ended: int,
    *upstream: str,
    outcome: Outcome = "success",
    worker: str = "",
    task_id: str | None = None,
    parent: str | None = None,
    run_id: str | None = None,
) -> NodeExecution:
    return NodeExecution(
        key=key,
        name=f"n{key}",
        submitted_ns=submitted,
        ready_ns=ready,
        started_ns=started,
        ended_ns=ended,
        upstream=upstream,
        outcome=outcome,
        worker=worker,
        task_id=task_id,
        parent=parent,
        run_id=run_id,
    )


def run_of(*nodes: NodeExecution, started: int = 0, ended: int = 100) -> RecordedRun:
    return RecordedRun(id="r", name="etl", pool="p", started_ns=started, ended_ns=ended, nodes=nodes)


def shown(path: CriticalPath) -> list[tuple[str, str | None, int, int]]:
    return [(step.kind, step.key, step.started_ns, step.ended_ns) for step in path.steps]


def test_each_stretch_of_a_run_is_named_for_what_it_was() -> None:
    """Outside before and after, a queue wait, a wait for something unknown, a node submitted late."""
    run = run_of(
        node("a", 5, 5, 10, 30),
        node("b", 6, 40, 45, 60, "a"),  # waited until 40 for something that is not in the record
        node("c", 70, 70, 70, 90, "b"),  # submitted after its upstream had ended
    )
    assert critical_path(run) == CriticalPath(
        steps=(
            Step(kind="outside", name="_outside", key=None, started_ns=0, ended_ns=5),
            Step(kind="queue", name="na", key="a", started_ns=5, ended_ns=10),
            Step(kind="node", name="na", key="a", started_ns=10, ended_ns=30),
            Step(kind="dependency", name="nb", key="b", started_ns=30, ended_ns=40),
            Step(kind="queue", name="nb", key="b", started_ns=40, ended_ns=45),
            Step(kind="node", name="nb", key="b", started_ns=45, ended_ns=60),
            Step(kind="outside", name="_outside", key=None, started_ns=60, ended_ns=70),
            Step(kind="node", name="nc", key="c", started_ns=70, ended_ns=90),
            Step(kind="outside", name="_outside", key=None, started_ns=90, ended_ns=100),
        ),
        slack_ns={"a": 25, "b": 10, "c": 0},
    )
    assert critical_ns(run) == {
        "_outside": 25, "_queue": 10, "na": 20, "_dependency": 10, "nb": 15, "nc": 20,
    }  # fmt: skip
    assert critical_ns(run)["na"] == 20


def test_a_queue_wait_names_the_node_that_had_the_worker() -> None:
    """The last one to end on that worker before the start, and only if that was during the wait."""
    run = run_of(
        node("a", 0, 0, 0, 20, worker="w0"),
        node("b", 0, 0, 0, 60, worker="w1"),
        node("c", 0, 20, 60, 100, "a", worker="w1"),
        node("d", 0, 0, 20, 25, worker="w0"),
    )
    queue = next(step for step in critical_path(run).steps if step.kind == "queue")
    assert (queue.key, queue.behind) == ("c", "b")
    free_before = run_of(node("a", 0, 0, 0, 20, worker="w0"), node("c", 0, 30, 60, 100, worker="w0"))
    assert [step.behind for step in critical_path(free_before).steps if step.kind == "queue"] == [None]


def test_of_equal_ends_the_first_counts() -> None:
    """So that the same record gives the same path."""
    run = run_of(
        node("a", 0, 0, 0, 50),
        node("b", 0, 0, 0, 50),
        node("c", 0, 50, 50, 100, "b", "a"),
        node("d", 0, 50, 50, 100, "a"),
    )
    assert shown(critical_path(run)) == [("node", "b", 0, 50), ("node", "c", 50, 100)]


def test_a_node_that_never_ran_is_not_on_the_path() -> None:
    """It takes no time, also where it was the last to end."""
    run = run_of(
        node("a", 0, 0, 0, 90, outcome="error"), node("b", 0, 90, 90, 90, "a", outcome="upstream_error"), ended=95
    )
    assert critical_path(run) == CriticalPath(
        steps=(
            Step(kind="node", name="na", key="a", started_ns=0, ended_ns=90),
            Step(kind="outside", name="_outside", key=None, started_ns=90, ended_ns=95),
        ),
        slack_ns={"a": 0},
    )


def test_a_run_without_nodes_is_outside_time() -> None:
    """Every run is filled, be it by nothing."""
    assert shown(critical_path(run_of())) == [("outside", None, 0, 100)]
    assert critical_path(run_of(ended=0)) == CriticalPath(steps=(), slack_ns={})


def test_the_walk_stands_still_for_a_node_that_is_split() -> None:
    """What is submitted after a `Parallelizable` node had to wait for it, without any link."""
    run = run_of(
        node("a", 0, 0, 0, 10),
        NodeExecution(
            key="s", name="files", submitted_ns=1, ready_ns=1, started_ns=1, ended_ns=60, task_id="expand-files"
        ),
        node("c", 62, 62, 62, 100, "a"),
    )
    assert shown(critical_path(run)) == [
        ("outside", None, 0, 1), ("node", "s", 1, 60), ("outside", None, 60, 62), ("node", "c", 62, 100),
    ]  # fmt: skip


def test_a_nested_run_is_within_its_node_and_can_be_looked_into() -> None:
    """The outer path shows the node; `inside` gives one that fills it, through runs that followed each other."""
    run = run_of(
        node("o", 0, 0, 0, 100),
        node("1", 10, 10, 10, 30, parent="o", run_id="first"),
        node("2", 10, 30, 30, 40, "1", parent="o", run_id="first"),
        node("3", 50, 50, 55, 90, parent="o", run_id="second"),
        node("4", 12, 12, 12, 95, parent="3", run_id="deeper"),
    )
    assert shown(critical_path(run)) == [("node", "o", 0, 100)]
    assert critical_path(run).slack_ns == {"o": 0}
    assert shown(critical_path(run, inside="o")) == [
        ("outside", None, 0, 10), ("node", "1", 10, 30), ("node", "2", 30, 40), ("outside", None, 40, 50),
        ("queue", "3", 50, 55), ("node", "3", 55, 90), ("outside", None, 90, 100),
    ]  # fmt: skip


def test_where_clocks_disagree_the_earlier_step_is_cut() -> None:
    """An upstream node that seems to end after the start of its downstream, and nodes outside of the run."""
    run = run_of(node("a", -20, -20, -10, 70), node("b", 0, 50, 50, 120, "a"))
    assert shown(critical_path(run)) == [("node", "a", 0, 50), ("node", "b", 50, 100)]


def test_a_cycle_does_not_hang() -> None:
    """Readers break cycles; one made by hand still gives a path that fills the run."""
    path = critical_path(run_of(node("a", 0, 50, 50, 90, "b"), node("b", 0, 10, 10, 50, "a")))
    assert shown(path) == [
        ("outside", None, 0, 0), ("dependency", "b", 0, 10), ("node", "b", 10, 50),
        ("node", "a", 50, 90), ("outside", None, 90, 100),
    ][1:]  # fmt: skip


def test_a_chain_of_20_000_nodes() -> None:
    """No recursion, in any part."""
    many = 20_000
    nodes = [node(str(i), 0, i, i, i + 1, *([str(i - 1)] if i else [])) for i in range(many)]
    path = critical_path(run_of(*nodes, ended=many))
    assert len(path.steps) == many
    assert set(path.slack_ns.values()) == {0}


def test_of_a_long_path_the_longest_nodes_are_named_in_order() -> None:
    """A span attribute has to end somewhere."""
    nodes, at = [], 0
    for i in range(MAX_NAMES + 50):
        took = 1 if i % 3 == 0 else 5
        nodes.append(node(str(i), 0, at, at, at + took, *([str(i - 1)] if i else [])))
        at += took
    by_key = {each.key: each for each in nodes}
    stretches = walk_back(nodes[-1], 0, at, lambda each: [by_key[key] for key in each.upstream])
    longest = [each.name for i, each in enumerate(nodes) if i % 3]
    assert path_facts(stretches).names == tuple(longest[:MAX_NAMES])
    assert path_facts(stretches, limit=len(nodes)).names == tuple(each.name for each in nodes)


# Against brute force

Dag = list[tuple[int, list[int]]]
"""For each node its duration and its inputs, which come before it."""


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    size = draw(st.integers(1, 9))
    return [
        (draw(st.integers(0, 12)), draw(st.lists(st.integers(0, index - 1), unique=True, max_size=4)) if index else [])
        for index in range(size)
    ]


def with_unlimited_workers(dag: Dag) -> RecordedRun:
    """Everything starts as soon as its inputs are there."""
    nodes: list[NodeExecution] = []
    for index, (duration, inputs) in enumerate(dag):
        ready = max((nodes[each].ended_ns for each in inputs), default=0)
        nodes.append(node(str(index), 0, ready, ready, ready + duration, *map(str, inputs)))
    return run_of(*nodes, ended=max(each.ended_ns for each in nodes))


def chains_through(dag: Dag, index: int) -> list[int]:
    """The length of every chain from a node without inputs, by way of `index`, to one without dependents."""

    @cache
    def up(of: int) -> tuple[int, ...]:
        return tuple(dag[of][0] + rest for each in dag[of][1] for rest in up(each)) or (dag[of][0],)

    @cache
    def down(of: int) -> tuple[int, ...]:
        after = [each for each, (_, inputs) in enumerate(dag) if of in inputs]
        return tuple(dag[each][0] + rest for each in after for rest in down(each)) or (0,)

    return [before + behind for before in up(index) for behind in down(index)]


@settings(deadline=None)
@given(dags())
def test_with_unlimited_workers_it_is_the_longest_path(dag: Dag) -> None:
    """Found by going through all paths; then a node's slack is what its longest chain lacks of that."""
    run = with_unlimited_workers(dag)
    longest = max(length for index in range(len(dag)) for length in chains_through(dag, index))
    path = critical_path(run)
    assert sum(step.duration_ns for step in path.nodes) == longest == run.duration_ns
    assert path.slack_ns == {str(index): longest - max(chains_through(dag, index)) for index in range(len(dag))}
    assert {path.slack_ns[step.key or ""] for step in path.nodes} == {0}


@st.composite
def any_runs(draw: st.DrawFn) -> RecordedRun:
    """Records as they should not be: times in any order, inside the run or not, cycles, nodes that never ran."""
    size = draw(st.integers(0, 7))
    outcomes: list[Outcome] = ["success", "error", "upstream_error", "cancelled"]
    nodes = []
    for index in range(size):
        submitted, ready, started, ended = sorted(draw(st.integers(-20, 120)) for _ in range(4))
        upstream = draw(st.lists(st.integers(0, size).map(str), unique=True, max_size=3))
        nodes.append(
            node(
                str(index),
                submitted,
                ready,
                started,
                ended,
                *upstream,
                outcome=draw(st.sampled_from(outcomes)),
                worker=draw(st.sampled_from(["", "w0", "w1"])),
                parent=draw(st.sampled_from([None, None, "0"])),
            )
        )
    return run_of(*nodes, ended=draw(st.integers(0, 100)))


@settings(deadline=None)
@given(any_runs())
def test_whatever_the_record_says_the_steps_fill_the_run_without_a_gap(run: RecordedRun) -> None:
    """From start to end, each step beginning where the one before ended; no slack is negative."""
    path = critical_path(run)
    borders = [run.started_ns, *(step.ended_ns for step in path.steps)]
    assert [step.started_ns for step in path.steps] == borders[:-1]
    assert borders[-1] == run.ended_ns
    assert all(step.duration_ns >= 0 for step in path.steps)
    assert sum(critical_ns(run).values()) == run.duration_ns
    assert min(path.slack_ns.values(), default=0) >= 0


@settings(deadline=None)
@given(dags(), st.lists(st.integers(0, 5), min_size=9, max_size=9), st.data())
def test_a_node_may_end_later_by_its_slack_and_no_more(dag: Dag, waits: list[int], data: st.DataObject) -> None:
    """With nobody starting earlier than recorded: by the slack the last end stays, by 1 ns more it moves."""
    nodes: list[NodeExecution] = []
    for index, (duration, inputs) in enumerate(dag):
        ready = max((nodes[each].ended_ns for each in inputs), default=0)
        started = ready + waits[index]
        nodes.append(node(str(index), 0, ready, started, started + duration, *map(str, inputs)))
    run = run_of(*nodes, ended=max(each.ended_ns for each in nodes))
    late = data.draw(st.integers(0, len(dag) - 1))
    slack = critical_path(run).slack_ns[str(late)]

    def last_end(delay: int) -> int:
        ends: list[int] = []
        for index, (duration, inputs) in enumerate(dag):
            started = max([nodes[index].started_ns, *(ends[each] for each in inputs)])
            ends.append(started + duration + (delay if index == late else 0))
        return max(ends)

    assert (last_end(slack), last_end(slack + 1)) == (run.ended_ns, run.ended_ns + 1)
