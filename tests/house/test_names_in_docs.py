"""Each public name in a document is there: modules and what is in them, files, options, metrics, attributes."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.house.layers import FILES, MAY_IMPORT, ROOT, listed
from traced_threadpool.telemetry import names

PATHS = listed()
DOCUMENTS = [
    ROOT / path
    for path in PATHS
    if path.endswith(".md") and not re.search(r"^(CHANGELOG|docs/internals/)|/assets/", path)
]
"""All but what tells of times past."""

OURS = ("traced-threadpool", "python -m traced_threadpool", "python -m examples", "python -m benchmarks", "make demo")
OPTIONS_OF_OTHERS = {
    "--enable-feature",
    "--no-deps",
    "--force-reinstall",
    "--build",
    "--disable-gil",
    "--preload",
    "--concurrency",
    "--workers",
}
ARGUMENTS_OF_OTHERS = {"cardinality_limits", "slo", "max_queue_size"}
MADE_UP = {"app.py", "pipeline.py", "etl.py", "conf.py"}
"""Files of the reader's own that examples speak of."""


def _code(document: Path) -> Iterator[str]:
    """What stands between backticks in a line."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", text)


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_dotted_names(document: Path) -> None:
    """`traced_threadpool.analysis.trace_file.read_runs`, in text, in tables and in programs."""
    for name in set(re.findall(r"\btraced_threadpool(?:\.\w+)+", document.read_text(encoding="utf-8"))):
        assert _is_there(name), name


def _is_there(name: str) -> bool:
    module, _, rest = name.partition(".")
    found = importlib.import_module(module)
    for part in rest.split("."):
        if not hasattr(found, part):
            try:
                found = importlib.import_module(f"{found.__name__}.{part}")
            except ImportError:
                return False
        else:
            found = getattr(found, part)
    return True


def test_files(document: Path) -> None:
    """By their path, or by the end of it where that is enough."""
    for code in _code(document):
        for name in re.findall(
            r"^(?:python )?([\w.-][\w./-]*\.(?:py|md|yaml|toml|c|ts|sh|js|css)|[\w.-][\w./-]*/)$", code
        ):
            assert name in MADE_UP or any(
                f"/{path}".endswith(f"/{name}") or f"/{name}" in f"/{path}/" for path in PATHS
            ), name


def test_options_of_commands(document: Path) -> None:
    """After a command of ours in a program, and wherever one stands alone between backticks."""
    used = {option for code in _code(document) for option in re.findall(r"^(--[a-z][a-z-]+)", code)}
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.strip().lstrip("$ ").startswith(OURS):
            used |= set(re.findall(r"(?<!\S)(?:ARGS=[\"']?)?(--[a-z][a-z-]+)", line.partition("#")[0]))
    assert used - OPTIONS_OF_OTHERS - _options() == set()


@cache
def _options() -> set[str]:
    """Of all programs of this repository."""
    programs = [
        file
        for folder in ("src", "examples", "benchmarks", "dashboards", "tests")
        for file in (ROOT / folder).rglob("*.py")
    ]
    return {
        option
        for file in programs
        for option in re.findall(r"[\"'/ ](--[a-z][a-z-]+)", file.read_text(encoding="utf-8"))
    }


def test_arguments(document: Path) -> None:
    """`max_node_labels=`, of some function or settings of the package."""
    used = {
        name
        for code in _code(document)
        if not re.search("[{]|--", code)
        for name in re.findall(r"(?<![\w.\"&?-])([a-z_]+)=(?!=)", code)
    }
    labels = {label for metric in names.METRICS for label in metric.labels}
    assert used - _arguments() - labels - ARGUMENTS_OF_OTHERS == set()


@cache
def _arguments() -> set[str]:
    found: set[str] = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found |= {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


def test_metrics_and_attributes(document: Path) -> None:
    """By their names in the inventory; a name that ends with `_` or `.` stands for all that begin so."""
    text = document.read_text(encoding="utf-8")
    metrics = {
        f"{metric.prometheus_base}{suffix}"
        for metric in names.METRICS
        for suffix in ("", "_total", "_sum", "_count", "_bucket", "_created")
    }
    metrics |= {
        name
        for rules in [*ROOT.glob("dashboards/rules/*.yaml"), *ROOT.glob("src/traced_threadpool/slo/*.py")]
        for name in re.findall(r"\bhamilton_\w+", rules.read_text())
    }
    for name in set(re.findall(r"\bhamilton_[a-z_]+\b(?!\.py)", text)) - MAY_IMPORT.keys():
        assert name in metrics or (name.endswith("_") and any(each.startswith(name) for each in metrics)), name
    known = {attribute.key for attribute in names.ATTRIBUTES} | {metric.otel for metric in names.METRICS}
    for name in set(
        re.findall(r"(?<![\w./`-])`(hamilton\.(?:run|node|threadpool|link|task|graph|queue)\.[a-z_.]+)`", text)
    ):
        assert name in known or any(
            each.startswith(name) or re.fullmatch(re.sub(r"<\w+>", r"[a-z_.]+", each), name) for each in known
        ), name
