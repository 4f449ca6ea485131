"""Samples into what is kept of them in the documentation."""

from __future__ import annotations

from collections.abc import Sequence


def text(results: Sequence[object]) -> str:
    """Being written."""
    return ""


def summary(results: Sequence[object]) -> str:
    """Being written."""
    return ""
