"""Real runs with one thing wrong about where their nodes run, alone and while others use the CPUs: what is said first.

Each has a counterpart that is right, of which it is not said.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks.diagnosis.work import compute_in_python, compute_without_lock
from tests.analysis.test_real_replays import named
from tests.dags import driver_of
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis.diagnosis.analyzed_run import AnalyzedRun
from traced_threadpool.analysis.diagnosis.detect_backends import switch_interval
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.records import usable_cpus

pytestmark = [pytest.mark.measures, pytest.mark.slow]

needs_gil = pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="there is no GIL here")


@pytest.fixture(autouse=True, params=[False, True], ids=["alone", "beside others"])
def _company(request: pytest.FixtureRequest) -> Iterator[None]:
    """As many programs as CPUs, each of which would use one up."""
    with ExitStack() as stack:
        for _ in range(usable_cpus() if request.param else 0):
            program = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(program.kill)
        yield


def last_run(adapter: FutureAdapter, functions: Sequence[Callable[..., Any]]) -> RecordedRun:
    """Of three: the first one starts processes and samplers."""
    runs = driver_of(adapter, *functions)
    for _ in range(3):
        runs.execute([function.__name__ for function in functions])
    return adapter.recorded_runs[-1]


def causes(run: RecordedRun) -> list[str]:
    return [found.cause for found in diagnose(run).findings]


# The switch interval


def beside_io(compute: Callable[[float], object]) -> RecordedRun:
    """Four nodes that compute 0.3 s each, and 24 that mostly wait, on 32 workers."""

    def wait() -> None:
        for _ in range(10):
            time.sleep(0.01)

    functions = [named(f"parse_{number}", lambda: compute(0.3) and None) for number in range(4)]
    functions += [named(f"fetch_{number:02}", wait) for number in range(24)]
    with FutureAdapter(32, record=3, tracing=False, metrics=False) as adapter:
        run = last_run(adapter, functions)
    if run.attribution != "process":
        pytest.skip(f"states are not told apart here: {run.attribution_reason}")
    return run


def gil_of_io(run: RecordedRun) -> float:
    """How long the nodes that wait wanted the GIL."""
    return sum(node.states.get("gil", 0) for node in run.nodes if node.name.startswith("fetch")) / 1e9


@needs_gil
def test_the_switch_interval_where_io_waits_for_those_who_hold_the_gil() -> None:
    """It is recommended, by the nodes that suffer and those that hold the GIL; and doing so helps them.

    Beside others that have the CPUs it is found too, though it may be the fourth cause, of which three are told.
    """
    run = beside_io(compute_in_python)
    ranked = switch_interval(AnalyzedRun(run))
    assert ranked is not None
    found = ranked.finding
    assert {"switch_interval", "processor_starved"} & set(causes(run))
    assert all(name.startswith("fetch_") for name in found.nodes)
    theirs = [node.states.get("gil", 0) / 1e9 for node in run.nodes if node.name in found.nodes]
    assert sum(theirs) >= 0.95 * gil_of_io(run)
    assert "sys.setswitchinterval(0.0005)" in found.advice
    assert "parse_" in found.evidence[-1]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        assert gil_of_io(beside_io(compute_in_python)) < gil_of_io(run) / 2
    finally:
        sys.setswitchinterval(usual)


@needs_gil
def test_no_switch_interval_where_the_gil_is_let_go_of() -> None:
    """As much computing, in C."""
    assert "switch_interval" not in causes(beside_io(compute_without_lock))


# Backends

OF_BACKENDS = {"transfer_bound", "too_small_for_backend", "remote_queue_bound"}


def made(name: str, source: str) -> Callable[..., Any]:
    """A function of this source, which workers get by value."""
    place: dict[str, Any] = {"__name__": "__main__"}
    exec(source, place)
    function: Callable[..., Any] = place[name]
    return function


def trains(seconds: float, count: int) -> list[Callable[..., Any]]:
    """Nodes that take so long."""
    body = f"    import time\n    time.sleep({seconds})\n    return 1\n"
    return [made(f"train_{number}", f"def train_{number}() -> int:\n{body}") for number in range(count)]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Of a cluster with two workers, one node each at once."""
    distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def on_dask(client: Any, functions: Sequence[Callable[..., Any]]) -> list[str]:
    from traced_threadpool.backends import Dask

    options: dict[str, Any] = {"tracing": False, "metrics": False, "record": 3}
    with FutureAdapter(8, backends={"far": Dask(client)}, run_on="far", **options) as adapter:
        return causes(last_run(adapter, functions))


def test_nodes_that_are_too_small_for_a_cluster(client: Any) -> None:
    """A chain of nodes that do nothing."""
    chain = [
        made(f"step_{number}", f"def step_{number}({f'step_{number - 1}: int' if number else ''}) -> int: return 1")
        for number in range(20)
    ]
    assert on_dask(client, chain)[0] == "too_small_for_backend"


def test_nodes_that_wait_for_a_worker_of_a_cluster(client: Any) -> None:
    """Eight at once on two workers."""
    assert on_dask(client, trains(0.2, 8))[0] == "remote_queue_bound"


def test_nodes_that_are_large_enough_and_wait_for_nobody(client: Any) -> None:
    """Two on two workers, whose calls are a small part of theirs."""
    assert OF_BACKENDS.isdisjoint(on_dask(client, trains(0.5, 2)))


def tiles(size: int, take: str) -> list[Callable[..., Any]]:
    """Nodes that are handed so many bytes, and what they do with them."""
    return [
        made(name, source)
        for number in range(3)
        for name, source in (
            (f"load_{number}", f"def load_{number}() -> bytes: return bytes({size})"),
            (f"tile_{number}", f"def tile_{number}(load_{number}: bytes) -> object:\n{take.format(f'load_{number}')}"),
        )
    ]


@pytest.mark.parametrize(
    ("size", "take", "is_told"),
    [
        (40_000_000, "    return {}[1:]\n", True),
        (400_000, "    import time\n    time.sleep(0.5)\n    return {}[1:]\n", False),
    ],
    ids=["large and short", "small and long"],
)
def test_nodes_that_are_moved_for_longer_than_they_gain(size: int, take: str, is_told: bool) -> None:
    """To worker processes and back."""
    pytest.importorskip("cloudpickle", reason="the extra [processes] is not installed")
    from traced_threadpool.backends import Processes

    where = {f"tile_{number}": "cpu" for number in range(3)}
    options: dict[str, Any] = {"tracing": False, "metrics": False, "record": 3}
    with FutureAdapter(8, backends={"cpu": Processes(3)}, run_on=where, **options) as adapter:
        found = causes(last_run(adapter, tiles(size, take)))
    assert ("transfer_bound" in found[:1], "transfer_bound" in found) == (is_told, is_told), found
