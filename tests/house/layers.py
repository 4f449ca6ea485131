"""Which package may import which, and what each module imports, in its functions too: read from the source."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import traced_threadpool

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "traced_threadpool"
FILES = sorted(PACKAGE.rglob("*.py"))
HOMES: dict[str, str] = traced_threadpool._HOMES
"""The module of each public name, which the package imports when it is asked for the name."""

MODEL = {"model"}
ANALYSIS = {"analysis", "analysis/diagnosis", "analysis/replay", "analysis/trace_forms"}
LOWER = MODEL | {"engine", "engine/backends", "waits", "recording"}
LOWER |= {"telemetry", "telemetry/tracing", "telemetry/metrics"}
# Lowest layer first: an entry names only packages and modules above it in this table, so imports cannot go round.
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "model": set(),
    "engine/backends": MODEL | {"_version"},  # a worker must have the same version
    "engine": MODEL | {"engine/backends"},
    "waits": MODEL,
    "telemetry": MODEL,
    "telemetry/tracing": MODEL | {"_version", "telemetry"},
    "telemetry/metrics": MODEL | {"_version", "telemetry"},
    "telemetry/export": MODEL | {"_version", "telemetry", "telemetry/metrics"},
    "recording": MODEL,
    # Spans are read by the names in the inventory.
    "analysis/trace_forms": MODEL | {"telemetry"},
    # The replay runs the live scheduler in virtual time.
    "analysis/replay": MODEL | {"engine"},
    "analysis/diagnosis": MODEL | {"recording", "analysis/replay"},
    "analysis": MODEL | {"recording", "analysis/trace_forms", "analysis/replay", "analysis/diagnosis"},
    "report": MODEL | ANALYSIS | {"_version", "engine", "recording"},
    "slo": MODEL | {"telemetry"},
    # What is left of a run is replayed through the live scheduler; what threads do, the classifier of waits tells.
    "live": MODEL | {"engine", "waits"},
    "backends": {"engine/backends"},
    "placement": MODEL,
    "options": LOWER | {"placement"},
    "hamilton_graph": LOWER,
    "delegation": LOWER,
    "run_registry": LOWER,
    "assembly": LOWER
    | {"analysis/diagnosis", "live", "options", "placement", "hamilton_graph", "run_registry", "report"},
    "hamilton_hooks": LOWER | {"assembly", "hamilton_graph", "placement"},
    "adapter": LOWER | {"live", "delegation", "placement", "assembly", "hamilton_graph", "hamilton_hooks", "options"},
    "demo": {"adapter", "telemetry/export"},
    "cli": MODEL | ANALYSIS | {"_version", "demo", "engine", "report", "slo", "telemetry"},
    "__main__": {"cli"},
    # The package says who shows a recorded run in a notebook, since `model` may not know.
    "__init__": MODEL
    | {
        "_version",
        "adapter",
        "engine",
        "live",
        "options",
        "placement",
        "report",
        "telemetry/export",
        "telemetry/metrics",
    },
}


@cache
def listed() -> list[str]:
    """The files of the repository, tracked or about to be. Where there is no repository, a test of them is skipped."""
    words = ["git", "ls-files", "-co", "--exclude-standard"]
    try:
        found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git tells no files here: {error}", allow_module_level=True)
    return [path for path in sorted(found) if (ROOT / path).exists()]


@cache
def modules() -> Mapping[str, Path]:
    """Each module of the package, by its dotted name."""
    return {".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def component(file: Path) -> str:
    """What the map calls the place of a file: its package, `telemetry/tracing`, or a module at the top, `adapter`."""
    place = file.parent.relative_to(PACKAGE).as_posix()
    return place if place != "." else file.stem


def imported(file: Path, *, lazily: bool = True) -> Iterator[str]:
    """What a file imports, at its top and, lazily, in its functions; without what only the type checker needs."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    left_out = {
        id(inner)
        for node in ast.walk(tree)
        if (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
        or (isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not lazily)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                name = f"{node.module}.{HOMES.get(alias.name, alias.name)}"
                yield name if name in modules() else node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(each.value) for each in node.args[:1] if isinstance(each, ast.Constant))
    if file == PACKAGE / "__init__.py" and lazily:
        yield from (f"traced_threadpool.{home}" for home in HOMES.values())


@cache
def graph(*, lazily: bool = True) -> Mapping[str, frozenset[str]]:
    """For each module of the package, the modules of the package that it imports."""
    # A package is imported with everything in it, whoever imports it: that is no choice of theirs.
    return {
        name: frozenset({*imported(file, lazily=lazily)} & modules().keys() - {name, "traced_threadpool"})
        for name, file in modules().items()
    }


def cycles() -> list[list[str]]:
    """Groups of modules that import one another, directly or by way of others."""
    reachable = {name: reachable_from([name]) for name in modules()}
    groups = {
        tuple(sorted(other for other in reachable[name] if name in reachable[other]))
        for name in modules()
        if name in reachable[name]
    }
    return [list(group) for group in sorted(groups)]


def reachable_from(names: Iterable[str], *, lazily: bool = True) -> set[str]:
    """What is imported with these modules, by way of others too."""
    found: set[str] = set()
    waiting = [other for name in names for other in graph(lazily=lazily)[name]]
    while waiting:
        if (each := waiting.pop()) not in found:
            found.add(each)
            waiting += graph(lazily=lazily)[each]
    return found
