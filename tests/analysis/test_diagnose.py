"""A recorded run into findings: each detector of the tree, in which order they come, and what holds of all of them.

The runs that show the detectors are those of `docs/diagnosis.md`, which is checked against them here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis import diagnosed_runs
from tests.analysis.diagnosed_runs import EXAMPLES, MS, UNATTRIBUTED, in_turns, node, run, side_by_side
from tests.analysis.synthetic_runs import NASTY_NAMES, layered_run
from traced_threadpool.analysis.diagnosis import advice, detect_outcome, detect_waiting, ranking
from traced_threadpool.analysis.diagnosis.advice import CAUSES_IN_WORDS
from traced_threadpool.analysis.diagnosis.causes import CAUSES, Cause, Finding
from traced_threadpool.analysis.diagnosis.diagnose import ALIKE, MOST_FINDINGS, diagnose
from traced_threadpool.analysis.replay import company
from traced_threadpool.analysis.replay.what_if import HELPS, Replayed, replay
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import State


def causes(run: RecordedRun) -> list[Cause]:
    """What is found, in its order."""
    return [found.cause for found in diagnose(run).findings]


def first(run: RecordedRun) -> Finding:
    return diagnose(run).findings[0]


# The page

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"


def test_the_page_shows_what_is_said_of_each_example() -> None:
    """Every cause once, in the order of the list. Renewed by
    `python -m tests.analysis.diagnosed_runs docs/diagnosis.md`.
    """
    page = PAGE.read_text(encoding="utf-8")

    assert tuple(diagnosed_runs.shown_in(page)) == CAUSES
    assert page == diagnosed_runs.renewed(page)


def test_the_page_says_the_numbers_of_the_tree() -> None:
    """As the detectors have them, and each cause with its meaning."""
    page = PAGE.read_text(encoding="utf-8")

    assert [
        f"### `{cause}`: {meaning}" for cause, meaning in ((cause, CAUSES_IN_WORDS[cause].meaning) for cause in CAUSES)
    ] == re.findall(r"^### .*", page, re.M)
    for share_, words in (
        (detect_outcome.LOST, "are {} of the nodes missing"),
        (company.FULL, "if nodes use {} of those that there are"),
        (company.FULL, "less than {} of the CPUs"),
        (ALIKE, "less than {} of the\nrun"),
        (HELPS, "shorter by {}"),
    ):
        assert words.format(f"{share_:.0%}".replace("%", " %")) in page
    told = {
        ranking.MATTERS: "a tenth",
        detect_waiting.DOMINATES: "two thirds",
        ranking.CONTRIBUTES: "a third",
        ranking.GOVERNS: "a fifth",
    }
    assert {round(number, 3): words for number, words in told.items()} == {
        0.1: "a tenth",
        0.667: "two thirds",
        0.333: "a third",
        0.2: "a fifth",
    }


# Each detector


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_found_first_in_its_example(cause: Cause) -> None:
    """There is an example of each, and a meaning in words. One is told beside what it is the setting for."""
    if cause == "switch_interval":
        assert causes(EXAMPLES[cause]) == ["gil_bound", "switch_interval"]
    else:
        assert diagnose(EXAMPLES[cause]).cause == cause
    assert CAUSES_IN_WORDS[cause].meaning


FINDINGS: dict[Cause, Finding] = {
    "failing_upstream": Finding(
        cause="failing_upstream",
        nodes=("parse",),
        evidence=(
            "parse raised ValueError after 200 ms: could not convert string to float: 'n/a'",
            "2 of 4 nodes never ran, since a node upstream of them failed: score and report",
        ),
        advice="Fix `parse` first. How long the run would take without the failure, the record cannot tell.",
        gain_seconds=None,
    ),
    "gil_bound": Finding(
        cause="gil_bound",
        nodes=("parse_2", "parse_0"),
        evidence=(
            "waiting for the GIL: 3.00 s, 75 % of the nodes' time; most of it parse_0 750 ms, "
            "parse_1 750 ms, parse_2 750 ms and 1 more",
            "who held the GIL meanwhile: parse_2 1.40 s, parse_0 1.00 s, parse_1 300 ms and 1 more",
            "replay: if nobody waited for it, 500 ms instead of 1.00 s",
            "replay: with `parse_2` and `parse_0` on 2 worker processes, 625 ms instead of 1.00 s; even if moving "
            "arguments and results took 188 ms for each execution, 625 ms instead of 1.00 s",
        ),
        advice="Run `parse_2` and `parse_0` on worker processes: backends={'cpu': Processes(2)} and run_on= (or "
        "run_on='auto', which measures what moving takes); or use a library that releases the GIL (NumPy, Polars, "
        "Arrow). More workers cannot help.",
        gain_seconds=0.5,
    ),
    "sleeping_node": Finding(
        cause="sleeping_node",
        nodes=("export", "prices"),
        evidence=(
            "sleeping: 1.10 s, 85 % of the nodes' time; most of it export 900 ms, prices 200 ms",
            "on the critical path: 900 ms, 90 % of the run",
            "replay: if nobody slept, 100 ms instead of 1.00 s",
        ),
        advice="Find the sleep in `export` and `prices`: the pause between retries, a polling loop, a rate limit. Wait "
        "for the event itself, or sleep less.",
        gain_seconds=0.9,
    ),
    "critical_path": Finding(
        cause="critical_path",
        nodes=("extract", "clean", "rank"),
        evidence=(
            "3 nodes in a row: 900 ms, 100 % of the run; most of it extract 400 ms, clean 300 ms, rank 200 ms",
            "what they do: cpu 900 ms",
            "1.1 nodes ran at once on average",
            "replay: if these nodes were twice as fast, 450 ms instead of 900 ms",
        ),
        advice="Make `extract`, `clean` and `rank` faster, run independent parts in parallel, or start the chain "
        "earlier. More workers cannot help.",
        gain_seconds=0.45,
    ),
    "healthy": Finding(
        cause="healthy",
        nodes=(),
        evidence=(
            "4 nodes in 1.60 s, 2.0 at once on average",
            "of the nodes' time, 0 % is waiting for the GIL, 0 % for a CPU, 0 % for a lock, and 0 % is sleep",
            "replay: with more than 4 workers, 1.60 s instead of 1.60 s",
        ),
        advice="Leave it as it is: nothing that was replayed makes it 10 % shorter. More than 4 workers would not "
        "help: the critical path alone takes 1.60 s.",
        gain_seconds=None,
    ),
}


@pytest.mark.parametrize("cause", FINDINGS)
def test_a_finding_as_a_whole(cause: Cause) -> None:
    """Who, the evidence in numbers, what to do, and the gain."""
    assert first(EXAMPLES[cause]) == FINDINGS[cause]


def test_what_nobody_looked_at_is_not_called_healthy() -> None:
    """Nodes without states, and nothing that their durations tell: the record is what lacks."""
    [found] = diagnose(UNATTRIBUTED).findings

    assert (found.cause, found.gain_seconds) == ("telemetry_loss", None)
    assert found.evidence[0] == (
        "what nodes did is not in the record for 1.00 s, 100 % of the run (reason: unsupported_platform)"
    )


@pytest.mark.parametrize(
    "empty",
    [
        run(end=1000),
        run(end=0),
        run(node("never", 5, 5, outcome="cancelled"), end=10, outcome="success"),
    ],
    ids=["no node", "no time", "no node that ran"],
)
def test_a_run_of_nothing_says_so(empty: RecordedRun) -> None:
    """There is nothing to replay, and a finding all the same."""
    for found in diagnose(empty).findings:
        assert found.evidence
        assert found.gain_seconds is None


def test_the_words_of_a_finding_are_in_one_table() -> None:
    """Each sentence of the table is asked for by a detector, and no detector has a sentence of its own."""
    detectors = "".join(path.read_text(encoding="utf-8") for path in Path(advice.__file__).parent.glob("detect_*.py"))

    assert CAUSES_IN_WORDS.keys() == set(CAUSES)
    for words in CAUSES_IN_WORDS.values():
        for key in (*words.evidence, *words.advice):
            assert f'"{key}"' in detectors, (words.title, key)
    sentences = re.findall(r'(?<!"")"[A-Za-z][a-z]+(?: [a-z]+){3,}[^"]*"(?!"")', detectors)
    assert sentences == []


# How runs end


def test_all_who_raised_are_named_and_three_are_told_of() -> None:
    """With how many were cancelled besides."""
    failed = run(
        *(node(f"read_{index}", 0, 100 + index, {"cpu": 100}, outcome="error") for index in range(4)),
        node("join", 104, 104, outcome="upstream_error"),
        node("late", 104, 104, outcome="cancelled"),
        end=104,
        outcome="error",
    )
    found = first(failed)

    assert (found.cause, found.nodes) == ("failing_upstream", ("read_0", "read_1", "read_2", "read_3"))
    assert found.evidence == (
        "read_0 raised an exception after 100 ms",
        "read_1 raised an exception after 101 ms",
        "read_2 raised an exception after 102 ms",
        "4 nodes raised in total",
        "1 of 6 nodes never ran, since a node upstream of them failed: join",
        "1 more had not started and were cancelled: late",
    )


def test_a_run_that_failed_without_a_node_that_raised() -> None:
    """A result builder, or a span that was lost: what the run itself says is the evidence."""
    found = first(replace(EXAMPLES["healthy"], outcome="error", error_type="KeyError"))

    assert (found.cause, found.nodes) == ("failing_upstream", ())
    assert found.evidence[0] == "the run ended with KeyError after 1.60 s"


def test_failure_goes_before_cancelling() -> None:
    """What `fail_fast` cancels is a consequence."""
    failed = EXAMPLES["failing_upstream"]
    stopped = replace(failed, nodes=(*failed.nodes, node("late", 500, 500, outcome="cancelled")))

    assert causes(stopped)[0] == "failing_upstream"
    assert "cancelled" not in causes(stopped)


# What the record lacks


def test_a_small_loss_is_told_last() -> None:
    """One node of many: what the others show counts, and that something lacks is said."""
    chain = EXAMPLES["sleeping_node"]
    lossy = replace(chain, expected_nodes=3, nodes=chain.nodes)
    assert causes(lossy)[0] == "telemetry_loss"  # a third of the nodes is much

    many = run(*in_turns(40, 100, 4, {"network": 98, "cpu": 2}), end=1000, expected_nodes=41)
    found = diagnose(many).findings
    assert (found[0].cause, found[-1].cause) == ("pool_too_small", "telemetry_loss")
    assert found[-1].evidence == ("1 of 41 nodes (2 %) are not in the record",)


def test_repairs_of_the_record_are_told_last() -> None:
    """Three of them in words, and how many there are."""
    repaired = replace(EXAMPLES["sleeping_node"], problems=("one.", "two.", "three.", "four."))

    assert causes(repaired) == ["sleeping_node", "telemetry_loss"]
    assert diagnose(repaired).findings[-1].evidence == ("one.", "two.", "three.", "4 problems of the record in total")


# Contention


def test_a_thread_outside_of_the_pool_that_holds_the_lock_is_named() -> None:
    """Nodes compute little, and less of what they do would not help."""
    found = first(
        run(
            *side_by_side({"cpu": 100, "gil": 900}),
            end=1000,
            gil_holders={"thread:reindex": 3000 * MS, "parse_0": 100 * MS},
        )
    )

    assert (found.cause, found.nodes) == ("gil_bound", ("parse_0", "parse_1", "parse_2", "parse_3"))
    assert found.advice == (
        "Keep thread `reindex` from computing in this process while nodes run. More workers cannot help."
    )
    assert found.gain_seconds == pytest.approx(0.6)  # what nodes do to each other stays: 0.4 s of computing, in turns


def test_processors_that_others_use() -> None:
    """Nodes wait for a CPU and use hardly any: it is not more CPUs that they need."""
    found = first(run(*side_by_side({"cpu": 100, "runqueue": 700}), end=800, cpus=8))

    assert found.cause == "processor_starved"
    assert "nodes use 6 % of 8 CPUs" in found.evidence
    assert found.advice.startswith("Check what else runs on the machine")
    assert found.gain_seconds == pytest.approx(0.7)


def test_waiting_for_a_processor_now_and_then_is_no_finding() -> None:
    """Who computes longer than it waits for one is not starved, unless the CPUs are full."""
    busy = run(*side_by_side({"cpu": 400, "runqueue": 300, "network": 300}, 2), end=1000, cpus=8)

    assert "processor_starved" not in causes(busy)


def test_waiting_for_a_processor_longer_than_computing_is_one() -> None:
    """Others take two fifths of the run, though half of it is something else: before a chain is called slow, that."""
    busy = run(*side_by_side({"cpu": 250, "runqueue": 400, "network": 350}, 2), end=1000, cpus=8)

    assert causes(busy)[0] == "processor_starved"


@pytest.mark.parametrize("state", ["gil", "runqueue", "lock", "sleep", "network", "disk"])
def test_what_happens_beside_the_critical_path_is_no_finding(state: State) -> None:
    """However long it takes: the run would not end earlier without it."""
    beside = run(
        *side_by_side({"cpu": 400, "network": 400}, 2, "left"),
        node("right_0", 800, 1600, {"cpu": 400, "network": 400}, worker="etl_0", upstream=("left_0",)),
        node("right_1", 800, 1600, {"cpu": 400, "network": 400}, worker="etl_1", upstream=("left_1",)),
        node("audit", 0, 1500, {state: 1500}, worker="etl_3"),
        end=1600,
    )

    assert causes(beside) == ["healthy"]


@pytest.mark.parametrize(("at_the_lock", "cause"), [(700, "gil_bound"), (850, "lock_contention")])
def test_waiting_for_either_lock_where_neither_alone_would_help(at_the_lock: int, cause: Cause) -> None:
    """Two families of nodes side by side, each held up by another lock: the run ends with the later of the two."""
    asking = side_by_side({"lock": at_the_lock, "network": 1000 - at_the_lock}, 4, "ask")
    mixture = run(
        *side_by_side({"cpu": 250, "gil": 750}, 4, "parse"),
        *(replace(each, worker=each.name) for each in asking),
        end=1000,
        max_workers=8,
    )
    found = first(mixture)

    assert found.cause == cause
    assert found.evidence[2] == "replay: if nobody waited for either, 500 ms instead of 1.00 s"
    assert found.gain_seconds == pytest.approx(0.5)  # what is computed takes two CPUs that long
    assert "Then the other: by itself, neither gains much. " in found.advice


# The pool


def test_more_workers_for_nodes_of_which_nothing_is_known() -> None:
    """The queue tells it, and the gain hangs on what they do: said, and not promised."""
    queued = tuple(replace(each, states={}, samples=0) for each in in_turns(12, 250, 4, {"network": 250}))
    found = first(run(*queued, end=750, attribution="none"))

    assert (found.cause, found.gain_seconds) == ("pool_too_small", None)
    assert found.evidence[-1] == (
        "replay: with 12 workers, 250 ms instead of 750 ms, if the nodes wait and do not compute, which the record "
        "does not tell"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_one_worker_shows_no_lock(workers: int) -> None:
    """Where nothing runs beside anything else, nothing waits for a lock: the advice says so."""
    queued = in_turns(12, 250, workers, {"network": 250})
    found = first(run(*queued, end=3000 // workers, max_workers=workers))

    assert found.cause == "pool_too_small"
    assert ("It gains less if nodes share a lock: with one at a time none waits for it." in found.advice) is (
        workers == 1
    )


def test_a_queue_of_nodes_that_compute_with_the_lock_needs_no_workers() -> None:
    """They would wait for the lock instead."""
    queued = run(*in_turns(12, 250, 1, {"cpu": 250}), end=3000, max_workers=1)

    assert "pool_too_small" not in causes(queued)


def test_fewer_workers_are_no_advice_where_nodes_also_wait() -> None:
    """With half of them the waiting would not overlap any more."""
    waiting = run(*side_by_side({"network": 700, "gil": 150, "cpu": 150}), end=1000)

    assert "pool_too_large" not in causes(waiting)


# Stragglers and chains


def test_a_straggler_among_branches_of_one_name() -> None:
    """Of several executions of one node it is this one that the replay makes faster."""
    branches = tuple(
        replace(each, name="parse", task_id=f"expand-files.{index}.block")
        for index, each in enumerate(EXAMPLES["straggler"].nodes)
    )
    found = first(run(*branches, end=900))

    assert (found.cause, found.nodes) == ("straggler", ("parse",))
    assert found.gain_seconds == pytest.approx(0.68, abs=0.1)


def test_siblings_are_told_by_their_place_in_the_graph_too() -> None:
    """Nodes of any names with the same inputs that go into the same node."""
    names = ("alder", "birch", "cedar", "maple")
    family = tuple(
        node(name, 10, 110 if name != "maple" else 900, {"cpu": 100 if name != "maple" else 890}, upstream=("start",))
        for name in names
    )
    found = first(run(node("start", 0, 10), *family, node("end", 900, 910, {"cpu": 10}, upstream=names), end=910))

    assert (found.cause, found.nodes) == ("straggler", ("maple",))


def test_who_only_waited_for_others_is_no_straggler() -> None:
    """Contention lengthens a node, and whom it meets is chance."""
    unlucky = run(
        *side_by_side({"network": 50, "cpu": 50}, 3, "shard"),
        node("shard_3", 0, 900, {"cpu": 100, "lock": 800}, worker="etl_3"),
        end=900,
    )

    assert causes(unlucky)[0] == "lock_contention"
    assert "straggler" not in causes(unlucky)


def test_a_chain_that_something_else_explains_is_not_named_too() -> None:
    """The chain of one who sleeps is what sleeping makes it."""
    assert causes(EXAMPLES["sleeping_node"]) == ["sleeping_node"]
    assert "critical_path" not in causes(EXAMPLES["slow_network"])


def test_a_nested_run_counts_as_its_node() -> None:
    """What slept within a node is what the node did, and is no node of its own to be named."""
    inner = (
        replace(node("pause", 100, 900, {"sleep": 800}, submitted=100), parent="outer", run_id="2"),
        replace(node("wake", 900, 1000, {"cpu": 100}, submitted=100, upstream=("pause",)), parent="outer", run_id="2"),
    )
    found = first(run(node("outer", 0, 1000, {"cpu": 100, "other": 900}), *inner, end=1000))

    assert (found.cause, found.nodes) == ("sleeping_node", ("outer",))


# What holds of all


def test_findings_are_in_the_order_of_their_gain() -> None:
    """The one that would help most comes first."""
    found = diagnose(EXAMPLES["pool_too_small"]).findings
    gains = [each.gain_seconds or 0.0 for each in found]

    assert [each.cause for each in found] == ["pool_too_small", "slow_network", "slow_disk"]
    assert gains == sorted(gains, reverse=True)


def test_no_more_than_three_are_told() -> None:
    """Of five causes, each worth telling alone, the three that would help most."""
    states: dict[State, int] = {"lock": 250, "sleep": 250, "disk": 250, "network": 250}

    assert causes(run(*in_turns(12, 1000, 4, states), end=3000)) == [
        "pool_too_small",
        "lock_contention",
        "sleeping_node",
    ]
    assert "slow_network" in causes(run(*in_turns(12, 1000, 4, {"network": 1000}), end=3000))
    assert "slow_disk" in causes(run(*in_turns(12, 1000, 4, {"disk": 1000}), end=3000))


def test_waits_that_are_no_fault_alone_come_after_what_is() -> None:
    """Half of the time on the network would be healthy; the CPUs that are missing are why one looks at all."""
    crowded = run(*side_by_side({"network": 450, "cpu": 350, "runqueue": 200}), end=1000)

    assert causes(crowded) == ["processor_starved", "slow_network"]
    assert causes(run(*side_by_side({"network": 450, "cpu": 350}, 2), end=800)) == ["healthy"]


def test_of_gains_that_are_alike_the_one_that_says_more_comes_first() -> None:
    """A lock that is waited for half of the time, and sleep for hardly more than that: the lock is contention."""
    alike = run(node("a", 0, 1000, {"lock": 490, "sleep": 510}), end=1000)
    apart = run(node("a", 0, 1000, {"lock": 300, "sleep": 700}), end=1000)

    assert causes(alike) == ["lock_contention", "sleeping_node"]
    assert causes(apart) == ["sleeping_node", "lock_contention"]


def test_a_gain_is_what_the_replay_says() -> None:
    """With the very settings that the finding advises."""
    asked: dict[Cause, Callable[[RecordedRun], Replayed]] = {
        "gil_bound": lambda run: replay(run, gil=False),
        "processor_starved": lambda run: replay(run, cpus=4),
        "pool_too_small": lambda run: replay(run, workers=12),
    }
    for cause, other in asked.items():
        recorded = EXAMPLES[cause]
        gain = (replay(recorded).makespan_ns - other(recorded).makespan_ns) / 1e9
        assert first(recorded).gain_seconds == gain > 0, cause


@st.composite
def _runs(draw: st.DrawFn) -> RecordedRun:
    """Any layered run, on few or many workers, with and without states, failures, losses and nested parts."""
    size = draw(st.integers(1, 30))
    names = NASTY_NAMES if draw(st.booleans()) else ()
    made = layered_run(
        size,
        workers=draw(st.integers(1, 12)),
        layers=draw(st.integers(1, 8)),
        seed=draw(st.integers(0, 10_000)),
        states=draw(st.booleans()),
        node_names=names,
        mean_ms=draw(st.sampled_from([0.001, 1.0, 40.0, 5_000.0])),
    )
    failing = draw(st.none() | st.sampled_from([each.name for each in made.nodes]))
    nodes = tuple(
        _any_states(draw, each) if failing != each.name else replace(each, outcome="error") for each in made.nodes
    )
    return replace(
        made,
        nodes=nodes,
        outcome=draw(st.sampled_from(["success", "error", "cancelled"])),
        max_workers=draw(st.none() | st.just(made.max_workers)),
        cpus=draw(st.none() | st.integers(1, 64)),
        attribution=draw(st.sampled_from(["process", "none"])),
        expected_nodes=draw(st.none() | st.integers(0, 2 * size)),
        ended_ns=made.ended_ns + draw(st.sampled_from([0, 10**9])),
        gil_holders=draw(
            st.dictionaries(st.sampled_from(["thread:x", "who", *names]), st.integers(0, 10**12), max_size=4)
        ),
    )


def _any_states(draw: st.DrawFn, execution: NodeExecution) -> NodeExecution:
    """Sometimes its time divided in another way, which need not add up."""
    if draw(st.integers(0, 3)):
        return execution
    states = draw(
        st.dictionaries(st.sampled_from(get_args(State)), st.integers(0, 2 * execution.duration_ns), max_size=4)
    )
    return replace(execution, states=states)


@settings(deadline=None, max_examples=60)
@given(_runs())
def test_whatever_the_run(run: RecordedRun) -> None:
    """One to three findings, each of its own cause, with evidence and advice; no gain is more than the run."""
    found = diagnose(run).findings

    assert 1 <= len(found) <= MOST_FINDINGS
    assert len({each.cause for each in found}) == len(found)
    for each in found:
        assert each.cause in CAUSES
        assert each.evidence
        assert all(
            any(sign.isdigit() for sign in sentence) or sentence in run.problems for sentence in each.evidence[:1]
        )
        assert each.advice
        assert each.gain_seconds is None or 0 <= each.gain_seconds * 1e9 <= run.duration_ns + 1
        assert set(each.nodes) <= {node.name for node in run.nodes} | set(run.gil_holders)
    if "healthy" in [each.cause for each in found]:
        assert [each.cause for each in found if each.cause != "telemetry_loss"] == ["healthy"]
