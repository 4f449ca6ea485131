"""`run_on="auto"`: what runs show of nodes, and where they run next time."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.calls import is_alive
from tests.dags import Stage, driver_of
from traced_threadpool import FutureAdapter, run_on
from traced_threadpool.backends import NotPicklable, Processes, Threads
from traced_threadpool.engine.auto_placement import AutoPlacement

MS = 1_000_000


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    backend = Processes(2)
    backend.open("tests")
    yield backend
    backend.close()


@pytest.fixture
def auto(workers: Processes, stage: Stage) -> Callable[..., FutureAdapter]:
    """Makes adapters that place nodes themselves.

    `from_holding_alone`: not from how long a node took here, which on a busy machine may be long enough to count.
    """

    def make(*, from_holding_alone: bool = False, **options: Any) -> FutureAdapter:
        options = {"backends": {"cpu": workers}, "run_on": "auto", "metrics": False, **options}
        adapter = stage.adapter(FutureAdapter(4, **options))
        if from_holding_alone:
            decides = adapter._assembly.auto
            assert decides is not None
            decides.least_ns = 10_000 * MS
        return adapter

    return make


def holding(adapter: FutureAdapter, name: str, *, gil_ms: int = 60_000) -> None:
    """A run in which the node held the GIL while others waited, as the sampler tells."""
    decides = adapter._assembly.auto
    assert decides is not None
    decides.executed(name, duration_ns=200 * MS, computing_ns=gil_ms * MS, transfer_ns=None)
    decides.run_over({name: gil_ms * MS})


def pid() -> int:
    return os.getpid()


def test_a_node_moves_after_a_probe(auto: Callable[..., FutureAdapter], caplog: pytest.LogCaptureFixture) -> None:
    """Told once in the log, and by `placement()`."""
    caplog.set_level(logging.INFO, "traced_threadpool")
    adapter = auto(from_holding_alone=True)
    runs = driver_of(adapter, pid)
    here = runs.execute(["pid"])["pid"]
    holding(adapter, "pid")
    assert adapter.placement()["pid"].state == "probing"
    assert runs.execute(["pid"])["pid"] == here
    holding(adapter, "pid")
    decision = adapter.placement()["pid"]
    assert (decision.state, decision.backend) == ("moved", "cpu")
    assert decision.gained_seconds == pytest.approx(60)
    assert decision.transfer_seconds == pytest.approx(0.0004, abs=20)
    for _ in range(2):
        there = runs.execute(["pid"])["pid"]
        assert there != here
        assert is_alive(there)
    told = [record.getMessage() for record in caplog.records if "node 'pid' runs" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("node 'pid' runs on backend 'cpu' from the next run on: it saves 60000 ms of waiting")


def test_the_run_says_which_nodes_it_has_placed(auto: Callable[..., FutureAdapter]) -> None:
    """On its span."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    adapter = auto(from_holding_alone=True, tracer_provider=provider)
    moved(adapter, "pid")
    driver_of(adapter, pid).execute(["pid"])
    adapter.close()
    (run,) = [span for span in exporter.get_finished_spans() if span.name == "hamilton.run"]
    (said,) = run.attributes["hamilton.run.placement"]
    assert said.startswith("pid on cpu: it saves 60000 ms of waiting for the GIL for each execution, and moving takes")


def moved(adapter: FutureAdapter, name: str) -> None:
    """As if it had been probed."""
    holding(adapter, name)
    decides = adapter._assembly.auto
    assert decides is not None
    decides.probed(name, transfer_ns=MS)
    holding(adapter, name)
    assert adapter.placement()[name].state == "moved"


def test_it_comes_back_when_it_does_not_pay() -> None:
    """The measured transfer takes the place of the estimate."""
    decides = AutoPlacement("cpu")
    for _ in range(2):
        decides.executed("big", duration_ns=200 * MS, computing_ns=200 * MS, transfer_ns=None)
        decides.run_over({"big": 50 * MS})
        decides.probed("big", transfer_ns=10 * MS)
    assert decides.moved(["big"]) == {"big": "cpu"}
    for _ in range(4):
        decides.executed("big", duration_ns=200 * MS, computing_ns=200 * MS, transfer_ns=90 * MS)
        decides.run_over({})
    assert decides.moved(["big"]) == {}
    assert decides.decisions["big"].state == "returned"


def test_many_that_waited_for_a_node_at_once_gain_no_more_than_it_computed() -> None:
    """Nine waited for 100 ms of it: each would have the GIL 100 ms earlier, and the run end as much earlier."""
    decides = AutoPlacement("cpu")
    for _ in range(2):
        decides.executed("table", duration_ns=1_000 * MS, computing_ns=100 * MS, transfer_ns=None)
        decides.run_over({"table": 900 * MS})
        decides.probed("table", transfer_ns=150 * MS)
    assert decides.decisions["table"].state == "returned"
    assert decides.decisions["table"].gained_seconds == 0.1


