"""What the tests of analyses share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its trace."""
    return tmp_path / "trace.json"
