"""Exceptions, values and context variables that raise whenever they are pickled, unpickled or asked: their node alone
fails, of what can be told of them, and its worker goes on.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from tests.backends.calls import call
from traced_threadpool.backends import NotPicklable, Processes, RemoteError
from traced_threadpool.engine.backends import remote_call

Base = type("Base", (BaseException,), {})
"""Ends what catches `Exception` alone. It goes to a worker by value, as all here, so that no worker imports pytest."""

ATTRIBUTES = ("__traceback__", "__cause__", "__context__", "__notes__", "__dict__", "args")
OPERATIONS = (
    *("__setattr__", "__getattribute__", "__getattr__", "__repr__", "__str__", "__eq__", "__hash__", "__bool__"),
    *("__len__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"),
)
PICKLED = ("__getattribute__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")


def raising(kind: type[BaseException]) -> Callable[..., Any]:
    def refuse(*arguments: object, **keywords: object) -> Any:
        raise kind("do not touch me")

    return refuse


def hostile(name: str, refuse: Callable[..., Any], base: type[Any]) -> Any:
    own = {name: property(refuse, refuse) if name in ATTRIBUTES else refuse}
    return type(f"No_{name.strip('_')}", (base,), own)


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


@REFUSALS
def test_exceptions(one: Processes, refusal: type[BaseException]) -> None:
    """Each comes as what it is, or as its name and text."""
    pid = call(one, os.getpid)
    for name in (*OPERATIONS, *ATTRIBUTES):
        kind = hostile(name, raising(refusal), Exception)

        def fails(kind: type[Exception] = kind) -> None:
            raise kind("hostile")

        error = caught(partial(call, one, fails))
        if type(error) is RemoteError:
            assert error.type_name.endswith(kind.__qualname__)
            assert error.message == ("" if name == "__str__" else "hostile")
        else:
            assert type(error) is kind, name
        assert call(one, os.getpid) == pid, name


@REFUSALS
def test_values(one: Processes, refusal: type[BaseException]) -> None:
    """Each comes, or its node fails of what it raises: when it is pickled there, and unpickled here."""
    pid = call(one, os.getpid)
    for name in (*OPERATIONS, *ATTRIBUTES):
        kind = hostile(name, raising(refusal), object)
        error = caught(partial(call, one, kind))
        if error is None:
            assert name not in PICKLED or name == "__setstate__"
        else:
            assert type(error) in (NotPicklable, refusal), name
        assert call(one, os.getpid) == pid, name


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
