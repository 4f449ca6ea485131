"""A table into a page of the documentation, between the marks that are there for it."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Puts the text there, in place of what was.

    Raises:
        ValueError: The page has no such marks.
    """
    whole = page.read_text(encoding="utf-8")
    before, found, rest = whole.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{str(page)!r} has no place for the table; expected the lines {begin!r} and {end!r}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
