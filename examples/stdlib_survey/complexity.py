'''A syntax tree into the size, cyclomatic complexity and nesting of its functions.

Rule: a function starts at 1; each of these adds 1: `if`, `elif`, `for`, `while`, `except`, a conditional
expression, every `for` and `if` of a comprehension, every `case` but one that takes anything, every operand
of `and`/`or` after the first. Nesting counts the compound statements around the deepest statement.
A function inside of another is measured by itself.

>>> source = """
... def sign(number):
...     if number > 0:
...         return 1
...     elif number < 0:
...         return -1
...     return 0
...
... def primes(limit):
...     found = []
...     for number in range(2, limit):
...         if all(number % prime for prime in found):
...             found.append(number)
...     return found
... """
>>> for function in measure_tree(ast.parse(source)).functions:
...     print(function.name, function.lines, function.complexity, function.nesting)
sign 6 3 1
primes 6 4 2

What counts for documentation are the public names: the module, its classes and functions, and their methods.

>>> source = """
... class Public:
...     'Documented.'
...     def method(self): pass
... def _private(): pass
... """
>>> measure = measure_tree(ast.parse(source))
>>> measure.documented_definitions, measure.public_definitions
(1, 3)
'''

import ast
import sys
from dataclasses import dataclass, replace

from .records import FunctionMeasure, TreeMeasure

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp)
_COUNTED = frozenset({*_BRANCHES, ast.BoolOp, ast.comprehension, ast.match_case})
_BLOCKS = frozenset({ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.Match})
if sys.version_info >= (3, 11):
    _BLOCKS |= {ast.TryStar}  # `except*`
# Most nodes of a tree are names and constants, and have nothing below them.
_LEAVES = frozenset({ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del, ast.alias, ast.Pass})


@dataclass(slots=True)
class _Function:
    """A function while its body is being walked."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    complexity: int = 1
    nesting: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the module a node stands."""

    names: tuple[str, ...] = ()
    public: bool = True
    function: _Function | None = None
    depth: int = 0


def measure_tree(tree: ast.Module) -> TreeMeasure:
    """Measure every function of a module and count its documented public names."""
    functions: list[_Function] = []
    public = 1
    documented = int(_has_docstring(tree))
    # A stack of our own: a generated module can be nested deeper than Python lets a function recurse.
    pending: list[tuple[ast.AST, _Place]] = [(child, _Place()) for child in _children(tree)]
    while pending:
        node, place = pending.pop()
        if isinstance(node, Definition):
            place = _enter(node, place)
            if place.public:
                public += 1
                documented += _has_docstring(node)
            if place.function is not None and place.function.node is node:
                functions.append(place.function)
        else:
            place = _pass(node, place)
        if isinstance(node, ast.If):
            pending.extend((child, _below_if(node, child, place)) for child in _children(node))
        else:
            pending.extend([(child, place) for child in _children(node)])
    functions.sort(key=lambda function: (function.node.lineno, function.node.col_offset))
    return TreeMeasure(
        functions=tuple(
            FunctionMeasure(
                name=function.name,
                line=function.node.lineno,
                lines=(function.node.end_lineno or function.node.lineno) - function.node.lineno + 1,
                complexity=function.complexity,
                nesting=function.nesting,
            )
            for function in functions
        ),
        public_definitions=public,
        documented_definitions=documented,
    )


def decisions(node: ast.AST) -> int:
    """How many ways a single node adds to the ways through its function.

    >>> decisions(ast.parse("a and b and c", mode="eval").body)
    2
    """
    if isinstance(node, _BRANCHES):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        anything = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None
        return 0 if anything and node.guard is None else 1
    return 0


def _enter(node: Definition, place: _Place) -> _Place:
    names = (*place.names, node.name)
    public = place.public and place.function is None and not node.name.startswith("_")
    if isinstance(node, ast.ClassDef):
        return _Place(names=names, public=public, function=place.function, depth=place.depth)
    return _Place(names=names, public=public, function=_Function(name=".".join(names), node=node))


def _pass(node: ast.AST, place: _Place) -> _Place:
    kind = type(node)
    function = place.function
    if function is not None and kind in _COUNTED:
        function.complexity += decisions(node)
    if kind not in _BLOCKS:
        return place
    if function is not None:
        function.nesting = max(function.nesting, place.depth + 1)
    return replace(place, depth=place.depth + 1)


def _below_if(node: ast.If, child: ast.AST, place: _Place) -> _Place:
    """An `elif` is an `if` in the other's `else`, at the same column: not a level deeper."""
    if isinstance(child, ast.If) and node.orelse == [child] and child.col_offset == node.col_offset:
        return replace(place, depth=place.depth - 1)
    return place


def _children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below, without those that nothing is to be learnt from."""
    children: list[ast.AST] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            nodes = [item for item in value if isinstance(item, ast.AST) and type(item) not in _LEAVES]
            children.extend(nodes)
        elif isinstance(value, ast.AST) and type(value) not in _LEAVES:
            children.append(value)
    return children


def _has_docstring(node: Definition | ast.Module) -> bool:
    return ast.get_docstring(node, clean=False) is not None