def test_what_would_take_longer_to_move_stays() -> None:
    decides = AutoPlacement("cpu")
    for _ in range(2):
        decides.executed("big", duration_ns=200 * MS, computing_ns=200 * MS, transfer_ns=None)
        decides.run_over({"big": 50 * MS})
        decides.probed("big", transfer_ns=40 * MS)
    assert decides.decisions["big"].state == "returned"


def test_what_holds_nobody_up_stays() -> None:
    """Nodes that wait, and nodes that compute without the GIL."""
    decides = AutoPlacement("cpu")
    for _ in range(5):
        decides.executed("reads", duration_ns=900 * MS, computing_ns=900 * MS, transfer_ns=None)
        decides.run_over({"reads": 2 * MS})
    assert (decides.decisions["reads"].state, decides.moved(["reads"])) == ("learning", {})


def test_what_cannot_be_pickled_stays(auto: Callable[..., FutureAdapter]) -> None:
    """A probe tells; and where none did, the call is made here instead."""
    adapter = auto()

    def guard() -> object:
        return threading.Lock()

    def uses(guard: object) -> int:
        import os

        return os.getpid()

    runs = driver_of(adapter, guard, uses)
    here = runs.execute(["uses"])["uses"]
    holding(adapter, "guard")
    runs.execute(["uses"])
    assert adapter.placement()["guard"].state == "unpicklable"
    moved(adapter, "uses")
    assert runs.execute(["uses"])["uses"] == here
    assert adapter.placement()["uses"].state == "unpicklable"


def test_a_result_that_cannot_be_pickled_fails_once(auto: Callable[..., FutureAdapter]) -> None:
    """The function has run: it is not run again."""
    adapter = auto()

    def guard() -> object:
        import threading

        return threading.Lock()

    moved(adapter, "guard")
    runs = driver_of(adapter, guard)
    with pytest.raises(NotPicklable, match="the result"):
        runs.execute(["guard"])
    assert runs.execute(["guard"])["guard"] is not None


def test_a_tag_goes_before(auto: Callable[..., FutureAdapter]) -> None:
    """A node that is asked to run on threads does."""
    adapter = auto()

    @run_on("threads")
    def stays() -> int:
        return os.getpid()

    moved(adapter, "stays")
    assert driver_of(adapter, stays).execute(["stays"]) == {"stays": os.getpid()}


def test_the_file_of_durations_keeps_it(auto: Callable[..., FutureAdapter], tmp_path: Path) -> None:
    """The next process begins where this one ended."""
    path = tmp_path / "durations.json"
    adapter = auto(durations=path)
    here = driver_of(adapter, pid).execute(["pid"])["pid"]
    moved(adapter, "pid")
    adapter.save_durations()
    again = auto(durations=path)
    assert again.placement()["pid"].state == "moved"
    assert driver_of(again, pid).execute(["pid"])["pid"] != here
    path.write_text(path.read_text().replace('"moved"', "7"))
    with pytest.raises(ValueError, match="'placement' that save_durations"):
        auto(durations=path)


def test_real_runs_move_what_holds_the_gil(auto: Callable[..., FutureAdapter]) -> None:
    """Four pure-Python nodes side by side, and one that sleeps, which stays."""

    def spin() -> int:
        import time

        end = time.thread_time() + 0.25
        while time.thread_time() < end:
            pass
        return 1

    def sleeps() -> int:
        import time

        time.sleep(0.2)
        return 1

    from hamilton.function_modifiers import parameterize, value

    @parameterize(**{f"spin_{number}": {"number": value(number)} for number in range(4)})
    def spun(number: int) -> int:
        return spin()

    adapter = auto()
    runs = driver_of(adapter, spun, sleeps)
    for _ in range(6):
        runs.execute([*(f"spin_{number}" for number in range(4)), "sleeps"])
        states = {name: decision.state for name, decision in adapter.placement().items()}
        if list(states.values()).count("moved") >= 3:
            break
    assert list(states.values()).count("moved") >= 3, states
    assert states["sleeps"] == "learning"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backends": {"db": Threads(1)}}, "run_on='auto' needs worker processes to place nodes on"),
        ({"backends": None}, "run_on='auto' needs worker processes"),
        ({"attribution": False}, "which attribution=False does not find out"),
    ],
)
def test_what_it_needs(auto: Callable[..., FutureAdapter], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auto(**options)


def test_an_adapter_that_decides_nothing_says_so(stage: Stage) -> None:
    with pytest.raises(RuntimeError, match="make it with FutureAdapter"):
        stage.adapter(FutureAdapter(1)).placement()
