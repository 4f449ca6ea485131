"""What is sent by value, what by reference, and which parameter is to blame."""

from __future__ import annotations

import contextvars
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from hamilton import ad_hoc_utils, driver
from hamilton.function_modifiers import pipe_input, step

from traced_threadpool.backends import NotPicklable
from traced_threadpool.engine.backends import errors, pickling
from traced_threadpool.engine.backends.pickling import dump, dump_call, dump_result

LOCK = threading.Lock()


def loaded_elsewhere(stream: bytes, expression: str) -> str:
    """What an expression of `it`, loaded in a fresh interpreter, says."""
    script = f"import pickle, sys; it = pickle.loads(sys.stdin.buffer.read()); print({expression})"
    return (
        subprocess.run([sys.executable, "-c", script], input=stream, capture_output=True, check=True, timeout=60)
        .stdout.decode()
        .strip()
    )


def test_a_function_of_a_temporary_module_goes_by_value() -> None:
    """Hamilton makes such for tests and notebooks; no other process can import them."""

    def price(quantity: int) -> int:
        return 3 * quantity

    module = ad_hoc_utils.create_temporary_module(price, module_name="shop_of_pickling")
    assert loaded_elsewhere(bytes(dump(module.price).stream), "it(2)") == "6"


def test_a_function_of_a_file_imported_by_path_goes_by_value(tmp_path: Path) -> None:
    """It has a spec and a file, and yet no other process finds it by name."""
    import importlib.util

    file = tmp_path / "elsewhere_of_pickling.py"
    file.write_text("FACTOR = 4\ndef scaled(x):\n    return FACTOR * x\n")
    spec = importlib.util.spec_from_file_location("elsewhere_of_pickling", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["elsewhere_of_pickling"] = module
    spec.loader.exec_module(module)
    try:
        assert loaded_elsewhere(bytes(dump(module.scaled).stream), "it(2)") == "8"
    finally:
        del sys.modules["elsewhere_of_pickling"]


def test_what_can_be_imported_goes_by_reference() -> None:
    """Small, and the worker's own: a package is not copied about."""
    assert len(bytes(dump(subprocess.check_output).stream)) < 100


def test_a_module_made_by_its_package_goes_by_reference() -> None:
    """Such as `os.path`."""
    import os.path

    assert len(bytes(dump(os.path.join).stream)) < 100


def test_a_wrapper_of_hamiltons_does_not_bring_the_graph() -> None:
    """The function of a step refers to its node, that to the nodes around it, and one of these cannot be pickled."""

    def _plus(x: int, *, lock: Any = LOCK) -> int:
        return x + 1

    def start() -> int:
        return 1 if LOCK else 2

    def _doubled(start: int) -> int:
        return 2 * start

    @pipe_input(step(_doubled))
    def end(start: int) -> int:
        return start

    module = ad_hoc_utils.create_temporary_module(start, end)
    graph = driver.Builder().with_modules(module).build().graph
    for name, node in graph.nodes.items():
        if name.startswith("end"):
            pickled = dump(node.callable)
            assert pickled.nbytes < 10_000
            assert pickled.load()(**dict.fromkeys(node.input_types, 3)) in (3, 6)


def test_large_blocks_travel_beside_the_stream() -> None:
    """Also `bytes`, which pickle itself would copy into it."""
    numpy = pytest.importorskip("numpy")
    array, text = numpy.arange(100_000), b"x" * 100_000
    pickled = dump_call("node", len, {"array": array, "text": text, "small": b"y"})
    assert pickled.stream.nbytes < 1_000
    function, arguments = pickled.load()
    assert function is len
    assert (arguments["array"] == array).all()
    assert (arguments["text"], arguments["small"]) == (text, b"y")


def test_an_object_of_two_parameters_stays_one() -> None:
    """As in a call on a thread."""
    shared = [1]
    arguments = dump_call("node", len, {"a": shared, "b": [shared]}).load()[1]
    assert arguments["a"] is arguments["b"][0]


@pytest.mark.parametrize(
    ("function", "arguments", "blamed"),
    [
        (len, {"fine": 1, "guard": LOCK}, "parameter 'guard' (a _thread.lock)"),
        (lambda: LOCK, {"fine": 1}, "the function"),
        (len, {"rows": (each for each in ())}, "parameter 'rows' (a generator)"),
        (len, {"deep": [{"in": [LOCK]}]}, "parameter 'deep' (a list)"),
    ],
)
def test_who_is_to_blame_is_named(function: Any, arguments: dict[str, Any], blamed: str) -> None:
    """With its type, and what to do instead; no value is shown."""
    if function is not len:
        lock = LOCK
        function = lambda: lock  # noqa: E731  # a closure over what cannot be sent
    with pytest.raises(NotPicklable, match="cannot be sent to another process") as raised:
        dump_call("clean", function, arguments)
    assert raised.value.what == blamed
    assert "of node 'clean'" in str(raised.value)
    assert "cannot pickle" in str(raised.value)


def test_a_result_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(NotPicklable, match=r"the result \(a _thread.lock\) of node 'clean'"):
        dump_result("clean", LOCK)


def test_an_object_that_raises_anything_when_pickled() -> None:
    """Whatever it raises is the reason; also a recursion without end."""

    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("not today")

    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value, reason in ((Refuses(), "not today"), (nested, "recursion")):
        with pytest.raises(NotPicklable, match=reason):
            dump_call("node", len, {"value": value})


@pytest.mark.parametrize(
    "error",
    [
        errors.WorkerCrashed("node", 12, signal=9),
        errors.WorkerCrashed("node", 12, exitcode=3),
        errors.NotPicklable("node", "the result", "no"),
        errors.RemoteError("shop.Rejected", "no", "Traceback"),
        errors.RemoteTraceback("Traceback"),
    ],
    ids=str,
)
def test_our_errors_can_be_pickled(error: Exception) -> None:
    """They may be raised in a worker of a worker."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_a_context_variable_is_found_again() -> None:
    """By its module and attribute; one of a module that another process does not have is made there, once."""
    module = types.ModuleType("shop_of_variables")
    module.customer = contextvars.ContextVar("customer")  # type: ignore[attr-defined]
    sys.modules["shop_of_variables"] = module
    try:
        place = pickling.locate(module.customer)
        assert place == ("shop_of_variables", "customer")
        assert pickling.context_variable(*place) is module.customer
    finally:
        del sys.modules["shop_of_variables"]
    made = pickling.context_variable("no_such_shop", "customer")
    assert pickling.context_variable("no_such_shop", "customer") is made
    with pytest.raises(pickling.Nowhere, match="'nobody' is not an attribute"):
        pickling.locate(contextvars.ContextVar("nobody"))
