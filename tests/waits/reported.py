"""What spans and metrics tell of where nodes' time went, and adapters that sample closely."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from opentelemetry.sdk.trace import ReadableSpan
from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import Traces, make_adapter, samples, times
from traced_threadpool import Attribution, FutureAdapter

STATES = ("cpu", "gil", "runqueue", "network", "disk", "lock", "sleep", "transfer", "remote_queue", "other")

needs_sampling = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are sampled on Linux")


def sampling_closely(traces: Traces | None = None, **options: Any) -> FutureAdapter:
    """An adapter whose nodes are sampled as often as possible.

    On a machine whose CPUs others want, a sample costs more, and what a hundredth of a CPU pays for may be
    one or two in a short node.
    """
    return make_adapter(traces, attribution=Attribution(budget=1.0), **options)


def state_ns(span: ReadableSpan) -> dict[str, int]:
    """The states of a node's or run's span, those that are not 0."""
    attributes: dict[str, Any] = dict(span.attributes or {})
    kind = "node" if "hamilton.node.name" in attributes else "run"
    found = {state: attributes.get(f"hamilton.{kind}.wait.{state}.duration", 0) for state in STATES[1:]}
    found["cpu"] = attributes.get(f"hamilton.{kind}.cpu.duration", 0)
    return {state: round(seconds * 1e9) for state, seconds in found.items() if seconds}


def duration_ns(span: ReadableSpan) -> int:
    started, ended = times(span)
    return ended - started


def shares(span: ReadableSpan) -> dict[str, float]:
    return {state: one_ns / duration_ns(span) for state, one_ns in state_ns(span).items()}


def counted_ns(registry: CollectorRegistry) -> dict[str, Counter[str]]:
    """The time counted by node and state."""
    result: dict[str, Counter[str]] = {}
    for (node, _, state), seconds in samples(registry, "hamilton_node_time_seconds_total").items():
        result.setdefault(node, Counter())[state] = round(seconds * 1e9)
    return result


def counted_durations_ns(registry: CollectorRegistry) -> Counter[str]:
    result: Counter[str] = Counter()
    for (node, _, _), seconds in samples(registry, "hamilton_node_duration_seconds_sum").items():
        result[node] += round(seconds * 1e9)
    return result


@contextmanager
def hogging(name: str) -> Iterator[None]:
    """A thread of this name that computes and never rests."""
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            pass

    thread = threading.Thread(target=spin, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
