"""The near side of a node on a cluster, whichever it is: places for values that are there, facts into a timing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from traced_threadpool.engine.backends.base import Timing
from traced_threadpool.engine.backends.cluster_worker import Facts
from traced_threadpool.engine.backends.errors import WorkerSetupError
from traced_threadpool.engine.backends.held import REMOTE
from traced_threadpool.engine.backends.host_clock import HostClock, host_clock
from traced_threadpool.engine.backends.pickling import Place
from traced_threadpool.model.states import unsampled

MAX_NODES: Final = 256
"""How many nodes are on their way at once by default. On Ray each holds a thread here, which waits."""


def placed(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Arguments with places for those that are on the cluster, and what stands for these."""
    upstream: list[Any] = []

    def place(values: list[Any], is_list: bool) -> Place:
        first = len(upstream)
        upstream.extend(each.remote for each in values)
        return Place(tuple(range(first, len(upstream))), is_list)

    found = {}
    for name, value in arguments.items():
        if type(value) in REMOTE:
            found[name] = place([value], is_list=False)
        elif type(value) is list and value and all(type(each) in REMOTE for each in value):
            found[name] = place(value, is_list=True)
        else:
            found[name] = value
    return found, upstream


def fill(timing: Timing, facts: Facts, *, began_ns: int, sent_ns: int) -> None:
    """What a worker tells of a call into its timing. What is neither the function's nor waiting is transfer.

    A call that was sent before its node began is timed from then on.
    """
    now_ns = time.monotonic_ns()
    there = HostClock(name=facts.clock_name, unix_offset_ns=facts.unix_offset_ns)
    taken_ns, until_ns, moved_by = host_clock().convert(
        there,
        started_ns=facts.received_ns,
        ended_ns=facts.ended_ns or facts.received_ns,
        sent_ns=sent_ns,
        received_ns=now_ns,
    )
    if not facts.started_ns:  # its arguments could not be read
        return
    timing.clock_correction_ns = abs(moved_by)
    sent_ns = max(sent_ns, began_ns)
    taken_ns, until_ns = max(taken_ns, began_ns), max(until_ns, began_ns)
    timing.ended_ns = until_ns
    function_ns = min(facts.ended_ns - facts.started_ns, until_ns - taken_ns)
    timing.started_ns = until_ns - function_ns
    timing.cpu_ns = min(facts.cpu_ns, function_ns)
    delay_ns = min(facts.runqueue_ns or 0, function_ns - timing.cpu_ns)
    timing.state_ns = unsampled(timing.cpu_ns, delay_ns, function_ns - timing.cpu_ns - delay_ns)
    timing.remote_queue_ns = max(0, taken_ns - sent_ns - facts.moved_ns)
    timing.transfer_ns = max(0, now_ns - began_ns - timing.remote_queue_ns - function_ns)


def setup_error(node: str, error: BaseException) -> WorkerSetupError:
    """What a node fails with that no worker was able to call."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "traced_threadpool":
        return WorkerSetupError(
            f"no worker of the cluster can run node {node!r}: traced_threadpool is not installed there; "
            "workers need the same version of it as this program"
        )
    return WorkerSetupError(f"no worker of the cluster can run node {node!r}: {error}")


def checked_resources(value: Any) -> dict[str, float] | None:
    """What a worker must have, by name."""
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"resources must map names to numbers, such as {{'GPU': 1}}, not {value!r}")
    return dict(value) if value else None


def checked_integer(name: str, value: Any, least: int | None = None) -> int:
    """A number such as a priority, or of tries."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")
    return value
