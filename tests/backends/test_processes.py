"""A function's call on a worker process: what it sees, what comes back, and what is refused."""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context

from tests.backends.calls import background, call, held, is_alive, pids, prepared, timed
from tests.dags import PATIENCE, eventually, in_thread, run_process
from traced_threadpool.backends import (
    NotPicklable,
    Processes,
    RemoteError,
    RemoteTraceback,
    WorkerCrashed,
    WorkerSetupError,
)
from traced_threadpool.engine.backends import processes as processes_module
from traced_threadpool.engine.backends.base import Call, Timing
from traced_threadpool.model.records import NodeRecord
from traced_threadpool.model.states import STATES

Make = Callable[..., Processes]

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")


class Rejected(Exception):
    """Has one argument more than it hands on: it can be pickled, and not unpickled."""

    def __init__(self, order: int, reason: str) -> None:
        super().__init__(reason)
        self.order = order


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    order: int


# Results


def test_a_value_comes_back(two: Processes) -> None:
    """From another process; parameters may have any name."""

    def added(self: int, call: int, timing: int, fn: int) -> tuple[int, int]:
        return os.getpid(), self + call + timing + fn

    pid, total = two.call(
        Call(NodeRecord("n", run=None), added, {"self": 1, "call": 2, "timing": 3, "fn": 4}), Timing()
    )
    assert pid != os.getpid()
    assert total == 10


def test_arrays_frames_and_bytes_come_back_writable(two: Processes) -> None:
    """Small ones and those that go through shared memory; the caller's own stay as they are."""
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")

    def doubled(array: Any, frame: Any, text: bytes) -> Any:
        array *= 2
        frame["b"] = frame["a"] * 2
        return array, frame, text + b"!"

    for size in (10, 1_000_000):
        array, text = numpy.arange(float(size)), b"x" * size
        frame = pandas.DataFrame({"a": numpy.arange(size), "name": ["n"] * size})
        got, got_frame, got_text = call(two, doubled, array=array, frame=frame, text=text)
        assert (got == numpy.arange(float(size)) * 2).all()
        assert list(got_frame["b"][:3]) == [0, 2, 4]
        assert list(got_frame["name"].unique()) == ["n"]
        assert got_text == text + b"!"
        assert (array == numpy.arange(float(size))).all()
        assert list(frame.columns) == ["a", "name"]
        got += 1
        assert got[1] == 3


def test_a_generator_is_drained_in_the_worker(two: Processes) -> None:
    """That of a `Parallelizable`: it cannot be sent, and its list can."""

    def branches(count: int) -> Any:
        yield from range(count)

    assert call(two, branches, count=3) == [0, 1, 2]


def test_how_it_went(two: Processes) -> None:
    """Start and end on this process's clock, and parts that add up."""
    call(two, lambda: None)

    def busy() -> int:
        import time

        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
        time.sleep(0.1)
        return 1

    before_ns = time.monotonic_ns()
    _, timing = timed(two, busy)
    after_ns = time.monotonic_ns()
    duration_ns = timing.ended_ns - timing.started_ns
    assert before_ns < timing.started_ns < timing.ended_ns < after_ns
    assert timing.state_ns is not None
    assert sum(timing.state_ns) == duration_ns
    states = dict(zip(STATES, timing.state_ns, strict=True))
    assert states["cpu"] == timing.cpu_ns
    assert 90e6 < timing.cpu_ns < 150e6
    assert states["other"] > 90e6
    assert 0 < timing.transfer_ns < after_ns - before_ns - duration_ns
    assert (timing.attempts, timing.worker_pid != os.getpid()) == (1, True)
    assert timing.sent_bytes > 0
    assert timing.received_bytes > 0


# Exceptions


def test_an_exception_has_its_type_message_and_remote_traceback(two: Processes) -> None:
    """Caught as what was raised; where it was raised is its cause."""

    def reads() -> None:
        raise FileNotFoundError(2, "No such file", "orders.csv")

    with pytest.raises(FileNotFoundError, match=r"orders.csv") as raised:
        call(two, reads)
    cause = raised.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert 'raise FileNotFoundError(2, "No such file", "orders.csv")' in str(cause)
    assert "remote_call.py" not in str(cause)


def test_an_exception_that_refuses_assignment(two: Processes) -> None:
    """A frozen dataclass takes no `__cause__`, and is not unpickled as others are."""

    def rejects(kind: Any) -> None:
        raise kind(7)

    with pytest.raises(Frozen) as raised:
        call(two, rejects, kind=Frozen)
    assert (raised.value.order, type(raised.value.__cause__)) == (7, RemoteTraceback)


