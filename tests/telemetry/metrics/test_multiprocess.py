"""Prometheus' multiprocess mode: several processes write, and whoever is scraped shows the sum."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.telemetry.telemetry_helpers import COUNTED_FROM_ZERO, run_program
from traced_threadpool.telemetry import names

pytestmark = pytest.mark.slow

PRELUDE = """
import os, sys, threading, time
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from hamilton import ad_hoc_utils, driver
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from traced_threadpool import FutureAdapter, Metrics

def load() -> int: return 1
def left(load: int) -> int: return load + 1
def fails(load: int) -> int: raise ValueError("a message")
def after(fails: int) -> int: return fails

def driver_of(adapter, *functions):
    module = ad_hoc_utils.create_temporary_module(*functions)
    return driver.Builder().with_modules(module).with_adapters(adapter).build()

def scrape(prefix="hamilton_"):
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    print(generate_latest(registry).decode().replace("hamilton_", prefix))
"""

Figures = dict[str, dict[tuple[str, ...], float]]


def run(tmp_path: Path, program: str) -> Figures:
    """What the program printed as a scrape: by sample's name, then by the values of the labels in their order."""
    script = tmp_path / "program.py"
    script.write_text(PRELUDE + program)
    files = tmp_path / "files"
    files.mkdir(exist_ok=True)
    printed = run_program(
        f"""
        import runpy, sys
        sys.argv = ["program.py", {str(files)!r}]
        runpy.run_path({str(script)!r}, run_name="__main__")
        """,
        ["-W", "ignore::DeprecationWarning"],  # of forking with threads
    )
    figures: Figures = {}
    for family in text_string_to_metric_families(printed):
        for sample in family.samples:
            values = tuple(value for _, value in sorted(sample.labels.items()))
            if sample.value or sample.name.replace("own_", "hamilton_") not in COUNTED_FROM_ZERO:
                figures.setdefault(sample.name, {})[values] = sample.value
    return figures


def test_every_metric_is_there(tmp_path: Path) -> None:
    """Each of the inventory, with a sample, while a node runs: none is absent, and no gauge is a silent zero."""
    figures = run(
        tmp_path,
        """
entered, go = threading.Event(), threading.Event()
def held() -> int:
    entered.set()
    go.wait(60)
    return 1
adapter = FutureAdapter(max_workers=2, name="shop")
driver_of(adapter, load, left).execute(["left"])
try:
    driver_of(adapter, load, fails, after).execute(["after"])
except ValueError:
    pass
adapter._assembly.errors.record("a test", ValueError("a message"))
adapter.build_result = lambda **outputs: outputs
outputs = driver_of(adapter, held).execute(["held"])
entered.wait(60)
adapter._assembly.pushed[-1].flush()
adapter._assembly.pushed[-1]._mirror.write()
scrape()
go.set()
outputs["held"].result()
adapter.close()
""",
    )
    for metric in names.METRICS:
        sample = metric.prometheus + ("_count" if metric.kind == "histogram" else "")
        assert figures.get(sample), metric
    assert figures["hamilton_threadpool_active_workers"] == {("threads", "shop"): 1}
    assert figures["hamilton_threadpool_max_workers"] == {("threads", "shop"): 2}
    assert figures["hamilton_runs_active"] == {("shop", "hamilton.run"): 1}
    assert figures["hamilton_threadpool_oldest_active_seconds"]["threads", "shop"] > 0
    assert figures["hamilton_nodes_total"] == {
        ("load", "success", "shop"): 2,
        ("left", "success", "shop"): 1,
        ("fails", "error", "shop"): 1,
        ("after", "upstream_error", "shop"): 1,
    }
    assert figures["hamilton_node_duration_seconds_count"] == {
        ("load", "success", "shop"): 2,
        ("left", "success", "shop"): 1,
        ("fails", "error", "shop"): 1,
    }


