"""Traces that lack something: spans, links, parents, the run itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.analysis.trace_documents import MS, WHOLE, Item, key, lines, node_item, ns, read, read_one, run_item


def test_a_run_that_has_not_ended_is_read_from_its_nodes(file: Path) -> None:
    """The run's own span comes last; a file may be read before."""
    run = read_one(file, WHOLE[1:])
    assert (run.id, run.started_ns, run.ended_ns, run.outcome, run.max_workers) == (
        "run-1", ns(2), ns(90), "error", None,
    )  # fmt: skip
    assert [problem.split(":")[0] for problem in run.problems] == ["The run's own span is missing"]


def test_how_a_run_ended_that_has_no_span(file: Path) -> None:
    """As its nodes did: with an error, else cancelled."""
    stopped = node_item(4, "c", 20, 20, attributes={"hamilton.node.outcome": "cancelled"})
    assert read_one(file, [node_item(2, "a", 0, 10), stopped]).outcome == "cancelled"
    assert read_one(file, [node_item(2, "a", 0, 10)]).outcome == "success"


def test_a_run_that_says_too_few_nodes(file: Path) -> None:
    """Is read with all that there are, and that is told."""
    run = read_one(file, [run_item(1, 0, 100, nodes=1), node_item(2, "a", 0, 10), node_item(3, "b", 10, 20)])
    assert len(run.nodes) == 2
    assert run.problems == ("The run says that it had 1 node, the file has 2.",)


def test_a_worker_that_has_no_name_is_told_by_its_number(file: Path) -> None:
    """The thread's id is on a span as well."""
    node = node_item(2, "a", 0, 10, attributes={"thread.name": None, "thread.id": 77})
    assert [each.worker for each in read_one(file, [run_item(1, 0, 100, nodes=1), node]).nodes] == ["77"]


def test_how_many_nodes_there_were_is_not_known_without_every_runs_span(file: Path) -> None:
    """A nested run whose span is missing may have had more; its nodes have no record of their own."""
    inner = [node_item(5, "deep", 20, 30, run=4, run_id="inner"), node_item(2, "outer", 0, 90)]
    runs = read(file, lines([run_item(1, 0, 100, nodes=1), *inner]))
    assert [(run.id, run.expected_nodes) for run in runs] == [("run-1", 1), ("inner", None)]


def test_what_belongs_together_without_a_parent(file: Path) -> None:
    """A node whose parent is lost belongs to the run whose id it has; nodes of no run, to their trace."""
    items = [
        run_item(1, 0, 100, nodes=1),
        node_item(2, "a", 10, 20, run=99),
        node_item(3, "b", 200, 210, run=9, run_id=None),
        node_item(3, "c", 300, 310, run=9, run_id=None, trace="f" * 32),
    ]
    runs = read(file, lines(items))
    assert [(run.id, [node.name for node in run.nodes]) for run in runs] == [
        ("run-1", ["a"]), ("", ["b"]), ("", ["c"]),
    ]  # fmt: skip


def test_an_input_of_another_run_is_not_missing(file: Path) -> None:
    """It is there, though no node of this run."""
    items = [
        run_item(1, 0, 100, nodes=1),
        node_item(2, "a", 10, 20),
        run_item(11, 200, 300, run_id="late", nodes=1),
        node_item(12, "b", 210, 220, (2, "a"), run=11, run_id="late"),
    ]
    assert [(run.nodes[0].upstream, run.problems) for run in read(file, lines(items))] == [((), ()), ((), ())]


def test_nodes_outside_of_any_run_are_a_record(file: Path) -> None:
    """An adapter can be used without a driver."""
    run = read_one(file, [node_item(2, "a", 0, 10, run=9, run_id=None), node_item(3, "b", 10, 20, run=9, run_id=None)])
    assert (run.id, len(run.nodes), run.duration_ns) == ("", 2, 20 * MS)
    assert run.problems == ("These nodes were submitted outside of any run; start and end are taken from them.",)


def test_missing_spans_are_counted(file: Path) -> None:
    """Those that the run says it had, and the node that waited for one of them."""
    run = read_one(file, [run_item(1, 0, 100, nodes=3), node_item(3, "parse", 50, 90, (2, "load"))])
    assert [node.upstream for node in run.nodes] == [()]
    assert [problem.split(";")[0].split(" (")[0] for problem in run.problems] == [
        "2 spans of 3 nodes missing",
        "1 node: the span of an upstream node is missing, so what it waited for is not known.",
    ]


def test_links_cut_off_are_resolved_by_name(file: Path) -> None:
    """The SDK keeps 128 of them; the names in `hamilton.node.upstream` are whole."""
    loads = [node_item(10 + i, f"load_{i}", 0, 10) for i in range(200)]
    upstream = [(10 + i, f"load_{i}") for i in range(200)]
    last = node_item(500, "join", 20, 30, *upstream, links=tuple(range(82, 210)), dropped_links=72)
    run = read_one(file, [run_item(1, 0, 100, nodes=201), *loads, last])
    assert set(run.by_key[key(500)].upstream) == {key(10 + i) for i in range(200)}
    assert run.problems == ("1 node: links cut off; upstream resolved by name.",)


def branch(id: int, name: str, number: int, started: float, *upstream: tuple[int, str], **more: Any) -> Item:
    task = {"hamilton.task.id": f"expand-files.{number}.block-files"}
    return node_item(id, name, started, started + 10, *upstream, attributes=task, **more)


def test_a_name_stands_for_the_execution_of_the_same_task_else_for_all_that_had_ended(file: Path) -> None:
    """In dynamic execution a name has many executions: a branch takes its own, a `Collect` all."""
    items = [
        run_item(1, 0, 100, nodes=6),
        *(branch(10 + i, "load", i, 0) for i in range(2)),
        *(branch(20 + i, "parse", i, 20, (10 + i, "load"), links=()) for i in range(2)),
        branch(30, "parse", 2, 70),
        node_item(40, "all", 50, 60, (20, "parse"), links=(), attributes={"hamilton.task.id": "collect-files"}),
    ]
    run = read_one(file, items)
    assert {node.key: node.upstream for node in run.nodes if node.upstream} == {
        key(20): (key(10),),
        key(21): (key(11),),
        key(40): (key(20), key(21)),
    }


def test_a_link_that_is_no_input_is_no_upstream(file: Path) -> None:
    """A node that never ran is linked to what stopped it."""
    items = [
        run_item(1, 0, 100, nodes=2),
        node_item(2, "bad", 0, 10),
        node_item(3, "never", 10, 10, links=(2,), attributes={"hamilton.node.outcome": "cancelled"}),
    ]
    assert [node.upstream for node in read_one(file, items).nodes] == [(), ()]


def test_a_node_that_never_ran_lacks_no_link(file: Path) -> None:
    """Its inputs that never started have no span to link to; the names tell of those that there are."""
    items = [
        run_item(1, 0, 100, nodes=3),
        node_item(2, "load", 0, 10),
        node_item(3, "bad", 0, 20, attributes={"hamilton.node.outcome": "error"}),
        node_item(
            4,
            "join",
            20,
            20,
            (2, "load"),
            (3, "bad"),
            (9, "late"),
            links=(3,),
            attributes={"hamilton.node.outcome": "upstream_error"},
        ),
    ]
    run = read_one(file, items)

    assert (run.by_key[key(4)].upstream, run.problems) == ((key(3), key(2)), ())