def test_an_exception_with_more_arguments_than_it_hands_on(two: Processes) -> None:
    """Pickle would call its `__init__` with too few, and say that instead of what was raised."""

    def rejects(kind: Any) -> None:
        raise kind(7, "sold out")

    with pytest.raises(Rejected, match=r"^sold out$") as raised:
        call(two, rejects, kind=Rejected)
    assert raised.value.order == 7


def test_exceptions_that_cannot_be_sent(two: Processes) -> None:
    """One that fails when pickled, and one whose message fails as well."""

    def holds() -> None:
        import threading

        class Holding(Exception):
            def __init__(self) -> None:
                super().__init__("holding")
                self.lock = threading.Lock()

        raise Holding

    def mute() -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError("no words")

            def __reduce__(self) -> Any:
                raise ValueError("no bytes")

        raise Mute

    for function, message in ((holds, "Holding: holding"), (mute, "Mute: ")):
        with pytest.raises(RemoteError, match=message) as raised:
            call(two, function)
        assert function.__name__ in raised.value.traceback
        assert isinstance(raised.value.__cause__, RemoteTraceback)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_exceptions_that_are_none(two: Processes, kind: type[BaseException]) -> None:
    """They reach the caller as on a thread, and the worker lives."""
    pid = call(two, os.getpid)

    def ends(kind: Any) -> None:
        raise kind("now")

    with pytest.raises(kind, match="now"):
        call(two, ends, kind=kind)
    assert is_alive(pid)


def test_what_cannot_be_sent_is_named(two: Processes) -> None:
    """A parameter, the function, and the result."""
    with pytest.raises(NotPicklable, match=r"parameter 'guard' .* of node 'node'"):
        call(two, lambda guard: None, guard=threading.Lock())
    lock = threading.Lock()
    with pytest.raises(NotPicklable, match=r"the function of node 'node'"):
        call(two, lambda: lock)

    def makes() -> Any:
        import threading

        return threading.Lock()

    with pytest.raises(NotPicklable, match=r"the result .* of node 'node'"):
        call(two, makes)


# What the function sees


def test_context_variables_of_the_caller(two: Processes, caplog: pytest.LogCaptureFixture) -> None:
    """Those that can be sent; the others are named once. What the function sets stays in its call."""
    token = TENANT.set("acme")
    unsendable: contextvars.ContextVar[Any] = contextvars.ContextVar("unsendable")
    unsendable.set(threading.Lock())
    caplog.set_level(logging.INFO, "traced_threadpool")

    def sees() -> str:
        seen = TENANT.get()
        TENANT.set("changed")
        return seen

    try:
        assert [call(two, sees) for _ in range(3)] == ["acme"] * 3
    finally:
        TENANT.reset(token)
    said = [record.getMessage() for record in caplog.records if "unsendable" in record.getMessage()]
    assert said == ["context variable 'unsendable' cannot be pickled, so nodes on other processes do not see it"]


def test_trace_context_and_baggage(two: Processes) -> None:
    """Spans that the function makes are below the current one; baggage is there."""

    def sees() -> tuple[str, str, object]:
        from opentelemetry import baggage, trace

        context = trace.get_current_span().get_span_context()
        return f"{context.trace_id:032x}", f"{context.span_id:016x}", baggage.get_baggage("tenant")

    current = trace.SpanContext(0x1234, 0x56, is_remote=False, trace_flags=trace.TraceFlags(1))
    context = baggage.set_baggage("tenant", "acme", trace.set_span_in_context(trace.NonRecordingSpan(current)))
    token = otel_context.attach(context)
    try:
        assert call(two, sees) == (f"{0x1234:032x}", f"{0x56:016x}", "acme")
    finally:
        otel_context.detach(token)


def test_log_records_are_handled_here(two: Processes, caplog: pytest.LogCaptureFixture) -> None:
    """With the node and the run; the traceback as text; below the level, not at all."""

    def logs() -> None:
        import logging

        shop = logging.getLogger("shop.orders")
        shop.info("quiet")
        shop.warning("sold %d of %s", 3, "apples", extra={"customer": "acme"})
        try:
            raise ValueError("bad")
        except ValueError:
            shop.exception("failed")

    call(two, logs)
    records = [record for record in caplog.records if record.name == "shop.orders"]
    assert [record.getMessage() for record in records] == ["sold 3 of apples", "failed"]
    first: Any = records[0]
    assert (first.node, first.run_id, first.customer) == ("node", "run-1", "acme")
    assert first.process != os.getpid()
    assert "ValueError: bad" in (records[1].exc_text or "")


