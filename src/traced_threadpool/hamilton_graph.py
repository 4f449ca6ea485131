"""Hamilton's graphs and nodes into what this package knows of them: what will run, a node's description, a version."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from hamilton import graph_types
from hamilton import node as hamilton_node

from traced_threadpool.telemetry.tracing.attributes import Definition

MAX_NEW_SOURCES: Final = 500
"""Of how many functions not seen before the sources are read, for the version of a graph."""

PARSES_SAFELY: Final = not ((3, 11) <= sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2))
"""Whether two threads can make syntax trees at once. Before https://github.com/python/cpython/pull/113035 they could
make each other fail with a SystemError, and a node may be the other thread."""


def upstream(graph: Any, wanted: Collection[str], overrides: Collection[str]) -> dict[str, tuple[str, ...]]:
    """For each node that an execution will run, those of its inputs that it will run too; in Hamilton's order."""

    def inputs(node: hamilton_node.Node) -> list[hamilton_node.Node]:
        return [each for each in node.dependencies if not each.user_defined and each.name not in overrides]

    found: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    path: list[tuple[hamilton_node.Node, list[hamilton_node.Node], Iterator[hamilton_node.Node]]] = []

    def visit(node: hamilton_node.Node) -> None:
        seen.add(node.name)
        needed = inputs(node)
        path.append((node, needed, iter(needed)))

    for name in wanted:
        first = graph.nodes.get(name)
        if first is None or first.user_defined or name in overrides or name in seen:
            continue
        visit(first)
        while path:
            node, needed, left = path[-1]
            following = next((each for each in left if each.name not in seen), None)
            if following is not None:
                visit(following)
            else:
                path.pop()
                found[node.name] = tuple(each.name for each in needed)
    return found


def has_branches(graph: Any, names: Collection[str]) -> bool:
    """Whether one of these nodes is split into branches, so that nobody knows how many nodes there will be."""
    expand = hamilton_node.NodeType.EXPAND
    return any(graph.nodes[name].node_role is expand for name in names if name in graph.nodes)


def describe(node: Any) -> Definition:
    """What a node's span tells of its definition."""
    functions = node.originating_functions
    return Definition(tags=node.tags, function=functions[0] if functions else None)


_versions: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()
_function_versions: weakref.WeakKeyDictionary[Callable[..., Any], str | None] = weakref.WeakKeyDictionary()


def graph_version(graph: Any) -> str | None:
    """Hamilton's version of a graph, a hash over the sources of its functions; None for one of very many.

    None, too, where working it out could break a node (`PARSES_SAFELY`). Reading and parsing a function's source takes
    half a millisecond, so it is done once for each function.
    """
    try:
        return _versions[graph]
    except KeyError:
        pass
    if not PARSES_SAFELY:
        return None
    described = graph_types.HamiltonGraph.from_graph(graph)
    known = _function_versions
    first = {id(node): node.originating_functions[0] for node in described.nodes if node.originating_functions}
    version: str | None = None
    if len({function for function in first.values() if function not in known}) <= MAX_NEW_SOURCES:
        for node in described.nodes:
            function = first.get(id(node))
            if function is None:
                continue
            if function in known:
                vars(node)["version"] = known[function]  # where `cached_property` keeps what it has worked out
            else:
                known[function] = node.version
        version = str(described.version)
    _versions[graph] = version
    return version


def function_name(function: Callable[..., Any]) -> str:
    """A name for what is submitted without a node."""
    function = getattr(function, "func", function)
    return getattr(function, "__name__", type(function).__name__)
