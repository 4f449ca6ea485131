"""The DAGs whose nodes are moved: which nodes there are, what they do, and which of them go to processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from hamilton import ad_hoc_utils
from hamilton.function_modifiers import group, inject, parameterize, source, value

from benchmarks.placements.work import python, turns

MEGABYTES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`moved` are the nodes that go to processes, `moved_bytes` what each of them takes in and gives back."""

    name: str
    module: Callable[[], ModuleType]
    moved: Sequence[str]
    moved_bytes: int = 0


def _module(nodes: Mapping[str, tuple[Callable[[Any], Any], str | None]]) -> ModuleType:
    """A node for each name, which calls its function with the value of another node or with nothing; and `whole`."""
    functions = []
    for name, (work, upstream) in nodes.items():
        functions.append(_node(work, name, upstream))

    def whole(parts: list[Any]) -> int:
        return len(parts)

    together = inject(parts=group(*[source(name) for name in nodes]))(whole)
    return ad_hoc_utils.create_temporary_module(*functions, together)


def _node(work: Callable[[Any], Any], name: str, upstream: str | None) -> Callable[..., Any]:
    def node(given: object) -> object:
        return work(given)

    node.__name__ = node.__qualname__ = f"of_{name}"
    where: Any = {name: {"given": value(None) if upstream is None else source(upstream)}}
    made: Callable[..., Any] = parameterize(**where)(node)
    return made


def _plain(seconds: float, before: float = 0.0) -> Callable[[Any], int]:
    amount = turns(seconds)

    def work(given: object) -> int:
        if before:
            time.sleep(before)
        return python(amount)

    return work


def _array(given: object) -> Any:
    import numpy

    return numpy.ones(MEGABYTES * 125_000)


def _on_array(seconds: float) -> Callable[[Any], Any]:
    amount = turns(seconds)

    def work(given: Any) -> Any:
        python(amount)
        return given + 1

    return work


def _sleep(given: object) -> int:
    time.sleep(0.15)
    return 0


def _alike(prefix: str, number: int) -> list[str]:
    return [f"{prefix}_{each}" for each in range(number)]


def _python() -> ModuleType:
    return _module({name: (_plain(0.12), None) for name in _alike("parse", 8)})


def _requests() -> ModuleType:
    return _module({name: (_plain(0.1, before=0.1), None) for name in _alike("parse", 8)})


def _beside() -> ModuleType:
    computing: dict[str, Any] = {name: (_plain(0.2), None) for name in _alike("parse", 4)}
    return _module({**computing, **dict.fromkeys(_alike("fetch", 12), (_sleep, None))})


def _chains() -> ModuleType:
    names = [f"step_{chain}_{place}" for chain in range(4) for place in range(3)]
    return _module(
        {name: (_plain(0.08), None if place % 3 == 0 else names[place - 1]) for place, name in enumerate(names)}
    )


def _arrays() -> ModuleType:
    made: dict[str, Any] = dict.fromkeys(_alike("array", 6), (_array, None))
    return _module({**made, **{f"fit_{each}": (_on_array(0.15), f"array_{each}") for each in range(6)}})


def _array_chains() -> ModuleType:
    nodes: dict[str, Any] = {}
    for chain in range(2):
        nodes[f"array_{chain}"] = (_array, None)
        for place in range(3):
            nodes[f"fit_{chain}_{place}"] = (_on_array(0.15), f"fit_{chain}_{place - 1}" if place else f"array_{chain}")
    return _module(nodes)


BOTH_WAYS: Final = 2 * MEGABYTES * 1_000_000

CASES: Final[Mapping[str, Case]] = {
    case.name: case
    for case in (
        Case(name="plain Python", module=_python, moved=_alike("parse", 8)),
        Case(name="a wait, then Python", module=_requests, moved=_alike("parse", 8)),
        Case(name="Python beside I/O", module=_beside, moved=_alike("parse", 4)),
        Case(
            name="chains of Python",
            module=_chains,
            moved=[f"step_{chain}_{place}" for chain in range(4) for place in range(3)],
        ),
        Case(name="arrays of 20 MB", module=_arrays, moved=_alike("fit", 6), moved_bytes=BOTH_WAYS),
        Case(
            name="arrays of 20 MB in chains",
            module=_array_chains,
            moved=[f"fit_{chain}_{place}" for chain in range(2) for place in range(3)],
            moved_bytes=BOTH_WAYS,
        ),
    )
}
