"""What is excepted from a rule of a tool has its reason beside it."""

from __future__ import annotations

import re

from tests.house.layers import ROOT

EXCEPTION = re.compile(r"#\s*(?:type: ignore\[[^\]]*\]|noqa: [A-Z0-9, ]+?)(?P<reason>\s+#.*|)$", re.MULTILINE)


def test_an_exception_to_a_rule_has_its_reason_beside_it() -> None:
    """`# type: ignore[code]  # reason`, and likewise `# noqa: CODE`."""
    assert EXCEPTION.findall("x = y  # type: ignore[arg-type]\n") == [""]
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for folder in ("src", "examples", "benchmarks", "dashboards", "scripts")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for line in file.read_text().splitlines()
        for match in EXCEPTION.finditer(line)
        if not match["reason"].strip("# \t")
    ]
    assert found == []
