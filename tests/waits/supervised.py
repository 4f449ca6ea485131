"""A supervisor of the test's own, in place of the process's, and what there is of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")


from tests.telemetry import telemetry_helpers
from tests.telemetry.telemetry_helpers import Caller, Gate, Traces, make_driver, until
from traced_threadpool import FutureAdapter
from traced_threadpool.waits.supervisor import Supervisor


class Using:
    """Has `make_adapter` make adapters with a supervisor of their own; it is gone at the end of the test."""

    supervisors: ClassVar[list[Supervisor]] = []

    def __call__(self, **options: Any) -> Supervisor:
        supervisor = Supervisor(**{"closed_seconds": 0.0, **options})
        self.supervisors.append(supervisor)
        return supervisor


def make_adapter(traces: Traces | None = None, **options: Any) -> FutureAdapter:
    """An adapter with the supervisor that the test uses, if it uses one."""
    return telemetry_helpers.make_adapter(traces, waits=Using.supervisors[-1] if Using.supervisors else None, **options)


def work(seconds: float) -> None:
    def naps() -> int:
        time.sleep(seconds)
        return 1

    with make_adapter(tracing=False) as adapter:
        make_driver(adapter, naps).execute(["naps"])


def start(supervisor: Supervisor) -> int:
    """Works until the sampler is there; its process."""

    def naps() -> int:
        time.sleep(0.06)
        return 1

    with make_adapter(tracing=False) as adapter:  # while one is open, it stays
        driver = make_driver(adapter, naps)
        until(lambda: bool(driver.execute(["naps"])) and supervisor.method.method == "process")
        assert supervisor._sampler is not None
        return supervisor._sampler.process.pid


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "traced_threadpool"]


@contextmanager
def held_node(**options: Any) -> Iterator[None]:
    """While a node runs, until the end of the block."""
    gate = Gate()

    def held() -> int:
        gate()
        return 1

    with make_adapter(tracing=False, **options) as adapter:
        caller = Caller(lambda: make_driver(adapter, held).execute(["held"]))
        gate.wait_for()
        try:
            yield
        finally:
            gate.open()
            assert caller.outcome() == {"held": 1}


def our_files() -> list[str]:
    """Links of descriptors that could be the sampler's."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            link = str(each.readlink())
        except OSError:
            continue
        if "traced-threadpool-waits" in link or link.endswith(("/schedstat", "/syscall", "/mem")):
            found.append(link)
    return found


def exists(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for pid 1 to collect it."""
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return False


def no(*_: Any, **__: Any) -> Any:
    raise OSError("not here")