def test_what_is_printed_is_printed_here(two: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    """Also to a notebook's cell, whose output is no file."""

    def prints() -> None:
        import sys

        print("sold", 3)
        print("half a line", end="")
        print("oh", file=sys.stderr)

    call(two, prints)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("sold 3\nhalf a line", "oh\n")


def test_random_numbers_differ_between_workers(two: Processes, tmp_path: Path) -> None:
    """Workers are forked from one process; copies of its generator would all give the same."""
    pytest.importorskip("numpy")
    pids(two, 2, tmp_path)

    def draws() -> tuple[int, float, float]:
        import os
        import random
        import time

        import numpy

        time.sleep(0.05)
        return os.getpid(), random.random(), float(numpy.random.random())

    drawn = [future.result(PATIENCE) for future in [background(two, draws)[1] for _ in range(2)]]
    assert len({number for _, *numbers in drawn for number in numbers}) == 4


# Workers


def test_no_process_before_the_first_call(processes: Make) -> None:
    """Nor is one started by opening it."""
    backend = processes(2)
    backend.open("cpu")
    assert backend._launcher is None


def test_no_more_workers_than_asked_for(processes: Make, tmp_path: Path) -> None:
    """A further call waits for one of them, and that is `remote_queue`."""
    backend = processes(1)
    call(backend, int)
    _, first = background(backend, held, started=tmp_path / "started", release=tmp_path / "release")
    assert eventually((tmp_path / "started").exists)
    timing = Timing()
    one = prepared(os.getpid)
    second = in_thread(backend.call, one, timing)
    time.sleep(0.1)
    assert not second.done()
    (tmp_path / "release").touch()
    assert first.result(PATIENCE) == second.result(PATIENCE)
    assert timing.remote_queue_ns > 90e6


def test_initializer_env_and_preload(processes: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each worker has before its first node."""
    monkeypatch.setenv("SHOP_REGION", "north")

    def prepare(place: str) -> None:
        import os

        os.environ["SHOP_PLACE"] = place

    backend = processes(1, initializer=prepare, initargs=("here",), env={"SHOP_NAME": "acme"}, preload=["colorsys"])

    def sees() -> Any:
        import os
        import sys
        from pathlib import Path

        names = ("SHOP_REGION", "SHOP_PLACE", "SHOP_NAME")
        return [os.environ.get(name) for name in names], "colorsys" in sys.modules, str(Path.cwd())

    assert call(backend, sees) == (["north", "here", "acme"], True, str(Path.cwd()))


def test_what_the_program_has_imported_is_preloaded(processes: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hamilton above all: a node that needs it would wait for it. What is not imported here is not there either."""
    monkeypatch.setattr(processes_module, "PRELOADED", ("colorsys", "no_such_module", "sndhdr_of_nobody"))
    import colorsys

    assert colorsys.__name__ in sys.modules
    seen = call(processes(1), lambda: ["colorsys" in sys.modules, "no_such_module" in sys.modules])
    assert seen == [True, False]


def test_an_initializer_that_fails(processes: Make) -> None:
    """Each node that needs a worker fails, with what it raised; nothing hangs."""

    def fails() -> None:
        raise OSError("no licence")

    backend = processes(1, initializer=fails)
    for _ in range(2):
        with pytest.raises(WorkerSetupError, match=r"its initializer raised builtins.OSError: no licence") as raised:
            call(backend, int)
        assert isinstance(raised.value.__cause__, OSError)


def test_a_worker_is_replaced_after_its_tasks(processes: Make) -> None:
    backend = processes(1, max_tasks_per_worker=2)
    found = [call(backend, os.getpid) for _ in range(5)]
    assert [found[0] == found[1], found[2] == found[3], len(set(found))] == [True, True, 3]
    assert eventually(lambda: not any(is_alive(pid) for pid in found[:4]))


def test_idle_workers_end_and_then_the_server(processes: Make) -> None:
    """All memory is given back; the next call starts anew."""
    backend = processes(1, idle_seconds=0.1)

    def both() -> tuple[int, int]:
        import os

        return os.getpid(), os.getppid()

    worker, server = call(backend, both)
    assert eventually(lambda: not is_alive(worker) and not is_alive(server))
    assert call(backend, os.getpid) not in (worker, server)


def test_a_call_that_meets_a_worker_which_is_leaving(processes: Make) -> None:
    """With no idle time at all, workers leave all the while; each call is run, once."""
    backend = processes(1, idle_seconds=0.0)
    for number in range(30):
        assert call(backend, lambda number: number, number=number) == number


def _children() -> set[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_workers_are_no_children(processes: Make) -> None:
    """A program that waits for its children until there are none does not wait for these."""
    before = _children()
    backend = processes(1)
    pid = call(backend, os.getpid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert _children() <= before


def test_after_close_workers_have_gone(processes: Make, tmp_path: Path) -> None:
    """And a call after that starts new ones."""
    backend = processes(2)
    found = pids(backend, 2, tmp_path)
    backend.close()
    assert not any(is_alive(pid) for pid in found)
    assert call(backend, os.getpid) not in found


def test_spawn(processes: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no forkserver: fresh interpreters, the same otherwise."""
    backend = processes(1, start_method="spawn", preload=["colorsys"], idle_seconds=60)

    def sees() -> tuple[int, bool]:
        import os
        import sys

        return os.getpid(), "colorsys" in sys.modules

    pid, preloaded = call(backend, sees)
    assert preloaded
    with pytest.raises(WorkerCrashed, match="was killed by signal 9"):
        call(backend, lambda: os.kill(os.getpid(), 9))
    other = call(backend, os.getpid)
    assert (is_alive(pid), is_alive(other)) == (False, True)
    backend.close()
    assert not is_alive(other)


def test_functions_of_a_script_need_no_guard() -> None:
    """`__main__` is not imported again: its functions, classes and variables are sent by value."""
    code, said, errors = run_process(
        """
import contextvars
from traced_threadpool.backends import Processes
from traced_threadpool.engine.backends import processes as processes_module
from traced_threadpool.engine.backends.base import Call, Timing
from traced_threadpool.model.records import NodeRecord

FACTOR = 3
TENANT = contextvars.ContextVar("tenant")
TENANT.set("acme")

class Price:
    def __init__(self, amount):
        self.amount = amount

class Rejected(Exception):
    pass

def scaled(price):
    return Price(FACTOR * price.amount), TENANT.get()

def rejects():
    raise Rejected("sold out")

def call(function, **arguments):
    return backend.call(Call(record=NodeRecord("node", run=None), function=function, arguments=arguments), Timing())

backend = Processes(1)
price, tenant = call(scaled, price=Price(2))
say(type(price) is Price, price.amount, tenant)
FACTOR = 5
say(call(scaled, price=Price(2))[0].amount)
try:
    call(rejects)
except Rejected as error:
    say("caught", error)
"""
    )
    assert (code, said) == (0, ["True 6 acme", "10", "caught sold out"]), errors


# What is refused


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0, not 0"),
        ({"max_workers": "4"}, TypeError, "max_workers must be an integer, not '4'"),
        ({"start_method": "fork"}, ValueError, "'fork' is not supported: a fork copies the locks"),
        ({"start_method": "thread"}, ValueError, "must be 'forkserver' or 'spawn', not 'thread'"),
        ({"initializer": 1}, TypeError, "initializer must be a function, not 1"),
        ({"max_tasks_per_worker": True}, TypeError, "max_tasks_per_worker must be an integer"),
        ({"env": {"A": 1}}, TypeError, "env must map strings to strings; the value of 'A' is a int"),
        ({"preload": "numpy"}, TypeError, r"such as \['numpy'\]"),
        ({"idle_seconds": -1}, ValueError, "idle_seconds must be 0 or more seconds, not -1"),
        ({"cancel_grace_seconds": None}, TypeError, "cancel_grace_seconds must be a number of seconds"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    """At once, before any process; with what to write instead."""
    with pytest.raises(kind, match=message):
        Processes(**options)


def test_without_cloudpickle() -> None:
    """The extra is named when the backend is made."""
    code, said, errors = run_process(
        """
sys.modules["cloudpickle"] = None
from traced_threadpool.backends import Processes
try:
    Processes()
except ImportError as error:
    say(error)
"""
    )
    expected = (
        "nodes on processes need cloudpickle, which is not installed; install it with: "
        "pip install 'traced_threadpool[processes]'"
    )
    assert (code, said) == (0, [expected]), errors


@pytest.mark.skipif(sys.platform != "linux", reason="looks for another interpreter on Linux")
def test_another_version_of_this_package(processes: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of another version says which it has."""
    from traced_threadpool.engine.backends import remote_call

    monkeypatch.setattr(remote_call, "VERSIONS", {**remote_call.VERSIONS, "traced_threadpool": "0.0.9"})
    with pytest.raises(WorkerSetupError, match=r"it has Python 3.*, and the program .*traced_threadpool 0.0.9"):
        call(processes(1), int)


def test_another_version_of_python(processes: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before any of this interpreter's modules are read by the other."""
    import multiprocessing

    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nexit 86\n")  # as an interpreter of another version does, by the first statement
    other.chmod(0o755)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", str(other))
    for method in ("forkserver", "spawn"):
        with pytest.raises(WorkerSetupError, match="is another version of Python than this one"):
            call(processes(1, start_method=method), int)
