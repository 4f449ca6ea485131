"""Which of the ready nodes goes first, seen through the public API; what is learned; and what a broken policy costs."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hamilton.htypes import Collect, Parallelizable
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dags import Held, Stage, driver_of, dynamic_driver_of, in_thread, wait_for
from traced_threadpool import FutureAdapter
from traced_threadpool.engine.durations import MOST_NAMES, Durations, load, save
from traced_threadpool.engine.priorities import Planner, Priority, RunPlan, critical_path, ranks_of
from traced_threadpool.engine.scheduler import RunQueue, Scheduler, Task
from traced_threadpool.model.usual_duration import UsualDuration


def untold(workers: int = 2, **settings: Any) -> FutureAdapter:
    return FutureAdapter(workers, tracing=False, metrics=False, **settings)


def hold_all_but_one(stage: Stage, adapter: FutureAdapter) -> None:
    """Takes the workers away, since with one worker in all nodes go in Hamilton's order."""
    for _ in range(adapter.snapshot().max_workers - 1):
        other = Held(stage)
        adapter.executor.submit(other)
        wait_for(other.started)


class Order:
    """A DAG of which the only free worker is held until all nodes are submitted; keeps the order in which they start.

    Hamilton submits `gate`, `short`, `first`, `second`, `third`, `end`.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.started: list[str] = []
        self.held = Held(stage)

    def run(self, adapter: FutureAdapter) -> list[str]:
        hold_all_but_one(self._stage, adapter)
        self.started.clear()
        self.held.started.clear()
        self.held.release.clear()
        running = in_thread(self.driver(adapter).execute, ["end"])
        wait_for(self.held.started)
        while adapter.snapshot().blocked_nodes < 5:  # all that need `gate`
            assert not running.done()
            threading.Event().wait(0.001)
        self.held.release.set()
        assert running.result(20) == {"end": None}
        return list(self.started)

    def driver(self, adapter: FutureAdapter) -> Any:
        started, held = self.started, self.held

        def gate() -> None:
            held()

        def short(gate: None) -> None:
            started.append("short")

        def first(gate: None) -> None:
            started.append("first")

        def second(first: None) -> None:
            started.append("second")

        def third(second: None) -> None:
            started.append("third")

        def end(short: None, third: None) -> None:
            started.append("end")

        return driver_of(adapter, gate, short, first, second, third, end)


@pytest.fixture
def order(stage: Stage) -> Order:
    return Order(stage)


LONGEST_FIRST = ["first", "second", "short", "third", "end"]
AS_READY = ["short", "first", "second", "third", "end"]


def test_the_longest_path_ahead_goes_first(stage: Stage, order: Order) -> None:
    """With nothing learned, by hops; it is the default."""
    assert order.run(stage.adapter(untold())) == LONGEST_FIRST


@pytest.mark.parametrize("priority", ["critical_path", "fifo"])
def test_one_worker_goes_in_hamiltons_order(stage: Stage, order: Order, priority: Any) -> None:
    """No order is faster there."""
    assert order.run(stage.adapter(untold(1, priority=priority))) == ["short", "first", "second", "third", "end"]


def test_fifo_goes_by_readiness(stage: Stage, order: Order) -> None:
    assert order.run(stage.adapter(untold(priority="fifo"))) == AS_READY


def test_learned_durations_count_more_than_hops(stage: Stage, order: Order) -> None:
    """`short` is one hop, and is known to take longer than three."""
    durations = Durations({"short": 9.0, "first": 1.0, "second": 1.0, "third": 1.0})
    assert order.run(stage.adapter(untold(durations=durations))) == AS_READY


def test_a_policy_of_ones_own(stage: Stage, order: Order) -> None:
    """It sees the nodes of the run, and nodes that it leaves out come last."""
    plans: list[RunPlan] = []

    def policy(plan: RunPlan) -> Mapping[str, float]:
        plans.append(plan)
        return {"first": 1, "second": 2, "third": 3}

    assert order.run(stage.adapter(untold(priority=policy))) == ["first", "second", "third", "short", "end"]
    assert [dict(plan.upstream) for plan in plans] == [
        {
            "gate": (),
            "short": ("gate",),
            "first": ("gate",),
            "second": ("first",),
            "third": ("second",),
            "end": ("short", "third"),
        }
    ]


def _raises(plan: RunPlan) -> Mapping[str, float]:
    raise LookupError("no idea")


@pytest.mark.parametrize(
    "policy", [_raises, lambda plan: None, lambda plan: {"short": "high"}, lambda plan: {"short": math.nan}]
)
def test_a_broken_policy_costs_the_order_and_no_node(stage: Stage, order: Order, policy: Priority) -> None:
    adapter = stage.adapter(untold(priority=policy))
    assert order.run(adapter) == AS_READY
    assert adapter.telemetry_errors == {"priority": 1}


def test_runs_take_turns_whatever_their_priorities(stage: Stage) -> None:
    """A run of long paths does not starve one of short paths on the same adapter."""
    adapter = stage.adapter(untold())
    hold_all_but_one(stage, adapter)
    held = Held(stage)
    started: list[str] = []

    def noted(name: str) -> Callable[[], None]:
        def node() -> None:
            started.append(name)

        node.__name__ = name
        return node

    def gate() -> None:
        held()

    holding = in_thread(driver_of(adapter, gate).execute, ["gate"])
    wait_for(held.started)
    names = [["a1", "a2", "a3"], ["b1", "b2", "b3"]]
    runs = []
    for count, each in enumerate(names, 1):
        runs.append(in_thread(driver_of(adapter, *map(noted, each)).execute, each))
        while adapter.snapshot().queue_depth < 3 * count:
            threading.Event().wait(0.001)
    held.release.set()
    for run in [holding, *runs]:
        run.result(20)
    assert started == ["a1", "b1", "a2", "b2", "a3", "b3"]


def test_overridden_nodes_and_what_they_need_are_not_planned(stage: Stage) -> None:
    """The plan is of the nodes that run: not inputs, not overrides, not what only these need."""
    plans: list[RunPlan] = []

    def policy(plan: RunPlan) -> Mapping[str, float]:
        plans.append(plan)
        return {}

    def raw(source: int) -> int:
        return source

    def clean(raw: int) -> int:
        return raw

    def report(clean: int, source: int) -> int:
        return clean + source

    driver = driver_of(stage.adapter(untold(priority=policy)), raw, clean, report)
    assert driver.execute(["report"], inputs={"source": 1}, overrides={"clean": 2}) == {"report": 3}
    assert driver.execute(["report"], inputs={"source": 1}) == {"report": 2}
    assert [dict(plan.upstream) for plan in plans] == [
        {"report": ()},
        {"raw": (), "clean": ("raw",), "report": ("clean",)},
    ]


def test_branches_have_the_priority_of_their_node(stage: Stage) -> None:
    """In dynamic execution too; and each branch is learned from."""

    def part() -> Parallelizable[int]:
        yield from range(5)

    def squared(part: int) -> int:
        return part * part

    def total(squared: Collect[int]) -> int:
        return sum(squared)

    adapter = stage.adapter(untold())
    assert dynamic_driver_of(adapter, part, squared, total).execute(["total"]) == {"total": 30}
    assert set(adapter.durations.seconds()) == {"part", "squared", "total"}


def test_durations_survive_the_process(stage: Stage, tmp_path: Path) -> None:
    """What one adapter has learned another starts with; a file that is not there yet is nothing learned."""
    path = tmp_path / "durations.json"
    adapter = stage.adapter(untold(durations=path))
    assert len(adapter.durations) == 0

    def node() -> None: ...

    driver_of(adapter, node).execute(["node"])
    adapter.save_durations()
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["version"] == 2
    assert list(document["seconds"]) == list(document["spread"]) == ["node"]
    assert stage.adapter(untold(durations=str(path))).durations.seconds() == adapter.durations.seconds()
    assert [each.name for each in tmp_path.iterdir()] == ["durations.json"]


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    """It has no spread: the median is what it has, and the 95th percentile a cautious half more."""
    path = tmp_path / "durations.json"
    path.write_text('{"version": 1, "seconds": {"a": 2.0}}')
    assert load(path).usual("a") == UsualDuration(p50_seconds=2.0, p95_seconds=3.0, count=1)


def test_the_spread_survives_the_process(tmp_path: Path) -> None:
    """Median, 95th percentile and count are much the same after they were written and read."""
    durations = Durations()
    for milliseconds in range(100, 160, 2):
        durations.learn("a", milliseconds * 1_000_000)
    save(durations, tmp_path / "durations.json")
    before, after = durations.usual("a"), load(tmp_path / "durations.json").usual("a")
    assert before is not None
    assert after is not None
    assert (after.count, before.count) == (30, 30)
    assert after.p50_seconds == pytest.approx(before.p50_seconds, rel=0.05)
    assert after.p95_seconds == pytest.approx(before.p95_seconds, rel=0.05)


def test_a_failed_node_teaches_nothing(stage: Stage) -> None:
    """It may have failed long before it was done."""
    adapter = stage.adapter(untold())

    def broken() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        driver_of(adapter, broken).execute(["broken"])
    assert len(adapter.durations) == 0


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("\x00\xff", "not JSON"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ("[]", "no object 'seconds'"),
        ('{"version": 1}', "no object 'seconds'"),
        ('{"version": 3, "seconds": {}}', "has version 3, and this release reads"),
        ('{"version": 2, "seconds": {}, "spread": []}', "as 'spread'"),
        ('{"version": 2, "seconds": {}, "spread": {"a": [2, 1, 3]}}', "spread of node 'a'"),
        ('{"version": 1, "seconds": {"a": "1"}}', "'1' for node 'a'"),
        ('{"version": 1, "seconds": {"a": NaN}}', "nan for node 'a'"),
        ('{"version": 1, "seconds": {"a": -1}}', "-1 for node 'a'"),
        ('{"version": 1, "seconds": {"a": true}}', "True for node 'a'"),
    ],
)
def test_a_bad_file_is_a_clear_error(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "durations.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=complaint):
        untold(durations=path)


def test_a_save_that_fails_leaves_the_old_file(stage: Stage, tmp_path: Path) -> None:
    adapter = stage.adapter(untold())
    with pytest.raises(ValueError, match="where to"):
        adapter.save_durations()
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        adapter.save_durations(tmp_path / "taken")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("priority", "lifo", ValueError),
        ("priority", 3, TypeError),
        ("priority", [], TypeError),
        ("durations", 3, TypeError),
    ],
)
def test_wrong_arguments(argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{argument} must be"):
        untold(**{argument: value})


def test_durations_are_bounded() -> None:
    """Later names are not learned; known ones still are."""
    durations = Durations(dict.fromkeys(map(str, range(MOST_NAMES)), 1.0))
    durations.learn("late", 5)
    durations.learn("0", 2_000_000_000)
    assert (len(durations), durations.seconds()["0"]) == (MOST_NAMES, 1.25)


def test_durations_from_many_threads(tmp_path: Path) -> None:
    """Learning while others read and save is no error, and an average stays within what was seen."""
    durations, stop = Durations(), threading.Event()

    def learn(thread: int) -> None:
        for number in range(5_000):
            durations.learn(f"{thread}-{number % 700}", 1_000_000_000)
            durations.learn("shared", 1_000_000_000 + number % 3 * 1_000_000_000)

    def read() -> None:
        while not stop.is_set():
            assert all(1 <= seconds <= 3 for seconds in durations.seconds().values())
            save(durations, tmp_path / "durations.json")

    readers = [in_thread(read) for _ in range(2)]
    for learner in [in_thread(learn, thread) for thread in range(4)]:
        learner.result(60)
    stop.set()
    for reader in readers:
        reader.result(60)
    load(tmp_path / "durations.json")  # whole, whichever of the two wrote last
    save(durations, tmp_path / "durations.json")
    assert load(tmp_path / "durations.json").seconds() == durations.seconds()
    assert len(durations) == 2_801


def test_ranks_are_made_anew_only_when_durations_have_moved() -> None:
    """And the graph's nodes are asked for once; the graph is not kept alive."""
    asked: list[int] = []

    class Graph: ...

    def upstream() -> Mapping[str, tuple[str, ...]]:
        asked.append(1)
        return {"a": (), "b": ("a",)}

    durations, graph = Durations(), Graph()
    planner = Planner("critical_path", durations)
    first = planner.ranks(graph, "all", upstream)
    assert (first.by_name, first.basis) == ({"a": -2.0, "b": -1.0}, "hops")
    assert planner.ranks(graph, "all", upstream).by_name is first.by_name
    durations.learn("a", 4_000_000_000)
    warm = planner.ranks(graph, "all", upstream)
    assert (warm.by_name, warm.basis) == ({"a": -8.0, "b": -4.0}, "critical_path")
    durations.learn("a", 4_000_000_000)
    assert planner.ranks(graph, "all", upstream).by_name is warm.by_name
    assert len(asked) == 1
    del graph
    assert len(planner._plans) == 0


