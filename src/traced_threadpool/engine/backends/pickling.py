"""Objects into bytes for another process, by cloudpickle, with large blocks beside the stream (pickle protocol 5).

Needs cloudpickle to write, and the standard library alone to read.

An object's own code runs when it is pickled or unpickled, and may raise anything. Whatever it raises, SystemExit and
KeyboardInterrupt too, is the reason why the object cannot be sent: what `dump_call`, `dump_result`, `load_call` and
`load_result` raise is `NotPicklable`. None of it is the user's Ctrl-C, since Python runs the handlers of signals on the
main thread alone, and no node's objects are pickled there: calls of backends have threads of their own, `kept.brought`
sees to what `execute` brings, and probes of placement leave that thread out. A worker process ignores the signal.
"""

from __future__ import annotations

import contextvars
import importlib.machinery
import io
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any, Final

from traced_threadpool.engine.backends.errors import NotPicklable
from traced_threadpool.model.exceptions import is_a, type_name

LARGE_BYTES: Final = 1 << 16
"""A `bytes` argument or result of this size travels beside the stream."""

NEEDS_CLOUDPICKLE: Final = (
    "nodes on processes need cloudpickle, which is not installed; install it with: "
    "pip install 'traced_threadpool[processes]'"
)


@dataclass(slots=True)
class Pickled:
    """A stream, and the blocks of memory that it refers to, in the order in which it needs them."""

    stream: memoryview
    blocks: list[memoryview] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return self.stream.nbytes + sum(block.nbytes for block in self.blocks)

    def load(self) -> Any:
        return pickle.loads(self.stream, buffers=self.blocks)


class _OwnBytes:
    """`bytes`, which pickle would copy into the stream."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[type[bytes], tuple[pickle.PickleBuffer]]:
        return bytes, (pickle.PickleBuffer(self.value),)


def dump(value: Any) -> Pickled:
    """Raises whatever the objects raise when they are pickled."""
    blocks: list[memoryview] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        try:
            blocks.append(buffer.raw())
        except BufferError:  # not contiguous: into the stream
            return True
        return False

    file = io.BytesIO()
    pickler_class()(file, protocol=5, buffer_callback=beside).dump(value)
    # A view of the file itself would outlive it in a cycle, of which Python complains when it collects the file.
    return Pickled(memoryview(file.getvalue()), blocks)


def dump_whole(value: Any) -> bytes:
    """As `dump`, with everything in the stream."""
    file = io.BytesIO()
    pickler_class()(file, protocol=5).dump(value)
    return file.getvalue()


def dump_call(node: str, function: Any, arguments: Mapping[str, Any]) -> Pickled:
    """A function and its arguments, objects that several of them share still shared.

    Raises NotPicklable, which names the parameter.
    """
    try:
        return dump((function, {name: _beside_stream(value) for name, value in arguments.items()}))
    except BaseException as error:
        raise _blamed(node, function, arguments, error) from error


def dump_result(node: str, value: Any) -> Pickled:
    """Raises NotPicklable."""
    try:
        return dump(_beside_stream(value))
    except BaseException as error:
        raise NotPicklable(node, f"the result (a {_type_name(value)})", reason_in(error)) from error


def load_call(node: str, load: Callable[[], tuple[Any, dict[str, Any]]]) -> tuple[Any, dict[str, Any]]:
    """A function and its arguments, by what reads them.

    Raises:
        NotPicklable: An object's own code raised.
        ImportError: A module is missing here, which is no fault of an object.
    """
    try:
        return load()
    except (ImportError, NotPicklable):
        raise
    except BaseException as error:
        raise NotPicklable(node, "the call", _unread(error)) from error


def load_result(node: str, pickled: Pickled) -> Any:
    """Raises NotPicklable."""
    try:
        return pickled.load()
    except BaseException as error:
        raise NotPicklable(node, "the result", _unread(error)) from error


def _beside_stream(value: Any) -> Any:
    return _OwnBytes(value) if type(value) is bytes and len(value) >= LARGE_BYTES else value


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value that is there already goes among the arguments; several of them, for one that is a list."""

    numbers: tuple[int, ...]
    is_list: bool = False

    def fill(self, values: Mapping[int, Any]) -> Any:
        return [values[number] for number in self.numbers] if self.is_list else values[self.numbers[0]]


def _blamed(node: str, function: Any, arguments: Mapping[str, Any], error: BaseException) -> NotPicklable:
    """Which of them it was: found by pickling each for itself, now that there is an error to explain."""
    for what, value in (("the function", function), *((f"parameter {name!r}", arguments[name]) for name in arguments)):
        try:
            dump(value)
        except BaseException as own_error:
            described = what if value is function else f"{what} (a {_type_name(value)})"
            return NotPicklable(node, described, reason_in(own_error))
    return NotPicklable(node, "the call", reason_in(error))


def _type_name(value: Any) -> str:
    return _short_name(type(value))


def _short_name(kind: type) -> str:
    return type_name(kind).removeprefix("builtins.")


def reason_in(error: BaseException) -> str:
    """The error's message, which for pickling speaks of types, not of values; and its type where that says more."""
    text, name = text_of(error).strip(), _short_name(type(error))
    if not text:
        return name
    line = text.splitlines()[0].rstrip(".")
    return line if is_a(error, Exception) else f"{name}: {line}"


