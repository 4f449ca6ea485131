"""Execute the notebooks: `python -m scripts.notebooks`. With `--write`, keep their outputs.

Each runs in a kernel of its own, from its first cell to its last. A cell that raises ends it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient

ROOT: Final = Path(__file__).parent.parent
NOTEBOOKS: Final = ROOT / "examples/notebooks"
LIMIT_SECONDS: Final = 300


def executed(text: str) -> Any:
    """The notebook with the outputs of now.

    Raises:
        CellExecutionError: A cell raised.
    """
    notebook = nbformat.reads(text, as_version=4)
    NotebookClient(notebook, timeout=LIMIT_SECONDS, kernel_name="python3").execute(cwd=str(ROOT))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    return notebook


def main() -> None:
    """Executes all of them."""
    os.environ["HAMILTON_TELEMETRY_ENABLED"] = "false"
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = executed(path.read_text(encoding="utf-8"))
        print(f"{path.relative_to(ROOT)}: {len(notebook.cells)} cells executed")
        if "--write" in sys.argv[1:]:
            path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
