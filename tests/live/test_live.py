"""`FutureAdapter.live()`: what runs do at this moment, asked while they do it."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Callable

import pytest

from tests.dags import Held, Stage, driver_of, eventually, in_thread, wait_for
from traced_threadpool import FutureAdapter
from traced_threadpool.engine.durations import Durations
from traced_threadpool.live.records import BlockedNode, LivePool, LiveRun
from traced_threadpool.live.view import LiveView


def only_run(pool: LivePool) -> LiveRun:
    [run] = pool.runs
    return run


def view_of(adapter: FutureAdapter) -> LiveView:
    view = adapter._assembly.live_view
    assert view is not None
    return view


def test_nothing_runs(stage: Stage) -> None:
    """A pool at rest: its lane, and no run."""
    pool = stage.adapter(FutureAdapter(3, name="etl")).live()
    assert (pool.pool, pool.runs, pool.closed) == ("etl", (), False)
    [lane] = pool.lanes
    assert (lane.name, lane.limit, lane.active, lane.queued) == ("threads", 3, 0, 0)


def test_running_queued_and_blocked(stage: Stage) -> None:
    """Each node is where it is: done, running on a worker, queued for one, or blocked on which upstream."""
    started, release = stage.event(), stage.event()

    def first() -> int:
        return 1

    def slow(first: int) -> int:
        started.set()
        wait_for(release)
        return first

    def waiting(first: int) -> int:
        return first

    def last(slow: int, waiting: int) -> int:
        return slow + waiting

    adapter = stage.adapter(FutureAdapter(1, name="etl"))
    call = in_thread(lambda: driver_of(adapter, first, slow, waiting, last).execute(["last"]))
    wait_for(started)
    assert eventually(lambda: len(only_run(adapter.live()).blocked) == 1)  # all are submitted
    run = only_run(adapter.live(stacks=True, graph=True))
    assert (run.done, run.planned, run.failed, run.skipped) == (1, 4, 0, 0)
    [node] = run.running
    assert (node.name, node.backend, node.stalled) == ("slow", "threads", False)
    assert node.worker.startswith("etl")
    assert node.stack is not None
    assert any("in test_running_queued_and_blocked.<locals>.slow" in line or " in slow" in line for line in node.stack)
    assert not any("traced_threadpool" in line for line in node.stack)
    assert [each.name for each in run.queued] == ["waiting"]
    assert run.blocked == (BlockedNode("last", None, ("slow", "waiting")),)
    assert run.graph is not None
    assert {each.name: (each.depth, each.state) for each in run.graph} == {
        "first": (0, "done"),
        "slow": (1, "running"),
        "waiting": (1, "queued"),
        "last": (2, "blocked"),
    }
    json.dumps(adapter.live(stacks=True, graph=True).as_dict(), allow_nan=False)
    release.set()
    assert call.result() == {"last": 2}
    assert adapter.live().runs == ()


def test_the_end_is_predicted_from_earlier_runs(stage: Stage) -> None:
    """The first run is new to us, and says so; the second has a range around what is left, and a chain."""
    gate = stage.event()
    seconds = 0.2

    def load() -> int:
        time.sleep(seconds)
        return 1

    def fit(load: int) -> int:
        gate.set()
        time.sleep(seconds)
        return load

    adapter = stage.adapter(FutureAdapter(2))
    driver = driver_of(adapter, load, fit)
    call = in_thread(lambda: driver.execute(["fit"]))
    wait_for(gate)
    first = only_run(adapter.live()).predicted_end
    assert first.seconds is None
    assert first.reason is not None
    call.result()
    gate.clear()
    call = in_thread(lambda: driver.execute(["fit"]))
    wait_for(gate)
    run = only_run(adapter.live())
    assert run.critical_chain == ("fit",)
    end = run.predicted_end
    assert end.seconds is not None
    assert end.earliest_seconds is not None
    assert end.latest_seconds is not None
    assert 0 <= end.earliest_seconds <= end.seconds <= end.latest_seconds
    [node] = run.running
    assert node.usual is not None
    assert node.usual.count == 1
    call.result()


@pytest.mark.parametrize("took_long", [False, True])
def test_the_end_follows_the_pace_of_the_run(stage: Stage, *, took_long: bool) -> None:
    """Nodes that usually take minutes take nothing this time: so will the rest of them.

    Of thousands of nodes that is worked out while nobody waits for it, once it is known how long it takes.
    """
    first_gate, second_gate = Held(stage), Held(stage)

    def first() -> str:
        return first_gate()

    def make(name: str, upstream: str) -> Callable[..., int]:
        scope: dict[str, Callable[..., int]] = {}
        exec(f"def {name}({upstream}: object) -> int:\n    return 1\n", scope)
        return scope[name]

    def second(n5: object) -> str:
        return second_gate()

    chain = [make(f"n{index}", f"n{index - 1}" if index else "first") for index in range(6)]
    rest = [make(f"m{index}", f"m{index - 1}" if index else "second") for index in range(6)]
    names = ["first", "second", *(f"{letter}{index}" for letter in "nm" for index in range(6))]
    adapter = stage.adapter(FutureAdapter(1, durations=Durations(dict.fromkeys(names, 100.0))))
    if took_long:
        view_of(adapter).prediction.at_once_seconds = -1.0
    call = in_thread(lambda: driver_of(adapter, first, second, *chain, *rest).execute(["m5"]))
    wait_for(first_gate.started)
    before = only_run(adapter.live()).predicted_end.seconds
    assert before is not None
    assert before > 1_200
    first_gate.release.set()
    wait_for(second_gate.started)
    assert eventually(lambda: (only_run(adapter.live()).predicted_end.seconds or 9_999) < 400)
    second_gate.release.set()
    call.result()
    assert eventually(lambda: "traced-threadpool-prediction" not in [each.name for each in threading.enumerate()])


def test_who_asks_seldom_is_given_no_old_prediction(stage: Stage) -> None:
    """However long it takes to make another."""
    first_held, last_held = Held(stage), Held(stage)

    def first() -> str:
        return first_held()

    def last(first: str) -> str:
        return last_held()

    adapter = stage.adapter(FutureAdapter(1, durations=Durations({"first": 1_000.0, "last": 10.0})))
    view = view_of(adapter)
    view.prediction.at_once_seconds = -1.0  # all take long
    view.prediction.share = 1e9  # and are to be made again at once
    view.prediction.oldest_seconds = 0.0
    view.large_seconds = 1e9
    call = in_thread(driver_of(adapter, first, last).execute, ["last"])
    wait_for(first_held.started)
    before = only_run(adapter.live()).predicted_end.seconds
    assert before is not None
    assert before > 900
    first_held.release.set()
    wait_for(last_held.started)
    after = only_run(adapter.live()).predicted_end.seconds
    assert after is not None
    assert after < 100
    last_held.release.set()
    call.result()


def test_failed_and_skipped_nodes(stage: Stage) -> None:
    """While the rest of the run goes on: all are counted, the first hundred that failed are named."""
    started, release = stage.event(), stage.event()

    def broken(index: int) -> Callable[[], int]:
        def node() -> int:
            raise LookupError("private")

        node.__name__ = f"broken_{index}"
        return node

    def after(broken_0: int) -> int:
        return broken_0

    def slow() -> int:
        started.set()
        wait_for(release)
        return 1

    adapter = stage.adapter(FutureAdapter(1))
    names = [f"broken_{index}" for index in range(120)]
    driver = driver_of(adapter, *map(broken, range(120)), after, slow)
    call = in_thread(lambda: driver.execute([*names, "after", "slow"]))
    wait_for(started)
    pool = adapter.live(graph=True)
    run = only_run(pool)
    assert (run.done, run.failed, run.skipped) == (121, 120, 1)
    assert run.failed_names == tuple(names[:100])
    assert run.graph is not None
    states = {each.name: each.state for each in run.graph}
    assert (states["broken_0"], states["after"], states["slow"]) == ("failed", "skipped", "running")
    assert "private" not in repr(pool.as_dict())
    release.set()
    with pytest.raises(LookupError):
        call.result()


def test_switched_off(stage: Stage) -> None:
    """`live=False`: a clear error, and no page shows the adapter."""
    from traced_threadpool.live.server import live_document

    adapter = stage.adapter(FutureAdapter(1, name="hidden", live=False))
    with pytest.raises(RuntimeError, match="live=False"):
        adapter.live()
    assert "hidden" not in {pool["pool"] for pool in live_document()["pools"]}


def test_a_thousand_looks_while_nodes_run(stage: Stage) -> None:
    """From several threads at once, with nothing torn: the counts of one record fit together."""

    def make(index: int) -> object:
        def node() -> int:
            return index

        node.__name__ = f"n{index}"
        return node

    nodes = [make(index) for index in range(200)]
    adapter = stage.adapter(FutureAdapter(4))
    driver = driver_of(adapter, *nodes)  # type: ignore[arg-type]  # functions all
    names = [f"n{index}" for index in range(200)]
    done = stage.event()

    def look() -> int:
        records = 0
        while not done.is_set():
            for run in adapter.live(graph=True).runs:
                states = [each.state for each in run.graph or ()]
                counts = [states.count(state) for state in ("done", "running", "queued", "planned")]
                known = run.done + len(run.running) + len(run.queued)
                assert counts == [run.done, len(run.running), len(run.queued), 200 - known]
                assert run.planned == 200
            records += 1
        return records

    watchers = [in_thread(look) for _ in range(3)]
    for _ in range(10):
        driver.execute(names)
    done.set()
    assert all(watcher.result() > 0 for watcher in watchers)


def test_progress_is_logged_where_there_is_no_terminal(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each run, every so often; nothing is left when it ends."""
    import logging

    from traced_threadpool.live.progress import Progress

    started, release = stage.event(), stage.event()

    def slow() -> int:
        started.set()
        wait_for(release)
        return 1

    adapter = stage.adapter(FutureAdapter(1, run_name="nightly"))
    call = in_thread(lambda: driver_of(adapter, slow).execute(["slow"]))
    wait_for(started)
    with caplog.at_level(logging.INFO, "traced_threadpool"), Progress(adapter.live, log_seconds=0.01):
        assert eventually(lambda: any("nightly: 0 of 1 nodes done, 1 running" in text for text in caplog.messages))
    release.set()
    call.result()


