"""What cannot be known on some platforms and under some limits is told, and the rest is right."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from prometheus_client import CollectorRegistry

from tests.telemetry.telemetry_helpers import Traces, make_driver, samples, spend, threads_switched_often, until
from tests.waits.supervised import Using, held_node, make_adapter, no, our_files, said, start, work
from traced_threadpool import Attribution
from traced_threadpool.model import states
from traced_threadpool.waits import calibrate, reasons, spawn, worker_rows
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits import supervisor as module
from traced_threadpool.waits.reasons import REASONS, Method
from traced_threadpool.waits.supervisor import Supervisor

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are sampled on Linux")

LEAST_ROUNDS = 10
"""Of samples. One alone may come as the node begins to wait, or ends."""


def rounds_of(supervisor: Supervisor) -> int:
    """How many rounds its sampler has made."""
    memory = supervisor._memory
    return 0 if memory is None else memory.words[shm.ROUNDS]


STATES = ("gil", "runqueue", "network", "disk", "lock", "sleep", "other")


def unreadable(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    (folder / "self").symlink_to("/proc/self")
    return {"proc": folder}


def without_schedstat(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(worker_rows, "RunQueueDelay", no)
    return {}


def another_architecture(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr("platform.machine", lambda: "s390x")
    return {}


def another_c_library(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(calibrate, "_futex_word", lambda text, number: None)
    return {}


def not_linux(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(sys, "platform", "darwin")
    patch.setattr(worker_rows, "RunQueueDelay", no)
    return {}


def free_threaded(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    return {}


def subinterpreter(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(reasons, "in_subinterpreter", lambda: True)
    return {}


def embedded(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(sys, "executable", "")
    patch.setattr(sys, "base_prefix", str(folder))
    return {}


def frozen(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(sys, "frozen", True, raising=False)
    return {}


def without_ctypes(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setitem(sys.modules, "ctypes", None)
    return {}


def without_memfd(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.delattr(os, "memfd_create")
    return {}


def too_many_workers(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(shm, "MAX_WORKERS", 0)
    return {}


def too_many_files(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(worker_rows, "MAX_DELAY_FILES", 0)
    return {}


def no_process(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(spawn._Unseen, "spawn", no)
    patch.setattr(os, "posix_spawn", no)
    return {}


def old_c_library(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    def posix_spawn(*_: Any, **__: Any) -> int:
        raise NotImplementedError("setsid unavailable on this platform")

    patch.setattr(spawn._Unseen, "spawn", no)
    patch.setattr(os, "posix_spawn", posix_spawn)
    return {}


def no_shared_memory(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(os, "memfd_create", no)
    return {}


def another_program(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    patch.setattr(spawn, "_PROGRAM", "raise SystemExit(1)")
    return {}


@pytest.mark.parametrize(
    ("lacking", "method", "reason", "sleep_is"),
    [
        (unreadable, "none", "proc_unreadable", "other"),
        (without_schedstat, "process", "runqueue_unknown", "sleep"),
        (another_architecture, "none", "unknown_architecture", "other"),
        (another_c_library, "process", "gil_not_found", "sleep"),
        (not_linux, "none", "unsupported_platform", "other"),
        (free_threaded, "process", "free_threaded", "sleep"),
        (subinterpreter, "none", "subinterpreter", "other"),
        (embedded, "none", "no_interpreter", "other"),
        (frozen, "none", "no_interpreter", "other"),
        (without_ctypes, "process", "runqueue_unknown,gil_not_found", "sleep"),
        (without_memfd, "none", "unsupported_platform", "other"),
        (too_many_workers, "none", "warming_up,too_many_workers", "other"),
        (too_many_files, "process", "runqueue_unknown", "sleep"),
        (no_process, "none", "sampler_failed", "other"),
        (old_c_library, "none", "sampler_failed", "other"),
        (no_shared_memory, "none", "sampler_failed", "other"),
        (another_program, "none", "sampler_failed", "other"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_missing_is_said_and_the_rest_is_right(
    using: Using,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    lacking: Callable[[pytest.MonkeyPatch, Path], dict[str, Any]],
    method: str,
    reason: str,
    sleep_is: str,
) -> None:
    """Once in the log at INFO, on the run's span, in the info metric; the states add up, and none is a guess."""

    def computes() -> int:
        spend(0.05, time.thread_time)
        return 1

    def naps(computes: int) -> int:
        """Until it was sampled often enough, however busy the machine is."""
        rounds = rounds_of(supervisor)
        time.sleep(0.3)
        while supervisor.method.method != "none" and rounds_of(supervisor) < rounds + LEAST_ROUNDS:
            time.sleep(0.1)
        return 1

    caplog.set_level(logging.INFO, "traced_threadpool")
    traces, registry = Traces(), CollectorRegistry()
    with monkeypatch.context() as patch:
        supervisor = using(**lacking(patch, tmp_path))
        with make_adapter(traces, registry=registry, max_workers=1, attribution=Attribution(budget=1.0)) as adapter:
            driver = make_driver(adapter, computes, naps)
            # The sampler, or what it lacks, takes its time to come on a busy machine.
            until(lambda: bool(driver.execute(["naps"])) and supervisor.method == Method(method=method, reason=reason))
            traces.clear()
            driver.execute(["naps"])
            info = samples(registry, "hamilton_attribution_info")
            reasons = [each for each in reason.split(",") if each != "warming_up"]
            until(lambda: len(said(caplog)) >= len(reasons))
            assert adapter.telemetry_errors == {}

    run = traces.attributes("hamilton.run")
    assert (run["hamilton.attribution.method"], run["hamilton.attribution.reason"]) == (method, reason)
    assert info == {(method, reason): 1}
    assert {record.levelno for record in said(caplog)} == {logging.INFO}
    assert sorted(record.getMessage().partition(" (")[0] for record in said(caplog)) == sorted(
        f"where nodes wait is not fully known: {REASONS[each]}" for each in reasons
    )

    for name in ("computes", "naps"):
        span, attributes = traces.only(name), traces.attributes(name)
        states = {state: attributes.get(f"hamilton.node.wait.{state}.duration", 0.0) for state in STATES}
        total_ns = sum(round(one * 1e9) for one in (*states.values(), attributes["hamilton.node.cpu.duration"]))
        assert span.start_time is not None
        assert span.end_time is not None
        assert total_ns == span.end_time - span.start_time
        if name == "naps":
            assert states[sleep_is] > 0.25, states
        else:
            assert attributes["hamilton.node.cpu.duration"] > 0.04
        if method == "none":
            assert not {state for state, one in states.items() if one} - {"other", "runqueue"}
        if {"runqueue_unknown", "too_many_workers", "unsupported_platform"} & set(reasons) and lacking != without_memfd:
            assert states["runqueue"] == 0
        if reason in ("free_threaded", "gil_not_found"):
            assert states["gil"] == 0


