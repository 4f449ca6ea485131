"""What tests of the pathologies share: where they can run, and what each module says of itself."""

from __future__ import annotations

import importlib
import sys

import pytest

from examples.pathologies.pathology import Pathology

needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes through /proc")
needs_gil = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to wait for"
)


def pathology_of(name: str) -> Pathology:
    """What its module declares."""
    found: Pathology = importlib.import_module(f"examples.pathologies.{name}").PATHOLOGY
    return found


def text_of(name: str) -> str:
    """What the module says of itself."""
    return (importlib.import_module(f"examples.pathologies.{name}").__doc__ or "").strip()
