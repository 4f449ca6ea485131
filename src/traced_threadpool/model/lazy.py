"""A property that is worked out once, when it is first asked for, and takes no lock.

>>> class Square:
...     def __init__(self, side: int) -> None:
...         self.side = side
...     @lazy
...     def area(self) -> int:
...         print("multiplying")
...         return self.side**2
>>> square = Square(3)
>>> square.area, square.area
multiplying
(9, 9)

`functools.cached_property` has one lock for all objects until Python 3.11. A fork can copy it held by another thread of
the parent, and then the child waits for ever. Here two threads may both work the value out, and all see one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class lazy(Generic[Value]):  # it is used as `property` is
    """Decorates a method without arguments, of a class whose objects have a `__dict__`."""

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> lazy[Value] | Value:
        """Only for an object that has no value yet: its own `__dict__` comes first."""
        if instance is None:
            return self
        found: Value = instance.__dict__.setdefault(self._name, self._function(instance))
        return found