def test_the_documentation_has_each_reason_and_each_state() -> None:
    """In its tables, and no other."""
    text = (Path(__file__).parents[2] / "docs" / "waits.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall("`([a-z_]+)`", row)]
    assert Counter(named) == Counter([*states.STATES, *REASONS])


def test_without_a_lock_to_wait_for_nothing_waits_for_it(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a free-threaded interpreter the process's counter stands still, whatever the threads do."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    supervisor = using()
    with threads_switched_often():
        work(0.3)
    assert supervisor.gil_wait_seconds == 0


def test_a_sampler_that_could_not_be_started_is_tried_again(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; nothing is to be done for it."""
    supervisor = using(closed_seconds=10.0)
    with monkeypatch.context() as patch:
        no_process(patch, Path())
        with held_node():
            until(lambda: supervisor.method.reason == "sampler_failed")
    assert supervisor.method == Method(method="none", reason="sampler_failed")
    work(0.2)
    assert supervisor.method == Method(method="none", reason="sampler_failed")
    monkeypatch.setattr(module, "RESTART_SECONDS", 0.0)
    start(supervisor)
    assert supervisor.method == Method(method="process")


def test_the_gil_is_looked_for_again(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, and while nodes go on, for on a machine with much else to do the first try may see too little."""
    supervisor = using(closed_seconds=10.0)
    with held_node():
        with monkeypatch.context() as patch:
            another_c_library(patch, Path())
            until(lambda: supervisor.method == Method(method="process", reason="gil_not_found"))
        first = supervisor._sampler
        monkeypatch.setattr(module, "RESTART_SECONDS", 0.0)
        until(lambda: supervisor.method == Method(method="process"))
        assert first is not None
        assert first.process.has_ended()


def test_a_gil_that_cannot_be_found_is_given_up(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try holds it for a moment, so there are few."""
    supervisor = using(closed_seconds=10.0)
    monkeypatch.setattr(module, "RESTART_SECONDS", 0.0)
    tries = []

    def finds_nothing(**_: Any) -> NoReturn:
        tries.append(1)
        raise calibrate.NoCalibration("no majority")

    monkeypatch.setattr(module, "calibrate", finds_nothing)
    with held_node(attribution=Attribution(budget=1.0)):
        until(lambda: len(tries) == module.GIL_TRIES)
        until(lambda: supervisor.method == Method(method="process", reason="gil_not_found"))
        assert supervisor._memory is not None
        words = supervisor._memory.words
        rounds = words[shm.ROUNDS]
        until(lambda: words[shm.ROUNDS] > rounds + 100)
    assert len(tries) == module.GIL_TRIES


def test_no_descriptor_is_left(using: Using, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node pays for one try, no more, and no file of ours stays open."""
    tries = []

    def too_many_open(*_: Any) -> int:
        tries.append(1)
        raise OSError(24, "Too many open files")

    before = our_files()
    supervisor = using()
    monkeypatch.setattr(os, "ftruncate", too_many_open)
    for _ in range(3):
        work(0.0)
    assert (len(tries), our_files()) == (1, before)
    assert supervisor.method == Method(method="none", reason="sampler_failed")
