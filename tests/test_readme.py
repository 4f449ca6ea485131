"""The README's first example does what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_first_example_prints_what_the_text_says(tmp_path: Path) -> None:
    """As a user would: copied into a file of its own, and run."""
    text = README.read_text()
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    promised = re.search(r"It prints what Hamilton's would: `(.*?)`", text)
    assert example is not None
    assert promised is not None
    script = tmp_path / "example.py"
    script.write_text(example[1])
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=150, check=True)
    assert ran.stdout.strip() == promised[1]
    assert ran.stderr == ""
