"""Files for GitHub and for those who contribute: valid by their schemas, and in step with the rest."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.house.layers import ROOT

pytest.importorskip("check_jsonschema", reason="needs the group dev")

SCHEMAS = {
    ".github/workflows/ci.yml": "vendor.github-workflows",
    ".github/workflows/release.yml": "vendor.github-workflows",
    ".github/dependabot.yml": "vendor.dependabot",
    ".github/ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/diagnosis.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
}


@pytest.mark.parametrize("path", SCHEMAS)
def test_a_file_for_github_is_valid(path: str) -> None:
    """By the schema that comes with check-jsonschema; nothing is downloaded."""
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[path], str(ROOT / path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_file_for_github_is_checked() -> None:
    """By a schema of its own, the templates of issues too."""
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / ".github").rglob("*.yml")}
    assert found == SCHEMAS.keys()


def test_ci_runs_on_every_python_that_the_package_names() -> None:
    """The classifiers, the workflow and the Makefile say the same."""
    classifiers = set(re.findall(r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text()))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    listed = re.search(r"python-version: \|\n((?:\s+3\.\d+\n)+)", workflow)
    assert listed is not None
    assert set(listed[1].split()) == classifiers
    versions = re.search(r"^VERSIONS \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert versions is not None
    assert set(versions[1].split()) == classifiers