def _unread(error: BaseException) -> str:
    text = text_of(error).strip()
    name = _short_name(type(error))
    return (
        f"unpickling it raised {name}: {text.splitlines()[0].rstrip('.')}" if text else f"unpickling it raised {name}"
    )


def text_of(error: BaseException) -> str:
    """What it says; nothing where its own `__str__` raises."""
    try:
        return plain(str(error))
    except BaseException:
        return ""


def plain(text: str) -> str:
    """Without a class of its own, which might raise when it is compared, or pickled."""
    return str.__str__(text)


@lru_cache(maxsize=1)
def pickler_class() -> Any:
    """Made at the first call: cloudpickle is an extra.

    Raises ImportError, which says how to install it.
    """
    try:
        import cloudpickle
    except ImportError as error:
        raise ImportError(NEEDS_CLOUDPICKLE) from error

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined, unused-ignore]  # it has no annotations
        """Also sends what cloudpickle does not: see the branches."""

        def reducer_override(self, value: Any) -> Any:
            kind = type(value)
            if kind is FunctionType or issubclass(kind, type):
                _send_by_value_if_needed(value.__module__)
            elif kind is contextvars.ContextVar:
                return context_variable, locate(value)
            elif kind.__name__ == "Node" and kind.__module__ == "hamilton.node":
                # Functions that Hamilton wraps refer to their node, and that to the whole graph.
                if value.dependencies or value.depended_on_by:
                    return _same, (value.copy_with(include_refs=False),)
                return NotImplemented
            return super().reducer_override(value)

    return Pickler


def _same(value: Any) -> Any:
    return value


# Modules that another process cannot import

_sent_by_value: dict[str, ModuleType] = {}


def _send_by_value_if_needed(name: str | None) -> None:
    """Tells cloudpickle to send the functions and classes of a module that a fresh interpreter would not find.

    Such as Hamilton's temporary modules, cells of a notebook, or files that were imported by path.
    """
    module = sys.modules.get(name) if name else None
    if name is None or module is None or name == "__main__" or _is_importable(name, module):
        return
    if _sent_by_value.get(name) is not module:
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
        _sent_by_value[name] = module


def goes_by_reference(function: FunctionType) -> bool:
    """Whether of a function only its name is sent: nothing in it is pickled.

    >>> goes_by_reference(dump), goes_by_reference(lambda: 1)
    (True, False)
    """
    module = sys.modules.get(function.__module__)
    if module is None or function.__module__ == "__main__" or not _is_importable(function.__module__, module):
        return False
    return vars(module).get(function.__qualname__) is function


_importable: dict[str, tuple[ModuleType, tuple[str, ...], bool]] = {}


def _is_importable(name: str, module: ModuleType) -> bool:
    known = _importable.get(name)
    path = tuple(sys.path)
    if known is not None and known[0] is module and known[1] == path:
        return known[2]
    found = _find(name, module)
    _importable[name] = module, path, found
    return found


def _find(name: str, module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    if spec is None and file is None:
        return name in sys.builtin_module_names
    parent_name, _, _ = name.rpartition(".")
    path: Sequence[str] | None = None
    if parent_name:
        parent = sys.modules.get(parent_name)
        if parent is None or not _is_importable(parent_name, parent):
            return False
        path = getattr(parent, "__path__", None)
        if path is None:
            return True  # made by its parent, such as `os.path`
        path = list(path)
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        try:
            found: importlib.machinery.ModuleSpec | None = find_spec(name, path) if find_spec else None
        except Exception:  # a finder of somebody's: no reason to fail here
            found = None
        if found is not None:
            return found.origin == getattr(spec, "origin", None) or found.origin == file
    # Submodules that packages make themselves (`six.moves`) come with the package.
    return bool(parent_name) and file is None


# Context variables, which cannot be pickled, by where they are

_made: dict[tuple[str, str], contextvars.ContextVar[Any]] = {}
_located: dict[contextvars.ContextVar[Any], tuple[str, str] | None] = {}


class Nowhere(pickle.PicklingError):
    """A context variable that is not an attribute of any module."""


def locate(variable: contextvars.ContextVar[Any]) -> tuple[str, str]:
    """The module and the attribute that a variable is.

    >>> import decimal, sys, types
    >>> module = types.ModuleType("shop")
    >>> module.customer = contextvars.ContextVar("customer")
    >>> sys.modules["shop"] = module
    >>> locate(module.customer)
    ('shop', 'customer')
    >>> del sys.modules["shop"]

    Raises:
        Nowhere: It is no module's attribute.
    """
    if variable not in _located:
        _located[variable] = _search(variable)
    found = _located[variable]
    if found is None:
        raise Nowhere(f"the context variable {variable.name!r} is not an attribute of a module")
    return found


def _search(variable: object) -> tuple[str, str] | None:
    modules: dict[str, Any] = sys.modules.copy()
    for module_name, module in modules.items():
        if not isinstance(module, ModuleType):  # some put other objects there
            continue
        for attribute, value in vars(module).copy().items():
            if value is variable:
                return module_name, attribute
    return None


def context_variable(module_name: str, attribute: str) -> contextvars.ContextVar[Any]:
    """The variable at a place. One of a module that is not here (`__main__`, a notebook) is made, once."""
    key = module_name, attribute
    if key in _made:
        return _made[key]
    if module_name != "__main__":
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError):
            found = None
        if isinstance(found, contextvars.ContextVar):
            return found
    return _made.setdefault(key, contextvars.ContextVar(attribute))
