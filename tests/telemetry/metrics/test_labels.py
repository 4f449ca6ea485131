"""Labels: of several adapters, and of very many nodes."""

from __future__ import annotations

import functools
import gc
import re
import threading
import time
import weakref
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.dags import submit
from tests.telemetry.metrics.metric_nodes import GAUGES, gauges, needs_sdk
from tests.telemetry.small_nodes import joined, left, load, right
from tests.telemetry.telemetry_helpers import (
    Between,
    Caller,
    Gate,
    Traces,
    context_of,
    make_adapter,
    make_driver,
    samples,
    spend,
    until,
)
from traced_threadpool import Metrics


def test_adapters_of_two_names_are_told_apart(registry: CollectorRegistry) -> None:
    """Each has its own gauges and counters under its own name."""
    with (
        make_adapter(registry=registry, tracing=False, max_workers=1, name="one") as one,
        make_adapter(registry=registry, tracing=False, max_workers=3, name="two") as two,
    ):
        make_driver(one, load).execute(["load"])
        make_driver(two, load, left).execute(["left"])
        assert samples(registry, "hamilton_threadpool_max_workers") == {
            ("threads", "one"): 1.0,
            ("threads", "two"): 3.0,
        }
    assert samples(registry, "hamilton_nodes_total") == {
        ("load", "success", "one"): 1.0,
        ("load", "success", "two"): 1.0,
        ("left", "success", "two"): 1.0,
    }


def test_adapters_of_one_name_add_up(registry: CollectorRegistry) -> None:
    """Two of one name in one registry are shown as one pool; of their ages the oldest counts."""
    old, young = Gate(), Gate()
    with (
        make_adapter(registry=registry, tracing=False, max_workers=1) as one,
        make_adapter(registry=registry, tracing=False, max_workers=3) as two,
    ):
        started = time.monotonic()
        submit(one, old)
        old.wait_for()
        submit(one, load)
        spend(0.1)
        submit(two, young)
        young.wait_for()
        spend(0.1)
        shown = gauges(registry)
        expected = Between(0.2, time.monotonic() - started)
        assert shown == {
            "threadpool_queue_depth": {("threads", "default"): 1.0},
            "threadpool_blocked_nodes": {("threads", "default"): 0.0},
            "threadpool_active_workers": {("threads", "default"): 2.0},
            "threadpool_workers": {("threads", "default"): 2.0},
            "threadpool_max_workers": {("threads", "default"): 4.0},
            "threadpool_oldest_queued_seconds": {("threads", "default"): expected},
            "threadpool_oldest_active_seconds": {("threads", "default"): expected},
            "stalled_nodes": {("default",): 0.0},
            "runs_active": {("default", "hamilton.run"): 0.0},
        }
        old.open()
        young.open()
    assert samples(registry, "hamilton_nodes_total") == {
        ("Gate", "success", "default"): 2.0,
        ("load", "success", "default"): 1.0,
    }


def test_runs_of_one_pool_name_are_told_apart_by_their_name(registry: CollectorRegistry) -> None:
    """Adapters that share `name` and differ in `run_name`: pools add up, runs do not."""
    with (
        make_adapter(registry=registry, tracing=False, run_name="daily") as daily,
        make_adapter(registry=registry, tracing=False, run_name="hourly") as hourly,
    ):
        make_driver(daily, load).execute(["load"])
        make_driver(hourly, load).execute(["load"])
        assert set(samples(registry, "hamilton_runs_active")) == {("default", "daily"), ("default", "hourly")}
    assert samples(registry, "hamilton_run_duration_seconds_count") == {
        (outcome, "default", run): float(outcome == "success")
        for outcome in ("success", "error", "cancelled")
        for run in ("daily", "hourly")
    }


