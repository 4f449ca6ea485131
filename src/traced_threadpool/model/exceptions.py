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
