"""Nodes, their inputs and how long they sleep into a Python module that Hamilton can crawl.

The functions are real ones with source text, since Hamilton and its tracer read annotations and sources.

>>> module = write_module("doc", {"a": (), "b": ("a",)}, {"b": 0.001})
>>> import inspect
>>> print(inspect.getsource(module.b).rstrip())
def b(a: int) -> int:
    sleep(0.001)
    return (1 + 31 * sum((a,))) % 1000003
>>> module.b(module.a()) == node_value(1, [node_value(0, [])])
True
"""

from __future__ import annotations

import itertools
import linecache
import sys
from collections.abc import Iterable, Mapping, Sequence
from time import sleep
from types import ModuleType

_FACTOR, _MODULUS = 31, 1_000_003  # small numbers whatever the depth

_numbers = itertools.count()


def node_value(number: int, values: Iterable[int]) -> int:
    """What the node of this number makes of its inputs."""
    return (number + _FACTOR * sum(values)) % _MODULUS


def write_module(label: str, inputs: Mapping[str, Sequence[str]], seconds: Mapping[str, float]) -> ModuleType:
    """Defines a function for each node, in a module that can be looked up as one read from a file can."""
    module = ModuleType(f"benchmark_dag_{next(_numbers)}", f"Nodes of {label}.")
    filename = f"<{module.__name__}>"
    source = "\n".join(
        _function(number, node, upstream, seconds.get(node)) for number, (node, upstream) in enumerate(inputs.items())
    )
    module.__file__ = filename
    module.__dict__["sleep"] = sleep
    sys.modules[module.__name__] = module
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), module.__dict__)
    return module


def _function(number: int, node: str, upstream: Sequence[str], seconds: float | None) -> str:
    parameters = ", ".join(f"{name}: int" for name in upstream)
    arguments = "".join(f"{name}," for name in upstream)
    pause = f"    sleep({seconds})\n" if seconds else ""
    value = f"({number} + {_FACTOR} * sum(({arguments}))) % {_MODULUS}"
    return f"def {node}({parameters}) -> int:\n{pause}    return {value}\n"