def test_progress_by_itself(stage: Stage) -> None:
    """`progress=True` starts with the first run and ends with the last."""

    def node() -> int:
        return 1

    adapter = stage.adapter(FutureAdapter(1, progress=True))
    assert driver_of(adapter, node).execute(["node"]) == {"node": 1}
    assert "traced-threadpool-progress" not in {thread.name for thread in threading.enumerate()}
    with adapter.progress():
        assert driver_of(adapter, node).execute(["node"]) == {"node": 1}


def test_what_has_not_changed_is_not_made_anew(stage: Stage) -> None:
    """While nothing happens the record is the same for some milliseconds, and its parts for longer."""
    gates = {name: Held(stage) for name in ("first", "second")}

    def first() -> str:
        return gates["first"]()

    def second() -> str:
        return gates["second"]()

    def after(first: str) -> str:
        return first

    def last(after: str, second: str) -> str:
        return after + second

    adapter = stage.adapter(FutureAdapter(2))
    call = in_thread(lambda: driver_of(adapter, first, second, after, last).execute(["last"]))
    for gate in gates.values():
        wait_for(gate.started)
    assert eventually(lambda: len(only_run(adapter.live()).blocked) == 2)  # all are submitted
    assert eventually(lambda: adapter.live() is adapter.live())
    one = adapter.live()
    assert eventually(lambda: adapter.live() is not one)
    assert only_run(adapter.live()).blocked is only_run(one).blocked
    assert adapter.live(graph=True) is not adapter.live()
    gates["first"].release.set()
    assert eventually(lambda: only_run(adapter.live()).done == 2)
    [last_one] = only_run(adapter.live()).blocked
    assert last_one == BlockedNode("last", None, ("second",))
    gates["second"].release.set()
    call.result()
    assert adapter.live().runs == ()


