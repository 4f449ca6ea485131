"""The documents' Python: each block compiles, what it imports of the package is there, and how-tos run."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.layers import ROOT, listed

pytest.importorskip("fastapi", reason="fastapi is not installed (it is in the dev group)")

DOCUMENTS = [ROOT / path for path in listed() if path.endswith(".md") and "/assets/" not in path]
RUN = [ROOT / "docs/quickstart.md", *sorted((ROOT / "docs/how-to").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> list[str]:
    return [block[2] for block in BLOCK.finditer(document.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_block_is_python(document: Path) -> None:
    """It compiles; `await` may stand alone, as in a notebook. What it imports of the package can be imported."""
    for block in blocks(document):
        if block.lstrip().startswith(">>>"):
            continue  # run as a doctest
        tree = compile(block, str(document), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("traced_threadpool"):
                module = importlib.import_module(node.module or "")
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.slow
@pytest.mark.parametrize("document", RUN, ids=lambda path: path.stem)
def test_a_how_to_runs(document: Path, tmp_path: Path) -> None:
    """Its blocks one after the other, in a program of their own; it prints what the text says that it prints."""
    text = document.read_text(encoding="utf-8")
    program = "\n".join(block[2] for block in BLOCK.finditer(text) if not block[1])
    if not program:
        pytest.skip("all that is on the page needs something else")
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for promised in re.findall(r"[Ii]t prints(?: what Hamilton's would:)? `(.*?)`", text):
        assert promised in ran.stdout
