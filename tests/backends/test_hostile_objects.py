"""Exceptions, values, parameters and context variables that raise whenever they are pickled, unpickled or asked: their
node alone fails, of what can be told of them, and its worker goes on. On worker processes and on Dask.
"""

from __future__ import annotations

import builtins
import contextvars
import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.backends.calls import alive_at, background, call, held
from tests.dags import PATIENCE, driver_of, in_thread
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Dask, NotPicklable, Processes, RemoteError
from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.base import Backend
from traced_threadpool.engine.backends.held import Held

Base = type("Base", (BaseException,), {})
"""Ends what catches `Exception` alone. It goes to a worker by value, as all here, so that no worker imports pytest."""

ATTRIBUTES = ("__traceback__", "__cause__", "__context__", "__notes__", "__dict__", "args", "nbytes")
OPERATIONS = (
    *("__setattr__", "__getattribute__", "__getattr__", "__repr__", "__str__", "__eq__", "__hash__", "__bool__"),
    *("__len__", "__iter__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__sizeof__"),
    "__dask_tokenize__",
)
PICKLED = ("__getattribute__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__dict__")


def raising(kind: type[BaseException]) -> Callable[..., Any]:
    def refuse(*arguments: object, **keywords: object) -> Any:
        raise kind("do not touch me")

    return refuse


def hostile(name: str, refuse: Callable[..., Any], base: type[Any]) -> Any:
    own = {name: property(refuse, refuse) if name in ATTRIBUTES else refuse, "state": None}
    return type(f"No_{name.strip('_')}", (base,), own)


def made(kind: Any) -> Any:
    """With a state, so that `__setstate__` is called."""
    value = kind()
    with suppress(BaseException):
        object.__setattr__(value, "state", 1)
    return value


def caught(run: Callable[[], object]) -> BaseException | None:
    """What it raises. `pytest.raises` would look at it."""
    try:
        run()
    except BaseException as error:
        return error
    return None


REFUSALS = pytest.mark.parametrize("refusal", [RuntimeError, Base, SystemExit])


@pytest.fixture
def one(processes: Callable[..., Processes]) -> Processes:
    """One worker process, so that its loss would show."""
    return processes(1)


