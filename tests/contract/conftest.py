"""Each of the two adapters, for tests that run on both; executors; and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from hamilton.execution.executors import MultiThreadingExecutor, SynchronousLocalTaskExecutor, TaskExecutor

from tests.contract.shared import BOTH, AdapterClass, MakeAdapter
from tests.dags import Stage


@pytest.fixture(params=BOTH)
def adapter_class(request: pytest.FixtureRequest, no_thread_left: None) -> AdapterClass:
    """The class under test."""
    chosen: AdapterClass = request.param
    return chosen


@pytest.fixture
def make_adapter(adapter_class: AdapterClass, stage: Stage) -> MakeAdapter:
    """Makes adapters that are closed at the test's end."""
    return lambda *arguments, **keywords: stage.adapter(adapter_class(*arguments, **keywords))


@pytest.fixture(
    params=[
        pytest.param(SynchronousLocalTaskExecutor, id="synchronous"),
        pytest.param(lambda: MultiThreadingExecutor(max_tasks=3), id="multithreading"),
    ]
)
def remote_executor(request: pytest.FixtureRequest) -> TaskExecutor:
    """Hamilton's executors that run branches in this process."""
    made: TaskExecutor = request.param()
    return made


@pytest.fixture
def press_ctrl_c() -> Iterator[Callable[[], None]]:
    """Interrupts the main thread, once.

    The race: a signal that comes between a thread's last instruction and its wait for a lock is noticed only after
    that wait. So it is sent until it is noticed.
    """
    noticed = threading.Event()

    def handle(signal_number: int, frame: object) -> None:
        if not noticed.is_set():
            noticed.set()
            raise KeyboardInterrupt

    def press() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not noticed.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            noticed.wait(0.05)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield press
    finally:
        signal.signal(signal.SIGINT, before)
