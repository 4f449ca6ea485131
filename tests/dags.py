"""Small DAGs, drivers that run them on an adapter, and waits that fail instead of hanging.

    adapter = stage.adapter(FutureAdapter(2))
    driver_of(adapter, load, clean).execute(["clean"])

`stage` is the fixture of a `Stage`. A function handed to `driver_of` is a node of that name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

from hamilton import ad_hoc_utils, driver
from hamilton.execution.executors import SynchronousLocalTaskExecutor, TaskExecutor

import traced_threadpool

PATIENCE = 60.0
"""Seconds that a test waits for what must come. It is not reached when the test passes."""

PROCESS_PATIENCE = 150.0
"""The same for a process, which takes a second to start on an idle machine."""

REFUTATION = 0.3
"""Seconds that a test waits for what cannot come, however long it waits."""

Adapter = TypeVar("Adapter")


def driver_of(
    adapter: Any, *functions: Callable[..., Any], others: Sequence[Any] = (), config: dict[str, Any] | None = None
) -> driver.Driver:
    """A driver whose nodes are these functions, with the adapter and, after it, other ones."""
    return _builder(functions, [adapter, *others]).with_config(config or {}).build()


def dynamic_driver_of(
    adapter: Any,
    *functions: Callable[..., Any],
    remote_executor: TaskExecutor | None = None,
    others: Sequence[Any] = (),
) -> driver.Driver:
    """The same for DAGs with `Parallelizable` and `Collect`."""
    return (
        _builder(functions, [*([] if adapter is None else [adapter]), *others])
        .enable_dynamic_execution(allow_experimental_mode=True)
        .with_remote_executor(remote_executor or SynchronousLocalTaskExecutor())
        .build()
    )


def _builder(functions: Sequence[Callable[..., Any]], adapters: Sequence[Any]) -> driver.Builder:
    module = ad_hoc_utils.create_temporary_module(*functions)
    return driver.Builder().with_modules(module).with_adapters(*adapters)


def start(runs: Any, outputs: list[str], inputs: dict[str, Any] | None = None) -> dict[str, Future[Any]]:
    """Starts a run and returns its outputs' futures: the adapter builds its result without waiting for them."""
    [adapter] = [each for each in runs.adapter.adapters if hasattr(each, "do_remote_execute")]
    build, here = adapter.build_result, threading.get_ident()
    adapter.build_result = lambda **outputs: outputs if threading.get_ident() == here else build(**outputs)
    try:
        futures: dict[str, Future[Any]] = runs.execute([*outputs], inputs=inputs)
    finally:
        del adapter.build_result
    return futures


def submit(adapter: Any, function: Callable[..., Any], /, **arguments: Any) -> Future[Any]:
    """Hands one function to the adapter as Hamilton does, outside of any run."""
    future: Future[Any] = adapter.do_remote_execute(execute_lifecycle_for_node=function, node=None, **arguments)
    return future


def wait_for(event: threading.Event) -> None:
    """Returns once the event is set; an AssertionError when it is not."""
    assert event.wait(PATIENCE), f"the event was not set in {PATIENCE} s"


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true. For what nobody announces; an event is better wherever there can be one."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def in_thread(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Calls the function in a thread of its own, which is none of a pool's."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="test-caller", daemon=True).start()
    return future


class Stage:
    """The events and adapters of one test. However the test ends, all events are set and all adapters closed."""

    def __init__(self) -> None:
        self._closings: list[Callable[[], object]] = []
        self._events: list[threading.Event] = []

    def event(self) -> threading.Event:
        event = threading.Event()
        self._events.append(event)
        return event

    def adapter(self, adapter: Adapter) -> Adapter:
        self._closings.append(getattr(adapter, "close", None) or adapter.executor.shutdown)  # type: ignore[attr-defined]
        return adapter

    def end(self) -> None:
        for event in self._events:
            event.set()
        for closing in [in_thread(close) for close in self._closings]:
            closing.result(PATIENCE)  # pytest-timeout looks at no teardown after a failure


class Held:
    """A node function that says when it has started, and waits until it is let go."""

    def __init__(self, stage: Stage) -> None:
        self.started = stage.event()
        self.release = stage.event()

    def __call__(self, **arguments: Any) -> str:
        self.started.set()
        wait_for(self.release)
        return "held"


PRELUDE = """
import os, signal, sys, threading
from concurrent.futures import Future
from hamilton import ad_hoc_utils, driver
from traced_threadpool import Attribution, FutureAdapter, Metrics, Tracing

def driver_of(adapter, *functions):
    module = ad_hoc_utils.create_temporary_module(*functions)
    return driver.Builder().with_modules(module).with_adapters(adapter).build()

def start(runs, outputs, inputs=None):
    [adapter] = runs.adapter.adapters
    adapter.build_result = lambda **futures: futures
    futures = runs.execute(outputs, inputs=inputs)
    del adapter.build_result
    return futures

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def start_process(script: str, within: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Starts an interpreter that runs the script, after `PRELUDE`. `within`: a command that starts what follows it."""
    source = str(Path(traced_threadpool.__file__).parents[1])
    return subprocess.Popen(
        [*within, sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r})\n{PRELUDE}\n{dedent(script)}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=not within,  # so that what it forked can be killed with it
    )


def run_process(script: str, within: Sequence[str] = ()) -> tuple[int, list[str], str]:
    """Runs the script to its end: exit code, lines that it said, standard error. Killed when it hangs."""
    with start_process(script, within) as process:
        try:
            said, errors = process.communicate(timeout=PROCESS_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill() if within else os.killpg(process.pid, signal.SIGKILL)
            said, errors = process.communicate()
            raise AssertionError(f"the process did not end; it said {said!r} and {errors!r}") from None
    return process.returncode, said.splitlines(), errors
