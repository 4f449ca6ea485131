"""Imports point one way: the map of who may import whom inside the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import traced_threadpool

PACKAGE = Path(traced_threadpool.__file__).parent

# Each room and what it may import. `telemetry` stands for all its files, which may import each other.
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "model": {"report"},  # a recorded run shows itself in a notebook by the report's help
    "engine": {"model"},
    "waits": {"model"},
    "telemetry": {"_version", "model"},
    # The critical path is worked out while the program runs, with the same code as from a file.
    "recording": {"engine", "model"},
    # Spans are read by the names in the inventory.
    "analysis": {"model", "recording", "engine", "telemetry"},
    "report": {"_version", "model", "recording", "engine", "analysis"},
    "slo": {"telemetry"},
    "adapter": {"model", "engine", "waits", "telemetry", "recording"},
    "demo": {"adapter", "analysis", "model", "report", "telemetry"},
    "cli": {"_version", "analysis", "demo", "engine", "model", "report", "slo", "telemetry"},
    "__main__": {"cli"},
    "__init__": {"_version", "adapter", "engine", "telemetry"},
}
HAMILTON_IS_KNOWN_IN = {"adapter.py", "demo.py"}
EXTRAS = {"cli", "demo.py", "report", "slo"}
"""Reached by the command alone, which says what to install."""


def _imports(file: Path) -> Iterator[str]:
    """Modules imported at run time; what is for the type checker alone does not count."""
    tree = ast.parse(file.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(file: Path) -> None:
    """A new import that points the other way is a change of architecture, to be made here first."""
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    found = {
        module.split(".")[1]
        for module in _imports(file)
        if module.startswith("traced_threadpool.") and len(module.split(".")) > 1
    }
    assert found - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_the_adapter_knows_hamilton(file: Path) -> None:
    """Everything else would serve another framework as well."""
    if str(file.relative_to(PACKAGE)) not in HAMILTON_IS_KNOWN_IN:
        assert not [module for module in _imports(file) if module.split(".")[0] == "hamilton"]


def test_every_room_is_in_the_map() -> None:
    """A room without rules would be free to import anything."""
    assert MAY_IMPORT.keys() == {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES}


def test_the_core_imports_no_extra() -> None:
    """At the top of a file, only the three dependencies; an extra is imported where it is chosen."""
    for file in FILES:
        if file.relative_to(PACKAGE).parts[0] in EXTRAS:
            continue
        top = {
            name.split(".")[0]
            for node in ast.parse(file.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
        assert not top & {"rich", "grpc", "requests", "google", "yaml"}, file
        assert "opentelemetry.sdk" not in {
            node.module for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)
        }, file
