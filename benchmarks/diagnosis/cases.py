"""What is planted, and which cause the first finding has to name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from traced_threadpool.analysis.diagnosis.causes import Cause
from traced_threadpool.analysis.trace_file import read_runs
from traced_threadpool.model.recorded_run import RecordedRun

ROOT: Final = Path(__file__).parents[2]
LIMIT_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program with a cause planted in it. Any of `causes` is right; the first one is the row of the matrix."""

    name: str
    module: str
    words: tuple[str, ...]
    causes: tuple[Cause, ...]


def _pathology(name: str, *causes: Cause) -> Case:
    return Case(name=name, module=f"examples.pathologies.{name}", words=(), causes=causes)


def _planted(name: str, *causes: Cause) -> Case:
    return Case(name=name, module="benchmarks.diagnosis.planted", words=(name,), causes=causes)


CASES: Final[Mapping[str, Case]] = {
    case.name: case
    for case in (
        _pathology("gil_bound", "gil_bound"),
        _planted("greedy_thread", "gil_bound"),
        _pathology("mixed", "gil_bound", "lock_contention", "slow_network"),
        _pathology("cpu_starved", "processor_starved"),
        _pathology("lock_convoy", "lock_contention"),
        _pathology("hidden_sleep", "sleeping_node"),
        _planted("polling", "sleeping_node"),
        _pathology("pool_starved", "pool_too_small"),
        _planted("straggling_shard", "straggler"),
        _planted("straggling_request", "straggler"),
        _pathology("slow_network", "slow_network"),
        _pathology("slow_disk", "slow_disk"),
        _pathology("transfer_bound", "transfer_bound"),
        _planted("long_chain", "critical_path"),
        _planted("slow_builder", "outside_nodes"),
        _planted("too_many_threads", "pool_too_large"),
        _planted("failing_input", "failing_upstream"),
        _planted("stopped", "cancelled"),
        _planted("lost_spans", "telemetry_loss"),
        _pathology("healthy", "healthy"),
        _planted("busy_processors", "healthy"),
        _planted("even_stages", "healthy"),
        _planted("shared_pool", "queued_behind_other_runs"),
        _planted("shared_lock", "lock_contention"),
        _planted("shared_semaphore", "lock_contention"),
    )
}


def record(case: Case, *, seed: int, scale: float, trace: Path) -> None:
    """Run it once in a process of its own, and append what was recorded to the file. Beside it, how busy others were.

    Raises:
        subprocess.CalledProcessError: The program failed; it has said why.
    """
    busy, own, began = _busy_seconds(), _own_seconds(), time.monotonic()
    subprocess.run(
        [
            *(sys.executable, "-m", case.module, *case.words),
            *("--seed", str(seed), "--scale", repr(scale), "--trace", str(trace)),
        ],
        cwd=ROOT,
        env={**os.environ, "HAMILTON_TELEMETRY_ENABLED": "false"},
        stdout=subprocess.DEVNULL,
        timeout=LIMIT_SECONDS,
        check=True,
    )
    others = _busy_seconds() - busy - (_own_seconds() - own)
    _company_of(trace).write_text(f"{max(0.0, others / (time.monotonic() - began) / (os.cpu_count() or 1)):.3f}")


def company(trace: Path) -> float:
    """Which part of all CPUs other programs had while the one of this trace ran; 0 where nobody knows."""
    file = _company_of(trace)
    return float(file.read_text()) if file.exists() else 0.0


def _company_of(trace: Path) -> Path:
    return trace.with_suffix(".company")


def _busy_seconds() -> float:
    """What all programs together have had of the CPUs, as the kernel counts it."""
    try:
        user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    except (OSError, ValueError):
        return 0.0
    return float(user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """What programs that were recorded have had of them."""
    times = os.times()
    return times.children_user + times.children_system


def read(trace: Path) -> RecordedRun:
    """The last of the file's whole runs: there may be one before that started worker processes, and lost nodes."""
    runs = read_runs(trace)
    whole = max(len(run.nodes) for run in runs)
    return [run for run in runs if len(run.nodes) == whole][-1]
