"""The README's first example does what the README says, and what documents lead to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")), *sorted(ROOT.glob("docs/*.md"))]


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_to_files(document: Path) -> None:
    """Of the repository; a heading that a link names is in its document."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, target


def test_grafana_and_jaeger_are_one_command_away() -> None:
    """In a section of that name, with a picture; the file that the command names is there."""
    [section] = re.findall(r"^## See it in Grafana and Jaeger\n(.*?)^## ", README.read_text(), re.MULTILINE | re.DOTALL)
    [file] = re.findall(r"^docker compose -f (\S+) up", section, re.MULTILINE)
    assert (ROOT / file).is_file()
    assert "![" in section


def test_the_sample_of_explain_is_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first finding of a small run; after a change of words, what is printed goes into the README."""
    pytest.importorskip("rich", reason="needs the extra [report]")
    from tests.analysis.diagnosed_runs import EXAMPLES
    from traced_threadpool.cli.program import main

    EXAMPLES["gil_bound"].save(tmp_path / "run.jsonl")
    assert main(["explain", str(tmp_path / "run.jsonl")]) == 0
    first = capsys.readouterr().out.split("\n\n")[1]
    shown = re.findall(r"^```\n(1\. .*?)\n```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert shown == [first]