@pytest.fixture(scope="module", params=["processes", "dask"])
def far(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """One worker, so that its loss would show: of processes, and of a Dask cluster."""
    if request.param == "processes":
        backend: Processes | Dask = Processes(1, cancel_grace_seconds=0.1)
        yield backend
        backend.close()
        return
    distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        backend = Dask(client)
        backend.open("tests")
        yield backend
        backend.close()


def fetched(backend: Backend, function: Callable[..., Any], /, **arguments: Any) -> Any:
    """What the function returns or raises, here. On a thread: a call that hangs fails its test."""

    def run() -> list[Any]:
        value = call(backend, function, **arguments)
        return [value.result() if type(value) is Held else value]

    return in_thread(lambda: outcome(run)).result(PATIENCE)


def outcome(run: Callable[[], list[Any]]) -> tuple[BaseException | None, Any]:
    """What it raises, or gives. In a tuple: a future asks an exception whether it is true."""
    try:
        return None, run()[0]
    except BaseException as error:
        return error, None


@REFUSALS
def test_exceptions(far: Backend, refusal: type[BaseException]) -> None:
    """Each comes as what it is, or as its name and text."""
    pid = fetched(far, os.getpid)
    for name in (*OPERATIONS, *ATTRIBUTES):
        kind = hostile(name, raising(refusal), Exception)

        def fails(kind: type[Exception] = kind) -> None:
            raise kind("hostile")

        error, _ = fetched(far, fails)
        if type(error) is RemoteError:
            assert error.type_name.endswith(kind.__qualname__)
            assert error.message == ("" if name == "__str__" else "hostile")
        else:
            assert type(error) is kind, name
        assert fetched(far, os.getpid) == pid, name


@REFUSALS
def test_values(far: Backend, refusal: type[BaseException]) -> None:
    """Each comes, or its node says that it cannot: that is seen when it is pickled there, and unpickled here."""
    pid = fetched(far, os.getpid)
    for name in (*OPERATIONS, *ATTRIBUTES):
        kind = hostile(name, raising(refusal), object)
        error, value = fetched(far, partial(made, kind))
        if error is None:
            assert type(value).__name__ == kind.__name__
            assert name not in PICKLED, name
        else:
            assert type(error) is NotPicklable, name
            assert error.what.startswith("the result"), name
        assert fetched(far, os.getpid) == pid, name


@REFUSALS
def test_parameters(far: Backend, refusal: type[BaseException]) -> None:
    """Each arrives, or its node says which cannot be sent."""
    pid = fetched(far, os.getpid)
    for name in (*OPERATIONS, *ATTRIBUTES):
        kind = hostile(name, raising(refusal), object)
        error, value = fetched(far, lambda given: type(given).__name__, given=made(kind))
        if error is None:
            assert value == kind.__name__
            assert name not in PICKLED, name
        else:
            assert type(error) is NotPicklable, name
            assert "do not touch me" in error.reason, name
            # Where it arrives and cannot be read, nobody knows which it was.
            assert error.what in (f"parameter 'given' (a {__name__}.{kind.__name__})", "the call"), name
        assert fetched(far, os.getpid) == pid, name


@pytest.mark.parametrize("refusal", [RuntimeError, Base, SystemExit, KeyboardInterrupt])
def test_in_a_run(far: Backend, refusal: type[BaseException]) -> None:
    """The node below and `execute`, here on the main thread, say what the value is; the next run is right."""
    kind = hostile("__setstate__", raising(refusal), object)

    def bad(kind: Any) -> Any:
        value = kind()
        value.__dict__["state"] = 1
        return value

    def below(bad: Any) -> int:
        return 1

    def good() -> int:
        return 2

    with FutureAdapter(2, metrics=False, backends={"far": far}, run_on={"bad": "far", "good": "far"}) as adapter:
        runs = driver_of(adapter, bad, below, good)
        for output in ("bad", "below"):
            error = caught(partial(runs.execute, [output], inputs={"kind": kind}))
            assert type(error) is NotPicklable
            assert "do not touch me" in error.reason
            assert runs.execute(["good"]) == {"good": 2}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with Python 3.11")
def test_groups_of_exceptions(far: Backend) -> None:
    """With members that cannot be pickled, also in a group of their own: the others come as they are."""

    def fails() -> None:
        import builtins
        import threading

        locked = ValueError("locked")
        locked.lock = threading.Lock()  # type: ignore[attr-defined]
        inner = builtins.ExceptionGroup("inner", [locked, OSError(7, "no such luck")])
        group = builtins.BaseExceptionGroup("outer", [KeyError("k"), KeyboardInterrupt("stop"), inner])
        group.lock = threading.Lock()  # type: ignore[attr-defined]
        raise group

    error, _ = fetched(far, fails)
    assert type(error) is builtins.BaseExceptionGroup  # type: ignore[attr-defined, unused-ignore]
    assert error.message == "outer"
    key, stop, inner = error.exceptions
    assert (type(key), key.args, type(stop), stop.args) == (KeyError, ("k",), KeyboardInterrupt, ("stop",))
    assert (type(inner), inner.message) == (builtins.ExceptionGroup, "inner")  # type: ignore[attr-defined, unused-ignore]
    locked, luck = inner.exceptions
    assert (type(locked), locked.type_name, locked.message) == (RemoteError, "builtins.ValueError", "locked")
    assert (type(luck), luck.errno, luck.strerror) == (OSError, 7, "no such luck")


def slow(started: Path, release: Path) -> Any:
    """Its unpickling says that it runs, and goes on until it is let go."""

    def reduced(self: object) -> tuple[Any, ...]:
        return held, (started, release)

    return type("Slow", (), {"__reduce__": reduced})()


def test_a_parameter_whose_unpickling_hangs(far: Backend, tmp_path: Path) -> None:
    """It is its node's own time: cancelled like any other, and the next node runs."""
    started, release = tmp_path / "started", tmp_path / "release"
    one, future = background(far, lambda given: given, given=slow(started, release))
    alive_at(started)
    far.cancel(one)
    error = caught(partial(future.result, PATIENCE))
    assert type(error) is CancelledError
    release.touch()  # what Dask cannot end
    assert fetched(far, os.getpid)[1] > 0


def test_a_value_whose_unpickling_hangs_here(far: Backend, tmp_path: Path) -> None:
    """It holds the thread that takes it, and no other node of the backend."""
    started, release = tmp_path / "started", tmp_path / "release"

    kind = type(slow(started, release))
    future = in_thread(fetched, far, kind)
    assert alive_at(started) == os.getpid()
    assert fetched(far, os.getpid)[1] not in (None, os.getpid())
    release.touch()
    assert future.result(PATIENCE) == (None, os.getpid())


def test_an_exception_that_a_library_pickles_wrongly(one: Processes) -> None:
    """As `tblib` does, which Dask loads: an exception of C without its text is made again by its arguments."""

    def fails() -> None:
        import copyreg

        def wrong(error: Exception) -> tuple[Any, ...]:
            return UnicodeDecodeError.__new__, (UnicodeDecodeError, *error.args)

        copyreg.pickle(UnicodeDecodeError, wrong)  # type: ignore[type-var]  # the wrong one
        b"\xff".decode()

    with pytest.raises(UnicodeDecodeError, match="invalid start byte"):
        call(one, fails)


@REFUSALS
def test_context_variables(
    one: Processes, refusal: type[BaseException], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot be pickled, or unpickled, is left out, and named."""

    class Sent:
        def __reduce__(self) -> tuple[Any, ...]:
            return raising(refusal), ()

    module: Any = ModuleType("a_module_that_is_only_here")
    module.variable = contextvars.ContextVar("hostile")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def seen(variable: contextvars.ContextVar[Any] = module.variable) -> object:
        return variable.get(None)

    caplog.set_level(logging.INFO)
    for value in (hostile("__reduce__", raising(refusal), object)(), Sent()):
        context = contextvars.copy_context()
        context.run(module.variable.set, value)
        assert context.run(call, one, seen) is None
    told = [record.getMessage().split(" (")[0] for record in caplog.records]
    assert "context variable 'hostile' cannot be pickled, so nodes on other processes do not see it" in told
    assert told.count("context variable a_module_that_is_only_here.variable cannot be unpickled here") == 1


def test_a_long_text_on_dask() -> None:
    """In the place of an exception with a long text Dask sends one of its own, so that of what carries it is short."""
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    from traced_threadpool.engine.backends.dask_worker import NodeRaised

    answer, described = remote_call.packed(ValueError("x" * 100_000))
    raised = NodeRaised(bytes(answer.stream), [], described)
    assert len(str(raised)) < dask.config.get("distributed.admin.max-error-length")
    assert str(remote_call.error_of(raised.described, raised.answer)) == "x" * 100_000
