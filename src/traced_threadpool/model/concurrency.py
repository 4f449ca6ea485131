"""What holds under the GIL and not without it, in one place.

Under the GIL every thread sees stores in the order in which they were made, so that a flag set before a look at
another can stand in for a lock. On a free-threaded build of CPython that is not promised, and such places take a lock.

Dicts, lists, deques, sets and `itertools.count` keep themselves whole on such builds, one operation at a time. An
`OrderedDict` does not (https://github.com/python/cpython/issues/125996), and is not used.
"""

from __future__ import annotations

import sysconfig
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

STORES_IN_ORDER: Final = not sysconfig.get_config_var("Py_GIL_DISABLED")
"""By how the interpreter was built, not by whether it has its lock just now: a free-threaded one takes it while it
imports an extension module, and that may be what imports us."""

_T = TypeVar("_T")


def members(of: weakref.WeakSet[_T]) -> list[_T]:
    """Those alive. Others may come and go meanwhile, at which going through the set itself raises.

    >>> members(weakref.WeakSet())
    []
    """
    return _unbroken(lambda: list(of))


def values(of: weakref.WeakKeyDictionary[Any, _T]) -> list[_T]:
    """Those of the keys that are alive; likewise."""
    return _unbroken(lambda: list(of.values()))


def _unbroken(read: Callable[[], list[_T]]) -> list[_T]:
    while True:
        try:
            return read()
        except RuntimeError:  # it changed in the middle
            continue