@pytest.mark.parametrize("nodes", [200, 2_000])
def test_a_look_copies_no_node_that_is_where_it_was(stage: Stage, nodes: int) -> None:
    """What `live()` allocates while nothing happens is the same for any number of nodes that wait."""
    held = Held(stage)

    def gate() -> str:
        return held()

    def make(index: int) -> Callable[..., int]:
        def node(gate: str) -> int:
            return index

        node.__name__ = f"n{index}"
        return node

    adapter = stage.adapter(FutureAdapter(1))
    view_of(adapter).share = 1.0  # or a record that was made under tracemalloc is given again for a minute
    driver = driver_of(adapter, gate, *map(make, range(nodes)))
    call = in_thread(lambda: driver.execute([f"n{index}" for index in range(nodes)]))
    wait_for(held.started)
    assert eventually(lambda: len(only_run(adapter.live()).blocked) == nodes)

    def allocates_little() -> bool:
        """Whether a record made anew does: the caller's thread may still be on its way to where it waits."""
        known = record = adapter.live()
        while record is known:  # given again, for longer if it took long
            time.sleep(0.001)
            tracemalloc.start()
            try:
                record = adapter.live()
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert len(only_run(record).blocked) == nodes
        return most < 16_000  # bytes: a pointer to each of 2,000 nodes is as much

    assert eventually(allocates_little)
    held.release.set()
    call.result()


def test_a_record_that_took_long_is_not_given_again_for_ever(stage: Stage) -> None:
    """The first one of a large run takes longest, and a run goes on."""
    held = Held(stage)

    def first() -> str:
        return held()

    last_held = Held(stage)

    def last(first: str) -> str:
        return last_held()

    adapter = stage.adapter(FutureAdapter(1))
    view = view_of(adapter)
    view.large_seconds = 0.0
    view.share = 1e-9  # by its share of a CPU: for days
    call = in_thread(driver_of(adapter, first, last).execute, ["last"])
    wait_for(held.started)
    assert [node.name for node in only_run(adapter.live()).running] == ["first"]
    held.release.set()
    wait_for(last_held.started)
    assert eventually(lambda: [node.name for node in only_run(adapter.live()).running] == ["last"])
    last_held.release.set()
    call.result()
