"""Which node runs on which backend: tags, `run_on=` and a graph into names of nodes and backends.

A decorator of Hamilton's makes several nodes of one function, and tags only the last ones. With `check_output` the
heavy node is `x_raw`, and the tag is on `x`, which hands on a value; with `extract_fields` it is on the extractors. So
whoever is asked to run somewhere brings along the nodes that it is made from: those upstream of it that come of the
same function. Nodes that only rearrange values stay where they are.
"""

from __future__ import annotations

import difflib
import logging
import weakref
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, Final, TypeVar

from hamilton import node as hamilton_node
from hamilton.function_modifiers import tag

from traced_threadpool.model.records import THREADS

logger = logging.getLogger("traced_threadpool")

TAG: Final = "traced_threadpool.run_on"

AUTO: Final = "auto"
"""What `run_on=` says for nodes to be placed by what runs have shown."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

RunOn = (
    str
    | Mapping[str, str]
    | Mapping[Callable[..., Any], str]
    | Mapping[str | Callable[..., Any], str]
    | Callable[[hamilton_node.Node], str | None]
)
"""One backend for all nodes; or by node or function; or what to ask for each node."""

_REARRANGING: Final = frozenset(
    {"__identity", "extractor_fn", "filter_function", "final_node_callable", "identity", "validation_function"}
)
"""Functions of Hamilton's decorators that compute nothing of the user's."""

_UNWRAPPED: Final = 32  # how many wrappers around a function are looked through


def run_on(backend: str) -> Callable[[_Function], _Function]:
    """Has a function's nodes run on a backend of the adapter, by its name in `backends=`.

    The same as `@tag(**{"traced_threadpool.run_on": backend})`. An adapter without `backends=` takes no notice.

    >>> @run_on("cpu")
    ... def features(orders: int) -> int:
    ...     return orders
    """
    name: object = backend
    if not isinstance(name, str) or not name:
        raise TypeError(f"run_on takes the name of a backend, such as @run_on('cpu'), not {backend!r}")
    tags: dict[str, Any] = {TAG: backend}
    decorator: Callable[[_Function], _Function] = tag(**tags)
    return decorator


@dataclass(frozen=True, slots=True)
class Placement:
    """For each node that runs elsewhere than on threads, where; and names in `run_on=` that no node has."""

    backends: Mapping[str, str]
    unknown: tuple[str, ...] = ()


class _Asked:
    """What was asked for, by node. What was asked of a node itself goes before what another brings along."""

    def __init__(self) -> None:
        self._own: dict[str, str] = {}
        self._along: dict[str, dict[str, str]] = {}  # by backend, for whom

    def add(self, node: hamilton_node.Node, backend: str) -> bool:
        """Whether anything that computes is meant."""
        own = _computes(node)
        if own:
            self._own[node.name] = backend
        along = [each.name for each in _made_from(node) if _computes(each)]
        for name in along:
            self._along.setdefault(name, {}).setdefault(backend, node.name)
        return own or bool(along)

    def result(self, decided: Collection[str] = ()) -> dict[str, str]:
        """What was asked for, but for nodes that others have decided on."""
        found = {}
        for name, asked in self._along.items():
            if name in self._own or name in decided:
                continue
            (backend, by), *others = asked.items()
            for other, other_by in others:
                raise ValueError(
                    f"node {name!r} is asked to run on {backend!r} for {by!r} and on {other!r} for {other_by!r}; "
                    "name it itself in run_on="
                )
            found[name] = backend
        return {**found, **{name: backend for name, backend in self._own.items() if name not in decided}}


def place(
    nodes: Mapping[str, hamilton_node.Node], running: Collection[str], run_on: RunOn | None, backends: Collection[str]
) -> Placement:
    """Where each node runs.

    Args:
        nodes: The graph's, by name.
        running: The names of those that will run.
        run_on: What the adapter was told. It goes before tags.
        backends: The names of the adapter's backends.

    Raises:
        ValueError: A name is no backend; or what is asked to run there computes nothing; or is asked to run in two
            places.
        TypeError: `run_on` gave something that is no name.
    """
    tagged, told = _Asked(), _Asked()
    known = [*backends, THREADS]
    for node in nodes.values():
        backend = node.tags.get(TAG)
        if backend is None or node.user_defined:
            continue
        if backend in known:
            hit = tagged.add(node, backend)
        elif node.name in running:
            raise ValueError(f"node {node.name!r} is tagged to run on {backend!r}; {_no_backend(backend, known)}")
        if node.name in running and not hit:
            raise ValueError(f"node {node.name!r} is tagged to run on {backend!r}, and {_NOTHING}")
    unknown: list[str] = []
    if isinstance(run_on, str):
        _check(run_on, known, "run_on=")
        for node in nodes.values():
            if not node.user_defined:
                told.add(node, run_on)
    elif isinstance(run_on, Mapping):
        for key, backend in run_on.items():
            name = _name(key)
            _check(backend, known, f"run_on= sends {name!r} to it:")
            meant = _named(name, nodes)
            if not meant:
                unknown.append(name)
            elif True not in {told.add(node, backend) for node in meant}:
                raise ValueError(f"run_on= sends {name!r} to {backend!r}, and {_NOTHING}")
    elif run_on is not None:
        for node in nodes.values():
            backend = None if node.user_defined else run_on(node)
            if backend is not None:
                _check(backend, known, f"run_on= gave it for node {node.name!r}:")
                told.add(node, backend)
    explicit = told.result()
    merged = {**tagged.result(explicit), **explicit}
    found = {name: backend for name, backend in merged.items() if name in running and backend != THREADS}
    return Placement(backends=found, unknown=tuple(unknown))


def may_move(node: hamilton_node.Node) -> bool:
    """Whether a node may be placed without being asked to: it computes, and nobody has said where."""
    return TAG not in node.tags and _computes(node)


class Placements:
    """The placements of graphs by one adapter, each worked out once.

    Args:
        run_on: What the adapter was told. A callable is asked at each run.
        backends: The names of its backends.
    """

    def __init__(self, run_on: RunOn | None, backends: Collection[str]) -> None:
        self._run_on = run_on
        self._backends = backends
        self._known: weakref.WeakKeyDictionary[Any, dict[Any, Mapping[str, str]]] = weakref.WeakKeyDictionary()
        self._told: set[str] = set()

    def of(self, graph: Any, wanted: Hashable, running: Callable[[], Collection[str]]) -> Mapping[str, str]:
        """The backend of each node that runs elsewhere than on threads, in an execution of a graph.

        Raises as `place` does.
        """
        known = self._known.setdefault(graph, {})
        if wanted in known:
            return known[wanted]
        found = place(graph.nodes, running(), self._run_on, self._backends)
        for name in found.unknown:
            if name not in self._told:
                self._told.add(name)
                logger.warning("run_on= names %r, and no node is called that%s", name, similar(name, graph.nodes))
        if not callable(self._run_on):
            known[wanted] = found.backends
        return found.backends


_NOTHING: Final = (
    "neither it nor what it is made from computes anything: tag the function that does, or name its node in run_on="
)


def similar(name: str, nodes: Collection[str]) -> str:
    """A hint at the name that was meant, or nothing.

    >>> similar("trian", ["train", "load"])
    "; did you mean 'train'?"
    """
    close = difflib.get_close_matches(name, nodes, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check(backend: object, known: Collection[str], why: str) -> None:
    if not isinstance(backend, str):
        raise TypeError(f"{why} a backend is given by its name, not as {backend!r}")
    if backend not in known:
        raise ValueError(f"{why} {_no_backend(backend, known)}")


def _no_backend(backend: str, known: Collection[str]) -> str:
    return f"{backend!r} is no backend of this adapter, which has {', '.join(map(repr, known))}"


def _name(key: object) -> str:
    """A key of `run_on=`: the name of a node or a function, or the function itself."""
    name = key if isinstance(key, str) else getattr(key, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"run_on= sends {key!r} somewhere; expected the name of a node, or a function")
    return name


def _named(name: str, nodes: Mapping[str, hamilton_node.Node]) -> list[hamilton_node.Node]:
    """The node of this name, else the nodes of the function of this name."""
    if name in nodes:
        if nodes[name].user_defined:
            raise ValueError(f"run_on= names {name!r}, which is an input and does not run")
        return [nodes[name]]
    return [
        node
        for node in nodes.values()
        if not node.user_defined and any(each.__name__ == name for each in (node.originating_functions or ())[:1])
    ]


def _made_from(node: hamilton_node.Node) -> Iterator[hamilton_node.Node]:
    """The nodes upstream of one, by way of each other, that come of the function that it comes of."""
    functions = node.originating_functions
    if not functions:
        return
    seen = {node.name}
    found = [node]
    for each in found:  # grows while it is gone through
        for other in each.dependencies:
            if (
                other.name not in seen
                and not other.user_defined
                and functions[0] in (other.originating_functions or ())
            ):
                seen.add(other.name)
                found.append(other)
                yield other


def _computes(node: hamilton_node.Node) -> bool:
    """Whether a node calls a function of the user's, or one of Hamilton's that reads or writes data."""
    if node.user_defined:
        return False
    function = _innermost(node.callable)
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", "").rpartition(".")[2]
    return not (module.startswith("hamilton.") and name in _REARRANGING)


def _innermost(function: Any) -> Any:
    """The function within what Hamilton wraps around it: to rename parameters, or for a namespace."""
    for _ in range(_UNWRAPPED):
        if isinstance(function, partial):
            function = function.func
            continue
        inner = None
        if isinstance(function, FunctionType) and function.__module__.startswith("hamilton."):
            name = function.__qualname__.rpartition(".")[2]
            if name in ("new_callable", "async_function"):
                inner = _captured(function).get("self")
                inner = getattr(inner, "callable", None)
            elif name in ("fn", "async_fn"):
                inner = (function.__defaults__ or (None,))[0]
        if inner is None:
            break
        function = inner
    return function


def _captured(function: FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells}