def test_dropped_adapter_leaves_its_counts(registry: CollectorRegistry) -> None:
    """The registry does not keep it alive: its gauges go with it, its counters stay, and a successor counts on."""
    adapter = make_adapter(registry=registry, tracing=False)
    make_driver(adapter, load).execute(["load"])
    gone = weakref.ref(adapter)
    del adapter
    gc.collect()
    assert gone() is None
    assert gauges(registry) == {name.removeprefix("hamilton_"): {} for name in GAUGES}
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 1.0}
    with make_adapter(registry=registry, tracing=False) as successor:
        make_driver(successor, load).execute(["load"])
    assert samples(registry, "hamilton_nodes_total") == {("load", "success", "default"): 2.0}


def test_registry_can_be_dropped() -> None:
    """An application's own registry is freed with the last adapter that counts into it."""
    registry: CollectorRegistry | None = CollectorRegistry()
    gone = weakref.ref(registry)
    with make_adapter(registry=registry, tracing=False) as adapter:
        make_driver(adapter, load).execute(["load"])
    del adapter, registry
    gc.collect()
    assert gone() is None


def test_scrapes_while_adapters_come_and_go(registry: CollectorRegistry) -> None:
    """Threads that make, use and drop adapters, while others scrape: no scrape fails, and no count is lost."""
    working = threading.Event()
    working.set()

    def come_and_go(number: int) -> int:
        for turn in range(10):
            adapter = make_adapter(registry=registry, tracing=False, max_workers=2, name=f"pool-{turn % 3}")
            make_driver(adapter, load, left).execute(["left"])
            if number % 2:
                adapter.close()
        return number

    def scrape() -> int:
        count = 0
        while working.is_set():
            generate_latest(registry)
            count += 1
        return count

    scrapers = [Caller(scrape), Caller(scrape)]
    workers = [Caller(functools.partial(come_and_go, number)) for number in range(3)]
    assert [worker.outcome() for worker in workers] == [0, 1, 2]
    working.clear()
    assert all(scraper.outcome() > 0 for scraper in scrapers)
    until(lambda: sum(samples(registry, "hamilton_nodes_total").values()) == 60.0)
    assert sum(samples(registry, "hamilton_run_duration_seconds_count").values()) == 30.0


@pytest.mark.parametrize(
    ("options", "pool"),
    [({}, "default"), ({"thread_name_prefix": "etl"}, "etl"), ({"thread_name_prefix": "etl", "name": "shop"}, "shop")],
    ids=["neither", "prefix", "name"],
)
def test_pool_is_called_by_name_or_prefix(registry: CollectorRegistry, options: dict[str, Any], pool: str) -> None:
    """`name=`, else `thread_name_prefix`, else `default`."""
    with make_adapter(registry=registry, tracing=False, **options):
        assert set(samples(registry, "hamilton_threadpool_workers")) == {("threads", pool)}


def test_quotes_and_backslashes_in_names_are_escaped(registry: CollectorRegistry) -> None:
    """Any printable name is a label value that comes back as it was."""
    name = 'a "b" \\ c {d="e"} ünïcode'
    with make_adapter(registry=registry, tracing=False, name=name, run_name=name) as adapter:
        make_driver(adapter, load).execute(["load"])
        until(lambda: adapter.snapshot().active_runs == 0)
        assert samples(registry, "hamilton_runs_active") == {(name, name): 0.0}
    assert r'pool="a \"b\" \\ c {d=\"e\"} ünïcode"' in generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("bad", "error"),
    [("", ValueError), ("  ", ValueError), ("two\nlines", ValueError), ("nul\0", ValueError), (7, TypeError)],
    ids=repr,
)
@pytest.mark.parametrize("option", ["name", "run_name"])
def test_name_that_is_no_label_value_is_refused(option: str, bad: Any, error: type[Exception]) -> None:
    """The message says which option, what was found and what to write instead."""
    with pytest.raises(error, match=rf"^{option} must be .*not {re.escape(repr(bad))}"):
        make_adapter(**{option: bad})


def test_prefix_that_is_no_label_value_is_made_one(registry: CollectorRegistry) -> None:
    """The documented argument takes any string, as Hamilton's own adapter does."""
    with make_adapter(registry=registry, tracing=False, thread_name_prefix="two\nlines"):
        assert set(samples(registry, "hamilton_threadpool_workers")) == {("threads", "two_lines")}


