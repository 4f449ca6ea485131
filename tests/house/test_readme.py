"""The front page and the documents: links lead somewhere, programs and outputs are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.layers import ROOT

README = ROOT / "README.md"
NAMES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
DOCUMENTS = [README, *(ROOT / name for name in NAMES), *sorted(ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_pictures_lead_to_files(document: Path) -> None:
    """Of the repository; a heading that a link names is in its document."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, target


def test_the_front_page_is_short() -> None:
    """And says nothing of how it came to be."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert re.findall(r"has not been|not run|used to|no longer|was added", text) == []
    assert len(re.findall(r"!\[", text)) == 2


def test_grafana_and_jaeger_are_one_command_away() -> None:
    """The file that the command names is there."""
    text = (ROOT / "docs/how-to/send.md").read_text(encoding="utf-8")
    [file] = re.findall(r"^docker compose -f (\S+) up", text, re.MULTILINE)
    assert (ROOT / file).is_file()


def test_outputs_in_the_documents_are_what_the_commands_print() -> None:
    """Of the records of the tutorial; after a change of words, `make docs` writes them anew."""
    pytest.importorskip("rich", reason="needs the extra [report]")
    from scripts.outputs import documents, with_outputs

    shown = list(documents())
    assert {path.name for path in shown} >= {"README.md", "tutorial.md"}
    for path in shown:
        assert path.read_text(encoding="utf-8") == with_outputs(path.read_text(encoding="utf-8"))


def test_the_costs_on_the_front_page_are_those_that_were_measured() -> None:
    """After `make bench`, `make docs` writes them anew."""
    from scripts.readme_costs import MEASURED, with_costs

    text = README.read_text(encoding="utf-8")
    assert text == with_costs(text, MEASURED.read_text(encoding="utf-8"))


def test_the_programs_of_the_tutorial(tmp_path: Path) -> None:
    """They run as they stand, print what the page says, and save their records."""
    pytest.importorskip("cloudpickle", reason="needs the extra [processes]")
    from scripts.tutorial import PAGE, RECORDS, programs, run
    from traced_threadpool.analysis import read_runs

    text = PAGE.read_text(encoding="utf-8")
    [promised] = re.findall(r"^It prints `(.*?)`", text, re.MULTILINE)
    for name, program in programs(text).items():
        assert run(program, tmp_path).strip() == promised
        nodes = [{node.name for node in read_runs(path)[-1].nodes} for path in (tmp_path / name, RECORDS / name)]
        assert nodes[0] == nodes[1]


@pytest.mark.parametrize("document", [README, *sorted(ROOT.glob("docs/**/*.md")), *ROOT.glob("examples/*/README.md")])
def test_the_package_is_installed_from_where_it_is(document: Path) -> None:
    """It is on no index: a text that says only its name would send the reader to whoever takes the name."""
    assert re.findall(r"pip install (?:-U |--upgrade )?[\"']?traced[_-]threadpool", document.read_text("utf-8")) == []
