"""Check the built site: each link, picture and anchor leads to something in it, and nothing is loaded from elsewhere.

`python -m scripts.check_site site`. MkDocs checks what is Markdown; this checks what a browser gets.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

LOADED: Final = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src")}
"""What a browser asks for by itself."""


class Page(HTMLParser):
    """A page's anchors, and what it leads to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.foreign: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif (tag, name) in LOADED | {("a", "href")}:
                outside = bool(urlsplit(value).scheme or urlsplit(value).netloc)
                if outside and (tag, name) in LOADED and not value.startswith("data:"):
                    self.foreign.append(value)
                elif not outside:
                    self.targets.append(value)


def faults(site: Path) -> list[str]:
    """What leads nowhere, and what comes from elsewhere."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links begin at the site's root, wherever that is
        found += [f"{path}: loads {each}" for each in page.foreign]
        for target in page.targets:
            parts = urlsplit(target)
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            there = there / "index.html" if there.is_dir() else there
            if not there.exists():
                found.append(f"{path}: {target} is not there")
            elif parts.fragment and there.suffix == ".html" and not parts.fragment.startswith("__"):
                known = {each.resolve(): at for each, at in pages.items()}.get(there)
                if known is not None and unquote(parts.fragment) not in known.anchors:
                    found.append(f"{path}: {target} is not on that page")
    return found


def main() -> int:
    """Prints the faults; 1 if there are some."""
    site = Path(sys.argv[1])
    found = faults(site)
    print("\n".join(found) or f"{site}: {len(list(site.rglob('*.html')))} pages, every link leads somewhere")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
