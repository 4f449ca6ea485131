"""The module map in the documents is of this tree."""

from __future__ import annotations

from scripts import module_map


def test_the_module_map_is_current() -> None:
    """`make docs` writes it from docstrings and from the table of imports."""
    text = module_map.DOCUMENT.read_text(encoding="utf-8")
    assert text == module_map.with_map(text), "the module map is out of date: run make docs"
