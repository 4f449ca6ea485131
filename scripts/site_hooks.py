"""The documentation site's part of the repository: pages and files outside docs/, under project/.

Documents link to each other as files of the repository, so that links lead somewhere in an editor and a forge. On the
site, a link that leaves docs/ leads to the same file under project/: a Markdown file is a page there, a
directory its README, any other file a download.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parent.parent
PROJECT: Final = "project"
PAGES: Final = (
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "benchmarks/truth/README.md",
    "examples/pathologies/README.md",
    "examples/stdlib_survey/README.md",
)
LINK: Final = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FENCE: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages, and whatever files the documents lead to."""
    for path in PAGES:
        files.append(File.generated(config, f"{PROJECT}/{path}", abs_src_path=str(ROOT / path)))
    for page in [each for each in files if each.is_documentation_page()]:
        for target in (link[2] for part in _text(page.content_string) for link in LINK.finditer(part)):
            found = _outside(page.src_uri, target)
            if found is not None and found.is_file() and (uri := _uri(found)) not in files.src_uris:
                files.append(File.generated(config, uri, abs_src_path=str(found)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Leads links that leave docs/ to project/."""

    def lead(link: re.Match[str]) -> str:
        found = _outside(page.file.src_uri, link[2])
        if found is None:
            return link[0]
        uri = _uri(found / "README.md" if found.is_dir() else found)
        return f"{link[1]}{posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{link[3]}"

    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in FENCE.split(markdown))


def _text(markdown: str) -> list[str]:
    return [part for part in FENCE.split(markdown) if not part.startswith("```")]


def _source(uri: str) -> Path:
    """Where a page of the site is in the repository."""
    return ROOT / uri.removeprefix(f"{PROJECT}/") if uri.startswith(f"{PROJECT}/") else ROOT / "docs" / uri


def _uri(path: Path) -> str:
    """Where a file of the repository is on the site."""
    inside = path.relative_to(ROOT).as_posix()
    return inside.removeprefix("docs/") if inside.startswith("docs/") else f"{PROJECT}/{inside}"


def _outside(uri: str, target: str) -> Path | None:
    """The file of the repository that a link leads to, if the site has it in another place."""
    if re.match(r"[a-z]+:|/", target):
        return None
    source = _source(uri)
    found = Path(posixpath.normpath((source.parent / unquote(target)).as_posix()))
    if not found.is_relative_to(ROOT) or not found.exists():
        return None
    inside = found.is_relative_to(ROOT / "docs")
    return None if inside and not uri.startswith(f"{PROJECT}/") else found