def test_figures_are_those_of_the_process_itself(tmp_path: Path) -> None:
    """Counts, buckets and sums are what the process's own registry has, and the states add up to the durations."""
    figures = run(
        tmp_path,
        """
with FutureAdapter(max_workers=2, registry=(own := CollectorRegistry())) as adapter:
    dr = driver_of(adapter, load, left)
    for _ in range(50):
        dr.execute(["left"])
scrape()
print(generate_latest(own).decode().replace("hamilton_", "own_"))
""",
    )
    moving = {"own_gil_probe_wait_seconds_total", "own_run_last_success_timestamp_seconds"}
    own = {name for name in figures if name.startswith("own_")} - moving
    assert {"own_nodes_total", "own_node_duration_seconds_sum", "own_run_critical_path_seconds_total"} <= own
    for name in own:
        assert figures[name.replace("own_", "hamilton_")] == pytest.approx(figures[name]), name
    spent = sum(figures["hamilton_node_time_seconds_total"].values())
    assert spent == pytest.approx(sum(figures["hamilton_node_duration_seconds_sum"].values()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_workers_add_up(tmp_path: Path) -> None:
    """As under gunicorn: the parent counts, then forks; each child adds its own runs, and none counts the parent's."""
    figures = run(
        tmp_path,
        """
adapter = FutureAdapter(max_workers=2, name="shop")
dr = driver_of(adapter, load, left)
for _ in range(10):
    dr.execute(["left"])
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(20):
            dr.execute(["left"])
        adapter.close()
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
    mark_process_dead(child)
adapter.close()
scrape()
""",
    )
    assert figures["hamilton_nodes_total"] == {("left", "success", "shop"): 70, ("load", "success", "shop"): 70}
    assert figures["hamilton_node_duration_seconds_count"] == figures["hamilton_nodes_total"]
    runs = {labels: count for labels, count in figures["hamilton_run_duration_seconds_count"].items() if count}
    assert runs == {("success", "shop", "hamilton.run"): 70}
    assert figures["hamilton_threadpool_queue_wait_seconds_count"] == {("threads", "shop"): 140}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_gauges_go_with_the_process(tmp_path: Path) -> None:
    """Of processes that were killed they are gone once these are marked as dead; their counts and last success stay.

    Until then they add up, but for ages, of which the oldest counts.
    """
    figures = run(
        tmp_path,
        """
from traced_threadpool.telemetry import names
children = []
for number in (1, 2):
    child = os.fork()
    if child == 0:
        def held() -> int:
            mirror = adapter._assembly.pushed[-1]._mirror
            mirror.write()
            print(f'own_age{{n="{number}"}} {mirror._shown[names.OLDEST_ACTIVE, ("shop", "threads")]!r}', flush=True)
            os.kill(os.getpid(), 9)
        adapter = FutureAdapter(max_workers=3, name="shop")
        driver_of(adapter, load).execute(["load"])
        driver_of(adapter, held).execute(["held"])
    assert os.waitpid(child, 0)[1] == 9
    children.append(child)
scrape("killed_")
for child in children:
    mark_process_dead(child)
scrape()
""",
    )
    assert figures["killed_threadpool_active_workers"] == {("threads", "shop"): 2}
    assert figures["killed_threadpool_max_workers"] == {("threads", "shop"): 6}
    assert figures["killed_threadpool_oldest_active_seconds"] == {("threads", "shop"): max(figures["own_age"].values())}
    assert [name for name in figures if name.startswith("hamilton_threadpool_") and "queue_wait" not in name] == []
    assert figures["hamilton_nodes_total"] == {("load", "success", "shop"): 2}
    assert figures["hamilton_run_last_success_timestamp_seconds"].keys() == {("shop", "hamilton.run")}


def test_a_closed_adapter_shows_zeros(tmp_path: Path) -> None:
    """Its gauges cannot be taken out of a file, so they are 0, and not what they last were."""
    figures = run(
        tmp_path,
        """
with FutureAdapter(max_workers=3, name="shop") as adapter:
    driver_of(adapter, load).execute(["load"])
scrape()
""",
    )
    assert figures["hamilton_threadpool_max_workers"] == {("threads", "shop"): 0}
    assert figures["hamilton_threadpool_workers"] == {("threads", "shop"): 0}


def test_writing_ends_with_the_nodes(tmp_path: Path) -> None:
    """The thread writes once more when nodes have ended, ends, and comes back with the next run."""
    figures = run(
        tmp_path,
        """
seen = []
def load() -> int:
    seen.extend(each for each in threading.enumerate() if each.name == "traced-threadpool-multiprocess")
    return 1
adapter = FutureAdapter(name="shop")
dr = driver_of(adapter, load)
for count in (1, 2):
    dr.execute(["load"])
    assert len(seen) == count, seen
    adapter._assembly.pushed[-1].flush()
    # It may have ended, and have been started once more by what was counted after the node.
    for thread in [each for each in threading.enumerate() if each.name == "traced-threadpool-multiprocess"]:
        thread.join(60)
    assert not seen[-1].is_alive()
scrape()
""",
    )
    assert figures["hamilton_nodes_total"] == {("load", "success", "shop"): 2}
    assert figures["hamilton_threadpool_active_workers"] == {("threads", "shop"): 0}


@pytest.mark.skipif(sys.platform == "win32", reason="a directory in use cannot be removed there")
def test_a_directory_that_is_not_there_costs_the_metrics(tmp_path: Path) -> None:
    """The run succeeds; the failure is counted."""
    run(
        tmp_path,
        """
os.rmdir(sys.argv[1])
adapter = FutureAdapter()
assert driver_of(adapter, load).execute(["load"]) == {"load": 1}
assert adapter.telemetry_errors == {"multiprocess": 1}, adapter.telemetry_errors
""",
    )


def test_two_bounds_are_refused(tmp_path: Path) -> None:
    """The files are the process's: two adapters agree on bounds there, whatever their registries."""
    run(
        tmp_path,
        """
FutureAdapter(registry=CollectorRegistry(), metrics=Metrics(run_duration_buckets=(1, 30)))
try:
    FutureAdapter(registry=CollectorRegistry(), metrics=Metrics(run_duration_buckets=(2, 30)))
except ValueError as error:
    assert "in multiprocess mode, has hamilton_run_duration_seconds with the bounds (1.0, 30.0)" in str(error), error
else:
    raise AssertionError("not refused")
""",
    )
