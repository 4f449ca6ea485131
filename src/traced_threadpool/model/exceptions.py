"""What may be asked of an exception that somebody else wrote, without calling any of its code.

`isinstance` asks an object for its `__class__`, an `if` for its truth, and a class may refuse each, or say what is not
so. Its type, and what the interpreter itself keeps of it, is always available.

>>> class Falsy(Exception):
...     def __bool__(self):
...         raise RuntimeError("not even this")
>>> is_a(Falsy(), Exception), reason_of(Falsy()) is None
(True, True)
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

_cause: Final[Any] = BaseException.__cause__
_context: Final[Any] = BaseException.__context__
_traceback: Final[Any] = BaseException.__traceback__


def is_a(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether the exception is of this kind, whatever it says itself."""
    return issubclass(type(error), kind)


def reason_of(error: BaseException) -> BaseException | None:
    """What it was raised from, or while handling which."""
    cause: BaseException | None = _cause.__get__(error)
    if cause is not None:
        return cause
    context: BaseException | None = _context.__get__(error)
    return context


def traceback_of(error: BaseException) -> TracebackType | None:
    """Where it was raised."""
    traceback: TracebackType | None = _traceback.__get__(error)
    return traceback


def set_traceback(error: BaseException, traceback: TracebackType) -> None:
    """Also of one that cannot be changed, such as a frozen dataclass: that binds Python code alone."""
    _traceback.__set__(error, traceback)


def type_name(kind: type) -> str:
    """A type's module and name, without asking its metaclass.

    >>> class Refusing(type):
    ...     def __getattribute__(cls, name):
    ...         raise SystemExit
    >>> class Refused(Exception, metaclass=Refusing):
    ...     __module__ = "shop"
    >>> type_name(Refused), type_name(ValueError)
    ('shop.Refused', 'builtins.ValueError')
    """
    found: Any = type.__dict__
    try:
        module = found["__module__"].__get__(kind)
    except AttributeError:  # it was deleted
        module = None
    name = str.__str__(found["__qualname__"].__get__(kind))
    return f"{module}.{name}" if type(module) is str else name


MAX_MESSAGE: Final = 500
"""How many characters of a message are kept."""

_PLAIN: Final = (str, bytes, int, float, bool, type(None))


def message_of(error: BaseException) -> str | None:
    """What it says, where that can be told without calling anybody's code; None where it cannot, or says nothing.

    >>> message_of(ValueError("no rate for 'ISK'")), message_of(KeyError("rate")), message_of(ValueError())
    ("no rate for 'ISK'", "'rate'", None)
    >>> class Own(Exception):
    ...     def __str__(self):
    ...         raise RuntimeError("not even this")
    >>> message_of(Own("x")) is None, message_of(ValueError(Own())) is None
    (True, True)
    """
    says: Any = None
    for kind in _bases.__get__(type(error)):
        says = type.__dict__["__dict__"].__get__(kind).get("__str__")
        if says is not None:
            break
    parts = [*_arguments.__get__(error), *(_file(error) if is_a(error, OSError) else ())]
    if type(says) is not _OF_C or any(type(part) not in _PLAIN for part in parts):
        return None
    return says(error)[:MAX_MESSAGE] or None


def _file(error: BaseException) -> tuple[object, object]:
    """What an OSError keeps beside its arguments."""
    kept: Any = OSError.__dict__
    return kept["filename"].__get__(error), kept["filename2"].__get__(error)


_bases: Final[Any] = type.__dict__["__mro__"]
_arguments: Final[Any] = BaseException.__dict__["args"]
_OF_C: Final = type(BaseException.__str__)