def test_nodes_beyond_the_cap_are_counted_as_other(registry: CollectorRegistry) -> None:
    """The first two nodes have a label value of their own, in all their outcomes; the rest share one, none is lost."""

    def flickers(fail: bool) -> int:
        if fail:
            raise ValueError("a message")
        return 1

    with make_adapter(registry=registry, tracing=False, max_workers=1, metrics=Metrics(max_node_labels=2)) as adapter:
        dr = make_driver(adapter, load, flickers, left, right, joined)
        for name in ("load", "flickers", "joined"):
            dr.execute([name], inputs={"fail": False})
        with pytest.raises(ValueError, match="a message"):
            dr.execute(["flickers"], inputs={"fail": True})
    assert samples(registry, "hamilton_nodes_total") == {
        ("load", "success", "default"): 2.0,
        ("flickers", "success", "default"): 1.0,
        ("flickers", "error", "default"): 1.0,
        ("_other", "success", "default"): 3.0,
    }
    assert set(samples(registry, "hamilton_node_duration_seconds_count")) == {
        ("load", "success", "default"),
        ("flickers", "success", "default"),
        ("flickers", "error", "default"),
        ("_other", "success", "default"),
    }
    assert {node for node, _, _ in samples(registry, "hamilton_node_time_seconds_total")} == {
        "load",
        "flickers",
        "_other",
    }


def test_node_label_can_be_switched_off(registry: CollectorRegistry) -> None:
    """`max_node_labels=0`: all nodes are counted under one value."""
    with make_adapter(registry=registry, tracing=False, metrics=Metrics(max_node_labels=0)) as adapter:
        make_driver(adapter, load, left).execute(["left"])
    assert samples(registry, "hamilton_nodes_total") == {("_other", "success", "default"): 2.0}


def test_cap_is_a_thousand_by_default(registry: CollectorRegistry) -> None:
    """Of 1,001 nodes one shares `_other`."""
    with make_adapter(registry=registry, tracing=False) as adapter:
        for number in range(1_001):

            def node() -> int:
                return 1

            node.__name__ = f"n{number}"
            submit(adapter, node)
    counted = samples(registry, "hamilton_nodes_total")
    assert len(counted) == 1_001
    assert counted["_other", "success", "default"] == 1.0


@pytest.mark.parametrize(("cap", "error"), [(-1, ValueError), (1.5, TypeError), ("many", TypeError), (True, TypeError)])
def test_cap_that_is_no_number_is_refused(cap: Any, error: type[Exception]) -> None:
    """A whole number, 0 or more."""
    with pytest.raises(error, match=r"^max_node_labels must be"):
        Metrics(max_node_labels=cap)


@needs_sdk
def test_no_id_and_no_value_is_a_label(registry: CollectorRegistry) -> None:
    """A scrape's labels are names and outcomes: no run's or trace's id, no input, no result, no message."""

    def shout(word: str) -> str:
        return word.upper()

    def complain(shout: str) -> str:
        raise ValueError(shout)

    traces = Traces()
    with make_adapter(traces, registry=registry) as adapter, pytest.raises(ValueError, match="SECRET"):
        make_driver(adapter, shout, complain).execute(["complain"], inputs={"word": "secret"})
    text = generate_latest(registry).decode()
    run = traces.only("hamilton.run")
    found = [
        word
        for word in (
            "secret",
            "SECRET",
            str(traces.attributes("hamilton.run")["hamilton.run.id"]),
            f"{context_of(run).trace_id:032x}",
            f"{context_of(run).span_id:016x}",
        )
        if word in text
    ]
    assert found == []
    assert 'node="complain"' in text
    assert set(re.findall(r'(\w+)="', text)) == {
        *("pool", "backend", "node", "outcome", "run", "state", "le"),
        *("method", "reason", "stage"),
    }
