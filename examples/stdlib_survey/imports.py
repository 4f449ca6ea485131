"""Syntax trees into the graph of who imports whom, and the graph into the modules that everything leans on.

Rule: every `import` of a module counts, wherever it stands. A name is the longest prefix of it that is a
module of the survey; a module written in C is not in the survey and counts under its top-level name.

>>> graph = import_graph({"app": ["lib.tools.hammer", "sys"], "lib": [], "lib.tools": ["lib", "sys"]})
>>> graph
{'app': ('lib.tools', 'sys'), 'lib': (), 'lib.tools': ('lib', 'sys'), 'sys': ()}
>>> max(page_rank(graph).items(), key=lambda entry: entry[1])[0]
'sys'
"""

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping

ImportGraph = dict[str, tuple[str, ...]]

_HOLDS_STATEMENTS = ("body", "orelse", "finalbody", "handlers", "cases")


def imported_names(tree: ast.Module, module: str, is_package: bool) -> tuple[str, ...]:
    """Every dotted name that a module's imports may mean, sorted; relative imports are made absolute.

    >>> imported_names(ast.parse("from . import near; from ..far import *; import os"), "top.mid.here", False)
    ('os', 'top.far', 'top.mid.near')
    """
    return tuple(sorted(set(_names(tree, module.split("."), is_package))))


def import_graph(imports: Mapping[str, Iterable[str]]) -> ImportGraph:
    """From each module to the modules that it imports, itself left out; all that occur have an entry."""
    graph = {module: {_resolve(name, imports) for name in names} - {module} for module, names in imports.items()}
    everything = set(graph).union(*graph.values())
    return {module: tuple(sorted(graph.get(module, ()))) for module in sorted(everything)}


def importers(graph: ImportGraph) -> dict[str, int]:
    """By how many modules each one is imported."""
    counts = dict.fromkeys(graph, 0)
    for targets in graph.values():
        for target in targets:
            counts[target] += 1
    return counts


def page_rank(graph: ImportGraph, damping: float = 0.85, rounds: int = 60) -> dict[str, float]:
    """Where a reader ends up who follows imports at random, and starts anew at a dead end or now and then.

    >>> {module: round(rank, 3) for module, rank in page_rank({"a": ("b",), "b": ()}).items()}
    {'a': 0.351, 'b': 0.649}
    """
    if not graph:
        return {}
    size = len(graph)
    ranks = dict.fromkeys(graph, 1 / size)
    for _ in range(rounds):
        stranded = sum(ranks[module] for module, targets in graph.items() if not targets)
        following = dict.fromkeys(graph, (1 - damping + damping * stranded) / size)
        for module, targets in graph.items():
            for target in targets:
                following[target] += damping * ranks[module] / len(targets)
        ranks = following
    return ranks


def longest_prefix(name: str, known: Collection[str]) -> str | None:
    """The longest prefix of a dotted name that is among the known ones.

    >>> longest_prefix("xml.etree.ElementTree", {"xml", "xml.etree"})
    'xml.etree'
    """
    while name not in known:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def _resolve(name: str, known: Collection[str]) -> str:
    return longest_prefix(name, known) or name.partition(".")[0]


def _names(tree: ast.Module, module: list[str], is_package: bool) -> Iterator[str]:
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, is_package)
            for alias in node.names:
                parts = [*base, alias.name] if alias.name != "*" else base
                if parts:
                    yield ".".join(parts)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement at any depth; expressions are not looked into, for they hold no import."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        yield node
        for field in _HOLDS_STATEMENTS:
            pending.extend(getattr(node, field, ()))


def _base(node: ast.ImportFrom, module: list[str], is_package: bool) -> list[str]:
    """What `from` names, as an absolute path. One dot is the module's package, each more its parent."""
    named = node.module.split(".") if node.module else []
    if not node.level:
        return named
    outwards = node.level - 1 if is_package else node.level
    return module[: max(0, len(module) - outwards)] + named