@st.composite
def dags(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    size = draw(st.integers(1, 20))
    return {
        f"n{number}": tuple(f"n{each}" for each in sorted(draw(st.sets(st.integers(0, number - 1), max_size=4))))
        if number
        else ()
        for number in range(size)
    }


def _paths_ahead(upstream: Mapping[str, tuple[str, ...]], cost: Callable[[str], float], name: str) -> float:
    needed_by = [each for each, inputs in upstream.items() if name in inputs]
    return cost(name) + max((_paths_ahead(upstream, cost, each) for each in needed_by), default=0.0)


@given(upstream=dags(), data=st.data())
@settings(deadline=None)
def test_critical_path_is_the_longest_way_to_the_end(upstream: dict[str, tuple[str, ...]], data: st.DataObject) -> None:
    """By brute force; a node that is unknown counts as the median of the known ones, or as a hop."""
    seconds = data.draw(st.dictionaries(st.sampled_from(list(upstream)), st.integers(0, 9)))
    usual = sorted(seconds.values())[len(seconds) // 2] if seconds else 1
    found = critical_path(RunPlan(upstream=upstream, seconds=seconds))
    assert found == {name: _paths_ahead(upstream, lambda each: seconds.get(each, usual), name) for name in upstream}


@given(upstream=dags(), data=st.data(), workers=st.integers(1, 4))
@settings(deadline=None)
def test_invariants_with_any_priorities(
    upstream: dict[str, tuple[str, ...]], data: st.DataObject, workers: int
) -> None:
    """No node before its inputs, no more at once than workers, all end, none idles while one is ready; of the ready
    ones the highest goes first; and again the same way.
    """
    numbers = st.dictionaries(st.sampled_from(list(upstream)), st.integers(-2, 2))
    priorities: dict[str, float] = {**data.draw(numbers)}
    durations = {name: data.draw(st.integers(0, 5), label=name) for name in upstream}

    def play() -> list[tuple[int, str]]:
        scheduler, queue = Scheduler(workers), RunQueue(ranks=ranks_of(priorities))
        tasks = {name: Task(name, queue=queue) for name in upstream}
        for name, inputs in upstream.items():
            scheduler.add(tasks[name], [tasks[each] for each in inputs], 0)
        now, started, ended, ready = 0, [], set(), []
        running: list[tuple[int, str]] = []
        while len(ended) < len(upstream):
            for name, inputs in upstream.items():
                if name not in ready and ended.issuperset(inputs):
                    ready.append(name)
            while (task := scheduler.take()) is not None:
                assert ended.issuperset(upstream[task.name])
                better = [
                    name
                    for name in ready
                    if name not in {each for _, each in started}
                    and priorities.get(name, -math.inf) > priorities.get(task.name, -math.inf)
                ]
                assert not better
                started.append((now, task.name))
                running.append((now + durations[task.name], task.name))
            assert len(running) <= workers
            assert scheduler.ready_count == 0 or len(running) == workers
            running.sort()
            now, name = running.pop(0)
            scheduler.end(tasks[name], now)
            ended.add(name)
        assert len({name for _, name in started}) == len(started) == len(upstream)
        return started

    assert play() == play()


def test_equals_go_in_the_order_in_which_they_became_ready() -> None:
    scheduler, queue = Scheduler(1), RunQueue(ranks={"a": 0.0, "b": 0.0, "c": 0.0})
    names = ["b", "a", "c"]
    for name in names:
        scheduler.add(Task(name, queue=queue), [], 0)
    for name in names:
        task = scheduler.take()
        assert task is not None
        assert task.name == name
        scheduler.end(task, 0)


def test_a_cancelled_task_is_passed_over() -> None:
    """Also where it is the first of the heap, and the oldest of the ready ones is found wherever it is."""
    scheduler, queue = Scheduler(1), RunQueue(ranks={"a": 0.0, "b": 1.0, "c": 2.0})
    tasks = [Task(name, queue=queue) for name in "abc"]
    for number, task in enumerate(reversed(tasks)):
        scheduler.add(task, [], number + 1)
    assert scheduler.oldest_ready() is tasks[2]
    scheduler.cancel([tasks[0]], 9)
    assert set(scheduler.unstarted(queue)) == set(tasks[1:])
    assert scheduler.take() is tasks[1]
    scheduler.end(tasks[1], 9)
    assert scheduler.take() is tasks[2]
